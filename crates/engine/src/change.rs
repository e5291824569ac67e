//! One change of a policy, and why it is refused.

use thiserror::Error;

use crate::rules::BrokenRule;
use crate::{
    CONDITIONS_MAX, CustomRole, Group, Identity, PathBuf, RegisteredResource, RoleBinding,
};

/// One change of a policy. Objects are named by their ids.
///
/// A change carries whole objects, names included, so that it can be journaled. The index keeps of them
/// what decides anything, and the names and descriptions of roles.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new organization or folder.
    CreateGroup(Group),
    /// Another name for a group.
    UpdateGroup(Group),
    /// Deletes a group without children and without bindings at it.
    DeleteGroup(PathBuf),
    /// A new custom role.
    CreateRole(CustomRole),
    /// Other contents for a custom role. Bindings of it give them at once.
    UpdateRole(CustomRole),
    /// Deletes a custom role without bindings.
    DeleteRole(PathBuf),
    /// A new identity. One that is bound already without being registered keeps its bindings.
    CreateIdentity(Identity),
    /// Another name, type or other properties for a registered identity, or it is disabled or enabled. A disabled
    /// identity keeps its bindings, and none of them counts.
    UpdateIdentity(Identity),
    /// Deletes a registered identity without bindings.
    DeleteIdentity(PathBuf),
    /// A new registered resource.
    CreateResource(RegisteredResource),
    /// Another name or other properties for a registered resource.
    UpdateResource(RegisteredResource),
    /// Deletes a registered resource without bindings at it.
    DeleteResource(PathBuf),
    /// A new role binding. Without an id it gets the derived one, or the next that is free. It may name an identity
    /// that is not registered, see [`is_derived_identity`](crate::is_derived_identity).
    CreateRoleBinding(RoleBinding),
    /// Another identity, role, expiry or other conditions for the binding of this id, explicit or
    /// derived, which it keeps: as a delete of the old binding and a create of the new one. The scope must
    /// be the same.
    UpdateRoleBinding(RoleBinding),
    /// Deletes the binding of this id, explicit or derived. A binding without an explicit id at a scope that
    /// is as deep or as long as a path can be has no id that is a path, and cannot be deleted.
    DeleteRoleBinding(PathBuf),
}

/// Why a change is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// The id names something, or the same binding exists.
    #[error("`{0}` exists already")]
    AlreadyExists(String),
    /// What is to be changed, or what the change refers to, does not exist.
    #[error("{kind} `{id}` does not exist")]
    NotFound {
        /// `group`, `role`, `identity`, `resource`, `scope` or `role binding`.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// The group has children, or a binding is at the group or resource.
    #[error("`{0}` is not empty")]
    NotEmpty(String),
    /// A binding is of the role or identity.
    #[error("`{0}` is still bound")]
    StillBound(String),
    /// A custom role is bound outside the group that owns it, or a binding's id is not below its scope.
    #[error("`{id}` is not below `{above}`")]
    OutsideSubtree {
        /// The scope of the binding, or its id.
        id: String,
        /// The group that owns the role, or the scope of the binding.
        above: String,
    },
    /// A custom role is a path below a group.
    #[error("role `{0}` is not below a group")]
    RoleAtRoot(String),
    /// The catalog has no such capability.
    #[error("the catalog has no capability `{0}`")]
    UnknownCapability(String),
    /// A binding has at most [`CONDITIONS_MAX`] conditions.
    #[error("{0} conditions are more than {CONDITIONS_MAX}")]
    TooManyConditions(usize),
    /// The index has numbers for so many custom roles and no more.
    #[error("there are {0} custom roles, which is the limit")]
    TooManyRoles(usize),
    /// An update of a binding names another scope.
    #[error("the scope of `{0}` cannot change")]
    ScopeIsImmutable(String),
    /// An update of a binding has no id to find it by.
    #[error("a role binding is updated by its id, and this one has none")]
    MissingId,
    /// A part of the index is full, see [`Snapshot::build`](crate::Snapshot::build).
    #[error("the index is full: there is no place for `{0}`")]
    IndexFull(String),
}

impl ChangeError {
    pub(crate) fn not_found(kind: &'static str, id: &str) -> Self {
        Self::NotFound { kind, id: id.into() }
    }
}

impl From<BrokenRule<'_>> for ChangeError {
    fn from(broken: BrokenRule<'_>) -> Self {
        match broken {
            BrokenRule::IdTaken(id) => Self::AlreadyExists(id.into()),
            BrokenRule::ParentIsNoGroup(parent) => Self::not_found("group", parent.as_str()),
            BrokenRule::RoleAtRoot(id) => Self::RoleAtRoot(id.into()),
            BrokenRule::TooManyRoles { custom_max, .. } => Self::TooManyRoles(custom_max),
            BrokenRule::UnknownCapability { name, .. } => Self::UnknownCapability(name.into()),
            BrokenRule::UnknownIdentity(id) => Self::not_found("identity", id),
            BrokenRule::UnknownRole(id) => Self::not_found("role", id),
            BrokenRule::UnknownScope(id) => Self::not_found("scope", id),
            BrokenRule::RoleOutsideItsGroup { group, scope, .. } => {
                Self::OutsideSubtree { id: scope.into(), above: group.into() }
            }
            BrokenRule::IdOutsideScope { id, scope } => {
                Self::OutsideSubtree { id: id.into(), above: scope.into() }
            }
            BrokenRule::TooManyConditions(count) => Self::TooManyConditions(count),
            BrokenRule::SameBinding { identity, role, scope } => {
                Self::AlreadyExists(format!("{role} of {identity} at {scope}"))
            }
            BrokenRule::NotEmpty(id) => Self::NotEmpty(id.into()),
            BrokenRule::StillBound(id) => Self::StillBound(id.into()),
        }
    }
}

/// A change of several that is refused, so that none of them is made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("change {position}: {error}")]
pub struct ApplyError {
    /// Its position among the changes, from 0.
    pub position: usize,
    /// Why it is refused.
    pub error: ChangeError,
}
