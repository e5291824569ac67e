//! The rules of RFC 9113, one by one: what is sent, and how the connection answers.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "all of this is test code, not only the test functions"
)]

use capstan_http2::{Config, Connection, Event, Reason};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 32;

const CONFIG: Config = Config {
    stream_window: 1_000,
    connection_window: 65_535,
    streams_max: 3,
    header_bytes_max: 2_000,
    pending_max: 10_000,
    faults_max: 3,
};

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A frame that was sent: kind, flags, stream, payload.
type Sent = (u8, u8, u32, Vec<u8>);

/// A connection, and what has become of its frames.
struct Peer {
    connection: Connection,
    events: Vec<String>,
}

impl Peer {
    /// After the preface and both sides' settings.
    fn new() -> Self {
        let mut peer = Self { connection: Connection::new(CONFIG), events: Vec::new() };
        let sent = peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert_eq!(sent[0].0, SETTINGS);
        assert_eq!(peer.send(&frame(SETTINGS, 0, 0, &[])), [(SETTINGS, ACK, 0, vec![])]);
        peer
    }

    /// Passes bytes in, and returns what is written then.
    fn send(&mut self, mut bytes: &[u8]) -> Vec<Sent> {
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

    fn written(&mut self) -> Vec<Sent> {
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

    fn is_open(&mut self) -> bool {
        let ping = self.send(&frame(PING, 0, 0, &[7; 8]));
        ping == [(PING, ACK, 0, vec![7; 8])]
    }
}

/// A literal field that is not kept.
fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap();
    let (n, v) = (length(name), length(value));
    [&[0, n], name.as_bytes(), &[v], value.as_bytes()].concat()
}

/// `:method: POST`, `:scheme: http`, `:path: /`.
const HEAD: &[u8] = &[0x83, 0x86, 0x84];

fn head(stream: u32, ends: bool) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | u8::from(ends), stream, HEAD)
}

fn goaway(last: u32, reason: Reason) -> Sent {
    (GOAWAY, 0, 0, [last.to_be_bytes(), reason.0.to_be_bytes()].concat())
}

fn reset(stream: u32, reason: Reason) -> Sent {
    (RST_STREAM, 0, stream, reason.0.to_be_bytes().to_vec())
}

/// Each ends the connection, with this reason.
#[test]
fn faults_of_a_connection_end_it() {
    let no_window = frame(WINDOW_UPDATE, 0, 0, &0_u32.to_be_bytes());
    let most = frame(WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes());
    let setting = |name: u16, value: u32| {
        frame(SETTINGS, 0, 0, &[&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
    };
    let begun = |bytes: Vec<u8>| [head(1, false), bytes].concat();
    let continued = |bytes: Vec<u8>| [frame(HEADERS, 0, 1, HEAD), bytes].concat();
    let cases: &[(&str, Vec<u8>, Reason)] = &[
        ("a frame above 16 KiB", frame(DATA, 0, 1, &[0; 16_385]), Reason::FRAME_SIZE_ERROR),
        ("DATA of no stream", frame(DATA, 0, 0, &[]), Reason::PROTOCOL_ERROR),
        ("DATA of a stream that is idle", frame(DATA, 0, 1, &[]), Reason::PROTOCOL_ERROR),
        ("DATA of a stream of the server's", frame(DATA, 0, 2, &[]), Reason::PROTOCOL_ERROR),
        (
            "padding without its length",
            begun(frame(DATA, PADDED, 1, &[])),
            Reason::FRAME_SIZE_ERROR,
        ),
        ("too much padding", begun(frame(DATA, PADDED, 1, &[3, 0, 0])), Reason::PROTOCOL_ERROR),
        ("HEADERS of no stream", frame(HEADERS, END_HEADERS, 0, HEAD), Reason::PROTOCOL_ERROR),
        ("HEADERS of an even stream", head(2, true), Reason::PROTOCOL_ERROR),
        (
            "HEADERS of a stream passed over",
            [head(5, true), head(3, false)].concat(),
            Reason::STREAM_CLOSED,
        ),
        (
            "a short priority",
            frame(HEADERS, END_HEADERS | WITH_PRIORITY, 1, &[0; 4]),
            Reason::FRAME_SIZE_ERROR,
        ),
        (
            "a block that cannot be decoded",
            frame(HEADERS, END_HEADERS, 1, &[0x80]),
            Reason::COMPRESSION_ERROR,
        ),
        (
            "a block that is cut off",
            frame(HEADERS, END_HEADERS, 1, &[0x40, 9]),
            Reason::COMPRESSION_ERROR,
        ),
        (
            "a frame within a header block",
            continued(frame(PING, 0, 0, &[0; 8])),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "another stream within a header block",
            continued(frame(CONTINUATION, 0, 3, &[])),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "CONTINUATION of nothing",
            frame(CONTINUATION, END_HEADERS, 1, HEAD),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a long header block",
            continued(frame(CONTINUATION, 0, 1, &[0; 4_000])),
            Reason::ENHANCE_YOUR_CALM,
        ),
        (
            "a long start of a header block",
            frame(HEADERS, 0, 1, &[0; 4_000]),
            Reason::ENHANCE_YOUR_CALM,
        ),
        (
            "many empty CONTINUATION",
            continued(frame(CONTINUATION, 0, 1, &[]).repeat(500)),
            Reason::ENHANCE_YOUR_CALM,
        ),
        ("PRIORITY of no stream", frame(PRIORITY, 0, 0, &[0; 5]), Reason::PROTOCOL_ERROR),
        ("PRIORITY of 4 bytes", frame(PRIORITY, 0, 1, &[0; 4]), Reason::FRAME_SIZE_ERROR),
        ("RST_STREAM of no stream", frame(RST_STREAM, 0, 0, &[0; 4]), Reason::PROTOCOL_ERROR),
        (
            "RST_STREAM of a stream that is idle",
            frame(RST_STREAM, 0, 1, &[0; 4]),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "RST_STREAM of 3 bytes",
            begun(frame(RST_STREAM, 0, 1, &[0; 3])),
            Reason::FRAME_SIZE_ERROR,
        ),
        ("SETTINGS of a stream", frame(SETTINGS, 0, 1, &[]), Reason::PROTOCOL_ERROR),
        ("SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5]), Reason::FRAME_SIZE_ERROR),
        (
            "an answer to SETTINGS that says more",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            Reason::FRAME_SIZE_ERROR,
        ),
        ("ENABLE_PUSH of 2", setting(2, 2), Reason::PROTOCOL_ERROR),
        ("a window of 2 GiB", setting(4, 1 << 31), Reason::FLOW_CONTROL_ERROR),
        ("a small MAX_FRAME_SIZE", setting(5, 16_383), Reason::PROTOCOL_ERROR),
        ("a large MAX_FRAME_SIZE", setting(5, 1 << 24), Reason::PROTOCOL_ERROR),
        ("PUSH_PROMISE", frame(PUSH_PROMISE, END_HEADERS, 1, &[0; 4]), Reason::PROTOCOL_ERROR),
        ("PING of a stream", frame(PING, 0, 1, &[0; 8]), Reason::PROTOCOL_ERROR),
        ("PING of 7 bytes", frame(PING, 0, 0, &[0; 7]), Reason::FRAME_SIZE_ERROR),
        ("GOAWAY of a stream", frame(GOAWAY, 0, 1, &[0; 8]), Reason::PROTOCOL_ERROR),
        ("GOAWAY of 7 bytes", frame(GOAWAY, 0, 0, &[0; 7]), Reason::FRAME_SIZE_ERROR),
        ("WINDOW_UPDATE of 0", no_window, Reason::PROTOCOL_ERROR),
        ("WINDOW_UPDATE of 3 bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), Reason::FRAME_SIZE_ERROR),
        (
            "WINDOW_UPDATE of a stream that is idle",
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            Reason::PROTOCOL_ERROR,
        ),
        ("a window above 2 GiB", most, Reason::FLOW_CONTROL_ERROR),
        (
            "a stream's window above 2 GiB, by a setting",
            [
                begun(frame(WINDOW_UPDATE, 0, 1, &0x7fff_0000_u32.to_be_bytes())),
                setting(4, 0x7fff_ffff),
            ]
            .concat(),
            Reason::FLOW_CONTROL_ERROR,
        ),
    ];
    for (what, bytes, reason) in cases {
        let mut peer = Peer::new();
        let sent = peer.send(bytes);
        let (kind, _, _, payload) = sent.last().expect(what);
        assert_eq!(*kind, GOAWAY, "{what}");
        assert_eq!(payload[4..], reason.0.to_be_bytes(), "{what}");
        assert!(peer.connection.is_over(), "{what}");
        assert!(!peer.connection.has_streams(), "{what}");
        assert_eq!(peer.send(&frame(PING, 0, 0, &[0; 8])), [], "{what}");
    }
}

#[test]
fn a_connection_begins_with_the_preface_and_settings() {
    for wrong in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rX"] {
        let mut connection = Connection::new(CONFIG);
        let length = connection.pending().len();
        connection.wrote(length);
        assert!(connection.next(&mut &wrong[..]).is_none());
        assert_eq!(connection.pending()[3], GOAWAY);
    }
    let mut connection = Connection::new(CONFIG);
    let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &head(1, true)[..]].concat();
    assert!(connection.next(&mut &bytes[..]).is_none(), "a request before SETTINGS");
    assert!(connection.is_greeted() && !connection.has_streams());
}

/// Each ends the stream, and the connection goes on.
#[test]
fn faults_of_a_stream_reset_it() {
    let open =
        |stream: u32, fields: &[u8]| frame(HEADERS, END_HEADERS, stream, &[HEAD, fields].concat());
    let begun = |bytes: Vec<u8>| [head(1, false), bytes].concat();
    let length = field("content-length", "5");
    let cases: &[(&str, Vec<u8>, Reason)] = &[
        ("no path", frame(HEADERS, END_HEADERS, 1, &[0x83, 0x86]), Reason::PROTOCOL_ERROR),
        ("an upper case name", open(1, &field("A", "1")), Reason::PROTOCOL_ERROR),
        (
            "DATA behind the end",
            [head(1, true), frame(DATA, 0, 1, &[])].concat(),
            Reason::STREAM_CLOSED,
        ),
        ("trailers behind the end", [head(1, true), head(1, true)].concat(), Reason::STREAM_CLOSED),
        ("trailers that do not end", begun(head(1, false)), Reason::PROTOCOL_ERROR),
        ("more than the window", begun(frame(DATA, 0, 1, &[0; 1_001])), Reason::FLOW_CONTROL_ERROR),
        (
            "padding above the window",
            begun(
                [
                    frame(DATA, 0, 1, &[0; 990]),
                    frame(DATA, PADDED, 1, &[[10].as_slice(), &[0; 10]].concat()),
                ]
                .concat(),
            ),
            Reason::FLOW_CONTROL_ERROR,
        ),
        (
            "a body longer than it said",
            [open(1, &length), frame(DATA, 0, 1, &[0; 6])].concat(),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "a body shorter than it said",
            [open(1, &length), frame(DATA, END_STREAM, 1, &[0; 4])].concat(),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "trailers before the body that was said",
            [open(1, &length), head(1, true)].concat(),
            Reason::PROTOCOL_ERROR,
        ),
        (
            "no body although one was said",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[HEAD, &length].concat()),
            Reason::PROTOCOL_ERROR,
        ),
        ("WINDOW_UPDATE of 0", begun(frame(WINDOW_UPDATE, 0, 1, &[0; 4])), Reason::PROTOCOL_ERROR),
        (
            "a window above 2 GiB",
            begun(frame(WINDOW_UPDATE, 0, 1, &0x7fff_ffff_u32.to_be_bytes())),
            Reason::FLOW_CONTROL_ERROR,
        ),
    ];
    for (what, bytes, reason) in cases {
        let mut peer = Peer::new();
        assert_eq!(peer.send(bytes).last(), Some(&reset(1, *reason)), "{what}");
        assert!(!peer.connection.has_streams(), "{what}");
        let begins = peer.events.first().is_some_and(|event| event.starts_with("1: /"));
        let told = peer.events.last() == Some(&format!("1: {reason:?}"));
        assert_eq!(begins, told, "{what}: {:?}", peer.events);
        assert!(peer.is_open(), "{what}");
        peer.send(&head(3, true));
        assert_eq!(peer.events.last().unwrap(), "3: / true", "{what}");
    }
}

/// `faults_max` faults of streams are forgiven.
#[test]
fn many_faults_of_streams_end_the_connection() {
    let mut peer = Peer::new();
    for at in 0..3 {
        peer.send(&frame(HEADERS, END_HEADERS, 2 * at + 1, &[0x83]));
        assert!(peer.is_open());
    }
    let sent = peer.send(&frame(HEADERS, END_HEADERS, 7, &[0x83]));
    assert_eq!(sent, [goaway(7, Reason::ENHANCE_YOUR_CALM)]);
}

#[test]
fn what_means_nothing_is_ignored() {
    let mut peer = Peer::new();
    peer.send(&head(1, false));
    peer.connection.reset(1, Reason::CANCEL);
    assert_eq!(peer.written(), [reset(1, Reason::CANCEL)]);
    for bytes in [
        frame(PRIORITY, 0, 9, &[0; 5]),
        frame(SETTINGS, ACK, 0, &[]),
        frame(PING, ACK, 0, &[1; 8]),
        frame(GOAWAY, 0, 0, &[0; 20]),
        frame(0x55, 0xff, 3, &[1, 2, 3]),
        // Of a stream that has ended, as long as the peer does not know.
        frame(DATA, END_STREAM, 1, &[0; 100]),
        frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
        frame(RST_STREAM, 0, 1, &[0; 4]),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, HEAD),
    ] {
        assert_eq!(peer.send(&bytes), [], "{bytes:?}");
    }
    let unknown_setting = frame(SETTINGS, 0, 0, &[0xff, 0xff, 1, 2, 3, 4]);
    assert_eq!(peer.send(&unknown_setting), [(SETTINGS, ACK, 0, vec![])]);
    assert!(peer.is_open());
    assert_eq!(peer.events, ["1: / false"]);
}

/// A stream above the limit is refused, its header block is read all the same, and another may come later.
#[test]
fn streams_above_the_limit_are_refused() {
    let mut peer = Peer::new();
    let kept = [HEAD, &[0x40, 1, b'a', 1, b'1']].concat();
    for stream in [1, 3, 5] {
        assert_eq!(peer.send(&head(stream, true)), []);
    }
    let refused = peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 7, &kept));
    assert_eq!(refused, [reset(7, Reason::REFUSED_STREAM)]);
    peer.connection.reset(3, Reason::CANCEL);
    peer.written();
    // It uses the field of the block that was refused.
    let used = frame(HEADERS, END_HEADERS | END_STREAM, 9, &[HEAD, &[0xbe]].concat());
    assert_eq!(peer.send(&used), []);
    assert_eq!(peer.events.last().unwrap(), "9: / true");
    // A peer that does not care is disconnected.
    for stream in [11, 13] {
        assert_eq!(peer.send(&head(stream, true)), [reset(stream, Reason::REFUSED_STREAM)]);
    }
    assert_eq!(peer.send(&head(15, true)), [goaway(15, Reason::ENHANCE_YOUR_CALM)]);
}

/// The windows are given back as the bytes are released.
#[test]
fn released_bytes_are_given_back() {
    let mut peer = Peer::new();
    peer.send(&head(1, false));
    assert_eq!(peer.send(&frame(DATA, 0, 1, &[0; 600])), []);
    assert_eq!(peer.send(&frame(DATA, 0, 1, &[0; 400])), []);
    peer.connection.release(1, 499);
    assert_eq!(peer.written(), []);
    peer.connection.release(1, 1);
    assert_eq!(peer.written(), [(WINDOW_UPDATE, 0, 1, 500_u32.to_be_bytes().to_vec())]);
    assert_eq!(peer.send(&frame(DATA, 0, 1, &[0; 500])), []);
    // Padding is given back at once: 251 bytes, 250 of them padding.
    let mut padded = vec![0; 251];
    padded[0] = 250;
    peer.connection.release(1, 251);
    assert_eq!(peer.send(&frame(DATA, PADDED, 1, &padded)).len(), 1);
    // All bytes of the stream count for the connection until it ends, and then no more.
    let mut given = 0;
    for stream in (3..200).step_by(2) {
        peer.send(&head(stream, false));
        peer.send(&frame(DATA, 0, stream, &[0; 1_000]));
        peer.connection.reset(stream, Reason::CANCEL);
        for (kind, _, of, payload) in peer.written() {
            if (kind, of) == (WINDOW_UPDATE, 0) {
                given += u32::from_be_bytes(payload.try_into().unwrap());
            }
        }
    }
    assert!((65_536..=100_000).contains(&given), "{given}");
    assert!(peer.is_open());
}

#[test]
fn more_than_the_connections_window_ends_it() {
    let config = Config { stream_window: 1 << 20, ..CONFIG };
    let mut peer = Peer { connection: Connection::new(config), events: Vec::new() };
    peer.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    peer.send(&[frame(SETTINGS, 0, 0, &[]), head(1, false)].concat());
    for _ in 0..4 {
        peer.send(&frame(DATA, 0, 1, &[0; 16_380]));
    }
    assert!(peer.is_open());
    let sent = peer.send(&frame(DATA, 0, 1, &[0; 16]));
    assert_eq!(sent, [goaway(1, Reason::FLOW_CONTROL_ERROR)]);
}

/// Bodies stop at the stream's window, at the connection's, and at the bytes that are pending.
#[test]
fn responses_keep_to_the_peers_windows() {
    let mut peer = Peer::new();
    let window = |bytes: u32| frame(SETTINGS, 0, 0, &[&[0, 4][..], &bytes.to_be_bytes()].concat());
    let more = |stream: u32, bytes: u32| frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes());
    peer.send(&window(100));
    peer.send(&head(1, true));
    let body = [7; 70_000];
    assert_eq!(peer.connection.data(1, &body, true), Ok(100));
    assert_eq!(peer.connection.data(1, &body, true), Ok(0));
    peer.send(&more(1, 5));
    assert_eq!(peer.connection.data(1, &body, true), Ok(5));
    peer.send(&window(50));
    peer.send(&more(1, 50));
    assert_eq!(peer.connection.data(1, &body, true), Ok(0), "the window is 50 less");
    peer.send(&more(1, 1));
    assert_eq!(peer.connection.data(1, &body, true), Ok(1));
    // The first answer would need more than the window.
    assert!(!peer.connection.respond_ok(1, |to| {
        to.extend([0; 10]);
        true
    }));
    peer.written();
    peer.send(&window(1 << 20));
    let mut sent = 106;
    loop {
        let now = peer.connection.data(1, &body, true).unwrap();
        assert!(now <= 10_000, "more than may be pending");
        sent += now;
        if now == 0 && peer.written().is_empty() {
            break;
        }
    }
    assert_eq!(sent, 65_535, "the connection's window");
    peer.send(&more(0, 10));
    assert!(peer.connection.respond_ok(1, |to| {
        to.extend([0; 10]);
        true
    }));
    assert_eq!(peer.connection.data(1, &body, true).ok(), None, "the stream has ended");
}

/// The first good response fills the peer's table, the next ones use it, and a peer without a table gets all.
#[test]
fn good_responses_have_short_heads() {
    let answer = |to: &mut Vec<u8>| {
        to.extend(b"12345");
        true
    };
    let mut peer = Peer::new();
    let mut lengths = Vec::new();
    for stream in [1, 3] {
        peer.send(&head(stream, true));
        assert!(peer.connection.respond_ok(stream, answer));
        let sent = peer.written();
        let kinds: Vec<_> = sent.iter().map(|(kind, flags, ..)| (*kind, *flags)).collect();
        let both = END_HEADERS | END_STREAM;
        assert_eq!(kinds, [(HEADERS, END_HEADERS), (DATA, 0), (HEADERS, both)]);
        lengths.push((sent[0].3.len(), sent[1].3.len(), sent[2].3.len()));
    }
    assert_eq!(lengths, [(19, 5, 15), (2, 5, 1)]);
    // A request that is not complete is not needed.
    peer.send(&head(5, false));
    assert!(
        !peer.connection.respond_ok(5, |to| {
            to.push(1);
            false
        }),
        "no answer"
    );
    assert_eq!(peer.written(), []);
    assert!(peer.connection.respond_ok(5, answer));
    assert_eq!(peer.written().last(), Some(&reset(5, Reason::NO_ERROR)));
    // The table is gone, which the next block confirms; nothing is in it from then on.
    peer.send(&frame(SETTINGS, 0, 0, &[0, 1, 0, 0, 15, 255]));
    for (stream, lengths) in [(7, (21, 15)), (9, (20, 15))] {
        peer.send(&head(stream, true));
        assert!(peer.connection.respond_ok(stream, answer));
        let sent = peer.written();
        assert_eq!((sent[0].3.len(), sent[2].3.len()), lengths);
    }
}

/// Long header blocks take more than one frame.
#[test]
fn long_heads_are_continued() {
    let mut peer = Peer::new();
    peer.send(&head(1, true));
    let mut fields = http::HeaderMap::new();
    fields.insert("a", http::HeaderValue::from_bytes(&[b'x'; 40_000]).unwrap());
    peer.connection.respond(1, http::StatusCode::NOT_FOUND, &fields, true).unwrap();
    let sent = peer.written();
    let kinds: Vec<_> =
        sent.iter().map(|(kind, flags, _, payload)| (*kind, *flags, payload.len())).collect();
    assert_eq!(kinds[..2], [(HEADERS, END_STREAM, 16_384), (CONTINUATION, 0, 16_384)]);
    assert_eq!((kinds[2].0, kinds[2].1, kinds.len()), (CONTINUATION, END_HEADERS, 3));
}

/// GOAWAY twice: streams that cross the first one are taken, streams behind the second one are not.
#[test]
fn a_connection_leaves_without_losing_a_stream() {
    let mut peer = Peer::new();
    peer.send(&head(1, true));
    peer.connection.leave();
    peer.connection.leave();
    let sent = peer.written();
    assert_eq!(sent[0], goaway(0x7fff_ffff, Reason::NO_ERROR));
    let (kind, flags, _, said) = sent[1].clone();
    assert_eq!((kind, flags, sent.len()), (PING, 0, 2));
    peer.send(&head(3, true));
    peer.send(&frame(PING, ACK, 0, &[9; 8]));
    peer.send(&head(5, true));
    assert_eq!(peer.send(&frame(PING, ACK, 0, &said)), [goaway(5, Reason::NO_ERROR)]);
    assert_eq!(peer.send(&[head(7, false), frame(DATA, END_STREAM, 7, b"x")].concat()), []);
    assert_eq!(peer.events, ["1: / true", "3: / true", "5: / true"]);
    for stream in [1, 3, 5] {
        assert!(!peer.connection.is_over());
        assert!(peer.connection.respond_ok(stream, |_| true));
        peer.written();
    }
    assert!(peer.connection.is_over());
}

/// grpcio sends the path of a unix socket as the authority.
#[test]
fn the_path_of_a_socket_is_no_authority() {
    for (authority, is_taken) in
        [("localhost", true), ("%2Frun%2Fcapstan.sock", true), ("%2Frun%2F a", false)]
    {
        let mut connection = Connection::new(CONFIG);
        let length = u8::try_from(authority.len()).unwrap();
        let fields = [HEAD, &[0x01, length], authority.as_bytes()].concat();
        let begin = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]];
        let bytes = [begin.concat(), frame(HEADERS, 5, 1, &fields)].concat();
        let mut input = &bytes[..];
        let event = connection.next(&mut input);
        let path = match &event {
            Some(Event::Head { head, .. }) => Some(head.parts.uri.path()),
            _ => None,
        };
        assert_eq!(path, is_taken.then_some("/"), "{authority}");
    }
}

/// The same head is the same pointer, unless the table has changed.
#[test]
fn known_heads_are_not_read_again() {
    let mut connection = Connection::new(CONFIG);
    let mut known = Vec::new();
    let mut take = |bytes: Vec<u8>| {
        let mut input = &bytes[..];
        while let Some(event) = connection.next(&mut input) {
            let Event::Head { stream, head, .. } = event else { continue };
            known.push(head);
            connection.reset(stream, Reason::CANCEL);
        }
    };
    take([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat());
    let open = |stream, fields: &[u8]| frame(HEADERS, 5, stream, &[HEAD, fields].concat());
    take(open(1, &[0x40, 1, b'a', 1, b'1']));
    take(open(3, &[0xbe]));
    take(open(5, &[0xbe]));
    take(open(7, &[0x40, 1, b'a', 1, b'2']));
    take(open(9, &[0xbe]));
    take(open(11, &[0xbe]));
    let value = |at: usize| known[at].parts.headers["a"].to_str().unwrap();
    assert_eq!([value(1), value(2), value(4), value(5)], ["1", "1", "2", "2"]);
    let same = |a: usize, b: usize| std::sync::Arc::ptr_eq(&known[a], &known[b]);
    assert!(same(1, 2) && same(4, 5) && !same(2, 4));
}
