//! JSON Web Key Sets (RFC 7517): which sets of keys can be. Whether a key is of use is for whoever verifies tokens to say.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::fields::check_name;
use crate::limits::{JWKS_BYTES_MAX, JWKS_KEYS_MAX};

/// Members of a JSON Web Key that only a secret one has (RFC 7518, sections 6.2.2, 6.3.2 and 6.4).
pub const SECRET_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The types of public keys (RFC 7518, section 6.1; RFC 8037, section 2).
pub const KEY_TYPES: [&str; 3] = ["RSA", "EC", "OKP"];

/// Checks a set of 1 to [`JWKS_KEYS_MAX`] public keys in JSON, each with its own `kid` if there are several. A member of a
/// key is a string, a boolean or a list of strings, as in documents.
///
/// # Errors
///
/// What is wrong, and what is expected.
pub fn check_key_set(text: &str) -> Result<(), String> {
    if text.len() > JWKS_BYTES_MAX {
        return Err(format!("{} bytes are more than {JWKS_BYTES_MAX}", text.len()));
    }
    let expected = "expected a JSON Web Key Set: {\"keys\": [...]}";
    let set: Value = serde_json::from_str(text).map_err(|_| format!("not JSON; {expected}"))?;
    let set = set.as_object().ok_or_else(|| format!("no mapping; {expected}"))?;
    let keys = set.get("keys").and_then(Value::as_array);
    let keys = keys.ok_or_else(|| format!("no `keys`; {expected}"))?;
    if let Some(other) = set.keys().find(|name| *name != "keys") {
        return Err(format!("`{other}` beside `keys`; {expected}"));
    }
    if keys.is_empty() || keys.len() > JWKS_KEYS_MAX {
        return Err(format!("{} keys; expected 1 to {JWKS_KEYS_MAX}", keys.len()));
    }
    let mut ids = BTreeSet::new();
    for (at, key) in keys.iter().enumerate() {
        let key = key.as_object().ok_or_else(|| format!("keys[{at}]: expected a mapping"))?;
        check_key(key).map_err(|problem| format!("keys[{at}].{problem}"))?;
        let id = key.get("kid").and_then(Value::as_str).filter(|id| !id.is_empty());
        if keys.len() > 1 && !id.is_some_and(|id| ids.insert(id)) {
            let problem = "expected an id of its own, since there are several keys";
            return Err(format!("keys[{at}].kid: {problem}"));
        }
    }
    Ok(())
}

/// The problem begins with the name of the member.
fn check_key(key: &Map<String, Value>) -> Result<(), String> {
    let kind = key.get("kty").and_then(Value::as_str);
    if !kind.is_some_and(|kind| KEY_TYPES.contains(&kind)) {
        return Err(format!("kty: expected one of {}", KEY_TYPES.join(", ")));
    }
    for (name, value) in key {
        let problem = match value {
            _ if SECRET_MEMBERS.contains(&&**name) => "a secret key; give the public one only",
            Value::String(_) | Value::Bool(_) => "",
            Value::Array(all) if all.iter().all(Value::is_string) => "",
            _ => "expected a string, a boolean or a list of strings",
        };
        if !problem.is_empty() {
            return Err(format!("{name}: {problem}"));
        }
        check_name(name).map_err(|problem| format!("{name}: {problem}"))?;
    }
    Ok(())
}
