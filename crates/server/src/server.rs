//! The life of the server: bind, load, prove, serve, drain.
//!
//! **Invariant**: nothing says ready before a snapshot has passed its self-check, and everything
//! says not ready before the drain begins.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, anyhow, bail};
use arc_swap::ArcSwap;
use capstan_policy::Catalogs;
use capstan_proto::v1::decision_service_server::DecisionServiceServer;
use capstan_proto::v1::role_service_server::RoleServiceServer;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::{Server as Grpc, server::Router};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::layer::util::{Identity, Stack};

use crate::admission::{Admission, Places, jittered};
use crate::clock::Clock;
use crate::envoy::ext_authz::ExtAuthz;
use crate::envoy::routes::Table;
use crate::envoy::service as ext_authz;
use crate::feed::file::{Loader, Reload, Wake};
use crate::feed::published::Published;
use crate::feed::source::Source;
use crate::grpc::decision::Services;
use crate::grpc::fast_check::Direct;
use crate::http::{self, Phase};
use crate::limits::{
    CONNECTION_AGE_JITTER_PART, CONNECTION_STREAMS_MAX, DRAIN_MAX, HEADER_BYTES_MAX,
    HTTP_DRAIN_MAX, Limits,
};
use crate::telemetry::decision_log::{DecisionLog, Target};
use crate::telemetry::metrics::{Metrics, WorkerMetrics};
use crate::telemetry::traces::{Export, Traces};
use crate::transport::listen::Listener;
use crate::transport::workers::{Incoming, Serving, Workers};

pub use crate::transport::listen::Address;
pub use crate::transport::workers::Runtime;

/// gRPC health names that mean: loaded and self-checked (contract, section 9).
const HEALTH_NAMES: [&str; 2] = ["", "capstan.v1.DecisionService"];

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the policy comes from.
    pub source: Source,
    /// Catalogs that the policy can name.
    pub catalogs: Catalogs,
    /// gRPC addresses.
    pub listen: Vec<Address>,
    /// HTTP address, if any.
    pub http: Option<SocketAddr>,
    /// Whether addresses other machines can reach may be served without TLS.
    pub insecure_plaintext: bool,
    /// Whether clients may ask for the schema.
    pub reflection: bool,
    /// How long to go on serving after the signal, saying not ready, so that balancers see it.
    pub drain_delay: Duration,
    /// The route table that requests of Envoy are held against, if there is one.
    pub routes: Option<PathBuf>,
    /// Where decisions are logged, if they are.
    pub decision_log: Option<Target>,
    /// Where traces go, if calls are traced.
    pub traces: Option<Export>,
    /// What time it is.
    pub clock: Clock,
    /// How much it takes.
    pub limits: Limits,
    /// Where calls are answered.
    pub runtime: Runtime,
}

/// A server that has bound its addresses and answers nothing yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    grpc: Vec<Listener>,
    http: Option<TcpListener>,
    metrics: Arc<Metrics>,
    log: Option<DecisionLog>,
    traces: Option<Traces>,
}

impl Server {
    /// Binds every address, and opens the decision log.
    ///
    /// # Errors
    ///
    /// An address is taken, or would be served to other machines in plain text; or the log's file
    /// cannot be opened, or the traces' endpoint is none.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        if config.listen.is_empty() {
            bail!("nowhere to listen: give --listen");
        }
        let tcp = config.listen.iter().filter_map(|address| match address {
            Address::Tcp(address) => Some(address),
            Address::Unix(_) => None,
        });
        if let Some(open) = tcp.chain(&config.http).find(|address| !address.ip().is_loopback())
            && !config.insecure_plaintext
        {
            bail!(
                "{open} can be reached by other machines, and would be served in plain text: \
                 listen on 127.0.0.1, or give --insecure-plaintext to accept that"
            );
        }
        if !config.clock.is_plausible() {
            bail!(
                "the machine's clock says that it is before 2026: bindings whose time is over would \
                 count again; set the clock"
            );
        }
        let mut grpc = Vec::new();
        for address in &config.listen {
            grpc.push(Listener::bind(address).await?);
        }
        let http = match config.http {
            Some(address) => Some(TcpListener::bind(address).await.with_context(|| {
                format!("cannot listen on {address} (another address: --http; none: --http none)")
            })?),
            None => None,
        };
        let metrics = Arc::new(Metrics::default());
        let Config { clock, limits, .. } = &config;
        let log = config.decision_log.as_ref();
        let log = log.map(|target| DecisionLog::open(target, limits, *clock, &metrics));
        let log = log.transpose()?;
        let traces = config.traces.as_ref().map(Traces::open).transpose()?;
        Ok(Self { config, grpc, http, metrics, log, traces })
    }

    /// The gRPC addresses, with the ports that were picked.
    #[must_use]
    pub fn grpc_addresses(&self) -> Vec<Address> {
        self.grpc.iter().map(Listener::address).collect()
    }

    /// The HTTP address, with the port that was picked.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// The decision log, for whoever rotates it.
    #[must_use]
    pub fn decision_log(&self) -> Option<DecisionLog> {
        self.log.clone()
    }

    /// Loads the policy and serves it until `stop`, then drains. `ready` is called once, when the
    /// server is. Whoever holds the other end of `reload` can ask for the policy to be loaded
    /// again; a changed file asks for itself.
    ///
    /// # Errors
    ///
    /// The policy does not load, or a listener fails.
    pub async fn run(
        self,
        stop: impl Future<Output = ()>,
        (reload, wakes): (Reload, mpsc::Receiver<Wake>),
        ready: impl FnOnce(),
    ) -> anyhow::Result<()> {
        let (health, health_service) = tonic_health::server::health_reporter();
        // The reporter starts with "" as SERVING.
        report(&health, ServingStatus::NotServing).await;
        let phase = watch::Sender::new(Phase::Starting);
        let published = Arc::new(Published::default());
        let table = Arc::new(ArcSwap::from_pointee(Table::default()));
        let (metrics, log, traces) = (self.metrics, self.log, self.traces);
        let cut = CancellationToken::new();
        let tasks = TaskTracker::new();

        let places = Places::new(&self.config.limits);
        let turns = match self.config.runtime {
            Runtime::PerCore(_) => self.config.limits.computing_max.min(1),
            Runtime::Callers => self.config.limits.computing_max,
        };
        // One for each worker: what a call counts references of is then not shared between cores.
        let serve = |incoming: Incoming, stop: CancellationToken| {
            let metrics = WorkerMetrics::new(&metrics);
            let services = Services::new(
                Arc::clone(&published),
                metrics.clone(),
                log.clone(),
                traces.is_some(),
                self.config.clock,
                turns,
                cut.clone(),
            );
            let limits = self.config.limits;
            let admission = Admission::new(
                limits,
                &places,
                metrics.clone(),
                traces.clone(),
                Some(Direct::new(services.clone(), limits.message_bytes_max)),
            );
            let ext_authz = ExtAuthz {
                published: Arc::clone(&published),
                table: Arc::clone(&table),
                metrics,
                log: log.clone(),
                clock: self.config.clock,
            };
            let envoy = ext_authz::Service::new(ext_authz, limits.message_bytes_max);
            let services = (services, envoy);
            let router = router(services, admission, health_service.clone(), &self.config)?;
            let serving = router.serve_with_incoming_shutdown(incoming, stop.cancelled_owned());
            Ok(Box::pin(serving) as Serving)
        };
        let workers =
            Workers::start(self.config.runtime, serve, &self.config.limits, &cut, &tasks)?;
        for listener in self.grpc {
            tracing::info!(address = %listener.address(), "listening for gRPC");
            tasks.spawn(workers.accept(listener, Arc::clone(&metrics), cut.clone()));
        }
        if let Some(listener) = self.http {
            tracing::info!(address = %listener.local_addr()?, "listening for HTTP");
            let listener = crate::transport::http::Limited::new(listener, &self.config.limits);
            let serving = axum::serve(listener, http::router(phase.subscribe(), &metrics))
                .with_graceful_shutdown(cut.clone().cancelled_owned());
            let cut = cut.clone();
            tasks.spawn(async move {
                tokio::select! {
                    served = serving => if let Err(error) = served {
                        tracing::error!(%error, "the HTTP listener failed");
                    },
                    // An idle connection would hold the drain.
                    () = async { cut.cancelled().await; sleep(HTTP_DRAIN_MAX).await } => {}
                }
            });
        }
        tasks.close();

        tokio::pin!(stop);
        let mut loader =
            Loader::new(self.config.clone(), Arc::clone(&published), table, Arc::clone(&metrics));
        let mut outcome = tokio::select! {
            loaded = loader.load_all() => loaded,
            // A signal during the load: nothing to drain for, and no reason to wait for the load.
            () = &mut stop => {
                cut.cancel();
                return Ok(());
            }
        };
        if outcome.is_ok() {
            phase.send_replace(Phase::Ready);
            report(&health, ServingStatus::Serving).await;
            ready();
            if let Some(log) = &log {
                log.begin();
            }
            tokio::select! {
                () = loader.run(wakes, reload) => {}
                () = &mut stop => {}
                () = cut.cancelled() => outcome = Err(anyhow!("a worker has ended; the log may say why")),
            }
            tracing::info!("draining");
            phase.send_replace(Phase::Draining);
            report(&health, ServingStatus::NotServing).await;
            sleep(self.config.drain_delay.min(DRAIN_MAX)).await;
        }
        cut.cancel();
        // Ends the health watches of clients, which would hold the drain: they have heard.
        for name in HEALTH_NAMES {
            health.clone().clear_service_status(name).await;
        }
        // tonic waits for peers for ever, and some never finish.
        let rest = DRAIN_MAX.saturating_sub(self.config.drain_delay);
        match tokio::time::timeout(rest, tasks.wait()).await {
            Ok(()) => tracing::info!("stopped"),
            Err(_) => tracing::warn!("stopped, cutting off connections that did not close"),
        }
        drop(workers);
        let logged = async {
            if let Some(log) = &log {
                log.finish().await
            }
        };
        let exported = async {
            if let Some(traces) = &traces {
                traces.finish().await
            }
        };
        tokio::join!(logged, exported);
        outcome
    }
}

async fn report(health: &HealthReporter, status: ServingStatus) {
    for name in HEALTH_NAMES {
        health.set_service_status(name, status).await;
    }
}

fn router(
    (services, envoy): (Services, ext_authz::Service),
    admission: Admission,
    health: impl tonic::server::NamedService
    + tower::Service<
        tonic::codegen::http::Request<tonic::body::Body>,
        Response: axum::response::IntoResponse,
        Error = std::convert::Infallible,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static,
    config: &Config,
) -> anyhow::Result<Router<Stack<Admission, Identity>>> {
    let limits = config.limits;
    let mut router = Grpc::builder()
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        // No grace: with one, tonic cuts connections off and never says that it will.
        .max_connection_age(jittered(limits.connection_age, CONNECTION_AGE_JITTER_PART))
        .layer(admission)
        .add_service(health)
        .add_service(
            DecisionServiceServer::new(services.clone())
                .max_decoding_message_size(limits.message_bytes_max)
                .max_encoding_message_size(limits.message_bytes_max),
        )
        .add_service(
            RoleServiceServer::new(services)
                .max_decoding_message_size(limits.message_bytes_max)
                .max_encoding_message_size(limits.message_bytes_max),
        )
        .add_service(envoy);
    if config.reflection {
        let schema = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(capstan_proto::DESCRIPTOR_SET)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        // Clients differ in which version they ask for.
        router = router.add_service(schema().build_v1()?).add_service(schema().build_v1alpha()?);
    }
    Ok(router)
}
