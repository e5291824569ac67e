//! JSON in which no mapping has a member twice, at any depth. Readers disagree about which of the two counts (RFC 8725,
//! section 2.4), so a token with one could mean something else to whoever signed it.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::limits::TOKEN_VALUES_MAX;

/// Reads a mapping.
///
/// # Errors
///
/// It is no JSON, no mapping, nested deeper than `serde_json` reads (128), has a member twice, or more than
/// [`TOKEN_VALUES_MAX`] values. The text quotes nothing.
pub(super) fn mapping(bytes: &[u8]) -> Result<Map<String, Value>, &'static str> {
    let values = Cell::new(0);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let read = Strict(&values).deserialize(&mut reader);
    match read.and_then(|value| reader.end().map(|()| value)) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err("no mapping"),
        Err(error) if error.is_data() => {
            Err("a member is there twice, a number is none, or too many values")
        }
        Err(_) => Err("not JSON"),
    }
}

/// Reads a value, and counts it. A value in memory takes many times its text.
#[derive(Clone, Copy)]
struct Strict<'c>(&'c Cell<usize>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.0.set(self.0.get() + 1);
        if self.0.get() > TOKEN_VALUES_MAX {
            return Err(D::Error::custom("too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without a member that is there twice")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut all = vec![];
        while let Some(value) = access.next_element_seed(self)? {
            all.push(value);
        }
        Ok(Value::Array(all))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(self)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a member is there twice"));
            }
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_that_is_there_twice_is_refused_at_any_depth() {
        let whole = r#"{"a": [1, -2, 1.5, true, null, "x"], "b": {"a": {}}}"#;
        let read = mapping(whole.as_bytes()).unwrap();
        assert_eq!(Value::Object(read), serde_json::from_str::<Value>(whole).unwrap());
        for twice in
            [r#"{"a": 1, "a": 1}"#, r#"{"a": 1, "\u0061": 2}"#, r#"{"b": [{"a": 1, "a": 2}]}"#]
        {
            assert!(mapping(twice.as_bytes()).unwrap_err().contains("twice"), "{twice}");
        }
        for other in ["", "[]", "1", "{} x", "{\"a\": NaN}", "{\"a\": \"\\ud800\"}"] {
            assert!(mapping(other.as_bytes()).is_err(), "{other}");
        }
        assert_eq!(mapping("[".repeat(100_000).as_bytes()), Err("not JSON"));
        let many = |values: usize| format!(r#"{{"a": [{}]}}"#, vec!["0"; values].join(","));
        assert!(mapping(many(TOKEN_VALUES_MAX - 2).as_bytes()).is_ok());
        assert!(mapping(many(TOKEN_VALUES_MAX - 1).as_bytes()).is_err());
    }
}
