//! The command line: output, exit codes, and errors with advice.

mod address;
mod audit;
mod conditional;
mod diff;
mod explain;
mod policy_test;
mod questions;
mod schema;
mod unknown_capability;
mod validate;

use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use capstan_server::limits::PROPERTIES_MAX;

use crate::command_limits::{LINE_BYTES_MAX, MESSAGE_BYTES};
use crate::common::{Serving, capstan, command, folder, stderr, stdout};

const DEMO: &str = "deploy/quickstart/policy.yaml";

fn code(arguments: &[&str]) -> i32 {
    capstan(arguments).status.code().unwrap()
}

fn json_of(arguments: &[&str]) -> Value {
    let output = capstan(arguments);
    serde_json::from_str(&stdout(&output))
        .unwrap_or_else(|error| panic!("{error}: {} {}", stdout(&output), stderr(&output)))
}

#[test]
fn check_exits_0_allowed_1_denied_2_error() {
    let check = |identity, capability, resource| {
        code(&["check", identity, capability, resource, "--policy", DEMO])
    };
    assert_eq!(check("alice", "repo.delete", "acme/platform/images"), 0);
    assert_eq!(check("bob", "repo.delete", "acme/platform/images"), 1);
    assert_eq!(check("nobody", "repo.list", "acme"), 1);
    assert_eq!(check("bob", "repo.nope", "acme"), 2);
    assert_eq!(check("bob", "repo.list", "acme//x"), 2);
    assert_eq!(code(&["check", "bob", "repo.list", "acme", "--policy", "no-such-file"]), 2);
    assert_eq!(code(&["check", "bob", "repo.list"]), 2);
    assert_eq!(code(&["check", "a", "b", "c", "--addr", "http://127.0.0.1:1"]), 2);
    assert_eq!(code(&["check", "a", "b", "c", "--addr", "unix:/no/such/socket"]), 2);
    assert_eq!(code(&["check", "a", "b", "c", "--addr", "::"]), 2);
}

/// A line that is too large for a message gives an error for itself only. A long line is sent in a batch
/// of its own.
#[test]
fn a_long_line_does_not_affect_other_lines() {
    let long = |bytes: usize| {
        json!({"identity": "bob", "capability": "repo.list", "resource": "acme/platform",
               "properties": {"context": {"x": "y".repeat(bytes)}}})
    };
    // Two bytes for each number in JSON, and five times as many in a message.
    let mut longer = long(1);
    longer["properties"]["context"]["x"] = vec![0; 1_000_000].into();
    let lines = [long(1), long(1_000_000), long(3_900_000), long(1), longer, long(1)];
    let file = folder("cli-long-lines").join("queries.ndjson");
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(&file, text).unwrap();
    let server = Serving::start(&["--demo", "--listen", "127.0.0.1:0", "--http", "none"], 1);
    let (file, address) = (file.to_str().unwrap(), server.address("grpc"));
    let output = capstan(&["check", "--file", file, "--addr", &address]);
    let answers: Vec<Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let allowed: Vec<bool> = answers.iter().map(|answer| answer["allowed"] == true).collect();
    assert_eq!(allowed, [true, true, true, true, false, true], "{answers:?}");
    assert!(answers[4]["error"].is_string(), "{answers:?}");
    assert_eq!(output.status.code(), Some(2));
}

/// More roles than one message can hold, in pages of 100.
/// A value in many brackets is one that no condition can test, over gRPC as in process, and its line is answered. Too
/// many properties are the error of their line, in the same words.
#[test]
fn a_deep_value_does_not_affect_other_lines() {
    let queries = folder("deep-value").join("queries.ndjson");
    let deep = |open: &str, close: &str| {
        let value = open.repeat(100) + "1" + &close.repeat(100);
        format!(
            r#"{{"identity": "bob", "capability": "repo.list", "resource": "acme/platform",
                 "properties": {{"context": {{"x": {value}}}}}}}"#
        )
        .replace('\n', " ")
    };
    let plain = r#"{"identity": "bob", "capability": "repo.list", "resource": "acme/platform"}"#;
    let many: serde_json::Map<_, _> =
        (0..=PROPERTIES_MAX).map(|at| (format!("p{at}"), json!(at))).collect();
    let many = json!({"identity": "bob", "capability": "repo.list", "resource": "acme/platform",
                      "properties": {"context": many}});
    let many = many.to_string();
    let lines = [plain, &deep("[", "]"), &many, &deep(r#"{"a": "#, "}"), plain].join("\n");
    std::fs::write(&queries, lines).unwrap();
    let server = Serving::start(&["--demo", "--listen", "127.0.0.1:0", "--http", "none"], 1);
    let address = format!("http://{}", server.address("grpc"));
    for decider in [["--policy", DEMO], ["--addr", &address]] {
        let file = ["check", "--file", queries.to_str().unwrap()];
        let output = capstan(&[&file[..], &decider].concat());
        let text = stdout(&output);
        assert_eq!((output.status.code(), text.matches("GRANTED").count()), (Some(2), 4), "{text}");
        let refused = format!("properties: 257 properties: at most {PROPERTIES_MAX} are allowed");
        let refused = json!({"error": refused}).to_string();
        assert_eq!(text.lines().nth(2), Some(&*refused), "{decider:?}");
    }
}

#[test]
fn roles_with_many_capabilities_are_listed() {
    let actions: Vec<String> = (0..460).map(|at| format!("{}{at:03}", "a".repeat(90))).collect();
    let every: Vec<String> = actions.iter().map(|action| format!("r.{action}")).collect();
    let roles: Vec<Value> =
        (0..120).map(|at| json!({"name": format!("role{at}"), "capabilities": every})).collect();
    let catalog = json!({"name": "long", "resources": [{"name": "r", "actions": actions}],
                         "roles": roles});
    let path = folder("cli-long-roles").join("policy.json");
    std::fs::write(&path, json!({"version": 1, "catalog": catalog}).to_string()).unwrap();
    let path = path.to_str().unwrap();
    let server =
        Serving::start(&["--policy", path, "--listen", "127.0.0.1:0", "--http", "none"], 1);
    let listed = json_of(&["roles", "list", "--addr", &server.address("grpc"), "-o", "json"]);
    assert_eq!(listed["roles"].as_array().unwrap().len(), 120);
    assert_eq!(listed, json_of(&["roles", "list", "--policy", path, "-o", "json"]));
}

#[test]
fn check_prints_text_or_json() {
    let arguments = ["check", "dave", "repo.list", "acme/platform/images/base", "--policy", DEMO];
    let output = capstan(&arguments);
    assert_eq!(
        stdout(&output),
        "allowed  dave repo.list at acme/platform/images/base  (GRANTED, until \
         2036-01-01T00:00:00Z)\n"
    );
    let with_json = |arguments: &[&str]| json_of(&[arguments, &["-o", "json"]].concat());
    assert_eq!(
        with_json(&arguments),
        json!({"allowed": true, "reason": "GRANTED", "revision": 1,
               "valid_until": "2036-01-01T00:00:00Z"})
    );
    assert_eq!(
        with_json(&["check", "dave", "repo.list", "acme/platform", "--policy", DEMO]),
        json!({"allowed": false, "reason": "EXPIRED", "revision": 1})
    );
    assert_eq!(
        with_json(&["check", "dave", "repo.list", "acme//x", "--policy", DEMO]),
        json!({"error": "resource: segment 2 is empty: no leading, trailing or double slash"})
    );
}

#[test]
fn a_file_of_questions_gets_one_answer_per_line_in_order() {
    let queries = folder("queries").join("queries.ndjson");
    let good = r#"{"identity": "alice", "capability": "repo.list", "resource": "acme"}"#;
    let with_properties = r#"{"identity": "bob", "capability": "repo.list", "resource": "acme", "properties": {"resource": {"status": "archived", "n": 1, "b": true, "deep": {"x": [null]}}}}"#;
    let file = queries.to_str().unwrap();
    let run = |lines: &[&str]| {
        std::fs::write(&queries, lines.join("\n")).unwrap();
        let output = capstan(&["check", "--file", file, "--policy", DEMO]);
        let lines: Vec<Value> =
            stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        (output.status.code().unwrap(), lines)
    };
    let granted = json!({"allowed": true, "reason": "GRANTED", "revision": 1});
    let no_binding = json!({"allowed": false, "reason": "NO_BINDING", "revision": 1});
    assert_eq!(run(&[good, with_properties, ""]), (0, vec![granted.clone(), no_binding.clone()]));

    let malformed = r#"{"identity": "alice", "capability": "repo.list", "resource": "acme//x"}"#;
    let unknown_key = r#"{"identity": "a", "capability": "repo.list", "resource": "b", "x": 1}"#;
    let (code, lines) = run(&[good, "nonsense", malformed, unknown_key, with_properties]);
    assert_eq!(code, 2);
    assert_eq!(lines.len(), 5);
    assert_eq!((&lines[0], &lines[4]), (&granted, &no_binding));
    for (line, words) in
        [(1, "line 2: expected an object"), (2, "segment 2 is empty"), (3, "unknown field `x`")]
    {
        assert!(lines[line]["error"].as_str().unwrap().contains(words), "{}", lines[line]);
    }

    // More than one batch, and more bytes than one message can hold.
    let many = vec![good; 20_001];
    assert!(many.len() * good.len() > MESSAGE_BYTES);
    let (code, lines) = run(&many);
    assert_eq!((code, lines.len()), (0, 20_001));
    assert!(lines.iter().all(|line| *line == granted));
    let long = format!("{good}{}", " ".repeat(usize::try_from(LINE_BYTES_MAX).unwrap()));
    let (code, lines) = run(&[&long, good]);
    assert_eq!((code, lines.len()), (2, 2), "the too long line gives one error");
    assert_eq!(lines[1], granted);
}

#[test]
fn questions_are_read_from_standard_input() {
    let mut child = command(&["check", "--file", "-", "--policy", DEMO])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let question = br#"{"identity": "alice", "capability": "repo.list", "resource": "acme"}"#;
    child.stdin.take().unwrap().write_all(question).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    assert!(stdout(&output).contains("GRANTED"));
}

#[test]
fn capabilities_in_json_has_the_fields_of_the_message() {
    let found = json_of(&[
        "capabilities",
        "acme/platform/ci",
        "acme/platform/packages",
        "--policy",
        DEMO,
        "--output",
        "json",
    ]);
    assert_eq!(found["capabilities"], json!(["apk.list", "groups.list"]));
    assert_eq!(found["revision"], 1);
    assert_eq!(found["grants"][0]["role"], "apk.pull");
    assert_eq!(found["grants"][0]["scope"], "acme/platform/packages");
    assert!(found["grants"][0]["binding"].as_str().unwrap().starts_with("acme/platform/packages/"));
}

#[test]
fn roles_list_works_without_a_policy_under_all_its_names() {
    let alone = json_of(&["roles", "list", "-o", "json"]);
    assert_eq!(alone["catalog"], "chainguard-2025-08-14");
    assert_eq!(alone["roles"].as_array().unwrap().len(), 12);
    assert_eq!(
        alone["roles"][5],
        json!({
            "name": "apk.pull",
            "description":
                "Access to the organization’s APK packages, including the private APK repository",
            "family": "registry",
            "capabilities": ["apk.list", "groups.list"],
        })
    );
    for same in [&["role", "list"][..], &["iam", "roles", "list"], &["iam", "role", "list"]] {
        assert_eq!(json_of(&[same, &["-o", "json"]].concat()), alone);
    }
    let with_policy = json_of(&["roles", "list", "--policy", DEMO, "-o", "json"]);
    assert_eq!(with_policy["roles"].as_array().unwrap().len(), 13);
    assert_eq!(with_policy["roles"][12]["name"], "acme/release");
    assert_eq!(with_policy["roles"][12]["family"], "custom");

    let table = stdout(&capstan(&["roles", "list"]));
    assert!(table.contains("libraries.javascript.pull_token_creator"), "{table}");
    assert!(!table.contains('\x1b'), "no colours outside of a terminal");
    assert_eq!(code(&["roles", "list", "--catalog", "no-such-catalog"]), 2);
    assert_eq!(code(&["roles", "list", "no.such.role"]), 2);
}

#[test]
fn a_user_catalog_can_be_listed_and_named_by_a_policy() {
    let folder = folder("catalog");
    let (catalog, policy) = (folder.join("c.yaml"), folder.join("p.yaml"));
    std::fs::write(
        &catalog,
        "name: mine\nresources: [{name: record, actions: [read]}]\n\
         roles: [{name: reader, capabilities: [record.read]}]\n",
    )
    .unwrap();
    std::fs::write(
        &policy,
        "version: 1\ncatalog: mine\nidentities: [{id: a}]\nresources: [{id: record-1, type: record}]\n\
         role_bindings: [{identity: a, role: reader, scope: record-1}]\n",
    )
    .unwrap();
    let (catalog, policy) = (catalog.to_str().unwrap(), policy.to_str().unwrap());
    let listed = json_of(&["roles", "list", "--catalog", catalog, "-o", "json"]);
    assert_eq!(listed["catalog"], "mine");
    assert_eq!(listed["roles"][0]["capabilities"], json!(["record.read"]));
    let check = ["check", "a", "record.read", "record-1", "--policy", policy];
    assert_eq!(code(&[&check[..], &["--catalog", catalog]].concat()), 0);
    let without = capstan(&check);
    assert_eq!(without.status.code(), Some(2));
    assert!(
        stderr(&without).contains("p.yaml:2:10: catalog: found catalog `mine`"),
        "{}",
        stderr(&without)
    );
}

#[test]
fn validate_prints_every_mistake_with_its_position() {
    let output = capstan(&["policy", "validate", DEMO]);
    assert!(output.status.success());
    assert!(stdout(&output).contains("valid: 7 groups"), "{}", stdout(&output));

    let file = folder("validate").join("bad.yaml");
    std::fs::write(&file, "version: 2\ncatalog: none\ngroups:\n  - {id: a//b}\n  - {idd: a}\n")
        .unwrap();
    let file = file.to_str().unwrap();
    let output = capstan(&["policy", "validate", DEMO, file]);
    assert_eq!(output.status.code(), Some(2));
    let text = stdout(&output);
    for place in [
        ":1:10: error: version:",
        ":2:10: error: catalog:",
        ":4:10: error: groups[0].id:",
        ":5:6: error: groups[1]:",
    ] {
        assert!(text.contains(place), "{place} in {text}");
    }
    let report = json_of(&["policy", "validate", file, "-o", "json"]);
    let report = &report["files"][0];
    assert_eq!((&report["valid"], &report["error_count"]), (&json!(false), &json!(5)));
    assert_eq!(report["errors"][0]["line"], 1);
    assert_eq!(report["errors"][0]["expected"], "the number 1");

    assert_eq!(code(&["policy", "validate", "no-such-file"]), 2);
    let tight = ["policy", "validate", DEMO, "--max-document-bytes", "100"];
    assert!(stdout(&capstan(&tight)).contains("more than 100 bytes"));
    let size = std::fs::metadata(Path::new("../..").join(DEMO)).unwrap().len().to_string();
    assert_eq!(code(&["policy", "validate", DEMO, "--max-document-bytes", &size]), 0);
}

#[test]
fn every_help_has_examples() {
    let commands: [&[&str]; 18] = [
        &["bindings"],
        &["groups"],
        &["identities"],
        &["catalog", "capabilities"],
        &["policy", "diff"],
        &["who"],
        &["where"],
        &["explain"],
        &["policy", "test"],
        &[],
        &["serve"],
        &["top"],
        &["check"],
        &["capabilities"],
        &["roles"],
        &["roles", "list"],
        &["policy"],
        &["policy", "validate"],
    ];
    for command in commands {
        let output = capstan(&[command, &["--help"]].concat());
        assert!(output.status.success());
        let help = stdout(&output);
        assert!(help.contains("Examples:") || command == ["policy"], "{help}");
    }
}

#[test]
fn a_closed_standard_output_is_not_an_error() {
    let mut child =
        command(&["roles", "list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(stderr(&output), "");
}

#[test]
fn who_where_and_explain_print_text_and_json() {
    let who = ["who", "repo.delete", "acme/platform/images", "--policy", DEMO];
    assert_eq!(stdout(&capstan(&who)), "alice\n");
    let as_json = |arguments: &[&str]| json_of(&[arguments, &["-o", "json"]].concat());
    assert_eq!(as_json(&who), json!({"identities": ["alice"], "revision": 1}));
    let nobody = ["who", "repo.delete", "beta", "--policy", DEMO];
    assert_eq!(stdout(&capstan(&nobody)), "nobody can repo.delete at beta\n");

    let places = ["where", "acme/platform/ci", "apk.list", "--policy", DEMO];
    assert_eq!(stdout(&capstan(&places)), "acme/platform/packages\n");
    let scope = json!({"scope": "acme/platform/packages", "conditional": false});
    assert_eq!(as_json(&places), json!({"scopes": [scope], "revision": 1}));

    let why = ["explain", "bob", "repo.delete", "acme/platform/images/nginx", "--policy", DEMO];
    let text = stdout(&capstan(&why));
    let picture =
        "  acme\n  └─ platform      · editor\n     └─ images\n        └─ nginx   ← asked here\n";
    assert!(text.contains(picture), "{text}");
    assert!(text.contains("missing: repo.delete\nroles that would give it: "), "{text}");
    let found = as_json(&why);
    assert_eq!((&found["allowed"], &found["missing"]), (&json!(false), &json!(["repo.delete"])));
    assert_eq!(found["reason"], "CAPABILITY_NOT_IN_ROLE");
    assert!(found["roles"].as_array().unwrap().contains(&json!("owner")));
    let allowed = as_json(&["explain", "alice", "repo.delete", "acme", "--policy", DEMO]);
    assert_eq!(allowed["witness"]["role"], "owner");
    for bad in
        [&["who", "x", "acme"][..], &["where", "a//b", "repo.list"], &["explain", "a", "x", "acme"]]
    {
        assert_eq!(code(&[bad, &["--policy", DEMO]].concat()), 2, "{bad:?}");
    }
}

#[test]
fn property_options_supply_the_attributes_of_conditions() {
    let policy = folder("property").join("policy.yaml");
    std::fs::write(
        &policy,
        "version: 1\ncatalog: {name: c, resources: [{name: r, actions: [get]}], \
         roles: [{name: reader, capabilities: [r.get]}]}\nidentities: [{id: a}]\n\
         groups: [{id: acme}]\nrole_bindings:\n\
         - {identity: a, role: reader, scope: acme, when: [{attribute: context.n, equals: 1}]}\n",
    )
    .unwrap();
    let policy = policy.to_str().unwrap();
    let check = |properties: &[&str]| {
        code(&[&["check", "a", "r.get", "acme", "--policy", policy], properties].concat())
    };
    assert_eq!(check(&[]), 1);
    assert_eq!(check(&["--property", "context.n=1"]), 0);
    assert_eq!(check(&["--property", "context.n=\"1\""]), 1);
    assert_eq!(check(&["--property", "context.n=one"]), 1);
    assert_eq!(check(&["--property", "n=1"]), 2);
    // The lines of a file have their own properties: the option would be without effect.
    let file = capstan(&["check", "--file", "none", "--policy", DEMO, "--property", "context.n=1"]);
    assert!(stderr(&file).contains("'--property <ATTRIBUTE=VALUE>'"), "{}", stderr(&file));
    assert_eq!(check(&["--property", "context.n"]), 2);
}

/// Each question of a file gets one line of output even if the server is unreachable.
#[test]
fn an_unreachable_server_gives_one_error_per_question() {
    let queries = folder("unreachable").join("queries.ndjson");
    let question = "{\"identity\": \"a\", \"capability\": \"b\", \"resource\": \"c\"}\n";
    std::fs::write(&queries, question.repeat(3)).unwrap();
    let output =
        capstan(&["check", "--file", queries.to_str().unwrap(), "--addr", "http://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(2));
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().all(|line| line.starts_with("{\"error\":\"cannot reach")), "{text}");
}

#[test]
fn the_environment_sets_only_the_default_server() {
    let run = |arguments: &[&str]| {
        let mut command = command(arguments);
        command.env("CAPSTAN_ADDR", "http://127.0.0.1:1").output().unwrap()
    };
    assert!(run(&["roles", "list"]).status.success());
    assert!(run(&["check", "alice", "repo.list", "acme", "--policy", DEMO]).status.success());
    let asked = run(&["check", "alice", "repo.list", "acme"]);
    assert!(stderr(&asked).contains("cannot reach http://127.0.0.1:1"), "{}", stderr(&asked));
}

/// A result that cannot be written is an error, which standard error says whatever the format.
#[test]
fn a_full_standard_output_is_an_error_with_a_message() {
    for arguments in [&["roles", "list"][..], &["roles", "list", "--output", "json"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = command(arguments).stdout(full).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = stderr(&output);
        assert!(said.starts_with("error: cannot write the result to standard output: "), "{said}");
    }
}

/// clap takes a requirement away beside what conflicts with what is required (`findings/clap-requires-beside-conflict.sh`): such an option
/// would be passed over, and a server asked for TLS would speak plain text.
#[test]
fn an_option_is_refused_beside_what_excludes_the_one_that_it_needs() {
    let plain = ["--insecure-plaintext-management", "--listen-management", "127.0.0.1:0"];
    for arguments in [
        vec!["serve", "--demo", "--tls-key", "f", "--insecure-plaintext"],
        vec!["serve", "--demo", "--client-ca", "f", "--insecure-plaintext"],
        vec!["serve", "--demo", "--client-crl", "f", "--insecure-plaintext"],
        [&["serve", "--demo", "--tls-key", "f"], &plain[..]].concat(),
        [&["serve", "--demo", "--client-ca", "f"], &plain[..]].concat(),
        vec!["serve", "--policy", "f", "--signing-keys", "f"],
        vec!["serve", "--policy", "f", "--webhook-ca", "f"],
        vec!["init", "--data", "f", "--org", "acme", "--owner", "a", "--subject", "s"],
        vec!["iam", "account-associations", "update", "a", "--no-google", "--google-number", "5"],
        vec!["iam", "account-associations", "update", "a", "--no-azure", "--azure-client", "c"],
    ] {
        let output = capstan(&arguments);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("cannot be used with"), "{arguments:?}: {said}");
    }
}
