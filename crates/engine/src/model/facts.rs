//! Facts: what a policy declares, as plain values with the names of the policy document. Nothing is derived.

use std::collections::HashSet;
use std::convert::Infallible;

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

/// Takes facts one by one, in any order. After an error nothing more is to be handed over.
pub trait FactSink {
    /// Why a fact is refused.
    type Error: std::fmt::Display;

    /// Takes a group.
    ///
    /// # Errors
    ///
    /// The group is refused.
    fn group(&mut self, group: Group) -> Result<(), Self::Error>;

    /// Takes a custom role.
    ///
    /// # Errors
    ///
    /// The role is refused.
    fn role(&mut self, role: CustomRole) -> Result<(), Self::Error>;

    /// Takes an identity.
    ///
    /// # Errors
    ///
    /// The identity is refused.
    fn identity(&mut self, identity: Identity) -> Result<(), Self::Error>;

    /// Takes a registered resource.
    ///
    /// # Errors
    ///
    /// The resource is refused.
    fn resource(&mut self, resource: RegisteredResource) -> Result<(), Self::Error>;

    /// Takes a role binding.
    ///
    /// # Errors
    ///
    /// The binding is refused.
    fn role_binding(&mut self, binding: RoleBinding) -> Result<(), Self::Error>;

    /// Whether all of these identities were taken.
    fn has_identities<'i>(&self, ids: impl Iterator<Item = &'i str>) -> bool;
}

/// Keeps every fact. Nothing is refused.
impl FactSink for Facts {
    type Error = Infallible;

    fn group(&mut self, group: Group) -> Result<(), Infallible> {
        self.groups.push(group);
        Ok(())
    }

    fn role(&mut self, role: CustomRole) -> Result<(), Infallible> {
        self.roles.push(role);
        Ok(())
    }

    fn identity(&mut self, identity: Identity) -> Result<(), Infallible> {
        self.identities.push(identity);
        Ok(())
    }

    fn resource(&mut self, resource: RegisteredResource) -> Result<(), Infallible> {
        self.resources.push(resource);
        Ok(())
    }

    fn role_binding(&mut self, binding: RoleBinding) -> Result<(), Infallible> {
        self.role_bindings.push(binding);
        Ok(())
    }

    fn has_identities<'i>(&self, mut ids: impl Iterator<Item = &'i str>) -> bool {
        let declared: HashSet<_> = self.identities.iter().map(|one| one.id.as_str()).collect();
        ids.all(|id| declared.contains(id))
    }
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

/// The type of an identity that declares none.
pub const USER: &str = "user";

/// A person, service or pull token that questions are about.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its path; below a group, or a root of its own.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
    /// [`USER`] unless declared otherwise.
    pub kind: String,
    /// What conditions may test as `subject.*`.
    pub properties: Properties,
    /// Whether no binding of it counts.
    pub disabled: bool,
}

impl Identity {
    /// A user with no display name and no properties, who is not disabled.
    #[must_use]
    pub fn named(id: PathBuf) -> Self {
        let (kind, properties) = (USER.into(), Properties::new());
        Self { id, name: String::new(), kind, properties, disabled: false }
    }
}

/// Grants a role's capabilities at a scope and everything below it.
#[derive(Clone, Debug)]
pub struct RoleBinding {
    /// A path below the scope; generated if there is none.
    pub id: Option<PathBuf>,
    /// Path of the identity. It is registered, or [a derived root identity](crate::is_derived_identity).
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
