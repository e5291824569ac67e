//! What a field of an object may be: the same for operations and for documents, so that whatever a store holds can be
//! exported and loaded again.
//!
//! Each error says what is expected. Who calls names the field.

use capstan_engine::{Condition, Properties, Value};

use crate::limits::{PROPERTIES_MAX, PROPERTY_BYTES_MAX, TEXT_BYTES_MAX};

/// The largest integer that JSON holds exactly: 2^53 - 1.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// A display name, description or purpose: at most [`TEXT_BYTES_MAX`] bytes, no control characters.
///
/// # Errors
///
/// What is expected.
pub fn check_text(text: &str) -> Result<(), String> {
    check_bytes(text, TEXT_BYTES_MAX)
}

/// The `type` of an identity or a resource: as [`check_text`], and not empty.
///
/// # Errors
///
/// What is expected.
pub fn check_type(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("not empty: a word such as `user` or `repo`".into());
    }
    check_text(text)
}

/// A name that somebody else gives: of a property, of a claim, of a member of a key. 1 to [`PROPERTY_BYTES_MAX`] bytes, no
/// control characters, and not `<<`, which YAML takes for another thing.
///
/// # Errors
///
/// What is expected.
pub fn check_name(name: &str) -> Result<(), String> {
    match name {
        "" => Err("not empty".into()),
        "<<" => Err("no merge keys".into()),
        _ => check_bytes(name, PROPERTY_BYTES_MAX),
    }
}

/// The value of a property, or what a condition compares it with: an integer that JSON holds exactly, a string of at most
/// [`PROPERTY_BYTES_MAX`] bytes.
///
/// # Errors
///
/// What is expected.
pub fn check_value(value: &Value) -> Result<(), String> {
    match value {
        Value::String(text) if text.len() > PROPERTY_BYTES_MAX => {
            Err(format!("at most {PROPERTY_BYTES_MAX} bytes, not {}", text.len()))
        }
        Value::Integer(integer) if integer.unsigned_abs() > INTEGER_MAX => {
            Err("an integer within ±(2^53 − 1), which JSON holds exactly".into())
        }
        Value::String(_) | Value::Integer(_) | Value::Boolean(_) => Ok(()),
    }
}

/// The properties of an identity or a resource: at most [`PROPERTIES_MAX`].
///
/// # Errors
///
/// What is expected.
pub fn check_properties(properties: &Properties) -> Result<(), String> {
    if properties.len() > PROPERTIES_MAX {
        return Err(format!("at most {PROPERTIES_MAX} properties, not {}", properties.len()));
    }
    properties.iter().try_for_each(|(name, value)| {
        check_name(name).map_err(|expected| format!("names: {expected}"))?;
        check_value(value).map_err(|expected| format!("values: {expected}"))
    })
}

/// A condition of a binding: a name as that of a property, apart from `<<`, and a value as [`check_value`] has it.
///
/// # Errors
///
/// What is expected.
pub fn check_condition(condition: &Condition) -> Result<(), String> {
    if condition.name != "<<" {
        check_name(&condition.name).map_err(|expected| format!("its name: {expected}"))?;
    }
    check_value(&condition.value).map_err(|expected| format!("its value: {expected}"))
}

/// At most so many bytes, no control characters.
pub(crate) fn check_bytes(text: &str, max: usize) -> Result<(), String> {
    if text.len() > max {
        return Err(format!("at most {max} bytes, not {}", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err("no control characters".into());
    }
    Ok(())
}
