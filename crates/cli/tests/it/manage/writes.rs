//! Writes: the requests that are sent, what is said of them, and questions before a delete.

use serde_json::json;

use super::server::Fake;
use super::{done, failed, json_of};

#[test]
fn an_organization_is_created_with_its_owner() {
    let server = Fake::start();
    let create = [
        "iam",
        "organizations",
        "create",
        "newco",
        "--owner",
        "name:Alice",
        "--name",
        "New",
        "-o",
        "id",
    ];
    let (out, note) = done(&server, &create);
    assert_eq!(out, "newco\n");
    assert_eq!(note, format!("created organization newco at revision {}\n", (1_u64 << 40) + 8));
    let call = server.call("CreateGroup");
    let message = call.message();
    assert_eq!(message["owner"], "alice");
    assert_eq!(message["group"], json!({"id": "newco", "name": "New"}));
    assert!(message.get("parent").is_none());
    assert_eq!(message["request_id"].as_str().unwrap().len(), 32);
    assert_eq!(call.caller, None);
}

#[test]
fn a_folder_is_created_where_its_path_or_parent_says() {
    let server = Fake::start();
    let json = json_of(&server, &["iam", "folders", "create", "acme/db", "--request-id", "r1"]);
    assert_eq!(json["group"]["id"], "acme/db");
    let call = server.call("CreateGroup");
    assert_eq!(
        *call.message(),
        json!({"parent": "acme", "group": {"id": "acme/db"}, "request_id": "r1"})
    );
    done(&server, &["iam", "folder", "create", "cache", "--parent", "Acme Corp", "--as", "alice"]);
    let call = server.call("CreateGroup");
    assert_eq!(call.message()["group"]["id"], "acme/cache");
    assert_eq!(call.caller.as_deref(), Some("alice"));
    let (out, note) = done(&server, &["iam", "folders", "create", "--parent", "acme"]);
    assert_eq!(out, "", "standard output has results only");
    assert!(note.starts_with("created folder acme/0123456789abcdef at revision"), "{note}");
    let (code, error) = failed(&server, &["iam", "folders", "create", "lonely"]);
    assert_eq!(code, 2);
    assert!(error.contains("a folder is in a group"), "{error}");
}

#[test]
fn a_group_is_updated_by_a_mask() {
    let server = Fake::start();
    let update = ["iam", "groups", "update", "acme/web", "--description", "shops", "--etag", "2"];
    let (_, note) =
        done(&server, &[&update[..], &["--as", "bob", "--as-email", "bob@b.example"]].concat());
    assert!(note.starts_with("updated folder acme/web at revision"), "{note}");
    let call = server.call("UpdateGroup");
    assert_eq!(call.message()["update_mask"], "description");
    let group = json!({"id": "acme/web", "description": "shops", "etag": "2"});
    assert_eq!(call.message()["group"], group);
    assert_eq!(call.email.as_deref(), Some("bob@b.example"));
    let (code, error) = failed(&server, &["iam", "groups", "update", "acme/web"]);
    assert_eq!((code, error.contains("nothing to change")), (2, true), "{error}");
}

#[test]
fn a_rehearsal_says_so_and_asks_nothing() {
    let server = Fake::start();
    let (out, note) =
        done(&server, &["iam", "folders", "create", "acme/db", "--validate-only", "-o", "id"]);
    assert_eq!(out, "");
    assert_eq!(note, "valid: folder acme/db would be created; nothing was changed\n");
    assert_eq!(server.call("CreateGroup").message()["validate_only"], true);
    let (_, note) = done(&server, &["iam", "folders", "delete", "acme/web", "--validate-only"]);
    assert_eq!(note, "valid: folder acme/web would be deleted; nothing was changed\n");
}

#[test]
fn without_a_terminal_a_delete_needs_yes() {
    let server = Fake::start();
    let deletes: [&[&str]; 4] = [
        &["iam", "folders", "delete", "acme/web"],
        &["iam", "identities", "rm", "acme/ci"],
        &["iam", "role-bindings", "delete", "acme/b1", "acme/web/b2"],
        &["iam", "remove-member", "alice", "--organization", "acme"],
    ];
    for delete in deletes {
        let (code, error) = failed(&server, delete);
        assert_eq!(code, 2, "{delete:?}");
        assert!(error.contains("add --yes"), "{error}");
        let changed = server.calls().into_iter().any(|call| {
            ["Delete", "Remove"].iter().any(|verb| call.method.contains(&format!("/{verb}")))
        });
        assert!(!changed, "{delete:?}");
    }
    let (out, note) = done(&server, &["iam", "folders", "rm", "acme/web", "--yes", "-o", "id"]);
    assert_eq!(out, "acme/web\n");
    assert!(note.starts_with("deleted folder acme/web at revision"), "{note}");
    assert_eq!(server.call("DeleteGroup").message()["id"], "acme/web");
    let (code, _) =
        failed(&server, &["iam", "roles", "delete", "name:Puller", "-y", "--etag", "x"]);
    assert_eq!(code, 1, "the etag is another one");
}

/// The question shows what goes with a folder, and a typed `y` goes on.
#[test]
fn on_a_terminal_a_delete_asks() {
    let server = Fake::start();
    let asks = |keys: &str, text: &str| {
        let delete =
            format!("capstan iam folders delete acme/web --addr {}\n{keys}\n", server.addr);
        let binary = std::path::Path::new(env!("CARGO_BIN_EXE_capstan"));
        let path = std::env::var("PATH").unwrap();
        let output = std::process::Command::new("python3")
            .args(["tests/python/typing_keys.py", "", text, &delete])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("PATH", format!("{}:{path}", binary.parent().unwrap().display()))
            .env_remove("CAPSTAN_CONTEXT")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", crate::common::stderr(&output));
    };
    asks("n", "nothing was changed: the answer was not yes");
    assert!(!server.calls().iter().any(|call| call.method.ends_with("DeleteGroup")));
    asks("", "  with 2 role bindings:\r\n    acme/puller  acme/ci  until");
    asks("y", "deleted folder acme/web at revision");
    assert!(server.calls().iter().any(|call| call.method.ends_with("DeleteGroup")));
}

#[test]
fn a_role_is_like_another_one_and_changes_by_capabilities() {
    let server = Fake::start();
    let create = [
        "iam",
        "roles",
        "create",
        "acme/reader",
        "--like",
        "viewer",
        "--capability",
        "tag.list,apk.list",
    ];
    done(&server, &create);
    let call = server.call("CreateRole");
    assert_eq!(call.message()["parent"], "acme");
    let expected = json!(["apk.list", "groups.list", "repo.list", "tag.list"]);
    assert_eq!(call.message()["role"]["capabilities"], expected);
    let update = [
        "roles",
        "update",
        "acme/puller",
        "--add-capability",
        "tag.list",
        "--remove-capability",
        "apk.list",
    ];
    let json = json_of(&server, &update);
    assert_eq!(json["role"]["capabilities"], json!(["repo.list", "tag.list"]));
    let call = server.call("UpdateRole");
    assert_eq!(call.message()["role"]["etag"], "5", "what was read must still be there");
    assert_eq!(call.message()["update_mask"], "capabilities");
    let (code, error) =
        failed(&server, &["roles", "update", "acme/puller", "--remove-capability", "tag.list"]);
    assert_eq!(code, 2);
    assert!(error.contains("does not give `tag.list`"), "{error}");
    let (code, error) = failed(&server, &["roles", "create", "acme/empty"]);
    assert_eq!((code, error.contains("--capability or --like")), (2, true), "{error}");
}

#[test]
fn an_identity_has_properties_and_an_authentication() {
    let server = Fake::start();
    let create = [
        "iam",
        "identities",
        "create",
        "acme/deploy",
        "--type",
        "service",
        "--property",
        "level=3",
        "--property",
        "team=web",
        "--claim-match",
        "issuer=https://i.example,subject-pattern=repo:.{1,3}",
    ];
    let json = json_of(&server, &create);
    assert_eq!(json["identity"]["claim_match"]["subject_pattern"], "repo:.{1,3}");
    let call = server.call("CreateIdentity");
    assert_eq!(call.message()["parent"], "acme");
    assert_eq!(call.message()["identity"]["properties"], json!({"level": 3.0, "team": "web"}));
    let update = [
        "iam",
        "identities",
        "update",
        "acme/ci",
        "--property",
        "level=4",
        "--remove-property",
        "team",
    ];
    done(&server, &update);
    let call = server.call("UpdateIdentity");
    assert_eq!(call.message()["identity"]["properties"], json!({"level": 4.0}));
    assert_eq!(call.message()["identity"]["etag"], "10");
    done(&server, &["iam", "identities", "update", "acme/ci", "--spiffe-id", "spiffe://a/b"]);
    let call = server.call("UpdateIdentity");
    assert_eq!(call.message()["update_mask"], "authentication");
    assert_eq!(call.message()["identity"]["client_certificate"]["spiffe_id"], "spiffe://a/b");
    done(&server, &["iam", "identities", "update", "acme/ci", "--dns-name", "ci.example"]);
    let call = server.call("UpdateIdentity");
    assert_eq!(call.message()["update_mask"], "authentication");
    let sent = &call.message()["identity"]["client_certificate"];
    assert_eq!(*sent, json!({"dns_name": "ci.example"}));
    for other in [["--claim-match", "issuer=i"], ["--dns-name", "a.b"]] {
        let create = ["iam", "identities", "create", "acme/x", "--spiffe-id", "s"];
        let (code, error) = failed(&server, &[&create[..], &other].concat());
        assert_eq!((code, error.contains("cannot be used with")), (2, true), "{error}");
    }
}

#[test]
fn keys_are_sent_with_their_end_and_never_if_they_are_secret() {
    let server = Fake::start();
    let folder = crate::common::folder("iam-keys");
    let (public, secret) = (folder.join("public.json"), folder.join("secret.json"));
    std::fs::write(&public, r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}]}"#).unwrap();
    std::fs::write(
        &secret,
        r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "x": "AA", "d": "BB"}]}"#,
    )
    .unwrap();
    let create = |file: &std::path::Path, more: &[&str]| {
        let base =
            ["iam", "identities", "create", "acme/signer", "--static-keys", file.to_str().unwrap()];
        [&base, more].concat().iter().map(|one| (*one).to_owned()).collect::<Vec<_>>()
    };
    let all = ["--issuer", "i", "--subject", "s", "--expires-at", "2099-01-01T00:00:00Z"];
    let arguments = create(&public, &all);
    done(&server, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let keys = server.call("CreateIdentity").message()["identity"]["static_keys"].clone();
    assert_eq!(keys["expires_at"], "2099-01-01T00:00:00Z");
    assert!(keys["jwks"].as_str().unwrap().contains("Ed25519"));
    let arguments = create(&secret, &all);
    let (code, error) = failed(&server, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((code, error.contains("secret member `d`")), (2, true), "{error}");
    let arguments = create(&public, &all[..4]);
    let (code, _) = failed(&server, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(code, 2, "keys have an end");
    assert!(server.calls().is_empty());
}

#[test]
fn an_identity_is_disabled_and_enabled() {
    let server = Fake::start();
    let (_, note) = done(&server, &["iam", "identities", "disable", "CI bot"]);
    assert!(note.starts_with("disabled identity acme/ci at revision"), "{note}");
    let call = server.call("UpdateIdentity");
    assert_eq!(call.message()["identity"], json!({"id": "acme/ci", "disabled": true}));
    assert_eq!(call.message()["update_mask"], "disabled");
    done(&server, &["iam", "identity", "enable", "acme/ci"]);
    assert_eq!(server.call("UpdateIdentity").message()["identity"], json!({"id": "acme/ci"}));
}

#[test]
fn a_resource_is_registered_and_changed() {
    let server = Fake::start();
    let create = [
        "iam",
        "resources",
        "create",
        "acme/web/api",
        "--type",
        "repo",
        "--property",
        "public=true",
    ];
    let (_, note) = done(&server, &create);
    assert!(note.starts_with("created resource acme/web/api at revision"), "{note}");
    let resource = json!({"id": "acme/web/api", "type": "repo", "properties": {"public": true}});
    assert_eq!(server.call("CreateResource").message()["resource"], resource);
    done(
        &server,
        &["iam", "resource", "update", "acme/web/nginx", "--property", "status=archived"],
    );
    let changed = server.call("UpdateResource").message()["resource"]["properties"].clone();
    assert_eq!(changed, json!({"status": "archived", "visibility": "private"}));
}

#[test]
fn quiet_prints_nothing() {
    let server = Fake::start();
    let (out, note) = done(&server, &["iam", "folders", "create", "acme/q", "-q", "-o", "json"]);
    assert_eq!((out.as_str(), note.as_str()), ("", ""));
}
