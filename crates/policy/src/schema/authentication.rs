//! The keys of how an identity authenticates.

use capstan_iam::limits::JWKS_KEYS_MAX;

use super::texts::{CLAIM, DNS_NAME, PATTERN, SPIFFE_ID, TIME};
use super::{Key, Kind, Rule, Shape, Table};

pub(super) const AUTHENTICATION: Table = Table {
    name: "authentication",
    description: "How an identity proves who it is.",
    keys: &[
        Key::optional(
            "claim_match",
            Kind::Table(&CLAIM_MATCH),
            "By a token of an issuer that publishes its keys: the claims that the token must have.",
            r#"{"issuer": "https://ci.example.com", "subject_pattern": "^repo:acme/[a-z-]+:main$",
                "audience": "capstan", "claims": {"environment": "production"}, "claim_patterns": {"run": "^[0-9]+$"}}"#,
        ),
        Key::optional(
            "static_keys",
            Kind::Table(&STATIC_KEYS),
            "By a token that is signed with one of these keys.",
            r#"{"issuer": "https://robots.example.com", "subject": "robot-7", "audience": "capstan",
                "expires_at": "2027-01-01T00:00:00Z",
                "jwks": {"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1",
                                   "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}}"#,
        ),
        Key::optional(
            "client_certificate",
            Kind::Table(&CLIENT_CERTIFICATE),
            "By a certificate with a SPIFFE ID or a DNS name.",
            r#"{"spiffe_id": "spiffe://example.com/ns/prod/sa/node"}"#,
        ),
    ],
    rules: &[Rule {
        description: "One of `claim_match`, `static_keys` and `client_certificate`.",
        shapes: &[
            Shape {
                has: &["claim_match"],
                lacks: &["static_keys", "client_certificate"],
                tests: &[],
            },
            Shape {
                has: &["static_keys"],
                lacks: &["claim_match", "client_certificate"],
                tests: &[],
            },
            Shape {
                has: &["client_certificate"],
                lacks: &["claim_match", "static_keys"],
                tests: &[],
            },
        ],
    }],
    ..Table::EMPTY
};

const CLAIM_MATCH: Table = Table {
    name: "claim match",
    description: "The claims of a token that proves the identity. All of them must hold.",
    keys: &[
        Key::optional(
            "issuer",
            Kind::Text(&CLAIM),
            "The claim `iss`.",
            r#""https://ci.example.com""#,
        ),
        Key::optional(
            "issuer_pattern",
            Kind::Text(&PATTERN),
            "What the claim `iss` must match.",
            r#""^https://ci[0-9]\\.example\\.com$""#,
        ),
        Key::optional("subject", Kind::Text(&CLAIM), "The claim `sub`.", r#""deploy""#),
        Key::optional(
            "subject_pattern",
            Kind::Text(&PATTERN),
            "What the claim `sub` must match.",
            r#""^repo:acme/[a-z-]+:main$""#,
        ),
        Key::optional("audience", Kind::Text(&CLAIM), "The claim `aud`.", r#""capstan""#),
        Key::optional(
            "audience_pattern",
            Kind::Text(&PATTERN),
            "What the claim `aud` must match.",
            r#""^capstan(-test)?$""#,
        ),
        Key::optional(
            "claims",
            Kind::Claims(&CLAIM),
            "Further claims.",
            r#"{"environment": "production"}"#,
        )
        .or("{}"),
        Key::optional(
            "claim_patterns",
            Kind::Claims(&PATTERN),
            "What further claims must match.",
            r#"{"run": "^[0-9]+$"}"#,
        )
        .or("{}"),
    ],
    rules: &[
        Rule {
            description: "Either `issuer` or `issuer_pattern`.",
            shapes: &[
                Shape { has: &["issuer"], lacks: &["issuer_pattern"], tests: &[] },
                Shape { has: &["issuer_pattern"], lacks: &["issuer"], tests: &[] },
            ],
        },
        Rule {
            description: "Either `subject` or `subject_pattern`.",
            shapes: &[
                Shape { has: &["subject"], lacks: &["subject_pattern"], tests: &[] },
                Shape { has: &["subject_pattern"], lacks: &["subject"], tests: &[] },
            ],
        },
        Rule {
            description: "At most one of `audience` and `audience_pattern`.",
            shapes: &[
                Shape { has: &[], lacks: &["audience"], tests: &[] },
                Shape { has: &[], lacks: &["audience_pattern"], tests: &[] },
            ],
        },
    ],
    notes: &[
        "A pattern compiles, and every match of it is the whole text: alternatives are in parentheses.",
        "All patterns of an identity have at most 4 KiB together.",
    ],
    ..Table::EMPTY
};

const STATIC_KEYS: Table = Table {
    name: "static keys",
    description: "The public keys that sign an identity's tokens.",
    keys: &[
        Key::required(
            "issuer",
            Kind::Text(&CLAIM),
            "The claim `iss`.",
            r#""https://robots.example.com""#,
        ),
        Key::required("subject", Kind::Text(&CLAIM), "The claim `sub`.", r#""robot-7""#),
        Key::required(
            "jwks",
            Kind::Table(&KEY_SET),
            "The keys.",
            r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1",
                          "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
        ),
        Key::optional(
            "expires_at",
            Kind::Text(&TIME),
            "The keys count before this time. Without it, they have no end.",
            r#""2027-01-01T00:00:00Z""#,
        ),
        Key::optional("audience", Kind::Text(&CLAIM), "The claim `aud`.", r#""capstan""#),
    ],
    ..Table::EMPTY
};

const KEY_SET: Table = Table {
    name: "key set",
    description: "A JSON Web Key Set (RFC 7517) of public keys.",
    keys: &[Key::required(
        "keys",
        Kind::List { of: &Kind::PublicKey, min: 1, max: Some(JWKS_KEYS_MAX) },
        "The keys.",
        r#"[{"kty": "OKP", "crv": "Ed25519", "kid": "1", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]"#,
    )],
    notes: &[
        "If there are several keys, each has a `kid` of its own. The set has at most 64 KiB as JSON.",
    ],
    ..Table::EMPTY
};

const CLIENT_CERTIFICATE: Table = Table {
    name: "client certificate",
    description: "The certificate that proves the identity, by a subject alternative name. Its common name never counts.",
    keys: &[
        Key::optional(
            "spiffe_id",
            Kind::Text(&SPIFFE_ID),
            "Its only URI.",
            r#""spiffe://example.com/ns/prod/sa/node""#,
        ),
        Key::optional(
            "dns_name",
            Kind::Text(&DNS_NAME),
            "One of its DNS names. A certificate with a URI is not known by them.",
            r#""build.example.com""#,
        ),
    ],
    rules: &[Rule {
        description: "Either `spiffe_id` or `dns_name`.",
        shapes: &[
            Shape { has: &["spiffe_id"], lacks: &["dns_name"], tests: &[] },
            Shape { has: &["dns_name"], lacks: &["spiffe_id"], tests: &[] },
        ],
    }],
    ..Table::EMPTY
};
