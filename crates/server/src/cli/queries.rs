//! Query lines: questions as NDJSON, in and out.

use std::collections::BTreeMap;

use capstan_proto::v1;
use prost_types::{ListValue, Struct, Value, value::Kind};
use serde::Deserialize;

/// One question of a file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    identity: String,
    capability: String,
    resource: String,
    #[serde(default)]
    properties: Properties,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Properties {
    subject: Attributes,
    resource: Attributes,
    action: Attributes,
    context: Attributes,
}

type Attributes = BTreeMap<String, serde_json::Value>;

impl Query {
    pub(crate) fn parse(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line)
    }

    pub(crate) fn into_item(self) -> v1::CheckItem {
        let Self { identity, capability, resource, properties } = self;
        v1::CheckItem { identity, capability, resource, properties: properties.into_proto() }
    }
}

impl Properties {
    fn into_proto(self) -> Option<v1::Properties> {
        let Self { subject, resource, action, context } = self;
        let all = [&subject, &resource, &action, &context];
        if all.iter().all(|attributes| attributes.is_empty()) {
            return None;
        }
        Some(v1::Properties {
            subject: into_proto(subject),
            resource: into_proto(resource),
            action: into_proto(action),
            context: into_proto(context),
        })
    }
}

fn into_proto(attributes: Attributes) -> std::collections::HashMap<String, Value> {
    attributes.into_iter().map(|(name, value)| (name, value_to_proto(value))).collect()
}

/// JSON as protobuf has it; serde_json bounds the depth.
fn value_to_proto(value: serde_json::Value) -> Value {
    use serde_json::Value as Json;
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        // A number that no double holds exactly is one that no condition can test.
        Json::Number(value) => Kind::NumberValue(value.as_f64().unwrap_or(f64::NAN)),
        Json::String(value) => Kind::StringValue(value),
        Json::Array(values) => {
            Kind::ListValue(ListValue { values: values.into_iter().map(value_to_proto).collect() })
        }
        Json::Object(fields) => Kind::StructValue(Struct {
            fields: fields.into_iter().map(|(name, value)| (name, value_to_proto(value))).collect(),
        }),
    };
    Value { kind: Some(kind) }
}
