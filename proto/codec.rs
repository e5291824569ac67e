//! The codec of all services: prost with small buffers, and the contract's status for undecodable
//! bytes.
//!
//! tonic's own codec reserves 8 KiB for each direction of each call, and answers undecodable bytes
//! with INTERNAL. Most messages here are about 100 bytes, and undecodable bytes are an error of the
//! client: INVALID_ARGUMENT.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::{Buf as _, Bytes};
use tonic::codec::{BufferSettings, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Initial capacity of a message buffer in bytes, for each direction. Buffers grow as needed.
const BUFFER_BYTES: usize = 512;
/// Bytes that are buffered before a streamed body is flushed.
const YIELD_BYTES: usize = 4 * 1024;

/// A codec that encodes `T` and decodes `U`.
#[derive(Debug, Clone, Copy)]
pub struct Codec<T, U>(PhantomData<fn(T) -> U>);

impl<T, U> Default for Codec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> tonic::codec::Codec for Codec<T, U>
where
    T: Message + Send + 'static,
    U: Received + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = MessageEncoder<T>;
    type Decoder = MessageDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        MessageEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        MessageDecoder(PhantomData)
    }
}

/// Encodes messages of one type.
#[derive(Debug, Clone, Copy)]
pub struct MessageEncoder<T>(PhantomData<fn(T)>);

impl<T: Message> Encoder for MessageEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer).map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

/// Decodes messages of one type.
#[derive(Debug, Clone, Copy)]
pub struct MessageDecoder<U>(PhantomData<fn() -> U>);

impl<U: Received> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        U::receive(buffer).map(Some)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}

/// A type that the codec can decode a message into.
pub trait Received: Sized {
    /// Decodes a message, and consumes the whole buffer.
    ///
    /// # Errors
    ///
    /// INVALID_ARGUMENT with the field's path, if the bytes do not decode.
    fn receive(buffer: &mut DecodeBuf<'_>) -> Result<Self, Status>;
}

impl<M: Message + Default> Received for M {
    fn receive(buffer: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        decode_whole(buffer).map_err(|error| undecodable(&error))
    }
}

/// Decodes a message from one contiguous slice. prost advances its input a few bytes at a time, a
/// batch has thousands of small fields, and advancing a slice costs less than advancing a buffer.
///
/// # Errors
///
/// The bytes do not decode.
pub fn decode_whole<U: Message + Default>(
    buffer: &mut DecodeBuf<'_>,
) -> Result<U, prost::DecodeError> {
    U::decode(&*take_whole(buffer))
}

/// Takes all bytes of a buffer, without a copy.
pub(crate) fn take_whole(buffer: &mut DecodeBuf<'_>) -> Bytes {
    buffer.copy_to_bytes(buffer.remaining())
}

/// INVALID_ARGUMENT for bytes that do not decode: reason `INVALID_FIELD`, with the field's path.
pub(crate) fn undecodable(error: &prost::DecodeError) -> Status {
    let text = error.to_string();
    let field = field_of(&text);
    let mut details = ErrorDetails::with_bad_request_violation(&field, &text);
    details.set_error_info("INVALID_FIELD", "capstan", [("field".to_owned(), field)]);
    Status::with_error_details(
        Code::InvalidArgument,
        format!("the message does not decode: {text}"),
        details,
    )
}

/// The field's path, from the text of prost's error. The text has the fields innermost first: `…:
/// Inner.name: Outer.inner: …`. Empty if the text names no field.
fn field_of(text: &str) -> String {
    let fields = text.split(": ").filter_map(|part| {
        let (message, field) = part.split_once('.')?;
        let is_word = |word: &str| word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        (is_word(message) && is_word(field) && !field.is_empty()).then_some(field)
    });
    let mut fields: Vec<_> = fields.collect();
    fields.reverse();
    fields.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    #[test]
    fn decode_errors_have_the_fields_path() {
        let field = |error: prost::DecodeError| field_of(&error.to_string());
        assert_eq!(
            field(v1::CheckRequest::decode(&b"\x0a\x02\xc3\x28"[..]).unwrap_err()),
            "identity"
        );
        let batch = v1::BatchCheckRequest::decode(&b"\x0a\x04\x12\x02\xc3\x28"[..]).unwrap_err();
        assert_eq!(field(batch), "checks.capability");
        assert_eq!(field(v1::CheckRequest::decode(&b"\xff\xff"[..]).unwrap_err()), "");
    }
}
