//! One command twice with one request id, on a real store: it is done once, and both runs say the same, also where the first
//! has taken away what the second would read.

use serde_json::Value;

use super::end_to_end::Store;
use crate::common::stderr;

/// Runs a command twice with one request id. Returns what both print.
fn twice(store: &Store, line: &[&str], id: &str) -> Value {
    let line = [line, &["--request-id", id]].concat();
    let first = store.json(&line);
    assert_eq!(store.json(&line), first, "{line:?}");
    first
}

fn etag(made: &Value, kind: &str) -> String {
    made[kind]["etag"].as_str().unwrap().to_owned()
}

#[test]
fn what_is_created_changed_and_deleted_is_so_once() {
    let store = Store::start("manage-repeats");
    twice(&store, &["iam", "folders", "create", "acme/db"], "folder");
    twice(&store, &["iam", "folders", "create", "--parent", "acme/db"], "generated");
    let made = twice(&store, &["iam", "folders", "create", "acme/gone"], "gone");
    twice(&store, &["iam", "folders", "update", "acme/gone", "--name", "Gone"], "renamed");
    twice(&store, &["iam", "folders", "delete", "acme/gone", "--yes"], "deleted");
    let update = ["iam", "folders", "update", "acme/gone", "--name", "Gone"];
    let again = store.json(&[&update[..], &["--request-id", "renamed"]].concat());
    assert_eq!(again["group"]["id"], made["group"]["id"], "it is not there any more");
    store.refused(&["iam", "folders", "delete", "acme/gone", "--yes"], "NOT_FOUND");

    let bind = |id: &str, role: &str| {
        let line = ["iam", "bindings", "create", "--identity", "alice", "--group", "acme/db"];
        let end = ["--expires-at", "2099-01-01T00:00:00Z"];
        twice(&store, &[&line[..], &["--role", role, "--id", id], &end].concat(), id);
    };
    bind("one", "viewer");
    bind("two", "editor");
    let update = ["iam", "bindings", "update", "acme/db/one", "--no-expiry"];
    twice(&store, &update, "no-expiry");
    let delete = ["iam", "bindings", "delete", "acme/db/one", "acme/db/two", "--yes"];
    twice(&store, &delete, "both");
    bind("three", "viewer");
    twice(&store, &["iam", "bindings", "delete", "acme/db/three", "--yes"], "third");
    store.done(&["--operator", "iam", "identities", "create", "bob"]);
    let bind = ["iam", "bindings", "create", "--identity", "bob", "--role", "viewer"];
    twice(&store, &[&bind[..], &["--group", "acme"]].concat(), "bob");
    twice(&store, &["iam", "remove-member", "bob", "--organization", "acme", "--yes"], "leaves");
}

/// What is read and changed is the same request only with the etag of the first reading.
#[test]
fn what_is_read_and_changed_is_so_once_with_its_etag() {
    let store = Store::start("manage-repeats-etag");
    let create = ["iam", "roles", "create", "acme/reader", "--capability", "repo.list,groups.list"];
    let made = twice(&store, &create, "role");
    let change = ["--add-capability", "tag.list", "--remove-capability", "repo.list"];
    let update = [&["iam", "roles", "update", "acme/reader"], &change[..]].concat();
    let with = |line: &[&str], etag: &str, id: &str| {
        twice(&store, &[line, &["--etag", etag]].concat(), id);
    };
    with(&update, &etag(&made, "role"), "capabilities");
    twice(&store, &["iam", "roles", "delete", "acme/reader", "--yes"], "no-role");

    let change = ["--property", "a=2", "--remove-property", "b"];
    let before = ["--property", "a=1", "--property", "b=1"];
    let create = [&["iam", "identities", "create", "acme/ci", "--type", "service"], &before[..]];
    let made = twice(&store, &create.concat(), "identity");
    let update = [&["iam", "identities", "update", "acme/ci"], &change[..]].concat();
    with(&update, &etag(&made, "identity"), "properties");
    twice(&store, &["iam", "identities", "disable", "acme/ci"], "off");
    twice(&store, &["iam", "identities", "delete", "acme/ci", "--yes"], "no-identity");
    let create = [&["iam", "resources", "create", "acme/web", "--type", "repo"], &before[..]];
    let made = twice(&store, &create.concat(), "resource");
    let update = [&["iam", "resources", "update", "acme/web"], &change[..]].concat();
    with(&update, &etag(&made, "resource"), "of-resource");

    let bind = ["iam", "bindings", "create", "--identity", "alice", "--role", "viewer"];
    for (line, text) in [
        (&["iam", "roles", "update", "acme/x", "--add-capability", "tag.list"][..], "give --etag"),
        (&["iam", "identities", "update", "acme/x", "--property", "a=1"], "give --etag"),
        (&["iam", "resources", "update", "acme/x", "--remove-property", "a"], "give --etag"),
        (&[&bind[..], &["--group", "acme", "--ttl", "1d"]].concat(), "give --expires-at instead"),
        (&["iam", "bindings", "update", "acme/x", "--ttl", "1d"], "give --expires-at instead"),
    ] {
        let output = store.run(&[line, &["--request-id", "r"]].concat());
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{line:?}: {error}");
        let expected = "a repetition would be another request; give --";
        assert!(error.contains(expected) && error.contains(text), "{line:?}: {error}");
    }
}
