//! Messages of the API as JSON, with the field names of the schema.

use std::sync::LazyLock;

use anyhow::{Context as _, anyhow};
use capstan_policy::whole;
use prost::Message;
use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, SerializeOptions,
};
use serde_json::Value;

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(capstan_proto::DESCRIPTOR_SET).ok());

/// Every field of a message with its name in the schema; unset messages and members of a oneof are absent. Revisions are
/// numbers.
const WRITTEN: SerializeOptions = SerializeOptions::new()
    .use_proto_field_name(true)
    .skip_default_fields(false)
    .stringify_64_bit_integers(false);

/// A misspelt key is an error.
const READ: DeserializeOptions = DeserializeOptions::new().deny_unknown_fields(true);

fn descriptor(name: &str) -> anyhow::Result<MessageDescriptor> {
    let pool = POOL.as_ref().context("the schema cannot be read")?;
    let found = pool.get_message_by_name(&format!("capstan.iam.v1.{name}"));
    found.with_context(|| format!("the schema has no {name}"))
}

/// A message of the package `capstan.iam.v1` as JSON.
///
/// # Errors
///
/// The message has a value that JSON cannot say, such as a time after the year 9999.
pub(crate) fn of(message: &impl Message, name: &str) -> anyhow::Result<Value> {
    let mut dynamic = DynamicMessage::new(descriptor(name)?);
    dynamic.transcode_from(message)?;
    let json = dynamic.serialize_with_options(serde_json::value::Serializer, &WRITTEN)?;
    Ok(with_whole_numbers(json))
}

/// A message of the package `capstan.iam.v1` from JSON, whose keys are the names of the schema.
///
/// # Errors
///
/// The text is no JSON, or a key or value is not of the schema.
pub(crate) fn read<T: Message + Default>(text: &str, name: &str) -> anyhow::Result<T> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found =
        DynamicMessage::deserialize_with_options(descriptor(name)?, &mut deserializer, &READ);
    // Its positions are within the text, which is one line.
    let found = found.map_err(|error| anyhow!("{error}"))?;
    deserializer.end()?;
    Ok(found.transcode_to()?)
}

/// Attributes are whole numbers, and `google.protobuf.Value` has doubles only: `1.0` becomes `1`.
fn with_whole_numbers(json: Value) -> Value {
    match json {
        Value::Number(number) if number.is_f64() => match number.as_f64().and_then(whole) {
            Some(number) => number.into(),
            None => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(with_whole_numbers).collect(),
        Value::Object(fields) => Value::Object(
            fields.into_iter().map(|(name, value)| (name, with_whole_numbers(value))).collect(),
        ),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capstan_proto::iam::v1::{Group, RoleBinding};
    use serde_json::json;

    #[test]
    fn a_binding_is_read_and_written_with_the_names_of_the_schema() {
        let text = r#"{"identity": "a", "role": "owner", "scope": "acme", "expires_at": "2027-01-01T00:00:00Z",
                      "when": [{"attribute": "resource.level", "equals": 3}]}"#;
        let binding: RoleBinding = read(text, "RoleBinding").unwrap();
        assert_eq!((&*binding.identity, binding.when.len()), ("a", 1));
        let written = of(&binding, "RoleBinding").unwrap();
        assert_eq!(written["expires_at"], "2027-01-01T00:00:00Z");
        assert_eq!(written["when"], json!([{"attribute": "resource.level", "equals": 3}]));
        assert_eq!(written["name"], "", "a field that is no message is always there");
        assert!(written.get("create_time").is_none());
    }

    #[test]
    fn a_misspelt_key_is_an_error() {
        let error = |text: &str| read::<RoleBinding>(text, "RoleBinding").unwrap_err().to_string();
        assert!(error(r#"{"idenity": "a"}"#).contains("idenity"));
        assert!(
            error(r#"{"identity": 1}"#).contains("expected a string"),
            "{}",
            error(r#"{"identity": 1}"#)
        );
        assert!(error("{} {}").contains("trailing"));
        assert!(error("[]").contains("invalid type"), "{}", error("[]"));
    }

    #[test]
    fn every_kind_is_in_the_schema() {
        for name in [
            "Group",
            "Role",
            "RoleBinding",
            "Identity",
            "Resource",
            "AuditRecord",
            "ImportResponse",
        ] {
            descriptor(name).unwrap();
        }
        let group = of(&Group { id: "acme".into(), ..Default::default() }, "Group").unwrap();
        assert_eq!(group, json!({"id": "acme", "name": "", "description": "", "etag": ""}));
    }
}
