//! `roles compare` by capabilities: the roles of any catalog.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{LITERAL, json_of};
use crate::common::{Serving, capstan, folder, golden, stderr, stdout};

const CLINIC: &str = "crates/testkit/worlds/conditions.policy.yaml";

/// The comparisons of the golden file.
const COMPARISONS: [&str; 7] = [
    "--policy crates/testkit/worlds/conditions.policy.yaml",
    "reader clinic/shredder --policy crates/testkit/worlds/conditions.policy.yaml",
    "--policy crates/testkit/worlds/conditions.policy.yaml --output json",
    "--policy crates/testkit/worlds/empty-role.policy.yaml",
    "editor viewer --by capabilities",
    "--by capabilities",
    "--by tasks apk.pull registry.pull",
];

fn compare(arguments: &str) -> String {
    let words: Vec<_> = ["roles", "compare"].into_iter().chain(arguments.split(' ')).collect();
    let output = capstan(&words);
    assert!(output.status.success(), "{arguments}: {}", stderr(&output));
    stdout(&output)
}

fn assert_narrow(text: &str) {
    let wide = text.lines().find(|line| line.chars().count() > 80);
    assert_eq!(wide, None, "more than 80 columns");
}

#[test]
fn comparisons_match_the_golden_file() {
    let mut text =
        String::from("# Where there is no terminal, a line has at most 80 characters.\n");
    for arguments in COMPARISONS {
        let compared = compare(arguments);
        if !arguments.contains("json") && !arguments.contains("tasks") {
            assert_narrow(&compared);
        }
        writeln!(text, "\n$ capstan roles compare {arguments}\n{}", compared.trim_end()).unwrap();
    }
    golden("roles.compare", &text);

    let server =
        Serving::start(&["--policy", CLINIC, "--listen", "127.0.0.1:0", "--http", "none"], 1);
    let address = server.address("grpc");
    assert_eq!(compare(&format!("--addr {address}")), compare(COMPARISONS[0]));
}

/// The capabilities of each role are those that its marks say.
#[test]
fn marks_in_json_are_the_capabilities() {
    for arguments in [&["--policy", CLINIC][..], &["--by", "capabilities"]] {
        let compared = json_of(&[&["roles", "compare"], arguments, &["-o", "json"]].concat());
        let listed = match arguments {
            ["--policy", _] => json_of(&["roles", "list", "--policy", CLINIC, "-o", "json"]),
            _ => json_of(&["roles", "list", "-o", "json"]),
        };
        assert_eq!(compared["catalog"], listed["catalog"]);
        let columns = compared["columns"].as_array().unwrap();
        let roles = listed["roles"].as_array().unwrap();
        assert_eq!(compared["roles"].as_array().unwrap().len(), roles.len());
        for (role, found) in roles.iter().zip(compared["roles"].as_array().unwrap()) {
            assert_eq!(found["name"], role["name"]);
            let given = role["capabilities"].as_array().unwrap();
            let expected: Value = columns
                .iter()
                .map(|column| {
                    (column.as_str().unwrap().to_owned(), Value::from(given.contains(column)))
                })
                .collect();
            assert_eq!(found["marks"], expected);
        }
    }
    // A catalog with the name of a built-in one is compared by tasks, if nothing else is asked for.
    let tasks = json_of(&["roles", "compare", "owner", "-o", "json"]);
    assert_eq!(
        (&tasks["catalog"], tasks["columns"].as_array().unwrap().len()),
        (&json!(LITERAL), 6)
    );
    assert_eq!(tasks["roles"].as_array().unwrap().len(), 1);
}

#[test]
fn many_roles_with_long_names_fit() {
    let kinds = ["Microsoft.Storage/storageAccounts/blobServices/containers", "s3:", "r"];
    let capabilities: Vec<String> = kinds
        .iter()
        .flat_map(|kind| (0..30).map(move |at| format!("{kind}x.action{at}")))
        .collect();
    let resources = kinds.map(|kind| {
        let actions: Vec<_> = (0..30).map(|at| format!("action{at}")).collect();
        json!({"name": format!("{kind}x"), "actions": actions})
    });
    let roles: Vec<_> = (0..40)
        .map(|at| json!({"name": format!("a-role-with-a-long-name-{at}"), "capabilities": capabilities[at..=2 * at]}))
        .collect();
    let catalog = json!({"name": "wide", "resources": resources, "roles": roles});
    let file = folder("compare-wide").join("catalog.json");
    std::fs::write(&file, catalog.to_string()).unwrap();
    let text = compare(&format!("--catalog {}", file.to_str().unwrap()));
    assert_narrow(&text);
    for at in 0..40 {
        assert_eq!(text.matches(&format!(": a-role-with-a-long-name-{at}\n")).count(), 1, "{text}");
    }
}

#[test]
fn an_unknown_role_is_not_compared() {
    let output = capstan(&["roles", "compare", "edtor", "viewer"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(stderr(&output), "error: there is no role `edtor`; did you mean `editor`?\n");
}
