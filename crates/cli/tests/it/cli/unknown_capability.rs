//! Advice on a capability that the catalog lacks: similar names, and the command that lists all.

use capstan_engine::SUGGESTIONS_MAX;
use serde_json::{Value, json};

use crate::common::{Serving, capstan, folder, stderr, stdout};

const DEMO: &str = "deploy/quickstart/policy.yaml";

/// Standard error of a command that fails, the same from the document and from its server.
fn error(question: &[&str], policy: &str, address: &str) -> String {
    let [of_a_file, served] = [["--policy", policy], ["--addr", address]].map(|from| {
        let output = capstan(&[question, &from].concat());
        assert_eq!((output.status.code(), &*stdout(&output)), (Some(2), ""), "{question:?}");
        stderr(&output)
    });
    assert_eq!(of_a_file, served, "{question:?}");
    served
}

fn serve(policy: &str) -> Serving {
    Serving::start(&["--policy", policy, "--listen", "127.0.0.1:0", "--http", "none"], 1)
}

#[test]
fn every_question_suggests_similar_names_and_says_what_lists_all() {
    let server = serve(DEMO);
    let address = server.address("grpc");
    for question in [
        &["check", "alice", "repo.lst", "acme"][..],
        &["explain", "alice", "repo.lst", "acme"],
        &["who", "repo.lst", "acme"],
        &["where", "alice", "repo.lst"],
    ] {
        assert_eq!(
            error(question, DEMO, &address),
            "error: capability: catalog `chainguard-2025-08-14+errata` has no capability \
             `repo.lst`; did you mean `repo.list`? `capstan catalog capabilities --catalog \
             chainguard-2025-08-14+errata` lists all\n"
        );
        let json = capstan(&[question, &["--policy", DEMO, "-o", "json"]].concat());
        let json: Value = serde_json::from_str(&stdout(&json)).unwrap();
        assert!(json["error"].as_str().unwrap().contains("did you mean `repo.list`?"), "{json}");
    }
    assert_eq!(
        error(&["who", "xyz", "acme"], DEMO, &address),
        "error: capability: catalog `chainguard-2025-08-14+errata` has no capability `xyz`; \
         `capstan catalog capabilities --catalog chainguard-2025-08-14+errata` lists all\n"
    );
    let path = error(&["who", "repo.lst", "acme//x"], DEMO, &address);
    assert!(path.starts_with("error: resource:") && !path.contains("capstan catalog"), "{path}");
}

#[test]
fn the_capabilities_of_a_catalog_of_ones_own_are_listed_by_the_server_too() {
    let policy = folder("unknown-capability").join("policy.yaml");
    let text = "version: 1\ncatalog: {name: mine, resources: [{name: record, purpose: data, actions: [read, write]}],\n\
                \x20 capabilities: [gulfstream], roles: [{name: reader, capabilities: [record.read, gulfstream]}]}\n";
    std::fs::write(&policy, text).unwrap();
    let policy = policy.to_str().unwrap();
    let server = serve(policy);
    let address = server.address("grpc");
    assert_eq!(
        error(&["where", "ann", "record.reed"], policy, &address),
        "error: capability: catalog `mine` has no capability `record.reed`; did you mean \
         `record.read`? `capstan catalog capabilities` lists all, with the same --policy or --addr\n"
    );
    let listed = |from: [&str; 2]| -> Value {
        let output = capstan(&[&["catalog", "capabilities", "-o", "json"], &from[..]].concat());
        serde_json::from_str(&stdout(&output)).unwrap()
    };
    let all =
        json!({"catalog": "mine", "capabilities": ["gulfstream", "record.read", "record.write"]});
    assert_eq!(listed(["--policy", policy]), all);
    let given = json!({"catalog": "mine", "capabilities": ["gulfstream", "record.read"]});
    assert_eq!(listed(["--addr", &address]), given, "those that a role gives");
    let table = stdout(&capstan(&["catalog", "capabilities", "--addr", &address]));
    assert!(table.contains("│ record     ┆ read"), "{table}");
}

/// Each line of a file has its advice. At most [`SUGGESTIONS_MAX`] names are compared.
#[test]
fn a_file_of_questions_suggests_a_few_names() {
    let server = serve(DEMO);
    let queries = folder("unknown-capabilities").join("queries.ndjson");
    let line = |capability: &str| {
        json!({"identity": "alice", "capability": capability, "resource": "acme"}).to_string()
    };
    let mut names: Vec<_> = (0..=SUGGESTIONS_MAX).map(|at| format!("repo.list{at}")).collect();
    names.extend(["repo.list".into(), names[0].clone()]);
    let lines: Vec<_> = names.iter().map(|name| line(name)).collect();
    std::fs::write(&queries, lines.join("\n")).unwrap();
    let answers = |from: [&str; 2]| -> Vec<Value> {
        let output =
            capstan(&[&["check", "--file", queries.to_str().unwrap()], &from[..]].concat());
        stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let found = answers(["--policy", DEMO]);
    assert_eq!(found, answers(["--addr", &server.address("grpc")]));
    assert_eq!(found.len(), SUGGESTIONS_MAX + 3);
    for (at, answer) in found.iter().enumerate() {
        if names[at] == "repo.list" {
            assert_eq!(answer["allowed"], true);
            continue;
        }
        let error = answer["error"].as_str().unwrap();
        assert_eq!(error.contains("did you mean `repo.list`"), at != SUGGESTIONS_MAX, "{error}");
        assert!(error.ends_with("` lists all"), "{error}");
    }
}
