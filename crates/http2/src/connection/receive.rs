//! What a peer sends: frames become events.

use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use super::{Block, Connection, Event, FIRST_WINDOW, KnownHead, LEAVING, State, Stream};
use crate::frame::{
    ACK, CONTINUATION, DATA, ENABLE_PUSH, END_HEADERS, END_STREAM, FrameHead, GOAWAY, HEAD_BYTES,
    HEADER_TABLE_SIZE, HEADERS, INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE, PADDED, PAYLOAD_MAX, PING, PREFACE, PRIORITY, PUSH_PROMISE, RST_STREAM,
    Reason, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY,
};
use crate::head::{Draft, Fault, Head};

/// The largest window (RFC 9113, section 6.9.1).
const WINDOW_MAX: i64 = (1 << 31) - 1;

/// Heads that are remembered, the bytes of a block that is, and its header fields: a block of a byte for each field
/// can mean a head that is a hundred times larger.
const KNOWN_HEADS_MAX: usize = 4;
const KNOWN_BLOCK_MAX: usize = 256;
const KNOWN_FIELDS_MAX: usize = 24;

/// What a frame means. An error ends the connection.
type Received<'a> = Result<Option<Event<'a>>, Reason>;

impl Connection {
    /// Takes frames from `input` up to the next event. `None`: all that is left is the start of a frame, which
    /// is to be passed again with what follows it; or the turn is over, and the rest is for the next one.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Option<Event<'a>> {
        loop {
            if self.state == State::Closing {
                *input = &[];
                return None;
            }
            if self.greeted < PREFACE.len() && !self.greet(input) {
                return None;
            }
            let (head, rest) = input.split_first_chunk::<HEAD_BYTES>()?;
            if self.is_turn_over() {
                return None;
            }
            let head = FrameHead::read(head);
            if head.length > PAYLOAD_MAX {
                self.close(Reason::FRAME_SIZE_ERROR);
                continue;
            }
            let (payload, rest) = rest.split_at_checked(head.length)?;
            self.frames_left -= 1;
            *input = rest;
            match self.frame(head, payload) {
                Ok(None) => {}
                Ok(event) => return event,
                Err(reason) => self.close(reason),
            }
        }
    }

    /// Takes the preface. False if it is not complete, or is none.
    fn greet(&mut self, input: &mut &[u8]) -> bool {
        let expected = PREFACE.get(self.greeted..).unwrap_or_default();
        let length = expected.len().min(input.len());
        let (said, rest) = input.split_at(length);
        if !expected.starts_with(said) {
            let before = PREFACE.get(..self.greeted).unwrap_or_default();
            self.refuse((self.config.refusal)(&[before, input].concat()));
            *input = &[];
            return false;
        }
        *input = rest;
        self.greeted += length;
        let is_greeted = self.is_greeted();
        if is_greeted {
            self.put_settings();
        }
        is_greeted
    }

    /// The peer does not speak HTTP/2.
    fn refuse(&mut self, answer: &[u8]) {
        if answer.is_empty() {
            self.put_settings();
            self.close(Reason::PROTOCOL_ERROR);
        } else {
            self.out.extend_from_slice(answer);
            self.state = State::Closing;
            self.is_refused = true;
        }
    }

    fn put_settings(&mut self) {
        let config = self.config;
        let settings = [
            (MAX_CONCURRENT_STREAMS, config.streams_max),
            (INITIAL_WINDOW_SIZE, config.stream_window),
            (MAX_HEADER_LIST_SIZE, config.header_bytes_max),
        ];
        let mut payload = Vec::new();
        for (name, value) in settings {
            payload.extend_from_slice(&name.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        self.put(SETTINGS, 0, 0, &payload);
        let more = self.window.saturating_sub(FIRST_WINDOW);
        if more > 0 {
            self.put(WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
        }
    }

    fn frame<'a>(&mut self, head: FrameHead, payload: &'a [u8]) -> Received<'a> {
        let continues = head.kind == CONTINUATION;
        if self.block.is_some() != continues || !self.has_settings && head.kind != SETTINGS {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let is_of_stream = head.stream != 0;
        let must_be_of_stream = match head.kind {
            DATA | HEADERS | PRIORITY | RST_STREAM | CONTINUATION => Some(true),
            SETTINGS | PING | GOAWAY => Some(false),
            PUSH_PROMISE => return Err(Reason::PROTOCOL_ERROR),
            _ => None,
        };
        if must_be_of_stream.is_some_and(|must| must != is_of_stream) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        match head.kind {
            DATA => self.receive_data(head, payload),
            HEADERS => self.receive_headers(head, payload),
            CONTINUATION => self.receive_continuation(head, payload),
            PRIORITY if payload.len() == 5 => Ok(None),
            PRIORITY => Err(Reason::FRAME_SIZE_ERROR),
            RST_STREAM => self.receive_reset(head.stream, payload),
            SETTINGS => self.receive_settings(head, payload),
            PING => self.receive_ping(head, payload),
            GOAWAY if payload.len() >= 8 => Ok(None),
            GOAWAY => Err(Reason::FRAME_SIZE_ERROR),
            WINDOW_UPDATE => self.receive_window_update(head.stream, payload),
            _ => Ok(None), // Unknown frames are ignored (section 5.5).
        }
    }

    fn receive_data<'a>(&mut self, head: FrameHead, payload: &'a [u8]) -> Received<'a> {
        let (stream, ends) = (head.stream, head.has(END_STREAM));
        let data = unpadded(head, payload)?;
        let (all, length) = (count(payload.len()), count(data.len()));
        self.window = self.window.checked_sub(all).ok_or(Reason::FLOW_CONTROL_ERROR)?;
        // Padding holds nothing.
        let Some(of) = self.streams.get_mut(&stream) else {
            self.release_all(all);
            // The stream may have ended here while this was on its way.
            return if self.was_opened(stream) { Ok(None) } else { Err(Reason::PROTOCOL_ERROR) };
        };
        let fault = if !of.is_open {
            Some(Reason::STREAM_CLOSED)
        } else if of.window < all {
            Some(Reason::FLOW_CONTROL_ERROR)
        } else {
            of.missing = of.missing.map(|missing| missing.wrapping_sub(length.into()));
            let is_wrong =
                of.missing.is_some_and(|missing| missing > u64::MAX / 2 || ends && missing != 0);
            is_wrong.then_some(Reason::PROTOCOL_ERROR)
        };
        if let Some(reason) = fault {
            self.release_all(all);
            return Ok(self.fault(stream, reason));
        }
        of.window -= all;
        of.held += all;
        of.is_open = !ends;
        if all > length {
            self.release(stream, (all - length) as usize);
        }
        Ok(Some(Event::Data { stream, data, ends }))
    }

    fn receive_headers<'a>(&mut self, head: FrameHead, payload: &'a [u8]) -> Received<'a> {
        let mut block = unpadded(head, payload)?;
        if head.has(WITH_PRIORITY) {
            block = block.get(5..).ok_or(Reason::FRAME_SIZE_ERROR)?;
        }
        let (stream, ends) = (head.stream, head.has(END_STREAM));
        if head.has(END_HEADERS) {
            return self.receive_block(stream, ends, block);
        }
        let cost = payload.len() + HEAD_BYTES;
        self.keep_block(Block { stream, ends, bytes: block.to_vec(), cost })
    }

    fn receive_continuation<'a>(&mut self, head: FrameHead, payload: &'a [u8]) -> Received<'a> {
        let mut block = self.block.take().ok_or(Reason::PROTOCOL_ERROR)?;
        if block.stream != head.stream {
            return Err(Reason::PROTOCOL_ERROR);
        }
        block.cost += payload.len() + HEAD_BYTES;
        block.bytes.extend_from_slice(payload);
        if head.has(END_HEADERS) {
            return self.receive_block(block.stream, block.ends, &block.bytes);
        }
        self.keep_block(block)
    }

    /// Keeps the start of a header block, if it is not too long.
    fn keep_block<'a>(&mut self, block: Block) -> Received<'a> {
        if block.cost > 2 * self.config.header_bytes_max as usize {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        self.block = Some(block);
        Ok(None)
    }

    /// A whole header block: the head of a request, or trailers.
    fn receive_block<'a>(&mut self, stream: u32, ends: bool, block: &[u8]) -> Received<'a> {
        if stream.is_multiple_of(2) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if self.was_opened(stream) {
            return self.receive_trailers(stream, ends, block);
        }
        self.last = stream;
        let head = self.read_head(block)?;
        if matches!(self.state, State::Left { last } if stream > last) {
            return Ok(None); // The peer has been told that nobody looks at it.
        }
        if self.streams.len() >= self.config.streams_max as usize {
            // The peer knows the limit, but for the first of its streams.
            let _ = self.fault(stream, Reason::REFUSED_STREAM);
            return Ok(None);
        }
        let new = Stream {
            is_open: !ends,
            window: self.config.stream_window,
            held: 0,
            unannounced: 0,
            missing: head.as_ref().ok().and_then(|head| head.content_length),
            send_window: self.stream_send_window,
            waker: None,
            waits_for_room: false,
        };
        let is_cut = ends && new.missing.is_some_and(|missing| missing > 0);
        self.streams.insert(stream, new);
        match head {
            Ok(head) if !is_cut => Ok(Some(Event::Head { stream, head, ends })),
            Ok(_) | Err(Fault::Malformed) => {
                let _ = self.fault(stream, Reason::PROTOCOL_ERROR);
                Ok(None)
            }
            Err(Fault::TooLarge) => {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                // The stream is open.
                let _ = self.respond(stream, status, &HeaderMap::new(), true);
                Ok(None)
            }
        }
    }

    /// Trailers end a request, and no method reads their fields.
    fn receive_trailers<'a>(&mut self, stream: u32, ends: bool, block: &[u8]) -> Received<'a> {
        self.reader.read(block, |_| {}).map_err(|_| Reason::COMPRESSION_ERROR)?;
        let Some(of) = self.streams.get_mut(&stream) else {
            // The stream has ended, and this was on its way; but a stream does not begin twice.
            return if ends { Ok(None) } else { Err(Reason::STREAM_CLOSED) };
        };
        if !of.is_open {
            return Ok(self.fault(stream, Reason::STREAM_CLOSED));
        }
        if !ends || of.missing.is_some_and(|missing| missing > 0) {
            return Ok(self.fault(stream, Reason::PROTOCOL_ERROR));
        }
        of.is_open = false;
        Ok(Some(Event::Data { stream, data: &[], ends }))
    }

    /// The head that a block means. A block that is one before, with the same table, needs no reading.
    fn read_head(&mut self, block: &[u8]) -> Result<Result<Arc<Head>, Fault>, Reason> {
        let changes = self.reader.changes();
        let known =
            self.heads.iter().find(|known| known.changes == changes && known.block == block);
        if let Some(known) = known {
            return Ok(Ok(Arc::clone(&known.head)));
        }
        let mut draft = Draft::new(self.config.header_bytes_max as usize);
        let read = self.reader.read(block, |field| draft.add(field));
        read.map_err(|_| Reason::COMPRESSION_ERROR)?;
        let head = draft.head().map(Arc::new);
        if let Ok(head) = &head
            && self.reader.changes() == changes
            && block.len() <= KNOWN_BLOCK_MAX
            && head.parts.headers.len() <= KNOWN_FIELDS_MAX
        {
            if self.heads.len() >= KNOWN_HEADS_MAX {
                self.heads.remove(0);
            }
            self.heads.push(KnownHead { block: block.to_vec(), changes, head: Arc::clone(head) });
        }
        Ok(head)
    }

    fn receive_reset<'a>(&mut self, stream: u32, payload: &[u8]) -> Received<'a> {
        let reason = Reason(number(payload)?);
        if !self.was_opened(stream) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let Some(ended) = self.end(stream) else { return Ok(None) };
        ended.wake();
        Ok(Some(Event::Reset { stream, reason }))
    }

    fn receive_settings<'a>(&mut self, head: FrameHead, payload: &[u8]) -> Received<'a> {
        self.has_settings = true;
        if head.has(ACK) {
            return if payload.is_empty() { Ok(None) } else { Err(Reason::FRAME_SIZE_ERROR) };
        }
        if !payload.len().is_multiple_of(6) {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        // The last value counts: to apply each to all streams would cost more than to send it.
        let mut window = None;
        for setting in payload.as_chunks::<6>().0 {
            let [a, b, value @ ..] = *setting;
            let value = u32::from_be_bytes(value);
            match u16::from_be_bytes([a, b]) {
                HEADER_TABLE_SIZE => self.writer.set_table_bytes_max(value),
                ENABLE_PUSH if value > 1 => return Err(Reason::PROTOCOL_ERROR),
                INITIAL_WINDOW_SIZE if i64::from(value) > WINDOW_MAX => {
                    return Err(Reason::FLOW_CONTROL_ERROR);
                }
                INITIAL_WINDOW_SIZE => window = Some(i64::from(value)),
                MAX_FRAME_SIZE if !(1 << 14..1 << 24).contains(&value) => {
                    return Err(Reason::PROTOCOL_ERROR);
                }
                // Frames that are sent are never larger than the smallest value.
                _ => {}
            }
        }
        if let Some(window) = window {
            let more = window - self.stream_send_window;
            self.stream_send_window = window;
            for stream in self.streams.values_mut() {
                stream.send_window += more;
                if stream.send_window > WINDOW_MAX {
                    return Err(Reason::FLOW_CONTROL_ERROR);
                }
            }
            self.has_room |= more > 0;
        }
        self.put(SETTINGS, ACK, 0, &[]);
        Ok(None)
    }

    fn receive_ping<'a>(&mut self, head: FrameHead, payload: &[u8]) -> Received<'a> {
        if payload.len() != 8 {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        if !head.has(ACK) {
            self.put(PING, ACK, 0, payload);
        } else if self.state == State::Leaving && payload == LEAVING {
            self.put_goaway(self.last, Reason::NO_ERROR);
            self.state = State::Left { last: self.last };
        }
        Ok(None)
    }

    fn receive_window_update<'a>(&mut self, stream: u32, payload: &[u8]) -> Received<'a> {
        let more = i64::from(number(payload)? & 0x7fff_ffff);
        if stream == 0 {
            if more == 0 {
                return Err(Reason::PROTOCOL_ERROR);
            }
            self.send_window += more;
            self.has_room = true;
            let fits = self.send_window <= WINDOW_MAX;
            return if fits { Ok(None) } else { Err(Reason::FLOW_CONTROL_ERROR) };
        }
        let Some(of) = self.streams.get_mut(&stream) else {
            return if self.was_opened(stream) { Ok(None) } else { Err(Reason::PROTOCOL_ERROR) };
        };
        of.send_window += more;
        if more == 0 || of.send_window > WINDOW_MAX {
            let reason =
                if more == 0 { Reason::PROTOCOL_ERROR } else { Reason::FLOW_CONTROL_ERROR };
            return Ok(self.fault(stream, reason));
        }
        of.wake_for_room();
        Ok(None)
    }

    /// Ends a stream that the peer has broken a rule on. Too many end the connection.
    fn fault<'a>(&mut self, stream: u32, reason: Reason) -> Option<Event<'a>> {
        self.faults += 1;
        if self.faults > self.config.faults_max {
            self.close(Reason::ENHANCE_YOUR_CALM);
            return None;
        }
        let ended = self.end(stream);
        self.put_reset(stream, reason);
        let ended = ended?;
        ended.wake();
        Some(Event::Reset { stream, reason })
    }

    /// Whether the peer has opened the stream, or has passed it over.
    const fn was_opened(&self, stream: u32) -> bool {
        stream <= self.last && stream % 2 == 1
    }
}

/// The payload without its padding (RFC 9113, section 6.1).
fn unpadded(head: FrameHead, payload: &[u8]) -> Result<&[u8], Reason> {
    if !head.has(PADDED) {
        return Ok(payload);
    }
    let (padding, rest) = payload.split_first().ok_or(Reason::FRAME_SIZE_ERROR)?;
    let length = rest.len().checked_sub(usize::from(*padding)).ok_or(Reason::PROTOCOL_ERROR)?;
    rest.get(..length).ok_or(Reason::PROTOCOL_ERROR)
}

/// A payload of one number.
fn number(payload: &[u8]) -> Result<u32, Reason> {
    payload.try_into().map(u32::from_be_bytes).map_err(|_| Reason::FRAME_SIZE_ERROR)
}

/// The length of a payload, which is at most [`PAYLOAD_MAX`].
fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
