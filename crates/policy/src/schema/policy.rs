//! The keys of a policy document.

use capstan_engine::CONDITIONS_MAX;

use super::authentication::AUTHENTICATION;
use super::catalog::CATALOG;
use super::texts::{ATTRIBUTE, HASH, NAME, PATH, ROLE, ROLE_ID, STRING, TEXT, TIME, WORD};
use super::{Document, Key, Kind, Rule, Shape, Table};

pub(super) const DOCUMENT: Document = Document {
    name: "policy",
    title: "Policy documents",
    description: "A policy declares groups, roles, identities and resources, and binds identities to roles. \
                  `capstan serve --policy FILE` serves it; `capstan policy validate FILE` checks it.",
    root: &POLICY,
    examples: &[FULL, INLINE],
};

const FULL: &str = "\
version: 1
catalog: chainguard-2025-08-14+errata
groups:
  - {id: acme, name: Acme Corp}
  - {id: acme/platform, name: Platform, description: builds and ships images}
roles:
  - id: acme/puller
    name: Puller
    description: pulls images and packages
    capabilities: [repo.list, manifest.list, apk.list]
identities:
  - {id: alice, name: Alice Andersson}
  - id: acme/ci
    name: Build pipeline
    description: builds images on every merge
    type: service
    properties: {level: 3, team: platform, trusted: true}
    authentication:
      claim_match:
        issuer: https://ci.example.com
        subject_pattern: ^repo:acme/[a-z-]+:main$
        audience: capstan
        claims: {environment: production}
        claim_patterns: {run: \"^[0-9]+$\"}
  - id: acme/robot
    type: service
    authentication:
      static_keys:
        issuer: https://robots.example.com
        subject: robot-7
        jwks: {keys: [{kty: OKP, crv: Ed25519, kid: \"1\", x: 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo}]}
        expires_at: 2027-01-01T00:00:00Z
        audience: capstan
  - id: acme/node
    type: service
    authentication: {client_certificate: {spiffe_id: spiffe://example.com/ns/prod/sa/node}}
  - id: acme/build
    type: service
    authentication: {client_certificate: {dns_name: build.example.com}}
  - {id: acme/old, type: service, disabled: true}
  - id: acme/any-branch
    type: service
    authentication:
      claim_match:
        issuer_pattern: ^https://ci[0-9]\\.example\\.com$
        subject: deploy
        audience_pattern: ^capstan(-test)?$
role_bindings:
  - {id: acme/alice-owner, description: the first owner, identity: alice, role: owner, scope: acme}
  # A person before the first login, by the id that `LookupIdentity` answers.
  - {identity: 2b7a6d0bb9fdd2b0bb2c50a4a1e5a0e3a2c1d9f8, role: viewer, scope: acme}
  - {identity: acme/ci, role: acme/puller, scope: acme/platform, expires_at: 2027-01-01T00:00:00Z}
  - identity: acme/ci
    role: editor
    scope: acme/platform
    when:
      - {attribute: resource.status, not_equals: archived}
      - {attribute: subject.team, equals: platform}
resources:
  - id: acme/platform/nginx
    type: repo
    name: nginx
    description: the web server
    properties: {status: active, visibility: private}
credentials:
  - identity: acme/ci
    sha256: 6ed255afcdb60a7fc9fd4ec18385aa5a31f905137e966a438fccb3ce1cbab370
    expires_at: 2027-01-01T00:00:00Z
";

const INLINE: &str = "\
version: 1
catalog:
  name: records
  resources:
    - {name: record, purpose: business records, actions: [read, write]}
  capabilities: [gulfstream]
  roles:
    - {name: reader, family: custom, description: reads records, capabilities: [record.read]}
    - {name: owner, owner: true, capabilities: [record.read, record.write, gulfstream]}
groups:
  - {id: acme, name: Acme Corp}
identities:
  - {id: alice}
role_bindings:
  - {identity: alice, role: reader, scope: acme}
";

const POLICY: Table = Table {
    name: "policy",
    description: "The whole document.",
    keys: &[
        Key::required("version", Kind::Version, "The version of the format.", "1"),
        Key::required(
            "catalog",
            Kind::Either(&Kind::Text(&NAME), &Kind::Table(&CATALOG)),
            "Which capabilities and built-in roles exist: the name of a built-in or loaded catalog, or a catalog.",
            r#""chainguard-2025-08-14+errata""#,
        ),
        Key::optional(
            "groups",
            Kind::list(&Kind::Table(&GROUP)),
            "The tree of groups.",
            r#"[{"id": "acme", "name": "Acme Corp"},
                {"id": "acme/platform", "name": "Platform", "description": "builds and ships images"}]"#,
        ),
        Key::optional(
            "roles",
            Kind::list(&Kind::Table(&ROLES)),
            "Custom roles. Built-in roles are in the catalog.",
            r#"[{"id": "acme/puller", "name": "Puller", "description": "pulls images and packages",
                 "capabilities": ["repo.list", "manifest.list", "apk.list"]}]"#,
        ),
        Key::optional(
            "identities",
            Kind::list(&Kind::Table(&IDENTITY)),
            "People, services and pull tokens.",
            r#"[{"id": "alice"}]"#,
        ),
        Key::optional(
            "role_bindings",
            Kind::list(&Kind::Table(&ROLE_BINDING)),
            "Which identity has which role, and where.",
            r#"[{"identity": "alice", "role": "reader", "scope": "acme"}]"#,
        ),
        Key::optional(
            "resources",
            Kind::list(&Kind::Table(&RESOURCE)),
            "Registered resources: searches find them, conditions know their properties, and they can be scopes. A \
             resource need not be registered to be asked about.",
            r#"[{"id": "acme/platform/nginx", "type": "repo", "name": "nginx", "description": "the web server",
                 "properties": {"status": "active", "visibility": "private"}}]"#,
        ),
        Key::optional(
            "credentials",
            Kind::list(&Kind::Table(&CREDENTIAL)),
            "Secrets by their hash, for requests behind Envoy.",
            r#"[{"identity": "acme/ci", "expires_at": "2027-01-01T00:00:00Z",
                 "sha256": "6ed255afcdb60a7fc9fd4ec18385aa5a31f905137e966a438fccb3ce1cbab370"}]"#,
        ),
    ],
    notes: &[
        "Each id is unique across all kinds of object.",
        "Groups, roles, capabilities, identities and scopes that the document names must be declared.",
    ],
    ..Table::EMPTY
};

/// A description, which decides nothing.
const fn description(meaning: &'static str, example: &'static str) -> Key {
    Key::optional("description", Kind::Text(&TEXT), meaning, example).or(r#""""#)
}

const GROUP: Table = Table {
    name: "group",
    description: "A node of the tree. A group without a parent is an organization.",
    keys: &[
        Key::required(
            "id",
            Kind::Text(&PATH),
            "The path. Its parent must be a group, too.",
            r#""acme/platform""#,
        ),
        Key::optional("name", Kind::Text(&TEXT), "The name for people.", r#""Platform""#)
            .or(r#""""#),
        description("What the group is for.", r#""builds and ships images""#),
    ],
    ..Table::EMPTY
};

const ROLES: Table = Table {
    name: "role",
    description: "A custom role: a named set of capabilities.",
    keys: &[
        Key::required(
            "id",
            Kind::Text(&ROLE_ID),
            "The path, below the group that owns the role.",
            r#""acme/puller""#,
        ),
        Key::optional("name", Kind::Text(&TEXT), "The name for people.", r#""Puller""#).or(r#""""#),
        Key::optional(
            "description",
            Kind::Text(&TEXT),
            "What the role is for.",
            r#""pulls images and packages""#,
        )
        .or(r#""""#),
        Key::optional(
            "capabilities",
            Kind::list(&Kind::Text(&STRING)),
            "Capabilities of the catalog. A role without capabilities gets a warning.",
            r#"["repo.list", "manifest.list", "apk.list"]"#,
        )
        .or("[]"),
    ],
    notes: &["The role can be bound only at or below the group that owns it."],
    ..Table::EMPTY
};

const IDENTITY: Table = Table {
    name: "identity",
    description: "Who is asked about: a person, a service, a pull token.",
    keys: &[
        Key::required("id", Kind::Text(&PATH), "The path. It needs no parent.", r#""acme/ci""#),
        Key::optional("name", Kind::Text(&TEXT), "The name for people.", r#""Build pipeline""#)
            .or(r#""""#),
        description("What the identity is for.", r#""builds images on every merge""#),
        Key::optional("type", Kind::Text(&WORD), "The type, any word.", r#""service""#)
            .or(r#""user""#),
        Key::optional(
            "properties",
            Kind::Attributes,
            "Attributes, which conditions test as `subject.NAME`.",
            r#"{"level": 3, "team": "platform", "trusted": true}"#,
        )
        .or("{}"),
        Key::optional(
            "disabled",
            Kind::Boolean,
            "Whether none of its bindings counts. They stay, for when it is enabled again.",
            "true",
        )
        .or("false"),
        Key::optional(
            "authentication",
            Kind::Table(&AUTHENTICATION),
            "How it proves who it is. Used by an import into a store; a served policy file ignores it.",
            r#"{"client_certificate": {"spiffe_id": "spiffe://example.com/ns/prod/sa/node"}}"#,
        ),
    ],
    ..Table::EMPTY
};

const ROLE_BINDING: Table = Table {
    name: "role binding",
    description: "Gives an identity the capabilities of a role at a scope and everything below it.",
    keys: &[
        Key::optional(
            "id",
            Kind::Text(&PATH),
            "A path below the scope that nothing else has. Without it, an id is generated.",
            r#""acme/alice-owner""#,
        ),
        description("What the binding is for.", r#""the first owner""#),
        Key::required(
            "identity",
            Kind::Text(&PATH),
            "A declared identity, or the id of a person before the first login: 40 lower-case hexadecimal digits.",
            r#""alice""#,
        ),
        Key::required(
            "role",
            Kind::Text(&ROLE),
            "A built-in role's name, or a custom role's id.",
            r#""acme/puller""#,
        ),
        Key::required(
            "scope",
            Kind::Text(&PATH),
            "A declared group or resource.",
            r#""acme/platform""#,
        ),
        Key::optional(
            "expires_at",
            Kind::Text(&TIME),
            "The binding counts before this time. Without it, the binding has no end.",
            r#""2027-01-01T00:00:00Z""#,
        ),
        Key::optional(
            "when",
            Kind::List { of: &Kind::Table(&CONDITION), min: 0, max: Some(CONDITIONS_MAX) },
            "Conditions. The binding counts only if all of them hold.",
            r#"[{"attribute": "resource.status", "not_equals": "archived"},
                {"attribute": "subject.team", "equals": "platform"}]"#,
        )
        .or("[]"),
    ],
    notes: &["Identity, role, scope and conditions together are unique."],
    ..Table::EMPTY
};

const CONDITION: Table = Table {
    name: "condition",
    description: "A test on an attribute. For `subject.*` and `resource.*` a registered property wins; the request \
                  supplies only what is not registered. `action.*` and `context.*` come from the request. An absent \
                  attribute fails every test, `not_equals` too. Values are compared by type and value: `1`, `\"1\"` \
                  and `true` differ.",
    keys: &[
        Key::required(
            "attribute",
            Kind::Text(&ATTRIBUTE),
            "What is tested.",
            r#""resource.status""#,
        ),
        Key::optional(
            "equals",
            Kind::Attribute,
            "The value that the attribute must have.",
            r#""platform""#,
        ),
        Key::optional(
            "not_equals",
            Kind::Attribute,
            "The value that the attribute must not have.",
            r#""archived""#,
        ),
    ],
    rules: &[Rule {
        description: "Either `equals` or `not_equals`.",
        shapes: &[
            Shape { has: &["equals"], lacks: &["not_equals"], tests: &[] },
            Shape { has: &["not_equals"], lacks: &["equals"], tests: &[] },
        ],
    }],
    forms: &[
        ("{attribute: subject.team, equals: platform}", "The identity's team is `platform`."),
        (
            "{attribute: subject.level, equals: 3}",
            "The identity's level is the integer 3. The string `\"3\"` differs.",
        ),
        (
            "{attribute: subject.suspended, not_equals: true}",
            "It is known that the identity is not suspended.",
        ),
        (
            "{attribute: resource.status, not_equals: archived}",
            "The status is known, and it is not `archived`.",
        ),
        (
            "{attribute: resource.labels.tier, equals: gold}",
            "The attribute's name is `labels.tier`.",
        ),
        (
            "{attribute: action.dry_run, equals: true}",
            "The request says that the action is a dry run.",
        ),
        (
            "{attribute: context.network, equals: \"10\"}",
            "The request says that the network is the string `10`.",
        ),
    ],
    ..Table::EMPTY
};

const RESOURCE: Table = Table {
    name: "resource",
    description: "A leaf that belongs to another service, such as a repository.",
    keys: &[
        Key::required(
            "id",
            Kind::Text(&PATH),
            "The path: below a group, or at the root.",
            r#""acme/platform/nginx""#,
        ),
        Key::required("type", Kind::Text(&WORD), "The type, any word.", r#""repo""#),
        Key::optional("name", Kind::Text(&TEXT), "The name for people.", r#""nginx""#).or(r#""""#),
        description("What the resource is for.", r#""the web server""#),
        Key::optional(
            "properties",
            Kind::Attributes,
            "Attributes, which conditions test as `resource.NAME`.",
            r#"{"status": "active", "visibility": "private"}"#,
        )
        .or("{}"),
    ],
    ..Table::EMPTY
};

const CREDENTIAL: Table = Table {
    name: "credential",
    description: "A secret that proves an identity, by its hash. `printf %s \"$SECRET\" | sha256sum` makes the hash.",
    keys: &[
        Key::required("identity", Kind::Text(&PATH), "A declared identity.", r#""acme/ci""#),
        Key::required(
            "sha256",
            Kind::Text(&HASH),
            "The SHA-256 of the secret.",
            r#""6ed255afcdb60a7fc9fd4ec18385aa5a31f905137e966a438fccb3ce1cbab370""#,
        ),
        Key::optional(
            "expires_at",
            Kind::Text(&TIME),
            "The credential counts before this time. Without it, the credential has no end.",
            r#""2027-01-01T00:00:00Z""#,
        ),
    ],
    notes: &["Each hash is unique."],
    ..Table::EMPTY
};
