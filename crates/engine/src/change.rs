//! One change of a policy, and why it is refused.

use thiserror::Error;

use crate::{CONDITIONS_MAX, CustomRole, Identity, PathBuf, RegisteredResource, RoleBinding};

/// One change of a policy.
#[derive(Clone, Debug)]
pub enum Change {
    /// A new organization or folder.
    CreateGroup(PathBuf),
    /// Takes out a group that nothing is in and nothing is bound at.
    DeleteGroup(PathBuf),
    /// A custom role, new or with other contents.
    PutRole(CustomRole),
    /// Takes out a custom role that is not bound.
    DeleteRole(PathBuf),
    /// An identity, new or with other properties.
    PutIdentity(Identity),
    /// Takes out an identity that has no binding.
    DeleteIdentity(PathBuf),
    /// A registered resource, new or with other properties.
    PutResource(RegisteredResource),
    /// Takes out a resource that nothing is bound at.
    DeleteResource(PathBuf),
    /// A new role binding.
    Bind(RoleBinding),
    /// Takes out the binding of this identity, role, scope and conditions.
    Unbind(RoleBinding),
}

/// Why a change cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// The path names something else, or the same binding is there.
    #[error("`{0}` is there already")]
    Taken(String),
    /// What is to be changed, or what the change names, is not there.
    #[error("{0} `{1}` is not there")]
    Missing(&'static str, String),
    /// Something is in the group, or bound at it.
    #[error("`{0}` is not empty")]
    NotEmpty(String),
    /// The role or identity is bound.
    #[error("`{0}` is still bound")]
    Bound(String),
    /// A custom role is bound only at or below the group that owns it; a binding's id is below its
    /// scope; a custom role is below a group.
    #[error("`{0}` is not below `{1}`")]
    OutOfSubtree(String, String),
    /// The catalog has no such capability.
    #[error("the catalog has no capability `{0}`")]
    UnknownCapability(String),
    /// More than [`CONDITIONS_MAX`] conditions.
    #[error("more than {CONDITIONS_MAX} conditions")]
    TooManyConditions,
    /// The index has no place left for it: see [`Snapshot::build`](crate::Snapshot::build).
    #[error("there is no room for `{0}`")]
    Full(String),
}
