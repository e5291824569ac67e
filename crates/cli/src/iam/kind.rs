//! The kinds of object: how each is listed, read, created, updated and deleted, and what a table shows of it.

use capstan_engine::Timestamp;
use capstan_policy::format_timestamp;
use capstan_proto::iam::v1::{
    self as iam, Group, GroupInvite, Identity, PullToken, Resource, Role, RoleBinding,
    Subscription, condition, identity,
};
use capstan_proto::v1::Consistency;
use prost::Message;
use prost_types::FieldMask;
use serde_json::Value;
use tonic::Request;

use super::connection::{Connection, Safety, Write, next_page, present};
use super::json;
use crate::events::types;
use crate::limits::PAGE_OBJECTS;

/// What a list asks for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    /// Objects at or below this path; empty for all that the caller may see.
    pub(crate) parent: String,
    pub(crate) filter: String,
    pub(crate) consistency: Option<Consistency>,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Page<T> {
    pub(crate) objects: Vec<T>,
    pub(crate) next: String,
    pub(crate) revision: u64,
}

/// A kind of object that the management API lists.
pub(crate) trait Listed: Message + Default {
    /// In messages: `role binding`.
    const WORD: &'static str;
    /// The message: `RoleBinding`.
    const MESSAGE: &'static str;
    /// The field of a list: `role_bindings`.
    const LIST: &'static str;
    /// The columns of a table.
    const COLUMNS: &'static [&'static str];

    fn id(&self) -> &str;
    fn name(&self) -> &str;
    /// The word for an object with this id: [`WORD`](Self::WORD), or a narrower one.
    fn word(_id: &str) -> &'static str {
        Self::WORD
    }
    /// Before the id, in the note that it was created or updated.
    fn what(&self) -> String {
        Self::word(self.id()).to_owned()
    }
    /// A cell for each of [`COLUMNS`](Self::COLUMNS).
    fn row(&self) -> Vec<String>;
    /// In a tree, behind the segment of its path; may be empty.
    fn label(&self) -> String {
        self.name().to_owned()
    }

    async fn page(
        server: &Connection,
        query: &Query,
        size: i32,
        token: &str,
    ) -> anyhow::Result<Page<Self>>;

    fn json(&self) -> anyhow::Result<Value> {
        json::of(self, Self::MESSAGE)
    }
}

/// A kind of object that is also read, created, updated and deleted, each with one call.
pub(crate) trait Kind: Listed {
    /// The field of the object in responses: `role_binding`.
    const FIELD: &'static str;

    fn etag(&self) -> &str;
    async fn get(
        server: &Connection,
        id: &str,
        consistency: Option<Consistency>,
    ) -> anyhow::Result<(Self, u64)>;
    /// Creates the object. Returns it as it is there, and the revision that it made.
    async fn create(
        self,
        server: &Connection,
        parent: String,
        write: &Write,
    ) -> anyhow::Result<(Self, u64)>;
    /// Changes the fields of the mask. Returns the whole object, and the revision that it made.
    async fn update(
        self,
        server: &Connection,
        paths: Vec<String>,
        write: &Write,
    ) -> anyhow::Result<(Self, u64)>;
    /// Returns the revision that it made.
    async fn delete(
        server: &Connection,
        id: &str,
        etag: &str,
        write: &Write,
    ) -> anyhow::Result<u64>;
}

/// All objects that a list answers, and the revision of the list.
pub(crate) async fn list<K: Listed>(
    server: &Connection,
    query: &Query,
) -> anyhow::Result<(Vec<K>, u64)> {
    let (mut objects, mut token) = (Vec::new(), String::new());
    loop {
        let page = K::page(server, query, PAGE_OBJECTS, &token).await?;
        objects.extend(page.objects);
        if !next_page(&mut token, page.next)? {
            return Ok((objects, page.revision));
        }
    }
}

/// The call that all kinds share, and what a list needs of an object.
macro_rules! list_call {
    ($module:ident::$client:ident, $list:ident($list_request:ident) -> $objects:ident) => {
        fn id(&self) -> &str {
            &self.id
        }

        fn name(&self) -> &str {
            &self.name
        }

        async fn page(
            server: &Connection,
            query: &Query,
            size: i32,
            token: &str,
        ) -> anyhow::Result<Page<Self>> {
            let request = iam::$list_request {
                parent: query.parent.clone(),
                filter: query.filter.clone(),
                page_size: size,
                page_token: token.to_owned(),
                consistency: query.consistency,
            };
            let send = async |request: Request<_>| {
                iam::$module::$client::new(server.service()).$list(request).await
            };
            let page = server.call(Safety::Read, request, send).await?;
            Ok(Page { objects: page.$objects, next: page.next_page_token, revision: page.revision })
        }
    };
}

/// The other four calls. `$more` are fields of a create that the others do not have.
macro_rules! calls {
    ($module:ident::$client:ident, $get:ident($get_request:ident) -> $object:ident,
     $create:ident($create_request:ident $(, $more:ident)*), $update:ident($update_request:ident),
     $delete:ident($delete_request:ident)) => {
        fn etag(&self) -> &str {
            &self.etag
        }

        async fn get(
            server: &Connection,
            id: &str,
            consistency: Option<Consistency>,
        ) -> anyhow::Result<(Self, u64)> {
            let request = iam::$get_request { id: id.to_owned(), consistency };
            let send = async |request: Request<_>| {
                iam::$module::$client::new(server.service()).$get(request).await
            };
            let found = server.call(Safety::Read, request, send).await?;
            Ok((present(found.$object, Self::FIELD)?, found.revision))
        }

        async fn create(
            self,
            server: &Connection,
            parent: String,
            write: &Write,
        ) -> anyhow::Result<(Self, u64)> {
            let request = iam::$create_request {
                parent,
                $object: Some(self),
                request_id: write.request_id.clone(),
                validate_only: write.validate_only,
                $($more: Default::default(),)*
            };
            let send = async |request: Request<_>| {
                iam::$module::$client::new(server.service()).$create(request).await
            };
            let made = server.call(Safety::Write(write), request, send).await?;
            Ok((present(made.$object, Self::FIELD)?, made.revision))
        }

        async fn update(
            self,
            server: &Connection,
            paths: Vec<String>,
            write: &Write,
        ) -> anyhow::Result<(Self, u64)> {
            let request = iam::$update_request {
                $object: Some(self),
                update_mask: Some(FieldMask { paths }),
                request_id: write.request_id.clone(),
                validate_only: write.validate_only,
            };
            let send = async |request: Request<_>| {
                iam::$module::$client::new(server.service()).$update(request).await
            };
            let made = server.call(Safety::Write(write), request, send).await?;
            Ok((present(made.$object, Self::FIELD)?, made.revision))
        }

        async fn delete(
            server: &Connection,
            id: &str,
            etag: &str,
            write: &Write,
        ) -> anyhow::Result<u64> {
            let request = iam::$delete_request {
                id: id.to_owned(),
                etag: etag.to_owned(),
                request_id: write.request_id.clone(),
                validate_only: write.validate_only,
            };
            let send = async |request: Request<_>| {
                iam::$module::$client::new(server.service()).$delete(request).await
            };
            Ok(server.call(Safety::Write(write), request, send).await?.revision)
        }
    };
}

mod resolved;

impl Listed for Group {
    const WORD: &'static str = "group";
    const MESSAGE: &'static str = "Group";
    const LIST: &'static str = "groups";
    const COLUMNS: &'static [&'static str] = &["group", "name", "description", "updated"];

    fn row(&self) -> Vec<String> {
        vec![self.id.clone(), self.name.clone(), self.description.clone(), time(self.update_time)]
    }

    fn word(id: &str) -> &'static str {
        if id.contains('/') { "folder" } else { "organization" }
    }

    list_call!(group_service_client::GroupServiceClient, list_groups(ListGroupsRequest) -> groups);
}

impl Kind for Group {
    const FIELD: &'static str = "group";

    calls!(group_service_client::GroupServiceClient,
        get_group(GetGroupRequest) -> group, create_group(CreateGroupRequest, owner),
        update_group(UpdateGroupRequest), delete_group(DeleteGroupRequest));
}

impl Listed for Role {
    const WORD: &'static str = "role";
    const MESSAGE: &'static str = "Role";
    const LIST: &'static str = "roles";
    const COLUMNS: &'static [&'static str] = &["role", "family", "gives", "description"];

    fn row(&self) -> Vec<String> {
        let gives = self.capabilities.len().to_string();
        vec![self.id.clone(), self.family.clone(), gives, self.description.clone()]
    }

    list_call!(role_service_client::RoleServiceClient, list_roles(ListRolesRequest) -> roles);
}

impl Kind for Role {
    const FIELD: &'static str = "role";

    calls!(role_service_client::RoleServiceClient,
        get_role(GetRoleRequest) -> role, create_role(CreateRoleRequest),
        update_role(UpdateRoleRequest), delete_role(DeleteRoleRequest));
}

impl Listed for RoleBinding {
    const WORD: &'static str = "role binding";
    const MESSAGE: &'static str = "RoleBinding";
    const LIST: &'static str = "role_bindings";
    const COLUMNS: &'static [&'static str] =
        &["identity", "role", "scope", "restrictions", "binding"];

    fn row(&self) -> Vec<String> {
        let Self { identity, role, scope, id, .. } = self.clone();
        vec![identity, role, scope, restrictions(self), id]
    }

    fn label(&self) -> String {
        let restrictions = match restrictions(self) {
            none if none.is_empty() => none,
            some => format!("  {some}"),
        };
        format!("{}  {}{restrictions}", self.role, self.identity)
    }

    fn what(&self) -> String {
        let Self { identity, role, scope, .. } = self;
        format!("role binding of {identity} to {role} at {scope}:")
    }

    list_call!(role_binding_service_client::RoleBindingServiceClient, list_role_bindings(ListRoleBindingsRequest) -> role_bindings);
}

impl Kind for RoleBinding {
    const FIELD: &'static str = "role_binding";

    calls!(role_binding_service_client::RoleBindingServiceClient,
        get_role_binding(GetRoleBindingRequest) -> role_binding,
        create_role_binding(CreateRoleBindingRequest),
        update_role_binding(UpdateRoleBindingRequest),
        delete_role_binding(DeleteRoleBindingRequest));
}

impl Listed for Identity {
    const WORD: &'static str = "identity";
    const MESSAGE: &'static str = "Identity";
    const LIST: &'static str = "identities";
    const COLUMNS: &'static [&'static str] =
        &["identity", "type", "name", "authentication", "state", "last seen"];

    fn row(&self) -> Vec<String> {
        let how = match &self.authentication {
            Some(identity::Authentication::ClaimMatch(_)) => "claim match",
            Some(identity::Authentication::StaticKeys(_)) => "static keys",
            Some(identity::Authentication::ClientCertificate(_)) => "client certificate",
            None => "",
        };
        let state = if self.disabled { "disabled" } else { "enabled" };
        vec![
            self.id.clone(),
            self.r#type.clone(),
            self.name.clone(),
            how.into(),
            state.into(),
            time(self.last_seen),
        ]
    }

    fn label(&self) -> String {
        let parts = [&*self.r#type, &*self.name, if self.disabled { "disabled" } else { "" }];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
    }

    list_call!(identity_service_client::IdentityServiceClient, list_identities(ListIdentitiesRequest) -> identities);
}

impl Kind for Identity {
    const FIELD: &'static str = "identity";

    calls!(identity_service_client::IdentityServiceClient,
        get_identity(GetIdentityRequest) -> identity, create_identity(CreateIdentityRequest),
        update_identity(UpdateIdentityRequest), delete_identity(DeleteIdentityRequest));
}

impl Listed for PullToken {
    const WORD: &'static str = "pull token";
    const MESSAGE: &'static str = "PullToken";
    const LIST: &'static str = "pull_tokens";
    const COLUMNS: &'static [&'static str] =
        &["pull token", "name", "role", "scope", "expires", "last seen"];

    fn row(&self) -> Vec<String> {
        let Self { id, name, role, scope, .. } = self.clone();
        vec![id, name, role, scope, time(self.expires_at), time(self.last_seen)]
    }

    fn label(&self) -> String {
        let until = format!("until {}", time(self.expires_at));
        let parts = [&*self.role, &*self.name, &*until];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
    }

    list_call!(pull_token_service_client::PullTokenServiceClient,
        list_pull_tokens(ListPullTokensRequest) -> pull_tokens);
}

impl Listed for GroupInvite {
    const WORD: &'static str = "group invite";
    const MESSAGE: &'static str = "GroupInvite";
    const LIST: &'static str = "group_invites";
    const COLUMNS: &'static [&'static str] = &["invite", "name", "role", "for", "expires"];

    fn row(&self) -> Vec<String> {
        let whom = if self.email.is_empty() { "anybody who has the code" } else { &*self.email };
        let often =
            if self.single_use.unwrap_or(true) { "once" } else { "as often as it is accepted" };
        let Self { id, name, role, .. } = self.clone();
        vec![id, name, role, format!("{whom}, {often}"), time(self.expires_at)]
    }

    fn label(&self) -> String {
        let until = format!("until {}", time(self.expires_at));
        let parts = [&*self.role, &*self.email, &*self.name, &*until];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
    }

    list_call!(group_invite_service_client::GroupInviteServiceClient,
        list_group_invites(ListGroupInvitesRequest) -> group_invites);
}

impl Kind for GroupInvite {
    const FIELD: &'static str = "group_invite";

    calls!(group_invite_service_client::GroupInviteServiceClient,
        get_group_invite(GetGroupInviteRequest) -> group_invite,
        create_group_invite(CreateGroupInviteRequest, ttl),
        update_group_invite(UpdateGroupInviteRequest),
        delete_group_invite(DeleteGroupInviteRequest));
}

impl Listed for Resource {
    const WORD: &'static str = "resource";
    const MESSAGE: &'static str = "Resource";
    const LIST: &'static str = "resources";
    const COLUMNS: &'static [&'static str] = &["resource", "type", "name", "properties"];

    fn row(&self) -> Vec<String> {
        let mut properties: Vec<_> = self
            .properties
            .iter()
            .map(|(name, value)| format!("{name}={}", scalar(Some(value))))
            .collect();
        properties.sort_unstable();
        vec![self.id.clone(), self.r#type.clone(), self.name.clone(), properties.join(", ")]
    }

    fn label(&self) -> String {
        let parts = [&*self.r#type, &*self.name];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
    }

    list_call!(resource_service_client::ResourceServiceClient, list_resources(ListResourcesRequest) -> resources);
}

impl Kind for Resource {
    const FIELD: &'static str = "resource";

    calls!(resource_service_client::ResourceServiceClient,
        get_resource(GetResourceRequest) -> resource, create_resource(CreateResourceRequest),
        update_resource(UpdateResourceRequest), delete_resource(DeleteResourceRequest));
}

impl Listed for Subscription {
    const WORD: &'static str = "subscription";
    const MESSAGE: &'static str = "Subscription";
    const LIST: &'static str = "subscriptions";
    const COLUMNS: &'static [&'static str] = &["subscription", "name", "state", "sink", "types"];

    fn row(&self) -> Vec<String> {
        let Self { id, name, sink, types, .. } = self.clone();
        vec![id, name, state(self), sink, types::shown(&types)]
    }

    fn label(&self) -> String {
        let state = state(self);
        let parts = [&*self.sink, &*self.name, &*state];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("  ")
    }

    list_call!(subscription_service_client::SubscriptionServiceClient,
        list_subscriptions(ListSubscriptionsRequest) -> subscriptions);
}

impl Kind for Subscription {
    const FIELD: &'static str = "subscription";

    calls!(subscription_service_client::SubscriptionServiceClient,
        get_subscription(GetSubscriptionRequest) -> subscription,
        create_subscription(CreateSubscriptionRequest),
        update_subscription(UpdateSubscriptionRequest),
        delete_subscription(DeleteSubscriptionRequest));
}

/// Whether a subscription is delivered, and why not. One that is not disabled has a reason only until its sink consents.
fn state(subscription: &Subscription) -> String {
    match (subscription.disabled, &*subscription.disabled_reason) {
        (false, "") => "delivering".into(),
        (false, _) => "waits for consent".into(),
        (true, "") => "disabled".into(),
        (true, reason) => format!("disabled: {reason}"),
    }
}

/// RFC 3339, to the second; empty for no time, and for one that it cannot represent.
pub(crate) fn time(time: Option<prost_types::Timestamp>) -> String {
    let time = time.and_then(|time| format_timestamp(Timestamp::new(time.seconds, 0)));
    time.unwrap_or_default()
}

/// `until TIME`, and the conditions of a binding.
pub(crate) fn restrictions(binding: &RoleBinding) -> String {
    let end = binding.expires_at.map(|end| format!("until {}", time(Some(end))));
    let tests = binding.when.iter().map(|one| match &one.test {
        Some(condition::Test::Equals(value)) => {
            format!("if {} = {}", one.attribute, scalar(Some(value)))
        }
        Some(condition::Test::NotEquals(value)) => {
            format!("if {} ≠ {}", one.attribute, scalar(Some(value)))
        }
        None => format!("if {}", one.attribute),
    });
    end.into_iter().chain(tests).collect::<Vec<_>>().join(", ")
}

/// An attribute's value as JSON writes it.
fn scalar(value: Option<&prost_types::Value>) -> String {
    use prost_types::value::Kind;
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => Value::String(text.clone()).to_string(),
        Some(Kind::BoolValue(value)) => value.to_string(),
        Some(Kind::NumberValue(number)) => match capstan_policy::whole(*number) {
            Some(whole) => whole.to_string(),
            None => number.to_string(),
        },
        _ => "null".into(),
    }
}
