//! The generated service of account associations.

use capstan_iam::Response as Answer;
use capstan_proto::iam::v1;
use capstan_proto::iam::v1::account_association_service_server::AccountAssociationService;
use tonic::{Request, Response};

use super::super::kinds::AccountAssociations;
use super::super::service::{Iam, ListRequest, ListResponse, Meta};
use super::super::{account_association, get, list, objects};
use super::RpcResult;
use crate::error::CallError;
use crate::methods::Rpc;

#[tonic::async_trait]
impl AccountAssociationService for Iam {
    async fn create_account_association(
        &self,
        request: Request<v1::CreateAccountAssociationRequest>,
    ) -> RpcResult<v1::CreateAccountAssociationResponse> {
        let (answer, revision) =
            write!(self, request, "iam.CreateAccountAssociation", account_association::create);
        let account_association =
            message!(answer, Answer::AccountAssociation, objects::account_association);
        Ok(Response::new(v1::CreateAccountAssociationResponse { account_association, revision }))
    }

    async fn get_account_association(
        &self,
        request: Request<v1::GetAccountAssociationRequest>,
    ) -> RpcResult<v1::GetAccountAssociationResponse> {
        let (account_association, revision) = get!(self, request, get::account_association);
        Ok(Response::new(v1::GetAccountAssociationResponse {
            account_association: Some(account_association),
            revision,
        }))
    }

    async fn list_account_associations(
        &self,
        request: Request<v1::ListAccountAssociationsRequest>,
    ) -> RpcResult<v1::ListAccountAssociationsResponse> {
        let ListResponse { entries, next_page_token, revision, .. } =
            list!(self, request, "iam.ListAccountAssociations", list::page::<AccountAssociations>);
        let account_associations = entries;
        Ok(Response::new(v1::ListAccountAssociationsResponse {
            account_associations,
            next_page_token,
            revision,
        }))
    }

    async fn update_account_association(
        &self,
        request: Request<v1::UpdateAccountAssociationRequest>,
    ) -> RpcResult<v1::UpdateAccountAssociationResponse> {
        let (answer, revision) =
            write!(self, request, "iam.UpdateAccountAssociation", account_association::update);
        let account_association =
            message!(answer, Answer::AccountAssociation, objects::account_association);
        Ok(Response::new(v1::UpdateAccountAssociationResponse { account_association, revision }))
    }

    async fn delete_account_association(
        &self,
        request: Request<v1::DeleteAccountAssociationRequest>,
    ) -> RpcResult<v1::DeleteAccountAssociationResponse> {
        let (_, revision) =
            write!(self, request, "iam.DeleteAccountAssociation", account_association::delete);
        Ok(Response::new(v1::DeleteAccountAssociationResponse { revision }))
    }
}
