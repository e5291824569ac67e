//! The objects of the management plane, whole: groups, roles, role bindings, identities, resources, group invites, identity
//! providers with their mappings, and account associations.
//!
//! The engine keeps of them what decides a question. The rest (descriptions, times, how an identity proves who it
//! is, and all of the kinds in [`Kind::BESIDE`]) is read from the store. An object's `id` is its path, unique across all kinds
//! but account associations, which have the path of their group.

mod account_association;
mod group_invite;
mod identity_provider;
mod subscription;

use std::fmt;

use capstan_engine::{
    self as engine, Change, Condition, CustomRole, Path, PathBuf, Properties, RegisteredResource,
    Timestamp,
};

use crate::{Authentication, ClaimMatch, Match, StaticKeys};

pub(crate) use account_association::check_services;
pub use account_association::{AccountAssociation, Accounts, Aws, Azure, Github, Google};
pub use group_invite::{GroupInvite, check_email};
pub use identity_provider::{
    GroupRoleMapping, IdentityProvider, Oidc, check_external_group, check_issuer,
};
pub use subscription::{Subscription, check_event_type, check_sink};

/// The type of an identity that `PullTokenService` makes, and nothing else.
pub const PULL_TOKEN: &str = "pull_token";
/// The type of an identity that names none.
pub const USER: &str = "user";

/// When an object was made and last changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The revision that made it. It tells an object from an earlier one with the same id.
    pub created: u64,
    /// The revision that changed it last.
    pub updated: u64,
    /// When it was made.
    pub create_time: Timestamp,
    /// When it was last changed.
    pub update_time: Timestamp,
}

impl Meta {
    /// Of an object that is made at this revision and time.
    #[must_use]
    pub const fn new(revision: u64, now: Timestamp) -> Self {
        Self { created: revision, updated: revision, create_time: now, update_time: now }
    }

    /// The same after a change.
    #[must_use]
    pub const fn changed(self, revision: u64, now: Timestamp) -> Self {
        Self { updated: revision, update_time: now, ..self }
    }

    /// A text that is another one after each change of the object. Clients compare it and read nothing into it.
    #[must_use]
    pub fn etag(&self) -> String {
        format!("{:x}", self.updated)
    }
}

/// An object of one life: another one that is made under the same id later is not it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incarnation {
    /// Its path.
    pub id: PathBuf,
    /// The revision that made it.
    pub created: u64,
}

/// A node of the tree: a root group is an organization, the others are folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its path.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
    /// What it is for, may be empty.
    pub description: String,
    /// When it was made and changed.
    pub meta: Meta,
}

/// A custom role. Built-in roles are the catalog's and no objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// A path below the group that owns it, its home.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
    /// What it is for, may be empty.
    pub description: String,
    /// Capabilities of the catalog, sorted, each once.
    pub capabilities: Vec<String>,
    /// When it was made and changed.
    pub meta: Meta,
}

/// Gives a role's capabilities to an identity at a scope and everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleBinding {
    /// A path below the scope.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
    /// What it is for, may be empty.
    pub description: String,
    /// The identity.
    pub identity: PathBuf,
    /// A built-in role's name (no slash) or a custom role's path.
    pub role: Box<str>,
    /// The path of a group or registered resource.
    pub scope: PathBuf,
    /// The binding counts while `now < expires_at`; for ever without one.
    pub expires_at: Option<Timestamp>,
    /// The binding counts only if all of these hold.
    pub when: Vec<Condition>,
    /// When it was made and changed.
    pub meta: Meta,
}

/// A person, service or pull token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its path: below a group, or a root of its own.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
    /// What it is for, may be empty.
    pub description: String,
    /// Its `type`: [`USER`] unless another is given.
    pub kind: String,
    /// What conditions test as `subject.*`.
    pub properties: Properties,
    /// Whether its bindings do not count and it cannot call.
    pub disabled: bool,
    /// How it proves who it is; `None` if it cannot.
    pub authentication: Option<Authentication>,
    /// When it was made and changed.
    pub meta: Meta,
}

/// A leaf that belongs to another service, registered so that searches find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Its path: below a group, or a root of its own.
    pub id: PathBuf,
    /// Display name, may be empty.
    pub name: String,
    /// What it is for, may be empty.
    pub description: String,
    /// Its `type`, a word of the service that owns it, such as `repo`.
    pub kind: String,
    /// What conditions test as `resource.*`.
    pub properties: Properties,
    /// When it was made and changed.
    pub meta: Meta,
}

/// A kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// [`Group`].
    Group,
    /// [`Role`].
    Role,
    /// [`RoleBinding`].
    RoleBinding,
    /// [`Identity`].
    Identity,
    /// [`Resource`].
    Resource,
    /// [`GroupInvite`].
    GroupInvite,
    /// [`Subscription`].
    Subscription,
    /// [`IdentityProvider`].
    IdentityProvider,
    /// [`GroupRoleMapping`].
    GroupRoleMapping,
    /// [`AccountAssociation`].
    AccountAssociation,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Group,
        Self::Role,
        Self::RoleBinding,
        Self::Identity,
        Self::Resource,
        Self::GroupInvite,
        Self::Subscription,
        Self::IdentityProvider,
        Self::GroupRoleMapping,
        Self::AccountAssociation,
    ];

    /// The kinds that decide no question: the engine does not know their objects.
    pub const BESIDE: [Self; 5] = [
        Self::GroupInvite,
        Self::Subscription,
        Self::IdentityProvider,
        Self::GroupRoleMapping,
        Self::AccountAssociation,
    ];

    /// Whether its objects have paths that nothing else has. An account association has that of its group.
    #[must_use]
    pub const fn has_own_path(self) -> bool {
        !matches!(self, Self::AccountAssociation)
    }

    /// Its name in events and audit records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Role => "role",
            Self::RoleBinding => "role_binding",
            Self::Identity => "identity",
            Self::Resource => "resource",
            Self::GroupInvite => "group_invite",
            Self::Subscription => "subscription",
            Self::IdentityProvider => "identity_provider",
            Self::GroupRoleMapping => "group_role_mapping",
            Self::AccountAssociation => "account_association",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An object of any kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A group.
    Group(Group),
    /// A custom role.
    Role(Role),
    /// A role binding.
    RoleBinding(RoleBinding),
    /// An identity.
    Identity(Identity),
    /// A resource.
    Resource(Resource),
    /// A group invite.
    GroupInvite(GroupInvite),
    /// A subscription.
    Subscription(Subscription),
    /// An identity provider.
    IdentityProvider(IdentityProvider),
    /// A group of a provider whose members have a role.
    GroupRoleMapping(GroupRoleMapping),
    /// Accounts of a group elsewhere.
    AccountAssociation(AccountAssociation),
}

impl Object {
    /// Its kind.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Group(_) => Kind::Group,
            Self::Role(_) => Kind::Role,
            Self::RoleBinding(_) => Kind::RoleBinding,
            Self::Identity(_) => Kind::Identity,
            Self::Resource(_) => Kind::Resource,
            Self::GroupInvite(_) => Kind::GroupInvite,
            Self::Subscription(_) => Kind::Subscription,
            Self::IdentityProvider(_) => Kind::IdentityProvider,
            Self::GroupRoleMapping(_) => Kind::GroupRoleMapping,
            Self::AccountAssociation(_) => Kind::AccountAssociation,
        }
    }

    /// Its path.
    #[must_use]
    pub const fn id(&self) -> &PathBuf {
        match self {
            Self::Group(one) => &one.id,
            Self::Role(one) => &one.id,
            Self::RoleBinding(one) => &one.id,
            Self::Identity(one) => &one.id,
            Self::Resource(one) => &one.id,
            Self::GroupInvite(one) => &one.id,
            Self::Subscription(one) => &one.id,
            Self::IdentityProvider(one) => &one.id,
            Self::GroupRoleMapping(one) => &one.id,
            Self::AccountAssociation(one) => &one.id,
        }
    }

    /// When it was made and changed.
    #[must_use]
    pub const fn meta(&self) -> &Meta {
        match self {
            Self::Group(one) => &one.meta,
            Self::Role(one) => &one.meta,
            Self::RoleBinding(one) => &one.meta,
            Self::Identity(one) => &one.meta,
            Self::Resource(one) => &one.meta,
            Self::GroupInvite(one) => &one.meta,
            Self::Subscription(one) => &one.meta,
            Self::IdentityProvider(one) => &one.meta,
            Self::GroupRoleMapping(one) => &one.meta,
            Self::AccountAssociation(one) => &one.meta,
        }
    }

    /// The same, to be changed.
    #[must_use]
    pub const fn meta_mut(&mut self) -> &mut Meta {
        match self {
            Self::Group(one) => &mut one.meta,
            Self::Role(one) => &mut one.meta,
            Self::RoleBinding(one) => &mut one.meta,
            Self::Identity(one) => &mut one.meta,
            Self::Resource(one) => &mut one.meta,
            Self::GroupInvite(one) => &mut one.meta,
            Self::Subscription(one) => &mut one.meta,
            Self::IdentityProvider(one) => &mut one.meta,
            Self::GroupRoleMapping(one) => &mut one.meta,
            Self::AccountAssociation(one) => &mut one.meta,
        }
    }
}

impl Object {
    /// The role that an object which the engine does not know promises; `None` for all others.
    #[must_use]
    pub fn promises(&self) -> Option<&str> {
        match self {
            Self::GroupInvite(one) => Some(&one.role),
            Self::IdentityProvider(one) => one.default_role.as_deref(),
            Self::GroupRoleMapping(one) => Some(&one.role),
            Self::Group(_)
            | Self::Role(_)
            | Self::RoleBinding(_)
            | Self::Identity(_)
            | Self::Resource(_)
            | Self::Subscription(_)
            | Self::AccountAssociation(_) => None,
        }
    }

    /// What others look for to find it, apart from its path.
    #[must_use]
    pub fn reference(&self) -> Option<Reference<'_>> {
        match self {
            Self::Identity(one) if !one.is_root() => {
                let organization = root_of(one.id.as_path());
                Some(match one.authentication.as_ref()? {
                    Authentication::ClaimMatch(ClaimMatch {
                        issuer: Match::Pattern(_), ..
                    }) => Reference::IssuerPattern { organization },
                    Authentication::ClaimMatch(ClaimMatch {
                        issuer: Match::Exact(issuer), ..
                    })
                    | Authentication::StaticKeys(StaticKeys { issuer, .. }) => {
                        Reference::Issuer { organization, issuer }
                    }
                    Authentication::ClientCertificate(_) => return None,
                })
            }
            Self::IdentityProvider(one) => Some(Reference::Issuer {
                organization: one.organization(),
                issuer: &one.oidc.issuer,
            }),
            Self::GroupRoleMapping(one) => Some(Reference::Scope(one.scope.as_path())),
            _ => None,
        }
    }
}

/// What an object says of something that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference<'o> {
    /// This issuer: an identity of the organization, or its provider.
    Issuer {
        /// The organization.
        organization: Path<'o>,
        /// `iss`, byte for byte.
        issuer: &'o str,
    },
    /// Issuers that a pattern matches: an identity of the organization.
    IssuerPattern {
        /// The organization.
        organization: Path<'o>,
    },
    /// A role at this group that is no role binding.
    Scope(Path<'o>),
}

// === Engine facts ===

impl Object {
    /// The change of the engine that makes it; `None` for what decides nothing.
    #[must_use]
    pub fn created(&self) -> Option<Change> {
        Some(match self {
            Self::Group(one) => Change::CreateGroup(one.fact()),
            Self::Role(one) => Change::CreateRole(one.fact()),
            Self::RoleBinding(one) => Change::CreateRoleBinding(one.fact()),
            Self::Identity(one) => Change::CreateIdentity(one.fact()),
            Self::Resource(one) => Change::CreateResource(one.fact()),
            Self::GroupInvite(_)
            | Self::Subscription(_)
            | Self::IdentityProvider(_)
            | Self::GroupRoleMapping(_)
            | Self::AccountAssociation(_) => return None,
        })
    }

    /// The change of the engine that makes the one with its path be as it is; `None` for what decides nothing.
    #[must_use]
    pub fn updated(&self) -> Option<Change> {
        Some(match self {
            Self::Group(one) => Change::UpdateGroup(one.fact()),
            Self::Role(one) => Change::UpdateRole(one.fact()),
            Self::RoleBinding(one) => Change::UpdateRoleBinding(one.fact()),
            Self::Identity(one) => Change::UpdateIdentity(one.fact()),
            Self::Resource(one) => Change::UpdateResource(one.fact()),
            Self::GroupInvite(_)
            | Self::Subscription(_)
            | Self::IdentityProvider(_)
            | Self::GroupRoleMapping(_)
            | Self::AccountAssociation(_) => return None,
        })
    }

    /// The change of the engine that deletes it; `None` for what decides nothing.
    #[must_use]
    pub fn deleted(&self) -> Option<Change> {
        let id = self.id().clone();
        Some(match self {
            Self::Group(_) => Change::DeleteGroup(id),
            Self::Role(_) => Change::DeleteRole(id),
            Self::RoleBinding(_) => Change::DeleteRoleBinding(id),
            Self::Identity(_) => Change::DeleteIdentity(id),
            Self::Resource(_) => Change::DeleteResource(id),
            Self::GroupInvite(_)
            | Self::Subscription(_)
            | Self::IdentityProvider(_)
            | Self::GroupRoleMapping(_)
            | Self::AccountAssociation(_) => return None,
        })
    }
}

impl Group {
    /// What the engine keeps of it.
    #[must_use]
    pub fn fact(&self) -> engine::Group {
        engine::Group { id: self.id.clone(), name: self.name.clone() }
    }
}

impl Role {
    /// What the engine keeps of it.
    #[must_use]
    pub fn fact(&self) -> CustomRole {
        CustomRole {
            id: self.id.clone(),
            name: self.name.clone(),
            description: self.description.clone(),
            capabilities: self.capabilities.clone(),
        }
    }

    /// The group that owns it. A role at the root, which no operation makes, is its own home.
    #[must_use]
    pub fn home(&self) -> Path<'_> {
        parent_or_self(self.id.as_path())
    }
}

impl RoleBinding {
    /// What the engine keeps of it.
    #[must_use]
    pub fn fact(&self) -> engine::RoleBinding {
        engine::RoleBinding {
            id: Some(self.id.clone()),
            identity: self.identity.clone(),
            role: self.role.clone(),
            scope: self.scope.clone(),
            expires_at: self.expires_at,
            when: self.when.clone(),
        }
    }
}

/// What the engine keeps of it.
impl From<RoleBinding> for engine::RoleBinding {
    fn from(binding: RoleBinding) -> Self {
        let RoleBinding { id, identity, role, scope, expires_at, when, .. } = binding;
        Self { id: Some(id), identity, role, scope, expires_at, when }
    }
}

/// What the engine keeps of it.
impl From<Identity> for engine::Identity {
    fn from(identity: Identity) -> Self {
        let Identity { id, name, kind, properties, disabled, .. } = identity;
        Self { id, name, kind, properties, disabled }
    }
}

impl Identity {
    /// What the engine keeps of it.
    #[must_use]
    pub fn fact(&self) -> engine::Identity {
        engine::Identity {
            id: self.id.clone(),
            name: self.name.clone(),
            kind: self.kind.clone(),
            properties: self.properties.clone(),
            disabled: self.disabled,
        }
    }

    /// Whether it belongs to no organization.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.id.as_path().parent().is_none()
    }

    /// Whether it is a pull token.
    #[must_use]
    pub fn is_pull_token(&self) -> bool {
        self.kind == PULL_TOKEN
    }
}

impl Resource {
    /// What the engine keeps of it.
    #[must_use]
    pub fn fact(&self) -> RegisteredResource {
        RegisteredResource {
            id: self.id.clone(),
            name: self.name.clone(),
            kind: self.kind.clone(),
            properties: self.properties.clone(),
        }
    }
}

/// The parent of a path; a root is its own.
pub(crate) fn parent_or_self(path: Path<'_>) -> Path<'_> {
    path.parent().unwrap_or(path)
}

/// The first segment of a path: the organization that it belongs to, or the root object itself.
pub(crate) fn root_of(path: Path<'_>) -> Path<'_> {
    path.ancestors().last().unwrap_or(path)
}
