//! What to serve, and where: read from the command line, checked before anything binds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use capstan_policy::Catalogs;

use crate::clock::Clock;
use crate::feed::source::Source;
use crate::grpc::page::PageKey;
use crate::limits::Limits;
use crate::telemetry::decision_log::Target;
use crate::telemetry::traces::Export;
use crate::transport::listen::Address;
use crate::transport::workers::Runtime;

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the policy comes from.
    pub source: Source,
    /// Catalogs that the policy can name.
    pub catalogs: Catalogs,
    /// gRPC addresses, at least one.
    pub listen: Vec<Address>,
    /// HTTP address, if any.
    pub http: Option<SocketAddr>,
    /// Whether addresses that other machines can reach may be served without TLS.
    pub insecure_plaintext: bool,
    /// Whether clients may ask for the schema.
    pub reflection: bool,
    /// How long to go on serving after the signal, saying not ready, so that balancers notice.
    pub drain_delay: Duration,
    /// The route table for Envoy's requests, if there is one.
    pub routes: Option<PathBuf>,
    /// Where decisions are logged, if they are.
    pub decision_log: Option<Target>,
    /// Where traces go, if calls are traced.
    pub traces: Option<Export>,
    /// The key of page tokens; `None` for a key of this process, whose tokens no other server takes.
    pub page_key: Option<PageKey>,
    /// What time it is.
    pub clock: Clock,
    /// Limits.
    pub limits: Limits,
    /// Which threads answer calls.
    pub runtime: Runtime,
}

impl Config {
    /// # Errors
    ///
    /// No address; an address that other machines can reach, in plain text and not asked for; a clock that
    /// cannot be right.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.listen.is_empty() {
            bail!("nowhere to listen: give --listen");
        }
        let tcp = self.listen.iter().filter_map(|address| match address {
            Address::Tcp(address) => Some(address),
            Address::Unix(_) => None,
        });
        if let Some(open) = tcp.chain(&self.http).find(|address| !address.ip().is_loopback())
            && !self.insecure_plaintext
        {
            bail!(
                "{open} can be reached by other machines, and would be served in plain text: \
                 listen on 127.0.0.1, or give --insecure-plaintext to accept that"
            );
        }
        if !self.clock.is_plausible() {
            bail!(
                "the machine's clock says that it is before 2026: bindings whose time is over would \
                 count again; set the clock"
            );
        }
        Ok(())
    }
}
