//! The life of the server: bind, load, prove, serve, drain.

mod config;
mod readiness;
mod services;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::admission::Permits;
use crate::envoy::routes::{RoutesFile, Table};
use crate::feed::file::{self, PolicyFile};
use crate::feed::published::{Published, Retention};
use crate::feed::reload::{self, Documents, Reload, Wake};
use crate::grpc::page::PageKey;
use crate::http::{self, Phase};
use crate::limits::DRAIN_MAX;
use crate::telemetry::decision_log::DecisionLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;
use crate::transport::listen::Listener;
use crate::transport::workers::Workers;
use readiness::Readiness;
use services::Shared;

pub use crate::transport::listen::Address;
pub use crate::transport::workers::Runtime;
pub use config::Config;

/// A server that has bound its addresses and answers nothing yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    grpc: Vec<Listener>,
    http: Option<TcpListener>,
    metrics: Arc<Metrics>,
    log: Option<DecisionLog>,
    traces: Option<Traces>,
    page_key: PageKey,
}

impl Server {
    /// Binds every address, and opens the decision log.
    ///
    /// # Errors
    ///
    /// The configuration is wrong, an address is taken, the log's file cannot be opened, or the endpoint of
    /// traces is malformed.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        config.check()?;
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
        let log = config.decision_log.as_ref();
        let log = log.map(|to| DecisionLog::open(to, &config.limits, config.clock, &metrics));
        let log = log.transpose()?;
        let traces = config.traces.as_ref().map(Traces::open).transpose()?;
        let page_key = config.page_key.clone().map_or_else(PageKey::random, Ok)?;
        Ok(Self { config, grpc, http, metrics, log, traces, page_key })
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
        let Self { config, grpc, http, metrics, log, traces, page_key } = self;
        let (health, health_service) = tonic_health::server::health_reporter();
        let readiness = Readiness::new(health).await;
        let (cut, tasks) = (CancellationToken::new(), TaskTracker::new());
        let shared = Shared {
            published: Arc::new(Published::new(Retention::from(&config.limits))),
            table: Arc::new(ArcSwap::from_pointee(Table::default())),
            metrics: Arc::clone(&metrics),
            log: log.clone(),
            traces: traces.clone(),
            page_key,
            permits: Permits::new(&config.limits),
            draining: cut.clone(),
        };
        let serve = |incoming, stop| shared.serve(&config, health_service.clone(), incoming, stop);
        let workers = Workers::start(config.runtime, serve, &config.limits, &cut, &tasks)?;
        for listener in grpc {
            tracing::info!(address = %listener.address(), "listening for gRPC");
            tasks.spawn(workers.accept(listener, Arc::clone(&metrics), cut.clone()));
        }
        if let Some(listener) = http {
            tracing::info!(address = %listener.local_addr()?, "listening for HTTP");
            let router = http::router(readiness.phase(), &metrics);
            tasks.spawn(http::serve(listener, router, config.limits, cut.clone()));
        }
        tasks.close();

        tokio::pin!(stop);
        let mut documents = documents(&config, &shared);
        let mut outcome = tokio::select! {
            loaded = reload::load_all(&mut documents) => loaded,
            // A signal during the load: nothing to drain, and no reason to wait for the load.
            () = &mut stop => {
                cut.cancel();
                return Ok(());
            }
        };
        if outcome.is_ok() {
            readiness.set(Phase::Ready).await;
            ready();
            log.iter().for_each(DecisionLog::begin);
            tokio::select! {
                () = reload::run(&mut documents, wakes, reload) => {}
                () = &mut stop => {}
                () = cut.cancelled() => outcome = Err(anyhow!("a worker has ended; the log may say why")),
            }
            tracing::info!("draining");
            readiness.set(Phase::Draining).await;
            sleep(config.drain_delay.min(DRAIN_MAX)).await;
        }
        cut.cancel();
        readiness.end().await;
        // tonic waits for peers for ever, and some never finish.
        let rest = DRAIN_MAX.saturating_sub(config.drain_delay);
        match tokio::time::timeout(rest, tasks.wait()).await {
            Ok(()) => tracing::info!("stopped"),
            Err(_) => tracing::warn!("stopped, cutting off connections that did not close"),
        }
        drop(workers);
        tokio::join!(
            async {
                if let Some(log) = &log {
                    log.finish().await
                }
            },
            async {
                if let Some(traces) = &traces {
                    traces.finish().await
                }
            },
        );
        outcome
    }
}

/// The routes load first: no request is decided without them.
fn documents(config: &Config, shared: &Shared) -> Documents {
    let (published, metrics) = (&shared.published, &shared.metrics);
    let (source, catalogs, clock) = (config.source.clone(), config.catalogs.clone(), config.clock);
    let feed = file::Config { source, catalogs, clock };
    let (path, table) = (config.routes.clone(), Arc::clone(&shared.table));
    vec![
        Box::new(RoutesFile::new(path, table, Arc::clone(published), Arc::clone(metrics))),
        Box::new(PolicyFile::new(feed, Arc::clone(published), Arc::clone(metrics))),
    ]
}
