//! Handles BatchCheck and StreamCheck before the generated service decodes them. The names of a
//! batch are borrowed from its bytes (`capstan_proto::plain`), which makes a batch of 64 checks a
//! third cheaper; a stream's messages are not copied, either. All other methods go to the generated service.

use std::convert::Infallible;
use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use capstan_proto::codec::Codec;
use capstan_proto::contract::ENCODING_KEY;
use capstan_proto::plain::BatchRequest;
use capstan_proto::v1::BatchCheckResponse;
use capstan_proto::v1::decision_service_server::DecisionServiceServer;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::{Status, Streaming};

use super::decision::{ResponseStream, Services};
use super::raw_stream::{self, Batches};
use crate::askers::Asker;
use crate::methods::Rpc;

/// The decision service, with batches that borrow their names.
#[derive(Clone, Debug)]
pub(crate) struct RawBatches {
    services: Arc<Services>,
    others: DecisionServiceServer<Services>,
    message_bytes_max: usize,
}

impl RawBatches {
    pub(crate) fn new(services: Arc<Services>, message_bytes_max: usize) -> Self {
        let others = DecisionServiceServer::from_arc(Arc::clone(&services))
            .max_decoding_message_size(message_bytes_max)
            .max_encoding_message_size(message_bytes_max);
        Self { services, others, message_bytes_max }
    }

    fn grpc(&self) -> Grpc<Codec<BatchCheckResponse, BatchRequest>> {
        let most = Some(self.message_bytes_max);
        Grpc::new(Codec::default()).apply_max_message_size_config(most, most)
    }
}

impl NamedService for RawBatches {
    const NAME: &'static str = <DecisionServiceServer<Services> as NamedService>::NAME;
}

type BoxFuture<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl tower::Service<Request<Body>> for RawBatches {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Response<Body>, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let rpc = Rpc::from_path(request.uri().path());
        let (mut grpc, services) = (self.grpc(), Arc::clone(&self.services));
        if rpc == Rpc::BATCH_CHECK {
            Box::pin(async move { Ok(grpc.unary(BatchMethods(services), request).await) })
        } else if rpc == Rpc::STREAM_CHECK {
            if request.headers().contains_key(ENCODING_KEY) {
                return Box::pin(async move {
                    Ok(grpc.streaming(BatchMethods(services), request).await)
                });
            }
            let asker = match Asker::of_call(request.extensions()) {
                Ok(asker) => asker,
                Err(error) => return Box::pin(ready(Ok(Status::from(error).into_http()))),
            };
            let batches = Batches::new(request.into_body(), self.message_bytes_max);
            Box::pin(ready(Ok(raw_stream::response(services.stream(batches, asker)))))
        } else {
            tower::Service::call(&mut self.others, request)
        }
    }
}

struct BatchMethods(Arc<Services>);

impl UnaryService<BatchRequest> for BatchMethods {
    type Response = BatchCheckResponse;
    type Future = BoxFuture<tonic::Response<BatchCheckResponse>, Status>;

    fn call(&mut self, request: tonic::Request<BatchRequest>) -> Self::Future {
        let services = Arc::clone(&self.0);
        Box::pin(async move {
            let mut asker = Asker::of_call(request.extensions())?;
            let answer = services.batch(Rpc::BATCH_CHECK, request.into_inner(), &mut asker).await?;
            Ok(tonic::Response::new(answer))
        })
    }
}

impl StreamingService<BatchRequest> for BatchMethods {
    type Response = BatchCheckResponse;
    type ResponseStream = ResponseStream;
    type Future = BoxFuture<tonic::Response<ResponseStream>, Status>;

    fn call(&mut self, request: tonic::Request<Streaming<BatchRequest>>) -> Self::Future {
        let services = Arc::clone(&self.0);
        Box::pin(async move {
            let asker = Asker::of_call(request.extensions())?;
            Ok(tonic::Response::new(services.stream(request.into_inner(), asker)))
        })
    }
}
