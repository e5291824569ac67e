//! The generated service of identity providers.

use capstan_iam::Response as Answer;
use capstan_proto::iam::v1;
use capstan_proto::iam::v1::identity_provider_service_server::IdentityProviderService;
use tonic::{Request, Response};

use super::super::kinds::IdentityProviders;
use super::super::service::{Iam, ListRequest, ListResponse, Meta};
use super::super::{get, identity_provider, list, objects};
use super::RpcResult;
use crate::error::CallError;
use crate::methods::Rpc;

#[tonic::async_trait]
impl IdentityProviderService for Iam {
    async fn create_identity_provider(
        &self,
        request: Request<v1::CreateIdentityProviderRequest>,
    ) -> RpcResult<v1::CreateIdentityProviderResponse> {
        let (answer, revision) =
            write!(self, request, "iam.CreateIdentityProvider", identity_provider::create);
        let identity_provider =
            message!(answer, Answer::IdentityProvider, objects::identity_provider);
        Ok(Response::new(v1::CreateIdentityProviderResponse { identity_provider, revision }))
    }

    async fn get_identity_provider(
        &self,
        request: Request<v1::GetIdentityProviderRequest>,
    ) -> RpcResult<v1::GetIdentityProviderResponse> {
        let (identity_provider, revision) = get!(self, request, get::identity_provider);
        Ok(Response::new(v1::GetIdentityProviderResponse {
            identity_provider: Some(identity_provider),
            revision,
        }))
    }

    async fn list_identity_providers(
        &self,
        request: Request<v1::ListIdentityProvidersRequest>,
    ) -> RpcResult<v1::ListIdentityProvidersResponse> {
        let ListResponse { entries, next_page_token, revision, .. } =
            list!(self, request, "iam.ListIdentityProviders", list::page::<IdentityProviders>);
        let identity_providers = entries;
        Ok(Response::new(v1::ListIdentityProvidersResponse {
            identity_providers,
            next_page_token,
            revision,
        }))
    }

    async fn update_identity_provider(
        &self,
        request: Request<v1::UpdateIdentityProviderRequest>,
    ) -> RpcResult<v1::UpdateIdentityProviderResponse> {
        let (answer, revision) =
            write!(self, request, "iam.UpdateIdentityProvider", identity_provider::update);
        let identity_provider =
            message!(answer, Answer::IdentityProvider, objects::identity_provider);
        Ok(Response::new(v1::UpdateIdentityProviderResponse { identity_provider, revision }))
    }

    async fn delete_identity_provider(
        &self,
        request: Request<v1::DeleteIdentityProviderRequest>,
    ) -> RpcResult<v1::DeleteIdentityProviderResponse> {
        let (_, revision) =
            write!(self, request, "iam.DeleteIdentityProvider", identity_provider::delete);
        Ok(Response::new(v1::DeleteIdentityProviderResponse { revision }))
    }
}
