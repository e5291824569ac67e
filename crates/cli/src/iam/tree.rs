//! Trees of lines: nodes by path, or built by a command.

use std::collections::BTreeMap;

/// A line and those below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) line: String,
    pub(crate) below: Vec<Node>,
}

impl Node {
    pub(crate) fn new(line: impl Into<String>) -> Self {
        Self { line: line.into(), below: Vec::new() }
    }

    /// The lines of the tree.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.line.clone()];
        self.draw("", &mut lines);
        lines
    }

    fn draw(&self, indent: &str, lines: &mut Vec<String>) {
        let mut rest = self.below.iter().peekable();
        while let Some(node) = rest.next() {
            let (branch, go_on) = if rest.peek().is_some() {
                ("├── ", "│   ")
            } else {
                ("└── ", "    ")
            };
            lines.push(format!("{indent}{branch}{}", node.line));
            node.draw(&format!("{indent}{go_on}"), lines);
        }
    }
}

/// The trees of objects by their paths: a node for each segment, with the object's label behind its own.
pub(crate) fn by_path<'o>(objects: impl IntoIterator<Item = (&'o str, String)>) -> Vec<Node> {
    let mut root = Segment::default();
    for (path, label) in objects {
        let mut at = &mut root;
        for segment in path.split('/') {
            at = at.below.entry(segment).or_default();
        }
        at.label = label;
    }
    root.nodes()
}

#[derive(Debug, Default)]
struct Segment<'o> {
    label: String,
    below: BTreeMap<&'o str, Segment<'o>>,
}

impl Segment<'_> {
    fn nodes(self) -> Vec<Node> {
        let node = |(segment, below): (&str, Segment<'_>)| {
            let gap = if below.label.is_empty() { "" } else { "  " };
            Node { line: format!("{segment}{gap}{}", below.label), below: below.nodes() }
        };
        self.below.into_iter().map(node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_a_tree_whatever_their_order() {
        let objects = [
            ("acme/web/eu", "Europe"),
            ("acme", "Acme Corp"),
            ("acme-2", ""),
            ("acme/web", ""),
            ("acme/db/one", ""),
        ];
        let trees = by_path(objects.map(|(path, label)| (path, label.to_owned())));
        let lines: Vec<_> = trees.iter().flat_map(Node::lines).collect();
        assert_eq!(
            lines,
            ["acme  Acme Corp", "├── db", "│   └── one", "└── web", "    └── eu  Europe", "acme-2",]
        );
    }
}
