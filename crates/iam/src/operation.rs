//! Operations: what a caller asks to be changed, and what comes of it.
//!
//! Texts are parsed to paths, times and values by whoever makes an operation; masks are resolved, too: a field of
//! an update that is `None` stays as it is. Everything else is checked when the operation is judged.

mod actor;
mod group_invite;
mod resolved;
mod session;
mod subscription;

use std::time::Duration;

use capstan_engine::{Change, Condition, PathBuf, Properties, Timestamp};

pub use self::actor::Actor;
pub use self::group_invite::{AcceptGroupInvite, CreateGroupInvite, UpdateGroupInvite};
pub use self::resolved::{
    AccountAssociationUpdate, CreateAccountAssociation, CreateGroupRoleMapping,
    CreateIdentityProvider, IdentityProviderUpdate, UpdateAccountAssociation,
    UpdateGroupRoleMapping, UpdateIdentityProvider,
};
pub use self::session::{Narrowing, Session, SessionGrant};
pub use self::subscription::{
    CreateSubscription, SetSubscriptionState, SubscriptionState, UpdateSubscription,
};
use crate::{
    AccountAssociation, Authentication, Group, GroupInvite, GroupRoleMapping, Identity,
    IdentityProvider, Kind, Object, Resource, Role, RoleBinding, SecretHash, Subscription,
};

/// What an operation is judged with beside the state.
pub struct Context<'c> {
    /// The time.
    pub now: Timestamp,
    /// The revision that the operation gets if it is accepted.
    pub revision: u64,
    /// Gives 64 random bits, for ids.
    pub new_id: &'c mut dyn FnMut() -> u64,
    /// Capstan's own issuers: neither a provider nor the keys of an identity can have one.
    pub reserved_issuers: &'c [String],
    /// Issuers that the whole server trusts: the keys of an identity cannot have one (R8), and a provider can (R9).
    pub trusted_issuers: &'c [String],
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context")
            .field("now", &self.now)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

/// A change that a caller asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Makes a group.
    CreateGroup(CreateGroup),
    /// Changes a group.
    UpdateGroup(UpdateGroup),
    /// Deletes a group that is empty, and the bindings at it.
    DeleteGroup(Delete),
    /// Makes a custom role.
    CreateRole(CreateRole),
    /// Changes a custom role.
    UpdateRole(UpdateRole),
    /// Deletes a custom role that is not bound.
    DeleteRole(Delete),
    /// Makes a binding.
    CreateRoleBinding(CreateRoleBinding),
    /// Changes a binding: as a delete of the old one and a create of the new one.
    UpdateRoleBinding(UpdateRoleBinding),
    /// Deletes a binding.
    DeleteRoleBinding(Delete),
    /// Makes bindings, all or none.
    BatchCreateRoleBindings(BatchCreateRoleBindings),
    /// Deletes bindings, all or none.
    BatchDeleteRoleBindings(BatchDeleteRoleBindings),
    /// Deletes all bindings of an identity in an organization.
    RemoveMember(RemoveMember),
    /// Makes an identity.
    CreateIdentity(CreateIdentity),
    /// Changes an identity.
    UpdateIdentity(UpdateIdentity),
    /// Deletes an identity and its bindings.
    DeleteIdentity(Delete),
    /// Makes a pull token with its only binding.
    CreatePullToken(CreatePullToken),
    /// Deletes a pull token and its binding.
    RevokePullToken(Delete),
    /// Makes an invite.
    CreateGroupInvite(CreateGroupInvite),
    /// Changes the texts of an invite.
    UpdateGroupInvite(UpdateGroupInvite),
    /// Deletes an invite.
    DeleteGroupInvite(Delete),
    /// Binds the caller to the role of an invite.
    AcceptGroupInvite(AcceptGroupInvite),
    /// Makes a subscription.
    CreateSubscription(CreateSubscription),
    /// Changes a subscription.
    UpdateSubscription(UpdateSubscription),
    /// Deletes a subscription.
    DeleteSubscription(Delete),
    /// Keeps what is known of the sink of a subscription.
    SetSubscriptionState(SetSubscriptionState),
    /// Registers a resource.
    CreateResource(CreateResource),
    /// Changes a registered resource.
    UpdateResource(UpdateResource),
    /// Deletes a registered resource and the bindings at it.
    DeleteResource(Delete),
    /// Makes an identity provider.
    CreateIdentityProvider(CreateIdentityProvider),
    /// Changes an identity provider: all but its issuer.
    UpdateIdentityProvider(UpdateIdentityProvider),
    /// Deletes an identity provider and its mappings.
    DeleteIdentityProvider(Delete),
    /// Gives a group of an identity provider a role.
    CreateGroupRoleMapping(CreateGroupRoleMapping),
    /// Changes the texts of a mapping.
    UpdateGroupRoleMapping(UpdateGroupRoleMapping),
    /// Deletes a mapping.
    DeleteGroupRoleMapping(Delete),
    /// Makes the account association of a group.
    CreateAccountAssociation(CreateAccountAssociation),
    /// Changes an account association.
    UpdateAccountAssociation(UpdateAccountAssociation),
    /// Deletes the account association of a group.
    DeleteAccountAssociation(Delete),
}

/// Deletes an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// The object; for a built-in role, its name.
    pub id: PathBuf,
    /// The etag that the object must have.
    pub etag: Option<String>,
}

/// See [`Operation::CreateGroup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateGroup {
    /// The group above; `None` for a new organization.
    pub parent: Option<PathBuf>,
    /// The path; one is made if there is none.
    pub id: Option<PathBuf>,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Who owns a new organization: a root identity. A folder has none.
    pub owner: Option<PathBuf>,
}

/// See [`Operation::UpdateGroup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateGroup {
    /// The group.
    pub id: PathBuf,
    /// Display name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The etag that the object must have.
    pub etag: Option<String>,
}

/// See [`Operation::CreateRole`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRole {
    /// The group that owns it.
    pub parent: PathBuf,
    /// The path; one is made if there is none.
    pub id: Option<PathBuf>,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Names of capabilities, in any order.
    pub capabilities: Vec<String>,
}

/// See [`Operation::UpdateRole`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateRole {
    /// The role; of a built-in role, the name.
    pub id: PathBuf,
    /// Display name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Names of capabilities, in any order.
    pub capabilities: Option<Vec<String>>,
    /// The etag that the object must have.
    pub etag: Option<String>,
}

/// A binding to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewRoleBinding {
    /// The path, one segment below the scope. Without one it is derived from identity, role, scope and
    /// conditions.
    pub id: Option<PathBuf>,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The identity.
    pub identity: PathBuf,
    /// A built-in role's name or a custom role's path.
    pub role: Box<str>,
    /// A group or registered resource.
    pub scope: PathBuf,
    /// When it ends.
    pub expires_at: Option<Timestamp>,
    /// Conditions.
    pub when: Vec<Condition>,
}

/// See [`Operation::CreateRoleBinding`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRoleBinding {
    /// Where: the scope of the binding.
    pub parent: PathBuf,
    /// The binding.
    pub binding: NewRoleBinding,
}

/// See [`Operation::UpdateRoleBinding`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateRoleBinding {
    /// The binding.
    pub id: PathBuf,
    /// Display name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// The identity.
    pub identity: Option<PathBuf>,
    /// A built-in role's name or a custom role's path.
    pub role: Option<Box<str>>,
    /// The scope, which must be what it is.
    pub scope: Option<PathBuf>,
    /// When it ends; `Some(None)` for never.
    pub expires_at: Option<Option<Timestamp>>,
    /// Conditions.
    pub when: Option<Vec<Condition>>,
    /// The etag that the object must have.
    pub etag: Option<String>,
}

/// See [`Operation::BatchCreateRoleBindings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchCreateRoleBindings {
    /// A group or resource. The scopes are this or below it.
    pub parent: PathBuf,
    /// The bindings, 1 to [`BATCH_BINDINGS_MAX`](crate::limits::BATCH_BINDINGS_MAX).
    pub bindings: Vec<NewRoleBinding>,
}

/// See [`Operation::BatchDeleteRoleBindings`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BatchDeleteRoleBindings {
    /// A group or resource. The bindings are below it.
    pub parent: PathBuf,
    /// The bindings, 1 to [`BATCH_BINDINGS_MAX`](crate::limits::BATCH_BINDINGS_MAX).
    pub ids: Vec<PathBuf>,
}

/// See [`Operation::RemoveMember`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoveMember {
    /// A root group.
    pub organization: PathBuf,
    /// Whose bindings are deleted.
    pub identity: PathBuf,
}

/// See [`Operation::CreateIdentity`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateIdentity {
    /// The group that it belongs to; `None` for a root identity.
    pub parent: Option<PathBuf>,
    /// The path; one is made if there is none.
    pub id: Option<PathBuf>,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its `type`; empty for [`USER`](crate::USER).
    pub kind: String,
    /// What conditions test.
    pub properties: Properties,
    /// Whether it begins disabled.
    pub disabled: bool,
    /// How it proves who it is.
    pub authentication: Option<Authentication>,
}

/// See [`Operation::UpdateIdentity`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityUpdate {
    /// Display name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Its `type`, which must be what it is.
    pub kind: Option<String>,
    /// What conditions test.
    pub properties: Option<Properties>,
    /// Whether it is disabled.
    pub disabled: Option<bool>,
    /// How it proves who it is; `Some(None)` for not at all.
    pub authentication: Option<Option<Authentication>>,
}

/// See [`Operation::UpdateIdentity`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateIdentity {
    /// The identity.
    pub id: PathBuf,
    /// What changes.
    pub update: IdentityUpdate,
    /// The etag that the object must have.
    pub etag: Option<String>,
}

/// See [`Operation::CreatePullToken`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatePullToken {
    /// The group that it lies in, the scope of its binding.
    pub group: PathBuf,
    /// A built-in role's name or a custom role's path.
    pub role: Box<str>,
    /// Display name.
    pub name: String,
    /// How long it lives. Without one, [`PULL_TOKEN_TTL`](crate::limits::PULL_TOKEN_TTL), or as long as the right of its
    /// maker if that ends earlier.
    pub ttl: Option<Duration>,
    /// The hash of its secret.
    pub secret: SecretHash,
}

/// See [`Operation::CreateResource`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateResource {
    /// The group that it is in; `None` for a resource at the root.
    pub parent: Option<PathBuf>,
    /// The path; one is made if there is none.
    pub id: Option<PathBuf>,
    /// Display name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its `type`.
    pub kind: String,
    /// What conditions test.
    pub properties: Properties,
}

/// See [`Operation::UpdateResource`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateResource {
    /// The resource.
    pub id: PathBuf,
    /// Display name.
    pub name: Option<String>,
    /// What it is for.
    pub description: Option<String>,
    /// Its `type`, which must be what it is.
    pub kind: Option<String>,
    /// What conditions test.
    pub properties: Option<Properties>,
    /// The etag that the object must have.
    pub etag: Option<String>,
}

impl Operation {
    /// Service and method, as in the path of a call.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        match self {
            Self::CreateGroup(_) => "GroupService/CreateGroup",
            Self::UpdateGroup(_) => "GroupService/UpdateGroup",
            Self::DeleteGroup(_) => "GroupService/DeleteGroup",
            Self::CreateRole(_) => "RoleService/CreateRole",
            Self::UpdateRole(_) => "RoleService/UpdateRole",
            Self::DeleteRole(_) => "RoleService/DeleteRole",
            Self::CreateRoleBinding(_) => "RoleBindingService/CreateRoleBinding",
            Self::UpdateRoleBinding(_) => "RoleBindingService/UpdateRoleBinding",
            Self::DeleteRoleBinding(_) => "RoleBindingService/DeleteRoleBinding",
            Self::BatchCreateRoleBindings(_) => "RoleBindingService/BatchCreateRoleBindings",
            Self::BatchDeleteRoleBindings(_) => "RoleBindingService/BatchDeleteRoleBindings",
            Self::RemoveMember(_) => "RoleBindingService/RemoveMember",
            Self::CreateIdentity(_) => "IdentityService/CreateIdentity",
            Self::UpdateIdentity(_) => "IdentityService/UpdateIdentity",
            Self::DeleteIdentity(_) => "IdentityService/DeleteIdentity",
            Self::CreatePullToken(_) => "PullTokenService/CreatePullToken",
            Self::RevokePullToken(_) => "PullTokenService/RevokePullToken",
            Self::CreateGroupInvite(_) => "GroupInviteService/CreateGroupInvite",
            Self::UpdateGroupInvite(_) => "GroupInviteService/UpdateGroupInvite",
            Self::DeleteGroupInvite(_) => "GroupInviteService/DeleteGroupInvite",
            Self::AcceptGroupInvite(_) => "GroupInviteService/AcceptGroupInvite",
            Self::CreateSubscription(_) => "SubscriptionService/CreateSubscription",
            Self::UpdateSubscription(_) => "SubscriptionService/UpdateSubscription",
            Self::DeleteSubscription(_) => "SubscriptionService/DeleteSubscription",
            Self::SetSubscriptionState(one) => match one.state {
                SubscriptionState::Consented => "SubscriptionService/ConfirmSubscription",
                SubscriptionState::Disabled(_) => "SubscriptionService/UpdateSubscription",
            },
            Self::CreateResource(_) => "ResourceService/CreateResource",
            Self::UpdateResource(_) => "ResourceService/UpdateResource",
            Self::DeleteResource(_) => "ResourceService/DeleteResource",
            Self::CreateIdentityProvider(_) => "IdentityProviderService/CreateIdentityProvider",
            Self::UpdateIdentityProvider(_) => "IdentityProviderService/UpdateIdentityProvider",
            Self::DeleteIdentityProvider(_) => "IdentityProviderService/DeleteIdentityProvider",
            Self::CreateGroupRoleMapping(_) => "GroupRoleMappingService/CreateGroupRoleMapping",
            Self::UpdateGroupRoleMapping(_) => "GroupRoleMappingService/UpdateGroupRoleMapping",
            Self::DeleteGroupRoleMapping(_) => "GroupRoleMappingService/DeleteGroupRoleMapping",
            Self::CreateAccountAssociation(_) => {
                "AccountAssociationService/CreateAccountAssociation"
            }
            Self::UpdateAccountAssociation(_) => {
                "AccountAssociationService/UpdateAccountAssociation"
            }
            Self::DeleteAccountAssociation(_) => {
                "AccountAssociationService/DeleteAccountAssociation"
            }
        }
    }

    /// The kind of the one object that it makes; `None` for changes, deletes and batches.
    #[must_use]
    pub const fn creates(&self) -> Option<Kind> {
        match self {
            Self::CreateGroup(_) => Some(Kind::Group),
            Self::CreateRole(_) => Some(Kind::Role),
            Self::CreateRoleBinding(_) | Self::AcceptGroupInvite(_) => Some(Kind::RoleBinding),
            Self::CreateGroupInvite(_) => Some(Kind::GroupInvite),
            Self::CreateSubscription(_) => Some(Kind::Subscription),
            Self::CreateIdentity(_) | Self::CreatePullToken(_) => Some(Kind::Identity),
            Self::CreateResource(_) => Some(Kind::Resource),
            Self::CreateIdentityProvider(_) => Some(Kind::IdentityProvider),
            Self::CreateGroupRoleMapping(_) => Some(Kind::GroupRoleMapping),
            Self::CreateAccountAssociation(_) => Some(Kind::AccountAssociation),
            _ => None,
        }
    }

    /// The path that it names: of the object, or of the parent of one that gets a path. `None` for a new root
    /// object without a path of its own.
    #[must_use]
    pub fn object(&self) -> Option<&PathBuf> {
        match self {
            Self::CreateGroup(one) => one.id.as_ref().or(one.parent.as_ref()),
            Self::UpdateGroup(one) => Some(&one.id),
            Self::CreateRole(one) => one.id.as_ref().or(Some(&one.parent)),
            Self::UpdateRole(one) => Some(&one.id),
            Self::CreateRoleBinding(one) => one.binding.id.as_ref().or(Some(&one.parent)),
            Self::UpdateRoleBinding(one) => Some(&one.id),
            Self::BatchCreateRoleBindings(one) => Some(&one.parent),
            Self::BatchDeleteRoleBindings(one) => Some(&one.parent),
            Self::RemoveMember(one) => Some(&one.organization),
            Self::CreateIdentity(one) => one.id.as_ref().or(one.parent.as_ref()),
            Self::UpdateIdentity(one) => Some(&one.id),
            Self::CreatePullToken(one) => Some(&one.group),
            Self::CreateGroupInvite(one) => one.id.as_ref().or(Some(&one.parent)),
            Self::UpdateGroupInvite(one) => Some(&one.id),
            Self::AcceptGroupInvite(_) => None,
            Self::CreateSubscription(one) => one.id.as_ref().or(Some(&one.parent)),
            Self::UpdateSubscription(one) => Some(&one.id),
            Self::SetSubscriptionState(one) => Some(&one.id),
            Self::CreateResource(one) => one.id.as_ref().or(one.parent.as_ref()),
            Self::UpdateResource(one) => Some(&one.id),
            Self::CreateIdentityProvider(one) => one.id.as_ref().or(Some(&one.parent)),
            Self::UpdateIdentityProvider(one) => Some(&one.id),
            Self::CreateGroupRoleMapping(one) => one.id.as_ref().or(Some(&one.parent)),
            Self::UpdateGroupRoleMapping(one) => Some(&one.id),
            Self::CreateAccountAssociation(one) => Some(&one.parent),
            Self::UpdateAccountAssociation(one) => Some(&one.id),
            Self::DeleteGroup(one)
            | Self::DeleteRole(one)
            | Self::DeleteRoleBinding(one)
            | Self::DeleteIdentity(one)
            | Self::RevokePullToken(one)
            | Self::DeleteGroupInvite(one)
            | Self::DeleteSubscription(one)
            | Self::DeleteResource(one)
            | Self::DeleteIdentityProvider(one)
            | Self::DeleteGroupRoleMapping(one)
            | Self::DeleteAccountAssociation(one) => Some(&one.id),
        }
    }
}

/// One object before and after an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectChange {
    /// Its kind.
    pub kind: Kind,
    /// Its path.
    pub id: PathBuf,
    /// `None` if the operation makes it.
    pub before: Option<Object>,
    /// `None` if the operation deletes it.
    pub after: Option<Object>,
}

/// What an accepted operation does.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The objects that change, cascades included, each once. Empty if everything is as asked already: then there
    /// is no new revision.
    pub objects: Vec<ObjectChange>,
    /// The same as changes of the engine, in an order that it accepts.
    pub changes: Vec<Change>,
    /// What the caller is answered.
    pub response: Response,
}

/// A pull token: an identity, and the binding that was made with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullToken {
    /// Its type is [`PULL_TOKEN`](crate::PULL_TOKEN).
    pub identity: Identity,
    /// The only one that it has.
    pub binding: RoleBinding,
}

impl Outcome {
    /// Whether everything is as asked already.
    #[must_use]
    pub const fn is_unchanged(&self) -> bool {
        self.objects.is_empty()
    }
}

/// What the caller is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// The group as it is now.
    Group(Group),
    /// The role as it is now.
    Role(Role),
    /// The binding as it is now.
    RoleBinding(RoleBinding),
    /// The bindings that were made, in the order of the request.
    RoleBindings(Vec<RoleBinding>),
    /// The identity as it is now.
    Identity(Identity),
    /// The resource as it is now.
    Resource(Resource),
    /// The pull token, and the hash of its secret, which is stored beside it.
    PullToken(Box<PullToken>, SecretHash),
    /// The invite as it is now.
    GroupInvite(GroupInvite),
    /// A new invite, and the hash of its code, which is stored beside it.
    NewGroupInvite(Box<GroupInvite>, SecretHash),
    /// The subscription as it is now.
    Subscription(Subscription),
    /// Nothing but the revision.
    Deleted,
    /// The identity provider as it is now.
    IdentityProvider(IdentityProvider),
    /// The mapping as it is now.
    GroupRoleMapping(GroupRoleMapping),
    /// The account association as it is now.
    AccountAssociation(AccountAssociation),
}
