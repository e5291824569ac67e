//! gRPC frames: each message in a body has a header of flag and length.
//!
//! ```text
//! 1 byte: 1 if compressed, else 0 | 4 bytes, big-endian: length | length bytes: the message
//! ```
//!
//! Source: gRPC over HTTP2, "Length-Prefixed-Message".

use prost::Message;
use prost::bytes::Bytes;

/// Size of a frame's header in bytes.
pub const HEADER_BYTES: usize = 5;

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether the message is compressed, with the encoding in `grpc-encoding`.
    pub compressed: bool,
    /// Length of the message in bytes, after compression.
    pub length: usize,
}

impl Header {
    /// Reads a header at the start of `bytes`. Returns it and the bytes after it. `None` if there
    /// are fewer than [`HEADER_BYTES`] bytes, or the flag is neither 0 nor 1.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let ([flag, length @ ..], rest) = bytes.split_first_chunk::<HEADER_BYTES>()?;
        let compressed = match flag {
            0 => false,
            1 => true,
            _ => return None,
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        Some((Self { compressed, length }, rest))
    }
}

/// Appends the frame of a message, not compressed.
pub fn append(bytes: &mut Vec<u8>, message: &impl Message) {
    let length = message.encoded_len();
    bytes.reserve(HEADER_BYTES + length);
    bytes.push(0);
    // Messages are limited to a few megabytes, so the length fits in 32 bits.
    bytes.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    // A vector grows as needed, so encoding cannot fail.
    message.encode_raw(bytes);
}

/// The frame of a message, not compressed.
pub fn framed(message: &impl Message) -> Bytes {
    let mut bytes = Vec::new();
    append(&mut bytes, message);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1;

    #[test]
    fn a_frame_reads_back_as_it_was_written() {
        let message = v1::CheckRequest { identity: "alice".into(), ..Default::default() };
        let frame = framed(&message);
        let (header, rest) = Header::read(&frame).unwrap();
        assert_eq!(header, Header { compressed: false, length: rest.len() });
        assert_eq!(v1::CheckRequest::decode(rest).unwrap(), message);
    }

    #[test]
    fn incomplete_headers_and_unknown_flags_are_refused() {
        assert_eq!(Header::read(&[0, 0, 0, 0]), None);
        assert_eq!(Header::read(&[2, 0, 0, 0, 0]), None);
        let compressed = Header { compressed: true, length: 1 };
        assert_eq!(Header::read(&[1, 0, 0, 0, 1, 7]), Some((compressed, &[7][..])));
    }
}
