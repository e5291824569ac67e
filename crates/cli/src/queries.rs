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
    /// `subject`, `resource`, `action`, `context`: a map, since a list is none.
    #[serde(default)]
    properties: BTreeMap<Of, BTreeMap<String, serde_json::Value>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Of {
    Subject,
    Resource,
    Action,
    Context,
}

impl Query {
    /// Reads a line; the error says where in the line.
    pub(crate) fn parse(line: &str) -> Result<Self, String> {
        if !line.trim_start().starts_with('{') {
            return Err("expected an object with identity, capability and resource".into());
        }
        serde_json::from_str(line).map_err(|error| {
            let (text, column) = (error.to_string(), error.column());
            let what = text.split(" at line ").next().unwrap_or_default();
            format!("{what} at column {column}")
        })
    }

    pub(crate) fn into_item(self) -> v1::CheckItem {
        let Self { identity, capability, resource, properties } = self;
        let properties = (!properties.is_empty()).then(|| {
            let mut all = v1::Properties::default();
            for (of, attributes) in properties {
                let into = match of {
                    Of::Subject => &mut all.subject,
                    Of::Resource => &mut all.resource,
                    Of::Action => &mut all.action,
                    Of::Context => &mut all.context,
                };
                into.extend(
                    attributes.into_iter().map(|(name, value)| (name, value_to_proto(value))),
                );
            }
            all
        });
        v1::CheckItem { identity, capability, resource, properties }
    }
}

/// JSON as protobuf has it; serde_json bounds the depth.
pub(crate) fn value_to_proto(value: serde_json::Value) -> Value {
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
