//! A client that behaves well, beside connections that flood the server with frames: every call is answered, the
//! process does not grow, and each flooding connection is closed, no longer read, or still in step.
//!
//! The default run is short and measures nothing. The following command measures, in five turns of this many seconds:
//! the server has one core, and client and floods have the other:
//!
//! ```text
//! CAPSTAN_FLOOD_SECONDS=1 taskset -c 1 \
//!     cargo test --release -p capstan --test it transport::floods -- --nocapture
//! ```
//!
//! `CAPSTAN_FLOOD_BINARY=PATH` floods another program, such as an earlier build, and `CAPSTAN_FLOOD_ONLY=PART` makes
//! only the floods with this part in their names.

mod bytes;

use std::net::SocketAddr;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use capstan_proto::v1;
use futures_util::future::join_all;
use h2::client::SendRequest;
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;

use super::CHECK;
use super::bounds::{memory, resident};
use crate::common::{PATIENCE, Serving};
use crate::raw::{ACK, PING, PREFACE, SETTINGS, check, frame, framed};
use bytes::{FLOODS, Flood, Kind};

/// Connections of a flood. Every second one reads what the server sends.
const CONNECTIONS: usize = 4;
/// Bytes by which the process may grow, of which one peer may hold 32 MiB.
const GROWTH_MAX: u64 = 64 << 20;
/// Turns of a long run, alone and beside a flood. It prints their medians, and the ratio of the quietest turn of each:
/// a virtual machine that its host stops for milliseconds only ever adds to a latency.
const TURNS: usize = 5;
/// The client's load, as a share of the highest rate that it gets.
const LOAD: f64 = 0.3;
/// Calls in flight at the highest rate.
const IN_FLIGHT: usize = 32;
/// The most calls in flight at the client's load, below the streams of a connection.
const IN_FLIGHT_MAX: usize = 200;
/// A server that takes no byte for this long has stopped reading.
const STALL: Duration = Duration::from_millis(200);
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
    /// The server has closed it.
    Closed,
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
    ends: Vec<End>,
}

impl Sent {
    fn count(&self, of: End) -> usize {
        self.ends.iter().filter(|end| **end == of).count()
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
    server: SocketAddr,
    (until, gives_way): (Instant, bool),
) -> std::thread::JoinHandle<Sent> {
    std::thread::spawn(move || {
        if gives_way {
            give_way();
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let connections = (0..CONNECTIONS).map(|at| async move {
            let (mut sent, reads) = (Sent::default(), at % 2 == 0 && flood.kind != Kind::Unread);
            while Instant::now() < until {
                let end = connection(flood, server, (reads, until), &mut sent.bytes).await;
                sent.ends.push(end);
            }
            sent
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
    server: SocketAddr,
    (reads, until): (bool, Instant),
    sent: &mut u64,
) -> End {
    let socket = TcpSocket::new_v4().unwrap();
    // Another peer than the client.
    socket.bind(([127, 0, 0, 2], 0).into()).unwrap();
    // Otherwise the ports of many connections are soon used up.
    socket.set_zero_linger().unwrap();
    let Ok(stream) = socket.connect(server).await else { return End::Closed };
    let (mut read, mut write) = stream.into_split();
    let send = async {
        let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
        for round in 0.. {
            bytes.extend((flood.round)(round));
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                match timeout_at((until + STALL).into(), write.write(rest)).await {
                    Ok(Ok(written)) => rest = &rest[written..],
                    Ok(Err(_)) => return End::Closed,
                    Err(_) => return End::Stalled,
                }
            }
            *sent += bytes.len() as u64;
            bytes.clear();
            if flood.kind == Kind::Left {
                return End::Left;
            }
            // Such floods end their connections, however long that takes on a busy machine.
            let ends_it = matches!(flood.kind, Kind::Unread | Kind::Closed);
            if Instant::now() >= until && !ends_it {
                break;
            }
            // All connections take part.
            tokio::task::yield_now().await;
        }
        End::InStep
    };
    let end = tokio::select! {
        end = send => end,
        () = drain(&mut read), if reads => End::Closed,
    };
    // A call whose head never ends has no answer, and is closed later.
    if end != End::InStep || flood.kind == Kind::Closed {
        return end;
    }
    let ping = write.write_all(&frame(PING, 0, 0, b"in step?")).await;
    if ping.is_err() || !found(&mut read, &frame(PING, ACK, 0, b"in step?")).await {
        return End::Closed;
    }
    End::InStep
}

/// Reads until the end of the connection.
async fn drain(read: &mut OwnedReadHalf) {
    let mut bytes = vec![0; 64 << 10];
    while read.read(&mut bytes).await.is_ok_and(|length| length > 0) {}
}

/// Reads until these bytes. False if the connection ends before.
async fn found(read: &mut OwnedReadHalf, wanted: &[u8]) -> bool {
    let (mut bytes, mut kept) = (vec![0; 64 << 10], Vec::new());
    loop {
        let read = timeout(PATIENCE, read.read(&mut bytes)).await;
        let length = read.expect("the connection is neither closed nor answered").unwrap_or(0);
        kept.extend_from_slice(&bytes[..length]);
        if length == 0 || kept.windows(wanted.len()).any(|part| part == wanted) {
            return length > 0;
        }
        kept.drain(..kept.len().saturating_sub(wanted.len()));
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
    (server, rate, time, measures): (SocketAddr, f64, Duration, bool),
) -> (Vec<Duration>, Sent) {
    let flooding = flood.map(|flood| start(flood, server, (Instant::now() + time, measures)));
    let latencies = at_rate(client, server, rate, time).await;
    let joined = flooding.map(|thread| tokio::task::spawn_blocking(|| thread.join().unwrap()));
    let Some(joined) = joined else { return (latencies, Sent::default()) };
    (latencies, joined.await.unwrap())
}

/// The highest resident memory since the last call, in bytes.
fn peak(server: &Serving) -> u64 {
    let peak = memory(server, "VmHWM:");
    // Sets it back to what is resident now, see proc(5).
    std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").unwrap();
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

#[expect(clippy::print_stdout, reason = "a long run prints figures")]
#[test]
fn a_client_is_served_beside_every_flood() {
    let long = std::env::var("CAPSTAN_FLOOD_SECONDS").ok();
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
    let server = Serving::spawn(command.args(arguments), 1);
    let address = server.address("grpc").parse().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let tcp = TcpStream::connect(address).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        // With its default window the library ends a connection on which a hundred small answers arrive at once.
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(1 << 20).initial_connection_window_size(1 << 20);
        let (client, connection) = builder.handshake(tcp).await.unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(connection);
        let rate = LOAD * highest_rate(&client, address, time).await;
        let load = (address, rate, time, long.is_some());
        let start = resident(&server);
        println!("{rate:.0} checks a second; {} KiB resident", start >> 10);
        println!(
            "| flood | alone: p50, p99 | beside it: p50, p99 | p99, ratio: medians, quietest | MB sent | connections: \
             closed, stalled, in step | MiB: before, peak, given back | after |"
        );
        println!("|---|---|---|---|---:|---|---|---:|");
        let only = std::env::var("CAPSTAN_FLOOD_ONLY").unwrap_or_default();
        for flood in FLOODS.iter().filter(|flood| flood.name.contains(&only)) {
            let name = flood.name;
            let (before, mut sent) = (resident(&server), Sent::default());
            peak(&server);
            let mut figures = <[Vec<Duration>; 4]>::default();
            for _ in 0..if long.is_some() { TURNS } else { 1 } {
                if long.is_some() {
                    let mut cores = ["0", "1"].map(busy);
                    let (alone, _) = beside(None, &client, load).await;
                    for core in &mut cores {
                        core.kill().unwrap();
                        core.wait().unwrap();
                    }
                    figures[0].push(share(&alone, 500));
                    figures[1].push(share(&alone, 990));
                }
                let (latencies, more) = beside(Some(flood), &client, load).await;
                assert!(!latencies.is_empty());
                figures[2].push(share(&latencies, 500));
                figures[3].push(share(&latencies, 990));
                sent.bytes += more.bytes;
                sent.ends.extend(more.ends);
            }
            let peak = peak(&server);
            assert!(sent.bytes > 0 || flood.kind == Kind::Left, "{name}");
            assert!(peak < start + GROWTH_MAX, "{name}: {peak} bytes resident after {start}");
            let (closed, in_step) = (sent.count(End::Closed), sent.count(End::InStep));
            match flood.kind {
                Kind::Closed => assert!(closed > 0, "{name}: no connection is closed"),
                Kind::Unread => assert_eq!(in_step, 0, "{name}: the server reads on"),
                Kind::Any | Kind::Left => {}
            }
            if long.is_none() {
                continue;
            }
            let (after, waited) = given_back(&server, before).await;
            figures.iter_mut().for_each(|turns| turns.sort_unstable());
            let [p50_alone, p99_alone, p50, p99] = figures.each_ref().map(|turns| turns[TURNS / 2]);
            let quietest = figures[3][0].as_secs_f64() / figures[1][0].as_secs_f64();
            println!(
                "| {name} | {p50_alone:.2?}, {p99_alone:.2?} | {p50:.2?}, {p99:.2?} | {:.2}, {quietest:.2} | {} | {closed}, {}, {in_step} \
                 | {:.1}, {:.1}, {:.1} | {waited:.1?} |",
                p99.as_secs_f64() / p99_alone.as_secs_f64(),
                sent.bytes / 1_000_000,
                sent.count(End::Stalled),
                mib(before),
                mib(peak),
                mib(after),
            );
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

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
