//! One run of a load against one server.

use std::fmt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use capstan_bench::child::Folder;
use capstan_bench::cpu;
use capstan_bench::load::{MeasuredServer, Mode, Plan, progress_line};
use capstan_bench::questions::{self, QuestionBuf};
use capstan_bench::report::{Report, RunInfo};
use capstan_benches::worlds::World;
use capstan_engine::{Attributes, Snapshot};
use capstan_proto::{frame, v1};
use capstan_server::clock::Clock;

/// Questions that the generator asks in turn.
const QUESTIONS: u64 = 20_000;
/// Before the measured part of a run.
const WARM_UP: Duration = Duration::from_millis(300);
/// The rate that h2load is assumed to reach, for the number of its calls: a run may take longer or shorter.
const RATE: f64 = 150_000.0;

/// Connections, and calls in flight on each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) connections: usize,
    pub(crate) in_flight: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    /// One question again and again, as fast as answers arrive.
    H2load(Shape),
    /// Many questions in turn, as fast as answers arrive.
    Generator(Shape),
    /// Many questions in turn, at this number of calls a second.
    Latency(u64),
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, Shape { connections, in_flight }) = match self {
            Self::H2load(shape) => ("h2load", shape),
            Self::Generator(shape) => ("generator", shape),
            Self::Latency(rate) => return write!(f, "{rate} calls a second"),
        };
        write!(f, "{name}, {connections} × {in_flight}")
    }
}

/// The figures of one run, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Figures {
    /// CPU of the server a call.
    Cpu(f64),
    Latency {
        p50: f64,
        p99: f64,
    },
}

/// The questions of all loads.
pub(crate) struct Questions {
    generator: Arc<questions::Questions>,
    /// The body of h2load's calls.
    body: PathBuf,
}

impl Questions {
    pub(crate) fn new(world: World, folder: &Folder) -> anyhow::Result<Self> {
        let asked = world.asked(0, QUESTIONS);
        let first = asked.first().context("no question")?;
        let request = v1::CheckRequest {
            identity: first.identity.clone(),
            capability: first.capability.clone(),
            resource: first.resource.clone(),
            ..Default::default()
        };
        let body = folder.file("body");
        std::fs::write(&body, frame::framed(&request))?;
        let questions: Vec<QuestionBuf> = asked
            .into_iter()
            .map(|asked| QuestionBuf {
                identity: asked.identity,
                capability: asked.capability,
                resource: asked.resource,
                attributes: Attributes::default(),
            })
            .collect();
        let snapshot = Snapshot::build(&world.model(), 1)?;
        let verify = Some((&snapshot, Clock::System.now()));
        let generator = questions::Questions::new(Mode::Check, &questions, 1, verify);
        Ok(Self { generator, body })
    }
}

/// Whether h2load can be started.
pub(crate) fn has_h2load() -> bool {
    let mut command = Command::new("h2load");
    command.arg("--version").stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}

impl Load {
    pub(crate) async fn run(
        &self,
        server: &MeasuredServer,
        questions: &Questions,
        time: Duration,
    ) -> anyhow::Result<Figures> {
        match self {
            Self::H2load(shape) => Ok(Figures::Cpu(h2load(*shape, server, questions, time)?)),
            Self::Generator(shape) => {
                let report = generator(*shape, None, (server, questions, time)).await?;
                let cpu = report.server_cpu_us_per_check;
                Ok(Figures::Cpu(cpu.context("the server's CPU time is unknown")?))
            }
            Self::Latency(rate) => {
                let shape = Shape { connections: 8, in_flight: 16 };
                let report = generator(shape, Some(*rate), (server, questions, time)).await?;
                let latency = report.latency_us;
                Ok(Figures::Latency { p50: latency.p50, p99: latency.p99 })
            }
        }
    }
}

/// A number of calls by h2load. CPU of the server a call, in microseconds.
fn h2load(
    Shape { connections, in_flight }: Shape,
    server: &MeasuredServer,
    questions: &Questions,
    time: Duration,
) -> anyhow::Result<f64> {
    let calls = (RATE * time.as_secs_f64()).round();
    let used = || server.pid.and_then(cpu::used).context("the server's CPU time is unknown");
    let before = used()?;
    let ran = Command::new("h2load")
        .args(["-n", &calls.to_string(), "-c", &connections.to_string()])
        .args(["-m", &in_flight.to_string(), "-H", "content-type: application/grpc"])
        .args(["-H", "te: trailers", "-d"])
        .arg(&questions.body)
        .arg(format!("http://{}/capstan.v1.DecisionService/Check", server.address.authority()))
        .output()
        .context("h2load does not start")?;
    let cpu = used()? - before;
    let said = String::from_utf8_lossy(&ran.stdout);
    let all = format!("{calls} succeeded, 0 failed");
    ensure!(ran.status.success() && said.contains(&all), "h2load failed: {said}");
    Ok(cpu.as_secs_f64() * 1e6 / calls)
}

async fn generator(
    Shape { connections, in_flight }: Shape,
    rate: Option<u64>,
    (server, questions, duration): (&MeasuredServer, &Questions, Duration),
) -> anyhow::Result<Report> {
    let plan = Plan { connections, in_flight, threads: 1, rate, warm_up: WARM_UP, duration };
    let info = RunInfo {
        target: server.address.to_string(),
        mode: Mode::Check,
        checks_per_request: 1,
        verified: true,
    };
    let measurement =
        capstan_bench::load::run(&plan, server, &questions.generator, &progress_line()).await?;
    let report = Report::new(&info, &plan, &measurement);
    ensure!(report.is_sound(), "wrong answers or errors: {report:?}");
    Ok(report)
}
