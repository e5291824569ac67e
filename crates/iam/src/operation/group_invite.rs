//! Operations on group invites.

use std::time::Duration;

use capstan_engine::PathBuf;

use crate::SecretHash;

/// See [`Operation::CreateGroupInvite`](crate::Operation::CreateGroupInvite).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateGroupInvite {
    /// The group.
    pub parent: PathBuf,
    /// The path; one is made if there is none.
    pub id: Option<PathBuf>,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// A built-in role's name or a custom role's path.
    pub role: Box<str>,
    /// Who may accept it.
    pub email: Option<String>,
    /// Whether the first who accepts uses it up.
    pub single_use: bool,
    /// How long it can be accepted. Without one, [`INVITE_TTL`](crate::limits::INVITE_TTL).
    pub ttl: Option<Duration>,
    /// The hash of its code.
    pub code: SecretHash,
}

/// See [`Operation::UpdateGroupInvite`](crate::Operation::UpdateGroupInvite).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateGroupInvite {
    /// The invite.
    pub id: PathBuf,
    /// Display name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The role, which must be what it is.
    pub role: Option<String>,
    /// The address, which must be what it is.
    pub email: Option<String>,
    /// Whether it is used up, which must be what it is.
    pub single_use: Option<bool>,
    /// The etag that the object must have.
    pub etag: Option<String>,
}

/// See [`Operation::AcceptGroupInvite`](crate::Operation::AcceptGroupInvite).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptGroupInvite {
    /// The hash of the code; `None` if the text is no code at all.
    pub code: Option<SecretHash>,
}
