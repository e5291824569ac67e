//! The life of a server, and the wiring of its rooms.
//!
//! ```text
//! Config ─▶ bind ─▶ load: routes, then policy with self-check ─▶ ready ─▶ serve ─▶ drain ─▶ stopped
//! ```
//!
//! **Invariants**: every address is bound before anything is loaded, and calls are answered as not
//! ready until the load is done. A drain ends after [`DRAIN_MAX`].
//!
//! Read `config`, `listeners`, this file, `services` (what one worker serves), then `readiness`.

mod config;
mod health;
mod listeners;
mod look;
mod readiness;
mod services;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use futures_util::future::OptionFuture;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::callers::Trust;
use crate::feed::journal;
use crate::feed::reload::{self, Reload, Wake};
use crate::http::Phase;
use crate::limits::DRAIN_MAX;
use crate::telemetry::decision_log::DecisionLog;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::traces::Traces;
use crate::transport::tls::Tls;
use crate::transport::workers::Workers;
use crate::webhooks::Webhooks;
use listeners::Listeners;
use readiness::Readiness;
use services::Shared;

pub use crate::grpc::page::PageKey;
pub use crate::transport::listen::{Address, SocketAccess};
pub use crate::transport::tls::{Options as TlsOptions, ensure_private_key};
pub use crate::transport::workers::Runtime;
pub use config::{Config, Feed, Misfit};
pub use look::look;

/// A server that has bound its addresses and does not serve yet.
#[derive(Debug)]
pub struct Server {
    config: Config,
    listeners: Listeners,
    metrics: Arc<Metrics>,
    log: Option<DecisionLog>,
    traces: Option<Traces>,
    page_key: PageKey,
    webhooks: Option<Webhooks>,
    trust: Trust,
    tls: Option<Tls>,
}

impl Server {
    /// Binds every address, and opens the decision log.
    ///
    /// # Errors
    ///
    /// The configuration is invalid, an address is in use, the file of the decision log cannot be
    /// opened, the endpoint of traces is malformed, a file of TLS or of keys of an issuer is wrong, or the system provides no random numbers.
    pub async fn bind(config: Config) -> anyhow::Result<Self> {
        config.check()?;
        let tls = config.tls.clone().map(Tls::open).transpose().context("TLS")?;
        let listeners = Listeners::bind(&config).await?;
        let metrics = Arc::new(Metrics::default());
        let open = |target| DecisionLog::open(target, &config.limits, config.clock, &metrics);
        let log = config.decision_log.as_ref().map(open).transpose()?;
        let traces = config.traces.as_ref().map(Traces::open).transpose()?;
        let page_key = config.page_key.clone().map_or_else(PageKey::random, Ok)?;
        let webhooks =
            config.webhooks.as_ref().map(|it| Webhooks::open(it, config.clock)).transpose()?;
        let trust = Trust::open(&config.tokens, webhooks.is_some())?;
        Ok(Self { config, listeners, metrics, log, traces, page_key, webhooks, trust, tls })
    }

    /// The bound gRPC addresses, with the ports that the system chose.
    #[must_use]
    pub fn grpc_addresses(&self) -> Vec<Address> {
        self.listeners.grpc_addresses()
    }

    /// The bound gRPC addresses for what manages alone, with the ports that the system chose.
    #[must_use]
    pub fn managing_addresses(&self) -> Vec<Address> {
        self.listeners.managing_addresses()
    }

    /// The management socket.
    #[must_use]
    pub fn management_address(&self) -> Option<Address> {
        self.listeners.management_address()
    }

    /// The bound HTTP address, with the port that the system chose.
    #[must_use]
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.listeners.http_address()
    }

    /// The bound address for probes, with the port that the system chose.
    #[must_use]
    pub fn probes_address(&self) -> Option<SocketAddr> {
        self.listeners.probes_address()
    }

    /// The decision log, for a log rotation to reopen.
    #[must_use]
    pub fn decision_log(&self) -> Option<DecisionLog> {
        self.log.clone()
    }

    /// Loads the policy and serves until `stop`, then drains. Calls `ready` once, when the first
    /// load has succeeded. A wake on the channel of `reload` loads the policy again; a changed file
    /// sends one.
    ///
    /// # Errors
    ///
    /// The first load fails, a worker cannot start, or a worker has ended. The drain comes first.
    pub async fn run(
        self,
        stop: impl Future<Output = ()>,
        (reload, wakes): (Reload, mpsc::Receiver<Wake>),
        ready: impl FnOnce(),
    ) -> anyhow::Result<()> {
        let Self { config, listeners, metrics, log, traces, page_key, webhooks, trust, tls } = self;
        let health = tonic_health::server::HealthReporter::new();
        let health_service = health::service(&health);
        let mut readiness = Readiness::new(health).await;
        let (cut, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (writes, queue) = journal::writer::queue(&metrics);
        let telemetry = (&metrics, log.clone(), traces.clone());
        let shared = Shared::new(&config, telemetry, (page_key, webhooks, trust), writes, &cut);
        if let Some(writable) = shared.writable() {
            let (reports, cut) = (readiness.report_writable(writable), cut.clone());
            tasks.spawn(async move { cut.run_until_cancelled(reports).await });
        }
        let calls = || shared.calls(&config, health_service.clone());
        let workers = Workers::start(
            config.runtime,
            calls,
            (&config.limits, &metrics, config.give_back),
            tls.as_ref(),
            &cut,
            &tasks,
        )?;
        let http = (readiness.phase(), &metrics, &shared);
        listeners.serve(&workers, http, health_service, (&config, tls.as_ref()), (&cut, &tasks))?;
        if let Some(tls) = tls {
            let (following, cut) = (tls.follow(Arc::clone(&metrics)), cut.clone());
            tasks.spawn(async move { cut.run_until_cancelled(following).await });
        }
        tasks.close();
        tokio::pin!(stop);
        let mut documents = shared.documents(&config, queue);
        let mut outcome = tokio::select! {
            loaded = reload::load_all(&mut documents) => loaded,
            // A signal during the first load: there is nothing to drain and no need to wait.
            () = &mut stop => {
                cut.cancel();
                return Ok(());
            }
        };
        if outcome.is_ok() {
            shared.deliver_events(config.clock)?;
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
        // Some clients never close their connections.
        let rest = DRAIN_MAX.saturating_sub(config.drain_delay);
        match tokio::time::timeout(rest, tasks.wait()).await {
            Ok(()) => tracing::info!("stopped"),
            Err(_) => tracing::warn!("stopped, cutting off connections that did not close"),
        }
        drop(workers);
        let finish_log = OptionFuture::from(log.as_ref().map(DecisionLog::finish));
        let finish_traces = OptionFuture::from(traces.as_ref().map(Traces::finish));
        tokio::join!(finish_log, finish_traces);
        outcome
    }
}
