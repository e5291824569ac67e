//! The kinds of objects: what a Get or List needs to know of each.

use capstan_engine::{IdRange, Path, Snapshot};
use capstan_iam::{Kind, Object};
use capstan_proto::iam::v1;

use super::fields::path;
use super::filter::Listed;
use super::objects;
use super::reading::Reading;
use crate::RequestError;
use crate::grpc::convert::timestamp;

/// A kind of object.
pub(super) trait Described: Sized + 'static {
    /// Its message.
    type Message: Listed + Send;
    /// Its kind.
    const KIND: Kind;
    /// The capability that shows it, at the group or at the parent of other objects. That of a resource depends on its type.
    const CAPABILITY: &'static str;

    /// The message of an object; `None` if it is of another kind.
    fn message(object: Object) -> Option<Self::Message>;

    /// The id of a message.
    fn id(message: &Self::Message) -> &str;

    /// What is left of a message that is shown in part.
    fn in_part(_: Self::Message) -> Self::Message {
        Self::Message::default()
    }

    /// Adds what a store keeps beside the object.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    fn complete(_: &Reading, _: &mut Self::Message) -> Result<(), RequestError> {
        Ok(())
    }

    /// The objects that a policy file declares, as far as the index keeps them.
    fn declared(snapshot: &Snapshot, range: IdRange<'_>) -> Vec<Self::Message>;
}

/// Groups.
#[derive(Debug)]
pub(super) struct Groups;

impl Described for Groups {
    type Message = v1::Group;
    const KIND: Kind = Kind::Group;
    const CAPABILITY: &'static str = "groups.list";

    fn message(object: Object) -> Option<v1::Group> {
        if let Object::Group(group) = object { Some(objects::group(group)) } else { None }
    }

    fn id(message: &v1::Group) -> &str {
        &message.id
    }

    fn declared(snapshot: &Snapshot, range: IdRange<'_>) -> Vec<v1::Group> {
        let one = |id: Path<'_>| v1::Group { id: id.to_string(), ..Default::default() };
        snapshot.groups(range).into_iter().map(one).collect()
    }
}

/// Custom roles.
#[derive(Debug)]
pub(super) struct Roles;

impl Described for Roles {
    type Message = v1::Role;
    const KIND: Kind = Kind::Role;
    const CAPABILITY: &'static str = "roles.list";

    fn message(object: Object) -> Option<v1::Role> {
        if let Object::Role(role) = object { Some(objects::role(role)) } else { None }
    }

    fn id(message: &v1::Role) -> &str {
        &message.id
    }

    fn declared(snapshot: &Snapshot, range: IdRange<'_>) -> Vec<v1::Role> {
        let custom = snapshot.roles().iter().filter(|role| {
            role.id.contains('/')
                && role.id.starts_with(range.prefix)
                && range.after.is_none_or(|after| &*role.id > after)
        });
        custom.take(range.limit).map(|role| objects::declared_role(snapshot, role)).collect()
    }
}

/// Role bindings.
#[derive(Debug)]
pub(super) struct RoleBindings;

impl Described for RoleBindings {
    type Message = v1::RoleBinding;
    const KIND: Kind = Kind::RoleBinding;
    const CAPABILITY: &'static str = "role_bindings.list";

    fn message(object: Object) -> Option<v1::RoleBinding> {
        if let Object::RoleBinding(one) = object { Some(objects::role_binding(one)) } else { None }
    }

    fn id(message: &v1::RoleBinding) -> &str {
        &message.id
    }

    fn declared(snapshot: &Snapshot, range: IdRange<'_>) -> Vec<v1::RoleBinding> {
        snapshot.bindings(range).into_iter().map(declared_binding).collect()
    }
}

/// A role binding as the index keeps it.
pub(super) fn declared_binding(binding: capstan_engine::RoleBinding) -> v1::RoleBinding {
    v1::RoleBinding {
        id: binding.id.map(|id| id.to_string()).unwrap_or_default(),
        identity: binding.identity.to_string(),
        role: binding.role.into(),
        scope: binding.scope.to_string(),
        expires_at: binding.expires_at.map(timestamp),
        when: binding.when.iter().map(objects::condition).collect(),
        ..Default::default()
    }
}

/// Identities.
#[derive(Debug)]
pub(super) struct Identities;

impl Described for Identities {
    type Message = v1::Identity;
    const KIND: Kind = Kind::Identity;
    const CAPABILITY: &'static str = "identity.list";

    fn message(object: Object) -> Option<v1::Identity> {
        if let Object::Identity(one) = object { Some(objects::identity(one)) } else { None }
    }

    fn id(message: &v1::Identity) -> &str {
        &message.id
    }

    /// When it was last seen, unless it is shown in part: then it has no etag.
    fn complete(reading: &Reading, message: &mut v1::Identity) -> Result<(), RequestError> {
        if !message.etag.is_empty() {
            message.last_seen = reading.last_seen(&message.id)?;
        }
        Ok(())
    }

    /// Id, name and type.
    fn in_part(message: v1::Identity) -> v1::Identity {
        let v1::Identity { id, name, r#type, .. } = message;
        v1::Identity { id, name, r#type, ..Default::default() }
    }

    fn declared(snapshot: &Snapshot, range: IdRange<'_>) -> Vec<v1::Identity> {
        let ids = snapshot.identities(range).into_iter();
        ids.map(|id| declared_identity(snapshot, id)).collect()
    }
}

/// An identity as the index keeps it: without name and description.
pub(super) fn declared_identity(snapshot: &Snapshot, id: Path<'_>) -> v1::Identity {
    let properties = snapshot.identity_properties(id).map(objects::properties);
    v1::Identity {
        id: id.to_string(),
        r#type: snapshot.identity_kind(id).unwrap_or_default().into(),
        properties: properties.unwrap_or_default(),
        disabled: snapshot.is_disabled(id),
        ..Default::default()
    }
}

/// Pull tokens: the identities of that type.
#[derive(Debug)]
pub(super) struct PullTokens;

impl Described for PullTokens {
    type Message = v1::PullToken;
    const KIND: Kind = Kind::Identity;
    const CAPABILITY: &'static str = "identity.list";

    fn message(object: Object) -> Option<v1::PullToken> {
        match object {
            Object::Identity(one) if one.is_pull_token() => Some(objects::pull_token(one)),
            _ => None,
        }
    }

    fn id(message: &v1::PullToken) -> &str {
        &message.id
    }

    /// What its binding says, and when it was last used.
    fn complete(reading: &Reading, message: &mut v1::PullToken) -> Result<(), RequestError> {
        message.last_seen = reading.last_seen(&message.id)?;
        let id = path("id", &message.id)?;
        // It has one, or none any more.
        if let Some(binding) = reading.snapshot().role_bindings(id.as_path()).pop() {
            message.role = binding.role.into();
            message.scope = binding.scope.to_string();
            message.expires_at = binding.expires_at.map(timestamp);
        }
        Ok(())
    }

    /// A document declares none.
    fn declared(_: &Snapshot, _: IdRange<'_>) -> Vec<v1::PullToken> {
        vec![]
    }
}

/// Group invites.
#[derive(Debug)]
pub(super) struct GroupInvites;

impl Described for GroupInvites {
    type Message = v1::GroupInvite;
    const KIND: Kind = Kind::GroupInvite;
    const CAPABILITY: &'static str = "group_invites.list";

    fn message(object: Object) -> Option<v1::GroupInvite> {
        if let Object::GroupInvite(one) = object { Some(objects::group_invite(one)) } else { None }
    }

    fn id(message: &v1::GroupInvite) -> &str {
        &message.id
    }

    /// A document declares none.
    fn declared(_: &Snapshot, _: IdRange<'_>) -> Vec<v1::GroupInvite> {
        vec![]
    }
}

/// Subscriptions.
#[derive(Debug)]
pub(super) struct Subscriptions;

impl Described for Subscriptions {
    type Message = v1::Subscription;
    const KIND: Kind = Kind::Subscription;
    const CAPABILITY: &'static str = "subscriptions.list";

    fn message(object: Object) -> Option<v1::Subscription> {
        if let Object::Subscription(one) = object { Some(objects::subscription(one)) } else { None }
    }

    fn id(message: &v1::Subscription) -> &str {
        &message.id
    }

    /// A document declares none.
    fn declared(_: &Snapshot, _: IdRange<'_>) -> Vec<v1::Subscription> {
        vec![]
    }
}

/// Identity providers.
#[derive(Debug)]
pub(super) struct IdentityProviders;

impl Described for IdentityProviders {
    type Message = v1::IdentityProvider;
    const KIND: Kind = Kind::IdentityProvider;
    const CAPABILITY: &'static str = "identity_providers.list";

    fn message(object: Object) -> Option<v1::IdentityProvider> {
        if let Object::IdentityProvider(one) = object {
            Some(objects::identity_provider(one))
        } else {
            None
        }
    }

    fn id(message: &v1::IdentityProvider) -> &str {
        &message.id
    }

    /// A document declares none.
    fn declared(_: &Snapshot, _: IdRange<'_>) -> Vec<v1::IdentityProvider> {
        vec![]
    }
}

/// Groups of identity providers that have roles.
#[derive(Debug)]
pub(super) struct GroupRoleMappings;

impl Described for GroupRoleMappings {
    type Message = v1::GroupRoleMapping;
    const KIND: Kind = Kind::GroupRoleMapping;
    const CAPABILITY: &'static str = "identity_providers.list";

    fn message(object: Object) -> Option<v1::GroupRoleMapping> {
        if let Object::GroupRoleMapping(one) = object {
            Some(objects::group_role_mapping(one))
        } else {
            None
        }
    }

    fn id(message: &v1::GroupRoleMapping) -> &str {
        &message.id
    }

    /// A document declares none.
    fn declared(_: &Snapshot, _: IdRange<'_>) -> Vec<v1::GroupRoleMapping> {
        vec![]
    }
}

/// Account associations.
#[derive(Debug)]
pub(super) struct AccountAssociations;

impl Described for AccountAssociations {
    type Message = v1::AccountAssociation;
    const KIND: Kind = Kind::AccountAssociation;
    const CAPABILITY: &'static str = "account_associations.list";

    fn message(object: Object) -> Option<v1::AccountAssociation> {
        if let Object::AccountAssociation(one) = object {
            Some(objects::account_association(one))
        } else {
            None
        }
    }

    fn id(message: &v1::AccountAssociation) -> &str {
        &message.id
    }

    /// A document declares none.
    fn declared(_: &Snapshot, _: IdRange<'_>) -> Vec<v1::AccountAssociation> {
        vec![]
    }
}

/// Registered resources.
#[derive(Debug)]
pub(super) struct Resources;

impl Described for Resources {
    type Message = v1::Resource;
    const KIND: Kind = Kind::Resource;
    const CAPABILITY: &'static str = "groups.list";

    fn message(object: Object) -> Option<v1::Resource> {
        if let Object::Resource(one) = object { Some(objects::resource(one)) } else { None }
    }

    fn id(message: &v1::Resource) -> &str {
        &message.id
    }

    fn declared(snapshot: &Snapshot, range: IdRange<'_>) -> Vec<v1::Resource> {
        let ids = snapshot.resources(range).into_iter();
        ids.map(|id| declared_resource(snapshot, id)).collect()
    }
}

/// A resource as the index keeps it: without name and description.
pub(super) fn declared_resource(snapshot: &Snapshot, id: Path<'_>) -> v1::Resource {
    let properties = snapshot.resource_properties(id).map(objects::properties);
    v1::Resource {
        id: id.to_string(),
        r#type: snapshot.resource_kind(id).unwrap_or_default().into(),
        properties: properties.unwrap_or_default(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use capstan_proto::methods::{Access, METHODS};

    use super::*;

    /// The option that a method has in the schema says what is really needed.
    #[test]
    fn what_lists_show_is_what_the_schema_says() {
        let shown = |method: &str| {
            let path = format!("/capstan.iam.v1.{method}");
            match METHODS.iter().find(|one| one.path == path).unwrap().access {
                Access::Narrowed(&[capability]) => capability,
                other => panic!("{method}: {other:?}"),
            }
        };
        assert_eq!(shown("GroupService/ListGroups"), Groups::CAPABILITY);
        assert_eq!(shown("RoleService/ListRoles"), Roles::CAPABILITY);
        assert_eq!(shown("RoleBindingService/ListRoleBindings"), RoleBindings::CAPABILITY);
        assert_eq!(shown("IdentityService/ListIdentities"), Identities::CAPABILITY);
        assert_eq!(shown("PullTokenService/ListPullTokens"), PullTokens::CAPABILITY);
        assert_eq!(shown("GroupInviteService/ListGroupInvites"), GroupInvites::CAPABILITY);
        assert_eq!(shown("SubscriptionService/ListSubscriptions"), Subscriptions::CAPABILITY);
        let providers = shown("IdentityProviderService/ListIdentityProviders");
        assert_eq!(providers, IdentityProviders::CAPABILITY);
        let mappings = shown("GroupRoleMappingService/ListGroupRoleMappings");
        assert_eq!(mappings, GroupRoleMappings::CAPABILITY);
        let associations = shown("AccountAssociationService/ListAccountAssociations");
        assert_eq!(associations, AccountAssociations::CAPABILITY);
        assert_eq!(shown("ResourceService/ListResources"), "TYPE.list");
    }
}
