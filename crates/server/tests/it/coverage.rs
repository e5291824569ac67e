//! Keeps the suite honest: what the contract names and this version serves appears in a test, or in
//! a named exemption, and no exemption is stale.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use capstan_engine::Reason;
use capstan_policy::Expectation;
use capstan_testkit::worlds::worlds;
use prost::Message as _;

/// Error reasons that no test here provokes, and why not.
const EXEMPT: [(&str, &str); 0] = [];

#[test]
fn every_reason_is_expected_by_a_world() {
    let expected: BTreeSet<&str> = worlds()
        .iter()
        .flat_map(|world| &world.tests.tests)
        .filter_map(|test| match &test.expectation {
            Expectation::Check { reason, .. } => reason.map(Reason::as_str),
            _ => None,
        })
        .collect();
    assert_eq!(expected, Reason::ALL.map(Reason::as_str).into());
}

#[test]
fn every_call_is_made_by_a_test() {
    let tests = text_of("tests/it");
    let set = prost_types::FileDescriptorSet::decode(capstan_proto::DESCRIPTOR_SET).unwrap();
    let ours = set.file.iter().filter(|file| file.package() == "capstan.v1");
    let calls: Vec<String> = ours
        .flat_map(|file| &file.service)
        .flat_map(|service| &service.method)
        .map(|method| snake_case(method.name()))
        .collect();
    assert!(calls.len() >= 8);
    for call in calls {
        assert!(tests.contains(&format!(".{call}(")), "no test calls {call}");
    }
}

#[test]
fn every_error_reason_is_provoked_by_a_test() {
    let tests = text_of("tests/it") + &text_of("src/admission");
    let status = fs::read_to_string(root().join("src/status.rs")).unwrap();
    let is_reason =
        |word: &&str| word.len() > 4 && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let reasons: BTreeSet<&str> = status.split('"').filter(is_reason).collect();
    assert!(reasons.len() >= 5, "{reasons:?}");
    for reason in &reasons {
        let tested = tests.contains(&format!("\"{reason}\""));
        let exempt = EXEMPT.iter().any(|(name, _)| name == reason);
        assert!(tested != exempt, "{reason}: tested {tested}, exempt {exempt}");
    }
    for (name, _) in EXEMPT {
        assert!(reasons.contains(name), "the exemption of {name} is stale");
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files of a folder, this one left out.
fn text_of(folder: &str) -> String {
    let files = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|found| found == "rs"));
    let files = files.filter(|path| !path.ends_with("coverage.rs"));
    files.map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
