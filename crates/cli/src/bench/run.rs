//! A run of `capstan bench`: starts the servers, measures them, and prints the figures.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use clap::ValueEnum;
use tokio::net::UnixStream;

use super::show;
use super::world::World;
use crate::output::{self, Format};
use crate::signals::{self, Signal};
use crate::{FAILED, channel, completion, context, tls};
use capstan_bench::against::pairs;
use capstan_bench::child::{Folder, Server};
use capstan_bench::do_nothing::Runtime;
use capstan_bench::load::{Access, MeasuredServer, Measurement, Mode, Plan, progress_line, run};
use capstan_bench::plot;
use capstan_bench::questions::Questions;
use capstan_bench::report::{Comparison, Report, RunInfo, Totals};
use capstan_client::{ConnectError, Credential, ServerAddress};
use capstan_proto::contract::BATCH_CHECKS_MAX;
use capstan_server::clock::Clock;
use capstan_server::limits::CONNECTION_STREAMS_MAX;

/// The options of a run.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Measure the server at this address, http://HOST:PORT, https://HOST:PORT or unix:PATH, instead of starting one
    /// [default: that of --context, if it is given]
    #[arg(long, value_name = "URL")]
    addr: Option<ServerAddress>,

    /// The identity that asks, which the token must prove: for one below a group [default: that of the context]
    #[arg(long = "as", id = "as_identity", value_name = "IDENTITY",
        add = completion::managed::identity())]
    caller: Option<String>,

    /// A file with the token that proves who asks, for a server that names its callers [default: that of the context]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// The process id of that server, to measure its CPU time; known without this on a Unix socket
    #[arg(long, value_name = "PID", requires = "addr")]
    pid: Option<u32>,

    /// The transport of the servers that are started
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    transport: Transport,

    #[command(flatten)]
    world: World,

    #[command(flatten)]
    load: Load,

    /// Compare every decision with the engine's in this process
    #[arg(long)]
    verify: bool,

    /// Measure a yardstick too, in alternating runs, and report the ratios
    #[arg(long, value_enum, value_name = "YARDSTICK")]
    against: Option<Yardstick>,

    /// Number of runs of each server, with --against
    #[arg(long, value_name = "N", default_value_t = 20, requires = "against",
          value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pairs: u16,

    /// The threads of the yardstick
    #[arg(long, value_enum, default_value_t = Runtime::PerCore, requires = "against")]
    runtime: Runtime,

    /// Write a plot of the latencies to this file, as SVG
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// The options of the load.
#[derive(Debug, clap::Args)]
struct Load {
    /// How checks are sent
    #[arg(long, value_enum, default_value_t = Mode::Check)]
    mode: Mode,

    /// Checks per request, in the modes batch and stream
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_most(BATCH_CHECKS_MAX))]
    batch: usize,

    /// Connections
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_most(4_096))]
    connections: usize,

    /// Requests in flight per connection; in the modes check and batch at most 256
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_most(65_536))]
    in_flight: usize,

    /// Generator threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_most(64))]
    threads: usize,

    /// Requests per second, sent at scheduled times (open loop) [default: closed loop: each slot sends the
    /// next request when the last one is answered]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: Option<u64>,

    /// Length of the measured window; with --against, of each run [default: 10, or 3 with --against]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,

    /// Length of the warm-up before the measured window
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    warm_up: Duration,
}

impl Load {
    /// # Errors
    ///
    /// More unary calls in flight than a server allows streams on a connection.
    fn fits(&self) -> anyhow::Result<()> {
        let is_a_call_each = matches!(self.mode, Mode::Check | Mode::Batch);
        ensure!(
            !is_a_call_each || self.in_flight <= CONNECTION_STREAMS_MAX as usize,
            "--in-flight: at most {CONNECTION_STREAMS_MAX} in this mode, since a connection has no \
             more streams; use more connections, or the modes stream or coalesced"
        );
        Ok(())
    }
}

/// The transport of the servers that are started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Transport {
    Tcp,
    Unix,
}

/// What a server can be compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Yardstick {
    /// The same services on the same transport, with handlers that allow everything
    DoNothing,
}

fn at_most(most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync {
    move |text| {
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| format!("expected a number from 1 to {most}"))
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.0..=86_400.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "expected seconds, up to 86400".into())
}

impl Run {
    /// The child processes end with the run, also when a signal ends it.
    pub(crate) async fn run(mut self, format: Format) -> anyhow::Result<ExitCode> {
        let access = self.access()?;
        let stop = signals::stop(&[Signal::HangUp])?;
        tokio::select! {
            measured = Box::pin(self.measure(format, access)) => measured,
            signal = stop => bail!("stopped by {signal}"),
        }
    }

    /// How the server is asked that the options or a context say; its address is then that of `addr`.
    ///
    /// # Errors
    ///
    /// Options that do not count, since no server is named or its address has no TLS; a token that others would see.
    fn access(&mut self) -> anyhow::Result<Access> {
        let files = tls::chosen();
        if self.addr.is_none() && !context::is_chosen() {
            ensure!(
                files.is_empty() && self.caller.is_none() && self.token_file.is_none(),
                "--ca, --cert, --key, --server-name, --token-file and --as are for a server that is measured: give --addr"
            );
            return Ok(Access::default());
        }
        let given = self.addr.as_ref().map(ToString::to_string);
        let server = context::server(given.as_deref())?;
        let address: ServerAddress = server.addr.parse()?;
        let files = files.or(server.tls);
        ensure!(address.is_tls() || files.is_empty(), ConnectError::NoTls(address));
        ensure!(
            !address.is_tls() || self.against.is_none(),
            "--against: the yardstick has no TLS, so measure the server without"
        );
        let token = self.token_file.take().or(server.token_file).map(Credential::file);
        ensure!(
            token.is_some() || self.caller.is_none(),
            "--as says whom a token proves, and a name alone proves nobody: give --token-file"
        );
        let identity = self.caller.take().or(server.caller);
        let credential = token.map(|token| match identity {
            Some(identity) => token.of(identity),
            None => token,
        });
        if let Some(credential) = &credential {
            credential.ensure_hidden_on_its_way_to(&address)?;
        }
        let access = Access { tls: files.load()?, credential };
        self.addr = Some(address);
        Ok(access)
    }

    async fn measure(self, format: Format, access: Access) -> anyhow::Result<ExitCode> {
        self.load.fits()?;
        let line = progress_line();
        line.set_message("preparing the questions");
        line.tick();
        let (checks, snapshot) = self.world.questions(self.verify)?;
        let mode = self.load.mode;
        let verify = snapshot.as_ref().map(|snapshot| (snapshot, Clock::System.now()));
        let questions = Questions::new(mode, &checks, self.load.batch, verify);
        drop((checks, snapshot));
        line.set_message("starting");
        line.tick();
        let folder = Folder::new()?;
        let (child, server) = self.server(&folder, access).await?;
        let plan = self.plan();
        let info = RunInfo {
            target: server.address.to_string(),
            mode,
            checks_per_request: questions.checks_per_request(),
            verified: self.verify,
        };
        let is_sound = if let Some(Yardstick::DoNothing) = self.against {
            let yardstick = self.start_yardstick(&folder).await?;
            let servers = (&server, yardstick.measured());
            let pairs = pairs(self.pairs.into(), &plan, servers, &questions, &line).await?;
            let totals = Totals::of(&pairs)?;
            let server = Report::new(&info, &plan, &totals.server);
            let name = format!("do-nothing, {}", self.runtime.name());
            // The yardstick allows everything, so its decisions are not verified.
            let info = RunInfo { target: name, verified: false, ..info };
            let yardstick = Report::new(&info, &plan, &totals.yardstick);
            let comparison = Comparison::new(server, yardstick, &pairs);
            line.finish_and_clear();
            match format {
                Format::Json => output::json(&comparison)?,
                Format::Table => show::comparison(&comparison)?,
            }
            self.draw(&[("capstan", &totals.server), ("do-nothing", &totals.yardstick)])?;
            comparison.server.is_sound() && comparison.yardstick.is_sound()
        } else {
            let is_tls = server.address.is_tls();
            let measured = run(&plan, &server, &questions, &line).await;
            let measurement = measured.map_err(|error| advised(error, is_tls))?;
            let report = Report::new(&info, &plan, &measurement);
            line.finish_and_clear();
            match format {
                Format::Json => output::json(&report)?,
                Format::Table => show::report(&report, &measurement.tally.latency)?,
            }
            self.draw(&[("capstan", &measurement)])?;
            report.is_sound()
        };
        drop((child, folder));
        Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    }

    fn plan(&self) -> Plan {
        let Load { connections, in_flight, threads, rate, duration, warm_up, .. } = self.load;
        let default = if self.against.is_some() { 3 } else { 10 };
        let duration = duration.unwrap_or(Duration::from_secs(default));
        // A thread without a connection would have no work.
        let threads = threads.min(connections);
        Plan { connections, in_flight, threads, rate, warm_up, duration }
    }

    /// The server to measure, and its child process if it was started here.
    async fn server(
        &self,
        folder: &Folder,
        access: Access,
    ) -> anyhow::Result<(Option<Server>, MeasuredServer)> {
        let Some(address) = self.addr.clone() else {
            let mut arguments = self.world.serve(folder)?;
            arguments.extend(["--listen".into(), self.listen(folder, "server.sock")?]);
            let server = Server::start(arguments).await?;
            let measured = server.measured().clone();
            return Ok((Some(server), measured));
        };
        let pid = match (address.unix_path(), self.pid) {
            (Some(path), None) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.with_context(|| format!("cannot reach {address}"))?;
                stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok())
            }
            (_, pid) => pid,
        };
        Ok((None, MeasuredServer { address, access, pid }))
    }

    async fn start_yardstick(&self, folder: &Folder) -> anyhow::Result<Server> {
        let listen = self.listen(folder, "yardstick.sock")?;
        let runtime = self.runtime.name();
        let arguments = ["bench", "do-nothing", "--listen", &listen, "--runtime", runtime];
        Server::start(arguments.map(str::to_owned).to_vec()).await
    }

    fn listen(&self, folder: &Folder, name: &str) -> anyhow::Result<String> {
        let is_unix = match &self.addr {
            // The yardstick has the transport of the measured server.
            Some(address) => address.unix_path().is_some(),
            None => self.transport == Transport::Unix,
        };
        if !is_unix {
            return Ok("127.0.0.1:0".into());
        }
        let path = folder.file(name);
        let path = path.to_str().with_context(|| format!("{} is no text", path.display()))?;
        Ok(format!("unix:{path}"))
    }

    fn draw(&self, measurements: &[(&str, &Measurement)]) -> anyhow::Result<()> {
        let Some(path) = &self.plot else {
            return Ok(());
        };
        let Load { mode, connections, in_flight, .. } = self.load;
        let pace = self.load.rate.map_or("closed loop".into(), |rate| format!("{rate} requests/s"));
        let title = format!("{mode:?}, {connections} × {in_flight} in flight, {pace}");
        let curves: Vec<_> =
            measurements.iter().map(|(name, one)| (*name, &one.tally.latency)).collect();
        let svg = plot::svg(&title, &curves)?;
        fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The error of a server that cannot be reached, with what to do where TLS is the cause.
fn advised(error: anyhow::Error, is_tls: bool) -> anyhow::Error {
    match channel::tls_advice(&error, is_tls) {
        Some(advice) => anyhow!("{error:#} ({advice})"),
        None => error,
    }
}
