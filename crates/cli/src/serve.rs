//! `capstan serve`: the server.

use std::io::{self, IsTerminal as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use capstan_policy::DOCUMENT_BYTES_MAX;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use super::output::{self, Format};
use super::signals::{self, Signal, Signals};
use capstan_server::clock::Clock;
use capstan_server::feed::file::{self, Reload, Wake};
use capstan_server::feed::source::{Source, load_catalogs};
use capstan_server::limits::{FILES_WANTED, Limits};
use capstan_server::server::{Address, Config, Runtime, Server};
use capstan_server::telemetry::decision_log::{DecisionLog, Target};
use capstan_server::telemetry::traces::Export;

const EXAMPLES: &str = "\
Examples:
  capstan serve --demo
  capstan serve --policy acme.yaml
  capstan serve --policy acme.yaml --listen unix:/run/capstan.sock --http none
  capstan serve --policy acme.yaml --listen 127.0.0.1:0      any free port; it is printed
  capstan serve --policy acme.yaml --decision-log /var/log/capstan.ndjson

One line for each bound address, such as `grpc 127.0.0.1:4480`, goes to standard output when the
server is ready; logs go to standard error. SIGTERM and SIGINT drain and exit with 0. A changed policy
file is loaded again, and SIGHUP asks for it; one that does not load changes nothing.

The decision log has a line for each check, each item of a batch, and each explanation: `time`, `rpc`,
`identity`, `capability`, `resource`, `allowed`, `reason`, `revision`; or `error` where there was no
answer. Properties are not logged. No answer waits for it: lines that find no room, or no disk, are
lost, and a line `{\"time\": ..., \"lost\": N}` says how many. SIGHUP opens its file anew. With `-` the
lines follow the addresses, and begin with `{`.";

/// Serves decisions over gRPC
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Serve {
    #[command(flatten)]
    from: From,

    /// Catalogs that the policy document can name, beside the built-in ones
    #[arg(long, value_name = "NAME|FILE")]
    catalog: Vec<String>,

    /// gRPC addresses: IP:PORT or unix:PATH; repeat for several
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4480")]
    listen: Vec<Address>,

    /// HTTP address for /livez, /readyz and /metrics, or none
    #[arg(long, value_name = "ADDRESS|none", default_value = "127.0.0.1:4481", value_parser = http)]
    http: Http,

    /// Serve in plain text on addresses that other machines can reach
    #[arg(long)]
    insecure_plaintext: bool,

    /// Let clients ask for the schema (on with --demo)
    #[arg(long)]
    reflection: bool,

    /// Go on serving for so long after SIGTERM, saying not ready, before the drain begins
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0,
          value_parser = clap::value_parser!(u64).range(..=5_000))]
    drain_delay_ms: u64,

    /// Which capabilities the requests need that an Envoy asks about (ext_authz)
    #[arg(long, value_name = "FILE")]
    routes: Option<PathBuf>,

    /// Log each decision as a line of JSON: appended to FILE, or to standard output
    #[arg(long, value_name = "FILE|-")]
    decision_log: Option<Target>,

    /// Send traces to an OpenTelemetry collector, by OTLP over gRPC: http://HOST:PORT
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,

    /// The share of calls that is traced, from 0 to 1
    #[arg(long, value_name = "RATIO", default_value_t = 0.01, value_parser = ratio)]
    otlp_sample_ratio: f64,

    /// Let callers that are traced decide (traceparent); the share is of the other calls, then
    #[arg(long)]
    otlp_parent_based: bool,

    /// How calls are answered: each core with connections of its own, which takes a quarter less
    /// processor time; or all cores sharing all of them, fairer to few connections with many calls
    #[arg(long, value_enum, value_name = "SHAPE", default_value_t = RuntimeShape::PerCore)]
    runtime: RuntimeShape,

    /// Threads that answer calls, with --runtime per-core [default: one a core]
    #[arg(long, value_name = "THREADS", value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,

    /// Most bytes that are read of the policy document
    #[arg(long, value_name = "BYTES", default_value_t = DOCUMENT_BYTES_MAX)]
    max_document_bytes: u64,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum RuntimeShape {
    /// One single-threaded runtime a core
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

    /// Serve an embedded organization to play with
    #[arg(long)]
    demo: bool,
}

#[derive(Clone, Copy, Debug)]
struct Http(Option<SocketAddr>);

fn http(text: &str) -> Result<Http, String> {
    match text {
        "none" => Ok(Http(None)),
        _ => text
            .parse()
            .map(|address| Http(Some(address)))
            .map_err(|_| "expected IP:PORT or none".into()),
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| "expected a number from 0 to 1".into())
}

impl Serve {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        log_to_stderr();
        // Before anything is loaded: a signal during the start must stop it too.
        let stop = signals::stop(&[])?;
        let stop = async move {
            stop.await;
        };
        raise_file_limit();
        let source = match self.from.policy {
            Some(path) => Source::File { path, bytes_max: self.max_document_bytes },
            None => Source::Demo,
        };
        let config = Config {
            source,
            catalogs: load_catalogs(&self.catalog)?,
            listen: self.listen,
            http: self.http.0,
            insecure_plaintext: self.insecure_plaintext,
            reflection: self.reflection || self.from.demo,
            drain_delay: Duration::from_millis(self.drain_delay_ms),
            routes: self.routes,
            decision_log: self.decision_log,
            traces: self.otlp_endpoint.map(|endpoint| Export {
                endpoint,
                sample_ratio: self.otlp_sample_ratio,
                parent_based: self.otlp_parent_based,
            }),
            clock: Clock::System,
            limits: Limits::default(),
            runtime: match (self.runtime, self.workers) {
                (RuntimeShape::Shared, None) => Runtime::Callers,
                (RuntimeShape::Shared, Some(_)) => {
                    bail!(
                        "--workers is for --runtime per-core; TOKIO_WORKER_THREADS sets the others"
                    )
                }
                (RuntimeShape::PerCore, None) => Runtime::per_core(),
                (RuntimeShape::PerCore, Some(threads)) => Runtime::PerCore(threads.into()),
            },
        };
        let server = Server::bind(config).await?;
        let (grpc, http) = (server.grpc_addresses(), server.http_address());
        let announce = || {
            // A closed standard output is no reason to stop serving.
            let _ = announce(&grpc, http, self.from.demo && format == Format::Table);
        };
        let (reload, wakes) = file::channel();
        let hang_ups = ask_at_hang_up(reload.clone(), server.decision_log())?;
        tokio::select! {
            served = server.run(stop, (reload, wakes), announce) => served?,
            () = hang_ups => {}
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// As many file descriptors as the operator lets us have: each connection takes one, and shells give
/// 1,024 unless they are asked.
fn raise_file_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current < maximum || maximum.is_none() {
        let wanted = Some(maximum.unwrap_or(FILES_WANTED).max(current.unwrap_or(0)));
        // What we have may be enough.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: wanted, maximum });
    }
}

fn announce(grpc: &[Address], http: Option<SocketAddr>, demo: bool) -> anyhow::Result<()> {
    for address in grpc {
        output::line(format!("grpc {address}"))?;
    }
    if let Some(address) = http {
        output::line(format!("http {address}"))?;
    }
    if demo && let Some(address) = grpc.first() {
        output::line(demo_commands(address))?;
    }
    Ok(())
}

/// Commands to copy; a test runs every one of them.
fn demo_commands(address: &Address) -> String {
    let addr = match address {
        Address::Tcp(address) if address.port() == 4480 && address.ip().is_loopback() => {
            String::new()
        }
        Address::Tcp(address) => format!(" --addr http://{address}"),
        Address::Unix(_) => format!(" --addr {address}"),
    };
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

Ctrl-C stops it.",
        addr_or_default =
            if addr.is_empty() { " --addr http://127.0.0.1:4480".into() } else { addr.clone() },
    )
}

/// How this program was started, so that a command can be copied.
fn program() -> String {
    std::env::args().next().filter(|name| !name.contains(' ')).unwrap_or_else(|| "capstan".into())
}

/// Pretty for people, JSON for programs. Nothing is logged for a decision.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("CAPSTAN_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    if io::stderr().is_terminal() {
        log.with_target(false).init();
    } else {
        log.json().flatten_event(true).init();
    }
}

/// Asks for a reload at every SIGHUP, for ever; and for a new file of the decision log, which may
/// have been rotated.
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
