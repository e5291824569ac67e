//! The generated service of group invites.

use capstan_iam::{Response as Answer, SecretKind};
use capstan_proto::iam::v1;
use capstan_proto::iam::v1::group_invite_service_server::GroupInviteService;
use tonic::{Request, Response};

use super::super::kinds::GroupInvites;
use super::super::service::{Iam, ListRequest, ListResponse, Meta};
use super::super::shown::new_secret;
use super::super::{get, group_invite, list, objects};
use super::RpcResult;
use crate::error::CallError;
use crate::methods::Rpc;

#[tonic::async_trait]
impl GroupInviteService for Iam {
    async fn create_group_invite(
        &self,
        request: Request<v1::CreateGroupInviteRequest>,
    ) -> RpcResult<v1::CreateGroupInviteResponse> {
        const RPC: Rpc = Rpc::labelled("iam.CreateGroupInvite");
        let writer = self.writer(RPC, &request).await?;
        let mut request = request.into_inner();
        let meta = Meta {
            request_id: std::mem::take(&mut request.request_id),
            validate_only: request.validate_only,
        };
        let code = new_secret(SecretKind::GroupInvite)?;
        let operation = group_invite::create(request, code.hash())?;
        let (answer, revision, code) = self.write_and_show(writer, operation, &code, meta).await?;
        let Answer::NewGroupInvite(invite, _) = answer else {
            return Err(CallError::Bug { correlation: "answer".into() }.into());
        };
        let group_invite = Some(objects::group_invite(*invite));
        Ok(Response::new(v1::CreateGroupInviteResponse { group_invite, code, revision }))
    }

    async fn get_group_invite(
        &self,
        request: Request<v1::GetGroupInviteRequest>,
    ) -> RpcResult<v1::GetGroupInviteResponse> {
        let (group_invite, revision) = get!(self, request, get::group_invite);
        Ok(Response::new(v1::GetGroupInviteResponse { group_invite: Some(group_invite), revision }))
    }

    async fn list_group_invites(
        &self,
        request: Request<v1::ListGroupInvitesRequest>,
    ) -> RpcResult<v1::ListGroupInvitesResponse> {
        let ListResponse { entries, next_page_token, revision, .. } =
            list!(self, request, "iam.ListGroupInvites", list::page::<GroupInvites>);
        let group_invites = entries;
        Ok(Response::new(v1::ListGroupInvitesResponse { group_invites, next_page_token, revision }))
    }

    async fn update_group_invite(
        &self,
        request: Request<v1::UpdateGroupInviteRequest>,
    ) -> RpcResult<v1::UpdateGroupInviteResponse> {
        let (answer, revision) =
            write!(self, request, "iam.UpdateGroupInvite", group_invite::update);
        let group_invite = message!(answer, Answer::GroupInvite, objects::group_invite);
        Ok(Response::new(v1::UpdateGroupInviteResponse { group_invite, revision }))
    }

    async fn delete_group_invite(
        &self,
        request: Request<v1::DeleteGroupInviteRequest>,
    ) -> RpcResult<v1::DeleteGroupInviteResponse> {
        let (_, revision) = write!(self, request, "iam.DeleteGroupInvite", group_invite::delete);
        Ok(Response::new(v1::DeleteGroupInviteResponse { revision }))
    }

    async fn accept_group_invite(
        &self,
        request: Request<v1::AcceptGroupInviteRequest>,
    ) -> RpcResult<v1::AcceptGroupInviteResponse> {
        const RPC: Rpc = Rpc::labelled("iam.AcceptGroupInvite");
        let joiner = self.joiner(RPC, &request).await?;
        let v1::AcceptGroupInviteRequest { code, request_id, validate_only } = request.into_inner();
        let operation = group_invite::accept(&code);
        let (answer, revision) =
            joiner.write(operation, Meta { request_id, validate_only }).await?;
        let role_binding = message!(answer, Answer::RoleBinding, objects::role_binding);
        Ok(Response::new(v1::AcceptGroupInviteResponse { role_binding, revision }))
    }
}
