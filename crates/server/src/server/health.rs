//! The health service. A watch of a service that is not served says SERVICE_UNKNOWN and stays open, as the
//! protocol wants it; the library would end it with NOT_FOUND.

use std::future::ready;
use std::pin::Pin;

use futures_util::{Stream, StreamExt as _, stream};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_health::server::{HealthReporter, HealthService};

/// The service of what this reporter reports.
pub(super) fn service(reporter: &HealthReporter) -> HealthServer<impl Health> {
    HealthServer::new(Watched(HealthService::from_health_reporter(reporter.clone())))
}

struct Watched(HealthService);

#[tonic::async_trait]
impl Health for Watched {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.check(request).await
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        match self.0.watch(request).await {
            Ok(known) => Ok(known.map(|changes| Box::pin(changes) as Self::WatchStream)),
            Err(status) if status.code() == Code::NotFound => {
                // It ends with the watches of the server itself, so that it does not delay the drain.
                let server = self.0.watch(Request::new(HealthCheckRequest::default())).await?;
                let until_the_end = server.into_inner().filter_map(|_| ready(None));
                let unknown = HealthCheckResponse { status: ServingStatus::ServiceUnknown.into() };
                let changes = stream::once(ready(Ok(unknown))).chain(until_the_end);
                Ok(Response::new(Box::pin(changes)))
            }
            Err(status) => Err(status),
        }
    }
}
