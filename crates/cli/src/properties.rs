//! Attributes that a question supplies for conditions: `--property`, and `properties` of a query line.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use capstan_engine::{AttributeCategory, Attributes, parse_attribute};
use capstan_policy::whole;
use capstan_server::limits::PROPERTIES_MAX;
use serde::Deserialize;
use serde_json::Value;

/// Attributes by namespace and name, with JSON values.
///
/// A map instead of a struct: serde would accept an array for a struct.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(transparent)]
pub(crate) struct Properties(pub(crate) BTreeMap<Namespace, BTreeMap<String, Value>>);

/// What an attribute describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Namespace {
    Subject,
    Resource,
    Action,
    Context,
}

impl Properties {
    /// Whether no attribute of the resource is supplied.
    pub(crate) fn has_no_resource(&self) -> bool {
        self.0.get(&Namespace::Resource).is_none_or(BTreeMap::is_empty)
    }

    /// The attributes that conditions can test: strings, booleans, and whole numbers within ±(2^53 - 1).
    /// Other values count as absent (contract, section 3).
    ///
    /// # Errors
    ///
    /// More than [`PROPERTIES_MAX`] properties, which a server refuses in the same words.
    pub(crate) fn attributes(&self) -> anyhow::Result<Attributes> {
        let count: usize = self.0.values().map(BTreeMap::len).sum();
        if count > PROPERTIES_MAX {
            bail!("properties: {count} properties: at most {PROPERTIES_MAX} are allowed");
        }
        let of = |namespace| {
            let all = self.0.get(&namespace).into_iter().flatten();
            all.filter_map(|(name, value)| Some((name.clone(), testable(value)?))).collect()
        };
        Ok(Attributes {
            subject: of(Namespace::Subject),
            resource: of(Namespace::Resource),
            action: of(Namespace::Action),
            context: of(Namespace::Context),
        })
    }
}

fn testable(value: &Value) -> Option<capstan_engine::Value> {
    use capstan_engine::Value as Testable;
    match value {
        Value::String(text) => Some(Testable::String(text.clone())),
        Value::Bool(value) => Some(Testable::Boolean(*value)),
        Value::Number(number) => whole(number.as_f64()?).map(Testable::Integer),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// The option `--property`.
#[derive(Debug, clap::Args)]
pub(crate) struct PropertyArgs {
    /// An attribute for conditions: subject.NAME, resource.NAME, action.NAME or context.NAME. VALUE is a
    /// string, or JSON: true, false, a number, a string in quotes. Repeat for several attributes
    #[arg(long, value_name = "ATTRIBUTE=VALUE")]
    property: Vec<String>,
}

impl PropertyArgs {
    /// # Errors
    ///
    /// An argument is not of the form `NAMESPACE.NAME=VALUE`.
    pub(crate) fn properties(&self) -> anyhow::Result<Properties> {
        let mut properties = Properties::default();
        for property in &self.property {
            let (attribute, value) = property
                .split_once('=')
                .with_context(|| format!("--property `{property}`: expected ATTRIBUTE=VALUE"))?;
            let Some((of, name)) = parse_attribute(attribute) else {
                bail!(
                    "--property `{attribute}`: expected subject.NAME, resource.NAME, action.NAME \
                     or context.NAME"
                );
            };
            let value = match serde_json::from_str(value) {
                Ok(value) => value,
                Err(_) => Value::String(value.into()),
            };
            let namespace = match of {
                AttributeCategory::Subject => Namespace::Subject,
                AttributeCategory::Resource => Namespace::Resource,
                AttributeCategory::Action => Namespace::Action,
                AttributeCategory::Context => Namespace::Context,
            };
            properties.0.entry(namespace).or_default().insert(name.into(), value);
        }
        Ok(properties)
    }
}
