//! The keys of a document of callers.

use super::texts::{DNS_NAME, NAME, PATH, SPIFFE_ID};
use super::{Document, Key, Kind, Rule, Shape, Table};
use crate::callers::{Asks, CALLERS_MAX};

pub(super) const DOCUMENT: Document = Document {
    name: "callers",
    title: "Callers",
    description: "Who may ask a server for decisions from other machines. `capstan serve --callers FILE` reads it. \
                  [CALLERS.md](CALLERS.md) explains how callers prove who they are.",
    root: &CALLERS,
    examples: &[FULL],
};

const FULL: &str = r#"version: 1
this_machine: named
callers:
  - name: registry
    spiffe_id: spiffe://example.com/ns/prod/sa/registry
    subtree: acme/images
    methods: [check, capabilities, authorize]
  - name: build
    dns_name: build.example.com
    methods: [check]
  - name: console
    identity: acme/console
    methods: [check, explain, search, policy]
"#;

const CALLERS: Table = Table {
    name: "callers",
    description: "The whole document.",
    keys: &[
        Key::required("version", Kind::Version, "The version of the format.", "1"),
        Key::optional(
            "this_machine",
            Kind::Words(|| vec!["open", "named"]),
            "Whether callers of this machine, by loopback and unix sockets, may ask everything, or must be named as all \
             others.",
            r#""named""#,
        )
        .or(r#""open""#),
        Key::required(
            "callers",
            Kind::List { of: &Kind::Table(&CALLER), min: 0, max: Some(CALLERS_MAX) },
            "The callers. Whoever is not among them is refused.",
            r#"[{"name": "console", "identity": "acme/console", "methods": ["check", "explain", "search", "policy"]}]"#,
        ),
    ],
    notes: &["Callers have unique names, and no two have the same SPIFFE ID, DNS name or identity."],
    ..Table::EMPTY
};

const CALLER: Table = Table {
    name: "caller",
    description: "A service that may ask.",
    keys: &[
        Key::required("name", Kind::Text(&NAME), "The name, for people and logs.", r#""registry""#),
        Key::optional(
            "spiffe_id",
            Kind::Text(&SPIFFE_ID),
            "The SPIFFE ID of its client certificate.",
            r#""spiffe://example.com/ns/prod/sa/registry""#,
        ),
        Key::optional(
            "dns_name",
            Kind::Text(&DNS_NAME),
            "A DNS name of its client certificate, which has no URI. A certificate with the DNS names of several callers is \
             refused.",
            r#""build.example.com""#,
        ),
        Key::optional(
            "identity",
            Kind::Text(&PATH),
            "The identity that its token or secret proves.",
            r#""acme/console""#,
        ),
        Key::optional(
            "subtree",
            Kind::Text(&PATH),
            "It may ask about resources at or below this path only. Without it, about all.",
            r#""acme/images""#,
        ),
        Key::required(
            "methods",
            Kind::List {
                of: &Kind::Words(|| Asks::ALL.map(Asks::as_str).to_vec()),
                min: 1,
                max: None,
            },
            "What it may ask: `check` (Check, BatchCheck, StreamCheck, and AuthZEN's evaluations), `capabilities` \
             (ListCapabilities), `explain` (Explain), `search` (ListIdentities, ListScopes, and AuthZEN's searches), \
             `authorize` (requests of Envoy), `policy` (what management methods read of a policy file).",
            r#"["check", "capabilities", "authorize"]"#,
        ),
    ],
    rules: &[Rule {
        description: "One of `spiffe_id`, `dns_name` and `identity`.",
        shapes: &[
            Shape { has: &["spiffe_id"], lacks: &["dns_name", "identity"], tests: &[] },
            Shape { has: &["dns_name"], lacks: &["spiffe_id", "identity"], tests: &[] },
            Shape { has: &["identity"], lacks: &["spiffe_id", "dns_name"], tests: &[] },
        ],
    }],
    notes: &["A caller with a `subtree` has no method `policy`: a policy is read as a whole."],
    ..Table::EMPTY
};
