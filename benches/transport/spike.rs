//! Plain checks on `h2::server` alone: what a server costs that has the same HTTP/2 library and the same
//! decision, and nothing else. It answers no other call, and has no limits, metrics or deadlines.

use std::future::poll_fn;
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::thread;

use anyhow::{Context as _, ensure};
use capstan_engine::{Attributes, Path as Resource, Question, Snapshot};
use capstan_policy::Catalogs;
use capstan_proto::{frame, plain, v1};
use capstan_server::clock::Clock;
use capstan_server::limits::{CONNECTION_STREAMS_MAX, CONNECTION_WINDOW, STREAM_WINDOW};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use tokio::sync::mpsc;
use tokio::task::{LocalSet, spawn_local};
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, HeaderValue, Response};

/// Serves a policy until the process ends. Prints the address, as `capstan serve` does.
pub(crate) fn serve(policy: &Path) -> anyhow::Result<()> {
    let policy = capstan_policy::load_policy(&std::fs::read(policy)?, &Catalogs::default());
    let snapshot = Arc::new(Snapshot::build(&policy.context("no policy")?.model, 1)?);
    let listener = TcpListener::bind("127.0.0.1:0")?;
    writeln!(io::stdout(), "grpc {}", listener.local_addr()?)?;
    // One runtime a core. A connection stays on its core.
    let mut workers = Vec::new();
    for _ in 0..thread::available_parallelism()?.get() {
        let (sender, accepted) = mpsc::unbounded_channel();
        let snapshot = Arc::clone(&snapshot);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::spawn(move || LocalSet::new().block_on(&runtime, worker(accepted, snapshot)));
        workers.push(sender);
    }
    for (stream, worker) in listener.incoming().zip(workers.iter().cycle()) {
        worker.send(stream?)?;
    }
    Ok(())
}

async fn worker(mut accepted: mpsc::UnboundedReceiver<TcpStream>, snapshot: Arc<Snapshot>) {
    while let Some(stream) = accepted.recv().await {
        let snapshot = Arc::clone(&snapshot);
        // A client that goes away ends its connection with an error.
        spawn_local(async move { drop(connection(stream, &snapshot).await) });
    }
}

async fn connection(stream: TcpStream, snapshot: &Snapshot) -> anyhow::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let mut connection = Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .handshake::<_, Bytes>(stream)
        .await?;
    let mut waiting = FuturesUnordered::new();
    let mut calls = Vec::new();
    loop {
        tokio::select! {
            call = connection.accept() => match call {
                Some(call) => calls.push(call?),
                None => return Ok(()),
            },
            Some(ended) = waiting.next() => {
                let () = ended?;
            }
        }
        // `poll_accept` writes what is answered. With all calls accepted first, their answers are one write.
        while let Poll::Ready(call) =
            poll_fn(|context| Poll::Ready(connection.poll_accept(context))).await
        {
            match call {
                Some(call) => calls.push(call?),
                None => return Ok(()),
            }
        }
        for (request, respond) in calls.drain(..) {
            let mut body = request.into_body();
            // Most bodies arrive with their heads.
            match poll_fn(|context| Poll::Ready(body.poll_data(context))).await {
                Poll::Ready(Some(bytes)) if body.is_end_stream() => {
                    answer(&bytes?, &mut body, respond, snapshot)?;
                }
                Poll::Ready(bytes) => {
                    waiting.push(rest(bytes.transpose()?, body, respond, snapshot));
                }
                Poll::Pending => waiting.push(rest(None, body, respond, snapshot)),
            }
        }
    }
}

/// Answers when the rest of the body has arrived.
async fn rest(
    first: Option<Bytes>,
    mut body: RecvStream,
    respond: SendResponse<Bytes>,
    snapshot: &Snapshot,
) -> anyhow::Result<()> {
    let mut all = first.unwrap_or_default();
    while let Some(bytes) = body.data().await {
        let bytes = bytes?;
        all = if all.is_empty() { bytes } else { [&all[..], &bytes[..]].concat().into() };
    }
    answer(&all, &mut body, respond, snapshot)
}

fn answer(
    bytes: &Bytes,
    body: &mut RecvStream,
    mut respond: SendResponse<Bytes>,
    snapshot: &Snapshot,
) -> anyhow::Result<()> {
    body.flow_control().release_capacity(bytes.len())?;
    let (header, message) = frame::Header::read(bytes).context("no frame")?;
    ensure!(header.length == message.len(), "not one frame");
    let [identity, capability, resource] = plain::names(message).context("not a plain check")?;
    let question = Question {
        identity: Resource::parse(identity)?,
        capability,
        resource: Resource::parse(resource)?,
        attributes: Attributes::NONE,
    };
    let allowed = snapshot.check(&question, Clock::System.now())?.allowed();
    let reason = if allowed { v1::Reason::Granted } else { v1::Reason::NoBinding };
    let (reason, revision) = (reason.into(), snapshot.revision());
    let message = v1::CheckResponse { allowed, reason, revision, valid_until: None };
    let mut head = Response::new(());
    let grpc = HeaderValue::from_static("application/grpc");
    head.headers_mut().insert("content-type", grpc);
    let mut send = respond.send_response(head, false)?;
    send.send_data(frame::framed(&message), false)?;
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Ok(send.send_trailers(trailers)?)
}
