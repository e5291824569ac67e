//! Query lines: the questions of `check --file` and `bench --queries`, one JSON object per line.

use serde::Deserialize;

use super::properties::Properties;

/// A question to Check. Deserialized, it is a query line of the contract, section 8.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    /// Path of an identity.
    pub(crate) identity: String,
    /// Name of a capability.
    pub(crate) capability: String,
    /// Path of a resource or group.
    pub(crate) resource: String,
    #[serde(default)]
    pub(crate) properties: Properties,
}

impl Query {
    /// Parses a query line.
    ///
    /// # Errors
    ///
    /// A message with the column of the error.
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
}
