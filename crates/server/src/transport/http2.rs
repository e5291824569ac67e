//! The HTTP/2 side of a connection: its streams become calls.
//!
//! ```text
//! Connection ─▶ Wire ─▶ head of a call ─▶ Calls::intake
//!                         │ Plain ─▶ body is read here ─▶ Calls::answer ─▶ sent
//!                         │                   │             └ no answer ─┐
//!                         │ Unary ─▶ body is read here ◀─────────────────┘
//!                         │              └ whole, long or late ─▶ Calls::shed, or Calls::call, polled once, else a task
//!                         └ Stream ─────────────────────────────▶ Calls::call, the same
//! ```
//!
//! One task drives a connection. In one wake it takes the calls that have arrived, answers the plain
//! ones from the bytes that were read, starts a few of the others, and sends all responses in one write. If there is
//! more to read or to start, it comes again after the runtime has looked at all sockets, so that no connection keeps
//! others waiting. A plain call that is answered
//! sets no timer, wakes nothing and makes no task. The body of a unary call is read before the call starts, so
//! an early response does not reset the stream under the client's body, which clients count as a failure.
//!
//! **Invariants**:
//!
//! - Every call that is not answered as a plain one goes to [`Calls::call`], with its whole body.
//! - Bytes that wait are charged to the connection's budget: of frames and bodies that a call has not taken, and
//!   of answers that the peer has not read. A connection whose peer does not read takes no input.
//! - An idle connection holds no buffer: what is read goes through one buffer of the thread.
//! - A connection ends when its peer closes it, breaks the protocol, leaves a ping unanswered or does
//!   not read for too long, or when it is idle after the stop signal, after its age, when the certificate of its client counts no
//!   more, or while a new connection has no place.
//!
//! A peer that speaks HTTP/1.1 gets an answer in HTTP/1.1 (`transport/foreign`), and the connection ends.
//!
//! The protocol itself is `capstan-http2`. Read this file, `calls`, `wire`, `new_call`, `chunks`, `inbound`, `gzip`, `outbound`,
//! `timers`, `turns`, then `gate`.

mod calls;
mod chunks;
mod gate;
mod gzip;
mod inbound;
mod new_call;
mod outbound;
mod timers;
mod turns;
mod wire;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use capstan_http2::{Connection as Http2, Event, Head, Reason};
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tonic::body::Body;
use tonic::codegen::http::{Extensions, StatusCode};

use crate::limits::{
    CONNECTION_WINDOW, ENDED_CALLS_MAX, FRAMES_MAX, HEADER_BYTES_MAX, Limits, READ_BYTES,
    ROUNDS_MAX, SHED_REST, STARTED_CALLS_MAX, UNCHARGED_MAX,
};
use crate::transport::budget::{Budget, Charge, ConnectionBudget};
use crate::transport::connection::{Connection, Remote, Traffic};
use crate::transport::linger::linger;
use crate::transport::peers::Peer;
use crate::transport::seats::Seat;
use crate::transport::tls::{ClientCertificate, Watch};
pub(crate) use calls::{Calls, Intake, Kind};
use chunks::Chunks;
use gate::Gate;
use inbound::Inbound;
use new_call::NewCall;
use outbound::{Responder, exchange};
use timers::{Due, Timers};
pub(crate) use turns::Turns;
use wire::{State, Wire};

/// What the connections of one worker have in common.
#[derive(Clone, Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) budget: Arc<Budget>,
    /// Changes at the stop signal.
    pub(crate) stop: watch::Receiver<()>,
    /// The tasks of calls that were not over in their first poll. They end with their connection.
    pub(crate) tasks: TaskTracker,
    pub(crate) turns: Turns,
}

/// Serves a connection until it ends. After the stop signal it takes no more calls and ends with its
/// last one.
pub(crate) async fn serve<C: Calls>(connection: Connection, mut calls: C, shared: Shared) {
    let Shared { limits, budget, stop, tasks, turns } = shared;
    let (remote, traffic, seat) = (connection.remote(), connection.traffic(), connection.seat());
    let certificate = connection.certificate();
    calls.connected(remote, certificate.as_ref());
    let (gate, waker) = Gate::new();
    let stop_signal = {
        let mut stop = stop.clone();
        async move { drop(stop.changed().await) }
    };
    // The waker stays registered, and stays the same, so no other poll is needed.
    let mut stop_signal = pin!(stop_signal);
    let _ = stop_signal.as_mut().poll(&mut Context::from_waker(&waker));
    seat.register(&waker);
    let budget = budget.connection(Peer::of(Some(&remote)));
    let mut driver = Driver {
        socket: connection,
        wire: Wire::new(waker.clone()),
        rest: Vec::new(),
        is_cut: false,
        calls,
        known: None,
        remote,
        watch: certificate.clone().map(Watch::new),
        certificate,
        timers: Timers::new(&limits, Instant::now()),
        stalled_stream_max: limits.stalled_stream_max,
        tasks,
        turns,
        stop,
        stopping: false,
        seat,
        is_busy: false,
        is_used: false,
        has_backlog: false,
        is_turned_away: false,
        rests_until: None,
        has_answered: false,
        has_shed: false,
        new_calls: Vec::new(),
        bodies: BTreeMap::new(),
        unsent: Charge::new(Arc::clone(&budget)),
        budget,
        traffic,
        gate,
        waker,
    };
    poll_fn(|cx| driver.poll(cx)).await;
    let must_linger = driver.is_turned_away || driver.wire.lock().connection.must_linger();
    while driver.end() {
        tokio::task::yield_now().await;
    }
    if must_linger {
        linger(&mut driver.socket).await;
    }
}

/// One connection.
struct Driver<C: Calls> {
    socket: Connection,
    wire: Arc<Wire>,
    /// What was read and not taken: the start of a frame, or what is left for the next turn.
    rest: Vec<u8>,
    /// Whether the turn was over before all whole frames of `rest` were taken.
    is_cut: bool,
    calls: C,
    /// The last head, and what is done with its calls. It keeps no head in memory.
    known: Option<(Weak<Head>, Intake)>,
    remote: Remote,
    certificate: Option<ClientCertificate>,
    /// Of the certificate, until it counts no more.
    watch: Option<Watch>,
    timers: Timers,
    stalled_stream_max: Duration,
    tasks: TaskTracker,
    turns: Turns,
    stop: watch::Receiver<()>,
    stopping: bool,
    seat: Arc<Seat>,
    /// Whether it has an open stream.
    is_busy: bool,
    /// Whether a call has arrived that the seat does not know of.
    is_used: bool,
    /// Whether calls could start, but not in the last turn, which had started enough of them.
    has_backlog: bool,
    /// Whether it ends because there is no room for its bytes, and its peer was told so.
    is_turned_away: bool,
    /// Until when nothing is read, because calls were shed.
    rests_until: Option<Instant>,
    /// Whether a plain call was answered in this wake.
    has_answered: bool,
    /// Whether a call was shed in this round.
    has_shed: bool,
    /// Calls that have arrived and have not started, the oldest first.
    new_calls: Vec<NewCall>,
    /// Bodies of started calls that have not ended, by their streams.
    bodies: BTreeMap<u32, Inbound>,
    /// What is held beside bodies of started calls: frames, bodies of calls that wait, and answers.
    unsent: Charge,
    budget: Arc<ConnectionBudget>,
    traffic: Traffic,
    gate: Arc<Gate>,
    waker: Waker,
}

thread_local! {
    /// What the connections of a thread read, one after another.
    static READ: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// What has come of reading.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Read {
    Nothing,
    Some,
    /// So much that others come first, or calls wait for their turn. There may be more.
    Again,
    /// The peer has closed the connection, or was too slow.
    End,
}

impl<C: Calls> Driver<C> {
    fn poll(&mut self, task: &mut Context<'_>) -> Poll<()> {
        self.gate.open(task);
        self.has_answered = false;
        let waker = self.waker.clone();
        let mut cx = Context::from_waker(&waker);
        let now = Instant::now();
        let (mut calls_left, mut bytes_read) = (STARTED_CALLS_MAX, 0);
        self.wire.lock().connection.begin_turn(FRAMES_MAX);
        for _ in 0..ROUNDS_MAX {
            self.gate.again();
            if !self.look_at_signals() {
                return Poll::Ready(());
            }
            if self.watch.as_mut().is_some_and(|watch| watch.is_refused(&mut cx)) {
                self.watch = None;
                // As at its age: calls that have begun say why they end.
                self.timers.age(now);
            }
            let was_blocked = self.traffic.is_blocked();
            self.rests_until = self.rests_until.filter(|end| now < *end);
            let read = match (was_blocked || self.rests_until.is_some(), self.has_backlog) {
                (true, _) => Read::Nothing,
                (false, true) => Read::Again,
                (false, false) => self.read(&mut cx, now, &mut bytes_read),
            };
            if read == Read::End {
                return Poll::Ready(());
            }
            if !was_blocked {
                self.start_new_calls(now, &mut calls_left);
            }
            // What costs most is to read a few calls at a time. Plain calls on the same connection do not wait for that.
            if std::mem::take(&mut self.has_shed) && !self.has_answered {
                self.rests_until = Some(now + SHED_REST);
            }
            if !self.write(&mut cx, now) {
                return Poll::Ready(());
            }
            if !self.charge() {
                self.turn_away(&mut cx, now);
                return Poll::Ready(());
            }
            let mut sends = false;
            if self.is_greeted() {
                let waiting = self.new_calls.first().map(|call| call.since);
                let waits = (waiting, self.rests_until);
                let due = self.timers.poll(now, &self.traffic, waits, &waker);
                sends = !matches!(due, Due::Nothing);
                match due {
                    Due::Nothing => {}
                    Due::Ping => self.wire.lock().connection.ping(),
                    Due::Age => self.wire.lock().connection.leave(),
                    Due::Leave => self.wire.lock().connection.leave_now(),
                    Due::Dead => return Poll::Ready(()),
                }
            }
            // A connection that was blocked has read nothing, and a full buffer may not hold all.
            let is_unblocked = was_blocked && !self.traffic.is_blocked();
            let waits = !self.has_backlog || self.traffic.is_blocked();
            if waits && !is_unblocked && !sends && read != Read::Again && self.gate.close() {
                return Poll::Pending;
            }
            if bytes_read >= READ_BYTES / 2 || self.has_backlog || self.is_cut {
                break;
            }
        }
        self.gate.pass(task);
        Poll::Pending
    }

    /// Looks whether the connection is to end. False if it ends at once.
    fn look_at_signals(&mut self) -> bool {
        let yields = self.seat.yields();
        let stops = !self.stopping && self.stop.has_changed().unwrap_or(true);
        if yields || stops {
            self.stopping |= stops;
            let connection = &mut self.wire.lock().connection;
            if !connection.is_greeted() {
                return false; // There is no call yet.
            }
            if yields { connection.close(Reason::NO_ERROR) } else { connection.leave() }
        }
        true
    }

    /// Takes what has arrived. The socket wakes the task for more, unless this returns [`Read::Again`].
    fn read(&mut self, cx: &mut Context<'_>, now: Instant, bytes: &mut usize) -> Read {
        READ.with_borrow_mut(|buffer| {
            let mut read = Read::Nothing;
            loop {
                let mut buffer = ReadBuf::new(buffer);
                buffer.put_slice(&self.rest);
                let before = buffer.filled().len();
                if !std::mem::take(&mut self.is_cut) {
                    match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
                        Poll::Pending => return read,
                        Poll::Ready(Ok(())) if buffer.filled().len() > before => {}
                        Poll::Ready(_) => return Read::End,
                    }
                }
                *bytes += buffer.filled().len() - before;
                let is_full = buffer.remaining() == 0;
                let mut input = buffer.filled();
                self.take(&mut input, now);
                self.rest.clear();
                self.rest.shrink_to(input.len());
                self.rest.extend_from_slice(input);
                if self.is_cut {
                    return Read::Again;
                }
                // After less than it asked for, the socket says that it is empty without a system call.
                if is_full || read == Read::Some {
                    return Read::Again;
                }
                read = Read::Some;
            }
        })
    }

    /// Takes all whole frames.
    fn take(&mut self, input: &mut &[u8], now: Instant) {
        let wire = Arc::clone(&self.wire);
        let mut state = wire.lock();
        state.is_driven = true;
        let mut answered = 0;
        while let Some(event) = state.connection.next(input) {
            match event {
                Event::Head { stream, head, ends } => self.push(stream, head, ends, now),
                Event::Data { stream, data, ends } => {
                    answered += u64::from(self.take_data(&mut state, stream, data, ends));
                }
                Event::Reset { stream, reason } => {
                    if let Ok(at) = self.find(stream) {
                        self.new_calls.remove(at);
                    } else if let Some(body) = self.bodies.remove(&stream) {
                        body.reset(reason);
                    }
                }
            }
        }
        self.is_cut = state.connection.is_turn_over();
        drop(state);
        if answered > 0 {
            self.has_answered = true;
            self.calls.answered(answered, now.elapsed());
        }
    }

    /// Adds a call whose head has arrived.
    fn push(&mut self, stream: u32, head: Arc<Head>, is_whole: bool, since: Instant) {
        self.is_used = true;
        let mut intake = match &self.known {
            Some((known, intake)) if known.as_ptr() == Arc::as_ptr(&head) => *intake,
            _ => {
                let intake = self.calls.intake(&head.parts);
                self.known = Some((Arc::downgrade(&head), intake));
                intake
            }
        };
        let mut extensions = Extensions::new();
        if intake.kind == Kind::Plain && self.calls.is_sampled(&head.parts, &mut extensions) {
            intake.kind = Kind::Unary;
        }
        let body = Chunks::default();
        self.new_calls.push(NewCall { stream, head, extensions, body, is_whole, intake, since });
    }

    /// Takes a part of a body. Returns whether it was the end of a plain call, which is answered.
    fn take_data(&mut self, state: &mut State, stream: u32, data: &[u8], ends: bool) -> bool {
        let connection = &mut state.connection;
        let Ok(at) = self.find(stream) else {
            let (released, goes_on) = match self.bodies.get(&stream) {
                Some(body) => body.push(data, ends),
                None => (data.len(), false), // Nobody needs it.
            };
            if released > 0 {
                connection.release(stream, released);
            }
            if !goes_on {
                self.bodies.remove(&stream);
            }
            return false;
        };
        let Some(call) = self.new_calls.get_mut(at) else { return false };
        call.is_whole = ends;
        if ends && call.intake.kind == Kind::Plain {
            // Almost always the first frame has the whole body.
            let joined = (call.body.bytes() > 0).then(|| {
                call.body.push(data);
                call.body.concat()
            });
            let body = joined.as_deref().unwrap_or(data);
            if connection.respond_ok(stream, |to| self.calls.answer(&call.head, body, to)) {
                self.new_calls.remove(at);
                return true;
            }
            if joined.is_some() {
                return false;
            }
        }
        if ends && is_shed(&self.calls, call, connection) {
            self.new_calls.remove(at);
            self.has_shed = true;
            return false;
        }
        call.body.push(data);
        false
    }

    /// The place of a new call.
    fn find(&self, stream: u32) -> Result<usize, usize> {
        self.new_calls.binary_search_by_key(&stream, |call| call.stream)
    }

    /// Starts calls that wait for nothing more, the oldest first, as many as the turn has left.
    fn start_new_calls(&mut self, now: Instant, left: &mut usize) {
        self.has_backlog = false;
        let rests = self.rests_until.is_some();
        if !self.new_calls.iter().any(|call| call.starts(now, rests)) {
            return;
        }
        let calls = std::mem::take(&mut self.new_calls);
        for mut call in calls {
            if !call.starts(now, rests) {
                self.new_calls.push(call);
            } else if self.wire.with(|connection| is_shed(&self.calls, &mut call, connection)) {
                self.has_shed = true;
            } else if *left == 0 {
                self.has_backlog = true;
                self.new_calls.push(call);
            } else {
                *left -= 1;
                self.start(call);
            }
        }
    }

    /// Starts a call that is not answered as a plain one.
    fn start(&mut self, mut call: NewCall) {
        let (stream, is_whole) = (call.stream, call.is_whole);
        let read = std::mem::take(&mut call.body);
        if !is_whole && read.bytes() > 0 {
            self.wire.with(|connection| connection.release(stream, read.bytes()));
        }
        let shared = (&self.budget, &self.turns);
        let (inbound, body) =
            inbound::body((read, is_whole), call.intake, (&self.wire, stream), shared);
        if let Some(inbound) = inbound {
            self.bodies.insert(stream, inbound);
        }
        call.extensions.insert(self.remote);
        if let Some(certificate) = &self.certificate {
            call.extensions.insert(certificate.clone());
        }
        let deflating = call.intake.deflates.then(|| Arc::clone(&self.turns.deflating));
        let answer = self.calls.call(call.request(Body::new(body)));
        let responder = Responder {
            wire: Arc::clone(&self.wire),
            stream,
            budget: Arc::clone(&self.budget),
            stalled_max: self.stalled_stream_max,
            deflating,
        };
        let mut call = Box::pin(exchange(answer, responder));
        // Most calls end in their first poll, and need no task.
        if call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.tasks.spawn(call);
        }
    }

    /// Writes what is pending, as far as the peer reads. False if the connection has ended.
    fn write(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut state = self.wire.lock();
        state.is_driven = false;
        // Before the answer is seen, and the peer asks for something else.
        let is_busy = state.connection.has_streams();
        if std::mem::take(&mut self.is_used) || is_busy != self.is_busy {
            self.is_busy = is_busy;
            self.seat.set_busy(is_busy, now);
        }
        while !state.connection.pending().is_empty() {
            match Pin::new(&mut self.socket).poll_write(cx, state.connection.pending()) {
                Poll::Ready(Ok(bytes)) if bytes > 0 => state.connection.wrote(bytes),
                Poll::Ready(_) => return false,
                Poll::Pending => break,
            }
        }
        let mut is_sent = true;
        if !self.traffic.is_blocked() || state.connection.pending().is_empty() {
            // What TLS holds goes out, too, or the task is woken when it can.
            match Pin::new(&mut self.socket).poll_flush(cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return false,
                Poll::Pending => is_sent = false,
            }
        }
        state.connection.wake();
        let is_over = state.connection.is_over() && is_sent;
        !is_over
    }

    /// Charges for what is held. False if there is no room for it.
    fn charge(&mut self) -> bool {
        let mut held = self.rest.len() + self.wire.lock().connection.held() + self.socket.held();
        if self.traffic.is_blocked() && !self.new_calls.is_empty() {
            // The bodies of calls that wait are in the connection's window. Each has a head, too.
            held += CONNECTION_WINDOW as usize;
            held += self.new_calls.len() * HEADER_BYTES_MAX as usize;
        }
        let charged = self.unsent.bytes();
        if held <= UNCHARGED_MAX {
            self.unsent.release(charged);
            return true;
        }
        self.unsent.release(charged.saturating_sub(held));
        self.unsent.add(held.saturating_sub(charged))
    }

    /// Tells the peer that there is no room for its bytes. A socket that is only closed resets the connection: the peer would
    /// not know why, and lose what was answered.
    fn turn_away(&mut self, cx: &mut Context<'_>, now: Instant) {
        self.rest = Vec::new();
        self.wire.lock().connection.close(Reason::ENHANCE_YOUR_CALM);
        // A peer that does not read is not waited for.
        self.is_turned_away = !self.write(cx, now) && !self.traffic.is_blocked();
    }

    /// Calls that have not ended learn that nobody waits for them, some of them each time. Returns whether there are
    /// more.
    fn end(&mut self) -> bool {
        let mut state = self.wire.lock();
        state.connection.close(Reason::NO_ERROR);
        let has_more = state.connection.wake_ended(ENDED_CALLS_MAX);
        drop(state);
        self.new_calls.clear();
        self.unsent.release(self.unsent.bytes());
        for _ in 0..ENDED_CALLS_MAX {
            self.bodies.pop_first();
        }
        has_more || !self.bodies.is_empty()
    }

    fn is_greeted(&self) -> bool {
        self.wire.lock().connection.is_greeted()
    }
}

impl<C: Calls> Drop for Driver<C> {
    fn drop(&mut self) {
        while self.end() {}
    }
}

/// Whether there is no room for a call, whose client is told so. More calls than can be answered must cost little, so nothing is
/// made for them.
fn is_shed(calls: &impl Calls, call: &mut NewCall, connection: &mut Http2) -> bool {
    // A body that goes on would be reset.
    if !call.is_whole || call.intake.kind == Kind::Stream {
        return false;
    }
    let Some(fields) = calls.shed(&call.head, &mut call.extensions) else { return false };
    // An error means that the stream is gone.
    let _ = connection.respond(call.stream, StatusCode::OK, fields, true);
    true
}
