//! Pages of lists: what a page costs does not depend on where it stands.

#![expect(clippy::unwrap_used, reason = "test code")]

use std::fmt::Write as _;

use capstan_engine::{Attributes, Cursor, Path, Snapshot, Timestamp};
use capstan_policy::{Catalogs, load_policy};

const NOW: Timestamp = Timestamp::new(1_795_000_000, 0);

/// So many identities at `acme`; every third has a binding at `acme/team`, too, and every tenth is bound to a
/// role without the capability.
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
fn a_page_evaluates_what_it_holds_and_nothing_before() {
    let snapshot = snapshot(10_000);
    let resource = Path::parse("acme/team/x").unwrap();
    let page = |after: Option<&str>| {
        let cursor = Cursor { after, limit: 100 };
        let none = Attributes::NONE;
        snapshot.page_of_identities("r.get", resource, none, NOW, cursor).unwrap()
    };
    let mut all: Vec<String> = Vec::new();
    loop {
        let next = page(all.last().map(String::as_str));
        // 100 entries, one in ten that has no capability, and one to see whether more follow.
        assert!((100..=113).contains(&next.evaluated), "{} were evaluated", next.evaluated);
        all.extend(next.entries.iter().map(|id| (*id).to_owned()));
        if !next.more {
            break;
        }
    }
    assert_eq!(all.len(), 9_000);
    assert!(all.is_sorted() && all.iter().all(|id| !id.ends_with('9')));
    let whole = snapshot.list_identities("r.get", resource, Attributes::NONE, NOW).unwrap();
    assert_eq!(all, whole);
    // A cursor need not be an entry, and may lie beyond the list.
    assert_eq!(page(Some("acme/i00000x")).entries.first(), Some(&"acme/i00001"));
    assert_eq!(page(Some("b")).entries, Vec::<&str>::new());
    assert!(!page(Some("b")).more);
}

#[test]
fn roles_go_on_after_any_id() {
    let snapshot = snapshot(1);
    let after = |id| -> Vec<String> {
        snapshot.roles_after(id).iter().map(|role| role.id.to_string()).collect()
    };
    assert_eq!(after("reader"), ["idle"]);
    assert!(after("idle").is_empty());
}
