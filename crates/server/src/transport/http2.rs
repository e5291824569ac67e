//! The HTTP/2 side of a connection: its streams become calls.
//!
//! ```text
//! Connection ─▶ h2 ─▶ head of a call ─▶ Calls::intake
//!                       │ Plain ─▶ body is read here ─▶ Calls::answer ─▶ sent
//!                       │                   │             └ no answer ─┐
//!                       │ Unary ─▶ body is read here ◀─────────────────┘
//!                       │              └ whole, long or late ─▶ Calls::call, polled once, else a task
//!                       └ Stream ─────────────────────────────▶ Calls::call, the same
//! ```
//!
//! One task drives a connection. In one wake it takes all calls that have arrived, answers the plain
//! ones, and sends their responses in one write. A plain call that is answered sets no timer, wakes
//! nothing and makes no task. The body of a unary call is read before the call starts, so an early
//! response does not reset the stream under the client's body, which clients count as a failure.
//!
//! **Invariants**: every call that is not answered as a plain one goes to [`Calls::call`], with its
//! whole body. A connection ends when its peer closes it, breaks the protocol or leaves a ping
//! unanswered, or when it is idle after the stop signal or its age.
//!
//! Read this file, `short`, `exchange`, `timers`, then `gate`.

mod exchange;
mod gate;
mod short;
mod timers;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::RecvStream;
use h2::server::{Builder, Connection as H2, SendResponse};
use http_body::Body as HttpBody;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{Request, Response};

use crate::limits::{
    CONNECTION_STREAMS_MAX, CONNECTION_WINDOW, HEADER_BYTES_MAX, INLINE_CALLS_MAX, Limits,
    SHORT_CALLS_MAX, SHORT_WAIT_MAX, STREAM_WINDOW,
};
use crate::transport::connection::{Connection, Received, Remote};
use exchange::{RequestBody, exchange};
use gate::Gate;
use short::{Reading, ShortCall};
use timers::{Due, Timers};

/// What answers the calls of connections.
pub(crate) trait Calls: Clone + Send + 'static {
    /// The body of a response.
    type Body: HttpBody<Data = Bytes, Error = Status> + Send + 'static;
    /// A call.
    type Future: Future<Output = Response<Self::Body>> + Send + 'static;

    /// What is done with a call, by its head.
    fn intake(&self, head: &mut Parts) -> Intake;

    /// The framed message of an OK response to a plain call with this body; `None` if the call must
    /// go to [`Calls::call`].
    fn answer(&self, body: &[u8]) -> Option<Bytes>;

    /// Counts plain calls that were answered in this time each.
    fn answered(&self, calls: u64, took: Duration);

    /// Starts any other call. The request has a [`Remote`] among its extensions.
    fn call(&mut self, request: Request<Body>) -> Self::Future;
}

/// What is done with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    /// Its body is read, and [`Calls::answer`] may answer it.
    Plain,
    /// Its body is read, and it starts with the whole body.
    Unary,
    /// It starts at once: its body is a stream of messages.
    Stream,
}

/// Serves a connection until it ends. After a change of `stop` it takes no more calls and ends with
/// its last one. Calls that wait are tasks of `tasks`; they end with the connection.
pub(crate) async fn serve<C: Calls>(
    connection: Connection,
    calls: C,
    limits: Limits,
    (stop, tasks): (watch::Receiver<()>, TaskTracker),
) {
    let (remote, received) = (connection.remote(), connection.received());
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX);
    let (gate, waker) = Gate::new();
    let stop_signal = {
        let mut stop = stop.clone();
        async move { drop(stop.changed().await) }
    };
    let mut stop_signal = pin!(stop_signal);
    let handshake = tokio::select! {
        biased;
        done = builder.handshake(connection) => done,
        // There is no call yet.
        () = &mut stop_signal => return,
    };
    let Ok(mut h2) = handshake else { return };
    // The waker stays registered, and stays the same, so no other poll is needed.
    let _ = stop_signal.as_mut().poll(&mut Context::from_waker(&waker));
    let timers = Timers::new(&limits, h2.ping_pong(), Instant::now());
    let mut driver = Driver {
        h2,
        calls,
        remote,
        received,
        timers,
        tasks,
        stop,
        stopping: false,
        short: Vec::new(),
        gate,
        waker,
    };
    poll_fn(|cx| driver.poll(cx)).await;
}

/// One connection.
struct Driver<C: Calls> {
    h2: H2<Connection, Bytes>,
    calls: C,
    remote: Remote,
    received: Received,
    timers: Timers,
    /// The tasks of calls that were not over in their first poll.
    tasks: TaskTracker,
    stop: watch::Receiver<()>,
    stopping: bool,
    /// Plain and unary calls whose bodies have not arrived, the oldest first.
    short: Vec<ShortCall>,
    gate: Arc<Gate>,
    waker: Waker,
}

impl<C: Calls> Driver<C> {
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.gate.open(cx);
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        let now = Instant::now();
        let mut inline_calls = INLINE_CALLS_MAX;
        loop {
            self.gate.again();
            if !self.stopping && self.stop.has_changed().unwrap_or(true) {
                self.stopping = true;
                self.h2.graceful_shutdown();
            }
            loop {
                match self.h2.poll_accept(&mut cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => {
                        self.accept(request, respond, now, &mut inline_calls);
                    }
                    // The peer has closed the connection, or has broken the protocol; h2 has said so.
                    Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            self.read_short(now, &mut inline_calls);
            let waiting = self.short.first().map(|call| call.since);
            match self.timers.poll(now, self.received.bytes(), waiting, &waker) {
                Due::Nothing => {}
                Due::Age => self.h2.graceful_shutdown(),
                Due::Dead => return Poll::Ready(()),
            }
            if self.gate.close() {
                return Poll::Pending;
            }
        }
    }

    /// Takes a call whose head has arrived.
    fn accept(
        &mut self,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        now: Instant,
        inline_calls: &mut usize,
    ) {
        let (mut head, body) = request.into_parts();
        let intake = self.calls.intake(&mut head);
        let call = ShortCall::new(head, body, respond, intake == Intake::Plain, now);
        if intake == Intake::Stream {
            return self.start(call, false, inline_calls);
        }
        if self.short.len() >= SHORT_CALLS_MAX {
            self.read_short(now, inline_calls);
        }
        if self.short.len() >= SHORT_CALLS_MAX {
            let oldest = self.short.remove(0);
            self.start(oldest, false, inline_calls);
        }
        self.short.push(call);
    }

    /// Answers or starts the short calls whose bodies have arrived.
    fn read_short(&mut self, now: Instant, inline_calls: &mut usize) {
        let (mut at, mut answered, mut ended) = (0, 0, 0);
        while let Some(call) = self.short.get_mut(at) {
            let mut is_whole = false;
            match call.read() {
                Reading::Waits if now.duration_since(call.since) < SHORT_WAIT_MAX => {
                    at += 1;
                    continue;
                }
                Reading::Waits | Reading::Long => {}
                Reading::Gone => {
                    (at, ended) = (at + 1, ended + 1);
                    continue;
                }
                Reading::Whole(body) => {
                    is_whole = true;
                    if call.is_plain
                        && let Some(message) = self.calls.answer(&body)
                    {
                        // An error means that the client is gone.
                        let _ = call.send_ok(message);
                        (at, answered, ended) = (at + 1, answered + 1, ended + 1);
                        continue;
                    }
                }
            }
            let call = self.short.remove(at);
            self.start(call, is_whole, inline_calls);
        }
        if ended == self.short.len() {
            self.short.clear();
        } else if ended > 0 {
            self.short.retain(ShortCall::is_open);
        }
        if answered > 0 {
            self.calls.answered(answered, now.elapsed());
        }
    }

    /// Starts a call that is not answered as a plain one. `is_whole`: its body has been read.
    fn start(&mut self, mut call: ShortCall, is_whole: bool, inline_calls: &mut usize) {
        let Some(respond) = call.take_respond() else { return };
        let read = call.take_read();
        call.head.extensions.insert(self.remote);
        let body = Body::new(RequestBody::new(read, (!is_whole).then_some(call.body)));
        let request = Request::from_parts(call.head, body);
        let mut call = Box::pin(exchange(self.calls.call(request), respond));
        // Most calls end in their first poll, and need no task. Their number is limited so that one
        // wake of a connection does not keep a worker from its other connections for long.
        if let Some(rest) = inline_calls.checked_sub(1) {
            *inline_calls = rest;
            if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                return;
            }
        }
        self.tasks.spawn(call);
    }
}
