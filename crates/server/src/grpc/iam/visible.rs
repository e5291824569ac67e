//! What a caller may see: rule R18 of the privileges, for Get and List.
//!
//! **Invariants**: only bindings without conditions, in time and of an enabled identity count. The capability is judged on
//! a path before the existence of what is there; hidden and absent are one error.

use std::borrow::Cow;
use std::collections::BTreeSet;

use capstan_engine::{Path, PathBuf, RoleBinding, Snapshot, Timestamp};
use capstan_iam::{Cause, Refusal, Rule};

use crate::RequestError;

/// The capability that tells a caller why it is refused, and reads resources whose type has no capabilities.
pub(super) const GROUPS_LIST: &str = "groups.list";

/// Who reads, and what they may see.
#[derive(Debug)]
pub(super) enum Viewer<'s> {
    /// Everything: the operator, and everybody if the policy is a file.
    Everything,
    /// What the rights of an identity show.
    Identity(Rights<'s>),
}

/// What an identity holds by bindings that authorize management calls.
#[derive(Debug)]
pub(super) struct Rights<'s> {
    pub(super) identity: PathBuf,
    snapshot: &'s Snapshot,
    now: Timestamp,
}

impl<'s> Rights<'s> {
    /// The rights of a registered and enabled identity.
    ///
    /// # Errors
    ///
    /// [`RequestError::AuthnFailed`]: it is not registered, or disabled.
    pub(super) fn of(
        identity: &PathBuf,
        snapshot: &'s Snapshot,
        now: Timestamp,
    ) -> Result<Self, RequestError> {
        let state = snapshot.identity_state(identity.as_path());
        if !state.is_some_and(|state| state.registered && !state.disabled) {
            return Err(RequestError::AuthnFailed);
        }
        Ok(Self { identity: identity.clone(), snapshot, now })
    }

    /// Whether the identity holds a capability at a path.
    pub(super) fn holds(&self, capability: &str, at: Path<'_>) -> bool {
        let held = self.snapshot.held(self.identity.as_path(), at, self.now).capabilities;
        self.snapshot.catalog().capability(capability).is_some_and(|one| held.contains(one))
    }

    /// The topmost scopes at which the identity holds one of these capabilities, sorted.
    fn scopes(&self, capabilities: &[&str]) -> Vec<PathBuf> {
        let catalog = self.snapshot.catalog();
        let wanted: Vec<_> = capabilities.iter().filter_map(|name| catalog.capability(name)).collect();
        let gives = |binding: &RoleBinding| {
            let role = self.snapshot.role(&binding.role);
            let gives = role.is_some_and(|role| {
                wanted.iter().any(|capability| role.capabilities.contains(*capability))
            });
            let counts = binding.when.is_empty() && binding.expires_at.is_none_or(|end| self.now < end);
            gives && counts
        };
        let bindings = self.snapshot.role_bindings(self.identity.as_path()).into_iter();
        let all: BTreeSet<_> = bindings.filter(gives).map(|binding| binding.scope).collect();
        let is_topmost = |scope: &&PathBuf| {
            let mut above = scope.as_path().ancestors().skip(1);
            !above.any(|path| all.contains(&PathBuf::from(path)))
        };
        all.iter().filter(is_topmost).cloned().collect()
    }
}

impl Viewer<'_> {
    /// Whether the viewer holds a capability at a path.
    pub(super) fn holds(&self, capability: &str, at: Path<'_>) -> bool {
        match self {
            Self::Everything => true,
            Self::Identity(rights) => rights.holds(capability, at),
        }
    }

    /// The identity that reads; `None` for one who sees everything.
    pub(super) fn identity(&self) -> Option<Path<'_>> {
        match self {
            Self::Everything => None,
            Self::Identity(rights) => Some(rights.identity.as_path()),
        }
    }

    /// Requires a capability at a path. What has no parent is the operator's.
    ///
    /// # Errors
    ///
    /// The viewer does not hold it. Who holds `groups.list` there is told what is missing; to all others nothing is
    /// there.
    pub(super) fn require(&self, capability: &str, at: Option<Path<'_>>) -> Result<(), RequestError> {
        let Self::Identity(rights) = self else { return Ok(()) };
        let Some(at) = at else { return Err(RequestError::NotFound) };
        if rights.holds(capability, at) {
            return Ok(());
        }
        if !rights.holds(GROUPS_LIST, at) {
            return Err(RequestError::NotFound);
        }
        let (scope, missing) = (PathBuf::from(at), vec![capability.to_owned()]);
        let (cause, rule) = if rights.snapshot.catalog().capability(capability).is_none() {
            let scope = Some(scope);
            (Cause::OperatorOnly { scope, absent: missing }, Some(Rule::ClosedCatalog))
        } else {
            (Cause::MissingCapability { scope, missing }, None)
        };
        let real = cause.clone();
        Err(Refusal { told: cause, real, rule, who_could: vec![] }.into())
    }

    /// Where the objects of a list lie, as far as the viewer holds one of these capabilities there, and at or below
    /// `parent` if there is one.
    pub(super) fn pieces(&self, capabilities: &[&str], parent: Option<Path<'_>>) -> Pieces {
        let Self::Identity(rights) = self else {
            return Pieces(parent.map_or_else(|| vec![Piece::All], |parent| subtree(parent).into()));
        };
        let mut pieces = Pieces::default();
        for scope in rights.scopes(capabilities) {
            let scope = scope.as_path();
            match parent {
                Some(parent) if scope.contains(parent) => pieces.0.extend(subtree(parent)),
                Some(parent) if !parent.contains(scope) => {}
                _ => pieces.0.extend(subtree(scope)),
            }
        }
        pieces.0.sort_unstable();
        pieces.0.dedup();
        pieces
    }
}

/// The capability that reads a resource of this type: its own, or [`GROUPS_LIST`] if the catalog has none.
pub(super) fn list_of_type<'t>(snapshot: &Snapshot, kind: &str) -> Cow<'t, str> {
    let own = format!("{kind}.list");
    match snapshot.catalog().capability(&own) {
        Some(_) => Cow::Owned(own),
        None => Cow::Borrowed(GROUPS_LIST),
    }
}

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
    use capstan_policy::{Catalogs, load_policy};

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    const POLICY: &str = "
version: 1
catalog:
  name: c
  resources:
    - {name: groups, actions: [list]}
    - {name: roles, actions: [list]}
    - {name: repo, actions: [list]}
  roles:
    - {name: reader, capabilities: [groups.list, roles.list]}
    - {name: groups, capabilities: [groups.list]}
    - {name: roles, capabilities: [roles.list]}
groups: [{id: a}, {id: a/b}, {id: a-b}, {id: x}, {id: y}]
identities: [{id: reader}, {id: some}, {id: late}, {id: only}, {id: nobody}]
role_bindings:
  - {identity: reader, role: reader, scope: a}
  - {identity: reader, role: reader, scope: a/b}
  - {identity: reader, role: groups, scope: x}
  - {identity: some, role: groups, scope: a}
  - {identity: some, role: reader, scope: x, when: [{attribute: context.mfa, equals: true}]}
  - {identity: late, role: reader, scope: a, expires_at: 1970-01-01T00:00:00Z}
  - {identity: only, role: roles, scope: a}
";

    fn snapshot() -> Snapshot {
        let policy = load_policy(POLICY.as_bytes(), &Catalogs::default()).unwrap();
        Snapshot::build(&policy.model, 1).unwrap()
    }

    fn path(text: &str) -> PathBuf {
        text.parse().unwrap()
    }

    fn viewer<'s>(snapshot: &'s Snapshot, identity: &str) -> Viewer<'s> {
        Viewer::Identity(Rights::of(&path(identity), snapshot, NOW).unwrap())
    }

    fn require(identity: &str, capability: &str, at: &str) -> Result<(), RequestError> {
        viewer(&snapshot(), identity).require(capability, Some(path(at).as_path()))
    }

    #[test]
    fn only_unconditional_bindings_in_time_count() {
        assert_eq!(require("reader", "roles.list", "a/b/c"), Ok(()));
        assert_eq!(require("reader", "roles.list", "a-b"), Err(RequestError::NotFound));
        assert_eq!(require("some", "groups.list", "x"), Err(RequestError::NotFound));
        assert_eq!(require("late", "groups.list", "a"), Err(RequestError::NotFound));
        assert_eq!(require("nobody", "groups.list", "a"), Err(RequestError::NotFound));
        assert_eq!(
            viewer(&snapshot(), "reader").require("groups.list", None),
            Err(RequestError::NotFound)
        );
        assert_eq!(Viewer::Everything.require("roles.list", None), Ok(()));
        let unknown = Rights::of(&path("unknown"), &snapshot(), NOW).map(|_| ());
        assert_eq!(unknown, Err(RequestError::AuthnFailed));
    }

    #[test]
    fn who_lists_groups_is_told_what_is_missing() {
        let told = |identity, capability| match require(identity, capability, "a") {
            Err(RequestError::Refused(refusal)) => refusal.told,
            other => panic!("{other:?}"),
        };
        let missing = vec!["roles.list".to_owned()];
        let expected = Cause::MissingCapability { scope: path("a"), missing };
        assert_eq!(told("some", "roles.list"), expected);
        let absent = vec!["identity.list".to_owned()];
        let expected = Cause::OperatorOnly { scope: Some(path("a")), absent };
        assert_eq!(told("some", "identity.list"), expected);
        assert_eq!(require("only", "identity.list", "a"), Err(RequestError::NotFound));
        assert_eq!(require("only", "roles.list", "a"), Ok(()));
    }

    /// The ids of a list, all at once and page by page of one.
    fn listed(pieces: &Pieces, ids: &[&str]) -> Vec<String> {
        let mut sorted: Vec<_> = ids.to_vec();
        sorted.sort_unstable();
        let of = |after: Option<&str>| -> Vec<String> {
            let mut found = vec![];
            for (piece, from) in pieces.after(after) {
                let one = Pieces(vec![piece.clone()]);
                let ids = sorted.iter().filter(|id| from.is_none_or(|from| **id > from));
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
    fn lists_are_sorted_and_hold_what_is_visible() {
        let ids = ["a", "a-b", "a-b/c", "a/b", "a/b/c", "a.b", "b", "x", "x/y", "y"];
        let snapshot = snapshot();
        let reader = viewer(&snapshot, "reader");
        let of = |viewer: &Viewer<'_>, capability: &str, parent: Option<&str>| {
            let parent = parent.map(path);
            listed(&viewer.pieces(&[capability], parent.as_ref().map(PathBuf::as_path)), &ids)
        };
        assert_eq!(of(&reader, "groups.list", None), ["a", "a/b", "a/b/c", "x", "x/y"]);
        assert_eq!(of(&reader, "roles.list", None), ["a", "a/b", "a/b/c"]);
        assert_eq!(of(&reader, "groups.list", Some("a/b")), ["a/b", "a/b/c"]);
        assert_eq!(of(&reader, "groups.list", Some("y")), [""; 0]);
        assert_eq!(of(&reader, "identity.list", None), [""; 0]);
        assert_eq!(of(&Viewer::Everything, "x", None).len(), ids.len());
        assert_eq!(of(&Viewer::Everything, "x", Some("a")), ["a", "a/b", "a/b/c"]);
        let mut pieces = reader.pieces(&["groups.list"], None);
        assert!(pieces.contains("a/b") && !pieces.contains("a-b"));
        pieces.add(["a-b", "y"].into_iter().map(path));
        let expected = ["a", "a-b", "a/b", "a/b/c", "x", "x/y", "y"];
        assert_eq!(listed(&pieces, &ids), expected);
    }

    #[test]
    fn resources_have_the_capability_of_their_type() {
        let snapshot = snapshot();
        assert_eq!(list_of_type(&snapshot, "repo"), "repo.list");
        assert_eq!(list_of_type(&snapshot, "record"), GROUPS_LIST);
        assert_eq!(list_of_type(&snapshot, ""), GROUPS_LIST);
    }
}
