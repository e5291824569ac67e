//! The generated service of identity providers.

use capstan_iam::{Operation, Response as Answer};
use capstan_proto::iam::v1;
use capstan_proto::iam::v1::identity_provider_service_server::IdentityProviderService;
use tonic::{Request, Response};

use super::super::kinds::IdentityProviders;
use super::super::reading::Reading;
use super::super::service::{Iam, ListRequest, ListResponse, Meta, warned};
use super::super::{get, identity_provider, list, objects};
use super::RpcResult;
use crate::RequestError;
use crate::discovery::Discovered;
use crate::error::CallError;
use crate::methods::Rpc;

/// Saves a provider after its issuer was asked. Gives the provider, the revision and a warning.
macro_rules! save {
    ($self:ident, $request:ident, $label:literal, $operation:path) => {{
        const RPC: Rpc = Rpc::labelled($label);
        let writer = $self.writer(RPC, &$request).await?;
        let reading = $self.reading(&$request, None).await?;
        let request = $request.into_inner();
        let (request_id, validate_only) = (request.request_id.clone(), request.validate_only);
        let operation = $operation(request)?;
        let warning = $self.discover(reading, operation.clone()).await?;
        let (answer, revision) =
            writer.write(operation, Meta { request_id, validate_only }).await?;
        let provider = message!(answer, Answer::IdentityProvider, objects::identity_provider);
        (provider, revision, warning)
    }};
}

impl Iam {
    /// Asks the issuer whose keys a provider will have by this operation. Gives a warning if it does not answer.
    ///
    /// # Errors
    ///
    /// What it answers gives no keys, or the store cannot be read.
    async fn discover(
        &self,
        reading: Reading,
        operation: Operation,
    ) -> Result<Option<String>, RequestError> {
        let caller = reading.identity().cloned();
        let issuer = self.blocking(reading, move |reading, viewer| {
            identity_provider::issuer_to_ask(reading, viewer, &operation)
        });
        let Some(issuer) = issuer.await? else { return Ok(None) };
        let discovered = match &self.webhooks {
            Some(webhooks) => webhooks.discover(caller, &issuer).await,
            None => Discovered::Unanswered("the server asks nobody without --public-url".into()),
        };
        match discovered {
            Discovered::Keys => Ok(None),
            Discovered::Unanswered(problem) => Ok(Some(format!(
                "the keys of {issuer} could not be read ({problem}): until they can be, no token of it is taken. If the server \
                 may not connect to it, give its keys (jwks)"
            ))),
            Discovered::Wrong(problem) => Err(RequestError::field(
                "identity_provider.oidc.issuer",
                format!("{problem}; correct the issuer, or give its keys (jwks)"),
            )),
        }
    }
}

#[tonic::async_trait]
impl IdentityProviderService for Iam {
    async fn create_identity_provider(
        &self,
        request: Request<v1::CreateIdentityProviderRequest>,
    ) -> RpcResult<v1::CreateIdentityProviderResponse> {
        let (identity_provider, revision, warning) =
            save!(self, request, "iam.CreateIdentityProvider", identity_provider::create);
        let response = v1::CreateIdentityProviderResponse { identity_provider, revision };
        Ok(warned(response, warning.as_deref()))
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
        let (identity_provider, revision, warning) =
            save!(self, request, "iam.UpdateIdentityProvider", identity_provider::update);
        let response = v1::UpdateIdentityProviderResponse { identity_provider, revision };
        Ok(warned(response, warning.as_deref()))
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
