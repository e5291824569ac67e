//! The gRPC services: each call takes a snapshot and answers from it.

use std::pin::Pin;
use std::sync::Arc;

use capstan_proto::v1::{
    self, decision_service_server::DecisionService, role_service_server::RoleService,
};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use crate::clock::Clock;
use crate::published::Published;
use crate::{RequestError, answer};

/// Answers from what is published.
#[derive(Clone, Debug)]
pub(crate) struct Services {
    published: Arc<Published>,
    clock: Clock,
}

impl Services {
    pub(crate) const fn new(published: Arc<Published>, clock: Clock) -> Self {
        Self { published, clock }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl DecisionService for Services {
    async fn check(&self, request: Request<v1::CheckRequest>) -> Answer<v1::CheckResponse> {
        let request = request.get_ref();
        let snapshot = self.published.read(request.consistency.as_ref()).await?;
        Ok(Response::new(answer::check(&snapshot, request, self.clock.now())?))
    }

    async fn batch_check(
        &self,
        request: Request<v1::BatchCheckRequest>,
    ) -> Answer<v1::BatchCheckResponse> {
        let request = request.get_ref();
        let snapshot = self.published.read(request.consistency.as_ref()).await?;
        Ok(Response::new(answer::batch_check(&snapshot, request, self.clock.now())?))
    }

    type StreamCheckStream =
        Pin<Box<dyn Stream<Item = Result<v1::BatchCheckResponse, Status>> + Send>>;

    async fn stream_check(
        &self,
        _: Request<Streaming<v1::BatchCheckRequest>>,
    ) -> Answer<Self::StreamCheckStream> {
        Err(RequestError::NotServed { call: "StreamCheck" }.into())
    }

    async fn list_capabilities(
        &self,
        request: Request<v1::ListCapabilitiesRequest>,
    ) -> Answer<v1::ListCapabilitiesResponse> {
        let request = request.get_ref();
        let snapshot = self.published.read(request.consistency.as_ref()).await?;
        Ok(Response::new(answer::list_capabilities(&snapshot, request, self.clock.now())?))
    }

    async fn list_identities(
        &self,
        _: Request<v1::ListIdentitiesRequest>,
    ) -> Answer<v1::ListIdentitiesResponse> {
        Err(RequestError::NotServed { call: "ListIdentities" }.into())
    }

    async fn list_scopes(
        &self,
        _: Request<v1::ListScopesRequest>,
    ) -> Answer<v1::ListScopesResponse> {
        Err(RequestError::NotServed { call: "ListScopes" }.into())
    }

    async fn explain(&self, _: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        Err(RequestError::NotServed { call: "Explain" }.into())
    }
}

#[tonic::async_trait]
impl RoleService for Services {
    async fn list_roles(
        &self,
        request: Request<v1::ListRolesRequest>,
    ) -> Answer<v1::ListRolesResponse> {
        let snapshot = self.published.read(None).await?;
        Ok(Response::new(answer::list_roles(&snapshot, request.get_ref())?))
    }
}
