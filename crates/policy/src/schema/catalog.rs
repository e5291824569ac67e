//! The keys of a catalog document.

use capstan_engine::Family;

use super::texts::{ACTION, CAPABILITY, NAME, TEXT};
use super::{Document, Key, Kind, Table};

pub(super) const DOCUMENT: Document = Document {
    name: "catalog",
    title: "Catalog documents",
    description: "A catalog declares resources with their actions, and the built-in roles. `--catalog FILE` loads it, \
                  so that policies can name it. A policy can also contain its catalog.",
    root: &CATALOG,
    examples: &[FULL],
};

const FULL: &str = "\
name: my-catalog
resources:
  - {name: record, purpose: business records, actions: [read, write, delete]}
  - {name: record.metadata, actions: [list]}
capabilities: [gulfstream]
roles:
  - {name: reader, family: administrative, description: reads records, capabilities: [record.read]}
  - {name: owner, owner: true, capabilities: [record.read, record.write, record.delete]}
";

pub(super) const CATALOG: Table = Table {
    name: "catalog",
    description: "The capabilities and the built-in roles of policies that name the catalog.",
    keys: &[
        Key::required("name", Kind::Text(&NAME), "The name, which no other catalog has.", r#""my-catalog""#),
        Key::optional(
            "resources",
            Kind::list(&Kind::Table(&RESOURCE)),
            "Kinds of resource with their actions. Each pair is the capability `resource.action`.",
            r#"[{"name": "record", "purpose": "business records", "actions": ["read", "write", "delete"]},
                {"name": "record.metadata", "actions": ["list"]}]"#,
        )
        .or("[]"),
        Key::optional(
            "capabilities",
            Kind::list(&Kind::Text(&ACTION)),
            "Opaque capabilities: names without a dot.",
            r#"["gulfstream"]"#,
        )
        .or("[]"),
        Key::optional(
            "roles",
            Kind::list(&Kind::Table(&ROLE)),
            "The built-in roles.",
            r#"[{"name": "reader", "family": "administrative", "description": "reads records",
                 "capabilities": ["record.read"]},
                {"name": "owner", "owner": true,
                 "capabilities": ["record.read", "record.write", "record.delete"]}]"#,
        )
        .or("[]"),
    ],
    notes: &["Resources, capabilities and roles have unique names. At most one role has `owner: true`."],
    ..Table::EMPTY
};

const RESOURCE: Table = Table {
    name: "kind of resource",
    description: "A kind of resource with its actions.",
    keys: &[
        Key::required(
            "name",
            Kind::Text(&CAPABILITY),
            "The name, which may have dots.",
            r#""record""#,
        ),
        Key::optional(
            "purpose",
            Kind::Text(&TEXT),
            "What the resource is for.",
            r#""business records""#,
        )
        .or(r#""""#),
        Key::optional(
            "actions",
            Kind::list(&Kind::Text(&ACTION)),
            "What can be done to the resource.",
            r#"["read", "write", "delete"]"#,
        )
        .or("[]"),
    ],
    notes: &["A capability, `resource.action`, has at most 128 bytes."],
    ..Table::EMPTY
};

const ROLE: Table = Table {
    name: "built-in role",
    description: "A named set of capabilities that every policy with this catalog has.",
    keys: &[
        Key::required("name", Kind::Text(&NAME), "The name.", r#""reader""#),
        Key::optional(
            "family",
            Kind::Words(|| Family::ALL.map(Family::as_str).into()),
            "Which part of the platform the role is for.",
            r#""administrative""#,
        )
        .or(r#""custom""#),
        Key::optional(
            "description",
            Kind::Text(&TEXT),
            "What the role is for.",
            r#""reads records""#,
        )
        .or(r#""""#),
        Key::optional(
            "owner",
            Kind::Boolean,
            "Whether the role's holder owns an organization.",
            "true",
        )
        .or("false"),
        Key::optional(
            "capabilities",
            Kind::list(&Kind::Text(&CAPABILITY)),
            "Capabilities of this catalog. A role without capabilities gets a warning.",
            r#"["record.read"]"#,
        )
        .or("[]"),
    ],
    ..Table::EMPTY
};
