//! A load generator at the level of HTTP/2 frames: threads, connections, slots.
//!
//! ```text
//! run ──▶ threads, each with a current-thread runtime
//!           └─ connections, each driven by a task
//!                └─ slots: one unary call in flight each, or a stream with several requests
//! ```
//!
//! A gRPC client library costs 14 to 36 µs of CPU per request, which would dominate the measurement.
//! Here requests are encoded before the start, and only the counted fields of an answer are decoded.
//! At an `https` address the frames go through TLS, whose CPU is the generator's.
//! [`Mode::Coalesced`] is the exception: it measures the Rust client together with the server.

mod coalesced;
mod code;
mod connection;
mod pace;
mod slot;
pub(crate) mod tally;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use capstan_client::{Client, Credential, ServerAddress, TlsOptions};
use futures_util::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{interval, sleep_until, timeout};

use crate::cpu;
use crate::figures::as_f64;
use crate::questions::Questions;
pub use code::ErrorName;
use connection::{Connection, Target};
use pace::{Pace, Schedule, Window};
use slot::{Generator, InFlight, Progress};
pub use tally::Tally;

/// From the last connection to the first request.
const HEAD_START: Duration = Duration::from_millis(20);
/// The wait for requests in flight at the end of a run: twice the server's time limit for a call.
const GRACE: Duration = Duration::from_secs(2);
/// The interval between two updates of the progress line.
const REFRESH: Duration = Duration::from_millis(250);

/// How checks are sent to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One check per call of Check
    Check,
    /// Several checks per call of BatchCheck
    Batch,
    /// One StreamCheck call per connection, several checks per message
    Stream,
    /// One check per call of the Rust client, which combines concurrent calls into batches
    Coalesced,
}

impl Mode {
    const fn path(self) -> &'static str {
        match self {
            Self::Check => "/capstan.v1.DecisionService/Check",
            Self::Batch => "/capstan.v1.DecisionService/BatchCheck",
            Self::Stream | Self::Coalesced => "/capstan.v1.DecisionService/StreamCheck",
        }
    }
}

/// The amount of load, and its duration.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Connections of all threads together.
    pub connections: usize,
    /// Requests in flight per connection.
    pub in_flight: usize,
    /// Generator threads, at most as many as connections.
    pub threads: usize,
    /// Requests per second of all threads together (open loop). `None`: closed loop.
    pub rate: Option<u64>,
    /// Time before the measured window.
    pub warm_up: Duration,
    /// The measured window.
    pub duration: Duration,
}

/// How a server is asked: whom TLS trusts and shows, and what proves who asks.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Options of TLS; the defaults unless the address is `https`.
    pub tls: TlsOptions,
    /// Sent with every call.
    pub credential: Option<Credential>,
}

/// A server to measure.
#[derive(Clone, Debug)]
pub struct MeasuredServer {
    /// Where it listens.
    pub address: ServerAddress,
    /// How it is asked.
    pub access: Access,
    /// Its process on this machine; `None` if unknown, and then its CPU time is unknown too.
    pub pid: Option<u32>,
}

/// The result of a run, or of several runs added up.
#[derive(Clone, Debug)]
pub struct Measurement {
    /// Counts and latencies.
    pub tally: Tally,
    /// Length of the measured window.
    pub(crate) seconds: f64,
    /// CPU time of the server in the window; `None` if unknown.
    pub(crate) server_cpu: Option<Duration>,
    /// CPU time of the generator in the window; `None` if unknown.
    pub(crate) client_cpu: Option<Duration>,
}

impl Measurement {
    /// Checks per second.
    pub(crate) fn rate(&self) -> f64 {
        as_f64(self.tally.completed) / self.seconds
    }

    /// CPU time per check, in microseconds; `None` if it is unknown or no check was answered.
    pub(crate) fn micros_a_check(&self, cpu: Option<Duration>) -> Option<f64> {
        let checks = as_f64(self.tally.completed);
        cpu.filter(|_| checks > 0.0).map(|cpu| cpu.as_secs_f64() * 1e6 / checks)
    }
}

/// Runs the plan against a server.
///
/// # Errors
///
/// A connection cannot be opened at the start, or a generator thread fails. Later errors of the server
/// or of connections are counted instead.
pub async fn run(
    plan: &Plan,
    server: &MeasuredServer,
    questions: &Arc<Questions>,
    line: &ProgressBar,
) -> anyhow::Result<Measurement> {
    let progress = Arc::new(Progress::default());
    let target = Target::of(server, questions.mode)?;
    let mut threads = Vec::new();
    for thread in 0..plan.threads {
        threads.push(Thread::start(thread, plan, &target, questions, &progress)?);
    }
    for thread in &mut threads {
        let connected = &mut thread.connected;
        connected.await.context("a generator thread ended early")??;
    }
    let window = Window::new(Instant::now() + HEAD_START, plan.warm_up, plan.duration);
    for thread in &mut threads {
        // The error of a thread that has ended is returned below.
        let _ = thread.go.take().map(|go| go.send(window));
    }
    let own = std::process::id();
    sleep_until(window.measured.into()).await;
    let (server_before, client_before) = (server.pid.and_then(cpu::used), cpu::used(own));
    watch(&progress, window, line).await;
    let used = |pid, before: Option<Duration>| Some(cpu::used(pid)?.saturating_sub(before?));
    let (server_cpu, client_cpu) =
        (server.pid.and_then(|pid| used(pid, server_before)), used(own, client_before));
    let mut tally = Tally::new()?;
    for thread in threads {
        tally.add(&thread.done.await.context("a generator thread ended early")??);
    }
    Ok(Measurement { tally, seconds: plan.duration.as_secs_f64(), server_cpu, client_cpu })
}

/// Updates the progress line until the end of the window.
async fn watch(progress: &Progress, window: Window, line: &ProgressBar) {
    let mut ticks = interval(REFRESH);
    ticks.tick().await;
    let (mut before, mut then) = (progress.answered.load(Ordering::Relaxed), Instant::now());
    let end = sleep_until(window.end.into());
    tokio::pin!(end);
    loop {
        tokio::select! {
            biased;
            () = &mut end => return,
            _ = ticks.tick() => {}
        }
        let (answered, now) = (progress.answered.load(Ordering::Relaxed), Instant::now());
        let rate = as_f64(answered - before) / (now - then).as_secs_f64();
        let failed = progress.failed.load(Ordering::Relaxed);
        let left = window.end.saturating_duration_since(now).as_secs_f64();
        line.set_message(format!(
            "{rate:>9.0} checks/s   {answered} answered   {failed} failed   {left:.0} s to go"
        ));
        (before, then) = (answered, now);
    }
}

/// A progress line on standard error; hidden if that is not a terminal.
#[must_use]
pub fn progress_line() -> ProgressBar {
    let line = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {prefix}{msg}") {
        line.set_style(style);
    }
    line
}

/// A generator thread: first connected, then told to go, then done.
struct Thread {
    connected: oneshot::Receiver<anyhow::Result<()>>,
    go: Option<oneshot::Sender<Window>>,
    done: oneshot::Receiver<anyhow::Result<Tally>>,
}

impl Thread {
    fn start(
        thread: usize,
        plan: &Plan,
        target: &Target,
        questions: &Arc<Questions>,
        progress: &Arc<Progress>,
    ) -> anyhow::Result<Self> {
        let (say_connected, connected) = oneshot::channel();
        let (go, wait_for_go) = oneshot::channel();
        let (say_done, done) = oneshot::channel();
        let (plan, target) = (plan.clone(), target.clone());
        let (questions, progress) = (Arc::clone(questions), Arc::clone(progress));
        let work = move || async move {
            let connections = match connect(thread, &plan, &target, &questions).await {
                Ok(connections) => connections,
                Err(error) => {
                    // `run` returns this error; the one below is never read.
                    let _ = say_connected.send(Err(error));
                    return Err(anyhow!("not connected"));
                }
            };
            let _ = say_connected.send(Ok(()));
            let window = wait_for_go.await?;
            let head = target.head.clone();
            // Each thread starts at another question.
            let next = Cell::new(questions.len() * thread / plan.threads.max(1));
            let pace = Pace::new(window, schedule(thread, &plan, window)?);
            let tally = RefCell::new(Tally::new()?);
            let generator = Generator { questions, head, window, pace, tally, progress, next };
            generate(Rc::new(generator), &connections, plan.in_flight).await
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        std::thread::Builder::new().name(format!("load-{thread}")).spawn(move || {
            let tally = LocalSet::new().block_on(&runtime, work());
            let _ = say_done.send(tally);
        })?;
        Ok(Self { connected, go: Some(go), done })
    }
}

fn schedule(thread: usize, plan: &Plan, window: Window) -> anyhow::Result<Option<Schedule>> {
    let (thread, threads) = (u64::try_from(thread)?, u64::try_from(plan.threads)?);
    let start = window.start;
    Ok(plan.rate.map(|rate| Schedule { start, rate, thread, threads }))
}

/// The connections of one thread.
enum Connections {
    /// Connections of the generator.
    Frames(Vec<Connection>),
    /// A client, and the number of its connections.
    Client(Client, usize),
}

async fn connect(
    thread: usize,
    plan: &Plan,
    target: &Target,
    questions: &Questions,
) -> anyhow::Result<Connections> {
    let share = (thread..plan.connections).step_by(plan.threads.max(1));
    if questions.mode == Mode::Coalesced {
        let connections = share.len();
        let tasks = connections * plan.in_flight;
        let client = coalesced::client(target, connections, tasks, questions).await?;
        return Ok(Connections::Client(client, connections));
    }
    let mut connections = Vec::new();
    for _ in share {
        connections.push(Connection::open(target).await?);
    }
    Ok(Connections::Frames(connections))
}

async fn generate(
    generator: Rc<Generator>,
    connections: &Connections,
    in_flight: usize,
) -> anyhow::Result<Tally> {
    let count = match connections {
        Connections::Frames(connections) => connections.len(),
        Connections::Client(_, count) => *count,
    };
    let slots_each = if generator.questions.mode == Mode::Stream { 1 } else { in_flight };
    let slots: Vec<Rc<InFlight>> =
        std::iter::repeat_with(Rc::default).take(count * slots_each).collect();
    let all = async {
        match connections {
            Connections::Frames(connections) => {
                frames(&generator, connections, &slots, in_flight).await
            }
            Connections::Client(client, _) => coalesced::calls(&generator, client, &slots).await,
        }
    };
    let rest = generator.window.end.saturating_duration_since(Instant::now()) + GRACE;
    let (paced, asked) = tokio::join!(generator.pace.run(), timeout(rest, all));
    paced?;
    // On a timeout the requests in flight are counted as unanswered.
    asked.unwrap_or(Ok(()))?;
    generator.give_up(&slots);
    Ok(generator.tally.borrow().clone())
}

/// Runs all slots concurrently, each on its connection.
async fn frames(
    generator: &Generator,
    connections: &[Connection],
    slots: &[Rc<InFlight>],
    in_flight: usize,
) -> anyhow::Result<()> {
    let each = slots.len() / connections.len().max(1);
    let work = connections.iter().zip(slots.chunks(each.max(1)));
    let work =
        work.flat_map(|(connection, slots)| slots.iter().map(move |slot| (connection, slot)));
    join_all(work.map(|(connection, slot)| async move {
        match generator.questions.mode {
            Mode::Stream => slot::stream(generator, connection, slot, in_flight).await,
            _ => slot::calls(generator, connection, slot).await,
        }
    }))
    .await;
    Ok(())
}
