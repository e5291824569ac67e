//! Attributes that a caller supplies for conditions.

use capstan_proto::v1;

/// The value of an attribute: the types that conditions can test (contract, section 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A string.
    String(String),
    /// True or false.
    Boolean(bool),
    /// A whole number. Beyond ±(2^53 - 1) the attribute counts as absent.
    Integer(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::String(text)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Boolean(value)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<Value> for prost_types::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::String(text) => text.into(),
            Value::Boolean(value) => value.into(),
            // Numbers that are rounded are beyond 2^53, and stay beyond it.
            Value::Integer(number) => (number as f64).into(),
        }
    }
}

/// Attributes by namespace. For `subject` and `resource`, a property registered in the policy takes precedence.
/// An absent attribute fails every test, `not_equals` included.
///
/// ```
/// use capstan_client::Properties;
///
/// let properties = Properties::default().resource("status", "draft").context("hops", 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Properties(v1::Properties);

impl Properties {
    /// Supplies `subject.NAME`.
    #[must_use]
    pub fn subject(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.subject.insert(name.into(), value.into().into());
        self
    }

    /// Supplies `resource.NAME`.
    #[must_use]
    pub fn resource(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.resource.insert(name.into(), value.into().into());
        self
    }

    /// Supplies `action.NAME`.
    #[must_use]
    pub fn action(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.action.insert(name.into(), value.into().into());
        self
    }

    /// Supplies `context.NAME`.
    #[must_use]
    pub fn context(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.0.context.insert(name.into(), value.into().into());
        self
    }

    /// The message.
    pub(crate) const fn message(&self) -> &v1::Properties {
        &self.0
    }
}
