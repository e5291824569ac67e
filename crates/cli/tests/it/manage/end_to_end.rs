//! The commands against a real server with a store: from `init` to the audit log.

use std::path::PathBuf;
use std::process::Output;

use serde_json::Value;

use crate::common::{Serving, command, folder, stderr, stdout};

/// A store with an organization `acme` of `alice`, and its server.
pub(super) struct Store {
    pub(super) folder: PathBuf,
    serving: Option<Serving>,
}

impl Store {
    pub(super) fn start(name: &str) -> Self {
        let folder = folder(name);
        let data = folder.join("store");
        let made = command(&[
            "init",
            "--data",
            data.to_str().unwrap(),
            "--org",
            "acme",
            "--owner",
            "alice",
        ])
        .output()
        .unwrap();
        assert!(made.status.success(), "{}", stderr(&made));
        let mut store = Self { folder, serving: None };
        store.serve();
        store
    }

    pub(super) fn data(&self) -> String {
        self.folder.join("store").to_str().unwrap().to_owned()
    }

    pub(super) fn serve(&mut self) {
        self.serve_with(&[]);
    }

    /// Serves it anew, with these options.
    pub(super) fn serve_with(&mut self, more: &[&str]) {
        let data = self.data();
        let arguments = [
            "--data",
            &data,
            "--insecure-trust-caller-header",
            "--listen",
            "127.0.0.1:0",
            "--http",
            "none",
        ];
        // One at a time may have the store.
        self.stop();
        self.serving = Some(Serving::start(&[&arguments[..], more].concat(), 2));
    }

    pub(super) fn stop(&mut self) {
        drop(self.serving.take());
    }

    /// Stops it as an operator does, so that it drains.
    pub(super) fn drain(&mut self) {
        let (code, log) = self.serving.take().unwrap().stop("-TERM");
        assert_eq!(code, Some(0), "{log}");
    }

    /// Runs a command as `alice`, or as the operator with `--operator` in front.
    pub(super) fn run(&self, line: &[&str]) -> Output {
        let grpc = format!("http://{}", self.serving.as_ref().unwrap().address("grpc"));
        let operator = format!("unix:{}/operator.sock", self.data());
        let arguments = match line {
            ["--operator", rest @ ..] => [rest, &["--addr", &operator]].concat(),
            all if all.contains(&"--as") => [all, &["--addr", &grpc]].concat(),
            all => [all, &["--addr", &grpc, "--as", "alice"]].concat(),
        };
        command(&arguments).output().unwrap()
    }

    /// Runs a command about decisions, which takes no caller.
    pub(super) fn run_without_caller(&self, line: &[&str]) -> Output {
        let grpc = format!("http://{}", self.serving.as_ref().unwrap().address("grpc"));
        command(&[line, &["--addr", &grpc]].concat()).output().unwrap()
    }

    pub(super) fn done(&self, line: &[&str]) -> String {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(0), "{line:?}: {}", stderr(&output));
        stdout(&output)
    }

    pub(super) fn json(&self, line: &[&str]) -> Value {
        serde_json::from_str(&self.done(&[line, &["--output", "json"]].concat())).unwrap()
    }

    pub(super) fn refused(&self, line: &[&str], reason: &str) {
        let output = self.run(line);
        assert_eq!(output.status.code(), Some(1), "{line:?}: {}", stderr(&output));
        let text = stderr(&output);
        assert!(text.starts_with("refused: ") && text.contains(&format!("({reason})")), "{text}");
    }
}

#[test]
fn an_organization_is_made_structured_delegated_and_audited() {
    let mut store = Store::start("manage-end-to-end");
    store.done(&["iam", "folders", "create", "acme/web", "--name", "Web shop"]);
    store.done(&[
        "iam",
        "identities",
        "create",
        "acme/ci",
        "--type",
        "service",
        "--name",
        "CI bot",
    ]);
    store.done(&["iam", "roles", "create", "acme/puller", "--like", "registry.pull"]);
    store.done(&["--operator", "iam", "identities", "create", "bob", "--name", "Bob"]);
    let bind = ["iam", "role-bindings", "create", "--identity", "CI bot", "--role", "acme/puller"];
    let id = store.done(&[&bind[..], &["--group", "Web shop", "--ttl", "1d", "-o", "id"]].concat());
    store.refused(&[&bind[..], &["--group", "Web shop", "--ttl", "1d"]].concat(), "ALREADY_EXISTS");
    // Visible to the next check.
    let check = ["check", "acme/ci", "repo.list", "acme/web/shop"];
    let allowed = || store.run_without_caller(&check).status.code();
    assert_eq!(allowed(), Some(0));
    store.done(&["iam", "identities", "disable", "CI bot"]);
    assert_eq!(allowed(), Some(1));
    store.done(&["iam", "identities", "enable", "acme/ci"]);

    // Nobody gives more than they hold, and nobody sees what they may not.
    store.done(&[
        "iam",
        "role-bindings",
        "create",
        "--identity",
        "bob",
        "--role",
        "viewer",
        "--group",
        "acme/web",
    ]);
    let steal = [
        "iam",
        "role-bindings",
        "create",
        "--identity",
        "bob",
        "--role",
        "owner",
        "--group",
        "acme/web",
    ];
    store.refused(&[&steal[..], &["--as", "bob"]].concat(), "MISSING_CAPABILITY");
    store.refused(&["iam", "groups", "describe", "acme", "--as", "bob"], "NOT_FOUND");
    assert_eq!(store.done(&["iam", "groups", "list", "--as", "bob", "-o", "id"]), "acme/web\n");
    store.refused(&["iam", "organizations", "create", "mine", "--owner", "alice"], "OPERATOR_ONLY");
    store.refused(&["iam", "roles", "update", "viewer", "--name", "x"], "BUILT_IN");
    let own = store.done(&["iam", "role-bindings", "list", "--identity", "alice", "-o", "id"]);
    store.refused(&["iam", "role-bindings", "delete", own.trim(), "--yes"], "LAST_OWNER");
    store.refused(&["iam", "organizations", "delete", "acme", "--yes"], "NOT_EMPTY");

    // The same request twice is done once; a lost update is refused.
    let create = ["iam", "folders", "create", "acme/db", "--request-id", "r1"];
    let first = store.json(&create);
    assert_eq!(store.json(&create), first);
    let update = ["iam", "folders", "update", "acme/db", "--name", "Data", "--etag"];
    let etag = first["group"]["etag"].as_str().unwrap();
    store.done(&[&update[..], &[etag]].concat());
    store.refused(&[&update[..], &[etag]].concat(), "CONFLICT");
    let rehearsed = ["iam", "folders", "delete", "acme/db", "--validate-only"];
    store.done(&rehearsed);
    store.done(&["iam", "folders", "describe", "acme/db"]);

    let tree = store.done(&["iam", "tree", "acme"]);
    for line in [
        "├── · owner alice",
        "├── role puller",
        "├── service ci (CI bot)",
        "· acme/puller acme/ci (CI bot)  until ",
    ] {
        assert!(tree.contains(line), "{line} in {tree}");
    }
    store.done(&["iam", "role-bindings", "delete", id.trim(), "--yes"]);
    store.done(&["iam", "remove-member", "bob", "--organization", "acme", "--yes"]);
    let left = store.done(&["iam", "role-bindings", "list", "--parent", "acme", "-o", "id"]);
    assert_eq!(left, own);

    let records = store.json(&["audit", "list", "--parent", "acme", "--refused"]);
    let refused = records["audit_records"].as_array().unwrap();
    let of_bob = refused.iter().filter(|record| record["actor"] == "bob");
    assert!(of_bob.clone().any(|record| record["reason"] == "MISSING_CAPABILITY"), "{records}");
    // It survives the server, and every audit record fits.
    let (code, _) = store.serving.take().unwrap().stop("-TERM");
    assert_eq!(code, Some(0));
    let verify =
        command(&["audit", "verify", "--data", &store.data(), "-o", "json"]).output().unwrap();
    assert_eq!(verify.status.code(), Some(0), "{}{}", stdout(&verify), stderr(&verify));
    let verified: Value = serde_json::from_str(&stdout(&verify)).unwrap();
    let digest = verified["digest"].as_str().unwrap();
    assert!(verified["records"].as_u64().unwrap() > 10, "{verified}");
    let known = ["audit", "verify", "--data", &store.data(), "--digest", digest];
    assert_eq!(command(&known).output().unwrap().status.code(), Some(0));
    store.serve();
    assert_eq!(store.done(&["iam", "folders", "list", "-o", "id"]), "acme/db\nacme/web\n");
}
