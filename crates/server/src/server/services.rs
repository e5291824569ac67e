//! The services of one worker, and the layers in front of them.
//!
//! ```text
//! transport ─▶ admission ─▶ fast check ─▶ raw batches, role service, Envoy's, health, reflection
//! ```

use std::convert::Infallible;
use std::sync::Arc;

use arc_swap::ArcSwap;
use capstan_proto::v1::role_service_server::RoleServiceServer;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::http::Request;
use tonic::server::NamedService;
use tonic::transport::Server as Grpc;

use super::Config;
use crate::admission::{Admission, Permits};
use crate::ask::Ask;
use crate::envoy;
use crate::envoy::ext_authz::{AuthorizationService, ExtAuthz};
use crate::envoy::routes::{RoutesFile, Table};
use crate::feed::file::{self, PolicyFile};
use crate::feed::published::{Published, Retention};
use crate::feed::reload::Documents;
use crate::grpc::decision::Services;
use crate::grpc::fast_check::{FastCheckLayer, FastCheckState};
use crate::grpc::page::PageKey;
use crate::grpc::raw_batches::RawBatches;
use crate::jitter::jittered;
use crate::limits::{CONNECTION_AGE_JITTER_PART, CONNECTION_STREAMS_MAX, HEADER_BYTES_MAX};
use crate::methods::Rpc;
use crate::telemetry::decision_log::DecisionLog;
use crate::telemetry::metrics::{Metrics, WorkerMetrics};
use crate::telemetry::traces::Traces;
use crate::transport::workers::{Incoming, Runtime, ServeFuture};

/// The state that the services of all workers share.
pub(super) struct Shared {
    published: Arc<Published>,
    table: Arc<ArcSwap<Table>>,
    metrics: Arc<Metrics>,
    log: Option<DecisionLog>,
    traces: Option<Traces>,
    page_key: PageKey,
    permits: Arc<Permits>,
    /// Ends streams when the drain begins.
    draining: CancellationToken,
}

impl Shared {
    pub(super) fn new(
        config: &Config,
        (metrics, log, traces): (&Arc<Metrics>, Option<DecisionLog>, Option<Traces>),
        page_key: PageKey,
        draining: &CancellationToken,
    ) -> Self {
        Self {
            published: Arc::new(Published::new(Retention::from(&config.limits))),
            table: Arc::new(ArcSwap::from_pointee(Table::default())),
            metrics: Arc::clone(metrics),
            log,
            traces,
            page_key,
            permits: Permits::new(&config.limits),
            draining: draining.clone(),
        }
    }

    /// The documents that feed the services. The routes load first, because no request of Envoy may
    /// be decided without them.
    pub(super) fn documents(&self, config: &Config) -> Documents {
        let (published, metrics) = (&self.published, &self.metrics);
        let (source, catalogs) = (config.source.clone(), config.catalogs.clone());
        let feed = file::Config { source, catalogs, clock: config.clock };
        let (path, table) = (config.routes.clone(), Arc::clone(&self.table));
        vec![
            Box::new(RoutesFile::new(path, table, Arc::clone(published), Arc::clone(metrics))),
            Box::new(PolicyFile::new(feed, Arc::clone(published), Arc::clone(metrics))),
        ]
    }

    /// Serves the connections of one worker until `stop`. Reference counts that every call changes
    /// belong to the worker, so that cores share no such counter.
    ///
    /// # Errors
    ///
    /// The descriptors for reflection are invalid.
    pub(super) fn serve<H>(
        &self,
        config: &Config,
        health: H,
        incoming: Incoming,
        stop: CancellationToken,
    ) -> anyhow::Result<ServeFuture>
    where
        H: tower::Service<Request<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        H::Response: axum::response::IntoResponse,
        H::Future: Send + 'static,
    {
        let limits = config.limits;
        let most = limits.message_bytes_max;
        let metrics = WorkerMetrics::new(&self.metrics);
        let ask = Ask::new(metrics.clone(), self.log.clone());
        let computing = match config.runtime {
            Runtime::PerCore(_) => limits.computing_max.min(1),
            Runtime::Callers => limits.computing_max,
        };
        let services = Arc::new(Services {
            published: Arc::clone(&self.published),
            ask: ask.clone(),
            traced: self.traces.is_some(),
            clock: config.clock,
            page_key: self.page_key.clone(),
            draining: self.draining.clone(),
            computing: Arc::new(Semaphore::new(computing.min(Semaphore::MAX_PERMITS))),
        });
        let plain = Arc::new(FastCheckState {
            published: Arc::clone(&self.published),
            ask: ask.clone(),
            clock: config.clock,
            message_bytes_max: most,
        });
        let ext_authz = ExtAuthz {
            published: Arc::clone(&self.published),
            table: Arc::clone(&self.table),
            ask,
            metrics: Arc::clone(&self.metrics),
            clock: config.clock,
        };
        let error_response =
            |rpc, error: &_| (rpc == Rpc::EXT_AUTHZ).then(|| envoy::answer::error_response(error));
        let (traces, permits) = (self.traces.clone(), &self.permits);
        let admission = Admission::new(limits, permits, metrics, traces, error_response);
        let mut router = Grpc::builder()
            .max_concurrent_streams(CONNECTION_STREAMS_MAX)
            .http2_max_header_list_size(HEADER_BYTES_MAX)
            .http2_keepalive_interval(Some(limits.keepalive_interval))
            .http2_keepalive_timeout(Some(limits.keepalive_timeout))
            // Without grace: with a grace period tonic cuts connections off and sends no GOAWAY
            // before it does.
            .max_connection_age(jittered(limits.connection_age, CONNECTION_AGE_JITTER_PART))
            .layer(admission)
            .layer(FastCheckLayer(plain))
            .add_service(health)
            .add_service(RawBatches::new(Arc::clone(&services), most))
            .add_service(
                RoleServiceServer::from_arc(services)
                    .max_decoding_message_size(most)
                    .max_encoding_message_size(most),
            )
            .add_service(AuthorizationService::new(ext_authz, most));
        if config.reflection {
            let schema = || {
                tonic_reflection::server::Builder::configure()
                    .register_encoded_file_descriptor_set(capstan_proto::DESCRIPTOR_SET)
                    .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            };
            // Clients use either version of reflection.
            router =
                router.add_service(schema().build_v1()?).add_service(schema().build_v1alpha()?);
        }
        Ok(Box::pin(router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned())))
    }
}
