//! From entities to what Capstan decides about: paths, types and a capability.

use capstan_engine::{Path, Snapshot};

use super::request::Entities;
use crate::ask::Names;

/// Why nothing can be asked about entities: a denial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Denial {
    pub(super) reason: &'static str,
    /// The field, and what is wrong with it.
    pub(super) field: &'static str,
    pub(super) problem: String,
}

impl Denial {
    fn new(reason: &'static str, field: &'static str, problem: impl std::fmt::Display) -> Self {
        Self { reason, field, problem: problem.to_string() }
    }
}

/// The question that entities are, with the capability in a buffer of the caller.
///
/// # Errors
///
/// An id is no path, a type is another one than what is registered, or the catalog has no such capability.
pub(super) fn question<'r>(
    snapshot: &Snapshot,
    entities: &Entities<'r>,
    capability: &'r mut String,
) -> Result<Names<'r>, Denial> {
    let (subject, resource) = (entities.subject, entities.resource);
    subject_of(snapshot, subject)?;
    resource_of(snapshot, resource)?;
    capability_of(snapshot, resource.0, entities.action, capability)?;
    Ok([subject.1, capability, resource.1])
}

/// The identity of a subject. It need not be there: then whoever decides says so.
///
/// # Errors
///
/// Its id is no path, or it has another type.
pub(super) fn subject_of<'r>(
    snapshot: &Snapshot,
    (kind, id): (&str, &'r str),
) -> Result<Path<'r>, Denial> {
    let path = parse("subject.id", id)?;
    match snapshot.identity_kind(path) {
        Some(found) if found != kind => {
            let problem = "the identity is of another type";
            Err(Denial::new("WRONG_SUBJECT_TYPE", "subject.type", problem))
        }
        _ => Ok(path),
    }
}

/// The path of a resource. It need not be registered.
///
/// # Errors
///
/// Its id is no path, or it is registered with another type.
pub(super) fn resource_of<'r>(
    snapshot: &Snapshot,
    (kind, id): (&str, &'r str),
) -> Result<Path<'r>, Denial> {
    let path = parse("resource.id", id)?;
    match snapshot.resource_kind(path) {
        Some(found) if found != kind => {
            let problem = "the resource is registered with another type";
            Err(Denial::new("WRONG_RESOURCE_TYPE", "resource.type", problem))
        }
        _ => Ok(path),
    }
}

fn parse<'r>(field: &'static str, id: &'r str) -> Result<Path<'r>, Denial> {
    Path::parse(id).map_err(|error| Denial::new("MALFORMED_ID", field, error))
}

/// The capability whose resource and action these are, or whose whole name the action is.
///
/// # Errors
///
/// The catalog has none.
pub(super) fn capability_of(
    snapshot: &Snapshot,
    kind: &str,
    action: &str,
    name: &mut String,
) -> Result<(), Denial> {
    let catalog = snapshot.catalog();
    let of_kind = catalog.resources().iter().find(|resource| resource.name == kind);
    name.clear();
    if of_kind.is_some_and(|resource| resource.actions.iter().any(|one| one == action)) {
        name.extend([kind, ".", action]);
    } else if catalog.capability(action).is_some() {
        name.push_str(action);
    } else {
        let problem = format!("catalog `{}` has no such capability", catalog.name());
        return Err(Denial::new("UNKNOWN_ACTION", "action.name", problem));
    }
    Ok(())
}
