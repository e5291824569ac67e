//! The generated service of group role mappings.

use capstan_iam::Response as Answer;
use capstan_proto::iam::v1;
use capstan_proto::iam::v1::group_role_mapping_service_server::GroupRoleMappingService;
use tonic::{Request, Response};

use super::super::kinds::GroupRoleMappings;
use super::super::service::{Iam, ListRequest, ListResponse, Meta};
use super::super::{get, group_role_mapping, list, objects};
use super::RpcResult;
use crate::error::CallError;
use crate::methods::Rpc;

#[tonic::async_trait]
impl GroupRoleMappingService for Iam {
    async fn create_group_role_mapping(
        &self,
        request: Request<v1::CreateGroupRoleMappingRequest>,
    ) -> RpcResult<v1::CreateGroupRoleMappingResponse> {
        let (answer, revision) =
            write!(self, request, "iam.CreateGroupRoleMapping", group_role_mapping::create);
        let group_role_mapping =
            message!(answer, Answer::GroupRoleMapping, objects::group_role_mapping);
        Ok(Response::new(v1::CreateGroupRoleMappingResponse { group_role_mapping, revision }))
    }

    async fn get_group_role_mapping(
        &self,
        request: Request<v1::GetGroupRoleMappingRequest>,
    ) -> RpcResult<v1::GetGroupRoleMappingResponse> {
        let (group_role_mapping, revision) = get!(self, request, get::group_role_mapping);
        Ok(Response::new(v1::GetGroupRoleMappingResponse {
            group_role_mapping: Some(group_role_mapping),
            revision,
        }))
    }

    async fn list_group_role_mappings(
        &self,
        request: Request<v1::ListGroupRoleMappingsRequest>,
    ) -> RpcResult<v1::ListGroupRoleMappingsResponse> {
        let ListResponse { entries, next_page_token, revision, .. } =
            list!(self, request, "iam.ListGroupRoleMappings", list::page::<GroupRoleMappings>);
        let group_role_mappings = entries;
        Ok(Response::new(v1::ListGroupRoleMappingsResponse {
            group_role_mappings,
            next_page_token,
            revision,
        }))
    }

    async fn update_group_role_mapping(
        &self,
        request: Request<v1::UpdateGroupRoleMappingRequest>,
    ) -> RpcResult<v1::UpdateGroupRoleMappingResponse> {
        let (answer, revision) =
            write!(self, request, "iam.UpdateGroupRoleMapping", group_role_mapping::update);
        let group_role_mapping =
            message!(answer, Answer::GroupRoleMapping, objects::group_role_mapping);
        Ok(Response::new(v1::UpdateGroupRoleMappingResponse { group_role_mapping, revision }))
    }

    async fn delete_group_role_mapping(
        &self,
        request: Request<v1::DeleteGroupRoleMappingRequest>,
    ) -> RpcResult<v1::DeleteGroupRoleMappingResponse> {
        let (_, revision) =
            write!(self, request, "iam.DeleteGroupRoleMapping", group_role_mapping::delete);
        Ok(Response::new(v1::DeleteGroupRoleMappingResponse { revision }))
    }
}
