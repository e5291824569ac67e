//! What a peer must not send, and what it may send without any effect.

use capstan_http2::{Config, Connection, Reason};

use crate::peer::*;

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
        let mut peer = Peer { connection: Connection::new(CONFIG), events: Vec::new() };
        assert_eq!(peer.written(), [], "nothing is sent before the preface");
        let kinds: Vec<u8> = peer.send(wrong).into_iter().map(|(kind, ..)| kind).collect();
        assert_eq!(kinds, [SETTINGS, GOAWAY]);
        assert!(peer.connection.is_over() && !peer.connection.must_linger());
    }
    let mut connection = Connection::new(CONFIG);
    let bytes = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &head(1, true)[..]].concat();
    assert!(connection.next(&mut &bytes[..]).is_none(), "a request before SETTINGS");
    assert!(connection.is_greeted() && !connection.has_streams());
}

/// However its first bytes are divided.
#[test]
fn a_peer_of_another_protocol_is_refused_in_that_protocol() {
    let refusal = |first: &[u8]| if first.starts_with(b"P") { b"no\r\n" } else { &b""[..] };
    for divided in [&[&b"POST / HTTP/1.1\r\n"[..]][..], &[b"P", b"OST /"], &[b"PRI", b"", b"X"]] {
        let mut connection = Connection::new(Config { refusal, ..CONFIG });
        for mut part in divided.iter().copied() {
            assert!(connection.next(&mut part).is_none());
            assert_eq!(part, b"");
        }
        assert_eq!(connection.pending(), b"no\r\n");
        assert!(!connection.is_over() && !connection.is_greeted());
        connection.wrote(4);
        assert!(connection.must_linger());
    }
    let mut connection = Connection::new(Config { refusal, ..CONFIG });
    assert!(connection.next(&mut &b"\x16\x03\x01"[..]).is_none());
    assert!(!connection.is_over() && !connection.must_linger());
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

/// Frames that make no event count, too.
#[test]
fn a_turn_ends_after_its_frames() {
    let mut peer = Peer::new();
    let bytes = [frame(PING, 0, 0, &[1; 8]).repeat(2), head(1, false), frame(PING, 0, 0, &[1; 8])];
    let bytes = bytes.concat();
    for (turns, frames) in [(4, 1), (2, 2), (2, 3), (1, 4)] {
        let (mut peer, mut rest, mut taken) = (Peer::new(), &*bytes, 0);
        while !rest.is_empty() {
            peer.connection.begin_turn(frames);
            while peer.connection.next(&mut rest).is_some() {}
            assert_eq!(peer.connection.is_turn_over(), !rest.is_empty() || 4 % frames == 0);
            taken += 1;
        }
        assert_eq!((taken, peer.written().len()), (turns, 3), "{frames} frames a turn");
    }
    // Without turns there is no limit, and the start of a frame takes nothing of a turn.
    assert_eq!(peer.send(&bytes).len(), 3);
    peer.connection.begin_turn(1);
    assert!(peer.connection.next(&mut &bytes[..16]).is_none() && !peer.connection.is_turn_over());
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
