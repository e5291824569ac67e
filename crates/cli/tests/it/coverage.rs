//! The coverage guard: every reason, RPC, capability and limit appears in a test or in an exemption with a
//! cause, and no exemption is stale.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use capstan_engine::Reason;
use capstan_policy::{Catalogs, Expectation};
use capstan_testkit::worlds::worlds;
use prost::Message as _;

/// Error reasons without a test, and the cause.
const EXEMPT_REASONS: [(&str, &str); 0] = [];

/// Capabilities that no world checks: catalog, capability, and the cause.
const EXEMPT_CAPABILITIES: [(&str, &str, &str); 0] = [];

/// Limits without a test, and the cause.
const EXEMPT_LIMITS: [(&str, &str); 32] = [
    ("FILES_WANTED", "a hard limit, as in tests, replaces this value"),
    ("DECISION_LOG_FLUSH_MAX", "decision_log.rs tests a reader that blocks the shutdown"),
    ("DECISION_LOG_LOST_PAUSE", "depends on the clock; reports of lost lines are tested"),
    ("DECISION_LOG_TICK", "depends on the clock; written lines are tested"),
    ("DECISION_LOG_WRITE_BYTES", "the size of a write is not visible from outside"),
    ("EXPORT_CONNECT_TIMEOUT", "traces.rs tests a collector that never answers"),
    ("EXPORT_TIMEOUT", "likewise"),
    ("SPANS_FLUSH_MAX", "likewise"),
    ("ACCEPTED_MAX", "further connections wait in the kernel, which is not visible from outside"),
    ("SELF_CHECK_IDENTITIES", "bounds only the work; the engine tests the sampling"),
    (
        "GIVE_BACK_WAIT",
        "what an allocator keeps shows in resident memory only; the bench `loading` measures it",
    ),
    ("WATCH_PERIOD", "depends on the clock; changes of watched files are tested"),
    ("BROWSER_TIME_MAX", "reaching it takes 10 minutes"),
    ("BROWSER_CONNECTION_TIME_MAX", "reaching it takes half a minute; idle connections are tested"),
    ("CALL_TIMEOUT", "reaching it takes 30 s; other tests find calls that never end"),
    ("TLS_RETRY", "half a minute, after an error that is not of the files"),
    ("TRANSFER_TIMEOUT", "reaching it takes 10 minutes"),
    (
        "ACCESS_TIME_MAX",
        "reaching it takes millions of identities; an answer that is cut is tested",
    ),
    (
        "REFERENCES_AT_ONCE",
        "bounds the size of a commit only; an index that is made anew is tested",
    ),
    ("CHALLENGE_PAUSE", "reaching it takes 12 hours"),
    (
        "DELIVERY_PAUSE",
        "a store that cannot be read; deliveries that go on after a kill are tested",
    ),
    ("DELIVERY_JUDGED_FOR", "reaching it takes 10 seconds between two events of one revision"),
    (
        "SEARCH_EVALUATED_MAX",
        "reaching it takes 100,000 identities of another type; pages that end early are tested",
    ),
    ("EVENT_THREADS_MAX", "the bench of events measures what the threads give"),
    ("DELIVERY_PASSES_OVER", "a position that moves on shows after a restart only"),
    ("REVISION_HELD", "how long a revision is held shows in the growth of the file only"),
    ("SUBSCRIPTIONS_SERVED_MAX", "reaching it takes thousands of subscriptions, each with a task"),
    (
        "ORGANIZATIONS_LOOKED_AT_MAX",
        "reaching it takes a thousand organizations; roles of two are tested",
    ),
    ("REFUSAL_LOGGED", "how often a line is logged; that it is, is tested"),
    ("TOKEN_READS_MAX", "bounds only the work at a time"),
    ("EXCHANGES_MAX", "reaching it takes peers of several addresses; that of one is tested"),
    ("IMPORTS_MAX", "bounds memory only; imports that wait for each other are tested"),
];

/// Limits of the client without a test, and the cause.
const EXEMPT_CLIENT_LIMITS: [(&str, &str); 5] = [
    ("PROTECTED_TIME_MAX", "reaching it takes 10 s; deadlines of callers are tested"),
    ("CONNECT_TIMEOUT", "the deadline of a call ends the call first"),
    ("KEEPALIVE_INTERVAL", "reaching it takes 30 s; `stall` detects a stalled server earlier"),
    ("KEEPALIVE_TIMEOUT", "likewise"),
    ("CONNECTION_AGE_JITTER_PART", "random; the age of connections is tested"),
];

/// Limits of objects and operations without a test, and the cause.
const EXEMPT_IAM_LIMITS: [(&str, &str); 1] =
    [("WHO_COULD_EXAMINED_MAX", "bounds only the work; who could do it is tested")];

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

/// The matrix of methods and roles (`store/methods.rs`) has a row for each method of `capstan.iam.v1`.
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
    assert!(calls.len() >= 7);
    for call in calls {
        assert!(tests.contains(&format!(".{call}(")), "no test calls {call}");
    }
}

#[test]
fn every_error_reason_is_provoked_by_a_test() {
    let tests = text_of("tests/it") + &text_of("tests/it/store") + &unit_tests_of_the_server();
    let status = fs::read_to_string(root().join("../server/src/grpc/status.rs")).unwrap();
    let status = status.split("#[cfg(test)]").next().unwrap();
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

/// A test must name the capability: a list of the right length would prove less.
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
    assert_eq!(unasked, exempt, "left: capabilities without a world; right: exemptions");
}

/// A test names the constant, or sets the field of `Limits` with the same name.
#[test]
fn every_limit_is_named_by_a_test() {
    let folders = [
        "tests/it",
        "tests/it/askers",
        "tests/it/cli",
        "tests/it/limits",
        "tests/it/reload",
        "tests/it/ext_authz",
        "tests/it/iam",
        "tests/it/kubernetes",
        "tests/it/manage",
        "tests/it/store",
        "tests/it/tls",
        "tests/it/tokens",
        "tests/it/transport",
    ];
    let tests = folders.map(text_of).concat() + &unit_tests_of_the_server();
    let limits = ["../server/src/limits.rs", "../server/src/limits/tokens.rs", "src/limits.rs"];
    let limits = limits.map(|file| fs::read_to_string(root().join(file)).unwrap()).concat();
    let exempt = EXEMPT_LIMITS.map(|(name, _)| name).into();
    assert_eq!(
        unnamed(&limits, &tests, 50),
        exempt,
        "left: limits without a test; right: exemptions"
    );

    let iam = root().join("../iam/src");
    let tests = text_of("../testkit/tests/iam") + &unit_tests(&iam);
    let limits = fs::read_to_string(iam.join("limits.rs")).unwrap();
    let exempt = EXEMPT_IAM_LIMITS.map(|(name, _)| name).into();
    assert_eq!(
        unnamed(&limits, &tests, 10),
        exempt,
        "left: limits without a test; right: exemptions"
    );

    let client = root().join("../client");
    let tests = text_of("../client/tests/it") + &unit_tests(&client.join("src"));
    let limits = fs::read_to_string(client.join("src/limits.rs")).unwrap();
    let exempt = EXEMPT_CLIENT_LIMITS.map(|(name, _)| name).into();
    assert_eq!(
        unnamed(&limits, &tests, 20),
        exempt,
        "left: limits without a test; right: exemptions"
    );
}

/// The same for the store, whose tests below redb stand beside it.
#[test]
fn every_limit_of_the_store_is_named_by_a_test() {
    let store = root().join("../store");
    let tests = text_of("../store/tests/it") + &text_of("../store/src/redb/tests");
    let tests = tests + &unit_tests(&store.join("src"));
    let limits = fs::read_to_string(store.join("src/limits.rs")).unwrap();
    assert_eq!(unnamed(&limits, &tests, 12), BTreeSet::new(), "limits without a test");
}

/// The same for the delivery of events.
#[test]
fn every_limit_of_events_is_named_by_a_test() {
    let events = root().join("../events");
    let tests = text_of("../events/tests/it") + &unit_tests(&events.join("src"));
    let limits = fs::read_to_string(events.join("src/limits.rs")).unwrap();
    assert_eq!(unnamed(&limits, &tests, 25), BTreeSet::new(), "limits without a test");
}

/// The constants that the tests do not name. There must be at least `least` constants.
fn unnamed<'l>(limits: &'l str, tests: &str, least: usize) -> BTreeSet<&'l str> {
    let words: BTreeSet<&str> =
        tests.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    let constants = limits.lines().filter_map(|line| {
        line.strip_prefix("pub const ").or_else(|| line.strip_prefix("pub(crate) const "))
    });
    let constants: BTreeSet<&str> = constants.map(|line| line.split(':').next().unwrap()).collect();
    assert!(constants.len() >= least, "{constants:?}");
    let named = |name: &&str| words.contains(*name) || words.contains(&*name.to_lowercase());
    constants.into_iter().filter(|name| !named(name)).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of the Rust files of a folder, without this file.
fn text_of(folder: &str) -> String {
    let files = fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|found| found == "rs"));
    let files = files.filter(|path| !path.ends_with("coverage.rs"));
    files.map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// The unit tests of the server, the command line and the load generator. Some limits of the server are
/// enforced in the latter two.
fn unit_tests_of_the_server() -> String {
    ["src", "../server/src", "../bench/src"].map(|folder| unit_tests(&root().join(folder))).concat()
}

/// The text of the unit tests in a folder and its subfolders.
fn unit_tests(folder: &Path) -> String {
    let mut all = String::new();
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            all += &unit_tests(&path);
        } else if path.ends_with("tests.rs") || folder.iter().any(|part| part == "tests") {
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
