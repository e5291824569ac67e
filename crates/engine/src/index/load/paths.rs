//! Paths while facts are collected: a tree of segments, so that a text which many paths begin with is stored once.
//!
//! ```text
//! node     fingerprint   parent   start and length of its segment   what it names   position among those
//! table    fingerprint ─▶ node
//! ```

use hashbrown::HashTable;

use crate::PATH_SEGMENTS_MAX;
use crate::index::hash::{Fingerprint, Seed};

/// The parent of a path of one segment.
const ROOT: u32 = u32::MAX;

/// What a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// Nothing: it is only the beginning of other paths.
    Nothing,
    Group,
    Resource,
    Identity,
    Role,
    Binding,
}

#[derive(Debug)]
struct Node {
    /// That of the whole path, which identifies it (`hash.rs`).
    fingerprint: Fingerprint,
    parent: u32,
    start: u32,
    length: u8,
    named: Named,
    position: u32,
}

/// Paths by their texts, each with what it names and its position among those of its kind.
#[derive(Debug)]
pub(super) struct Paths {
    seed: Seed,
    nodes: Vec<Node>,
    /// All segments, one behind the other.
    text: String,
    table: HashTable<u32>,
    /// The parent of the path that was inserted last, and its node: the next one has it often.
    parent: (String, u32),
}

impl Paths {
    pub(super) const fn new(seed: Seed) -> Self {
        let parent = (String::new(), ROOT);
        Self { seed, nodes: vec![], text: String::new(), table: HashTable::new(), parent }
    }

    pub(super) const fn seed(&self) -> &Seed {
        &self.seed
    }

    /// The node of a path, if it or a longer one was inserted.
    pub(super) fn find(&self, path: &str) -> Option<u32> {
        self.find_by(self.seed.fingerprint(path.as_bytes()), path)
    }

    fn find_by(&self, fingerprint: Fingerprint, path: &str) -> Option<u32> {
        let node = |number: &u32| self.nodes.get(*number as usize);
        let is_same =
            |number: &u32| node(number).is_some_and(|node| node.fingerprint == fingerprint);
        let found = self.table.find(hash(fingerprint), is_same).copied();
        debug_assert!(
            found
                .and_then(|found| node(&found))
                .is_none_or(|node| path.ends_with(self.segment(node))),
            "two paths with one fingerprint"
        );
        found
    }

    /// The node of a path. `None` if there are too many paths: four billion, or four gigabytes of segments.
    pub(super) fn insert(&mut self, path: &str) -> Option<u32> {
        let fingerprint = self.seed.fingerprint(path.as_bytes());
        if let Some(found) = self.find_by(fingerprint, path) {
            return Some(found);
        }
        let (parent, segment) = match path.rsplit_once('/') {
            Some((parent, segment)) if self.parent.0 == parent => (self.parent.1, segment),
            Some((parent, segment)) => {
                // A path has few segments.
                let node = self.insert(parent)?;
                self.parent.0.clear();
                self.parent.0.push_str(parent);
                self.parent.1 = node;
                (node, segment)
            }
            None => (ROOT, path),
        };
        let number = u32::try_from(self.nodes.len()).ok().filter(|number| *number < ROOT)?;
        let start = u32::try_from(self.text.len()).ok()?;
        let length = u8::try_from(segment.len()).ok()?;
        self.text.push_str(segment);
        let named = Named::Nothing;
        self.nodes.push(Node { fingerprint, parent, start, length, named, position: 0 });
        let Self { nodes, table, .. } = self;
        table.insert_unique(hash(fingerprint), number, |number| {
            nodes.get(*number as usize).map_or(0, |node| hash(node.fingerprint))
        });
        Some(number)
    }

    /// No node is found by its path any more, and none is inserted. A large policy is indexed with little memory
    /// beside it.
    pub(super) fn forget_table(&mut self) {
        self.table = HashTable::new();
    }

    /// Whether this is the path of a node.
    pub(super) fn is(&self, node: u32, path: &str) -> bool {
        let node = self.nodes.get(node as usize);
        node.is_some_and(|node| {
            path.ends_with(self.segment(node))
                && node.fingerprint == self.seed.fingerprint(path.as_bytes())
        })
    }

    fn segment(&self, node: &Node) -> &str {
        let start = node.start as usize;
        self.text.get(start..start + usize::from(node.length)).unwrap_or_default()
    }

    /// What a node names, and its position among those of its kind.
    pub(super) fn named(&self, node: u32) -> (Named, u32) {
        self.nodes
            .get(node as usize)
            .map_or((Named::Nothing, 0), |node| (node.named, node.position))
    }

    /// Sets what a node names.
    pub(super) fn name(&mut self, node: u32, named: Named, position: u32) {
        if let Some(node) = self.nodes.get_mut(node as usize) {
            (node.named, node.position) = (named, position);
        }
    }

    /// The node of the parent of a path.
    pub(super) fn parent(&self, node: u32) -> Option<u32> {
        self.nodes.get(node as usize).map(|node| node.parent).filter(|parent| *parent != ROOT)
    }

    /// Replaces the text by the path of a node.
    pub(super) fn write(&self, node: u32, text: &mut String) {
        let mut segments = [""; PATH_SEGMENTS_MAX];
        let mut count = 0;
        let mut next = Some(node);
        while let Some(found) = next.and_then(|node| self.nodes.get(node as usize))
            && let Some(segment) = segments.get_mut(count)
        {
            *segment = self.segment(found);
            count += 1;
            next = Some(found.parent);
        }
        text.clear();
        for segment in segments.iter().take(count).rev() {
            if !text.is_empty() {
                text.push('/');
            }
            text.push_str(segment);
        }
    }
}

/// Half of a fingerprint, whose other half chooses shards of tables.
#[expect(clippy::cast_possible_truncation, reason = "only these bits are wanted")]
const fn hash(fingerprint: Fingerprint) -> u64 {
    fingerprint.0 as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_written_as_they_were_inserted() {
        let mut paths = Paths::new(Seed::random());
        let long = ["s".repeat(128), "t".repeat(128)].join("/");
        let deep = ["d"; PATH_SEGMENTS_MAX].join("/");
        let all = ["acme", "acme/dev/web", "acme/dev", "b/acme", &*long, &*deep];
        let nodes: Vec<_> = all.iter().map(|path| paths.insert(path).unwrap()).collect();
        let mut text = String::from("before");
        for (path, node) in all.iter().zip(&nodes) {
            assert_eq!(paths.find(path), Some(*node));
            assert_eq!(paths.insert(path), Some(*node));
            paths.write(*node, &mut text);
            assert_eq!(text, *path);
        }
        assert_eq!(paths.find("acme/web"), None);
        for (path, node) in all.iter().zip(&nodes) {
            assert!(all.iter().all(|other| paths.is(*node, other) == (other == path)), "{path}");
        }
        assert!(!paths.is(u32::MAX, "acme"));
        let beginning = paths.find("b").unwrap();
        assert_eq!(paths.named(beginning), (Named::Nothing, 0));
        paths.name(beginning, Named::Group, 7);
        assert_eq!(paths.named(beginning), (Named::Group, 7));
        assert_eq!(paths.parent(nodes[3]), Some(beginning));
        assert_eq!(paths.parent(beginning), None);
    }
}
