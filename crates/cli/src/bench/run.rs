//! A run: what is started, asked and compared, and where the figures go.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use clap::ValueEnum;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};

use super::show;
use super::world::World;
use crate::FAILED;
use crate::output::{self, Format};
use capstan_bench::against::pairs;
use capstan_bench::child::{Folder, Server};
use capstan_bench::do_nothing::Runtime;
use capstan_bench::load::connection::Endpoint;
use capstan_bench::load::{Mode, Outcome, Plan, Target, live_line, run};
use capstan_bench::plot;
use capstan_bench::questions::Questions;
use capstan_bench::report::{Asked, Both, Comparison, Report};
use capstan_server::limits::{BATCH_CHECKS_MAX, CONNECTION_STREAMS_MAX};

/// What is measured, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Measure the server at this address, http://HOST:PORT or unix:PATH, instead of starting one
    #[arg(long, value_name = "URL", value_parser = Endpoint::parse)]
    addr: Option<Endpoint>,

    /// The process of that server, for its CPU; on a unix socket it is known
    #[arg(long, value_name = "PID", requires = "addr")]
    pid: Option<u32>,

    /// What the servers that are started listen on
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    transport: Transport,

    #[command(flatten)]
    world: World,

    #[command(flatten)]
    load: Load,

    /// Compare every decision with that of the same engine in this process
    #[arg(long)]
    verify: bool,

    /// Run a yardstick beside it, in turn, and tell the ratios
    #[arg(long, value_enum, value_name = "YARDSTICK")]
    against: Option<Yardstick>,

    /// How many runs of each, with --against
    #[arg(long, value_name = "N", default_value_t = 20, requires = "against",
          value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pairs: u16,

    /// Which threads the yardstick serves with
    #[arg(long, value_enum, default_value_t = Runtime::PerCore, requires = "against")]
    runtime: Runtime,

    /// Draw the latencies here, as SVG
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// How much is asked, and how.
#[derive(Debug, clap::Args)]
struct Load {
    /// How questions are asked
    #[arg(long, value_enum, default_value_t = Mode::Check)]
    mode: Mode,

    /// Checks a request, in the modes batch and stream
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_most(BATCH_CHECKS_MAX))]
    batch: usize,

    /// Connections
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = at_most(4_096))]
    connections: usize,

    /// Requests in flight for each connection; in the modes check and batch, at most 256
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_most(65_536))]
    in_flight: usize,

    /// Threads that generate load
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_most(64))]
    threads: usize,

    /// Requests a second, sent at their time (open loop) [default: as fast as answers come]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    rate: Option<u64>,

    /// Seconds that count; with --against, of each run [default: 10, or 3 with --against]
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    duration: Option<Duration>,

    /// Seconds before that which do not
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    warm_up: Duration,
}

impl Load {
    /// # Errors
    ///
    /// Servers take fewer calls on a connection than these.
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

/// What the servers that are started listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Transport {
    Tcp,
    Unix,
}

/// What a server can be measured against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Yardstick {
    /// The same service on the same transport, answering without looking
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
    /// Whatever ends it, the servers that it started end too.
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
        tokio::select! {
            measured = Box::pin(self.measure(format)) => measured,
            _ = terminate.recv() => Err(anyhow!("stopped by SIGTERM")),
            _ = interrupt.recv() => Err(anyhow!("stopped by SIGINT")),
        }
    }

    async fn measure(self, format: Format) -> anyhow::Result<ExitCode> {
        self.load.fits()?;
        let line = live_line();
        line.set_message("preparing the questions");
        line.tick();
        let (checks, snapshot) = self.world.questions(self.verify)?;
        let mode = self.load.mode;
        let questions = Questions::new(mode, &checks, self.load.batch, snapshot.as_ref());
        drop((checks, snapshot));
        line.set_message("starting");
        line.tick();
        let folder = Folder::new()?;
        let (server, target) = self.target(&folder).await?;
        let plan = self.plan();
        let asked = Asked {
            target: target.endpoint.to_string(),
            mode,
            checks_per_request: questions.checks_per_request(),
            verified: self.verify,
        };
        let is_sound = if let Some(Yardstick::DoNothing) = self.against {
            let yardstick = self.start_yardstick(&folder).await?;
            let targets = (&target, &yardstick.target());
            let pairs = pairs(self.pairs.into(), &plan, targets, &questions, &line).await?;
            let both = Both::of(&pairs)?;
            let server = Report::new(&asked, &plan, &both.server);
            let name = format!("do-nothing, {}", self.runtime.name());
            // It is not meant to be right.
            let asked = Asked { target: name, verified: false, ..asked };
            let yardstick = Report::new(&asked, &plan, &both.yardstick);
            let comparison = Comparison::new(server, yardstick, &pairs);
            line.finish_and_clear();
            match format {
                Format::Json => output::json(&comparison)?,
                Format::Table => show::comparison(&comparison)?,
            }
            self.draw(&[("capstan", &both.server), ("do-nothing", &both.yardstick)])?;
            comparison.server.is_sound() && comparison.yardstick.is_sound()
        } else {
            let outcome = run(&plan, &target, &questions, &line).await?;
            let report = Report::new(&asked, &plan, &outcome);
            line.finish_and_clear();
            match format {
                Format::Json => output::json(&report)?,
                Format::Table => show::report(&report, &outcome.tally.latency)?,
            }
            self.draw(&[("capstan", &outcome)])?;
            report.is_sound()
        };
        drop((server, folder));
        Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
    }

    fn plan(&self) -> Plan {
        let Load { connections, in_flight, threads, rate, duration, warm_up, .. } = self.load;
        let default = if self.against.is_some() { 3 } else { 10 };
        let duration = duration.unwrap_or(Duration::from_secs(default));
        // A thread without a connection has nothing to do.
        let threads = threads.min(connections);
        Plan { connections, in_flight, threads, rate, warm_up, duration }
    }

    /// The server to measure, and what holds it if it was started here.
    async fn target(&self, folder: &Folder) -> anyhow::Result<(Option<Server>, Target)> {
        let Some(endpoint) = self.addr.clone() else {
            let mut arguments = self.world.serve(folder)?;
            arguments.extend(["--listen".into(), self.listen(folder, "server.sock")?]);
            let server = Server::start(arguments).await?;
            let target = server.target();
            return Ok((Some(server), target));
        };
        let pid = match (&endpoint, self.pid) {
            (Endpoint::Unix(path), None) => {
                let stream = UnixStream::connect(path).await;
                let stream = stream.with_context(|| format!("cannot reach {endpoint}"))?;
                stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok())
            }
            (_, pid) => pid,
        };
        Ok((None, Target { endpoint, pid }))
    }

    async fn start_yardstick(&self, folder: &Folder) -> anyhow::Result<Server> {
        let listen = self.listen(folder, "yardstick.sock")?;
        let runtime = self.runtime.name();
        let arguments = ["bench", "do-nothing", "--listen", &listen, "--runtime", runtime];
        Server::start(arguments.map(str::to_owned).to_vec()).await
    }

    fn listen(&self, folder: &Folder, name: &str) -> anyhow::Result<String> {
        let is_unix = match &self.addr {
            // The yardstick goes where the server is.
            Some(endpoint) => matches!(endpoint, Endpoint::Unix(_)),
            None => self.transport == Transport::Unix,
        };
        if !is_unix {
            return Ok("127.0.0.1:0".into());
        }
        let path = folder.file(name);
        let path = path.to_str().with_context(|| format!("{} is no text", path.display()))?;
        Ok(format!("unix:{path}"))
    }

    fn draw(&self, outcomes: &[(&str, &Outcome)]) -> anyhow::Result<()> {
        let Some(path) = &self.plot else {
            return Ok(());
        };
        let Load { mode, connections, in_flight, .. } = self.load;
        let pace = self.load.rate.map_or("closed loop".into(), |rate| format!("{rate} requests/s"));
        let title = format!("{mode:?}, {connections} × {in_flight} in flight, {pace}");
        let curves: Vec<_> =
            outcomes.iter().map(|(name, outcome)| (*name, &outcome.tally.latency)).collect();
        let svg = plot::svg(&title, &curves)?;
        fs::write(path, svg).with_context(|| format!("cannot write {}", path.display()))
    }
}
