//! What is written is loaded again as the same facts and details, and written again as the same bytes.

#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of the tests")]

use capstan_engine::{Catalog, Facts};
use capstan_policy::{
    Catalogs, Details, ListDetails, Policy, PolicyDetails, PolicyWriter, Style, load_policy,
};
use capstan_testkit::{generate, worlds};
use proptest::prelude::*;

const STYLES: [Style; 2] = [Style::Yaml, Style::Json];

fn written(style: Style, catalog: &Catalog, facts: &Facts, details: &PolicyDetails) -> String {
    let none = Details::default();
    let of = |list: &ListDetails, at| list.get(at).cloned().unwrap_or_default();
    let mut writer = PolicyWriter::new(vec![], style, catalog).unwrap();
    for (at, one) in facts.groups.iter().enumerate() {
        writer.group(one, &of(&details.groups, at)).unwrap();
    }
    facts.roles.iter().for_each(|one| writer.role(one).unwrap());
    for (at, one) in facts.identities.iter().enumerate() {
        writer.identity(one, &of(&details.identities, at)).unwrap();
    }
    for (at, one) in facts.resources.iter().enumerate() {
        writer.resource(one, details.resources.get(at).unwrap_or(&none)).unwrap();
    }
    for (at, one) in facts.role_bindings.iter().enumerate() {
        writer.role_binding(one, &of(&details.role_bindings, at)).unwrap();
    }
    String::from_utf8(writer.finish().unwrap()).unwrap()
}

fn again(document: &str) -> Policy {
    load_policy(document.as_bytes(), &Catalogs::default())
        .unwrap_or_else(|found| panic!("{found}\n{document}"))
}

fn check(catalog: &Catalog, facts: &Facts, details: &PolicyDetails) {
    for style in STYLES {
        let document = written(style, catalog, facts, details);
        let read = again(&document);
        assert_eq!(format!("{:#?}", read.model.facts()), format!("{facts:#?}"), "{document}");
        assert_eq!(read.model.catalog().facts(), catalog.facts());
        assert_eq!(read.details, *details, "{document}");
        if style == Style::Json {
            serde_json::from_str::<serde_json::Value>(&document).unwrap();
        }
    }
}

proptest! {
    #[test]
    fn a_generated_world_is_written(world in generate::world()) {
        let model = world.model().unwrap();
        check(model.catalog(), &world.facts, &PolicyDetails::default());
    }

    /// Whatever texts there are, long names of properties included.
    #[test]
    fn any_text_is_written(text in "\\PC{1,300}", control in any::<char>(), long in 1usize..=1_000) {
        let mut facts = Facts::default();
        let name: String = text.chars().filter(|c| !c.is_control()).collect();
        let mut identity = capstan_engine::Identity::named("a".parse().unwrap());
        let value = capstan_engine::Value::String(format!("{text}{control}"));
        identity.properties.insert("p".repeat(long), value);
        identity.properties.insert(format!("{name}x"), capstan_engine::Value::String(text));
        identity.name = name;
        facts.identities.push(identity);
        if facts.identities[0].name.len() < 1_000 {
            let catalog = Catalogs::default().get("chainguard-2025-08-14+errata").unwrap();
            check(&catalog, &facts, &PolicyDetails::default());
        }
    }
}

/// YAML takes a key of more than 1,024 characters only behind a question mark, which JSON does not have. Escapes count.
#[test]
fn the_longest_name_of_a_property_is_written() {
    let catalog = Catalogs::default().get("chainguard-2025-08-14+errata").unwrap();
    for of in ["p", "\"", "\u{feff}", "\u{1f600}"] {
        let mut facts = Facts::default();
        let mut identity = capstan_engine::Identity::named("a".parse().unwrap());
        let name = of.repeat(capstan_iam::limits::PROPERTY_BYTES_MAX / of.len());
        identity.properties.insert(name.clone(), capstan_engine::Value::Integer(1));
        identity.properties.insert("other".into(), capstan_engine::Value::Integer(2));
        facts.identities.push(identity);
        for style in [Style::Yaml, Style::Json] {
            let document = written(style, &catalog, &facts, &PolicyDetails::default());
            assert_eq!(format!("{:?}", again(&document).model.facts()), format!("{facts:?}"));
        }
    }
    // Every byte of it as an escape.
    let name = "\\u0070".repeat(capstan_iam::limits::PROPERTY_BYTES_MAX);
    let document = format!(
        "{{\"version\": 1, \"catalog\": \"chainguard-2025-08-14+errata\",
          \"identities\": [{{\"id\": \"a\", \"properties\": {{\"{name}\": 1}}}}]}}"
    );
    assert_eq!(again(&document).model.facts().identities.len(), 1);
}

#[test]
fn a_named_world_is_written() {
    for world in worlds() {
        let facts = world.model.facts();
        let described = again(std::str::from_utf8(&world.policy).unwrap());
        check(world.model.catalog(), facts, &described.details);
    }
}

#[test]
fn descriptions_and_authentication_are_written() {
    let document = r#"
version: 1
catalog: chainguard-2025-08-14+errata
groups: [{id: acme, name: "true", description: "It's: a #group"}]
roles: [{id: acme/puller, name: '12', description: pulls, capabilities: [repo.list]}]
identities:
  - {id: a, description: d, disabled: true, type: service}
  - id: acme/b
    authentication:
      claim_match: {issuer: 'https://i.example', subject_pattern: '^repo:acme/.*$', audience: aud,
                    claims: {ref: main}, claim_patterns: {"event: name": '^(push|pull)$'}}
  - id: acme/c
    authentication:
      static_keys: {issuer: 'https://i.example', subject: s, audience: x, expires_at: 2027-01-01T00:00:00.5Z,
                    jwks: {keys: [{kty: EC, kid: "1", x5c: [a, b], ext: true}]}}
  - {id: acme/d, authentication: {client_certificate: {spiffe_id: 'spiffe://example.com/ns/x'}}}
  - {id: acme/e, authentication: {client_certificate: {dns_name: 'null'}}}
resources: [{id: acme/r, type: repo, description: "a resource", properties: {n: 7, "true": "false"}}]
role_bindings:
  - {id: acme/own, identity: a, role: viewer, scope: acme, description: why, expires_at: 2027-01-01T00:00:00Z,
     when: [{attribute: resource.status, not_equals: archived}, {attribute: subject.n, equals: 1}]}
  - {identity: 0123456789abcdef0123456789abcdef01234567, role: acme/puller, scope: acme/r}
"#;
    let Policy { model, details, .. } = again(document);
    assert_eq!((details.groups.len(), details.identities.len()), (1, 5));
    check(model.catalog(), model.facts(), &details);
    let yaml = written(Style::Yaml, model.catalog(), model.facts(), &details);
    let lines: Vec<_> = yaml.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "version: 1",
            "catalog: chainguard-2025-08-14+errata",
            "groups:",
            "  - {id: acme, name: \"true\", description: \"It's: a #group\"}",
        ]
    );
    assert!(
        lines.contains(&"  - {id: a, description: d, type: service, disabled: true}"),
        "{yaml}"
    );
}
