//! Options that all questions have: `--consistency` and `--quiet`.

use crate::common::{Serving, capstan, folder, stderr, stdout};

const DEMO: &str = "deploy/quickstart/policy.yaml";

/// The exit code, and all output.
fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = capstan(arguments);
    (output.status.code(), stdout(&output), stderr(&output))
}

#[test]
fn every_question_may_ask_for_a_revision() {
    let server = Serving::start(&["--demo", "--listen", "127.0.0.1:0", "--http", "none"], 1);
    let address = format!("http://{}", server.address("grpc"));
    let queries = folder("questions-consistency").join("queries.ndjson");
    let question = r#"{"identity": "alice", "capability": "repo.list", "resource": "acme"}"#;
    std::fs::write(&queries, question).unwrap();
    let web = "acme/platform/web";
    for question in [
        &["check", "alice", "repo.list", web][..],
        &["check", "--file", queries.to_str().unwrap()],
        &["capabilities", "alice", web],
        &["explain", "alice", "repo.list", web],
        &["who", "repo.list", web],
        &["where", "alice", "repo.list"],
    ] {
        let ask =
            |mode: &str| run(&[question, &["--addr", &address, "--consistency", mode]].concat());
        for mode in ["any", "full", "at-least=1"] {
            let (code, _, error) = ask(mode);
            assert_eq!(code, Some(0), "{question:?} {mode}: {error}");
        }
        let (code, out, error) = ask("at-least=2");
        assert_eq!(code, Some(2), "{question:?}");
        assert!((out.clone() + &error).contains("revision"), "{question:?}: {out}{error}");
    }
    for mode in ["at-least=", "at-least=-1", "at-least", "newest"] {
        let (code, _, error) = run(&["check", "alice", "repo.list", web, "--consistency", mode]);
        assert_eq!(code, Some(2), "{mode}");
        assert!(error.contains("expected any, full, or at-least=REVISION"), "{error}");
    }
    let of_a_file = ["check", "alice", "repo.list", web, "--policy", DEMO, "--consistency", "full"];
    assert!(run(&of_a_file).2.contains("cannot be used with"), "a file has one revision");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn a_quiet_command_answers_by_its_exit_code() {
    let ask = |identity, more: &[&str]| {
        run(&[&["check", identity, "repo.list", "acme/platform", "--policy", DEMO, "-q"], more]
            .concat())
    };
    let nothing = String::new;
    assert_eq!(ask("alice", &[]), (Some(0), nothing(), nothing()));
    assert_eq!(ask("nobody", &["-o", "json"]), (Some(1), nothing(), nothing()));
    let (code, out, error) = ask("//", &["-o", "json"]);
    assert!(code == Some(2) && out.is_empty() && error.starts_with("error: "), "{out}{error}");
    let file = folder("questions-quiet").join("queries.ndjson");
    std::fs::write(&file, "{}\n").unwrap();
    let batch = run(&["check", "--file", file.to_str().unwrap(), "--policy", DEMO, "--quiet"]);
    assert_eq!(batch, (Some(2), nothing(), nothing()));
    assert_eq!(run(&["policy", "validate", DEMO, "-q"]), (Some(0), nothing(), nothing()));
}
