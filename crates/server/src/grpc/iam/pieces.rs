//! Where the objects of a list lie: parts of all ids, which are sorted by their bytes.

use capstan_engine::{Path, PathBuf};

/// A part of all ids, which are sorted by their bytes. Between `a` and `a/b` lies `a-b`: a subtree is two parts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Piece {
    /// Every id.
    All,
    /// This id.
    One(String),
    /// Ids that begin with this, which ends in a slash.
    Below(String),
}

impl Piece {
    /// The first text that can be in this part.
    fn start(&self) -> &str {
        match self {
            Self::All => "",
            Self::One(id) => id,
            Self::Below(prefix) => prefix,
        }
    }
}

/// Parts of all ids, none in another, in order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pieces(Vec<Piece>);

fn subtree(path: Path<'_>) -> [Piece; 2] {
    [Piece::One(path.as_str().to_owned()), Piece::Below(format!("{path}/"))]
}

impl Pieces {
    /// Every id, or those at and below a path.
    pub(super) fn all(parent: Option<Path<'_>>) -> Self {
        Self(parent.map_or_else(|| vec![Piece::All], |parent| subtree(parent).into()))
    }

    /// The ids at and below these paths, none of which lies below another, as far as they are at or below `parent`.
    pub(super) fn below(scopes: &[PathBuf], parent: Option<Path<'_>>) -> Self {
        let mut pieces = vec![];
        for scope in scopes.iter().map(PathBuf::as_path) {
            match parent {
                Some(parent) if scope.contains(parent) => pieces.extend(subtree(parent)),
                Some(parent) if !parent.contains(scope) => {}
                _ => pieces.extend(subtree(scope)),
            }
        }
        Self(pieces)
    }

    /// Whether an id is in one of the parts.
    pub(super) fn contains(&self, id: &str) -> bool {
        self.0.iter().any(|piece| match piece {
            Piece::All => true,
            Piece::One(one) => one == id,
            Piece::Below(prefix) => id.starts_with(&**prefix),
        })
    }

    /// Adds ids that are in none of the parts.
    pub(super) fn add(&mut self, ids: impl Iterator<Item = PathBuf>) {
        self.0.extend(ids.map(|id| Piece::One(id.to_string())));
    }

    /// The parts that have ids after this one, in order, each with the id to begin after.
    pub(super) fn after<'p>(&'p self, after: Option<&'p str>) -> Vec<(&'p Piece, Option<&'p str>)> {
        let mut pieces: Vec<_> = self.0.iter().collect();
        pieces.sort_unstable_by_key(|piece| piece.start());
        let begins = |piece: &'p Piece| match (piece, after) {
            (_, None) => Some((piece, None)),
            (Piece::All, Some(after)) => Some((piece, Some(after))),
            (Piece::One(id), Some(after)) => (&**id > after).then_some((piece, None)),
            (Piece::Below(prefix), Some(after)) if after.starts_with(&**prefix) => {
                Some((piece, Some(after)))
            }
            (Piece::Below(prefix), Some(after)) => (&**prefix > after).then_some((piece, None)),
        };
        pieces.into_iter().filter_map(begins).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [&str; 10] = ["a", "a-b", "a-b/c", "a.b", "a/b", "a/b/c", "b", "x", "x/y", "y"];

    fn path(text: &str) -> PathBuf {
        text.parse().unwrap()
    }

    /// The ids of a list, which are the same all at once and in pages of one.
    fn listed(pieces: &Pieces) -> Vec<String> {
        let of = |after: Option<&str>| -> Vec<String> {
            let mut found = vec![];
            for (piece, from) in pieces.after(after) {
                let one = Pieces(vec![piece.clone()]);
                let ids = IDS.iter().filter(|id| from.is_none_or(|from| **id > from));
                found.extend(ids.filter(|id| one.contains(id)).map(|id| (*id).to_owned()));
            }
            found
        };
        let all = of(None);
        let (mut paged, mut after) = (vec![], None);
        while let Some(next) = of(after.as_deref()).into_iter().next() {
            paged.push(next.clone());
            after = Some(next);
        }
        assert_eq!(all, paged);
        assert!(all.is_sorted(), "{all:?}");
        all
    }

    #[test]
    fn the_parts_of_subtrees_are_in_order() {
        assert!(IDS.is_sorted());
        let below = |scopes: &[&str], parent: Option<&str>| {
            let scopes: Vec<_> = scopes.iter().copied().map(path).collect();
            let parent = parent.map(path);
            listed(&Pieces::below(&scopes, parent.as_ref().map(PathBuf::as_path)))
        };
        let ab = ["a", "a-b", "a-b/c", "a/b", "a/b/c"];
        assert_eq!(below(&["a", "a-b"], None), ab);
        assert_eq!(below(&["a-b", "a"], None), ab);
        assert_eq!(below(&["a"], Some("a/b")), ["a/b", "a/b/c"]);
        assert_eq!(below(&["a/b", "x"], Some("a")), ["a/b", "a/b/c"]);
        assert_eq!(below(&["a", "x"], Some("y")), [""; 0]);
        assert_eq!(below(&[], None), [""; 0]);
        assert_eq!(listed(&Pieces::all(None)), IDS);
        let parent = path("a");
        assert_eq!(listed(&Pieces::all(Some(parent.as_path()))), ["a", "a/b", "a/b/c"]);
    }

    #[test]
    fn more_ids_are_listed_in_their_places() {
        let mut pieces = Pieces::below(&[path("a/b"), path("x")], None);
        assert!(pieces.contains("a/b/z") && !pieces.contains("a-b"));
        pieces.add(["y", "a-b"].into_iter().map(path));
        assert_eq!(listed(&pieces), ["a-b", "a/b", "a/b/c", "x", "x/y", "y"]);
    }
}
