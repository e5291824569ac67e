//! `capstan who` and `capstan where` with those who have a capability only under conditions.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::common::{Serving, capstan, golden, stderr, stdout};

const CLINIC: &str = "crates/testkit/worlds/conditions.policy.yaml";

/// The searches of the golden file, in the world `conditions`.
const SEARCHES: [&str; 17] = [
    "who record.delete clinic",
    "who record.delete clinic/ward/open",
    "who record.delete clinic/ward/old",
    "who record.read clinic",
    "who record.read clinic/leaflet",
    "who record.write clinic/ward",
    "who record.write clinic/ward --property context.mfa=true",
    "who record.write clinic/ward --property context.mfa=false",
    "who record.write clinic/ward --property context.mfa=1 --property action.name=write",
    "who record.delete records",
    "where visitor record.read",
    "where visitor record.write",
    "where visitor record.write --property context.mfa=true",
    "where visitor record.delete --property action.name=delete",
    "where doctor record.write",
    "where nurse record.write",
    "where clinic/robot record.delete",
];

#[test]
fn searches_list_conditional_entries_with_their_conditions() {
    let server =
        Serving::start(&["--policy", CLINIC, "--listen", "127.0.0.1:0", "--http", "none"], 1);
    let address = server.address("grpc");
    let run = |search: &str, from: [&str; 2], format: &str| {
        let words: Vec<_> = search.split(' ').chain(from).chain(["--output", format]).collect();
        let output = capstan(&words);
        assert!(output.status.success(), "{search}: {}", stderr(&output));
        stdout(&output)
    };
    let mut text =
        String::from("# The world `conditions`, from a document and from a server alike.\n");
    for search in SEARCHES {
        writeln!(text, "\n$ capstan {search}").unwrap();
        for format in ["table", "json"] {
            let of_a_file = run(search, ["--policy", CLINIC], format);
            assert_eq!(of_a_file, run(search, ["--addr", &address], format), "{search}");
            text += &of_a_file;
        }
    }
    golden("conditions.search", &text);
}

/// A binding that a registered property rules out is not listed, whatever a request has: the doctor's level is a text.
#[test]
fn what_no_request_can_meet_is_not_listed() {
    let arguments = ["who", "record.write", "clinic/ward", "--policy", CLINIC, "-o", "json"];
    let found: Value = serde_json::from_str(&stdout(&capstan(&arguments))).unwrap();
    assert_eq!(found["identities"], json!([]));
    let conditional = found["conditional"].as_array().unwrap();
    let doctor = conditional.iter().find(|one| one["identity"] == "doctor").unwrap();
    let [grant] = &doctor["grants"].as_array().unwrap()[..] else { panic!("{doctor}") };
    assert_eq!(grant["grant"]["role"], "owner", "not the writer of level 1: {grant}");
    let open = json!([{"attribute": "resource.status", "equals": "open"}]);
    assert_eq!(grant["open"], open, "the registered level holds and is not named");
}
