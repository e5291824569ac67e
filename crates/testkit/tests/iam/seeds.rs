//! Sentences of the overview of roles, as they were written, for the catalogs of 2025 and 2023.

use capstan_iam::{Actor, Kind, Rule};
use capstan_testkit::managed::operations::{
    actor, bind, delete_role, folder, identity, role, unbind, update_role,
};

use crate::common::*;

#[test]
fn an_owner_creates_updates_and_deletes_a_custom_role_and_a_viewer_lists_it() {
    let mut world = acme();
    does(&mut world, "alice", &role("acme/puller", &["repo.list", "manifest.list"]));
    assert_eq!(world.list(&actor("bob"), Kind::Role), ["acme/puller"]);
    assert!(world.get(&actor("bob"), Kind::Role, "acme/puller").is_ok());
    let by_viewer = [
        (role("acme/other", &["repo.list"]), "roles.create"),
        (update_role("acme/puller", &["repo.list"]), "roles.update"),
        (delete_role("acme/puller"), "roles.delete"),
    ];
    for (operation, missing) in by_viewer {
        misses(&refused(&world, "bob", &operation), None, "acme", &[missing]);
    }
    does(&mut world, "alice", &update_role("acme/puller", &["repo.list"]));
    does(&mut world, "alice", &delete_role("acme/puller"));
    assert!(world.list(&actor("bob"), Kind::Role).is_empty());
}

#[test]
fn apk_pull_reads_its_organization_and_nothing_else() {
    let mut world = acme();
    does(&mut world, "alice", &bind("acme/ci", "apk.pull", "acme"));
    let ci = actor("acme/ci");
    assert!(world.get(&ci, Kind::Group, "acme").is_ok());
    assert_eq!(world.list(&ci, Kind::Group), ["acme", "acme/platform", "acme/shop"]);
    assert_eq!(world.list(&ci, Kind::Identity), ["acme/ci"], "itself");
    assert!(world.list(&ci, Kind::Role).is_empty());
    assert!(world.get(&ci, Kind::Group, "globex").is_err());
}

/// Inviting has no method yet. What it needs is what an editor lacks.
#[test]
fn an_editor_cannot_invite() {
    let world = acme();
    let erin = actor("erin");
    let reader = world.reader(&erin).unwrap();
    let acme = capstan_engine::Path::parse("acme").unwrap();
    assert!(reader.holds("group_invites.list", acme));
    assert!(!reader.holds("group_invites.create", acme));
    assert!(!reader.holds("role_bindings.create", acme));
}

/// The editor of 2023 creates role bindings; the rules keep it an editor.
#[test]
fn the_editor_of_2023_gives_what_it_has_and_no_more() {
    let mut world = two_organizations(built_in("chainguard-2023-12-07"));
    does(&mut world, "erin", &bind("mallory", "viewer", "acme/shop"));
    does(&mut world, "erin", &bind("mallory", "editor", "acme/platform"));
    let missing = [
        "account_associations.create",
        "account_associations.delete",
        "account_associations.update",
        "group_invites.create",
        "group_invites.delete",
        "groups.create",
        "groups.delete",
        "groups.update",
        "images.create",
        "images.delete",
        "images.update",
        "policies.create",
        "policies.delete",
        "policies.update",
    ];
    for friend in ["erin", "mallory"] {
        let refusal = refused(&world, "erin", &bind(friend, "owner", "acme"));
        misses(&refusal, Some(Rule::Grant), "acme", &missing);
    }
    let owner = id_of(&world, "alice", "owner", "acme");
    misses(&refused(&world, "erin", &unbind(&owner)), Some(Rule::Delete), "acme", &missing);
    misses(&refused(&world, "erin", &folder("acme/new")), None, "acme", &["groups.create"]);
}

/// The catalog of 2023 has no capability for identities, and of roles only the list: those methods are the
/// operator's, and that is told to who may see the group.
#[test]
fn what_no_role_of_2023_holds_is_the_operators() {
    let mut world = two_organizations(built_in("chainguard-2023-12-07"));
    for operation in [identity("acme/new"), role("acme/puller", &["images.list"])] {
        let refusal = refused(&world, "alice", &operation);
        assert_eq!(reason(&refusal), "OPERATOR_ONLY", "{refusal}");
        assert_eq!(refusal.rule, Some(Rule::ClosedCatalog));
        assert_eq!(reason(&refused(&world, "mallory", &operation)), "NOT_FOUND");
        done(&mut world, &Actor::Operator, &operation);
    }
}
