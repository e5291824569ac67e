//! What must hold of the bytes that a peer sends on a connection.

use std::collections::BTreeMap;

use capstan_http2::{Config, Connection, Event};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const CONFIG: Config = Config {
    stream_window: 20_000,
    connection_window: 65_535,
    streams_max: 8,
    header_bytes_max: 2_048,
    pending_max: 4_096,
    faults_max: 16,
    refusal: |_| &[],
};

/// Bytes that are pending beside those of responses and of answers to frames.
const PENDING_EXTRA: usize = 512;

/// The bytes of a body that needs more than one window.
const LONG_BODY: usize = 70_000;

/// Passes bytes to a connection behind a preface, and answers its requests. The first byte says how the others
/// are divided.
///
/// # Panics
///
/// - What happens depends on how the bytes are divided.
/// - Something wrong is written: a malformed frame, a frame behind the end of a stream, a body larger than the
///   windows.
/// - More is held than the limits say, or something is left when the connection is over.
pub fn connection(input: &[u8]) {
    let Some((how, rest)) = input.split_first() else { return };
    let bytes = [PREFACE, rest].concat();
    let whole = run(&bytes, bytes.len(), false);
    let divided = run(&bytes, usize::from(how % 64) + 1, false);
    assert_eq!(whole.events, divided.events, "bytes divided in another way mean something else");
    assert_eq!(whole.written, divided.written);
    run(&bytes, usize::from(how % 64) * 16 + 1, true);
}

#[derive(Default)]
struct Run {
    /// What a connection has told.
    events: Vec<(u32, String)>,
    written: Vec<u8>,
    /// Bodies that are not sent, by their streams.
    bodies: BTreeMap<u32, usize>,
    answers: usize,
}

/// `is_long`: responses have long bodies, in place of short ones.
fn run(bytes: &[u8], part: usize, is_long: bool) -> Run {
    let mut connection = Connection::new(CONFIG);
    let mut run = Run::default();
    let mut kept = Vec::new();
    for part in bytes.chunks(part.max(1)) {
        kept.extend_from_slice(part);
        let mut input = &kept[..];
        let before = connection.pending().len();
        let answers = run.answers;
        let mut taken = 0;
        while let Some(event) = connection.next(&mut input) {
            taken += 1;
            run.take(&mut connection, event.into(), is_long);
        }
        let read = kept.len() - input.len();
        let bound = before + 2 * read + PENDING_EXTRA + 64 * (taken + run.answers - answers);
        let pending = connection.pending().len();
        assert!(pending <= bound + CONFIG.pending_max, "{pending} bytes are pending of {read}");
        assert!(connection.held() - pending <= 2 * CONFIG.header_bytes_max as usize);
        kept = input.to_vec();
        assert!(kept.len() < 16_384 + 9, "a whole frame is left");
        run.written.extend_from_slice(connection.pending());
        connection.wrote(connection.pending().len());
        if is_long {
            run.send_bodies(&mut connection);
        }
        if connection.is_over() {
            assert!(!connection.has_streams());
            break;
        }
    }
    check(&run.written, connection_grants(bytes));
    run
}

/// An event without its bytes' place.
enum Owned {
    Head(u32, String, bool),
    Data(u32, Vec<u8>, bool),
    Reset(u32, String),
}

impl From<Event<'_>> for Owned {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Head { stream, head, ends } => {
                let parts = &head.parts;
                let head = format!("{} {} {:?}", parts.method, parts.uri, parts.headers);
                Self::Head(stream, head, ends)
            }
            Event::Data { stream, data, ends } => Self::Data(stream, data.to_vec(), ends),
            Event::Reset { stream, reason } => Self::Reset(stream, format!("{reason:?}")),
        }
    }
}

impl Run {
    fn take(&mut self, connection: &mut Connection, event: Owned, is_long: bool) {
        let (stream, what, ends) = match event {
            Owned::Head(stream, head, ends) => (stream, head, ends),
            Owned::Data(stream, data, ends) => {
                connection.release(stream, data.len());
                (stream, format!("{data:?}"), ends)
            }
            Owned::Reset(stream, reason) => {
                self.bodies.remove(&stream);
                (stream, reason, false)
            }
        };
        self.events.push((stream, what));
        if !ends {
            return;
        }
        self.answers += 1;
        if is_long {
            let (status, fields) = (http::StatusCode::OK, http::HeaderMap::new());
            assert_eq!(connection.respond(stream, status, &fields, false), Ok(()));
            self.bodies.insert(stream, LONG_BODY);
        } else {
            connection.respond_ok(stream, |to| {
                to.extend_from_slice(b"an answer");
                true
            });
        }
    }

    /// Sends as much of the bodies as there is room for.
    fn send_bodies(&mut self, connection: &mut Connection) {
        self.bodies.retain(|stream, left| match connection.data(*stream, &vec![0; *left], true) {
            Ok(sent) => {
                *left -= sent;
                *left > 0
            }
            Err(_) => false,
        });
    }
}

/// The bytes that the peer lets a connection send, at most: each increment counts, valid or not.
fn connection_grants(mut bytes: &[u8]) -> u64 {
    let mut all = 65_535;
    bytes = bytes.get(PREFACE.len()..).unwrap_or_default();
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let [a, b, c, kind, ..] = *head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        if let (8, [a, b, c, d]) = (kind, payload) {
            all += u64::from(u32::from_be_bytes([*a & 0x7f, *b, *c, *d]));
        }
        bytes = rest;
    }
    all
}

/// Checks the frames that were written.
fn check(mut bytes: &[u8], grants: u64) {
    let (mut streams, mut sent, mut last) = (BTreeMap::new(), 0, u32::MAX);
    let mut first = true;
    while let Some((head, rest)) = bytes.split_first_chunk::<9>() {
        let [a, b, c, kind, flags, stream @ ..] = *head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes(stream);
        assert!(length <= 16_384, "a frame of {length} bytes");
        let Some((payload, rest)) = rest.split_at_checked(length) else { break };
        bytes = rest;
        assert!(!first || kind == 4, "the settings come first");
        first = false;
        match kind {
            0 | 1 => {
                let ended = streams.entry(stream).or_insert(None);
                assert_eq!(*ended, None, "frame {kind} behind the end of stream {stream}");
                if kind == 0 {
                    sent += length as u64;
                }
                if flags & 1 != 0 {
                    *ended = Some(kind);
                }
            }
            3 => {
                let ended = streams.insert(stream, Some(kind));
                assert_ne!(ended, Some(Some(3)), "two resets of stream {stream}");
            }
            4 | 6 => {}
            7 => {
                let (id, _) = payload.split_first_chunk::<4>().unwrap_or((&[0xff; 4], &[]));
                let id = u32::from_be_bytes(*id);
                assert!(id < 1 << 31 && id <= last, "a later GOAWAY may not take more");
                last = id;
            }
            8 => assert_ne!(payload, [0; 4]),
            _ => assert_eq!(kind, 9, "no such frame is sent"),
        }
    }
    assert!(bytes.is_empty(), "half a frame");
    assert!(sent <= grants, "{sent} bytes of bodies, {grants} were granted");
}
