//! The body of a request, between the task of its connection and its call.
//!
//! The task appends what arrives, and the call takes whole messages. Memory follows the bytes that
//! have arrived: nothing is reserved for the length that a message announces.
//!
//! **Invariants**: every byte here is charged to the connection's budget, and so are the bytes of the
//! message that the call works on. A message above its limit, or without room in the budget, fails the
//! body. No more flow control capacity is given while a whole message waits. Of one worker's messages
//! longer than [`SHORT_BODY_MAX`], one is decoded at a time, and sockets are looked at in between. The call gets a
//! compressed message decompressed (`inflate`), within the same limit.

mod inflate;

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use capstan_http2::Reason;
use capstan_proto::frame::{HEADER_BYTES, Header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::codegen::Bytes;

use super::chunks::Chunks;
use super::wire::Wire;
use super::{Intake, Turns};
use crate::error::CallError;
use crate::limits::{GZIP_OVERHEAD_MAX, SHORT_BODY_MAX};
use crate::transport::budget::{Charge, ConnectionBudget};
use inflate::Inflate;

/// The side of the connection's task.
pub(super) struct Inbound(Arc<Shared>);

/// The side of the call.
pub(super) struct RequestBody {
    shared: Arc<Shared>,
    /// Long messages of one worker are decoded one at a time. `None` for messages that are cheap to decode.
    turns: Option<Arc<Semaphore>>,
    turn: Turn,
    /// Set if messages may be compressed.
    inflate: Option<Box<Inflate>>,
}

/// The turn of a long message to be decoded.
enum Turn {
    /// No long message has arrived.
    None,
    Waits(TurnToCome),
    /// The call decodes the message. Its next poll, or its end, gives the turn away.
    Taken {
        _permit: Option<OwnedSemaphorePermit>,
    },
}

type TurnToCome = Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send>>;

/// A turn of these. The runtime looks at every socket before it.
fn turn(turns: &Arc<Semaphore>) -> TurnToCome {
    let turns = Arc::clone(turns);
    Box::pin(async move {
        // The semaphore is never closed.
        let permit = turns.acquire_owned().await.ok();
        tokio::task::yield_now().await;
        permit
    })
}

struct Shared {
    state: Mutex<State>,
    wire: Arc<Wire>,
    stream: u32,
}

struct State {
    chunks: Chunks,
    message_bytes_max: usize,
    /// The same of a compressed message as it arrives.
    compressed_bytes_max: usize,
    charge: Charge,
    /// Bytes of the message that the call works on.
    working: usize,
    /// Bytes of it that the call has not taken yet.
    message_left: usize,
    /// Received bytes whose flow control capacity was not given back.
    unreleased: usize,
    /// Of these, the bytes whose capacity is to be given back now.
    released: usize,
    end: Option<End>,
    reader: Option<Waker>,
    /// The call needs no more of the body.
    is_abandoned: bool,
}

/// Bytes that stay charged for the next message of a body.
const SLACK: usize = 64 * 1024;

/// How a body has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    /// The client has reset the stream, or has disconnected.
    Gone,
    TooLarge,
    NoRoom,
}

/// The first message of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    Incomplete,
    /// Whole, with this many bytes, frame header included.
    Whole(usize),
    TooLarge,
    /// Its frame header is malformed.
    Invalid,
}

/// A body whose first bytes have arrived, and their capacity is released. `is_whole`: there are no more.
pub(super) fn body(
    (read, is_whole): (Chunks, bool),
    intake: Intake,
    (wire, stream): (&Arc<Wire>, u32),
    (budget, turns): (&Arc<ConnectionBudget>, &Turns),
) -> (Option<Inbound>, RequestBody) {
    let message_bytes_max = intake.message_bytes_max;
    let mut state = State::new(message_bytes_max, budget);
    if intake.inflates {
        state.compressed_bytes_max += GZIP_OVERHEAD_MAX;
    }
    state.chunks = read;
    state.arrived();
    state.released = 0;
    if is_whole {
        state.finish(End::Whole);
    }
    let shared = Shared { state: Mutex::new(state), wire: Arc::clone(wire), stream };
    let shared = Arc::new(shared);
    let inflate = intake.inflates.then(|| {
        let turns = Arc::clone(&turns.inflating);
        Box::new(Inflate::new(message_bytes_max, Arc::clone(budget), turns))
    });
    let turns = intake.decodes_in_turn.then(|| Arc::clone(&turns.decoding));
    let body = RequestBody { shared: Arc::clone(&shared), turns, turn: Turn::None, inflate };
    let goes_on = shared.lock().end.is_none();
    (goes_on.then_some(Inbound(shared)), body)
}

impl Inbound {
    /// Appends what has arrived. Returns the bytes whose flow control capacity is to be given back, and whether
    /// the body goes on.
    pub(super) fn push(&self, data: &[u8], ends: bool) -> (usize, bool) {
        let mut state = self.0.lock();
        if state.is_abandoned || state.end.is_some() {
            return (data.len(), false);
        }
        state.push(data);
        if ends {
            state.finish(End::Whole);
        }
        (std::mem::take(&mut state.released), state.end.is_none())
    }

    /// The client has reset the stream. Without an error that ends the body (RFC 9113, section 8.1).
    pub(super) fn reset(&self, reason: Reason) {
        let is_good = reason == Reason::NO_ERROR;
        self.0.lock().finish(if is_good { End::Whole } else { End::Gone });
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        // The connection has ended. A body that has ended stays as it is.
        self.0.lock().finish(End::Gone);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next part of the message, or of the next message once that is whole.
    fn poll(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        let mut state = self.lock();
        let polled = state.poll(cx);
        let released = std::mem::take(&mut state.released);
        drop(state);
        if released > 0 {
            self.wire.with(|connection| connection.release(self.stream, released));
        }
        polled
    }
}

impl State {
    fn new(message_bytes_max: usize, budget: &Arc<ConnectionBudget>) -> Self {
        Self {
            chunks: Chunks::default(),
            message_bytes_max,
            compressed_bytes_max: message_bytes_max,
            charge: Charge::new(Arc::clone(budget)),
            working: 0,
            message_left: 0,
            unreleased: 0,
            released: 0,
            end: None,
            reader: None,
            is_abandoned: false,
        }
    }

    fn push(&mut self, data: &[u8]) {
        if self.end.is_some() || data.is_empty() {
            return;
        }
        self.chunks.push(data);
        self.unreleased += data.len();
        self.arrived();
    }

    /// Looks at what has arrived.
    fn arrived(&mut self) {
        if !self.charge_held() {
            return self.finish(End::NoRoom);
        }
        match self.first() {
            First::TooLarge => self.finish(End::TooLarge),
            First::Whole(_) | First::Invalid => self.wake(),
            First::Incomplete => self.give_capacity(),
        }
    }

    /// The first end counts.
    fn finish(&mut self, end: End) {
        if self.end.is_none() {
            self.end = Some(end);
            self.wake();
        }
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Lets the client send as many bytes more as were received.
    const fn give_capacity(&mut self) {
        self.released += self.unreleased;
        self.unreleased = 0;
    }

    /// Charges for the bytes that are held. Charges that are not needed stay for the next message, up to
    /// [`SLACK`]: the counts are shared by all workers. False if there is no room.
    fn charge_held(&mut self) -> bool {
        let (held, charged) = (self.chunks.bytes() + self.working, self.charge.bytes());
        if charged > held + SLACK {
            self.charge.release(charged - held);
        }
        charged >= held || self.charge.add(held - charged)
    }

    /// The message after the one that the call takes.
    fn first(&self) -> First {
        let bytes = self.chunks.bytes() - self.message_left;
        let mut start = self.chunks.from(self.message_left);
        let mut head = [0; HEADER_BYTES];
        for byte in &mut head {
            let Some(next) = start.next() else { return First::Incomplete };
            *byte = next;
        }
        let Some((header, _)) = Header::read(&head) else { return First::Invalid };
        let most =
            if header.compressed { self.compressed_bytes_max } else { self.message_bytes_max };
        if header.length > most {
            return First::TooLarge;
        }
        let length = HEADER_BYTES + header.length;
        if bytes < length { First::Incomplete } else { First::Whole(length) }
    }

    /// Takes at most this many bytes, which the call works on from now on.
    fn take(&mut self, most: usize) -> Bytes {
        let taken = self.chunks.take(most);
        self.working += taken.len();
        taken
    }

    fn poll(&mut self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Status>>> {
        if self.message_left == 0 {
            self.working = 0;
            if let First::Whole(bytes) = self.first() {
                self.message_left = bytes;
            }
        }
        if self.message_left > 0 {
            let part = self.take(self.message_left);
            self.message_left -= part.len();
            if self.message_left == 0 && self.first() == First::Incomplete {
                self.give_capacity();
            }
            return Poll::Ready(Some(Ok(part)));
        }
        match self.first() {
            // tonic says what is wrong with the header.
            First::Invalid => {
                let header = self.start(HEADER_BYTES);
                self.drop_chunks();
                self.end = Some(End::Whole);
                return Poll::Ready(Some(Ok(header)));
            }
            // Behind a message that the call has taken since.
            First::TooLarge => self.end = Some(End::TooLarge),
            First::Whole(_) | First::Incomplete => {}
        }
        let error = match self.end {
            None => {
                self.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Some(End::Whole) if self.chunks.bytes() == 0 => return Poll::Ready(None),
            // Less than a frame header, by which tonic sees that the body ends within a message. More
            // would make it reserve memory for the rest.
            Some(End::Whole) => {
                let part = self.start(HEADER_BYTES - 1);
                self.drop_chunks();
                return Poll::Ready(Some(Ok(part)));
            }
            Some(End::Gone) => Status::cancelled("the client has disconnected"),
            Some(End::TooLarge) => Status::out_of_range("the message is too large"),
            Some(End::NoRoom) => CallError::Overloaded.into(),
        };
        self.drop_chunks();
        self.end = Some(End::Whole);
        Poll::Ready(Some(Err(error)))
    }

    /// The bytes of the message that the next poll begins; 0 if there is none yet. `None` if the call is
    /// still taking one.
    fn next(&self) -> Option<usize> {
        if self.message_left > 0 {
            return None;
        }
        match self.first() {
            First::Whole(bytes) => Some(bytes),
            First::Incomplete | First::TooLarge | First::Invalid => Some(0),
        }
    }

    /// Whether the next poll begins a compressed message.
    fn is_compressed(&self) -> bool {
        self.next().is_some_and(|bytes| bytes > 0) && self.chunks.from(0).next() == Some(1)
    }

    /// The first bytes, at most this many.
    fn start(&self, most: usize) -> Bytes {
        self.chunks.from(0).take(most).collect()
    }

    fn drop_chunks(&mut self) {
        self.chunks = Chunks::default();
        (self.working, self.message_left) = (0, 0);
        self.charge.release(self.charge.bytes());
    }
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = &mut *self;
        if let Some(inflate) = &mut this.inflate
            && let Err(error) = ready!(inflate.poll(&this.shared, cx))
        {
            this.inflate = None;
            let mut state = this.shared.lock();
            state.drop_chunks();
            state.end = Some(End::Whole);
            return Poll::Ready(Some(Err(error)));
        }
        let plain_bytes = this.inflate.as_ref().and_then(|inflate| inflate.ready_bytes());
        if let Some(turns) = &this.turns
            && let Some(next) = plain_bytes.or_else(|| this.shared.lock().next())
        {
            if next <= SHORT_BODY_MAX {
                this.turn = Turn::None;
            } else if !matches!(this.turn, Turn::Waits(_)) {
                this.turn = Turn::None; // The message before is decoded.
                this.turn = Turn::Waits(turn(turns));
            }
            if let Turn::Waits(turn) = &mut this.turn {
                let permit = ready!(turn.as_mut().poll(cx));
                this.turn = Turn::Taken { _permit: permit };
            }
        }
        if let Some(plain) = this.inflate.as_mut().and_then(|inflate| inflate.take()) {
            return Poll::Ready(Some(Ok(Frame::data(plain))));
        }
        this.shared.poll(cx).map_ok(Frame::data)
    }

    fn is_end_stream(&self) -> bool {
        let state = self.shared.lock();
        let is_inflated = self.inflate.as_ref().is_none_or(|inflate| inflate.is_done());
        is_inflated && state.chunks.bytes() == 0 && state.end == Some(End::Whole)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.is_abandoned = true;
        state.reader = None;
        state.drop_chunks();
        let held = state.unreleased + std::mem::take(&mut state.released);
        state.unreleased = 0;
        drop(state);
        if held > 0 {
            self.shared.wire.with(|connection| connection.release(self.shared.stream, held));
        }
    }
}

#[cfg(test)]
mod tests;
