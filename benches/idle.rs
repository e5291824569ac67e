//! What connections hold, and whether it is given back: `cargo bench -p capstan-benches --bench idle -- --seconds 300`.
//!
//! ```text
//! 10,000 connections with one check each, then silent ─▶ memory of the server, over before ─▶ closed: what stays
//! connections with one check each, so many at a time, for --seconds ─▶ descriptors, threads and memory, over before
//! ```
//!
//! Options: see [`capstan_benches::started::Options`]; `--in-flight` are connections at a time.

use std::io::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use capstan_benches::started::{Options, Started};
use capstan_proto::frame::framed;
use capstan_proto::v1::CheckRequest;
use futures_util::future::try_join_all;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::runtime::Builder;
use tokio::time::sleep;

/// The server takes 240 more, and from one address half of that.
const CONNECTIONS: usize = 10_000;
/// Connections that are opened at a time.
const AT_A_TIME: usize = 200;
/// Until memory is given back, and sockets are closed.
const REST: Duration = Duration::from_secs(5);

const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    let [_, length @ ..] = length;
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A connection's first bytes, with one check.
fn hello() -> Vec<u8> {
    let head = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/capstan.v1.DecisionService/Check"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    let text = |text: &str| {
        let length = u8::try_from(text.len()).unwrap_or_default();
        [&[length], text.as_bytes()].concat()
    };
    // Literals without indexing and without Huffman's code (RFC 7541, section 6.2.2).
    let head = head.map(|(name, value)| [vec![0], text(name), text(value)].concat()).concat();
    let check = framed(&CheckRequest {
        identity: "alice".into(),
        capability: "repo.list".into(),
        resource: "acme/platform/images/nginx".into(),
        ..CheckRequest::default()
    });
    let (settings, head) = (frame(4, 0, 0, &[]), frame(HEADERS, 4, 1, &head));
    let body = frame(0, END_STREAM, 1, &check);
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &settings[..], &head, &body].concat()
}

/// A connection from this address of loopback whose check was answered.
async fn connection(to: SocketAddr, from: Ipv4Addr, hello: &[u8]) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    let mut stream = socket.connect(to).await?;
    stream.write_all(hello).await?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let [a, b, c, kind, flags, stream_id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await?;
        ensure!(kind != 7, "the connection is refused");
        if (kind, flags & END_STREAM, u32::from_be_bytes(stream_id)) == (HEADERS, END_STREAM, 1) {
            return Ok(stream);
        }
    }
}

/// What a server holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    /// Bytes in memory.
    bytes: usize,
    descriptors: usize,
    threads: usize,
}

fn held(server: &Started) -> anyhow::Result<Held> {
    let pid = server.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let number = |name: &str| -> anyhow::Result<usize> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no line")?;
        Ok(line.split_whitespace().next().context("no number")?.parse()?)
    };
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))?.count();
    Ok(Held { bytes: number("VmRSS:")? * 1024, descriptors, threads: number("Threads:")? })
}

async fn silent(server: &Started, hello: &[u8]) -> anyhow::Result<()> {
    let to: SocketAddr = server.grpc.parse()?;
    let before = held(server)?;
    let mut all = Vec::with_capacity(CONNECTIONS);
    while all.len() < CONNECTIONS {
        let some = (0..AT_A_TIME.min(CONNECTIONS - all.len())).map(|at| {
            let from = Ipv4Addr::new(127, 0, 0, if at % 2 == 0 { 1 } else { 2 });
            connection(to, from, hello)
        });
        all.extend(try_join_all(some).await?);
    }
    sleep(REST).await;
    let open = held(server)?;
    drop(all);
    sleep(REST).await;
    let closed = held(server)?;
    let over = |now: Held| now.bytes.saturating_sub(before.bytes);
    writeln!(
        io::stdout(),
        "{CONNECTIONS} silent connections: {} bytes of the server each ({:.1} MB before, {:.1} MB then); {:.2} of that before once they are closed",
        over(open) / CONNECTIONS,
        megabytes(before.bytes),
        megabytes(open.bytes),
        megabytes(closed.bytes) / megabytes(before.bytes),
    )?;
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn megabytes(bytes: usize) -> f64 {
    bytes as f64 / 1e6
}

async fn churn(server: &Started, options: &Options, hello: &[u8]) -> anyhow::Result<()> {
    let to: SocketAddr = server.grpc.parse()?;
    // What the first connections make for all.
    connection(to, Ipv4Addr::LOCALHOST, hello).await?;
    sleep(REST).await;
    let (before, begun) = (held(server)?, Instant::now());
    let doing = (1..=options.in_flight).map(|at| async move {
        let mut count = 0_u64;
        while begun.elapsed() < options.time {
            // Each address has its own ports, which rest for a minute after their connection.
            let [.., last] = (count % 250).to_be_bytes();
            let from = Ipv4Addr::new(127, 0, u8::try_from(at)?, last + 1);
            connection(to, from, hello).await?;
            count += 1;
        }
        anyhow::Ok(count)
    });
    let count: u64 = try_join_all(doing).await?.iter().sum();
    sleep(REST).await;
    let after = held(server)?;
    writeln!(
        io::stdout(),
        "{count} connections in {:?}, {} at a time: descriptors {} and {}, threads {} and {}, memory {:.1} and {:.1} MB ({:.2})",
        options.time,
        options.in_flight,
        before.descriptors,
        after.descriptors,
        before.threads,
        after.threads,
        megabytes(before.bytes),
        megabytes(after.bytes),
        megabytes(after.bytes) / megabytes(before.bytes),
    )?;
    Ok(())
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let hello = hello();
    let server = Started::demo(&options.binary)?;
    silent(&server, &hello).await?;
    let server = Started::demo(&options.binary)?;
    churn(&server, options, &hello).await
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse()?;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    Builder::new_multi_thread().enable_all().build()?.block_on(run(&options))
}
