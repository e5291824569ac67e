//! The wire format: encodes checks into batches, and decodes replies into decisions.
//!
//! The encoding of a BatchCheckRequest is the concatenation of its `checks` fields. Callers append the
//! encoding of their check directly to an open batch, and sending a batch copies and encodes nothing again.
//!
//! **Invariant**: bytes that are not a complete, consistent answer become an error, never a decision.

use capstan_proto::codec::decode_whole;
use capstan_proto::v1::{self, Reason};
use prost::Message as _;
use prost::bytes::{BufMut as _, Bytes};
use prost::encoding::{WireType, encode_varint, encoded_len_varint};
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};

use crate::check::{Check, Decision};
use crate::error::Error;
use crate::limits::{CAPABILITY_BYTES_MAX, CHECK_BYTES_MAX, PATH_BYTES_MAX};
use crate::queue::MinRevision;

/// `DecisionService.StreamCheck`.
pub(crate) const STREAM_CHECK: &str = "/capstan.v1.DecisionService/StreamCheck";
/// `DecisionService.BatchCheck`.
pub(crate) const BATCH_CHECK: &str = "/capstan.v1.DecisionService/BatchCheck";

// === Requests ===

/// A check to be encoded. Its properties are encoded already; its strings are borrowed.
#[derive(Debug)]
pub(crate) struct CheckEncoder<'a> {
    check: &'a Check<'a>,
    properties: Option<Vec<u8>>,
    /// Length of the encoded `CheckItem`.
    length: usize,
}

impl<'a> CheckEncoder<'a> {
    pub(crate) fn new(check: &'a Check<'a>) -> Self {
        let properties = check.properties.map(|properties| properties.message().encode_to_vec());
        let of_properties = properties.as_ref().map_or(0, |encoded| field(encoded.len()));
        let Check { identity, capability, resource, .. } = check;
        let length =
            field(identity.len()) + field(capability.len()) + field(resource.len()) + of_properties;
        Self { check, properties, length }
    }

    /// Checks the size limits before the check can make a whole batch invalid.
    ///
    /// # Errors
    ///
    /// A field is longer than the contract allows, or the check does not fit into a message.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let Check { identity, capability, resource, .. } = self.check;
        for (field, text, bytes_max) in [
            ("identity", identity, PATH_BYTES_MAX),
            ("capability", capability, CAPABILITY_BYTES_MAX),
            ("resource", resource, PATH_BYTES_MAX),
        ] {
            if text.len() > bytes_max {
                let problem = format!("{field}: {} bytes, more than {bytes_max}", text.len());
                return Err(Error::refused(Code::InvalidArgument, "INVALID_FIELD", problem));
            }
        }
        if self.bytes() > CHECK_BYTES_MAX {
            let problem = format!("a check of {} bytes, more than {CHECK_BYTES_MAX}", self.length);
            return Err(Error::refused(Code::ResourceExhausted, "TOO_LARGE", problem));
        }
        Ok(())
    }

    /// Bytes of the check in a batch, including the field's tag and length.
    pub(crate) const fn bytes(&self) -> usize {
        field(self.length)
    }

    /// Appends the check to the bytes of a batch.
    pub(crate) fn put(&self, batch: &mut Vec<u8>) {
        batch.reserve(self.bytes());
        put_head(1, self.length, batch);
        put(1, self.check.identity.as_bytes(), batch);
        put(2, self.check.capability.as_bytes(), batch);
        put(3, self.check.resource.as_bytes(), batch);
        if let Some(properties) = &self.properties {
            put(4, properties, batch);
        }
    }
}

/// Bytes of a length-delimited field with a field number below 16, for a value of this length.
const fn field(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

fn put(tag: u8, bytes: &[u8], buffer: &mut Vec<u8>) {
    put_head(tag, bytes.len(), buffer);
    buffer.extend_from_slice(bytes);
}

/// Appends the tag and length of a length-delimited field with a field number below 16.
fn put_head(tag: u8, length: usize, buffer: &mut Vec<u8>) {
    buffer.push(tag << 3 | WireType::LengthDelimited as u8);
    match u8::try_from(length) {
        // The common case: a length of one byte.
        Ok(short) if short < 0x80 => buffer.push(short),
        _ => encode_varint(length as u64, buffer),
    }
}

/// A message of a batch.
#[derive(Clone, Debug)]
pub(crate) struct EncodedBatch {
    /// The encoded `checks` fields.
    pub(crate) checks: Bytes,
    /// The `consistency` field.
    pub(crate) min_revision: MinRevision,
}

/// A reply. A message that does not decode is an `Err` here instead of a [`Status`], so that it is not taken
/// for an error of the server.
pub(crate) type Reply = Result<v1::BatchCheckResponse, prost::DecodeError>;

/// The codec of StreamCheck and BatchCheck.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct BatchCodec;

impl Codec for BatchCodec {
    type Encode = EncodedBatch;
    type Decode = Reply;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BatchCodec {
    type Item = EncodedBatch;
    type Error = Status;

    fn encode(&mut self, batch: EncodedBatch, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(batch.checks);
        let Some(consistency) = batch.min_revision.message() else { return Ok(()) };
        // Concatenated encodings are the encoding of the merged message.
        let rest = v1::BatchCheckRequest { checks: vec![], consistency: Some(consistency) };
        rest.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for BatchCodec {
    type Item = Reply;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Reply>, Status> {
        Ok(Some(decode_whole(buffer)))
    }
}

// === Replies ===

/// The decision of a batch's result.
///
/// # Errors
///
/// The result is an error, or is inconsistent.
pub(crate) fn decision(result: v1::CheckResult, revision: u64) -> Result<Decision, Error> {
    let v1::CheckResult { allowed, reason, error, valid_until } = result;
    if let Some(error) = error {
        let code = Code::from_i32(error.code);
        if code == Code::Ok {
            return Err(Error::Protocol("an error of code OK"));
        }
        return Err(Error::refused(code, &error.reason, error.message));
    }
    let reason = match Reason::try_from(reason) {
        Ok(Reason::Unspecified) => return Err(Error::Protocol("a decision without a reason")),
        Ok(reason) => reason,
        // A newer server may have further reasons. All of them are denials.
        Err(_) => Reason::Unspecified,
    };
    if allowed != (reason == Reason::Granted) {
        return Err(Error::Protocol("a decision that contradicts its reason"));
    }
    let valid_until = match valid_until.map(TryInto::try_into) {
        None => None,
        Some(Ok(time)) if allowed => Some(time),
        Some(_) => return Err(Error::Protocol("an end that is no time, or of a denial")),
    };
    Ok(Decision { allowed, reason, revision, valid_until })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::Properties;

    #[test]
    fn the_encoding_is_the_one_of_prost() {
        let properties = Properties::default().subject("a", "b").context("c", 3);
        for length in [1, 16, 127, 128, 129, 1_024] {
            let path = "p".repeat(length);
            for properties in [None, Some(&properties)] {
                let mut check = Check::new(&path, "a.b", &path);
                check.properties = properties;
                let encoder = CheckEncoder::new(&check);
                let mut written = vec![];
                encoder.put(&mut written);
                let checks = vec![v1::CheckItem {
                    identity: path.clone(),
                    capability: "a.b".into(),
                    resource: path.clone(),
                    properties: properties.map(|properties| properties.message().clone()),
                }];
                let batch = v1::BatchCheckRequest { checks, consistency: None };
                assert_eq!(v1::BatchCheckRequest::decode(&*written), Ok(batch.clone()));
                assert_eq!(written.len(), batch.encoded_len());
                assert_eq!(written.len(), encoder.bytes());
            }
        }
    }
}
