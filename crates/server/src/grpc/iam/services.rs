//! The generated services of all kinds: each method lets the caller in, reads its request, and does what `service` has for
//! all.

use capstan_iam::{Response as Answer, SecretKind};
use capstan_proto::iam::v1;
use capstan_proto::iam::v1::group_service_server::GroupService;
use capstan_proto::iam::v1::identity_service_server::IdentityService;
use capstan_proto::iam::v1::pull_token_service_server::PullTokenService;
use capstan_proto::iam::v1::resource_service_server::ResourceService;
use capstan_proto::iam::v1::role_binding_service_server::RoleBindingService;
use capstan_proto::iam::v1::role_service_server::RoleService;
use tonic::{Request, Response, Status};

use super::kinds::{Groups, PullTokens};
use super::service::{Iam, ListRequest, ListResponse, Meta};
use super::shown::new_secret;
use super::{get, group, identity, list, objects, pull_token, resource, role, role_binding};
use crate::error::CallError;
use crate::methods::Rpc;

type RpcResult<T> = Result<Response<T>, Status>;

/// Answers a Get. Gives the message and the revision.
macro_rules! get {
    ($self:ident, $request:ident, $get:path) => {{
        let reading = $self.reading(&$request, $request.get_ref().consistency.as_ref()).await?;
        let (id, revision) = ($request.into_inner().id, reading.revision());
        let found = $self.blocking(reading, move |reading, viewer| $get(reading, viewer, &id));
        (found.await?, revision)
    }};
}

/// Answers a List with one page.
macro_rules! list {
    ($self:ident, $request:ident, $label:literal, $page:expr) => {{
        const RPC: Rpc = Rpc::labelled($label);
        let all = $request.get_ref();
        let list = ListRequest {
            parent: all.parent.clone(),
            filter: all.filter.clone(),
            page_size: all.page_size,
            page_token: all.page_token.clone(),
            consistency: all.consistency,
        };
        $self.list(RPC, &$request, list, $page).await?
    }};
}

/// Makes a change. Gives the answer and the revision. The caller is let in before the request is read.
macro_rules! write {
    ($self:ident, $request:ident, $label:literal, $operation:expr) => {{
        const RPC: Rpc = Rpc::labelled($label);
        let writer = $self.writer(RPC, &$request).await?;
        let request = $request.into_inner();
        let (request_id, validate_only) = (request.request_id.clone(), request.validate_only);
        let operation = $operation(request)?;
        writer.write(operation, Meta { request_id, validate_only }).await?
    }};
}

/// The message of an answer. An operation has one kind of answer; another one is a bug.
macro_rules! message {
    ($answer:expr, $kind:path, $message:path) => {
        match $answer {
            $kind(object) => Some($message(object)),
            _ => return Err(CallError::Bug { correlation: "answer".into() }.into()),
        }
    };
}

mod account_associations;
mod group_invites;
mod group_role_mappings;
mod identity_providers;
mod subscriptions;

#[tonic::async_trait]
impl GroupService for Iam {
    async fn create_group(
        &self,
        request: Request<v1::CreateGroupRequest>,
    ) -> RpcResult<v1::CreateGroupResponse> {
        let (answer, revision) = write!(self, request, "iam.CreateGroup", group::create);
        let group = message!(answer, Answer::Group, objects::group);
        Ok(Response::new(v1::CreateGroupResponse { group, revision }))
    }

    async fn get_group(
        &self,
        request: Request<v1::GetGroupRequest>,
    ) -> RpcResult<v1::GetGroupResponse> {
        let (group, revision) = get!(self, request, get::group);
        Ok(Response::new(v1::GetGroupResponse { group: Some(group), revision }))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> RpcResult<v1::ListGroupsResponse> {
        let ListResponse { entries, next_page_token, revision, .. } =
            list!(self, request, "iam.ListGroups", list::page::<Groups>);
        let groups = entries;
        Ok(Response::new(v1::ListGroupsResponse { groups, next_page_token, revision }))
    }

    async fn update_group(
        &self,
        request: Request<v1::UpdateGroupRequest>,
    ) -> RpcResult<v1::UpdateGroupResponse> {
        let (answer, revision) = write!(self, request, "iam.UpdateGroup", group::update);
        let group = message!(answer, Answer::Group, objects::group);
        Ok(Response::new(v1::UpdateGroupResponse { group, revision }))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> RpcResult<v1::DeleteGroupResponse> {
        let (_, revision) = write!(self, request, "iam.DeleteGroup", group::delete);
        Ok(Response::new(v1::DeleteGroupResponse { revision }))
    }
}

#[tonic::async_trait]
impl RoleService for Iam {
    async fn create_role(
        &self,
        request: Request<v1::CreateRoleRequest>,
    ) -> RpcResult<v1::CreateRoleResponse> {
        let (answer, revision) = write!(self, request, "iam.CreateRole", role::create);
        let role = message!(answer, Answer::Role, objects::role);
        Ok(Response::new(v1::CreateRoleResponse { role, revision }))
    }

    async fn get_role(
        &self,
        request: Request<v1::GetRoleRequest>,
    ) -> RpcResult<v1::GetRoleResponse> {
        let (role, revision) = get!(self, request, get::role);
        Ok(Response::new(v1::GetRoleResponse { role: Some(role), revision }))
    }

    async fn list_roles(
        &self,
        request: Request<v1::ListRolesRequest>,
    ) -> RpcResult<v1::ListRolesResponse> {
        let ListResponse { entries, next_page_token, revision, catalog } =
            list!(self, request, "iam.ListRoles", list::roles);
        let roles = entries;
        Ok(Response::new(v1::ListRolesResponse { catalog, roles, next_page_token, revision }))
    }

    async fn update_role(
        &self,
        request: Request<v1::UpdateRoleRequest>,
    ) -> RpcResult<v1::UpdateRoleResponse> {
        let (answer, revision) = write!(self, request, "iam.UpdateRole", role::update);
        let role = message!(answer, Answer::Role, objects::role);
        Ok(Response::new(v1::UpdateRoleResponse { role, revision }))
    }

    async fn delete_role(
        &self,
        request: Request<v1::DeleteRoleRequest>,
    ) -> RpcResult<v1::DeleteRoleResponse> {
        let (_, revision) = write!(self, request, "iam.DeleteRole", role::delete);
        Ok(Response::new(v1::DeleteRoleResponse { revision }))
    }
}

#[tonic::async_trait]
impl RoleBindingService for Iam {
    async fn create_role_binding(
        &self,
        request: Request<v1::CreateRoleBindingRequest>,
    ) -> RpcResult<v1::CreateRoleBindingResponse> {
        let (answer, revision) =
            write!(self, request, "iam.CreateRoleBinding", role_binding::create);
        let role_binding = message!(answer, Answer::RoleBinding, objects::role_binding);
        Ok(Response::new(v1::CreateRoleBindingResponse { role_binding, revision }))
    }

    async fn get_role_binding(
        &self,
        request: Request<v1::GetRoleBindingRequest>,
    ) -> RpcResult<v1::GetRoleBindingResponse> {
        let (role_binding, revision) = get!(self, request, get::role_binding);
        Ok(Response::new(v1::GetRoleBindingResponse { role_binding: Some(role_binding), revision }))
    }

    async fn list_role_bindings(
        &self,
        request: Request<v1::ListRoleBindingsRequest>,
    ) -> RpcResult<v1::ListRoleBindingsResponse> {
        let ListResponse { entries, next_page_token, revision, .. } =
            list!(self, request, "iam.ListRoleBindings", list::role_bindings);
        let role_bindings = entries;
        Ok(Response::new(v1::ListRoleBindingsResponse { role_bindings, next_page_token, revision }))
    }

    async fn update_role_binding(
        &self,
        request: Request<v1::UpdateRoleBindingRequest>,
    ) -> RpcResult<v1::UpdateRoleBindingResponse> {
        let (answer, revision) =
            write!(self, request, "iam.UpdateRoleBinding", role_binding::update);
        let role_binding = message!(answer, Answer::RoleBinding, objects::role_binding);
        Ok(Response::new(v1::UpdateRoleBindingResponse { role_binding, revision }))
    }

    async fn delete_role_binding(
        &self,
        request: Request<v1::DeleteRoleBindingRequest>,
    ) -> RpcResult<v1::DeleteRoleBindingResponse> {
        let (_, revision) = write!(self, request, "iam.DeleteRoleBinding", role_binding::delete);
        Ok(Response::new(v1::DeleteRoleBindingResponse { revision }))
    }

    async fn batch_create_role_bindings(
        &self,
        request: Request<v1::BatchCreateRoleBindingsRequest>,
    ) -> RpcResult<v1::BatchCreateRoleBindingsResponse> {
        let operation = |request| role_binding::batch_create(request, self.message_bytes_max);
        let (answer, revision) = write!(self, request, "iam.BatchCreateRoleBindings", operation);
        let all = message!(answer, Answer::RoleBindings, std::convert::identity);
        let all = all.into_iter().flatten().map(objects::role_binding);
        let role_bindings = all.collect();
        Ok(Response::new(v1::BatchCreateRoleBindingsResponse { role_bindings, revision }))
    }

    async fn batch_delete_role_bindings(
        &self,
        request: Request<v1::BatchDeleteRoleBindingsRequest>,
    ) -> RpcResult<v1::BatchDeleteRoleBindingsResponse> {
        let (_, revision) =
            write!(self, request, "iam.BatchDeleteRoleBindings", role_binding::batch_delete);
        Ok(Response::new(v1::BatchDeleteRoleBindingsResponse { revision }))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> RpcResult<v1::RemoveMemberResponse> {
        let (_, revision) = write!(self, request, "iam.RemoveMember", role_binding::remove_member);
        Ok(Response::new(v1::RemoveMemberResponse { revision }))
    }
}

#[tonic::async_trait]
impl IdentityService for Iam {
    async fn create_identity(
        &self,
        request: Request<v1::CreateIdentityRequest>,
    ) -> RpcResult<v1::CreateIdentityResponse> {
        let (answer, revision) = write!(self, request, "iam.CreateIdentity", identity::create);
        let identity = message!(answer, Answer::Identity, objects::identity);
        Ok(Response::new(v1::CreateIdentityResponse { identity, revision }))
    }

    async fn get_identity(
        &self,
        request: Request<v1::GetIdentityRequest>,
    ) -> RpcResult<v1::GetIdentityResponse> {
        let (identity, revision) = get!(self, request, get::identity);
        Ok(Response::new(v1::GetIdentityResponse { identity: Some(identity), revision }))
    }

    async fn list_identities(
        &self,
        request: Request<v1::ListIdentitiesRequest>,
    ) -> RpcResult<v1::ListIdentitiesResponse> {
        let ListResponse { entries, next_page_token, revision, .. } =
            list!(self, request, "iam.ListIdentities", list::identities);
        let identities = entries;
        Ok(Response::new(v1::ListIdentitiesResponse { identities, next_page_token, revision }))
    }

    async fn update_identity(
        &self,
        request: Request<v1::UpdateIdentityRequest>,
    ) -> RpcResult<v1::UpdateIdentityResponse> {
        let (answer, revision) = write!(self, request, "iam.UpdateIdentity", identity::update);
        let identity = message!(answer, Answer::Identity, objects::identity);
        Ok(Response::new(v1::UpdateIdentityResponse { identity, revision }))
    }

    async fn delete_identity(
        &self,
        request: Request<v1::DeleteIdentityRequest>,
    ) -> RpcResult<v1::DeleteIdentityResponse> {
        let (_, revision) = write!(self, request, "iam.DeleteIdentity", identity::delete);
        Ok(Response::new(v1::DeleteIdentityResponse { revision }))
    }

    /// Needs no caller: the answer depends on the request alone.
    async fn lookup_identity(
        &self,
        request: Request<v1::LookupIdentityRequest>,
    ) -> RpcResult<v1::LookupIdentityResponse> {
        Ok(Response::new(identity::lookup(request.get_ref())?))
    }
}

#[tonic::async_trait]
impl PullTokenService for Iam {
    async fn create_pull_token(
        &self,
        request: Request<v1::CreatePullTokenRequest>,
    ) -> RpcResult<v1::CreatePullTokenResponse> {
        const RPC: Rpc = Rpc::labelled("iam.CreatePullToken");
        let writer = self.writer(RPC, &request).await?;
        let request = request.into_inner();
        let secret = new_secret(SecretKind::PullToken)?;
        let operation = pull_token::create(&request, secret.hash())?;
        let v1::CreatePullTokenRequest { request_id, validate_only, .. } = request;
        let meta = Meta { request_id, validate_only };
        let (answer, revision, secret) =
            self.write_and_show(writer, operation, &secret, meta).await?;
        let Answer::PullToken(token, _) = answer else {
            return Err(CallError::Bug { correlation: "answer".into() }.into());
        };
        let username = token.identity.id.to_string();
        let pull_token = Some(pull_token::made(*token));
        Ok(Response::new(v1::CreatePullTokenResponse { pull_token, username, secret, revision }))
    }

    async fn list_pull_tokens(
        &self,
        request: Request<v1::ListPullTokensRequest>,
    ) -> RpcResult<v1::ListPullTokensResponse> {
        let ListResponse { entries, next_page_token, revision, .. } =
            list!(self, request, "iam.ListPullTokens", list::page::<PullTokens>);
        let pull_tokens = entries;
        Ok(Response::new(v1::ListPullTokensResponse { pull_tokens, next_page_token, revision }))
    }

    async fn revoke_pull_token(
        &self,
        request: Request<v1::RevokePullTokenRequest>,
    ) -> RpcResult<v1::RevokePullTokenResponse> {
        let (_, revision) = write!(self, request, "iam.RevokePullToken", pull_token::revoke);
        Ok(Response::new(v1::RevokePullTokenResponse { revision }))
    }
}

#[tonic::async_trait]
impl ResourceService for Iam {
    async fn create_resource(
        &self,
        request: Request<v1::CreateResourceRequest>,
    ) -> RpcResult<v1::CreateResourceResponse> {
        let (answer, revision) = write!(self, request, "iam.CreateResource", resource::create);
        let resource = message!(answer, Answer::Resource, objects::resource);
        Ok(Response::new(v1::CreateResourceResponse { resource, revision }))
    }

    async fn get_resource(
        &self,
        request: Request<v1::GetResourceRequest>,
    ) -> RpcResult<v1::GetResourceResponse> {
        let (resource, revision) = get!(self, request, get::resource);
        Ok(Response::new(v1::GetResourceResponse { resource: Some(resource), revision }))
    }

    async fn list_resources(
        &self,
        request: Request<v1::ListResourcesRequest>,
    ) -> RpcResult<v1::ListResourcesResponse> {
        let ListResponse { entries, next_page_token, revision, .. } =
            list!(self, request, "iam.ListResources", list::resources);
        let resources = entries;
        Ok(Response::new(v1::ListResourcesResponse { resources, next_page_token, revision }))
    }

    async fn update_resource(
        &self,
        request: Request<v1::UpdateResourceRequest>,
    ) -> RpcResult<v1::UpdateResourceResponse> {
        let (answer, revision) = write!(self, request, "iam.UpdateResource", resource::update);
        let resource = message!(answer, Answer::Resource, objects::resource);
        Ok(Response::new(v1::UpdateResourceResponse { resource, revision }))
    }

    async fn delete_resource(
        &self,
        request: Request<v1::DeleteResourceRequest>,
    ) -> RpcResult<v1::DeleteResourceResponse> {
        let (_, revision) = write!(self, request, "iam.DeleteResource", resource::delete);
        Ok(Response::new(v1::DeleteResourceResponse { revision }))
    }
}
