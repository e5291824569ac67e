//! Checks of single fields, and paths of new objects.

use capstan_engine::{CONDITIONS_MAX, Condition, Path, PathBuf, Properties, Value};

use crate::limits::{PROPERTIES_MAX, PROPERTY_BYTES_MAX, TEXT_BYTES_MAX, TYPE_BYTES_MAX};
use crate::rules::access::Access;
use crate::{Cause, Context, JudgeError, Kind, Meta, Refusal};

/// The largest integer that JSON holds exactly.
const INTEGER_MAX: u64 = (1 << 53) - 1;

/// A display name or description: at most [`TEXT_BYTES_MAX`] bytes, no control characters.
pub(super) fn check_text(field: &str, text: &str) -> Result<(), Box<Refusal>> {
    if text.len() > TEXT_BYTES_MAX {
        let problem = format!("{} bytes are more than {TEXT_BYTES_MAX}", text.len());
        return Err(Refusal::invalid(field, problem));
    }
    if text.chars().any(char::is_control) {
        return Err(Refusal::invalid(field, "a control character"));
    }
    Ok(())
}

/// [`check_text`] of `name` and `description` of an object.
pub(super) fn check_texts(
    object: &str,
    name: Option<&str>,
    description: Option<&str>,
) -> Result<(), Box<Refusal>> {
    name.map_or(Ok(()), |text| check_text(&format!("{object}.name"), text))?;
    description.map_or(Ok(()), |text| check_text(&format!("{object}.description"), text))
}

/// The `type` of an identity or a resource.
pub(super) fn check_type(field: &str, text: &str) -> Result<(), Box<Refusal>> {
    let problem = if text.is_empty() {
        "empty; expected a word such as `user` or `repo`".to_owned()
    } else if text.len() > TYPE_BYTES_MAX {
        format!("{} bytes are more than {TYPE_BYTES_MAX}", text.len())
    } else if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        "a blank or control character; expected a word such as `user` or `repo`".to_owned()
    } else {
        return Ok(());
    };
    Err(Refusal::invalid(field, problem))
}

pub(super) fn check_properties(field: &str, properties: &Properties) -> Result<(), Box<Refusal>> {
    if properties.len() > PROPERTIES_MAX {
        let problem = format!("{} properties are more than {PROPERTIES_MAX}", properties.len());
        return Err(Refusal::invalid(field, problem));
    }
    properties.iter().try_for_each(|(name, value)| check_property(field, name, value))
}

fn check_property(field: &str, name: &str, value: &Value) -> Result<(), Box<Refusal>> {
    let is_long = |text: &str| text.len() > PROPERTY_BYTES_MAX;
    let problem = if name.is_empty() {
        "a property without a name".to_owned()
    } else if is_long(name) || matches!(value, Value::String(text) if is_long(text)) {
        format!("a name or value of more than {PROPERTY_BYTES_MAX} bytes")
    } else if name.chars().any(char::is_control) {
        "a control character in a name".to_owned()
    } else if matches!(value, Value::Integer(integer) if integer.unsigned_abs() > INTEGER_MAX) {
        "an integer beyond ±(2^53 − 1), which JSON does not hold exactly".to_owned()
    } else {
        return Ok(());
    };
    Err(Refusal::invalid(field, problem))
}

/// The conditions of a binding.
pub(super) fn check_conditions(field: &str, when: &[Condition]) -> Result<(), Box<Refusal>> {
    if when.len() > CONDITIONS_MAX {
        let problem = format!("{} conditions are more than {CONDITIONS_MAX}", when.len());
        return Err(Refusal::invalid(field, problem));
    }
    for (at, condition) in when.iter().enumerate() {
        check_property(&format!("{field}[{at}]"), &condition.name, &condition.value)?;
    }
    Ok(())
}

/// An etag that is given must be the current one.
pub(super) fn check_etag(
    etag: Option<&String>,
    meta: &Meta,
    id: &PathBuf,
) -> Result<(), Box<Refusal>> {
    match etag {
        Some(etag) if *etag != meta.etag() => {
            Err(Refusal::open(None, Cause::Conflict { id: id.clone() }))
        }
        _ => Ok(()),
    }
}

/// The path of a new object below a parent, or at the root: the one that is asked for, or a new one of random hex
/// digits, 40 at the root and 16 below (contract, section 2).
pub(super) fn new_path(
    access: &Access<'_>,
    kind: Kind,
    parent: Option<Path<'_>>,
    id: Option<&PathBuf>,
    context: &mut Context<'_>,
) -> Result<PathBuf, JudgeError> {
    let Some(id) = id else {
        loop {
            let made = made_path(parent, context)?;
            if !access.view.is_taken(made.as_path(), kind) {
                return Ok(made);
            }
        }
    };
    check_child(kind, parent, id)?;
    free(access, kind, id)?;
    Ok(id.clone())
}

/// A path that names nothing yet.
pub(super) fn free(access: &Access<'_>, kind: Kind, id: &PathBuf) -> Result<(), JudgeError> {
    if access.view.is_taken(id.as_path(), kind) {
        let cause = Cause::AlreadyExists { id: id.clone(), same_binding: false };
        return Err(Refusal::open(None, cause).into());
    }
    Ok(())
}

fn check_child(kind: Kind, parent: Option<Path<'_>>, id: &PathBuf) -> Result<(), Box<Refusal>> {
    if id.as_path().parent() == parent {
        return Ok(());
    }
    let expected = match parent {
        Some(parent) => format!("expected a path below `{parent}` with one segment more"),
        None => "expected a path of one segment".to_owned(),
    };
    Err(Refusal::invalid(format!("{kind}.id"), format!("`{id}`; {expected}")))
}

fn made_path(parent: Option<Path<'_>>, context: &mut Context<'_>) -> Result<PathBuf, Box<Refusal>> {
    let mut digits = || format!("{:016x}", (context.new_id)());
    let text = match parent {
        Some(parent) => format!("{parent}/{}", digits()),
        None => {
            let mut text = digits() + &digits() + &digits();
            text.truncate(40);
            text
        }
    };
    text.parse()
        .map_err(|error| Refusal::invalid("parent", format!("nothing fits below it: {error}")))
}
