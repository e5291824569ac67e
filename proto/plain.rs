//! Plain checks: checks with identity, capability and resource only, as most checks are. Their
//! names are borrowed from the encoded message; prost would copy each.
//!
//! **Invariant**: this module reads the same values that prost decodes. Messages that are not plain, and
//! messages with errors, are decoded by prost.

use prost::Message as _;
use prost::bytes::Bytes;
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};
use simdutf8::basic::from_utf8;
use tonic::Status;
use tonic::codec::DecodeBuf;

use crate::codec::{Received, take_whole, undecodable};
use crate::contract::BATCH_CHECKS_MAX;
use crate::v1;

/// A `BatchCheckRequest` as the server receives it.
#[derive(Clone, Debug, PartialEq)]
pub enum BatchRequest {
    /// Only plain checks, and optionally a consistency.
    Plain(PlainBatch),
    /// A batch with any other field.
    Decoded(v1::BatchCheckRequest),
    /// The same, longer than [`PIECE_BYTES`] and still encoded.
    Long(Pieces),
    /// More than [`BATCH_CHECKS_MAX`] checks, which were counted and not decoded. The number of
    /// checks.
    TooMany(usize),
}

/// Bytes of a long batch that are decoded at once, unless one field is longer.
pub const PIECE_BYTES: usize = 16 * 1024;

/// A long batch that is decoded piece by piece, so that other work can be done in between.
#[derive(Clone, Debug, PartialEq)]
pub struct Pieces {
    rest: Bytes,
    decoded: v1::BatchCheckRequest,
}

/// A batch of plain checks, still encoded.
#[derive(Clone, Debug, PartialEq)]
pub struct PlainBatch {
    bytes: Bytes,
    count: usize,
    consistency: Option<v1::Consistency>,
}

impl Received for BatchRequest {
    fn receive(buffer: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        Self::read(take_whole(buffer))
    }
}

impl BatchRequest {
    /// Reads an encoded `BatchCheckRequest`.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with the field's path, if the bytes do not decode. Names of a plain batch
    /// are checked for UTF-8 later, by [`PlainBatch::checks`].
    pub fn read(bytes: Bytes) -> Result<Self, Status> {
        let count = count_checks(&bytes);
        if count > BATCH_CHECKS_MAX {
            return Ok(Self::TooMany(count));
        }
        match consistency(&bytes) {
            Some(consistency) => Ok(Self::Plain(PlainBatch { bytes, count, consistency })),
            None if bytes.len() > PIECE_BYTES => {
                Ok(Self::Long(Pieces { rest: bytes, decoded: v1::BatchCheckRequest::default() }))
            }
            None => decode(&bytes).map(Self::Decoded),
        }
    }

    /// The batch as prost decodes it.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT, if the bytes do not decode or the batch has too many checks.
    pub fn decode(self) -> Result<v1::BatchCheckRequest, Status> {
        match self {
            Self::Plain(plain) => decode(&plain.bytes),
            Self::Decoded(request) => Ok(request),
            Self::Long(mut pieces) => {
                while pieces.decode()? {}
                Ok(pieces.finish())
            }
            Self::TooMany(count) => Err(Status::invalid_argument(format!("{count} checks"))),
        }
    }
}

impl Pieces {
    /// Decodes one piece: whole fields of about [`PIECE_BYTES`]. False if nothing is left.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with the field's path, if the bytes do not decode.
    pub fn decode(&mut self) -> Result<bool, Status> {
        let mut after = &*self.rest;
        while !after.is_empty() && self.rest.len() - after.len() < PIECE_BYTES {
            let skipped = decode_key(&mut after).and_then(|(tag, wire_type)| {
                skip_field(wire_type, tag, &mut after, DecodeContext::default())
            });
            if skipped.is_err() {
                after = &[]; // The piece is decoded up to the error.
            }
        }
        let piece = self.rest.split_to(self.rest.len() - after.len());
        self.decoded.merge(piece).map_err(|error| undecodable(&error))?;
        Ok(!self.rest.is_empty())
    }

    /// What was decoded.
    #[must_use]
    pub fn finish(self) -> v1::BatchCheckRequest {
        self.decoded
    }
}

impl PlainBatch {
    /// Identity, capability and resource of each check.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with the field's path, if a name is not UTF-8.
    pub fn checks(&self) -> Result<Vec<[&str; 3]>, Status> {
        let mut checks = Vec::with_capacity(self.count);
        let mut rest = &*self.bytes;
        while let Some((check, after)) = first_check(rest) {
            match names(check) {
                Some(names) => checks.push(names),
                None => {
                    return match decode(&self.bytes) {
                        Err(status) => Err(status),
                        // Unreachable: `read` has found the fields of each check.
                        Ok(_) => Err(Status::internal("a plain batch with checks that are not")),
                    };
                }
            }
            rest = after;
        }
        Ok(checks)
    }

    /// The number of checks, at most [`BATCH_CHECKS_MAX`].
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The batch's consistency, if set.
    #[must_use]
    pub const fn consistency(&self) -> Option<&v1::Consistency> {
        self.consistency.as_ref()
    }
}

fn decode(bytes: &[u8]) -> Result<v1::BatchCheckRequest, Status> {
    v1::BatchCheckRequest::decode(bytes).map_err(|error| undecodable(&error))
}

/// Counts the checks of an encoded batch without decoding them. Stops at the first byte that does
/// not decode.
fn count_checks(mut rest: &[u8]) -> usize {
    let mut count = 0;
    while !rest.is_empty() {
        if let Some((_, after)) = first_check(rest) {
            (count, rest) = (count + 1, after);
            continue;
        }
        let Ok((tag, wire_type)) = decode_key(&mut rest) else { break };
        if skip_field(wire_type, tag, &mut rest, DecodeContext::default()).is_err() {
            break;
        }
        count += usize::from(tag == 1 && wire_type == WireType::LengthDelimited);
    }
    count
}

/// The encoded check at the start of a message, and the bytes after it. `None` if the message does
/// not start with field 1 and a length of at most two bytes.
fn first_check(message: &[u8]) -> Option<(&[u8], &[u8])> {
    let (CHECKS, rest) = message.split_first()? else { return None };
    let (length, rest) = length(rest)?;
    rest.split_at_checked(length)
}

/// Key of field 1 of a batch, length-delimited.
const CHECKS: &u8 = &0x0a;
/// Key of field 2 of a batch, length-delimited.
const CONSISTENCY: &u8 = &0x12;

/// The consistency of a plain batch: plain checks, then at most one consistency, and no other
/// field. `None` if the batch is not plain or does not decode; `Some(None)` if it has no
/// consistency.
fn consistency(mut rest: &[u8]) -> Option<Option<v1::Consistency>> {
    while let Some((check, after)) = first_check(rest) {
        fields(check)?;
        rest = after;
    }
    if rest.is_empty() {
        return Some(None);
    }
    let (CONSISTENCY, last) = rest.split_first()? else { return None };
    let (length, last) = length(last)?;
    // prost merges repeated fields, so a batch with two is not plain. The field is decoded as part
    // of a batch, because prost's limit of nesting counts from there.
    let is_last_field = last.len() == length;
    is_last_field
        .then(|| v1::BatchCheckRequest::decode(rest).ok())
        .flatten()
        .map(|batch| batch.consistency)
}

/// Identity, capability and resource of a plain `CheckRequest` or `CheckItem`, encoded. An absent
/// field is empty. `None` if a field is repeated, if there is any other field, or if the bytes do
/// not decode.
#[must_use]
pub fn names(message: &[u8]) -> Option<[&str; 3]> {
    let [identity, capability, resource] = fields(message)?;
    Some([from_utf8(identity).ok()?, from_utf8(capability).ok()?, from_utf8(resource).ok()?])
}

/// As [`names`], without the check for UTF-8.
fn fields(mut message: &[u8]) -> Option<[&[u8]; 3]> {
    let mut fields = [None; 3];
    while let Some((key, rest)) = message.split_first() {
        // Keys of fields 1 to 3, length-delimited.
        let field = match key {
            0x0a => 0,
            0x12 => 1,
            0x1a => 2,
            _ => return None,
        };
        let (length, rest) = length(rest)?;
        let (bytes, rest) = rest.split_at_checked(length)?;
        let field = fields.get_mut(field)?;
        if field.replace(bytes).is_some() {
            return None;
        }
        message = rest;
    }
    Some(fields.map(Option::unwrap_or_default))
}

/// A length as a varint of one or two bytes, so less than 16 KiB, and the bytes after it. Valid
/// names, and plain checks of three, are shorter.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    match bytes {
        [low @ ..=0x7f, rest @ ..] => Some((usize::from(*low), rest)),
        [low, high @ ..=0x7f, rest @ ..] => {
            Some((usize::from(low & 0x7f) | usize::from(*high) << 7, rest))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item([identity, capability, resource]: [&str; 3]) -> v1::CheckItem {
        let [identity, capability, resource] = [identity, capability, resource].map(Into::into);
        v1::CheckItem { identity, capability, resource, properties: None }
    }

    fn read(bytes: impl Into<Bytes>) -> BatchRequest {
        BatchRequest::read(bytes.into()).unwrap()
    }

    #[test]
    fn names_are_borrowed_as_prost_decodes_them() {
        let long = "x".repeat(300);
        for all in [["", "", ""], ["a", "b.c", "d/e"], ["", "", "r"], [&long, "c", &long]] {
            assert_eq!(names(&item(all).encode_to_vec()), Some(all));
        }
        // Fields may have any order.
        assert_eq!(names(b"\x1a\x01r\x0a\x01i"), Some(["i", "", "r"]));
    }

    #[test]
    fn messages_that_are_not_plain_have_no_names() {
        let consistent = v1::CheckRequest {
            identity: "i".into(),
            consistency: Some(v1::Consistency::default()),
            ..Default::default()
        };
        let cases: [&[u8]; 9] = [
            &consistent.encode_to_vec(),
            b"\x0a\x01i\x0a\x01i", // a repeated field
            b"\x0a",               // no length
            b"\x0a\x05i",          // too short
            b"\x0a\x81",           // an incomplete length
            b"\x0a\x81\x80\x00i",  // a length of three bytes
            b"\x0a\x02\xc3\x28",   // not UTF-8
            b"\x08\x01",           // not length-delimited
            b"\xfa\x01\x01i",      // another field
        ];
        for bytes in cases {
            assert_eq!(names(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn a_plain_batch_equals_the_batch_that_prost_decodes() {
        let long = "x".repeat(5_000);
        for all in [
            vec![],
            vec![["", "", ""]],
            vec![["a", "b.c", "d/e"], ["", "", "r"], ["a", "b.c", "d/e"]],
            vec![[&*long, "c", &*long], ["i", "", ""]],
            vec![["i", "c", "r"]; BATCH_CHECKS_MAX],
        ] {
            for consistency in [
                None,
                Some(v1::Consistency::default()),
                Some(v1::Consistency { mode: Some(v1::consistency::Mode::AtLeast(7)) }),
            ] {
                let checks = all.iter().map(|names| item(*names)).collect();
                let request = v1::BatchCheckRequest { checks, consistency };
                let BatchRequest::Plain(plain) = read(request.encode_to_vec()) else {
                    panic!("{request:?}")
                };
                assert_eq!(plain.checks().unwrap(), all);
                assert_eq!((plain.count(), plain.consistency()), (all.len(), consistency.as_ref()));
                assert_eq!(BatchRequest::Plain(plain).decode().unwrap(), request);
            }
        }
    }

    #[test]
    fn batches_that_are_not_plain_are_decoded() {
        let mut supplied = item(["i", "c", "r"]);
        supplied.properties = Some(v1::Properties::default());
        let with_properties = v1::BatchCheckRequest { checks: vec![supplied], consistency: None };
        for bytes in [
            &with_properties.encode_to_vec()[..],
            b"\x12\x00\x0a\x00",           // consistency before checks
            b"\x12\x00\x12\x02\x08\x07",   // two consistencies
            b"\x0a\x06\x0a\x01i\x0a\x01j", // a repeated name
            b"\x1a\x00",                   // another field
        ] {
            let expected = v1::BatchCheckRequest::decode(bytes).unwrap();
            assert_eq!(read(bytes.to_vec()), BatchRequest::Decoded(expected), "{bytes:?}");
        }
        for bytes in [
            &b"\x0a"[..],            // no length
            b"\x0a\x05\x0a\x01i",    // too short
            b"\x0a\x03\x0a\x02i",    // name too short
            b"\x08\x01",             // not length-delimited
            b"\x0a\x00\x12\x02\xff", // an incomplete consistency
        ] {
            assert!(BatchRequest::read(bytes.to_vec().into()).is_err(), "{bytes:?}");
        }
        let BatchRequest::Plain(plain) = read(&b"\x0a\x00\x0a\x04\x12\x02\xc3\x28"[..]) else {
            panic!("a plain batch: only UTF-8 is invalid")
        };
        assert!(plain.checks().unwrap_err().message().contains("UTF-8"));
    }

    /// prost limits the nesting of unknown groups to 100 levels, the batch included.
    #[test]
    fn nesting_is_limited_as_in_prost() {
        for (depth, expected) in [(98, true), (99, true), (100, false), (101, false)] {
            let groups = [b"\x1b".repeat(depth), b"\x1c".repeat(depth)].concat();
            let length = u8::try_from(groups.len() & 0x7f | 0x80).unwrap();
            let high = u8::try_from(groups.len() >> 7).unwrap();
            let bytes = [&[0x12, length, high][..], &groups].concat();
            assert_eq!(v1::BatchCheckRequest::decode(&*bytes).is_ok(), expected, "{depth}");
            assert_eq!(BatchRequest::read(bytes.into()).is_ok(), expected, "{depth}");
        }
    }

    /// A long batch is decoded in pieces to the same value, or the same error, as in one.
    #[test]
    fn long_batches_are_decoded_in_pieces() {
        let value = |kind| prost_types::Value { kind: Some(kind) };
        let text = value(prost_types::value::Kind::StringValue("x".repeat(500)));
        let mut supplied = item(["i", "c", "r"]);
        let context = (0..3).map(|at| (format!("p{at}"), text.clone())).collect();
        supplied.properties = Some(v1::Properties { context, ..Default::default() });
        let consistency = Some(v1::Consistency { mode: Some(v1::consistency::Mode::AtLeast(7)) });
        let request = v1::BatchCheckRequest { checks: vec![supplied; 100], consistency };
        let bytes = request.encode_to_vec();
        assert!(bytes.len() > 5 * PIECE_BYTES);
        let BatchRequest::Long(mut pieces) = read(bytes.clone()) else { panic!("a long batch") };
        let mut count = 1;
        while pieces.decode().unwrap() {
            count += 1;
        }
        assert_eq!(count, bytes.len().div_ceil(PIECE_BYTES));
        assert_eq!(pieces.finish(), request);
        // Errors in the first piece, in the last, and at a cut.
        for at in [3, bytes.len() / 2, bytes.len() - 3] {
            let cut = bytes[..at].to_vec();
            let mut broken = bytes.clone();
            broken[at] = 0xff;
            for bytes in [cut, broken] {
                let whole = decode(&bytes).map_err(|status| status.message().to_owned());
                let pieces = BatchRequest::read(bytes.into()).and_then(BatchRequest::decode);
                assert_eq!(pieces.map_err(|status| status.message().to_owned()), whole, "{at}");
            }
        }
    }

    /// Checks are counted in every valid encoding, and none is decoded.
    #[test]
    fn too_many_checks_are_only_counted() {
        let most = b"\x0a\x00".repeat(BATCH_CHECKS_MAX);
        for (more, counts) in [
            (&b""[..], 0),
            (b"\x0a\x00", 1),
            (b"\x12\x00\x0a\x00", 1),
            (b"\x0a\x80\x00", 1),
            (b"\x0a\x80\x80\x00", 1),
            (b"\x8a\x00\x00", 1),
            (b"\x0a\x05", 0),
        ] {
            let bytes = [&most[..], more].concat();
            assert_eq!(count_checks(&bytes), BATCH_CHECKS_MAX + counts, "{more:?}");
            if counts > 0 {
                assert_eq!(read(bytes), BatchRequest::TooMany(BATCH_CHECKS_MAX + 1), "{more:?}");
            }
        }
    }
}
