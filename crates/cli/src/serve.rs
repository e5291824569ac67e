//! `capstan serve`: starts the server.

mod arguments;

use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::bail;
use capstan_policy::DOCUMENT_BYTES_MAX;
use sd_notify::NotifyState;
use tracing_subscriber::EnvFilter;

use super::completion;
use super::output::{self, Format};
use super::signals::{self, Signal, Signals};
use super::store_error::exit_code;
use capstan_server::clock::Clock;
use capstan_server::feed::journal::{self, Store};
use capstan_server::feed::reload::{self, Reload, Wake};
use capstan_server::feed::source::Source;
use capstan_server::limits::{IN_FLIGHT_MAX, Limits};
use capstan_server::server::{
    Address, Config, Feed, Misfit, PageKey, Runtime, Server, SocketAccess, look,
};
use capstan_server::telemetry::decision_log::{DecisionLog, Target};
use capstan_server::telemetry::traces::Export;
use capstan_server::webhooks;
use capstan_store::RedbStore;

use crate::limits::THREADS_SPARE;
use crate::{machine, memory};
pub(crate) use arguments::KEYS;
use arguments::{AskerArgs, OfStore, TlsArgs, TokenArgs, WebhookArgs};

/// The name of the management socket in the directory of a store.
const OPERATOR_SOCKET: &str = "operator.sock";

const EXAMPLES: &str = "\
Examples:
  capstan serve --demo
  capstan serve --policy acme.yaml
  capstan serve --data /var/lib/capstan
  capstan serve --policy acme.yaml --listen unix:/run/capstan.sock --http none
  capstan serve --policy acme.yaml --listen 127.0.0.1:0      any free port, which is printed
  capstan serve --policy acme.yaml --decision-log /var/log/capstan.ndjson
  capstan serve --config /etc/capstan/capstan.toml

When the server is ready, it prints one line for each bound address to standard output, such as \
`grpc 127.0.0.1:4480`. Logs go to standard error. SIGTERM and SIGINT drain the server and exit with 0. \
The policy file is reloaded when it changes, and on SIGHUP; if it does not load, the server keeps the \
policy that it has.

A store is made by `capstan init` and changed while it is served. The peers of the unix socket DIR/operator.sock \
(--management) are the operator, who may do everything. A store that cannot be opened ends the server with 65 (damaged, \
or no store), 66 (not there), 74 (the disk fails), 75 (another process has it) or 78 (the directory cannot be used).

Logs are text if standard error is a terminal, otherwise one JSON object a line. The environment variable \
CAPSTAN_LOG sets what is logged: error, warn, info (the default), debug or trace, or one level for each \
module, such as CAPSTAN_LOG=info,capstan_server=debug.

The decision log has a line for each check, each item of a batch, and each explanation: `time`, `rpc`, \
`identity`, `capability`, `resource`, `allowed`, `reason`, `revision`; or `error` without a decision. \
Properties are not logged. No answer waits for the log: lines that do not fit into its buffer, or cannot \
be written, are dropped, and a line `{\"time\": ..., \"lost\": N}` gives their number. SIGHUP reopens the \
file. With `-` the lines follow the addresses on standard output, and begin with `{`.";

/// Serves decisions over gRPC
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    #[command(flatten)]
    from: From,

    /// Take options from this file: TOML, with the names of options as keys; see `capstan config`. Options of the command line and
    /// CAPSTAN_SERVE_... go before it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Additional catalogs that the policy document can name: a built-in catalog's name or a file;
    /// repeat for several
    #[arg(long, value_name = "NAME|FILE", add = completion::catalog())]
    catalog: Vec<String>,

    /// gRPC addresses: IP:PORT or unix:PATH; repeat for several
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4480")]
    listen: Vec<Address>,

    /// gRPC addresses for what manages a store, and nothing else: then those of --listen serve decisions only. A
    /// unix socket is for the server's own user; repeat for several
    #[arg(long, value_name = "ADDRESS")]
    listen_management: Vec<Address>,

    /// Permissions of the unix sockets of --listen, in octal, such as 660 [default: by the umask; with --socket-group 660]
    #[arg(long, value_name = "MODE", value_parser = socket_mode)]
    socket_mode: Option<u32>,

    /// Group of the unix sockets of --listen, by its name in /etc/group or its number: whoever is in it may connect
    #[arg(long, value_name = "GROUP", value_parser = group)]
    socket_group: Option<u32>,

    /// Unix socket whose peers are the operator: unix:PATH; its file is for its owner only [default with --data:
    /// unix:DIR/operator.sock]
    #[arg(long, value_name = "unix:PATH", value_parser = management)]
    management: Option<Management>,

    /// Take the caller's identity from the metadata x-capstan-caller, on addresses of this machine only: whoever can
    /// connect is whoever they say
    #[arg(long)]
    insecure_trust_caller_header: bool,

    /// HTTP address for /livez, /readyz and /metrics, or none
    #[arg(long, value_name = "ADDRESS|none", default_value = "127.0.0.1:4481", value_parser = http)]
    http: Http,

    /// Address for probes of other machines, such as kubelet's and Prometheus': gRPC health, /livez, /readyz and /metrics, and
    /// no decision; always without TLS
    #[arg(long, value_name = "IP:PORT")]
    probes: Option<SocketAddr>,

    #[command(flatten)]
    tls: TlsArgs,

    #[command(flatten)]
    tokens: TokenArgs,

    #[command(flatten)]
    askers: AskerArgs,

    /// Allow addresses other than loopback without TLS
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key", "client_ca", "client_crl"])]
    insecure_plaintext: bool,

    /// Allow addresses of --listen-management other than loopback without TLS
    #[arg(long, conflicts_with_all = ["tls_cert", "tls_key", "client_ca", "client_crl"], requires = "listen_management")]
    insecure_plaintext_management: bool,

    /// Enable gRPC server reflection (always with --demo)
    #[arg(long)]
    reflection: bool,

    /// After SIGTERM, continue to serve for this long while reporting not ready, before the drain begins
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(..=5_000))]
    drain_delay_ms: u64,

    /// Serve Envoy's ext_authz, with the capabilities that this route table requires
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,

    /// Log each decision as a line of JSON, appended to FILE or to standard output
    #[arg(long, value_name = "FILE|-")]
    decision_log: Option<Target>,

    /// Export traces to an OpenTelemetry collector by OTLP over gRPC: http://HOST:PORT
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,

    /// The share of calls to trace, from 0 to 1
    #[arg(long, value_name = "RATIO", default_value_t = 0.01, value_parser = ratio)]
    otlp_sample_ratio: f64,

    /// Follow the sampling decision of callers (traceparent); the share applies to the other calls
    #[arg(long)]
    otlp_parent_based: bool,

    /// The threads that answer calls: per-core gives each core connections of its own and needs a quarter
    /// less CPU time; shared spreads the calls of few busy connections over all cores
    #[arg(long, value_enum, value_name = "SHAPE", default_value_t = RuntimeShape::PerCore)]
    runtime: RuntimeShape,

    /// Number of threads with --runtime per-core [default: one per core]
    #[arg(long, value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,

    /// Calls that may be in flight, open streams among them, and half of them of one peer; more are refused at once. Plain
    /// checks need no place. The fewer, the shorter calls wait under overload
    #[arg(long, value_name = "CALLS", default_value_t = IN_FLIGHT_MAX, value_parser = in_flight)]
    max_in_flight: usize,

    /// Maximum size of the policy document, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = DOCUMENT_BYTES_MAX)]
    max_document_bytes: u64,

    #[command(flatten)]
    of_store: OfStore,

    #[command(flatten)]
    webhooks: WebhookArgs,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RuntimeShape {
    /// One single-threaded runtime per core
    PerCore,
    /// One multi-threaded runtime
    Shared,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct From {
    /// The policy document to serve
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,

    /// The directory of the store to serve, made by `capstan init`
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// Serve an embedded demo policy, which can be changed and ends with the server
    #[arg(long)]
    demo: bool,
}

#[derive(Clone, Copy, Debug)]
struct Http(Option<SocketAddr>);

#[derive(Clone, Debug)]
struct Management(PathBuf);

fn management(text: &str) -> Result<Management, String> {
    match text.strip_prefix("unix:") {
        Some(path) if !path.is_empty() => Ok(Management(path.into())),
        _ => Err("expected unix:PATH".into()),
    }
}

/// Whoever connects must be able to write.
fn socket_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| (0o200..=0o777).contains(mode));
    mode.ok_or_else(|| "expected three octal digits, such as 660".into())
}

fn group(text: &str) -> Result<u32, String> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let groups = std::fs::read_to_string("/etc/group").map_err(|error| error.to_string())?;
    let fields = groups.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = fields.filter(|fields| fields.first() == Some(&text));
    let number = found.filter_map(|fields| fields.get(2)?.parse().ok()).next();
    number.ok_or_else(|| "no group of this name in /etc/group; expected a name or a number".into())
}

fn http(text: &str) -> Result<Http, String> {
    match text {
        "none" => Ok(Http(None)),
        _ => text
            .parse()
            .map(|address| Http(Some(address)))
            .map_err(|_| "expected IP:PORT or none".into()),
    }
}

fn in_flight(text: &str) -> Result<usize, String> {
    let calls = text.parse().ok().filter(|calls| (2..=IN_FLIGHT_MAX).contains(calls));
    calls.ok_or_else(|| format!("expected a number from 2 to {IN_FLIGHT_MAX}"))
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "expected a number from 0 to 1".into())
}

impl Serve {
    /// The threads that it needs at least.
    pub(crate) fn threads(&self) -> usize {
        let workers = match (self.runtime, self.workers) {
            (RuntimeShape::Shared, _) => 0,
            (RuntimeShape::PerCore, None) => machine::processors(),
            (RuntimeShape::PerCore, Some(workers)) => workers.into(),
        };
        machine::runtime_threads() + workers + THREADS_SPARE
    }

    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        log_to_stderr();
        // Before anything is loaded, so that a signal during the start stops it too.
        let stop = signals::stop(&[])?;
        let stop = async move {
            stop.await;
            tell_manager(NotifyState::Stopping);
        };
        machine::raise_file_limit();
        let (runtime, webhooks) = (self.runtime()?, self.webhooks()?);
        let is_demo = self.from.demo;
        let mut page_key = None;
        let mut management = self.management.as_ref().map(|found| found.0.clone());
        // Its folder is removed when the server ends.
        let mut demo_folder = None;
        let feed = match (self.from.policy.clone(), &self.from.data) {
            (Some(path), _) => {
                Feed::Document(Source::File { path, bytes_max: self.max_document_bytes })
            }
            (None, Some(data)) => match journal::open(data, capstan_store::Limits::default()) {
                Ok((store, loaded)) => {
                    page_key = Some(PageKey::new(*store.page_key()));
                    management.get_or_insert_with(|| data.join(OPERATOR_SOCKET));
                    Feed::Store(Store::Opened(Arc::new(store), loaded))
                }
                Err(error) => {
                    let code = exit_code(&error);
                    output::error(format, &error.into());
                    return Ok(code);
                }
            },
            (None, None) => {
                if management.is_none() {
                    let folder = tempfile::Builder::new().prefix("capstan-").tempdir()?;
                    management = Some(folder.path().join(OPERATOR_SOCKET));
                    demo_folder = Some(folder);
                }
                Feed::Store(Store::Demo)
            }
        };
        let config = Config { page_key, ..self.config(feed, management, runtime, webhooks) };
        let server = Server::bind(config).await?;
        let (grpc, http) = (server.grpc_addresses(), server.http_address());
        let (probes, manages) = (server.probes_address(), server.managing_addresses());
        let management = server.management_address();
        let announce = || {
            // A closed standard output does not stop the server.
            let for_demo = is_demo && format == Format::Table;
            let _ = announce((&grpc, &manages), management.as_ref(), (http, probes), for_demo);
            tell_manager(NotifyState::Ready);
        };
        let (reload, wakes) = reload::channel();
        let hang_ups = ask_at_hang_up(reload.clone(), server.decision_log())?;
        tokio::select! {
            served = server.run(stop, (reload, wakes), announce) => served?,
            () = hang_ups => {}
        }
        drop(demo_folder);
        Ok(ExitCode::SUCCESS)
    }

    /// The configuration of a server with this feed.
    fn config(
        self,
        feed: Feed,
        management: Option<PathBuf>,
        runtime: Runtime,
        webhooks: Option<webhooks::Options>,
    ) -> Config {
        let is_local = |address: &Address| match address {
            Address::Tcp(address) => address.ip().is_loopback(),
            Address::Unix(_) => true,
        };
        let public_url = self.webhooks.public_url;
        let proves = self.tls.client_ca.is_some();
        let is_local_demo = self.from.demo
            && !proves
            && self.listen.iter().chain(&self.listen_management).all(is_local);
        Config {
            feed,
            catalogs: self.catalog,
            listen: self.listen,
            sockets: SocketAccess { mode: self.socket_mode, group: self.socket_group },
            http: self.http.0,
            probes: self.probes,
            management,
            open_reads: self.from.demo,
            // In the demo there is nothing to protect, and callers are tried out.
            trust_caller_header: self.insecure_trust_caller_header || is_local_demo,
            document_bytes_max: usize::try_from(self.max_document_bytes).unwrap_or(usize::MAX),
            tls: self.tls.options(),
            tokens: self.tokens.options(public_url.as_ref()),
            callers: self.askers.callers,
            insecure_open_decisions: self.askers.insecure_open_decisions,
            insecure_plaintext: self.insecure_plaintext,
            listen_management: self.listen_management,
            insecure_plaintext_management: self.insecure_plaintext_management,
            reflection: self.reflection || self.from.demo,
            drain_delay: Duration::from_millis(self.drain_delay_ms),
            routes: self.routes,
            public_url,
            webhooks,
            decision_log: self.decision_log,
            page_key: None,
            traces: self.otlp_endpoint.map(|endpoint| Export {
                endpoint,
                sample_ratio: self.otlp_sample_ratio,
                parent_based: self.otlp_parent_based,
            }),
            clock: Clock::System,
            limits: self.of_store.limits(Limits {
                in_flight_max: self.max_in_flight,
                peer_in_flight_max: self.max_in_flight / 2,
                ..Limits::default()
            }),
            runtime,
            give_back: memory::give_back,
        }
    }

    fn runtime(&self) -> anyhow::Result<Runtime> {
        match (self.runtime, self.workers) {
            (RuntimeShape::Shared, None) => Ok(Runtime::Callers),
            (RuntimeShape::Shared, Some(_)) => {
                bail!("--workers is for --runtime per-core; TOKIO_WORKER_THREADS sets the others")
            }
            (RuntimeShape::PerCore, None) => Ok(Runtime::per_core()),
            (RuntimeShape::PerCore, Some(threads)) => Ok(Runtime::PerCore(threads.into())),
        }
    }

    fn webhooks(&self) -> anyhow::Result<Option<webhooks::Options>> {
        self.webhooks.clone().options(self.from.data.as_deref())
    }

    /// What keeps a server from starting, as far as its settings say; if it `looks`, also what the files, folders and sockets
    /// say that they name.
    pub(crate) fn misfits(self, looks: bool) -> Vec<Misfit> {
        let mut all = vec![];
        let mut add = |option, error: String| {
            all.push(Misfit { options: vec![option], problem: error });
        };
        let runtime = self.runtime().unwrap_or_else(|error| {
            add("workers", error.to_string());
            Runtime::per_core()
        });
        let webhooks = self.webhooks().unwrap_or_else(|error| {
            add("webhook-allow", format!("{error:#}"));
            None
        });
        let of_store = self.from.data.as_ref().filter(|_| looks);
        if let Some(Err(error)) = of_store.map(|data| RedbStore::look_at(data)) {
            add("data", error.to_string());
        }
        let socket = || self.from.data.as_ref().map(|data| data.join(OPERATOR_SOCKET));
        let management = self.management.as_ref().map(|found| found.0.clone()).or_else(socket);
        let feed = match &self.from.policy {
            Some(path) => {
                let path = path.clone();
                Feed::Document(Source::File { path, bytes_max: self.max_document_bytes })
            }
            // A store is not opened.
            None => Feed::Store(Store::Demo),
        };
        let config = self.config(feed, management, runtime, webhooks);
        all.extend(config.misfits());
        if looks {
            all.extend(look(&config));
        }
        all
    }
}

/// Tells the service manager, if one has started the server, such as systemd for `Type=notify`. One that does not listen
/// changes nothing.
fn tell_manager(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!(%error, "the service manager is not told");
    }
}

fn announce(
    (grpc, manages): (&[Address], &[Address]),
    management: Option<&Address>,
    (http, probes): (Option<SocketAddr>, Option<SocketAddr>),
    demo: bool,
) -> anyhow::Result<()> {
    for address in grpc {
        output::line(format!("grpc {address}"))?;
    }
    for address in manages {
        output::line(format!("grpc-management {address}"))?;
    }
    if let Some(address) = http {
        output::line(format!("http {address}"))?;
    }
    if let Some(address) = probes {
        output::line(format!("probes {address}"))?;
    }
    if let Some(address) = management {
        output::line(format!("management {address}"))?;
    }
    if demo && let (Some(address), Some(management)) = (grpc.first(), management) {
        let manages = manages.first().unwrap_or(address);
        output::line(demo_commands(address, manages, management))?;
    }
    Ok(())
}

/// Commands to copy. A test runs each of them.
fn demo_commands(address: &Address, manages: &Address, management: &Address) -> String {
    let addr_of = |address: &Address| match address {
        Address::Tcp(address) if address.port() == 4480 && address.ip().is_loopback() => {
            String::new()
        }
        Address::Tcp(address) => format!(" --addr http://{address}"),
        Address::Unix(_) => format!(" --addr {address}"),
    };
    let (addr, manages) = (addr_of(address), addr_of(manages));
    let program = program();
    format!(
        "
The organization `acme` is served from memory. In another terminal:

  {program} check alice repo.delete acme/platform/images{addr}
  {program} check bob repo.list acme/platform/images/nginx{addr}
  {program} check bob repo.delete acme/platform/images/nginx{addr}
  {program} check acme/auditor groups.list acme{addr}
  {program} capabilities acme/platform/ci acme/platform/images{addr}
  {program} roles list{addr_or_default}

It can be changed, by its identities and by the operator, until it ends:

  {program} iam folders create staging --parent acme --as alice{manages}
  {program} iam tree acme --addr {management}

Ctrl-C stops it.",
        addr_or_default =
            if manages.is_empty() { " --addr http://127.0.0.1:4480" } else { &manages },
    )
}

/// The program's name as it was typed, for commands to copy.
fn program() -> String {
    std::env::args().next().filter(|name| !name.contains(' ')).unwrap_or_else(|| "capstan".into())
}

/// Logs to standard error: as text if that is a terminal, otherwise as JSON. `CAPSTAN_LOG` sets the filter.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("CAPSTAN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if io::stderr().is_terminal() {
        log.with_target(false).init();
    } else {
        log.json().flatten_event(true).init();
    }
}

/// On every SIGHUP requests a reload of the policy, and reopens the decision log, whose file may have been
/// rotated. Never returns.
fn ask_at_hang_up(
    reload: Reload,
    log: Option<DecisionLog>,
) -> anyhow::Result<impl Future<Output = ()>> {
    let mut hang_ups = Signals::watch(&[Signal::HangUp])?;
    Ok(async move {
        loop {
            hang_ups.next().await;
            if let Some(log) = &log {
                log.reopen();
            }
            // Waits for room in the channel: the wake that fills it may turn out to be no change.
            let _ = reload.send(Wake::Asked).await;
        }
    })
}
