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
//! **Invariants**:
//!
//! - Every call that is not answered as a plain one goes to [`Calls::call`], with its whole body.
//! - Bytes that wait are charged to the connection's budget: of bodies that a call has not taken, and of
//!   answers that the peer has not read. A connection whose peer does not read takes no input.
//! - A connection ends when its peer closes it, breaks the protocol, leaves a ping unanswered or does
//!   not read for too long, or when it is idle after the stop signal, after its age, or while a new
//!   connection has no place.
//!
//! Read this file, `new_call`, `inbound`, `outbound`, `timers`, then `gate`.

mod gate;
mod inbound;
mod new_call;
mod outbound;
mod timers;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::server::{Builder, Connection as H2, SendResponse};
use h2::{Reason, RecvStream};
use http_body::Body as HttpBody;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{Request, Response};

use crate::limits::{
    CONNECTION_STREAMS_MAX, CONNECTION_WINDOW, HEADER_BYTES_MAX, INLINE_CALLS_MAX, Limits,
    NEW_CALLS_MAX, ROUNDS_MAX, SEND_BUFFER_MAX, SHORT_WAIT_MAX, STREAM_WINDOW,
};
use crate::transport::budget::{Budget, Charge, ConnectionBudget};
use crate::transport::connection::{Connection, Remote, Traffic};
use crate::transport::peers::Peer;
use crate::transport::seats::Seat;
use gate::Gate;
use inbound::Inbound;
use new_call::{NewCall, Reading};
use outbound::{Outbound, exchange};
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
pub(crate) struct Intake {
    pub(crate) kind: Kind,
    /// Bytes of one message of its request.
    pub(crate) message_bytes_max: usize,
    /// Whether a long message takes so long to decode that others must be served in between.
    pub(crate) decodes_in_turn: bool,
}

/// When a call starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its body is read, and [`Calls::answer`] may answer it.
    Plain,
    /// Its body is read, and it starts with the whole body.
    Unary,
    /// It starts at once: its body is a stream of messages.
    Stream,
}

/// What the connections of one worker have in common.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) budget: Arc<Budget>,
    /// Changes at the stop signal.
    pub(crate) stop: watch::Receiver<()>,
    /// The tasks of calls that were not over in their first poll. They end with their connection.
    pub(crate) tasks: TaskTracker,
    /// One permit: for the long message that is decoded.
    pub(crate) turns: Arc<Semaphore>,
}

/// Serves a connection until it ends. After the stop signal it takes no more calls and ends with its
/// last one.
pub(crate) async fn serve<C: Calls>(connection: Connection, calls: C, shared: Shared) {
    let Shared { limits, budget, stop, tasks, turns } = shared;
    let (remote, traffic) = (connection.remote(), connection.traffic());
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .max_send_buffer_size(SEND_BUFFER_MAX);
    let (gate, waker) = Gate::new();
    let seat = connection.seat();
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
        () = poll_fn(|cx| {
            seat.register(cx.waker());
            if seat.yields() { Poll::Ready(()) } else { Poll::Pending }
        }) => return,
    };
    let Ok(mut h2) = handshake else { return };
    // The waker stays registered, and stays the same, so no other poll is needed.
    let _ = stop_signal.as_mut().poll(&mut Context::from_waker(&waker));
    seat.register(&waker);
    let timers = Timers::new(&limits, h2.ping_pong(), Instant::now());
    let budget = budget.connection(Peer::of(Some(&remote)));
    let mut driver = Driver {
        h2,
        calls,
        remote,
        timers,
        tasks,
        turns,
        stop,
        stopping: false,
        seat,
        is_busy: false,
        new_calls: Vec::new(),
        bodies: Vec::new(),
        outbound: Outbound::new(Arc::clone(&budget), limits.stalled_stream_max),
        unsent: Charge::new(Arc::clone(&budget)),
        budget,
        traffic,
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
    timers: Timers,
    tasks: TaskTracker,
    turns: Arc<Semaphore>,
    stop: watch::Receiver<()>,
    stopping: bool,
    seat: Arc<Seat>,
    /// Whether it has an open stream.
    is_busy: bool,
    /// Calls that have arrived and have not started, the oldest first.
    new_calls: Vec<NewCall>,
    /// Bodies of started calls that have not ended.
    bodies: Vec<Inbound>,
    outbound: Arc<Outbound>,
    /// What h2 holds while the peer does not read: answers, and bodies of calls that wait.
    unsent: Charge,
    budget: Arc<ConnectionBudget>,
    traffic: Traffic,
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
        for _ in 0..ROUNDS_MAX {
            self.gate.again();
            if self.seat.yields() {
                self.h2.abrupt_shutdown(Reason::NO_ERROR);
            }
            if !self.stopping && self.stop.has_changed().unwrap_or(true) {
                self.stopping = true;
                self.h2.graceful_shutdown();
            }
            let was_blocked = self.traffic.is_blocked();
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
            if self.traffic.is_blocked() {
                // The bodies of calls that wait are in the connection's window.
                let bodies = if self.new_calls.is_empty() { 0 } else { CONNECTION_WINDOW as usize };
                let held = self.outbound.unsent() + bodies;
                if !self.unsent.add(held.saturating_sub(self.unsent.bytes())) {
                    return Poll::Ready(());
                }
            } else {
                self.outbound.set_flushed();
                self.unsent.release(self.unsent.bytes());
                self.read_new_calls(now, &mut inline_calls);
            }
            if !self.bodies.is_empty() {
                self.bodies.retain_mut(Inbound::receive);
            }
            let is_busy = self.h2.has_streams();
            if is_busy != self.is_busy {
                self.is_busy = is_busy;
                self.seat.set_busy(is_busy, now);
            }
            let waiting = self.new_calls.first().map(|call| call.since);
            match self.timers.poll(now, &self.traffic, waiting, &waker) {
                Due::Nothing => {}
                Due::Age => self.h2.graceful_shutdown(),
                Due::Dead => return Poll::Ready(()),
            }
            // A connection that was blocked has read nothing. The next round reads.
            let is_unblocked = was_blocked && !self.traffic.is_blocked();
            if !is_unblocked && self.gate.close() {
                return Poll::Pending;
            }
        }
        // The runtime lets other tasks run; it also has a budget for each poll of a task, after which
        // every socket is pending.
        self.gate.pass();
        Poll::Pending
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
        self.new_calls.push(NewCall::new(head, body, respond, intake, now));
        // While the peer does not read, calls wait: at most as many as a connection has streams.
        if self.new_calls.len() >= NEW_CALLS_MAX && !self.traffic.is_blocked() {
            self.read_new_calls(now, inline_calls);
            if self.new_calls.len() >= NEW_CALLS_MAX {
                let oldest = self.new_calls.remove(0);
                self.start(oldest, false, inline_calls);
            }
        }
    }

    /// Answers or starts the calls that have arrived, as far as their bodies have.
    fn read_new_calls(&mut self, now: Instant, inline_calls: &mut usize) {
        let (mut at, mut answered, mut ended) = (0, 0, 0);
        while let Some(call) = self.new_calls.get_mut(at) {
            let reading = match call.intake.kind {
                Kind::Stream => Reading::Long,
                Kind::Plain | Kind::Unary => call.read(),
            };
            match reading {
                Reading::Waits if now.duration_since(call.since) < SHORT_WAIT_MAX => {
                    at += 1;
                    continue;
                }
                Reading::Gone => {
                    (at, ended) = (at + 1, ended + 1);
                    continue;
                }
                Reading::Whole if call.intake.kind == Kind::Plain => {
                    if let Some(message) = self.calls.answer(&call.bytes()) {
                        self.outbound.count(message.len());
                        // An error means that the client is gone.
                        let _ = call.send_ok(message);
                        (at, answered, ended) = (at + 1, answered + 1, ended + 1);
                        continue;
                    }
                }
                Reading::Whole | Reading::Waits | Reading::Long => {}
            }
            let call = self.new_calls.remove(at);
            self.start(call, matches!(reading, Reading::Whole), inline_calls);
        }
        if ended == self.new_calls.len() {
            self.new_calls.clear();
        } else if ended > 0 {
            self.new_calls.retain(NewCall::is_open);
        }
        if answered > 0 {
            self.calls.answered(answered, now.elapsed());
        }
    }

    /// Starts a call that is not answered as a plain one. `is_whole`: its body has been read.
    fn start(&mut self, mut call: NewCall, is_whole: bool, inline_calls: &mut usize) {
        let Some(respond) = call.take_respond() else { return };
        let read = call.take_read();
        let stream = (!is_whole).then_some(call.body);
        let (inbound, body) = inbound::body(read, stream, call.intake, (&self.budget, &self.turns));
        if let Some(mut inbound) = inbound
            && inbound.receive()
        {
            self.bodies.push(inbound);
        }
        call.head.extensions.insert(self.remote);
        let request = Request::from_parts(call.head, Body::new(body));
        let answer = self.calls.call(request);
        let mut call = Box::pin(exchange(answer, respond, Arc::clone(&self.outbound)));
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
