//! The addresses of a server: bound before anything is loaded, then accepted from.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic_health::pb::health_server::{Health, HealthServer};

use super::Config;
use super::services::Shared;
use crate::http::{self, Phase, Protocols, Security};
use crate::telemetry::metrics::Metrics;
use crate::transport::listen::{Address, Listener, Serves, SocketAccess};
use crate::transport::tls::Tls;
use crate::transport::workers::Workers;

/// Bound addresses.
#[derive(Debug)]
pub(super) struct Listeners {
    grpc: Vec<Listener>,
    /// For what manages, and nothing else.
    manages: Vec<Listener>,
    management: Option<Listener>,
    http: Option<TcpListener>,
    probes: Option<TcpListener>,
}

impl Listeners {
    /// Binds every address.
    ///
    /// # Errors
    ///
    /// An address is in use or cannot be bound.
    pub(super) async fn bind(config: &Config) -> anyhow::Result<Self> {
        let (mut grpc, mut manages) = (Vec::new(), Vec::new());
        for address in &config.listen {
            grpc.push(Listener::bind(address, config.sockets).await?);
        }
        for address in &config.listen_management {
            // Whoever asks may not therefore manage.
            manages.push(Listener::bind(address, SocketAccess::PRIVATE).await?);
        }
        let management = match &config.management {
            Some(path) => Some(Listener::bind_management(path).await?),
            None => None,
        };
        let http = bind(config.http, "another address: --http; none: --http none").await?;
        let probes = bind(config.probes, "another address: --probes").await?;
        Ok(Self { grpc, manages, management, http, probes })
    }

    pub(super) fn grpc_addresses(&self) -> Vec<Address> {
        self.grpc.iter().map(Listener::address).collect()
    }

    pub(super) fn managing_addresses(&self) -> Vec<Address> {
        self.manages.iter().map(Listener::address).collect()
    }

    pub(super) fn management_address(&self) -> Option<Address> {
        self.management.as_ref().map(Listener::address)
    }

    pub(super) fn http_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    pub(super) fn probes_address(&self) -> Option<SocketAddr> {
        self.probes.as_ref().and_then(|listener| listener.local_addr().ok())
    }

    /// Accepts connections until `stop`, each address in a task of its own.
    ///
    /// # Errors
    ///
    /// An HTTP address cannot be read back.
    pub(super) fn serve(
        self,
        workers: &Workers,
        (phase, metrics, shared): (watch::Receiver<Phase>, &Arc<Metrics>, &Shared),
        health: HealthServer<impl Health>,
        (config, tls): (&Config, Option<&Tls>),
        (stop, tasks): (&CancellationToken, &TaskTracker),
    ) -> anyhow::Result<()> {
        let serves = if self.manages.is_empty() { Serves::Everything } else { Serves::Decisions };
        let grpc = self.grpc.into_iter().map(|listener| (listener, serves));
        let manages = self.manages.into_iter().map(|listener| (listener, Serves::Management));
        let operator = self.management.map(|listener| (listener, Serves::Everything));
        for (listener, serves) in grpc.chain(manages).chain(operator) {
            let for_operator = matches!(listener, Listener::Management(..));
            let address = listener.address();
            tracing::info!(%address, for_operator, ?serves, "listening for gRPC");
            if serves != Serves::Management {
                warn_of(&address, config);
            }
            tasks.spawn(workers.accept((listener, serves), Arc::clone(metrics), stop.clone()));
        }
        if let Some(listener) = self.probes {
            tracing::info!(address = %listener.local_addr()?, "listening for probes");
            let router = http::probes(phase.clone(), metrics, health);
            let both = Protocols::Http1AndHttp2;
            let (limits, stop) = (config.limits, stop.clone());
            tasks.spawn(http::serve(listener, router, both, Security::Plain, limits, stop));
        }
        if let Some(listener) = self.http {
            warn_of(&Address::Tcp(listener.local_addr()?), config);
            tracing::info!(address = %listener.local_addr()?, "listening for HTTP");
            let authzen = (shared.authzen(config), config.public_url.as_ref());
            let tokens = shared.tokens();
            let tokens = tokens.as_ref();
            let url = config.public_url.as_ref();
            let without = http::without_decisions(phase.clone(), metrics, tokens, url);
            let router = http::router(phase, metrics, tokens, authzen);
            let is_local = listener.local_addr()?.ip().is_loopback();
            let security = match tls {
                None => Security::Plain,
                Some(tls) if is_local => {
                    let plain = if tls.wants_certificates() { without } else { router.clone() };
                    Security::Either(tls.clone(), Arc::clone(metrics), plain)
                }
                Some(tls) => Security::Tls(tls.clone(), Arc::clone(metrics)),
            };
            let (http1, limits, stop) = (Protocols::Http1, config.limits, stop.clone());
            tasks.spawn(http::serve(listener, router, http1, security, limits, stop));
        }
        Ok(())
    }
}

/// Warns of an address where everybody may ask, or nobody of another machine.
fn warn_of(address: &Address, config: &Config) {
    let Address::Tcp(open) = address else { return };
    let is_proved = config.tls.as_ref().is_some_and(|tls| tls.client_authorities.is_some());
    if open.ip().to_canonical().is_loopback() || config.callers.is_some() {
        return;
    }
    if config.insecure_open_decisions {
        tracing::warn!(
            address = %open,
            "whoever can reach the address may ask about every identity: give --callers instead of --insecure-open-decisions"
        );
    } else if !is_proved {
        tracing::info!(
            address = %open,
            "callers of other machines are refused: name them with --callers, have them present certificates with --client-ca, or \
             give --insecure-open-decisions"
        );
    }
}

async fn bind(
    address: Option<SocketAddr>,
    advice: &'static str,
) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let bound = TcpListener::bind(address).await;
    bound.map(Some).with_context(|| format!("cannot listen on {address} ({advice})"))
}
