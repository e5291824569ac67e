//! `--property`: what a question supplies for conditions.

use std::collections::HashMap;

use anyhow::{Context as _, bail};
use capstan_engine::{AttributeCategory, parse_attribute};
use capstan_proto::v1;

use super::queries::value_to_proto;

/// What a question supplies for conditions.
#[derive(Debug, clap::Args)]
pub(crate) struct Supplied {
    /// An attribute for conditions: subject.NAME, resource.NAME, action.NAME or context.NAME; true,
    /// false and numbers are themselves, anything else is a string; repeat for several
    #[arg(long, value_name = "ATTRIBUTE=VALUE")]
    property: Vec<String>,
}

impl Supplied {
    pub(crate) fn into_proto(self) -> anyhow::Result<Option<v1::Properties>> {
        if self.property.is_empty() {
            return Ok(None);
        }
        let mut properties = v1::Properties::default();
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
                Err(_) => serde_json::Value::String(value.into()),
            };
            let into: &mut HashMap<_, _> = match of {
                AttributeCategory::Subject => &mut properties.subject,
                AttributeCategory::Resource => &mut properties.resource,
                AttributeCategory::Action => &mut properties.action,
                AttributeCategory::Context => &mut properties.context,
            };
            into.insert(name.into(), value_to_proto(value));
        }
        Ok(Some(properties))
    }
}
