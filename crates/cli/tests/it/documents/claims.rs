//! Figures and lists of README.md: each is computed from what it is about, or a named test holds it.

use std::collections::BTreeSet;

use capstan_engine::{Reason, Snapshot};
use capstan_policy::{Catalogs, load_policy};
use capstan_server::feed::source::DEMO;
use capstan_server::limits::{
    DECISION_LOG_BYTES_MAX, DECISION_LOG_LINES_MAX, DECISION_LOG_LOST_PAUSE, SPANS_MAX,
};
use prost::Message as _;
use serde_json::Value;

use super::blocks::{prose, read};
use super::names;
use crate::command_limits::COMPLETION_TIME_MAX;
use crate::common::{capstan, stdout};

/// What holds a sentence with a figure.
enum Held {
    /// A test of this name.
    Test(&'static str),
    /// The name or version of something outside, or a date in an example.
    Name,
    /// [`computed`] has the sentence.
    Computed,
}

/// Parts of README's prose with digits, outside of code.
const FIGURES: &[(&str, Held)] = &[
    ("Rust 1.95 or later", Held::Computed),
    ("on two cores", Held::Name),
    ("Python 3 and Node.js 20", Held::Name),
    (
        "0 for allowed, 1 for denied, 2 for an error",
        Held::Test("check_exits_0_allowed_1_denied_2_error"),
    ),
    (
        "HTTP 415 and a sentence, over HTTP/2 and over HTTP/1.1",
        Held::Test("grpc_web_and_connect_get_415_and_a_sentence"),
    ),
    ("A TAB waits for at most 500 ms", Held::Computed),
    ("Each call has a deadline (1 s)", Held::Computed),
    ("65,536 lines or 16 MiB", Held::Computed),
    ("at most one a second", Held::Computed),
    ("one call in 100", Held::Computed),
    ("from 0 to 1", Held::Test("invalid_trace_options_stop_the_start")),
    ("At most 2,048 spans wait", Held::Computed),
    ("p50 to p99.99", Held::Test("every_mode_counts_its_requests_and_verifies_every_decision")),
    ("Envoy ext_authz v3", Held::Name),
    ("(ext_authz v3 over gRPC)", Held::Name),
    ("TLS 1.3", Held::Test("only_tls_1_3_and_the_protocol_of_the_port_are_spoken")),
    ("Apache-2.0", Held::Name),
    ("HTTP/2 frames", Held::Name),
];

/// The sentences with figures, from what the figures are about.
fn computed() -> Vec<String> {
    let thousands = |number: usize| {
        let digits = number.to_string();
        let (head, tail) = digits.split_at(digits.len() - 3);
        format!("{head},{tail}")
    };
    let help = stdout(&capstan(&["serve", "--help"]));
    let ratio = help.split("--otlp-sample-ratio").nth(1).unwrap();
    let ratio = ratio.split("[default: ").nth(1).unwrap().split(']').next().unwrap();
    let ratio: f64 = ratio.parse().unwrap();
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let deadline = capstan_client::Options::default().timeout;
    assert_eq!(DECISION_LOG_LOST_PAUSE.as_secs(), 1);
    vec![
        format!(
            "Rust {} or later",
            manifest["workspace"]["package"]["rust-version"].as_str().unwrap()
        ),
        format!("A TAB waits for at most {} ms", COMPLETION_TIME_MAX.as_millis()),
        format!("Each call has a deadline ({} s)", deadline.as_secs()),
        format!(
            "{} lines or {} MiB",
            thousands(DECISION_LOG_LINES_MAX),
            DECISION_LOG_BYTES_MAX >> 20
        ),
        "at most one a second".into(),
        format!("one call in {:.0}", 1.0 / ratio),
        format!("At most {} spans wait", thousands(SPANS_MAX)),
    ]
}

/// README's prose in one line.
fn text() -> String {
    prose("README.md").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_figure_of_the_readme_is_held() {
    let mut rest = text();
    let computed: BTreeSet<String> = computed().into_iter().collect();
    for (sentence, held) in FIGURES {
        assert!(rest.contains(sentence), "README.md does not say {sentence:?} any more");
        rest = rest.replace(sentence, "");
        match held {
            Held::Test(name) => assert!(names::is_test(name), "{sentence}: no test {name}"),
            Held::Name => assert!(!computed.contains(*sentence), "{sentence}"),
            Held::Computed => {
                assert!(computed.contains(*sentence), "{sentence:?} is none of {computed:?}");
            }
        }
    }
    assert_eq!(
        computed.len(),
        FIGURES.iter().filter(|(_, held)| matches!(held, Held::Computed)).count()
    );
    // Code in backticks is checked as commands; links have names of files.
    let outside: String = rest.split('`').step_by(2).collect();
    let outside: String =
        outside.split("](").map(|part| part.split_once(')').map_or(part, |it| it.1)).collect();
    let at = outside.find(|c: char| c.is_ascii_digit());
    let around = at.map(|at| outside.get(at.saturating_sub(40)..(at + 40).min(outside.len())));
    assert_eq!(around, None, "a figure that nothing holds");
}

/// `capstan bench` without options starts a server with as many bindings as README says beside it.
#[test]
fn the_world_of_the_bench_has_the_documented_size() {
    let world = capstan(&["bench", "generate", "W"]);
    let world: Value = serde_json::from_slice(&world.stdout).unwrap();
    let bindings = world["role_bindings"].as_array().unwrap().len();
    assert_eq!(bindings, 30_000);
    assert!(read("README.md").contains("starts a server with 30,000 bindings and loads it"));
}

#[test]
fn every_reason_call_catalog_and_command_is_listed() {
    let text = text();
    let reasons = Reason::ALL.map(|reason| format!("`{}`", reason.as_str())).join(", ");
    assert!(text.contains(&format!("Every answer has a reason ({reasons})")), "{reasons}");

    let row = |begins: &str| {
        let line = text.split(begins).nth(1).unwrap_or_else(|| panic!("no row {begins}"));
        line.split(" | ").next().unwrap().to_owned()
    };
    let set = prost_types::FileDescriptorSet::decode(capstan_proto::DESCRIPTOR_SET).unwrap();
    let files = set.file.iter().filter(|file| file.package() == "capstan.v1");
    let methods = files.flat_map(|file| &file.service).flat_map(|service| &service.method);
    let calls = row("every decision call: ");
    for method in methods {
        assert!(calls.contains(method.name()), "{} is not in {calls}", method.name());
    }
    let catalogs = row("the catalogs ");
    for name in Catalogs::default().names() {
        let name = name.strip_suffix("+errata").map_or(format!("`{name}`"), |_| "`+errata`".into());
        assert!(catalogs.contains(&name), "{name} is not in {catalogs}");
    }
    let listed = row("| `serve`, ");
    let help = stdout(&capstan(&["--help"]));
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names = commands.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    let names: Vec<&str> = names.filter(|name| !["", "serve", "help"].contains(name)).collect();
    assert!(names.len() >= 15, "{help}");
    for name in names {
        let is_listed = [format!("`{name}`"), format!("`{name} ")];
        assert!(is_listed.iter().any(|word| listed.contains(word)), "{name} is not in {listed}");
    }
}

/// What the head of the demo's policy says; `crates/policy/tests/schema.rs` counts its keys, as README says.
#[test]
fn the_demo_has_what_its_head_says() {
    assert!(text().contains("uses every key of a policy"));
    assert!(names::is_test("the_demo_uses_every_key_of_a_policy"));
    let head = "all twelve built-in roles, three levels of folders, a custom\n# role, and bindings with an expiry";
    assert!(DEMO.contains(head));
    let policy = load_policy(DEMO.as_bytes(), &Catalogs::default()).unwrap();
    let facts = policy.model.facts();
    let bound: BTreeSet<&str> = facts.role_bindings.iter().map(|binding| &*binding.role).collect();
    let snapshot = Snapshot::build(&policy.model, 1).unwrap();
    let roles: BTreeSet<&str> = snapshot.roles().iter().map(|role| &*role.id).collect();
    let built_in = roles.iter().filter(|role| !role.contains('/')).count();
    assert_eq!((built_in, roles.len()), (12, 13));
    assert_eq!(bound, roles);
    let depth = facts.groups.iter().map(|group| group.id.as_str().split('/').count()).max();
    assert_eq!(depth, Some(1 + 3));
    assert!(facts.role_bindings.iter().filter(|binding| binding.expires_at.is_some()).count() >= 2);
}

/// README says that another address than loopback is refused, and who may ask.
#[test]
fn who_is_authenticated_is_said_and_tested() {
    let text = text();
    for (claim, test) in [
        (
            "refuses other addresses unless `--insecure-plaintext` allows them",
            "invalid_configurations_are_refused_with_advice",
        ),
        (
            "Whoever is on the same machine may ask for decisions",
            "the_demo_commands_work_as_printed",
        ),
        ("from other machines only callers that a document names may", "nobody_else_may_ask"),
    ] {
        assert!(text.contains(claim), "{claim}");
        assert!(names::is_test(test), "{test}");
    }
}
