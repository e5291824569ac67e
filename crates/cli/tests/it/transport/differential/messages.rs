//! Bodies of checks: valid, nearly valid, and broken in each way that a decoder can meet. A body is a function of
//! its number.

use std::collections::HashMap;

use capstan_proto::v1::{self, consistency::Mode};
use capstan_server::limits::{MESSAGE_BYTES_MAX, REQUEST_BYTES_MAX};
use prost::Message as _;
use prost_types::value::Kind;

/// Numbers drawn in turn (SplitMix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        usize::try_from(self.next() % count as u64).unwrap()
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_be_bytes()[0]).collect()
    }
}

/// The body with this number: a frame with a message, or something near it.
pub(super) fn body(number: u64) -> Vec<u8> {
    let draw = &mut Draw(number);
    let message = match draw.below(16) {
        0..8 => valid(draw).encode_to_vec(),
        8..10 => near_valid(draw).encode_to_vec(),
        10..12 => supplied(draw).encode_to_vec(),
        12..15 => by_fields(draw),
        _ => broken(draw),
    };
    match draw.below(32) {
        0 => near_frame(draw, &message),
        _ => frame(0, message.len(), &message),
    }
}

fn frame(flag: u8, length: usize, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [&[flag][..], &length, message].concat()
}

/// A frame with another flag or length, not complete, or with more behind it.
fn near_frame(draw: &mut Draw, message: &[u8]) -> Vec<u8> {
    let length = message.len();
    let whole = frame(0, length, message);
    match draw.below(8) {
        0 => frame(draw.pick(&[1, 2, 255]), length, message),
        1 => frame(0, length + 1 + draw.below(9), message),
        2 => frame(0, length.saturating_sub(1 + draw.below(9)), message),
        3 => frame(0, draw.pick(&[MESSAGE_BYTES_MAX, MESSAGE_BYTES_MAX + 1, usize::MAX]), message),
        4 => whole[..draw.below(whole.len())].to_vec(),
        5 => whole.repeat(2),
        6 => Vec::new(),
        _ => [whole, draw.bytes(3)].concat(),
    }
}

/// Names of the demo's policy, and others.
const IDENTITIES: [&str; 7] =
    ["alice", "bob", "carol", "dave", "acme/auditor", "acme/platform/ci", "nobody"];
const CAPABILITIES: [&str; 6] =
    ["repo.list", "repo.update", "groups.list", "tag.create", "manifest.list", "no.such"];
const RESOURCES: [&str; 6] =
    ["acme", "acme/platform", "acme/platform/images/nginx", "acme/research/x", "other", "a/b/c/d"];

fn valid(draw: &mut Draw) -> v1::CheckRequest {
    v1::CheckRequest {
        identity: draw.pick(&IDENTITIES).into(),
        capability: draw.pick(&CAPABILITIES).into(),
        resource: draw.pick(&RESOURCES).into(),
        ..Default::default()
    }
}

/// Texts that are no paths and no names, or only just.
fn text(draw: &mut Draw) -> String {
    match draw.below(8) {
        0 => String::new(),
        1 => draw
            .pick(&["/", "a/", "/a", "a//b", ".", "a/..", "a/./b", "..", "a b", "ä", "a\0b"])
            .into(),
        // Lengths around the limits of segments and paths, and around lengths of two and three bytes.
        2 => "x".repeat(draw.pick(&[126, 127, 128, 129, 255, 256, 1_023, 1_024, 1_025])),
        3 => ["seg"; 18][..=draw.below(18)].join("/"),
        4 if draw.one_in(50) => "y".repeat(draw.pick(&[16_383, 16_384, 70_000])),
        4 => "long/".repeat(draw.below(600)) + "end",
        5 => String::from_utf8_lossy(&draw.bytes(6)).into_owned(),
        6 => char::from_u32(u32::try_from(draw.below(0xd800)).unwrap()).unwrap().into(),
        _ => format!("{}/{}", draw.pick(&RESOURCES), draw.pick(&["A", "~", "+", "=", "a-_b", "é"])),
    }
}

/// A check of which some texts may be malformed.
fn near_valid(draw: &mut Draw) -> v1::CheckRequest {
    let mut check = valid(draw);
    for at in 0..3 {
        if draw.one_in(2) {
            let text = text(draw);
            *[&mut check.identity, &mut check.capability, &mut check.resource][at] = text;
        }
    }
    check
}

/// A check with properties or a consistency.
fn supplied(draw: &mut Draw) -> v1::CheckRequest {
    let properties = |draw: &mut Draw| -> HashMap<String, prost_types::Value> {
        let one = |draw: &mut Draw| {
            let kind = match draw.below(6) {
                0 => Kind::NullValue(0),
                1 => Kind::NumberValue(draw.pick(&[0.0, 1.5, -7.0, 9e15, f64::NAN])),
                2 => Kind::StringValue(text(draw)),
                3 => Kind::ListValue(prost_types::ListValue::default()),
                4 => Kind::StructValue(prost_types::Struct::default()),
                _ => Kind::BoolValue(true),
            };
            let kind = Some(kind).filter(|_| !draw.one_in(10));
            (draw.pick(&["team", "n", "", "status"]).to_owned(), prost_types::Value { kind })
        };
        (0..draw.below(3)).map(|_| one(draw)).collect()
    };
    let supplied = v1::Properties {
        subject: properties(draw),
        resource: properties(draw),
        action: properties(draw),
        context: properties(draw),
    };
    let mode = match draw.below(4) {
        0 => None,
        1 => Some(Mode::FullyConsistent(draw.one_in(2))),
        _ => Some(Mode::AtLeast(draw.below(2) as u64)), // A later revision never comes.
    };
    let mut check = valid(draw);
    check.properties = (!draw.one_in(3)).then_some(supplied);
    check.consistency = (!draw.one_in(3)).then_some(v1::Consistency { mode });
    if draw.one_in(20_000) {
        let padding = REQUEST_BYTES_MAX - 100 + draw.below(200);
        let value = prost_types::Value { kind: Some(Kind::StringValue("z".repeat(padding))) };
        check.properties.get_or_insert_default().context.insert("padding".into(), value);
    }
    check
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 128 {
        bytes.push(u8::try_from(number % 128).unwrap() | 128);
        number /= 128;
    }
    bytes.push(u8::try_from(number).unwrap());
    bytes
}

/// A message field by field: in any order, repeated, empty, unknown, of another type, not in UTF-8, and with
/// lengths that are longer than they need to be or do not fit.
fn by_fields(draw: &mut Draw) -> Vec<u8> {
    let mut message = Vec::new();
    let names = valid(draw);
    for _ in 0..draw.below(6) {
        let number = draw.pick(&[1, 1, 2, 2, 3, 3, 4, 5, 6, 15, 16, 2_047, 536_870_911, 0]);
        let kind = if number <= 3 && !draw.one_in(6) { 2 } else { draw.below(8) as u64 };
        message.extend(varint(number << 3 | kind));
        let name = draw.pick(&[&*names.identity, &*names.capability, &*names.resource]);
        match kind {
            0 => message.extend(varint(draw.next() >> draw.below(64))),
            1 => message.extend(draw.bytes(8)),
            5 => message.extend(draw.bytes(4)),
            2 => {
                let value = match draw.below(6) {
                    0 => Vec::new(),
                    1 => draw.bytes(4),
                    2 => text(draw).into_bytes(),
                    _ => name.as_bytes().to_vec(),
                };
                let mut length = varint(value.len() as u64);
                match draw.below(24) {
                    0 => length = varint(value.len() as u64 + 1 + draw.below(5) as u64),
                    // The same number with more bytes.
                    1 => {
                        let last = length.pop().unwrap();
                        length.extend([last | 128, 0]);
                    }
                    2 => length = vec![0xff; draw.below(12)],
                    _ => {}
                }
                message.extend(length);
                message.extend(value);
            }
            // Groups, and types that do not exist.
            _ => {}
        }
    }
    message
}

/// A valid message with a few bytes changed, or cut, or no message at all.
fn broken(draw: &mut Draw) -> Vec<u8> {
    let mut message = near_valid(draw).encode_to_vec();
    match draw.below(3) {
        0 => {
            let length = draw.below(40);
            draw.bytes(length)
        }
        1 => {
            message.truncate(draw.below(message.len() + 1));
            message
        }
        _ => {
            for _ in 0..=draw.below(3) {
                let byte = draw.bytes(1)[0];
                if let Some(at) = message.len().checked_sub(1).map(|last| draw.below(last + 1)) {
                    message[at] = byte;
                }
            }
            message
        }
    }
}
