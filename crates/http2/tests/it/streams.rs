//! Streams: their limits, windows and responses, and how a connection leaves.

use capstan_http2::{Config, Connection, Event, Reason};

use crate::peer::*;

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

/// A peer that does not answer can open no more streams either.
#[test]
fn a_peer_that_does_not_leave_is_made_to() {
    let mut peer = Peer::new();
    peer.send(&head(1, true));
    peer.connection.leave();
    peer.written();
    peer.connection.leave_now();
    assert_eq!(peer.written(), [goaway(1, Reason::NO_ERROR)]);
    peer.connection.leave_now();
    assert_eq!(peer.send(&head(3, true)), []);
    assert_eq!(peer.events, ["1: / true"]);
    assert!(!peer.connection.is_over());
    assert!(peer.connection.respond_ok(1, |_| true));
    peer.written();
    assert!(peer.connection.is_over());
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

/// At most four heads are kept, the last ones, and none with many fields: a byte of a block can mean a field.
#[test]
fn few_heads_are_known() {
    let mut connection = Connection::new(CONFIG);
    let mut take = |bytes: Vec<u8>| {
        let mut input = &bytes[..];
        let mut last = None;
        while let Some(event) = connection.next(&mut input) {
            let Event::Head { stream, head, .. } = event else { continue };
            connection.reset(stream, Reason::CANCEL);
            last = Some(head);
        }
        last
    };
    take([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &frame(SETTINGS, 0, 0, &[])[..]].concat());
    let mut stream = 1;
    let mut open = |fields: &[u8]| {
        let bytes = frame(HEADERS, 5, stream, &[HEAD, fields].concat());
        stream += 2;
        take(bytes).unwrap()
    };
    let of = |at: usize| field("a", &at.to_string());
    let first = open(&of(0));
    assert!(std::sync::Arc::ptr_eq(&first, &open(&of(0))));
    for at in 1..5 {
        open(&of(at));
    }
    assert!(!std::sync::Arc::ptr_eq(&first, &open(&of(0))), "the fifth took its place");
    // `accept-encoding: gzip, deflate`, by its number.
    let many = |fields: usize| vec![0x90; fields];
    for (fields, is_known) in [(24, true), (25, false)] {
        let head = open(&many(fields));
        assert_eq!(head.parts.headers.len(), fields);
        let again = open(&many(fields));
        assert_eq!(std::sync::Arc::ptr_eq(&head, &again), is_known, "{fields} fields");
    }
}
