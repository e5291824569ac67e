//! Calls over raw frames of HTTP/2. One call costs this side a small part of what it costs the server, so that
//! one core can send many times what another core answers.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};

/// Streams of a connection. The server takes no more.
const STREAMS_MAX: usize = 256;
/// Bytes of a frame before its payload. Windows do not count them.
const FRAME_HEAD: usize = 9;
/// The window that the answers get.
const WINDOW: u32 = i32::MAX as u32;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Answered,
    Refused,
    /// Its deadline passed.
    Late,
}

/// A method, and the bytes of its one request.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) path: &'static str,
    /// With its gRPC prefix.
    pub(crate) message: Vec<u8>,
}

/// A stream that has no answer yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    due: Instant,
    /// Its head has come: then the rest must come, too.
    has_head: bool,
    is_over: bool,
    /// Bytes of its answer.
    bytes: usize,
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    /// What the socket had no room for.
    output: Vec<u8>,
    input: Vec<u8>,
    /// Streams from `first` on, in the order of their numbers.
    streams: VecDeque<Open>,
    first: u32,
    open: usize,
    /// What may be sent before the server gives more.
    window: u32,
    request: Request,
    /// Bytes of answers since the last update of the window.
    received: u32,
    /// Bytes of the first answer: the others have as many.
    answer: Option<usize>,
}

#[derive(Debug)]
struct Request {
    /// The head as it is sent first, which the server keeps in its table.
    head: Vec<u8>,
    /// The frames of all later ones, with stream 0.
    next: Vec<u8>,
    /// The frame of the body.
    message: Vec<u8>,
    is_first: bool,
}

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    let [_, length @ ..] = length;
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A field that the server is to keep in its table (RFC 7541, section 6.2.1): a number of a name, or the name.
fn kept(name: Result<u8, &str>, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).unwrap_or_default();
        [&[length], text.as_bytes()].concat()
    };
    match name {
        Ok(number) => [vec![0x40 | number], text(value)].concat(),
        Err(name) => [vec![0x40], text(name), text(value)].concat(),
    }
}

impl Request {
    fn new(asked: &Asked) -> Self {
        // POST and http are numbers 3 and 6 of every table; then `:path`, `:authority` and `content-type` are known names.
        let fields = [
            kept(Ok(4), asked.path),
            kept(Ok(1), "localhost"),
            kept(Ok(31), "application/grpc"),
            kept(Err("te"), "trailers"),
        ];
        let head = [vec![0x83, 0x86], fields.concat()].concat();
        // The last one that was kept is number 62.
        let again = [0x83, 0x86, 0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62];
        let next = frame(HEADERS, END_HEADERS, 0, &again);
        let message = frame(DATA, END_STREAM, 0, &asked.message);
        Self { head, next, message, is_first: true }
    }

    fn write(&mut self, stream: u32, to: &mut Vec<u8>) {
        let mut numbered = |frame: &[u8]| {
            let at = to.len() + 5;
            to.extend_from_slice(frame);
            if let Some(number) = to.get_mut(at..at + 4) {
                number.copy_from_slice(&stream.to_be_bytes());
            }
        };
        if std::mem::take(&mut self.is_first) {
            numbered(&frame(HEADERS, END_HEADERS, 0, &self.head));
        } else {
            numbered(&self.next);
        }
        numbered(&self.message);
    }
}

impl Connection {
    pub(crate) fn open(to: SocketAddr, asked: &Asked) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(to)?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        let settings = [&[0, 4][..], &WINDOW.to_be_bytes()].concat();
        let more = (WINDOW - u32::from(u16::MAX)).to_be_bytes();
        let output = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &frame(SETTINGS, 0, 0, &settings)[..],
            &frame(WINDOW_UPDATE, 0, 0, &more),
        ]
        .concat();
        Ok(Self {
            socket,
            output,
            input: vec![],
            streams: VecDeque::new(),
            first: 1,
            open: 0,
            window: u16::MAX.into(),
            request: Request::new(asked),
            received: 0,
            answer: None,
        })
    }

    /// Calls without an answer.
    pub(crate) const fn open_calls(&self) -> usize {
        self.open
    }

    /// Begins a call that was due at this time; false if the server takes no more now.
    pub(crate) fn call(&mut self, due: Instant) -> bool {
        let bytes = u32::try_from(self.request.message.len() - FRAME_HEAD).unwrap_or(u32::MAX);
        if self.open == STREAMS_MAX || self.window < bytes {
            return false;
        }
        self.window -= bytes;
        let count = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
        self.request.write(self.first + 2 * count, &mut self.output);
        self.streams.push_back(Open { due, has_head: false, is_over: false, bytes: 0 });
        self.open += 1;
        true
    }

    /// Sends what the socket has room for, and reads what has come.
    ///
    /// # Errors
    ///
    /// The connection ends, or an answer is another than expected.
    pub(crate) fn turn(&mut self, mut ended: impl FnMut(Ended, Instant)) -> anyhow::Result<()> {
        let mut buffer = [0; 64 << 10];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => bail!("the server has closed the connection"),
                Ok(bytes) => self.input.extend_from_slice(buffer.get(..bytes).context("bytes")?),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        let input = std::mem::take(&mut self.input);
        let mut rest = &input[..];
        while let Some(([a, b, c, kind, flags, stream @ ..], after)) =
            rest.split_first_chunk::<FRAME_HEAD>()
        {
            let bytes = u32::from_be_bytes([0, *a, *b, *c]) as usize;
            let Some((payload, after)) = after.split_at_checked(bytes) else { break };
            rest = after;
            self.frame((*kind, *flags, u32::from_be_bytes(*stream)), payload, &mut ended)?;
        }
        self.input = rest.to_vec();
        if self.received > WINDOW / 4 {
            let more = frame(WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
            self.output.extend_from_slice(&more);
            self.received = 0;
        }
        let mut sent = 0;
        while let Some(some @ [_, ..]) = self.output.get(sent..) {
            match self.socket.write(some) {
                Ok(bytes) => sent += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.output.drain(..sent);
        Ok(())
    }

    fn frame(
        &mut self,
        (kind, flags, stream): (u8, u8, u32),
        payload: &[u8],
        ended: &mut impl FnMut(Ended, Instant),
    ) -> anyhow::Result<()> {
        match kind {
            SETTINGS if flags & ACK == 0 => {
                self.output.extend_from_slice(&frame(SETTINGS, ACK, 0, &[]))
            }
            PING if flags & ACK == 0 => {
                self.output.extend_from_slice(&frame(PING, ACK, 0, payload))
            }
            WINDOW_UPDATE if stream == 0 => {
                let more = payload.first_chunk().context("a window")?;
                self.window = self.window.saturating_add(u32::from_be_bytes(*more));
            }
            DATA | HEADERS | RST_STREAM => {
                let at = stream.checked_sub(self.first).context("an old stream")? / 2;
                let call = self.streams.get_mut(at as usize).context("a new stream")?;
                let how = match kind {
                    DATA => {
                        call.bytes += payload.len();
                        self.received += u32::try_from(payload.len())?;
                        None
                    }
                    HEADERS if flags & END_STREAM == 0 => {
                        call.has_head = true;
                        None
                    }
                    HEADERS => Some(status(payload)?),
                    _ => match payload {
                        [0, 0, 0, 7] => Some(Ended::Refused),
                        _ => bail!("stream reset: {payload:?}"),
                    },
                };
                if let Some(how) = how {
                    ensure!(!std::mem::replace(&mut call.is_over, true), "ended twice");
                    if how == Ended::Answered {
                        ensure!(call.has_head, "no answer");
                        let first = *self.answer.get_or_insert(call.bytes);
                        ensure!(call.bytes == first, "{} bytes instead of {first}", call.bytes);
                    }
                    ended(how, call.due);
                    self.open -= 1;
                    while self.streams.front().is_some_and(|call| call.is_over) {
                        self.streams.pop_front();
                        self.first += 2;
                    }
                }
            }
            GOAWAY => bail!("GOAWAY: {payload:?}"),
            _ => {}
        }
        Ok(())
    }
}

/// The status in the fields that end a call: Capstan writes it in full, or as number 62 of the table.
fn status(fields: &[u8]) -> anyhow::Result<Ended> {
    const NAME: &[u8] = b"grpc-status";
    if fields == [0x80 | 62] {
        return Ok(Ended::Answered);
    }
    let at = fields.windows(NAME.len()).position(|some| some == NAME).context("no status")?;
    match fields.get(at + NAME.len()..) {
        Some([1, b'0', ..]) => Ok(Ended::Answered),
        Some([1, b'8', ..]) => Ok(Ended::Refused),
        Some([1, b'4', ..]) => Ok(Ended::Late),
        _ => bail!("{}", String::from_utf8_lossy(fields)),
    }
}
