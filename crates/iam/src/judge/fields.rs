//! Checks of single fields of a request, and paths of new objects.

use std::time::Duration;

use capstan_engine::{
    self as engine, CONDITIONS_MAX, Condition, Path, PathBuf, Properties, Timestamp,
};

use crate::fields;
use crate::rules::access::Access;
use crate::{Cause, Context, JudgeError, Kind, Meta, Refusal};

pub(super) fn in_field(
    field: impl Into<String>,
    checked: Result<(), String>,
) -> Result<(), Box<Refusal>> {
    checked.map_err(|problem| Refusal::invalid(field, problem))
}

/// A text of a request.
pub(super) fn check_field(field: &str, text: &str) -> Result<(), Box<Refusal>> {
    in_field(field, fields::check_text(text))
}

/// `name` and `description` of an object.
pub(super) fn check_texts(
    object: &str,
    name: Option<&str>,
    description: Option<&str>,
) -> Result<(), Box<Refusal>> {
    for (field, text) in [("name", name), ("description", description)] {
        let checked = text.map_or(Ok(()), fields::check_text);
        in_field(format!("{object}.{field}"), checked)?;
    }
    Ok(())
}

/// The `type` of an identity or a resource.
pub(super) fn check_type(field: &str, text: &str) -> Result<(), Box<Refusal>> {
    in_field(field, fields::check_type(text))
}

pub(super) fn check_properties(field: &str, properties: &Properties) -> Result<(), Box<Refusal>> {
    in_field(field, fields::check_properties(properties))
}

/// The conditions of a binding.
pub(super) fn check_conditions(field: &str, when: &[Condition]) -> Result<(), Box<Refusal>> {
    if when.len() > CONDITIONS_MAX {
        let problem = format!("{} conditions are more than {CONDITIONS_MAX}", when.len());
        return Err(Refusal::invalid(field, problem));
    }
    for (at, condition) in when.iter().enumerate() {
        in_field(format!("{field}[{at}]"), fields::check_condition(condition))?;
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
            if !access.view.is_taken(made.as_path(), kind)? {
                return Ok(made);
            }
        }
    };
    check_child(kind, parent, id)?;
    free(access, kind, id)?;
    Ok(id.clone())
}

/// The path of a new binding without one: derived from it, or a new one if that is taken. `field` is what is refused if none
/// fits below the scope.
pub(super) fn free_binding_id(
    access: &Access<'_>,
    binding: &engine::RoleBinding,
    field: &str,
    context: &mut Context<'_>,
) -> Result<PathBuf, JudgeError> {
    let deep = || Refusal::invalid(field, "it is as deep or as long as a path can be");
    let id = access.view.snapshot().free_binding_id(binding).ok_or_else(deep)?;
    if access.view.0.objects.is_taken_beside(id.as_path())? {
        return new_path(access, Kind::RoleBinding, Some(binding.scope.as_path()), None, context);
    }
    Ok(id)
}

/// The time a while later.
pub(super) fn after(now: Timestamp, ttl: Duration) -> Timestamp {
    let nanos = now.nanos() + ttl.subsec_nanos();
    let (more, nanos) = if nanos < 1_000_000_000 { (0, nanos) } else { (1, nanos - 1_000_000_000) };
    let seconds = now.seconds().saturating_add_unsigned(ttl.as_secs()).saturating_add(more);
    Timestamp::new(seconds, nanos)
}

/// A path that names nothing yet.
pub(super) fn free(access: &Access<'_>, kind: Kind, id: &PathBuf) -> Result<(), JudgeError> {
    if access.view.is_taken(id.as_path(), kind)? {
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
