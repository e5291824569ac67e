//! Pages of lists: the cost of a page does not depend on its position in the list.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fmt::Write as _;

use capstan_engine::{Attributes, Cursor, Path, Snapshot, Timestamp};
use capstan_policy::{Catalogs, load_policy};

const NOW: Timestamp = Timestamp::new(1_795_000_000, 0);

/// A snapshot with this number of identities, all bound at `acme`. Every third identity has a second binding at
/// `acme/team`. Every tenth identity has a role without the capability.
fn snapshot(identities: usize) -> Snapshot {
    let mut document = String::from(
        "version: 1\ncatalog: {name: c, resources: [{name: r, actions: [get]}], \
         roles: [{name: reader, capabilities: [r.get]}, {name: idle, capabilities: []}]}\n\
         groups: [{id: acme}, {id: acme/team}]\nidentities:\n",
    );
    (0..identities).for_each(|at| writeln!(document, "  - {{id: acme/i{at:05}}}").unwrap());
    document.push_str("role_bindings:\n");
    for at in 0..identities {
        let role = if at % 10 == 9 { "idle" } else { "reader" };
        writeln!(document, "  - {{identity: acme/i{at:05}, role: {role}, scope: acme}}").unwrap();
        if at % 3 == 0 {
            let binding = format!("{{identity: acme/i{at:05}, role: {role}, scope: acme/team}}");
            writeln!(document, "  - {binding}").unwrap();
        }
    }
    let policy = load_policy(document.as_bytes(), &Catalogs::default()).unwrap();
    Snapshot::build(&policy.model, 1).unwrap()
}

#[test]
fn a_page_evaluates_only_its_own_entries() {
    let snapshot = snapshot(10_000);
    let resource = Path::parse("acme/team/x").unwrap();
    let page = |after: Option<&str>| {
        let cursor = Cursor { after, limit: 100 };
        let none = Attributes::NONE;
        snapshot.list_identities_page("r.get", resource, none, NOW, cursor).unwrap()
    };
    let mut all: Vec<String> = Vec::new();
    loop {
        let next = page(all.last().map(String::as_str));
        // 100 entries, the skipped identities (one in ten), and one more entry for `has_more`.
        assert!((100..=113).contains(&next.evaluated), "{} were evaluated", next.evaluated);
        let cursor = Cursor { after: all.last().map(String::as_str), limit: 100 };
        let none = Attributes::NONE;
        let with_conditional =
            snapshot.conditional_identities_page("r.get", resource, none, NOW, cursor).unwrap();
        assert_eq!(with_conditional.evaluated, next.evaluated);
        all.extend(next.entries.iter().map(|id| (*id).to_owned()));
        if !next.has_more {
            break;
        }
    }
    assert_eq!(all.len(), 9_000);
    assert!(all.is_sorted() && all.iter().all(|id| !id.ends_with('9')));
    let whole = snapshot.list_identities("r.get", resource, Attributes::NONE, NOW).unwrap();
    assert_eq!(all, whole);
    // A cursor can be a text between two entries, or after the last entry.
    assert_eq!(page(Some("acme/i00000x")).entries.first(), Some(&"acme/i00001"));
    assert_eq!(page(Some("b")).entries, Vec::<&str>::new());
    assert!(!page(Some("b")).has_more);
}

#[test]
fn a_page_of_roles_can_start_after_any_id() {
    let snapshot = snapshot(1);
    let after = |id| -> Vec<String> {
        snapshot.roles_after(id).iter().map(|role| role.id.to_string()).collect()
    };
    assert_eq!(after("reader"), ["idle"]);
    assert!(after("idle").is_empty());
}
