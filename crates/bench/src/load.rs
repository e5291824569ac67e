//! A load generator at the level of HTTP/2 frames: threads, connections, lanes.
//!
//! ```text
//! run ──▶ a thread each, with a runtime of its own
//!           └─ connection            driven by a task
//!                └─ lane             a call in flight, or a stream with some: asks, counts, asks again
//! ```
//!
//! A gRPC client library costs 14 to 36 µs a request and would measure itself. Here requests are
//! encoded before the start, and of an answer only what counts is read. [`Mode::Coalesced`] is the
//! exception: there the client is what is measured, too.

pub mod coalesced;
pub mod connection;
pub mod lane;
pub mod pace;
pub mod tally;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use capstan_client::Client;
use futures_util::future::join_all;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{interval, sleep_until, timeout};
use tonic::codegen::http::Request;

use super::cpu;
use super::questions::Questions;
use connection::{Connection, Endpoint};
use lane::{Generator, InFlight, Live};
use pace::{Pace, Schedule, Window};
use tally::Tally;

/// From when everything is connected to the first request.
const HEAD_START: Duration = Duration::from_millis(20);
/// How long requests in flight at the end are waited for: twice the longest that the server takes.
const GRACE: Duration = Duration::from_secs(2);
/// How often the live line changes.
const REFRESH: Duration = Duration::from_millis(250);

/// How questions are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One a call
    Check,
    /// Several a call
    Batch,
    /// One stream a connection, several a message
    Stream,
    /// One a call of the Rust client, which makes batches of them by itself
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

/// How much load, and for how long.
#[derive(Clone, Debug)]
pub struct Plan {
    pub connections: usize,
    /// Requests in flight for each connection.
    pub in_flight: usize,
    pub threads: usize,
    /// Requests a second, of an open loop.
    pub rate: Option<u64>,
    pub warm_up: Duration,
    pub duration: Duration,
}

/// A server, and its process if that is known.
#[derive(Clone, Debug)]
pub struct Target {
    pub endpoint: Endpoint,
    pub pid: Option<u32>,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub tally: Tally,
    pub seconds: f64,
    /// CPU in the window, where it can be known.
    pub server_cpu: Option<Duration>,
    pub client_cpu: Option<Duration>,
}

impl Outcome {
    /// Checks a second.
    pub fn rate(&self) -> f64 {
        as_f64(self.tally.completed) / self.seconds
    }

    /// CPU microseconds a check.
    pub fn micros_a_check(&self, cpu: Option<Duration>) -> Option<f64> {
        let checks = as_f64(self.tally.completed);
        cpu.filter(|_| checks > 0.0).map(|cpu| cpu.as_secs_f64() * 1e6 / checks)
    }
}

/// Counts are far below 2^53.
#[expect(clippy::cast_precision_loss, reason = "figures for people")]
pub const fn as_f64(count: u64) -> f64 {
    count as f64
}

/// Runs the plan against the target.
///
/// # Errors
///
/// The server cannot be reached at the start. What goes wrong later is counted.
pub async fn run(
    plan: &Plan,
    target: &Target,
    questions: &Arc<Questions>,
    line: &ProgressBar,
) -> anyhow::Result<Outcome> {
    let live = Arc::new(Live::default());
    let mut threads = Vec::new();
    for thread in 0..plan.threads {
        threads.push(Thread::start(thread, plan, target, questions, &live)?);
    }
    for thread in &mut threads {
        let connected = &mut thread.connected;
        connected.await.context("a generator thread ended early")??;
    }
    let window = Window::new(Instant::now() + HEAD_START, plan.warm_up, plan.duration);
    for thread in &mut threads {
        // A thread that ended says so below.
        let _ = thread.go.take().map(|go| go.send(window));
    }
    let own = std::process::id();
    sleep_until(window.measured.into()).await;
    let (server, client) = (target.pid.and_then(cpu::used), cpu::used(own));
    watch(&live, window, line).await;
    let used = |pid, before: Option<Duration>| Some(cpu::used(pid)?.saturating_sub(before?));
    let (server_cpu, client_cpu) =
        (target.pid.and_then(|pid| used(pid, server)), used(own, client));
    let mut tally = Tally::new()?;
    for thread in threads {
        tally.add(&thread.done.await.context("a generator thread ended early")??);
    }
    Ok(Outcome { tally, seconds: plan.duration.as_secs_f64(), server_cpu, client_cpu })
}

/// Shows how it goes until the end of the window.
async fn watch(live: &Live, window: Window, line: &ProgressBar) {
    let mut ticks = interval(REFRESH);
    ticks.tick().await;
    let (mut before, mut then) = (live.answered.load(Ordering::Relaxed), Instant::now());
    let end = sleep_until(window.end.into());
    tokio::pin!(end);
    loop {
        tokio::select! {
            biased;
            () = &mut end => return,
            _ = ticks.tick() => {}
        }
        let (answered, now) = (live.answered.load(Ordering::Relaxed), Instant::now());
        let rate = as_f64(answered - before) / (now - then).as_secs_f64();
        let failed = live.failed.load(Ordering::Relaxed);
        let left = window.end.saturating_duration_since(now).as_secs_f64();
        line.set_message(format!(
            "{rate:>9.0} checks/s   {answered} answered   {failed} failed   {left:.0} s to go"
        ));
        (before, then) = (answered, now);
    }
}

/// A line on a terminal that shows how it goes, nothing elsewhere.
pub fn live_line() -> ProgressBar {
    let line = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {prefix}{msg}") {
        line.set_style(style);
    }
    line
}

/// A generator thread as its starter sees it.
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
        live: &Arc<Live>,
    ) -> anyhow::Result<Self> {
        let (say_connected, connected) = oneshot::channel();
        let (go, wait_for_go) = oneshot::channel();
        let (say_done, done) = oneshot::channel();
        let (plan, endpoint) = (plan.clone(), target.endpoint.clone());
        let (questions, live) = (Arc::clone(questions), Arc::clone(live));
        let work = move || async move {
            let links = match connect(thread, &plan, &endpoint, &questions).await {
                Ok(links) => links,
                Err(error) => {
                    // The starter hears it here, and is gone if it cannot.
                    let _ = say_connected.send(Err(error));
                    return Err(anyhow!("not connected"));
                }
            };
            let _ = say_connected.send(Ok(()));
            let window = wait_for_go.await?;
            let head = head(&endpoint, questions.mode)?;
            // Threads begin at different questions.
            let next = Cell::new(questions.len() * thread / plan.threads.max(1));
            let pace = Pace::new(window, schedule(thread, &plan, window)?);
            let tally = RefCell::new(Tally::new()?);
            let generator = Generator { questions, head, window, pace, tally, live, next };
            generate(Rc::new(generator), &links, plan.in_flight).await
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

/// This thread's share of the connections.
enum Links {
    /// Written to here.
    Own(Vec<Connection>),
    /// Those of a client, and how many it has.
    Client(Client, usize),
}

async fn connect(
    thread: usize,
    plan: &Plan,
    endpoint: &Endpoint,
    questions: &Questions,
) -> anyhow::Result<Links> {
    let share = (thread..plan.connections).step_by(plan.threads.max(1));
    if questions.mode == Mode::Coalesced {
        let connections = share.len();
        let tasks = connections * plan.in_flight;
        let client = coalesced::client(endpoint, connections, tasks, questions).await?;
        return Ok(Links::Client(client, connections));
    }
    let mut connections = Vec::new();
    for _ in share {
        connections.push(Connection::open(endpoint).await?);
    }
    Ok(Links::Own(connections))
}

fn head(endpoint: &Endpoint, mode: Mode) -> anyhow::Result<Request<()>> {
    Ok(Request::post(format!("http://{}{}", endpoint.authority(), mode.path()))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?)
}

async fn generate(
    generator: Rc<Generator>,
    links: &Links,
    in_flight: usize,
) -> anyhow::Result<Tally> {
    let connections = match links {
        Links::Own(connections) => connections.len(),
        Links::Client(_, connections) => *connections,
    };
    let lanes_each = if generator.questions.mode == Mode::Stream { 1 } else { in_flight };
    let lanes: Vec<Rc<InFlight>> =
        std::iter::repeat_with(Rc::default).take(connections * lanes_each).collect();
    let all = async {
        match links {
            Links::Own(connections) => frames(&generator, connections, &lanes, in_flight).await,
            Links::Client(client, _) => coalesced::calls(&generator, client, &lanes).await,
        }
    };
    let rest = generator.window.end.saturating_duration_since(Instant::now()) + GRACE;
    let (paced, asked) = tokio::join!(generator.pace.run(), timeout(rest, all));
    paced?;
    // What has no answer by now is counted as such.
    asked.unwrap_or(Ok(()))?;
    generator.give_up(&lanes);
    Ok(generator.tally.borrow().clone())
}

/// Asks on every lane at once, each on its connection.
async fn frames(
    generator: &Generator,
    connections: &[Connection],
    lanes: &[Rc<InFlight>],
    in_flight: usize,
) -> anyhow::Result<()> {
    let each = lanes.len() / connections.len().max(1);
    let work = connections.iter().zip(lanes.chunks(each.max(1)));
    let work =
        work.flat_map(|(connection, lanes)| lanes.iter().map(move |lane| (connection, lane)));
    join_all(work.map(|(connection, lane)| async move {
        match generator.questions.mode {
            Mode::Stream => lane::stream(generator, connection, lane, in_flight).await,
            _ => lane::calls(generator, connection, lane).await,
        }
    }))
    .await;
    Ok(())
}
