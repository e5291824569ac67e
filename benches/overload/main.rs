//! More calls than one core can answer: `cargo bench -p capstan-benches --bench overload -- --seconds 12`.
//!
//! ```text
//! core 0: the server with one worker
//! core 1: calls over raw frames ─▶ some numbers of calls in flight: which of them are answered fastest
//!                               ─▶ 11 rounds: the highest rate, then 0.7 (2, 10) times that rate, whatever is answered
//!         another thread        ─▶ health, at the address of the calls and at that for probes
//! ```
//!
//! Options: see [`capstan_benches::started::Options`].

mod calls;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use calls::{Asked, Connection, Ended};
use capstan_benches::started::{Options, Started};
use capstan_proto::frame::framed;
use capstan_proto::v1::{CheckRequest, ListIdentitiesRequest};
use tokio::runtime::Builder;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const CONNECTIONS: usize = 16;
const IDENTITIES: usize = 20_000;
/// Rounds at each rate.
const ROUNDS: u32 = 11;
/// Calls that are due and were not begun. Further ones are not counted as sent.
const WAITING_MAX: usize = 4_096;
/// The goals: answers over the highest rate (median of the rounds), the 99th percentile of health, and the first call afterwards.
const KEPT_MIN: f64 = 0.9;
const HEALTH_MAX: Duration = Duration::from_millis(100);
const RECOVERY_MAX: Duration = Duration::from_secs(5);
/// Of a server with few calls in flight: the 99th percentile of its answers over that at 0.7 times the highest rate.
const SLOWER_MAX: u32 = 3;
/// Rest of the sender, in which the other thread has its core.
const REST: Duration = Duration::from_micros(200);
/// Time between two requests of health at one address.
const HEALTH: Duration = Duration::from_millis(10);

/// A policy whose identities all have the same permissions.
fn policy() -> String {
    let each = |line: &dyn Fn(usize) -> String| -> String {
        (0..IDENTITIES).map(|at| line(at) + "\n").collect()
    };
    let declared = each(&|at| format!("- {{id: person-{at}}}"));
    let bindings = each(&|at| format!("- {{identity: person-{at}, role: viewer, scope: acme}}"));
    format!(
        "version: 1\ncatalog: chainguard-2025-08-14\ngroups: [{{id: acme}}]\n\
         identities:\n{declared}role_bindings:\n{bindings}"
    )
}

fn check() -> Asked {
    let message = framed(&CheckRequest {
        identity: "person-7".into(),
        capability: "repo.list".into(),
        resource: "acme/nginx".into(),
        ..CheckRequest::default()
    });
    Asked { path: "/capstan.v1.DecisionService/Check", message: message.to_vec() }
}

fn list() -> Asked {
    let message = framed(&ListIdentitiesRequest {
        capability: "repo.list".into(),
        resource: "acme/nginx".into(),
        page_size: 1_000,
        ..ListIdentitiesRequest::default()
    });
    Asked { path: "/capstan.v1.DecisionService/ListIdentities", message: message.to_vec() }
}

/// The outcomes of calls.
#[derive(Debug, Default)]
struct Tally {
    /// From when they were due to the answer.
    answered: Vec<Duration>,
    refused: usize,
    late: usize,
    not_sent: usize,
}

impl Tally {
    fn add(&mut self, ended: Ended, due: Instant) {
        match ended {
            Ended::Answered => self.answered.push(due.elapsed()),
            Ended::Refused => self.refused += 1,
            Ended::Late => self.late += 1,
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

fn connect(to: SocketAddr, asked: &Asked) -> anyhow::Result<Vec<Connection>> {
    (0..CONNECTIONS).map(|_| Connection::open(to, asked)).collect()
}

/// Answers a second with so many calls in flight on each connection.
fn closed(connections: &mut [Connection], in_flight: usize, time: Duration) -> anyhow::Result<f64> {
    let (mut tally, begun) = (Tally::default(), Instant::now());
    while begun.elapsed() < time {
        for connection in &mut *connections {
            let now = Instant::now();
            while connection.open_calls() < in_flight && connection.call(now) {}
            connection.turn(|ended, due| tally.add(ended, due))?;
        }
        rest();
    }
    let rate = per_second(tally.answered.len(), begun.elapsed());
    finish(connections, &mut tally)?;
    ensure!(
        (tally.refused, tally.late) == (0, 0),
        "{} calls are refused and {} late",
        tally.refused,
        tally.late
    );
    Ok(rate)
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}

#[expect(clippy::disallowed_methods, reason = "it is what makes the other threads run")]
fn rest() {
    thread::sleep(REST);
}

/// Waits for the answers that are missing.
fn finish(connections: &mut [Connection], tally: &mut Tally) -> anyhow::Result<()> {
    let begun = Instant::now();
    while connections.iter().any(|connection| connection.open_calls() > 0) {
        ensure!(begun.elapsed() < Duration::from_secs(10), "calls without an answer");
        for connection in &mut *connections {
            connection.turn(|ended, due| tally.add(ended, due))?;
        }
        rest();
    }
    Ok(())
}

/// Calls at this rate a second, whatever is answered: the outcomes, and the answers a second.
fn open(connections: &mut [Connection], rate: f64, time: Duration) -> anyhow::Result<(Tally, f64)> {
    let mut tally = Tally::default();
    let mut waiting = std::collections::VecDeque::new();
    let (begun, mut sent, mut next, mut is_warm) = (Instant::now(), 0_usize, 0, false);
    // The first quarter fills the queues.
    let warm_up = time / 4;
    while begun.elapsed() < time + warm_up {
        if !is_warm && begun.elapsed() >= warm_up {
            is_warm = true;
            tally.clear();
        }
        let now = Instant::now();
        let due = (rate * (now - begun).as_secs_f64()).floor();
        #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "a count")]
        let due = due as usize;
        let more = due - sent;
        sent = due;
        let taken = more.min(WAITING_MAX - waiting.len());
        tally.not_sent += more - taken;
        waiting.extend(std::iter::repeat_n(now, taken));
        // Each connection in turn gets one.
        let mut full = 0;
        while let Some(due) = waiting.front().copied()
            && full < connections.len()
        {
            next = (next + 1) % connections.len();
            if connections.get_mut(next).is_some_and(|connection| connection.call(due)) {
                waiting.pop_front();
                full = 0;
            } else {
                full += 1;
            }
        }
        for connection in &mut *connections {
            connection.turn(|ended, due| tally.add(ended, due))?;
        }
        rest();
    }
    let answers = per_second(tally.answered.len(), begun.elapsed() - warm_up);
    finish(connections, &mut tally)?;
    tally.answered.sort_unstable();
    Ok((tally, answers))
}

/// Asks for health at this address until `stop`, in a thread of its own. Answers how long it took each time.
fn health(address: &str, stop: &AtomicBool) -> anyhow::Result<Vec<Duration>> {
    Builder::new_current_thread().enable_all().build()?.block_on(async {
        let channel = Endpoint::from_shared(format!("http://{address}"))?.connect().await?;
        let mut took = vec![];
        while !stop.load(Relaxed) {
            let begun = Instant::now();
            let request = HealthCheckRequest { service: "capstan.v1.DecisionService".into() };
            let answer = HealthClient::new(channel.clone()).check(request).await?;
            ensure!(answer.into_inner().status == 1, "not serving");
            took.push(begun.elapsed());
            tokio::time::sleep(HEALTH).await;
        }
        took.sort_unstable();
        Ok(took)
    })
}

/// A part in a thousand of what is sorted.
fn share(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted.get(sorted.len().saturating_sub(1) * per_mille / 1_000).copied().unwrap_or_default()
}

/// All threads of a process, those that begin later included, run on this core.
fn pin(core: &str, process: u32) -> anyhow::Result<()> {
    let process = process.to_string();
    let done = Command::new("taskset").args(["-a", "-c", "-p", core, &process]).output();
    ensure!(done.context("taskset")?.status.success(), "cannot pin to core {core}");
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn mean(figures: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = figures.len() as f64;
    figures.sum::<f64>() / count
}

/// What is measured.
struct Measured {
    name: &'static str,
    asked: Asked,
    /// More options of the server.
    more: &'static [&'static str],
    /// Calls in flight of each connection, of which one gives the highest rate.
    in_flight: &'static [usize],
    /// Whether answers must come in [`SLOWER_MAX`] times the time that they take without overload.
    is_quick: bool,
}

/// What one round of calls at a rate showed, beside the highest rate just before it.
struct Round {
    tally: Tally,
    answers: f64,
    /// Of the highest rate.
    kept: f64,
}

/// Rounds of calls at so many times the highest rate. How fast a machine is changes within seconds, so each round measures
/// the highest rate anew.
fn rounds(
    connections: &mut [Connection],
    (fastest, times): (usize, f64),
    time: Duration,
) -> anyhow::Result<Vec<Round>> {
    let time = time / ROUNDS;
    let round = |_| {
        let before = closed(connections, fastest, time)?;
        let (tally, answers) = open(connections, times * before, time)?;
        Ok(Round { tally, answers, kept: answers / before })
    };
    (0..ROUNDS).map(round).collect()
}

/// Returns what misses its goal.
fn measure(measured: &Measured, server: &Started, time: Duration) -> anyhow::Result<Vec<String>> {
    let Measured { name, asked, in_flight, is_quick, .. } = measured;
    let mut out = io::stdout();
    let to = server.grpc.parse()?;
    let mut connections = connect(to, asked)?;
    let (mut highest, mut fastest) = (0.0_f64, 0);
    for in_flight in in_flight.iter().copied() {
        closed(&mut connections, in_flight, time / 12)?;
        let rate = closed(&mut connections, in_flight, time)?;
        writeln!(out, "{name}: {rate:.0} answers a second, {CONNECTIONS} × {in_flight} in flight")?;
        if rate > highest {
            (highest, fastest) = (rate, in_flight);
        }
    }
    let (mut unloaded, mut missed) = (None, vec![]);
    for times in [0.7, 2.0, 10.0] {
        let stop = AtomicBool::new(false);
        let before = server.cpu()?;
        let (rounds, [beside, probes]) = thread::scope(|threads| {
            let stop = &stop;
            let begin = |address| threads.spawn(move || health(address, stop));
            let asking = [begin(&*server.grpc), begin(&*server.probes)];
            let done = rounds(&mut connections, (fastest, times), time);
            stop.store(true, Relaxed);
            let [beside, probes] =
                asking.map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a panic"))?);
            anyhow::Ok((done?, [beside?, probes?]))
        })?;
        let cpu = (server.cpu()? - before) / (time * 9 / 4).as_secs_f64();
        let mut kept: Vec<f64> = rounds.iter().map(|round| round.kept).collect();
        kept.sort_unstable_by(f64::total_cmp);
        let each = kept.iter().map(|kept| format!("{kept:.2}")).collect::<Vec<_>>().join(" ");
        let median = kept.get(kept.len() / 2).copied().unwrap_or_default();
        let answers = mean(rounds.iter().map(|round| round.answers));
        let mut all = Tally::default();
        for Round { tally, .. } in rounds {
            all.answered.extend(tally.answered);
            all.refused += tally.refused;
            all.late += tally.late;
            all.not_sent += tally.not_sent;
        }
        all.answered.sort_unstable();
        let Tally { answered, refused, late, not_sent } = all;
        writeln!(
            out,
            "{name} at {times} times: {answers:.0} answers a second ({median:.2}: {each}), p50 {:.1?}, p99 {:.1?}; \
             {refused} refused, {late} late, {not_sent} not sent; {cpu:.2} of a core; health p99 {:.1?} (most {:.1?}), at \
             the address for probes {:.1?} (most {:.1?}) of {} and {}",
            share(&answered, 500),
            share(&answered, 990),
            share(&beside, 990),
            share(&beside, 1_000),
            share(&probes, 990),
            share(&probes, 1_000),
            beside.len(),
            probes.len(),
        )?;
        if times > 1.0 && median < KEPT_MIN {
            missed.push(format!("{name} at {times} times: fewer than {KEPT_MIN} are answered"));
        }
        let slowest = share(&answered, 990);
        let unloaded = *unloaded.get_or_insert(slowest);
        if *is_quick && slowest > unloaded * SLOWER_MAX {
            missed.push(format!(
                "{name} at {times} times: p99 is more than {SLOWER_MAX} times {unloaded:.1?}"
            ));
        }
        let slowest = share(&beside, 990).max(share(&probes, 990));
        if slowest >= HEALTH_MAX {
            missed.push(format!("{name} at {times} times: health takes {slowest:.1?}"));
        }
    }
    let begun = Instant::now();
    let mut first = connections.swap_remove(0);
    ensure!(first.call(begun), "no call is taken afterwards");
    let mut took = None;
    let took = loop {
        if let Some(took) = took {
            break took;
        }
        ensure!(begun.elapsed() < Duration::from_secs(10), "no answer afterwards");
        first.turn(|_, due| took = Some(due.elapsed()))?;
    };
    writeln!(out, "{name}: the first call afterwards took {took:.1?}")?;
    if took >= RECOVERY_MAX {
        missed.push(format!("{name}: the first call afterwards takes {took:.1?}"));
    }
    Ok(missed)
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, policy())?;
    let file = file.to_str().context("a path")?;
    // Calls in flight of each connection, for the highest rate. Of those that wait, the server takes 1,024 from one peer, or 32.
    let lists = Measured {
        name: "lists of 1,000",
        asked: list(),
        more: &[],
        in_flight: &[4, 16, 32],
        is_quick: false,
    };
    let few = Measured {
        name: "lists of 1,000, 64 in flight",
        asked: list(),
        more: &["--max-in-flight", "64"],
        in_flight: &[1, 2],
        is_quick: true,
    };
    let all = [
        Measured {
            name: "checks",
            asked: check(),
            more: &[],
            in_flight: &[16, 60, 240],
            is_quick: false,
        },
        lists,
        few,
    ];
    let mut missed = vec![];
    for measured in all {
        let serve = ["--policy", file, "--workers", "1", "--probes", "127.0.0.1:0"];
        let serve: Vec<_> = serve.iter().chain(measured.more).map(|&one| one.to_owned()).collect();
        let server = Started::serve(&options.binary, &serve)?;
        pin("0", server.pid())?;
        pin("1", std::process::id())?;
        missed.extend(measure(&measured, &server, options.time)?);
    }
    ensure!(missed.is_empty(), "missed: {}", missed.join("; "));
    Ok(())
}
