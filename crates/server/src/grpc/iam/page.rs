//! Page tokens of management lists: the last object of a page and the revision of the list, encrypted.
//!
//! ```text
//! base64url(nonce, 24 bytes | XChaCha20-Poly1305 of: revision u64, little-endian | id of the last object)
//! ```
//!
//! The associated data is the caller and the request. A token of another caller or of another list does not decrypt.
//! What is in a token stays hidden, because a page may end at an object that the caller may not see.
//!
//! **Invariant**: all pages of one list have one revision.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};

use crate::RequestError;
use crate::grpc::page::PageKey;
use crate::limits::{PAGE_DEFAULT, PAGE_MAX, PAGE_TOKEN_BYTES_MAX};

const NONCE_BYTES: usize = 24;

/// The place at which a page ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The revision of the list.
    pub(super) revision: u64,
    /// The id of the last object that was looked at.
    pub(super) after: String,
}

/// Seals and opens the page tokens of one list.
pub(super) struct Tokens {
    cipher: XChaCha20Poly1305,
    /// Caller and request.
    list: Vec<u8>,
}

impl Tokens {
    /// The tokens of a list. `parts` are everything that determines its entries: caller, method, and fields.
    pub(super) fn new(key: &PageKey, parts: &[&str]) -> Self {
        let mut list = Vec::new();
        for part in parts {
            // The length before each part: no two lists have the same bytes.
            list.extend((part.len() as u64).to_le_bytes());
            list.extend(part.as_bytes());
        }
        Self { cipher: XChaCha20Poly1305::new(&key.derived(b"capstan.iam.v1 pages").into()), list }
    }

    /// The position in a token; `None` for the first page.
    ///
    /// # Errors
    ///
    /// It is no token of this list.
    pub(super) fn open(&self, token: &str) -> Result<Option<Position>, RequestError> {
        if token.is_empty() {
            return Ok(None);
        }
        let refused = || RequestError::field("page_token", "not one that this list gave out");
        self.decrypt(token).map(Some).ok_or_else(refused)
    }

    fn decrypt(&self, token: &str) -> Option<Position> {
        if token.len() > PAGE_TOKEN_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (nonce, msg) = bytes.split_first_chunk::<NONCE_BYTES>()?;
        let payload = Payload { msg, aad: &self.list };
        let plain = self.cipher.decrypt(&XNonce::from(*nonce), payload).ok()?;
        let (revision, after) = plain.split_first_chunk()?;
        let after = str::from_utf8(after).ok()?.to_owned();
        Some(Position { revision: u64::from_le_bytes(*revision), after })
    }

    /// The token of a position.
    ///
    /// # Errors
    ///
    /// The system provides no random numbers.
    pub(super) fn seal(&self, position: &Position) -> Result<String, RequestError> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(|_| RequestError::NotReady)?;
        let mut plain = position.revision.to_le_bytes().to_vec();
        plain.extend(position.after.as_bytes());
        let payload = Payload { msg: &plain, aad: &self.list };
        // Encryption fails only for messages of many gigabytes.
        let sealed = self.cipher.encrypt(&XNonce::from(nonce), payload);
        let sealed = sealed.map_err(|_| RequestError::NotReady)?;
        Ok(URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }
}

/// The number of entries of a page, at most.
///
/// # Errors
///
/// It is negative.
pub(super) fn size(page_size: i32) -> Result<usize, RequestError> {
    match usize::try_from(page_size) {
        Ok(0) => Ok(PAGE_DEFAULT),
        Ok(size) => Ok(size.min(PAGE_MAX)),
        Err(_) => Err(RequestError::field("page_size", "negative")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(parts: &[&str]) -> Tokens {
        Tokens::new(&PageKey::new([7; 32]), parts)
    }

    #[test]
    fn a_token_opens_in_its_own_list_only() {
        let list = tokens(&["alice", "ListGroups", "acme", ""]);
        let position = Position { revision: 1 << 40 | 7, after: "acme/secret".into() };
        let token = list.seal(&position).unwrap();
        assert_eq!(list.open(&token).unwrap(), Some(position.clone()));
        assert_eq!(list.open("").unwrap(), None);
        assert_ne!(list.seal(&position).unwrap(), token, "equal positions look different");
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        assert!(!bytes.windows(6).any(|bytes| bytes == b"secret"), "the id is hidden");

        let other_key = Tokens::new(&PageKey::new([8; 32]), &["alice", "ListGroups", "acme", ""]);
        assert!(other_key.open(&token).is_err());
        for parts in [
            &["bob", "ListGroups", "acme", ""][..],
            &["alice", "ListRoles", "acme", ""],
            &["alice", "ListGroups", "acm", "e"],
            &["alice", "ListGroups", "acme"],
        ] {
            assert!(tokens(parts).open(&token).is_err(), "{parts:?}");
        }
    }

    #[test]
    fn malformed_tokens_are_refused() {
        let list = tokens(&[]);
        let token = list.seal(&Position { revision: 1, after: "a".repeat(1_024) }).unwrap();
        assert!(list.open(&token).is_ok(), "the longest path fits");
        for at in 0..token.len() {
            let mut bytes = token.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            // The last character of base64 has bits that mean nothing.
            if URL_SAFE_NO_PAD.decode(&changed).ok() != URL_SAFE_NO_PAD.decode(&token).ok() {
                assert!(list.open(&changed).is_err(), "{at}");
            }
        }
        let long = "A".repeat(PAGE_TOKEN_BYTES_MAX + 1);
        for refused in ["x", "=", "AAAA", &token[1..], &token[..token.len() - 4], &long] {
            match list.open(refused) {
                Err(RequestError::Field { field, .. }) => assert_eq!(field, "page_token"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn sizes_are_bounded() {
        assert_eq!(size(0).unwrap(), PAGE_DEFAULT);
        assert_eq!(size(7).unwrap(), 7);
        assert_eq!(size(i32::MAX).unwrap(), PAGE_MAX);
        assert!(size(-1).is_err());
    }
}
