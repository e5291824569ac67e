//! Changes of which a part was made in the index, and which are taken back.

use capstan_engine::{Change, Group as Folder, Snapshot};

use super::group::{Base, Group, Judge};
use super::*;

fn new(id: &str) -> Change {
    Change::CreateGroup(Folder { id: path(id), name: String::new() })
}

fn allows(snapshot: &Snapshot, identity: &str, resource: &str) -> bool {
    let question = Question {
        identity: Path::parse(identity).unwrap(),
        capability: "repo.list",
        resource: Path::parse(resource).unwrap(),
        attributes: Attributes::NONE,
    };
    let decision = snapshot.check(&question, Timestamp::new(START, 0)).unwrap();
    decision.reason == capstan_engine::Reason::Granted
}

fn has(snapshot: &Snapshot, group: &str) -> bool {
    snapshot.is_group(path(group).as_path())
}

/// Writes before and after them are in the state that is published, with the state that the group began with; they are not.
#[tokio::test]
async fn a_part_of_a_change_is_not_in_the_index() {
    let journal = acme().await;
    let view = journal.view().await.unwrap();
    let load::Loaded { snapshot, quotas, tokens, .. } = load::load(&view).unwrap();
    let mut judge = Judge {
        quotas,
        refusals: Default::default(),
        limits: Limits::default(),
        reserved_issuers: vec![],
        trusted_issuers: vec![],
    };
    let now = Timestamp::new(START, 0);
    let mut group = Group::new(&Base { snapshot, tokens, view }).unwrap();
    let mut take = |group: &mut Group, operation| {
        group.take(&write(alice(), operation), &mut judge, now);
        assert!(group.answers.last().unwrap().is_ok());
    };
    take(&mut group, create("acme/first"));
    take(&mut group, create_identity("acme/first/bot"));
    let before = group.snapshot.clone();

    // The second one is refused, when the first is made.
    assert!(group.apply(&[new("acme/part"), new("acme/first")]).is_err());
    assert_eq!(group.snapshot.revision(), before.revision());
    for snapshot in [&group.snapshot, &before] {
        assert!(snapshot.is_registered(path("acme/first/bot").as_path()));
        assert!(has(snapshot, "acme/first") && !has(snapshot, "acme/part"));
    }

    take(&mut group, create("acme/second"));
    take(&mut group, bind("acme/first/bot", "viewer", "acme/second"));
    let after = &group.snapshot;
    assert!(has(after, "acme/second") && !has(after, "acme/part"));
    assert!(allows(after, "acme/first/bot", "acme/second/x"));
    assert!(!allows(after, "acme/first/bot", "acme/first/x"));
    assert!(allows(after, "alice", "acme/first/x"), "the state that it began with");
    // It is what the store has, too.
    let head = journal.head().await.unwrap();
    let batch = group.finish(&judge, now).unwrap();
    journal.append(head, batch).await.unwrap();
    let loaded = load::load(&journal.view().await.unwrap()).unwrap().snapshot;
    assert_eq!(loaded.revision(), group.snapshot.revision());
    for id in ["acme/first", "acme/second", "acme/part"] {
        assert_eq!(has(&loaded, id), has(&group.snapshot, id));
    }
    assert_eq!(loaded.bindings_len(), group.snapshot.bindings_len());
}
