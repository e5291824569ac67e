//! One connection: its streams, its windows, and the bytes to write.

mod receive;
mod send;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::Waker;

use crate::frame::{self, GOAWAY, PAYLOAD_MAX, PING, PREFACE, RST_STREAM, Reason, WINDOW_UPDATE};
use crate::head::Head;
use crate::hpack::{Reader, Writer};

/// The limits of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Bytes that the peer may send on one stream before they are released.
    pub stream_window: u32,
    /// The same on all streams together; at least 65,535, the protocol's first value.
    pub connection_window: u32,
    /// Streams that are open at a time.
    pub streams_max: u32,
    /// Bytes of a request's header fields, counted as RFC 9113 section 6.5.2 says.
    pub header_bytes_max: u32,
    /// Bytes to write above which responses wait.
    pub pending_max: usize,
    /// Streams that the peer has broken a rule on, or has opened above [`Config::streams_max`], until the
    /// connection ends.
    pub faults_max: u32,
    /// What is written, in place of any frame, to a peer that does not speak HTTP/2, by its first bytes. It may be
    /// empty; then the peer gets a GOAWAY.
    pub refusal: fn(&[u8]) -> &'static [u8],
}

/// What a peer has sent.
#[derive(Debug)]
pub enum Event<'a> {
    /// A new stream, with the head of its request. With `ends` no body follows.
    Head {
        /// The stream.
        stream: u32,
        /// The same pointer for the same head, as long as a few heads recur.
        head: Arc<Head>,
        /// Whether the request is complete.
        ends: bool,
    },
    /// A part of a request's body; it may be empty. Its bytes count until [`Connection::release`].
    Data {
        /// The stream.
        stream: u32,
        /// The bytes.
        data: &'a [u8],
        /// Whether the request is complete. Trailers, which gRPC requests do not have, only say that.
        ends: bool,
    },
    /// The stream has ended: the peer has reset it, or has broken a rule on it.
    Reset {
        /// The stream.
        stream: u32,
        /// Why. [`Reason::NO_ERROR`]: the peer needs no more of the response.
        reason: Reason,
    },
}

/// The stream, or the connection, has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed;

/// The state of a connection. See the crate.
#[derive(Debug)]
pub struct Connection {
    config: Config,
    /// Bytes of the preface that have arrived.
    greeted: usize,
    /// Whether the peer's first settings have arrived.
    has_settings: bool,
    reader: Reader,
    /// Heads that recur, the oldest one first.
    heads: Vec<KnownHead>,
    /// A header block that continues in the next frame.
    block: Option<Block>,
    /// The highest stream that the peer has opened.
    last: u32,
    /// The streams whose response is not complete.
    streams: BTreeMap<u32, Stream>,
    /// Bytes that the peer may send on all streams.
    window: u32,
    /// Released bytes that were not announced.
    unannounced: u32,
    /// Streams that the peer has broken a rule on.
    faults: u32,
    /// Frames that may be taken before the next [`Connection::begin_turn`].
    frames_left: usize,
    writer: Writer,
    /// Bytes to write, the first `written` of which are written.
    out: Vec<u8>,
    written: usize,
    /// Bytes that may be sent on all streams.
    send_window: i64,
    /// Bytes that may be sent on a new stream.
    stream_send_window: i64,
    /// Whether streams that wait for room are to be woken.
    has_room: bool,
    /// Who waits for streams that have ended with the connection.
    ended: Vec<Waker>,
    state: State,
    /// Whether the peer gets [`Config::refusal`].
    is_refused: bool,
}

/// Whether the connection takes new streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// GOAWAY is sent for a stream that never comes, and a ping after it. Streams that cross its answer are taken.
    Leaving,
    /// GOAWAY is sent with the last stream that was taken.
    Left {
        last: u32,
    },
    /// The connection ends once everything is written.
    Closing,
}

/// A head that has come before, by its block.
#[derive(Debug)]
struct KnownHead {
    block: Vec<u8>,
    /// [`Reader::changes`] when it was read.
    changes: u64,
    head: Arc<Head>,
}

/// The start of a header block.
#[derive(Debug)]
struct Block {
    stream: u32,
    ends: bool,
    bytes: Vec<u8>,
    /// Bytes of all its frames, heads included: empty frames count, too.
    cost: usize,
}

/// A stream whose response is not complete.
#[derive(Debug)]
struct Stream {
    /// Whether more of the request is to come.
    is_open: bool,
    /// Bytes that the peer may send.
    window: u32,
    /// Received bytes that were not released.
    held: u32,
    /// Released bytes that were not announced.
    unannounced: u32,
    /// Bytes that are missing from the body, if its length was said.
    missing: Option<u64>,
    /// Bytes that may be sent.
    send_window: i64,
    /// Who waits for the end of the stream, or for room as well.
    waker: Option<Waker>,
    waits_for_room: bool,
}

/// The protocol's first windows (RFC 9113, section 6.9.2).
const FIRST_WINDOW: u32 = 65_535;

/// What a ping after the first GOAWAY says, to know its answer from others.
const LEAVING: [u8; 8] = *b"leaving.";

/// A capacity of `out` that is kept for the next bytes.
const OUT_KEPT: usize = 8 * 1024;

impl Connection {
    /// A new connection. Its settings are pending once the peer's preface has arrived.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config,
            greeted: 0,
            has_settings: false,
            reader: Reader::default(),
            heads: Vec::new(),
            block: None,
            last: 0,
            streams: BTreeMap::new(),
            window: config.connection_window.max(FIRST_WINDOW),
            unannounced: 0,
            faults: 0,
            frames_left: usize::MAX,
            writer: Writer::default(),
            out: Vec::new(),
            written: 0,
            send_window: FIRST_WINDOW.into(),
            stream_send_window: FIRST_WINDOW.into(),
            has_room: false,
            ended: Vec::new(),
            state: State::Open,
            is_refused: false,
        }
    }

    /// Lets [`Connection::next`] take at most so many frames until this is called again. Without a call there is no
    /// limit.
    pub const fn begin_turn(&mut self, frames: usize) {
        self.frames_left = frames;
    }

    /// Whether all frames of the turn are taken.
    #[must_use]
    pub const fn is_turn_over(&self) -> bool {
        self.frames_left == 0
    }

    /// Whether the peer's preface has arrived.
    #[must_use]
    pub const fn is_greeted(&self) -> bool {
        self.greeted == PREFACE.len()
    }

    /// Whether a stream is open.
    #[must_use]
    pub fn has_streams(&self) -> bool {
        !self.streams.is_empty()
    }

    /// Whether the connection is to be closed: everything is written, and no stream is to come or to end.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let is_done = match self.state {
            State::Open | State::Leaving => false,
            State::Left { .. } => self.streams.is_empty(),
            State::Closing => true,
        };
        is_done && self.pending().is_empty()
    }

    /// Whether the connection is over, and its socket must stay open until the peer has read the last bytes: the answer of
    /// the last stream, or the refusal.
    #[must_use]
    pub fn must_linger(&self) -> bool {
        (self.is_refused || matches!(self.state, State::Left { .. })) && self.is_over()
    }

    /// Bytes of the peer's that are held here, and bytes that it has not read.
    #[must_use]
    pub fn held(&self) -> usize {
        self.pending().len() + self.block.as_ref().map_or(0, |block| block.bytes.len())
    }

    /// Takes no more streams, without losing one: the peer learns of it before (RFC 9113, section 6.8).
    pub fn leave(&mut self) {
        if self.state == State::Open {
            self.state = State::Leaving;
            self.put_goaway(u32::MAX >> 1, Reason::NO_ERROR);
            self.put(PING, 0, 0, &LEAVING);
        }
    }

    /// Takes no more streams, whether the peer has answered [`Connection::leave`] or not: one that never answers could otherwise open
    /// streams for ever. Those that are open go on.
    pub fn leave_now(&mut self) {
        if matches!(self.state, State::Open | State::Leaving) {
            self.state = State::Left { last: self.last };
            self.put_goaway(self.last, Reason::NO_ERROR);
        }
    }

    /// Ends the connection once everything is written, and all its streams at once. [`Connection::wake_ended`] wakes who
    /// waits for them.
    pub fn close(&mut self, reason: Reason) {
        if self.state != State::Closing {
            self.put_goaway(self.last, reason);
            self.state = State::Closing;
            let streams = std::mem::take(&mut self.streams).into_values();
            self.ended.extend(streams.filter_map(|stream| stream.waker));
        }
    }

    /// Sends a ping. Whatever arrives next answers it.
    pub fn ping(&mut self) {
        self.put(PING, 0, 0, &[0; 8]);
    }

    /// What is to be written.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.out.get(self.written..).unwrap_or_default()
    }

    /// This many bytes of [`Connection::pending`] were written.
    pub fn wrote(&mut self, bytes: usize) {
        let was_full = self.pending().len() >= self.config.pending_max;
        self.written = self.out.len().min(self.written + bytes);
        if self.written == self.out.len() {
            self.written = 0;
            self.out.clear();
            self.out.shrink_to(OUT_KEPT);
        } else if self.written > PAYLOAD_MAX {
            self.out.drain(..self.written);
            self.written = 0;
        }
        self.has_room |= was_full && self.pending().len() < self.config.pending_max;
    }

    /// Wakes who waits for room, if there is more than before.
    pub fn wake(&mut self) {
        if std::mem::take(&mut self.has_room) {
            self.streams.values_mut().for_each(Stream::wake_for_room);
        }
    }

    /// Wakes at most this many of those whose streams have ended with the connection. Returns whether there are more.
    pub fn wake_ended(&mut self, most: usize) -> bool {
        self.ended.drain(..most.min(self.ended.len())).for_each(Waker::wake);
        !self.ended.is_empty()
    }

    /// The bytes of a body are not needed any more: the peer may send as many again.
    pub fn release(&mut self, stream: u32, bytes: usize) {
        // A stream that has ended has released all of its bytes.
        let Some(of) = self.streams.get_mut(&stream) else { return };
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(of.held);
        of.held -= bytes;
        if of.is_open {
            of.unannounced += bytes;
            if of.unannounced >= self.config.stream_window / 2 {
                let more = std::mem::take(&mut of.unannounced);
                of.window += more;
                self.put(WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
            }
        }
        self.release_all(bytes);
    }

    fn release_all(&mut self, bytes: u32) {
        self.unannounced += bytes;
        if self.unannounced >= self.config.connection_window / 2 {
            let more = std::mem::take(&mut self.unannounced);
            self.window += more;
            self.put(WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
    }

    /// The stream has ended, whatever was open of it.
    fn end(&mut self, stream: u32) -> Option<Stream> {
        let ended = self.streams.remove(&stream)?;
        self.release_all(ended.held);
        Some(ended)
    }

    fn put_reset(&mut self, stream: u32, reason: Reason) {
        self.put(RST_STREAM, 0, stream, &reason.0.to_be_bytes());
    }

    fn put_goaway(&mut self, last: u32, reason: Reason) {
        let payload = u64::from(last) << 32 | u64::from(reason.0);
        self.put(GOAWAY, 0, 0, &payload.to_be_bytes());
    }

    /// Queues a frame.
    fn put(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        if self.state != State::Closing {
            self.out.extend_from_slice(&frame::head(payload.len(), kind, flags, stream));
            self.out.extend_from_slice(payload);
        }
    }
}

impl Stream {
    fn wake_for_room(&mut self) {
        if std::mem::take(&mut self.waits_for_room)
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    fn wake(self) {
        if let Some(waker) = self.waker {
            waker.wake();
        }
    }
}
