//! A client that behaves well, beside connections that flood the server with frames: every call is answered, the
//! process does not grow, and each flooding connection ends as its flood must: closed with a reason, no longer read, or in step. In plain
//! text and over TLS.
//!
//! The default run is short and measures nothing. The following command measures, in five turns of this many seconds:
//! the server has one core, and client and floods have the other:
//!
//! ```text
//! CAPSTAN_FLOOD_SECONDS=1 taskset -c 1 \
//!     cargo test --release -p capstan --test it transport::floods -- --nocapture
//! ```
//!
//! It fails if p99 beside a flood is more than twice as long as alone, by the quietest turn of each, three times one after another. What
//! a host does to its machine differs from time to time; what a server does to its clients does not.
//!
//! `CAPSTAN_FLOOD_BINARY=PATH` floods another program, such as an earlier build, and `CAPSTAN_FLOOD_ONLY=PART` makes
//! only the floods with this part in their names.

mod bytes;

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use capstan_proto::v1;
use futures_util::future::join_all;
use h2::client::SendRequest;
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;

use super::CHECK;
use super::bounds::{memory, resident};
use crate::common::{PATIENCE, Serving};
use crate::over::{Over, Place};
use crate::raw::{
    ACK, ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR, GOAWAY, PING, PREFACE, SETTINGS, check, frame,
    framed,
};
use bytes::{FLOODS, Flood, Kind};

/// Connections of a flood. Every second one reads what the server sends.
const CONNECTIONS: usize = 4;
/// Bytes by which the process may grow, of which one peer may hold 32 MiB.
const GROWTH_MAX: u64 = 64 << 20;
/// Turns of a long run, alone and beside a flood. It prints their medians, and the ratio of the quietest turn of each:
/// a virtual machine that its host stops for milliseconds only ever adds to a latency.
const TURNS: usize = 5;
/// The goal of a long run: p99 beside a flood is at most this many times as long as alone.
const RATIO_MAX: f64 = 2.0;
/// The client's load, as a share of the highest rate that it gets.
const LOAD: f64 = 0.3;
/// Calls in flight at the highest rate.
const IN_FLIGHT: usize = 32;
/// The most calls in flight at the client's load, below the streams of a connection.
const IN_FLIGHT_MAX: usize = 200;
/// A server that takes no byte for this long has stopped reading.
const STALL: Duration = Duration::from_millis(200);
/// The same where it must stop: longer than a slow server needs to make room in the buffers again.
const STALL_OF_THE_SERVER: Duration = Duration::from_secs(1);
/// Bytes after which a connection counts as one that the server does not end: ten times what fills all buffers.
const ENDLESS: u64 = 64 << 20;
/// Within this time after a flood, the process should have the memory that it had before.
const GIVEN_BACK: Duration = Duration::from_secs(30);

// === The client ===

/// Makes a check, allowed or not, and compares the answer.
async fn ask(client: SendRequest<Bytes>, server: SocketAddr, allowed: bool) {
    let identity = if allowed { "alice".into() } else { "nobody".into() };
    let body = framed(&v1::CheckRequest { identity, ..check() });
    let request = Request::post(format!("http://{server}{CHECK}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let mut client = client.ready().await.unwrap();
    let (answer, mut send) = client.send_request(request.body(()).unwrap(), false).unwrap();
    send.send_data(body.into(), true).unwrap();
    let mut answer = answer.await.unwrap().into_body();
    let message = answer.data().await.expect("an error").unwrap();
    answer.flow_control().release_capacity(message.len()).unwrap();
    let message = v1::CheckResponse::decode(&message[5..]).unwrap();
    assert_eq!(message.allowed, allowed);
    let trailers = answer.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

async fn highest_rate(client: &SendRequest<Bytes>, server: SocketAddr, time: Duration) -> f64 {
    let began = Instant::now();
    let callers = (0..IN_FLIGHT).map(|_| async {
        let mut answered = 0_u32;
        while began.elapsed() < time {
            ask(client.clone(), server, answered.is_multiple_of(2)).await;
            answered += 1;
        }
        answered
    });
    let answered: u32 = join_all(callers).await.into_iter().sum();
    f64::from(answered) / began.elapsed().as_secs_f64()
}

/// Makes checks at this rate. Returns their latencies, sorted. A latency begins when the call was due, also if the
/// call was sent later because too many had no answer.
async fn at_rate(
    client: &SendRequest<Bytes>,
    server: SocketAddr,
    rate: f64,
    time: Duration,
) -> Vec<Duration> {
    let (mut calls, mut latencies) = (JoinSet::new(), Vec::new());
    let (began, mut sent) = (Instant::now(), 0_u32);
    let mut woken = began;
    loop {
        let due = began + Duration::from_secs_f64(f64::from(sent) / rate);
        if due > began + time {
            break;
        }
        if due > Instant::now() {
            // Timers are late by up to a millisecond, which is not the server's.
            tokio::time::sleep_until(due.into()).await;
            woken = Instant::now();
        }
        let due = due.max(woken);
        while calls.len() >= IN_FLIGHT_MAX {
            latencies.push(calls.join_next().await.unwrap().unwrap());
        }
        let asked = ask(client.clone(), server, sent.is_multiple_of(2));
        calls.spawn(async move {
            timeout(PATIENCE, asked).await.expect("no answer");
            due.elapsed()
        });
        sent += 1;
    }
    latencies.extend(calls.join_all().await);
    latencies.sort_unstable();
    latencies
}

// === The floods ===

/// How a connection of a flood was at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The server has closed it, for this reason; `None` if it said none.
    Closed(Option<u32>),
    /// The server does not read from it any more.
    Stalled,
    /// The server has read everything and answers.
    InStep,
    /// The client has closed it.
    Left,
}

/// What a flood has sent.
#[derive(Default)]
struct Sent {
    bytes: u64,
    /// Of each connection, whether it read what the server sent.
    ends: Vec<(bool, End)>,
}

impl Sent {
    fn count(&self, of: impl Fn(End) -> bool) -> usize {
        self.ends.iter().filter(|(_, end)| of(*end)).count()
    }
}

impl Kind {
    /// Whether a connection goes on until it is no longer read, or closed, however long that takes on a busy machine.
    fn ends_it(self, reads: bool) -> bool {
        matches!(self, Self::Closed(_) | Self::Unread) || self == Self::Stalls && !reads
    }

    /// Whether the server may stop reading from a connection.
    fn may_stall(self, reads: bool) -> bool {
        !reads && matches!(self, Self::Answered | Self::Stalls | Self::Unread | Self::Held)
    }

    /// Whether a connection may end so.
    fn allows(self, (reads, end): (bool, End)) -> bool {
        // Too many bytes or streams, or bytes beyond the windows. Who does not read may have no room to be told.
        let is_too_much = match end {
            End::Closed(None) => !reads,
            End::Closed(Some(reason)) => [ENHANCE_YOUR_CALM, FLOW_CONTROL_ERROR].contains(&reason),
            _ => false,
        };
        match self {
            Self::Unanswered => end == End::InStep,
            Self::Answered => end == End::InStep || !reads && end == End::Stalled,
            Self::Stalls => end == if reads { End::InStep } else { End::Stalled },
            Self::Closed(reason) => end == End::Closed(Some(reason)),
            Self::Unread => end == End::Stalled || is_too_much,
            Self::Held => end == End::InStep || is_too_much || !reads && end == End::Stalled,
            Self::Left => end == End::Left,
        }
    }
}

/// Lets the client run before this thread where both share a core. A low priority is not enough: the kernel lets a
/// thread that runs use up its slice of some milliseconds, unless it is an idle one. An idle one may get no time at all
/// on a busy machine, so floods give way only where latencies are measured.
fn give_way() {
    let Ok(thread) = std::fs::read_link("/proc/thread-self") else { return };
    let mut set = Command::new("chrt");
    set.args(["--idle", "--pid", "0"]).arg(thread.file_name().unwrap());
    assert!(set.status().expect("chrt").success());
}

/// Floods the server until then, on several connections in a thread of their own.
fn start(
    flood: &'static Flood,
    server: Place,
    (until, gives_way): (Instant, bool),
) -> std::thread::JoinHandle<Sent> {
    std::thread::spawn(move || {
        if gives_way {
            give_way();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connections = (0..CONNECTIONS).map(|at| async move {
            let (mut sent, reads) = (Sent::default(), at % 2 == 0 && flood.kind != Kind::Unread);
            loop {
                let end = connection(flood, server, (reads, until), &mut sent.bytes).await;
                sent.ends.push((reads, end));
                if Instant::now() >= until {
                    return sent;
                }
            }
        });
        let sent = runtime.block_on(join_all(connections)).into_iter();
        sent.reduce(|mut all, one| {
            all.bytes += one.bytes;
            all.ends.extend(one.ends);
            all
        })
        .unwrap()
    })
}

/// One connection of a flood, until then or until the server closes it.
async fn connection(
    flood: &Flood,
    server: Place,
    (reads, until): (bool, Instant),
    sent: &mut u64,
) -> End {
    let socket = TcpSocket::new_v4().unwrap();
    // Another peer than the client.
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    // Otherwise the ports of many connections are soon used up.
    socket.set_zero_linger().unwrap();
    let stream = socket.connect(server.address).await.expect("the server takes connections");
    let stream = server.over(stream).await.expect("the server makes handshakes");
    let (mut read, mut write) = tokio::io::split(stream);
    let kind = flood.kind;
    let send = async {
        let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        let mut written_in_all = 0;
        for round in 0.. {
            bytes.extend((flood.round)(round));
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                // Where the server must read on, only a busy machine makes it slow.
                let wait = match (kind.may_stall(reads), kind.ends_it(reads)) {
                    (false, _) => PATIENCE,
                    (true, false) => STALL,
                    (true, true) => STALL_OF_THE_SERVER,
                };
                let wait_until = until.max(Instant::now()) + wait;
                match timeout_at(wait_until.into(), write.write(rest)).await {
                    Ok(Ok(written)) => rest = &rest[written..],
                    Ok(Err(_)) => return End::Closed(None),
                    Err(_) => return End::Stalled,
                }
            }
            let round_bytes = std::mem::take(&mut bytes).len() as u64;
            *sent += round_bytes;
            if kind == Kind::Left {
                // TLS may hold what was written.
                let _ = write.flush().await;
                return End::Left;
            }
            written_in_all += round_bytes;
            let goes_on = kind.ends_it(reads) && written_in_all < ENDLESS;
            if Instant::now() >= until && !goes_on {
                break;
            }
            // All connections take part.
            tokio::task::yield_now().await;
        }
        End::InStep
    };
    let mut heard = Heard::default();
    let mut end = tokio::select! {
        end = send => end,
        () = heard.listen(&mut read), if reads => End::Closed(None),
    };
    if end == End::InStep {
        let ping = async {
            write.write_all(&frame(PING, 0, 0, &IN_STEP)).await?;
            write.flush().await
        };
        // A failure means that the connection is closed.
        let both = async { tokio::join!(ping, heard.listen(&mut read)) };
        let answered = timeout(PATIENCE, both).await;
        answered.expect("the connection is neither closed nor answered").0.unwrap_or_default();
        if !heard.is_in_step {
            end = End::Closed(None);
        }
    }
    if let End::Closed(reason) = &mut end {
        // What was sent before the end.
        let _ = timeout(PATIENCE, heard.listen(&mut read)).await;
        *reason = heard.reason;
    }
    end
}

/// What a ping says behind a flood.
const IN_STEP: [u8; 8] = *b"in step?";

/// What the server has said.
#[derive(Default)]
struct Heard {
    /// The start of a frame.
    rest: Vec<u8>,
    /// Of the last GOAWAY.
    reason: Option<u32>,
    /// The ping behind the flood is answered.
    is_in_step: bool,
}

impl Heard {
    /// Reads until that ping is answered, or until the end of the connection.
    async fn listen(&mut self, from: &mut (impl AsyncRead + Unpin)) {
        let mut bytes = vec![0; 64 << 10];
        while !self.is_in_step
            && let Ok(length @ 1..) = from.read(&mut bytes).await
        {
            self.rest.extend_from_slice(&bytes[..length]);
            let mut rest = &self.rest[..];
            while let [a, b, c, kind, flags, _, _, _, _, after @ ..] = rest
                && let Some((payload, after)) =
                    after.split_at_checked(u32::from_be_bytes([0, *a, *b, *c]) as usize)
            {
                match (*kind, payload) {
                    (GOAWAY, [_, _, _, _, reason @ ..]) => {
                        self.reason = Some(u32::from_be_bytes(reason.try_into().unwrap()));
                    }
                    (PING, payload) if *flags == ACK => self.is_in_step |= payload == IN_STEP,
                    _ => {}
                }
                rest = after;
            }
            self.rest.drain(..self.rest.len() - rest.len());
        }
    }
}

// === Both together ===

/// Keeps a core busy with work that always gives way. Without it the machine may give more to a client alone than
/// beside a flood: a virtual machine whose cores never rest is stopped by its host now and then.
fn busy(core: &str) -> Child {
    let mut busy = Command::new("chrt");
    busy.args(["--idle", "0", "taskset", "-c", core, "sh", "-c", "while :; do :; done"]);
    busy.spawn().expect("chrt and taskset")
}

/// Makes calls at the client's load for a while, beside a flood or alone.
async fn beside(
    flood: Option<&'static Flood>,
    client: &SendRequest<Bytes>,
    (server, rate, time, measures): (Place, f64, Duration, bool),
) -> (Vec<Duration>, Sent) {
    let flooding = flood.map(|flood| start(flood, server, (Instant::now() + time, measures)));
    let latencies = at_rate(client, server.address, rate, time).await;
    let joined = flooding.map(|thread| tokio::task::spawn_blocking(|| thread.join().unwrap()));
    let Some(joined) = joined else { return (latencies, Sent::default()) };
    (latencies, joined.await.unwrap())
}

/// The highest resident memory since the last call, in bytes.
fn peak(server: &Serving) -> u64 {
    let peak = memory(server, "VmHWM:");
    // Sets it back to what is resident now, see proc(5).
    let set_back = std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5");
    // Only root may do that. For others it is the highest of all floods so far, which must not be too high either.
    assert!(set_back.is_ok() || !rustix::process::geteuid().is_root(), "{set_back:?}");
    peak
}

/// Waits until the process has about the memory that it had before. Returns what it has, and after how long.
async fn given_back(server: &Serving, before: u64) -> (u64, Duration) {
    let began = Instant::now();
    loop {
        let (now, waited) = (resident(server), began.elapsed());
        if now * 10 <= before * 12 || waited >= GIVEN_BACK {
            return (now, waited);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// A quantile of sorted latencies.
fn share(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted.get(sorted.len().saturating_sub(1) * per_mille / 1_000).copied().unwrap_or_default()
}

/// What a client had beside a flood.
#[derive(Default)]
struct Figures {
    /// p50 and p99 alone, and beside the flood, of each turn.
    latencies: [Vec<Duration>; 4],
    sent: Sent,
}

impl Figures {
    /// The medians of all turns.
    fn medians(&self) -> [Duration; 4] {
        self.latencies.each_ref().map(|turns| {
            let mut sorted = turns.clone();
            sorted.sort_unstable();
            sorted[sorted.len() / 2]
        })
    }

    /// How many times as long as alone p99 is beside the flood, by the quietest turn of each.
    fn quietest(&self) -> f64 {
        let least = |turns: &[Duration]| turns.iter().min().unwrap().as_secs_f64();
        least(&self.latencies[3]) / least(&self.latencies[1])
    }
}

/// Makes calls beside a flood, and in a long run as often alone.
async fn measure(
    flood: &'static Flood,
    client: &SendRequest<Bytes>,
    load: (Place, f64, Duration, bool),
) -> Figures {
    let mut figures = Figures::default();
    let is_long = load.3;
    for _ in 0..if is_long { TURNS } else { 1 } {
        if is_long {
            let mut cores = ["0", "1"].map(busy);
            let (alone, _) = beside(None, client, load).await;
            for core in &mut cores {
                core.kill().unwrap();
                core.wait().unwrap();
            }
            figures.latencies[0].push(share(&alone, 500));
            figures.latencies[1].push(share(&alone, 990));
        }
        let (latencies, more) = beside(Some(flood), client, load).await;
        assert!(!latencies.is_empty());
        figures.latencies[2].push(share(&latencies, 500));
        figures.latencies[3].push(share(&latencies, 990));
        figures.sent.bytes += more.bytes;
        figures.sent.ends.extend(more.ends);
    }
    figures
}

#[expect(clippy::print_stdout, reason = "a long run prints figures")]
fn beside_every_flood(over: Over) {
    let long = std::env::var("CAPSTAN_FLOOD_SECONDS").ok();
    // Long runs have the machine for themselves.
    static MACHINE: Mutex<()> = Mutex::new(());
    let _machine = long.is_some().then(|| MACHINE.lock().unwrap_or_else(PoisonError::into_inner));
    let time = long.as_ref().map_or(Duration::from_millis(250), |seconds| {
        Duration::from_secs(seconds.parse().expect("a number"))
    });
    // One worker: the floods and the client share it.
    let arguments =
        ["serve", "--demo", "--listen", "127.0.0.1:0", "--http", "none", "--workers", "1"];
    let program = std::env::var("CAPSTAN_FLOOD_BINARY");
    let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_capstan").into());
    let mut command = Command::new(if long.is_some() { "taskset" } else { &program });
    if long.is_some() {
        command.args(["-c", "0", &program]);
    }
    let server = Serving::spawn(command.args(arguments).args(over.arguments()), 1);
    let place = over.of(&server);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // With its default window the library ends a connection on which a hundred small answers arrive at once.
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
        let (client, connection) = builder.handshake(place.open().await.unwrap()).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let rate = LOAD * highest_rate(&client, place.address, time).await;
        let load = (place, rate, time, long.is_some());
        let start = resident(&server);
        println!("over {over:?}: {rate:.0} checks a second; {} KiB resident", start >> 10);
        println!(
            "| flood | alone: p50, p99 | beside it: p50, p99 | p99, ratio: medians, quietest | MB sent | connections: \
             closed, stalled, in step | MiB: before, peak, given back | after |"
        );
        println!("|---|---|---|---|---:|---|---|---:|");
        let only = std::env::var("CAPSTAN_FLOOD_ONLY").unwrap_or_default();
        for flood in FLOODS.iter().filter(|flood| flood.name.contains(&only)) {
            let (name, mut ratios) = (flood.name, Vec::new());
            // A host that stops the machine spares it one of three times. A server that lets others wait does so each time.
            while ratios.len() < 3 && ratios.iter().all(|ratio| *ratio > RATIO_MAX) {
                let before = resident(&server);
                peak(&server);
                let figures = measure(flood, &client, load).await;
                let (peak, sent) = (peak(&server), &figures.sent);
                assert!(sent.bytes > 0, "{name}");
                assert!(peak < start + GROWTH_MAX, "{name}: {peak} bytes resident after {start}");
                let wrong: Vec<_> =
                    sent.ends.iter().filter(|end| !flood.kind.allows(**end)).collect();
                assert!(wrong.is_empty(), "{name}, {:?}: (reads, end) {wrong:?}", flood.kind);
                if long.is_none() {
                    break;
                }
                let (after, waited) = given_back(&server, before).await;
                let [p50_alone, p99_alone, p50, p99] = figures.medians();
                let quietest = figures.quietest();
                println!(
                    "| {name} | {p50_alone:.2?}, {p99_alone:.2?} | {p50:.2?}, {p99:.2?} | {:.2}, {quietest:.2} | {} | \
                     {}, {}, {} | {:.1}, {:.1}, {:.1} | {waited:.1?} |",
                    p99.as_secs_f64() / p99_alone.as_secs_f64(),
                    sent.bytes / 1_000_000,
                    sent.count(|end| matches!(end, End::Closed(_))),
                    sent.count(|end| end == End::Stalled),
                    sent.count(|end| end == End::InStep),
                    mib(before),
                    mib(peak),
                    mib(after),
                );
                ratios.push(quietest);
            }
            let is_kept = long.is_none() || ratios.iter().any(|ratio| *ratio <= RATIO_MAX);
            assert!(is_kept, "{name}: p99 is {ratios:.2?} times as long as alone");
        }
        // What the allocator keeps of all floods together.
        let (stays, _) = given_back(&server, start).await;
        assert!(stays < start + GROWTH_MAX / 2, "{stays} bytes stay of {start}");
        println!("{:.1} MiB at the end, {:.1} at the start", mib(stays), mib(start));
        // The connection of the client is the same as at the start.
        assert!(tasks.try_join_next().is_none());
    });
    drop(runtime); // With the client's connection, for which a drain would wait.
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[test]
fn a_client_is_served_beside_every_flood() {
    beside_every_flood(Over::Plain);
}

#[test]
fn a_client_is_served_beside_every_flood_over_tls() {
    beside_every_flood(Over::Tls);
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
