//! `policy test`: what passes, fails or is refused; its reports; what no test uses; and `--watch`.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::common::{capstan, command, folder, stderr, stdout};

const DEMO: &str = "deploy/quickstart/policy.yaml";
const WORLDS: &str = "crates/testkit/worlds";

/// A test document in a folder of its own.
fn document(name: &str, text: &str) -> PathBuf {
    let file = folder(name).join("tests.yaml");
    std::fs::write(&file, text).unwrap();
    file
}

/// Tests of the demo policy: the exit code, and all output.
fn run(name: &str, text: &str, more: &[&str]) -> (Option<i32>, String) {
    let file = document(name, text);
    let output = capstan(&[&["policy", "test", DEMO, file.to_str().unwrap()], more].concat());
    (output.status.code(), stdout(&output) + &stderr(&output))
}

/// The worlds are examples of this format.
#[test]
fn the_worlds_pass() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut passed = 0;
    for entry in std::fs::read_dir(root.join(WORLDS)).unwrap() {
        let policy = entry.unwrap().path();
        let Some((name, _)) = policy.to_str().unwrap().split_once(".policy.") else { continue };
        let tests = format!("{name}.tests.yaml");
        let output = capstan(&["policy", "test", policy.to_str().unwrap(), &tests, "-o", "json"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{name}: {report}");
        passed += report["passed"].as_u64().unwrap();
    }
    assert!(passed > 300, "{passed}");
}

#[test]
fn a_document_of_another_kind_is_an_error() {
    let [policy, tests] = ["expiry.policy.yaml"; 2].map(|file| format!("{WORLDS}/{file}"));
    let output = capstan(&["policy", "test", &policy, &tests]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("expiry.policy.yaml:"), "{}", stderr(&output));
}

#[test]
fn a_failed_test_has_its_reason_and_no_tests_are_an_error() {
    let test = "{identity: bob, capability: repo.delete, resource: acme/platform, allowed: true}";
    let (code, found) = run("policy-test-reason", &format!("tests: [{test}]"), &[]);
    assert_eq!(code, Some(1));
    let expected = "expected allowed, got denied (CAPABILITY_NOT_IN_ROLE)\n";
    assert!(found.contains(expected), "{found}");
    let (code, found) = run("policy-test-none", "tests: []", &[]);
    assert_eq!(code, Some(2));
    assert!(found.contains("error: no tests: "), "{found}");
}

/// A misspelt name would otherwise pass as a denial.
#[test]
fn unknown_names_are_refused_unless_the_test_says_so() {
    let tests = |more: &str| {
        format!(
            "tests:
- {{identity: bbo, capability: repo.list, resource: acme, allowed: false{more}}}
- {{identity: bob, capability: repo.list, resource: amce/web, allowed: false{more}}}
- {{identity: bbo, resource: acme, capabilities: []{more}}}
- {{identity: bob, capability: repo.lsit, resource: acme, allowed: false{more}}}
- {{capability: repo.lsit, resource: acme, identities: []{more}}}
"
        )
    };
    let (code, found) = run("policy-test-unknown", &tests(""), &[]);
    assert_eq!(code, Some(2), "{found}");
    for expected in [
        "tests.yaml:2:3: tests[0].identity: found `bbo`; expected an identity of the policy, or `unknown: true`; did \
         you mean `bob`?\n",
        "tests.yaml:3:3: tests[1].resource: found `amce/web`; expected a path at or below a group or resource of the \
         policy, or `unknown: true`",
        "tests.yaml:4:3: tests[2].identity: found `bbo`; expected",
    ] {
        assert!(found.contains(expected), "{found}");
    }
    let (code, found) = run("policy-test-known", &tests(", unknown: true"), &[]);
    assert_eq!((code, &*found), (Some(0), "ok: 5 passed, 0 failed\n"));
    for test in [
        "{identity: bob, capability: repo.lsit, resource: acme, allowed: true, unknown: true}",
        "{capability: repo.lsit, resource: acme, identities: [bob], unknown: true}",
    ] {
        let (code, found) = run("policy-test-nobody-can", &format!("tests: [{test}]"), &[]);
        assert!(code == Some(1) && found.contains("an unknown capability"), "{found}");
    }
    // Who expects this reason knows that the identity is unknown.
    let expected = "{identity: bbo, capability: repo.list, resource: acme, allowed: false, \
                    reason: UNKNOWN_IDENTITY}";
    assert_eq!(run("policy-test-reason-unknown", &format!("tests: [{expected}]"), &[]).0, Some(0));
    for (test, expected) in [
        (
            "{identity: bob, capability: repo.lsit, resource: acme, allowed: false}",
            "tests[0].capability: found",
        ),
        ("{identity: bob, resource: acme, capabilities: [repo.lsit]}", "did you mean `repo.list`?"),
        (
            "{capability: repo.list, resource: acme, identities: [bbo]}",
            "tests[0].identities: found `bbo`",
        ),
    ] {
        let (code, found) = run("policy-test-each", &format!("tests: [{test}]"), &[]);
        assert!(code == Some(2) && found.contains(expected), "{found}");
    }
}

const POLICY: &str = "version: 1
catalog: chainguard-2025-08-14+errata
groups: [{id: acme}, {id: acme/web}]
roles: [{id: acme/puller, capabilities: [repo.list]}, {id: acme/unused, capabilities: [repo.list]}]
identities: [{id: ann, type: user}, {id: ben, type: user}]
role_bindings:
- {identity: ann, role: owner, scope: acme}
- {identity: ben, role: acme/puller, scope: acme/web}
- {identity: ben, role: viewer, scope: acme, expires_at: 2020-01-01T00:00:00Z}
";
const ROUTES: &str = "version: 1
routes:
- {name: any, methods: [GET], path: /, authenticated: true}
- {name: list, methods: [GET], path: '/{r...}/tags', require: [{capability: repo.list, resource: 'acme/{r}'}]}
- {name: push, methods: [PUT], path: '/{r...}', require: [
    {capability: repo.list, resource: 'acme/{r}'}, {capability: repo.update, resource: 'acme/{r}'}]}
";

#[test]
fn what_no_test_uses_is_named() {
    let tests = document(
        "policy-test-coverage",
        "tests:
- {identity: ben, capability: repo.list, resource: acme/web/app, allowed: true}
- {identity: ann, capability: repo.update, resource: acme, allowed: true}
",
    );
    let [policy, routes] = ["policy.yaml", "routes.yaml"].map(|name| tests.with_file_name(name));
    std::fs::write(&policy, POLICY).unwrap();
    std::fs::write(&routes, ROUTES).unwrap();
    let [policy, routes, tests] = [&policy, &routes, &tests].map(|file| file.to_str().unwrap());
    let arguments = ["policy", "test", policy, tests, "--coverage", "--routes", routes];
    let output = capstan(&arguments);
    // The binding in the past could matter for the first test, too.
    let expected = "no test uses the role acme/unused
no test uses the route push
coverage: 3 of 3 bindings, 3 of 4 roles, 1 of 2 routes
ok: 2 passed, 0 failed
";
    assert_eq!(
        (output.status.code(), &*stdout(&output)),
        (Some(0), expected),
        "{}",
        stderr(&output)
    );
    std::fs::write(tests, "tests: [{identity: ann, resource: acme/web, capabilities: []}]")
        .unwrap();
    let output = capstan(&[&arguments[..], &["-o", "json"]].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let coverage = &report["coverage"];
    assert_eq!(output.status.code(), Some(1), "{report}");
    assert_eq!(coverage["bindings"]["used"], 1);
    assert_eq!(coverage["bindings"]["unused"][0]["identity"], "ben");
    assert_eq!(
        coverage["roles"],
        json!({"used": 1, "unused": ["acme/puller", "acme/unused", "viewer"]})
    );
    // A resource parameter has at least one segment, and `web` is one.
    assert_eq!(coverage["routes"], json!({"used": 2, "unused": []}));
}

#[test]
fn a_report_is_written_as_junit() {
    let tests = "tests:
- {identity: alice, capability: repo.list, resource: acme, allowed: true}
- {identity: bob, capability: repo.delete, resource: acme/platform, allowed: true}
";
    let (code, text) = run("policy-test-r&d", tests, &["--output", "junit"]);
    assert_eq!(code, Some(1), "{text}");
    for expected in [
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>",
        "<testsuites name=\"capstan policy test\" tests=\"2\" skipped=\"0\" failures=\"1\" errors=\"0\">",
        "policy-test-r&amp;d/tests.yaml\" tests=\"2\" skipped=\"0\" errors=\"0\" failures=\"1\">",
        "<testcase name=\"alice repo.list at acme\" classname=\"",
        "<failure message=\"expected allowed, got denied (CAPABILITY_NOT_IN_ROLE)\"/>",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let output = capstan(&["roles", "list", "--output", "junit"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr(&output).contains("only `capstan policy test` writes JUnit"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn watched_tests_run_again_when_a_file_changes() {
    let good = "tests: [{identity: alice, capability: repo.list, resource: acme, allowed: true}]";
    let file = document("policy-test-watch", good);
    let arguments = ["policy", "test", DEMO, file.to_str().unwrap(), "--watch"];
    let mut child =
        command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "ok: 1 passed, 0 failed");
    std::fs::write(&file, good.replace("true", "false")).unwrap();
    assert!(next().contains("expected denied, got allowed (GRANTED)"));
    assert_eq!(next(), "failed: 0 passed, 1 failed");
    // A mistake does not end it.
    std::fs::write(&file, "tests: [").unwrap();
    let mut error = [0; 7];
    child.stderr.as_mut().unwrap().read_exact(&mut error).unwrap();
    assert_eq!(&error, b"error: ");
    std::fs::write(&file, good).unwrap();
    assert_eq!(next(), "ok: 1 passed, 0 failed");
    child.kill().unwrap();
    child.wait().unwrap();
    let output = capstan(&["policy", "test", DEMO, "-", "--watch"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--watch takes files"), "{}", stderr(&output));
}
