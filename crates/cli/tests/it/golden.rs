//! Golden files: the decisions of the demo, the access to methods, and the schema. Review them as diffs.

mod methods;

use std::fmt::Write as _;

use capstan_engine::{Attributes, Path, Question, Snapshot};
use capstan_policy::{Catalogs, load_policy, parse_timestamp};
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};

/// Identity × scope × capability of the demo. Denials are as visible as permissions.
#[test]
fn decisions_of_the_demo_match_the_golden_file() {
    let policy =
        load_policy(capstan_server::feed::source::DEMO.as_bytes(), &Catalogs::default()).unwrap();
    let snapshot = Snapshot::build(&policy.model, 1).unwrap();
    let now = parse_timestamp("2026-11-22T00:00:00Z").unwrap();
    let facts = policy.model.facts();
    let mut scopes: Vec<_> = facts.groups.iter().map(|group| &group.id).collect();
    scopes.extend(facts.resources.iter().map(|resource| &resource.id));
    scopes.sort();

    let mut matrix = String::from("# ✔ allowed, · denied, at 2026-11-22T00:00:00Z\n");
    for (column, scope) in scopes.iter().enumerate() {
        writeln!(matrix, "# column {}: {scope}", column + 1).unwrap();
    }
    for identity in &facts.identities {
        writeln!(matrix, "\n{}", identity.id).unwrap();
        for capability in policy.model.catalog().capabilities() {
            let marks: String = scopes
                .iter()
                .map(|scope| {
                    let resource = Path::parse(scope.as_str()).unwrap();
                    let (identity, attributes) = (identity.id.as_path(), Attributes::NONE);
                    let question = Question { identity, capability, resource, attributes };
                    if snapshot.check(&question, now).unwrap().allowed() { '✔' } else { '·' }
                })
                .collect();
            writeln!(matrix, "  {marks}  {capability}").unwrap();
        }
    }
    crate::common::golden("demo.matrix", &matrix);
}

/// Fields, methods and enum values may be added, and never changed or reused.
#[test]
fn the_schema_matches_the_golden_file() {
    let set = prost_types::FileDescriptorSet::decode(capstan_proto::DESCRIPTOR_SET).unwrap();
    let mut schema = String::new();
    for file in set.file.iter().filter(|file| file.package().starts_with("capstan.")) {
        writeln!(schema, "# {}", file.package()).unwrap();
        for message in &file.message_type {
            for field in message.field.iter() {
                let repeated = field.label() == Label::Repeated;
                let kind = match field.r#type() {
                    Type::Message | Type::Enum => field.type_name().trim_start_matches('.').into(),
                    scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
                };
                let (name, number) = (field.name(), field.number());
                let repeated = if repeated { "repeated " } else { "" };
                writeln!(schema, "{}.{name} = {number}: {repeated}{kind}", message.name()).unwrap();
            }
        }
        for kind in &file.enum_type {
            for value in &kind.value {
                writeln!(schema, "{}.{} = {}", kind.name(), value.name(), value.number()).unwrap();
            }
        }
        for service in &file.service {
            for method in &service.method {
                let stream = |streams| if streams { "stream " } else { "" };
                writeln!(
                    schema,
                    "{}.{}({}{}) -> {}{}",
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    method.input_type().trim_start_matches('.'),
                    stream(method.server_streaming()),
                    method.output_type().trim_start_matches('.'),
                )
                .unwrap();
            }
        }
    }
    crate::common::golden("schema.txt", &schema);
}

/// `docs/POLICY.md` is generated from the tables of keys.
#[test]
fn the_reference_of_documents_matches_the_tables() {
    crate::common::golden("../../../../docs/POLICY.md", &capstan_policy::schema::reference());
}
