//! The bytes of each flood.

use std::sync::LazyLock;

use capstan_proto::v1;
use capstan_server::limits::MESSAGE_BYTES_MAX;

use super::super::{BATCH, CHECK, STREAM};
use crate::gzip::{batch_of, gzipped};
use crate::raw::{
    self, ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FRAME_SIZE_ERROR,
    HEADERS, INDEXED, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, batch, check, frame,
    framed, literal,
};

const LIST: &str = "/capstan.v1.DecisionService/ListCapabilities";
/// Frames, or calls, of a round.
const AT_ONCE: u32 = 100;
/// A payload of a frame that has at most 16 KiB.
const PAYLOAD_MAX: usize = 16_000;

/// A connection that sends the same again and again.
pub(super) struct Flood {
    pub(super) name: &'static str,
    /// What is sent after the preface: the bytes of the round with this number, from 0.
    pub(super) round: fn(u32) -> Vec<u8>,
    pub(super) kind: Kind,
}

/// How the connections of a flood must end: those that read what the server sends, and those that do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing is answered, so the server reads on, whether the client reads or not.
    Unanswered,
    /// The answers are so short that time decides whether they fill the buffers of the system, behind which a client that does not
    /// read is no longer read. In step with the server are those that read.
    Answered,
    /// The same, until the server no longer reads from those that do not read.
    Stalls,
    /// The server must close the connection, and say this reason.
    Closed(u32),
    /// No client reads, and the server must no longer read, or close the connection for what it holds.
    Unread,
    /// The server may close the connection for what it holds of it, as the flood's other connections leave room. It is in step until then.
    Held,
    /// The client closes the connection itself after the preface.
    Left,
}

pub(super) const FLOODS: [Flood; 21] = [
    Flood { name: "resets without data", round: resets, kind: Kind::Unanswered },
    Flood { name: "resets with data", round: resets_with_data, kind: Kind::Answered },
    Flood { name: "settings", round: settings, kind: Kind::Stalls },
    Flood { name: "settings acks not asked for", round: settings_acks, kind: Kind::Unanswered },
    Flood { name: "pings", round: pings, kind: Kind::Stalls },
    Flood { name: "windows of the connection", round: connection_windows, kind: Kind::Unanswered },
    Flood { name: "windows of streams", round: stream_windows, kind: Kind::Unanswered },
    Flood { name: "continuation frames", round: continuations, kind: CALM },
    Flood { name: "empty continuation frames", round: empty_continuations, kind: CALM },
    Flood { name: "header tables", round: header_tables, kind: Kind::Answered },
    Flood { name: "huge header lists", round: huge_headers, kind: Kind::Answered },
    Flood { name: "junk", round: junk, kind: Kind::Closed(FRAME_SIZE_ERROR) },
    Flood { name: "claims of 4 MiB", round: claims, kind: CALM },
    Flood { name: "half bodies", round: half_bodies, kind: CALM },
    Flood { name: "unread answers", round: batches, kind: Kind::Unread },
    Flood { name: "compressed batches of 4 MiB", round: bombs, kind: Kind::Held },
    Flood { name: "compressed answers", round: compressed_answers, kind: Kind::Held },
    Flood { name: "priorities", round: priorities, kind: Kind::Unanswered },
    Flood { name: "empty data", round: empty_data, kind: Kind::Unanswered },
    Flood { name: "unknown frames", round: unknown_frames, kind: Kind::Unanswered },
    Flood { name: "connections", round: |_| Vec::new(), kind: Kind::Left },
];

const CALM: Kind = Kind::Closed(ENHANCE_YOUR_CALM);

/// The streams that a round opens.
fn streams(round: u32) -> impl Iterator<Item = u32> {
    (0..AT_ONCE).map(move |at| 2 * (AT_ONCE * round + at) + 1)
}

/// The same bytes [`AT_ONCE`] times; before them, in the first round, others.
fn again(round: u32, first: Vec<u8>, then: &[u8]) -> Vec<u8> {
    if round == 0 { first } else { then.repeat(AT_ONCE as usize) }
}

/// In the first round, windows that never end, so that answers do not wait for them.
fn wide(round: u32) -> Vec<u8> {
    let settings = [&[0, 4][..], &0x7fff_ffff_u32.to_be_bytes()].concat();
    let all = frame(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
    if round == 0 { [frame(SETTINGS, 0, 0, &settings), all].concat() } else { Vec::new() }
}

/// The head of a call, in as many frames as it needs.
fn head(stream: u32, block: &[u8]) -> Vec<u8> {
    let parts = block.chunks(PAYLOAD_MAX);
    let last = parts.len() - 1;
    let parts = parts.enumerate().flat_map(|(at, part)| {
        let kind = if at == 0 { HEADERS } else { CONTINUATION };
        frame(kind, if at == last { END_HEADERS } else { 0 }, stream, part)
    });
    parts.collect()
}

fn call(path: &str, stream: u32) -> Vec<u8> {
    head(stream, &raw::header_block(path))
}

fn resets(round: u32) -> Vec<u8> {
    let reset = |stream| frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]);
    streams(round).flat_map(|stream| [call(CHECK, stream), reset(stream)].concat()).collect()
}

fn resets_with_data(round: u32) -> Vec<u8> {
    let (body, mut bytes) = (framed(&check()), wide(round));
    for stream in streams(round) {
        bytes.extend(call(CHECK, stream));
        bytes.extend(frame(DATA, END_STREAM, stream, &body));
        bytes.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    bytes
}

fn settings(_: u32) -> Vec<u8> {
    let window = |bytes: u32| frame(SETTINGS, 0, 0, &[&[0, 4][..], &bytes.to_be_bytes()].concat());
    [window(1 << 16), window(1 << 17)].concat().repeat(AT_ONCE as usize / 2)
}

fn settings_acks(_: u32) -> Vec<u8> {
    frame(SETTINGS, ACK, 0, &[]).repeat(AT_ONCE as usize)
}

fn pings(_: u32) -> Vec<u8> {
    frame(PING, 0, 0, b"a flood!").repeat(AT_ONCE as usize)
}

fn connection_windows(_: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()).repeat(AT_ONCE as usize)
}

fn stream_windows(round: u32) -> Vec<u8> {
    let more = frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes());
    again(round, call(STREAM, 1), &more)
}

fn continuations(round: u32) -> Vec<u8> {
    let more = frame(CONTINUATION, 0, 1, &literal(0, "x", "y"));
    again(round, frame(HEADERS, 0, 1, &raw::header_block(CHECK)), &more)
}

fn empty_continuations(round: u32) -> Vec<u8> {
    let more = frame(CONTINUATION, 0, 1, &[]);
    again(round, frame(HEADERS, 0, 1, &raw::header_block(CHECK)), &more)
}

/// Each call empties the table of its connection, fills it anew, and takes three headers from it. With them
/// the header list is just below its limit.
fn header_tables(round: u32) -> Vec<u8> {
    const SIZES: [u8; 4] = [0x20, 0x3f, 0xe1, 0x1f]; // 0, then 4,096
    const FIRST_OF_TABLE: u8 = 0x80 | 62;
    let fill = literal(INDEXED, "x", &"y".repeat(3_900));
    let block = [&SIZES[..], &raw::header_block(CHECK), &fill, &[FIRST_OF_TABLE; 3]].concat();
    let (body, mut bytes) = (framed(&check()), wide(round));
    for stream in streams(round) {
        bytes.extend(head(stream, &block));
        bytes.extend(frame(DATA, END_STREAM, stream, &body));
    }
    bytes
}

fn huge_headers(round: u32) -> Vec<u8> {
    let huge = literal(0, "x", &"y".repeat(17_000));
    let block = [raw::header_block(CHECK), huge].concat();
    streams(round).step_by(10).flat_map(|stream| head(stream, &block)).collect()
}

fn junk(round: u32) -> Vec<u8> {
    let mut state = u64::from(round) + 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..4_096).map(|_| next()).collect()
}

fn claims(round: u32) -> Vec<u8> {
    let length = u32::try_from(MESSAGE_BYTES_MAX).unwrap().to_be_bytes();
    let claim = [&[0][..], &length].concat();
    let one = |stream| [call(STREAM, stream), frame(DATA, 0, stream, &claim)].concat();
    streams(round).flat_map(one).collect()
}

fn half_bodies(round: u32) -> Vec<u8> {
    let body = framed(&batch(100));
    let half = &body[..body.len() / 2];
    let one = |stream| [call(BATCH, stream), frame(DATA, 0, stream, half)].concat();
    streams(round).flat_map(one).collect()
}

fn batches(round: u32) -> Vec<u8> {
    let (body, mut bytes) = (framed(&batch(100)), wide(round));
    for stream in streams(round) {
        bytes.extend(call(BATCH, stream));
        bytes.extend(frame(DATA, END_STREAM, stream, &body));
    }
    bytes
}

/// Batches of 4 MiB, in 4 KiB each.
fn bombs(round: u32) -> Vec<u8> {
    static BOMB: LazyLock<Vec<u8>> = LazyLock::new(|| gzipped(&batch_of(MESSAGE_BYTES_MAX)));
    let block = [raw::header_block(BATCH), literal(0, "grpc-encoding", "gzip")].concat();
    let mut bytes = wide(round);
    for stream in streams(round) {
        bytes.extend(head(stream, &block));
        bytes.extend(frame(DATA, END_STREAM, stream, &BOMB));
    }
    bytes
}

/// Short questions with long answers, which are to be compressed.
fn compressed_answers(round: u32) -> Vec<u8> {
    let list = v1::ListCapabilitiesRequest {
        identity: "alice".into(),
        resource: "acme".into(),
        ..Default::default()
    };
    let accepts = literal(0, "grpc-accept-encoding", "gzip");
    let block = [raw::header_block(LIST), accepts].concat();
    let (body, mut bytes) = (framed(&list), wide(round));
    for stream in streams(round) {
        bytes.extend(head(stream, &block));
        bytes.extend(frame(DATA, END_STREAM, stream, &body));
    }
    bytes
}

fn priorities(round: u32) -> Vec<u8> {
    streams(round).flat_map(|stream| frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 15])).collect()
}

fn empty_data(round: u32) -> Vec<u8> {
    again(round, call(STREAM, 1), &frame(DATA, 0, 1, &[]))
}

fn unknown_frames(round: u32) -> Vec<u8> {
    streams(round).flat_map(|stream| frame(0x42, 0xff, stream, &[7; 40])).collect()
}
