//! The gRPC service `envoy.service.auth.v3.Authorization`, on this project's own codec.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use capstan_proto::codec::Codec;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Code, Status};

use super::answer::instead_of;
use super::ext_authz::ExtAuthz;
use crate::error::CallError;
use crate::methods::EXT_AUTHZ_PATH;
use crate::telemetry::metrics::AuthorizationOutcome;
use crate::telemetry::traces::Trace;

/// The gRPC service.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    ext_authz: Arc<ExtAuthz>,
    message_bytes_max: usize,
}

impl Service {
    pub(crate) fn new(ext_authz: ExtAuthz, message_bytes_max: usize) -> Self {
        Self { ext_authz: Arc::new(ext_authz), message_bytes_max }
    }
}

impl NamedService for Service {
    const NAME: &'static str = "envoy.service.auth.v3.Authorization";
}

type Answering<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl tower::Service<Request<Body>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (check, most) = (Check(Arc::clone(&self.ext_authz)), self.message_bytes_max);
        let metrics = self.ext_authz.metrics.clone();
        Box::pin(async move {
            if request.uri().path() != EXT_AUTHZ_PATH {
                return Ok(Status::from(CallError::Unimplemented).into_http());
            }
            let codec = Codec::<CheckResponse, CheckRequest>::default();
            let mut grpc = Grpc::new(codec).apply_max_message_size_config(Some(most), Some(most));
            let answer = grpc.unary(check, request).await;
            let code = answer.headers().get("grpc-status");
            let refusal = match code.map(|code| Code::from_bytes(code.as_bytes())) {
                None | Some(Code::Ok) => return Ok(answer),
                Some(Code::OutOfRange) => CallError::TooLarge { bytes_max: most },
                // `check` makes no errors: these are tonic's, of bytes that it cannot read.
                Some(_) => CallError::Misframed,
            };
            metrics.authorized(AuthorizationOutcome::Malformed);
            Ok(instead_of(&refusal))
        })
    }
}

struct Check(Arc<ExtAuthz>);

impl UnaryService<CheckRequest> for Check {
    type Response = CheckResponse;
    type Future = Answering<tonic::Response<CheckResponse>, Status>;

    fn call(&mut self, request: tonic::Request<CheckRequest>) -> Self::Future {
        let ext_authz = Arc::clone(&self.0);
        Box::pin(async move {
            let trace = request.extensions().get::<Trace>().cloned();
            let answer = ext_authz.check(request.get_ref(), trace.as_ref()).await;
            Ok(tonic::Response::new(answer))
        })
    }
}
