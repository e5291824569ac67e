//! Keeps the suite honest: what the contract names and this version serves appears in a test, or in
//! a named exemption, and no exemption is stale.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use capstan_engine::Reason;
use capstan_policy::{Catalogs, Expectation};
use capstan_testkit::worlds::worlds;
use prost::Message as _;

/// Error reasons that no test here provokes, and why not.
const EXEMPT_REASONS: [(&str, &str); 0] = [];

/// Capabilities that no world asks about: catalog, capability, and why not.
const EXEMPT_CAPABILITIES: [(&str, &str, &str); 0] = [];

/// Limits that no test here meets, and why not.
const EXEMPT_LIMITS: [(&str, &str); 11] = [
    ("FILES_WANTED", "where there is a hard limit, as in a test, that is asked for"),
    ("DECISION_LOG_FLUSH_MAX", "a reader that is stuck at the end is a test of decision_log.rs"),
    ("DECISION_LOG_LOST_PAUSE", "the clock's: that losses are told is tested"),
    ("DECISION_LOG_TICK", "the clock's: that lines come is tested"),
    ("DECISION_LOG_WRITE_BYTES", "how much is written at once shows nowhere outside"),
    ("EXPORT_CONNECT_TIMEOUT", "a collector that never answers is a test of traces.rs"),
    ("EXPORT_TIMEOUT", "likewise"),
    ("SPANS_FLUSH_MAX", "likewise"),
    ("ACCEPTED_MAX", "what is more waits in the kernel, which cannot be seen from outside"),
    ("SELF_CHECK_IDENTITIES", "bounds work only: the sampling is tested in the engine"),
    ("CALL_TIMEOUT", "waiting for it takes 30 s; a call without an end is what other tests find"),
];

/// Limits of the client that no test of it meets, and why not.
const EXEMPT_CLIENT_LIMITS: [(&str, &str); 4] = [
    ("CONNECT_TIMEOUT", "as long as a call's own deadline, which ends the call first"),
    ("KEEPALIVE_INTERVAL", "waiting for it takes 30 s; a stalled server is noticed by `stall`"),
    ("KEEPALIVE_TIMEOUT", "likewise"),
    ("CONNECTION_AGE_JITTER_PART", "a part that is drawn: that connections grow old is tested"),
];

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
fn every_rpc_is_called_by_a_test() {
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
    let tests = text_of("tests/it") + &unit_tests_of_the_server();
    let status = fs::read_to_string(root().join("../server/src/grpc/status.rs")).unwrap();
    let is_reason =
        |word: &&str| word.len() > 4 && word.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
    let reasons: BTreeSet<&str> = status.split('"').filter(is_reason).collect();
    assert!(reasons.len() >= 5, "{reasons:?}");
    for reason in &reasons {
        let tested = tests.contains(&format!("\"{reason}\""));
        let exempt = EXEMPT_REASONS.iter().any(|(name, _)| name == reason);
        assert!(tested != exempt, "{reason}: tested {tested}, exempt {exempt}");
    }
    for (name, _) in EXEMPT_REASONS {
        assert!(reasons.contains(name), "the exemption of {name} is stale");
    }
}

/// Asked by name: that a list is as long as it should be says less.
#[test]
fn every_capability_of_every_built_in_catalog_is_checked_by_a_world() {
    let (worlds, catalogs) = (worlds(), Catalogs::default());
    let asked: BTreeSet<(&str, &str)> = worlds
        .iter()
        .flat_map(|world| world.tests.tests.iter().map(|test| (&*world.catalog.name, test)))
        .filter_map(|(catalog, test)| match &test.expectation {
            Expectation::Check { capability, .. } | Expectation::Identities { capability, .. } => {
                Some((catalog, &**capability))
            }
            Expectation::Capabilities { .. } => None,
        })
        .collect();
    let built_in: Vec<_> =
        catalogs.names().map(|name| (name.to_owned(), catalogs.get(name).unwrap())).collect();
    assert!(built_in.len() >= 3);
    let known: BTreeSet<(&str, &str)> = built_in
        .iter()
        .flat_map(|(name, catalog)| catalog.capabilities().map(move |it| (&**name, it)))
        .collect();
    let exempt = EXEMPT_CAPABILITIES.map(|(catalog, capability, _)| (catalog, capability)).into();
    let unasked: BTreeSet<_> = known.difference(&asked).copied().collect();
    assert_eq!(unasked, exempt, "left: what no world asks; right: what is exempt");
}

/// Named as the constant, or as the field of `Limits` that a test sets instead.
#[test]
fn every_limit_is_named_by_a_test() {
    let folders = ["tests/it", "tests/it/limits", "tests/it/reload", "tests/it/ext_authz"];
    let tests = folders.map(text_of).concat() + &unit_tests_of_the_server();
    let limits = ["../server/src/limits.rs", "src/limits.rs"];
    let limits = limits.map(|file| fs::read_to_string(root().join(file)).unwrap()).concat();
    let exempt = EXEMPT_LIMITS.map(|(name, _)| name).into();
    assert_eq!(unmet(&limits, &tests, 50), exempt, "left: what no test meets; right: exempt");

    let client = root().join("../client");
    let tests = text_of("../client/tests/it") + &unit_tests(&client.join("src"));
    let limits = fs::read_to_string(client.join("src/limits.rs")).unwrap();
    let exempt = EXEMPT_CLIENT_LIMITS.map(|(name, _)| name).into();
    assert_eq!(unmet(&limits, &tests, 20), exempt, "left: what no test meets; right: exempt");
}

/// Of at least so many constants, those that the tests do not name.
fn unmet<'l>(limits: &'l str, tests: &str, least: usize) -> BTreeSet<&'l str> {
    let words: BTreeSet<&str> =
        tests.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let constants = limits.lines().filter_map(|line| {
        line.strip_prefix("pub const ").or_else(|| line.strip_prefix("pub(crate) const "))
    });
    let constants: BTreeSet<&str> = constants.map(|line| line.split(':').next().unwrap()).collect();
    assert!(constants.len() >= least, "{constants:?}");
    let met = |name: &&str| words.contains(*name) || words.contains(&*name.to_lowercase());
    constants.into_iter().filter(|name| !met(name)).collect()
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

/// Of the server, and of the command line and the load generator, which keep some of its limits.
fn unit_tests_of_the_server() -> String {
    ["src", "../server/src", "../bench/src"].map(|folder| unit_tests(&root().join(folder))).concat()
}

/// What stands in the unit tests of a folder and those below it.
fn unit_tests(folder: &Path) -> String {
    let mut all = String::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            all += &unit_tests(&path);
        } else if path.ends_with("tests.rs") {
            all += &fs::read_to_string(path).unwrap();
        } else if let Some((_, tests)) =
            fs::read_to_string(path).unwrap().split_once("#[cfg(test)]")
        {
            all += tests;
        }
    }
    all
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
