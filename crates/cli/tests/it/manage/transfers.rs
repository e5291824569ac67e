//! `capstan policy export | import` and `capstan catalog set`.

use serde_json::json;

use super::server::{Fake, refusal};
use super::{done, failed, json_of, run, run_with};
use crate::command_limits::CHUNK_BYTES;
use crate::common::{folder, stderr, stdout};

/// Bytes as JSON has them.
fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn chunks() -> Vec<serde_json::Value> {
    let part = |text: &str| json!({"chunk": base64(text.as_bytes()), "revision": 9});
    vec![part("version: 1\n"), part("groups: []\n")]
}

#[test]
fn a_document_is_exported_to_standard_output_or_a_file() {
    let server = Fake::start();
    server.script("Export", Ok(chunks()));
    let (out, _) = done(&server, &["policy", "export", "--parent", "Acme Corp"]);
    assert_eq!(out, "version: 1\ngroups: []\n");
    assert_eq!(*server.call("Export").message(), json!({"parent": "acme", "format": "yaml"}));
    let file = folder("iam-export").join("acme.json");
    server.script("Export", Ok(chunks()));
    let export = ["policy", "export", "--format", "json", "--output-file", file.to_str().unwrap()];
    let (out, note) = done(&server, &export);
    assert_eq!((out.as_str(), note.starts_with("exported revision 9 to ")), ("", true), "{note}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "version: 1\ngroups: []\n");
    assert_eq!(*server.call("Export").message(), json!({"format": "json"}));
    let refused = refusal(tonic::Code::PermissionDenied, "no", "OPERATOR_ONLY", &[]);
    server.script("Export", Err(refused));
    let (code, error) = failed(&server, &export);
    assert_eq!((code, error.contains("operator.sock")), (1, true), "{error}");
    assert!(error.contains("of one organization, with --parent ORG"), "{error}");
    let left: Vec<_> = std::fs::read_dir(file.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "the file from before, whole, and nothing else");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "version: 1\ngroups: []\n");
}

fn difference() -> serde_json::Value {
    json!({
        "changes": [
            {"action": "created", "kind": "role_binding", "id": "acme/b9"},
            {"action": "deleted", "kind": "group", "id": "acme/old"},
        ],
        "access_changes": [{"identity": "bob", "scope": "acme", "gained": ["repo.list"], "lost": ["apk.list"]}],
        "counts": {"created": 1, "updated": 3, "deleted": 1}, "truncated": true, "revision": 8,
    })
}

#[test]
fn a_rehearsed_import_shows_the_difference() {
    let server = Fake::start();
    server.script("Import", Ok(vec![difference()]));
    let import = ["policy", "import", "-", "--parent", "acme", "--prune", "subtree", "--dry-run"];
    let output = run_with(&server, &import, "version: 1\n");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let table = stdout(&output);
    for part in
        ["1 created, 3 updated, 1 deleted", "+ created", "role binding", "acme/old", "and 3 more\n"]
    {
        assert!(table.contains(part), "{part} in {table}");
    }
    for part in ["bob", "repo.list", "apk.list", "the server's answer was cut"] {
        assert!(table.contains(part), "{part} in {table}");
    }
    assert!(stderr(&output).contains("nothing was changed"));
    let call = server.call("Import");
    assert_eq!(
        *call.message(),
        json!({"parent": "acme", "chunk": base64(b"version: 1\n"), "dry_run": true, "prune": "subtree"})
    );
    server.script("Import", Ok(vec![difference()]));
    let output = run_with(&server, &["policy", "import", "-", "--output", "json"], "version: 1\n");
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["access_changes"][0]["gained"], json!(["repo.list"]));
    assert_eq!((&json["counts"]["updated"], &json["revision"]), (&json!(3), &json!(8)));
    assert!(stderr(&output).contains("imported - at revision 8"), "{}", stderr(&output));
}

#[test]
fn a_long_document_is_sent_in_parts() {
    let server = Fake::start();
    let file = folder("iam-import").join("long.yaml");
    let document = vec![b'#'; CHUNK_BYTES + 1];
    std::fs::write(&file, &document).unwrap();
    server.script("Import", Ok(vec![json!({"revision": 8})]));
    let (out, _) = done(&server, &["policy", "import", file.to_str().unwrap()]);
    assert_eq!(out, "no object changes\nnobody gains or loses anything\n");
    let parts = server.call("Import").messages;
    assert_eq!(parts.len(), 2);
    assert_eq!(parts[1], json!({"chunk": base64(b"#")}));
    let (code, error) = failed(
        &server,
        &[
            "policy",
            "import",
            file.to_str().unwrap(),
            "--max-document-bytes",
            &CHUNK_BYTES.to_string(),
        ],
    );
    assert_eq!((code, error.contains("longer than")), (2, true), "{error}");
    let (code, error) = failed(&server, &["policy", "import", "-", "--prune", "subtree"]);
    assert_eq!((code, error.contains("--parent")), (2, true), "{error}");
    assert!(server.calls().is_empty());
}

/// An import has no request id, so a repetition could do more than is wanted.
#[test]
fn an_import_is_not_repeated() {
    let server = Fake::start();
    let unavailable = refusal(tonic::Code::Unavailable, "busy", "NOT_READY", &[]);
    server.script("Import", Err(super::server::pushed_back(unavailable, 0)));
    let output = run_with(&server, &["policy", "import", "-"], "version: 1\n");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(server.calls().len(), 1);
}

/// What nobody knows the end of is found out, not guessed.
#[test]
fn an_unclear_end_says_how_to_find_out() {
    let server = Fake::start();
    let unknown = || refusal(tonic::Code::Unavailable, "who knows", "COMMIT_OUTCOME_UNKNOWN", &[]);
    server.script("Import", Err(unknown()));
    let output = run_with(&server, &["policy", "import", "-"], "version: 1\n");
    let error = stderr(&output);
    assert_eq!((output.status.code(), server.calls().len()), (Some(2), 1), "{error}");
    let audit = "`capstan audit list --method capstan.iam.v1.PolicyService/";
    for part in ["whether it was done is unknown", "--dry-run shows no change", audit, "Import`"] {
        assert!(error.contains(part), "{part} in {error}");
    }
    server.script("SetCatalog", Err(unknown()));
    let (code, error) = failed(&server, &["catalog", "set", "chainguard-2025-08-14"]);
    assert_eq!((code, server.calls().len()), (2, 1), "{error}");
    assert!(error.contains(audit) && error.contains("SetCatalog` has a record"), "{error}");
    // A rehearsal leaves nothing open.
    server.script("Import", Err(unknown()));
    let output = run_with(&server, &["policy", "import", "-", "--dry-run"], "version: 1\n");
    assert!(!stderr(&output).contains("whether it was done"), "{}", stderr(&output));
}

#[test]
fn a_catalog_is_set_by_its_name_or_a_file() {
    let server = Fake::start();
    let answer = || Ok(vec![json!({"catalog": "mine", "revision": 8})]);
    server.script("SetCatalog", answer());
    let (out, note) = done(&server, &["catalog", "set", "chainguard-2025-08-14", "--dry-run"]);
    assert_eq!(out, "nobody gains or loses anything\n");
    assert!(note.contains("nothing was changed"), "{note}");
    let message = server.call("SetCatalog").message().clone();
    assert_eq!(message, json!({"name": "chainguard-2025-08-14", "dry_run": true}));
    let file = folder("iam-catalog").join("mine.yaml");
    std::fs::write(&file, "name: mine\n").unwrap();
    server.script("SetCatalog", answer());
    let json = json_of(&server, &["catalog", "set", file.to_str().unwrap()]);
    assert_eq!(json["catalog"], "mine");
    assert_eq!(*server.call("SetCatalog").message(), json!({"document": base64(b"name: mine\n")}));
    let output = run(&server, &["catalog", "set", "mine", "--output", "tree"]);
    assert_eq!(output.status.code(), Some(2));
}
