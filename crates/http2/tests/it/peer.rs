//! A peer that writes frames by hand, and reads what the connection answers.

use capstan_http2::{Config, Connection, Event, Reason};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const PRIORITY: u8 = 2;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const ACK: u8 = 1;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PADDED: u8 = 8;
pub(crate) const WITH_PRIORITY: u8 = 32;

pub(crate) const CONFIG: Config = Config {
    stream_window: 1_000,
    connection_window: 65_535,
    streams_max: 3,
    header_bytes_max: 2_000,
    pending_max: 10_000,
    faults_max: 3,
    refusal: |_| &[],
};

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A frame that was sent: kind, flags, stream, payload.
pub(crate) type Sent = (u8, u8, u32, Vec<u8>);

/// A connection, and what has become of its frames.
pub(crate) struct Peer {
    pub(crate) connection: Connection,
    pub(crate) events: Vec<String>,
}

impl Peer {
    /// After the preface and both sides' settings.
    pub(crate) fn new() -> Self {
        let mut peer = Self { connection: Connection::new(CONFIG), events: Vec::new() };
        let sent = peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert_eq!(sent[0].0, SETTINGS);
        assert_eq!(peer.send(&frame(SETTINGS, 0, 0, &[])), [(SETTINGS, ACK, 0, vec![])]);
        peer
    }

    /// Passes bytes in, and returns what is written then.
    pub(crate) fn send(&mut self, mut bytes: &[u8]) -> Vec<Sent> {
        while let Some(event) = self.connection.next(&mut bytes) {
            self.events.push(match event {
                Event::Head { stream, head, ends } => {
                    format!("{stream}: {} {ends}", head.parts.uri.path())
                }
                Event::Data { stream, data, ends } => format!("{stream}: {} {ends}", data.len()),
                Event::Reset { stream, reason } => format!("{stream}: {reason:?}"),
            });
        }
        assert_eq!(bytes, b"", "the start of a frame is left");
        self.written()
    }

    pub(crate) fn written(&mut self) -> Vec<Sent> {
        let mut bytes = self.connection.pending();
        let mut all = Vec::new();
        while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
            let [a, b, c, kind, flags, stream @ ..] = *head;
            let (payload, rest) = rest.split_at(u32::from_be_bytes([0, a, b, c]) as usize);
            all.push((kind, flags, u32::from_be_bytes(stream), payload.to_vec()));
            bytes = rest;
        }
        let length = self.connection.pending().len();
        self.connection.wrote(length);
        all
    }

    pub(crate) fn is_open(&mut self) -> bool {
        let ping = self.send(&frame(PING, 0, 0, &[7; 8]));
        ping == [(PING, ACK, 0, vec![7; 8])]
    }
}

/// A literal field that is not kept.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap();
    let (n, v) = (length(name), length(value));
    [&[0, n], name.as_bytes(), &[v], value.as_bytes()].concat()
}

/// `:method: POST`, `:scheme: http`, `:path: /`.
pub(crate) const HEAD: &[u8] = &[0x83, 0x86, 0x84];

pub(crate) fn head(stream: u32, ends: bool) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | u8::from(ends), stream, HEAD)
}

pub(crate) fn goaway(last: u32, reason: Reason) -> Sent {
    (GOAWAY, 0, 0, [last.to_be_bytes(), reason.0.to_be_bytes()].concat())
}

pub(crate) fn reset(stream: u32, reason: Reason) -> Sent {
    (RST_STREAM, 0, stream, reason.0.to_be_bytes().to_vec())
}
