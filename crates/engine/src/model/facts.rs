//! Facts: what a policy declares, as plain values with the names of the policy document. Nothing is derived.

use crate::{Condition, PathBuf, Properties, Timestamp};

/// Everything that a policy declares apart from its catalog, in any order.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Organizations and folders.
    pub groups: Vec<Group>,
    /// Custom roles.
    pub roles: Vec<CustomRole>,
    /// Identities.
    pub identities: Vec<Identity>,
    /// Role bindings.
    pub role_bindings: Vec<RoleBinding>,
    /// Registered resources.
    pub resources: Vec<RegisteredResource>,
}

/// A node of the tree: a root group is an organization, the others are folders.
#[derive(Clone, Debug)]
pub struct Group {
    /// Its path; the parent is the path without the last segment.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
}

/// A role that lives under a group and can be bound there or below.
#[derive(Clone, Debug)]
pub struct CustomRole {
    /// A path below the group that owns it.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
    /// What it is for, may be empty.
    pub description: String,
    /// Names of capabilities of the catalog.
    pub capabilities: Vec<String>,
}

/// A person, service or pull token that questions are about.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its path; below a group, or a root of its own.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
    /// `user` unless declared otherwise.
    pub kind: String,
    /// What conditions may test as `subject.*`.
    pub properties: Properties,
}

impl Identity {
    /// A user with no display name and no properties.
    #[must_use]
    pub fn named(id: PathBuf) -> Self {
        Self { id, name: String::new(), kind: "user".into(), properties: Properties::new() }
    }
}

/// Grants a role's capabilities at a scope and everything below it.
#[derive(Clone, Debug)]
pub struct RoleBinding {
    /// A path below the scope; generated if there is none.
    pub id: Option<PathBuf>,
    /// Path of the identity.
    pub identity: PathBuf,
    /// A built-in role's name (no slash) or a custom role's path (has a slash).
    pub role: Box<str>,
    /// Path of a group or registered resource.
    pub scope: PathBuf,
    /// The binding counts while `now < expires_at`; for ever without one.
    pub expires_at: Option<Timestamp>,
    /// The binding counts only if all of these hold: at most [`crate::CONDITIONS_MAX`].
    pub when: Vec<Condition>,
}

/// A leaf that belongs to another service, registered so that searches find it.
#[derive(Clone, Debug)]
pub struct RegisteredResource {
    /// Its path; below a group, or a root of its own.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
    /// A word of the service that owns it, such as `repo`.
    pub kind: String,
    /// What conditions may test as `resource.*`.
    pub properties: Properties,
}
