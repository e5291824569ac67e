//! The keys of a policy-test document.

use capstan_engine::Reason;

use super::texts::{PATH, STRING, TIME};
use super::{Document, Key, Kind, Rule, Shape, Table, Test};

pub(super) const DOCUMENT: Document = Document {
    name: "tests",
    title: "Policy tests",
    description: "A policy test has questions about a policy with their expected answers. \
                  `capstan policy test POLICY TEST...` runs it.",
    root: &TESTS,
    examples: &[FULL],
};

const FULL: &str = "\
policy: policy.yaml
now: 2026-11-21T00:00:00Z
tests:
  - {identity: acme/ci, capability: repo.list, resource: acme/platform/nginx, allowed: true}
  - {identity: alice, capability: repo.list, resource: acme, allowed: false, reason: NO_BINDING}
  - {identity: acme/ci, resource: acme/platform, capabilities: [apk.list, manifest.list, repo.list]}
  - {capability: repo.delete, resource: acme/platform/nginx, identities: [alice]}
  - {identity: eve, capability: repo.list, resource: acme, allowed: false, unknown: true}
";

const TESTS: Table = Table {
    name: "policy test",
    description: "The whole document.",
    keys: &[
        Key::optional(
            "policy",
            Kind::Text(&STRING),
            "The policy that the tests are for, for readers. `capstan policy test` takes the policy from its arguments.",
            r#""policy.yaml""#,
        ),
        Key::optional(
            "now",
            Kind::Text(&TIME),
            "The time of the decisions. Without it, the current time.",
            r#""2026-11-21T00:00:00Z""#,
        ),
        Key::required(
            "tests",
            Kind::list(&Kind::Table(&TEST)),
            "The questions with their expected answers.",
            r#"[{"identity": "acme/ci", "capability": "repo.list", "resource": "acme/platform/nginx", "allowed": true},
                {"identity": "alice", "capability": "repo.list", "resource": "acme", "allowed": false,
                 "reason": "NO_BINDING"},
                {"identity": "acme/ci", "resource": "acme/platform",
                 "capabilities": ["apk.list", "manifest.list", "repo.list"]},
                {"capability": "repo.delete", "resource": "acme/platform/nginx", "identities": ["alice"]}]"#,
        ),
    ],
    ..Table::EMPTY
};

const TEST: Table = Table {
    name: "test",
    description: "A question and its expected answer.",
    keys: &[
        Key::optional("identity", Kind::Text(&PATH), "Who is asked about.", r#""acme/ci""#),
        Key::optional("capability", Kind::Text(&STRING), "What is asked for.", r#""repo.list""#),
        Key::required(
            "resource",
            Kind::Text(&PATH),
            "Where: a resource or a group.",
            r#""acme/platform/nginx""#,
        ),
        Key::optional("allowed", Kind::Boolean, "The expected decision.", "true"),
        Key::optional(
            "reason",
            Kind::Words(|| Reason::ALL.map(Reason::as_str).into()),
            "The expected reason, beside `allowed`: `GRANTED` with `true`, another with `false`.",
            r#""NO_BINDING""#,
        ),
        Key::optional(
            "capabilities",
            Kind::list(&Kind::Text(&STRING)),
            "All capabilities that the identity is expected to have, in any order.",
            r#"["apk.list", "manifest.list", "repo.list"]"#,
        ),
        Key::optional(
            "identities",
            Kind::list(&Kind::Text(&PATH)),
            "All identities that are expected to have the capability, in any order.",
            r#"["alice"]"#,
        ),
        Key::optional(
            "unknown",
            Kind::Boolean,
            "Whether the test may name an identity, a capability or a resource that the policy does not have. Without \
             it `capstan policy test` refuses such a test.",
            "true",
        ),
    ],
    rules: &[Rule {
        description: "`identity`, `capability`, `resource` and `allowed`, perhaps with `reason`; or `identity`, \
                      `resource` and `capabilities`; or `capability`, `resource` and `identities`.",
        shapes: &[
            Shape {
                has: &["identity", "capability", "allowed"],
                lacks: &["capabilities", "identities"],
                tests: &[("allowed", Test::Is(true)), ("reason", Test::Word("GRANTED"))],
            },
            Shape {
                has: &["identity", "capability", "allowed"],
                lacks: &["capabilities", "identities"],
                tests: &[("allowed", Test::Is(false)), ("reason", Test::NotWord("GRANTED"))],
            },
            Shape {
                has: &["identity", "capabilities"],
                lacks: &["capability", "allowed", "reason", "identities"],
                tests: &[],
            },
            Shape {
                has: &["capability", "identities"],
                lacks: &["identity", "allowed", "reason", "capabilities"],
                tests: &[],
            },
        ],
    }],
    forms: &[
        (
            "{identity: acme/ci, capability: repo.list, resource: acme, allowed: true}",
            "The pipeline may list repositories.",
        ),
        (
            "{identity: acme/ci, capability: repo.list, resource: acme, allowed: false, reason: EXPIRED}",
            "The pipeline may not, because the time of its binding is over.",
        ),
        (
            "{identity: eve, capability: repo.list, resource: acme, allowed: false, unknown: true}",
            "Who is not registered may do nothing.",
        ),
        (
            "{identity: acme/ci, resource: acme, capabilities: []}",
            "The pipeline can do nothing there.",
        ),
        (
            "{capability: repo.delete, resource: acme, identities: [alice, bob]}",
            "Exactly these two can delete repositories there.",
        ),
    ],
    ..Table::EMPTY
};
