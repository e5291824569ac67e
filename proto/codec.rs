//! The codec of every service: prost with small buffers, and the contract's word for bytes that do
//! not decode.
//!
//! tonic's own codec reserves 8 KiB for each direction of each call and answers undecodable bytes
//! with INTERNAL; our messages are about 100 bytes, and bad bytes are the caller's mistake.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::{Buf as _, Bytes};
use tonic::codec::{BufferSettings, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// Bytes reserved at first for a message in either direction; buffers grow as needed.
const BUFFER_BYTES: usize = 512;
/// Bytes gathered before a streamed body is flushed.
const YIELD_BYTES: usize = 4 * 1024;

/// Encodes `T` and decodes `U`.
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

/// What can come in as a message.
pub trait Received: Sized {
    /// Takes a whole message out of a buffer.
    ///
    /// # Errors
    ///
    /// The bytes are no such message: INVALID_ARGUMENT, with the field that is wrong.
    fn receive(buffer: &mut DecodeBuf<'_>) -> Result<Self, Status>;
}

impl<M: Message + Default> Received for M {
    fn receive(buffer: &mut DecodeBuf<'_>) -> Result<Self, Status> {
        decode_whole(buffer).map_err(|error| undecodable(&error))
    }
}

/// Decodes a message out of one slice: prost goes byte by byte, a batch has thousands of small fields,
/// and every step in a buffer costs more than one in a slice.
///
/// # Errors
///
/// It is no such message.
pub fn decode_whole<U: Message + Default>(
    buffer: &mut DecodeBuf<'_>,
) -> Result<U, prost::DecodeError> {
    U::decode(&*take_whole(buffer))
}

/// The bytes of a message, which are not copied.
pub(crate) fn take_whole(buffer: &mut DecodeBuf<'_>) -> Bytes {
    buffer.copy_to_bytes(buffer.remaining())
}

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

/// The field's path, which prost tells in the error's text only, innermost first: `…: Inner.name:
/// Outer.inner: …`. Empty if the bytes are of no field.
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
    fn what_does_not_decode_names_its_field() {
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
