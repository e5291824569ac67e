//! The configuration of a server. It is checked before anything binds.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{bail, ensure};
use capstan_events::PublicUrl;

use crate::callers;
use crate::clock::Clock;
use crate::feed::journal::Store;
use crate::feed::source::Source;
use crate::grpc::page::PageKey;
use crate::limits::{Limits, MESSAGE_BYTES_MAX};
use crate::telemetry::decision_log::Target;
use crate::telemetry::traces::Export;
use crate::transport::listen::{Address, SocketAccess};
use crate::transport::tls;
use crate::transport::workers::Runtime;
use crate::webhooks;

/// Where a policy comes from.
#[derive(Clone, Debug)]
pub enum Feed {
    /// A document, which is loaded again when it changes.
    Document(Source),
    /// A store, which this server writes.
    Store(Store),
}

/// The configuration of a server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the policy comes from.
    pub feed: Feed,
    /// Catalogs that the policy can name: names of built-in ones, or files, which are read at every load.
    pub catalogs: Vec<String>,
    /// gRPC addresses, at least one.
    pub listen: Vec<Address>,
    /// gRPC addresses for what manages, and for nothing else. If there are any, those of `listen` serve decisions only.
    pub listen_management: Vec<Address>,
    /// Who may connect to the unix sockets of `listen`. Those of `listen_management` are for the server's own user.
    pub sockets: SocketAccess,
    /// The path of the management socket, whose peers are the operator; `None` for no such socket.
    pub management: Option<PathBuf>,
    /// Whether the metadata `x-capstan-caller` says who calls. Only for addresses of this machine: whoever can connect is
    /// whoever they say.
    pub trust_caller_header: bool,
    /// Whose tokens prove who calls, beside those of providers of organizations and keys of identities' own.
    pub tokens: callers::Options,
    /// The document of callers, which says who may ask for decisions. `None`: whoever is on this machine, or has a client certificate.
    pub callers: Option<PathBuf>,
    /// Whether everybody may ask, from everywhere.
    pub insecure_open_decisions: bool,
    /// Bytes of a policy document that is imported, at most.
    pub document_bytes_max: usize,
    /// Whether callers that are not known may read a store, as they may a policy file if they may ask.
    pub open_reads: bool,
    /// The HTTP address; `None` for no HTTP port.
    pub http: Option<SocketAddr>,
    /// The address for probes, `None` for none: health, `/livez`, `/readyz` and `/metrics`, without TLS on any interface.
    pub probes: Option<SocketAddr>,
    /// The files of TLS, which every TCP address of gRPC then speaks, and the HTTP address, too. On an address of this machine
    /// HTTP stays possible without. `None` for no TLS.
    pub tls: Option<tls::Options>,
    /// Whether addresses other than loopback may be served without TLS, but those of `listen_management`. The address for probes always may.
    pub insecure_plaintext: bool,
    /// The same for those of `listen_management`.
    pub insecure_plaintext_management: bool,
    /// Whether gRPC reflection is served.
    pub reflection: bool,
    /// How long calls are still served after the stop signal while health says not ready, so that
    /// load balancers notice. At most `DRAIN_MAX` counts.
    pub drain_delay: Duration,
    /// The route table for Envoy's requests; `None` for an empty one.
    pub routes: Option<PathBuf>,
    /// The https URL under which the server is known, if it has one: the base of the metadata of AuthZEN.
    pub public_url: Option<PublicUrl>,
    /// What events are delivered with; `None` for none, as with a policy file.
    pub webhooks: Option<webhooks::Options>,
    /// The target of the decision log; `None` for no log.
    pub decision_log: Option<Target>,
    /// The export of traces; `None` for no traces.
    pub traces: Option<Export>,
    /// The key of page tokens. `None` for a random key of this process: then no other server
    /// accepts its tokens.
    pub page_key: Option<PageKey>,
    /// The clock of decisions, credentials and logs.
    pub clock: Clock,
    /// Limits.
    pub limits: Limits,
    /// The threads that answer calls.
    pub runtime: Runtime,
    /// Gives memory that was freed back to the system. Called after a load, which frees most of what it needed,
    /// and after an old revision is freed. Does nothing with an allocator that does so by itself.
    pub give_back: fn(),
}

impl Config {
    /// A server of this policy on a free port of loopback, and nothing else: no HTTP port, reflection, log or event. It can be
    /// managed by nobody, and stops at once. A thread per core answers calls.
    #[must_use]
    pub fn new(feed: Feed) -> Self {
        Self {
            feed,
            catalogs: vec![],
            listen: vec![Address::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))],
            listen_management: vec![],
            sockets: SocketAccess::default(),
            management: None,
            trust_caller_header: false,
            tokens: callers::Options::default(),
            callers: None,
            insecure_open_decisions: false,
            document_bytes_max: MESSAGE_BYTES_MAX,
            open_reads: false,
            http: None,
            probes: None,
            tls: None,
            insecure_plaintext: false,
            insecure_plaintext_management: false,
            reflection: false,
            drain_delay: Duration::ZERO,
            routes: None,
            public_url: None,
            webhooks: None,
            decision_log: None,
            traces: None,
            page_key: None,
            clock: Clock::System,
            limits: Limits::default(),
            runtime: Runtime::per_core(),
            give_back: || {},
        }
    }

    /// Checks the configuration.
    ///
    /// # Errors
    ///
    /// Everything of [`Self::misfits`], or the clock shows a time before 2026.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let misfits = self.misfits();
        let said: Vec<_> = misfits.into_iter().map(|misfit| misfit.problem).collect();
        ensure!(said.is_empty(), "{}", said.join("\n"));
        if !self.clock.is_plausible() {
            bail!(
                "the machine's clock says that it is before 2026: bindings whose time is over would \
                 count again; set the clock"
            );
        }
        Ok(())
    }

    /// Settings that do not fit together, whatever is in the files that they name: there is no gRPC address, an address other than
    /// loopback is served in plain text without `insecure_plaintext` or with `trust_caller_header`, two settings exclude each other,
    /// or a trusted issuer or the endpoint of traces is none.
    #[must_use]
    pub fn misfits(&self) -> Vec<Misfit> {
        fn open(all: &[Address]) -> impl Iterator<Item = &SocketAddr> + Clone {
            let tcp = all.iter().filter_map(|address| match address {
                Address::Tcp(address) => Some(address),
                Address::Unix(_) => None,
            });
            tcp.filter(|address| !address.ip().is_loopback())
        }
        let mut all = vec![];
        let mut add = |options: &[&'static str], problem: String| {
            all.push(Misfit { options: options.to_vec(), problem });
        };
        let (decides, manages) = (open(&self.listen).next(), open(&self.listen_management).next());
        if self.listen.is_empty() {
            add(&["listen"], "nowhere to listen: give --listen".into());
        }
        for (option, open) in [("listen", decides), ("listen-management", manages)] {
            if let Some(open) = open
                && self.trust_caller_header
            {
                let problem = format!(
                    "{open} can be reached by other machines, and --insecure-trust-caller-header would let them call as \
                     anybody: listen on 127.0.0.1, or leave the flag out"
                );
                add(&["insecure-trust-caller-header", option], problem);
            }
        }
        let http = self.http.as_ref().filter(|address| !address.ip().is_loopback());
        for (option, open) in [("listen", decides), ("http", http)] {
            if let Some(open) = open
                && !self.insecure_plaintext
                && self.tls.is_none()
            {
                let problem = format!(
                    "{open} can be reached by other machines, and would be served in plain text: \
                     listen on 127.0.0.1, give --tls-cert and --tls-key, or give --insecure-plaintext to accept that"
                );
                add(&[option], problem);
            }
        }
        if let Some(open) = manages
            && !self.insecure_plaintext_management
            && self.tls.is_none()
        {
            let problem = format!(
                "{open} can be reached by other machines, and what manages would be served in plain text: listen on 127.0.0.1, give \
                 --tls-cert and --tls-key, or give --insecure-plaintext-management to accept that"
            );
            add(&["listen-management"], problem);
        }
        let wants_certificates =
            self.tls.as_ref().is_some_and(|tls| tls.client_authorities.is_some());
        if wants_certificates && self.trust_caller_header {
            add(
                &["client-ca", "insecure-trust-caller-header"],
                "--client-ca proves who calls, and --insecure-trust-caller-header would let everybody of this machine say it: \
                 leave one of them out"
                    .into(),
            );
        }
        if !self.tokens.trusted.is_empty() && self.trust_caller_header {
            add(
                &["trust-issuer", "insecure-trust-caller-header"],
                "--trust-issuer has tokens prove who calls, and --insecure-trust-caller-header would let everybody of this machine \
                 say it: leave one of them out"
                    .into(),
            );
        }
        if self.callers.is_some() && self.insecure_open_decisions {
            add(
                &["callers", "insecure-open-decisions"],
                "--callers says who may ask, and --insecure-open-decisions would let everybody: leave one of them out"
                    .into(),
            );
        }
        if self.tls.is_some() && (self.insecure_plaintext || self.insecure_plaintext_management) {
            add(
                &["tls-cert", "insecure-plaintext", "insecure-plaintext-management"],
                "with --tls-cert nothing is served in plain text to other machines: leave out --insecure-plaintext and \
                 --insecure-plaintext-management"
                    .into(),
            );
        }
        for (option, problem) in self.tokens.problems(self.webhooks.is_some()) {
            add(&[option], problem);
        }
        if let Some(Err(error)) = self.traces.as_ref().map(Export::check) {
            add(&["otlp-endpoint"], format!("{error:#}"));
        }
        all
    }
}

/// What keeps a server from starting, and the options of `capstan serve` that it is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Their names, without `--`. Of several, those that are given do not fit together.
    pub options: Vec<&'static str>,
    /// What is wrong, and what to do.
    pub problem: String,
}
