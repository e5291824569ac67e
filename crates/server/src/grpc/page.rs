//! Page tokens: the last entry of a page, and the revision and time of the list.
//!
//! ```text
//! base64url(revision u64 | seconds i64 | nanoseconds u32 | id of the last entry | HMAC-SHA-256, first 16 bytes)
//! ```
//!
//! Integers are little-endian.
//!
//! **Invariants**: all pages of one list have one revision and one time. The MAC covers the
//! request, so a forged token or a token of another request is refused. Servers with the same key
//! can continue each other's lists while they serve the list's revision, or keep it for a list of their own.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use capstan_engine::{Attributes, Cursor, Properties, Snapshot, Timestamp, Value};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use crate::RequestError;
use crate::limits::{PAGE_DEFAULT, PAGE_MAX};

/// Bytes of the MAC in a token: 128 bits, which cannot be guessed.
const MAC_BYTES: usize = 16;

/// The secret key of page tokens.
#[derive(Clone)]
pub struct PageKey([u8; 32]);

impl PageKey {
    /// A key that several servers share, such as the key of a store.
    #[must_use]
    pub const fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// A key for another purpose, that says nothing about this one.
    pub(crate) fn derived(&self, purpose: &[u8]) -> [u8; 32] {
        let mut mac = self.mac();
        mac.update(purpose);
        mac.finalize().into_bytes().into()
    }

    fn mac(&self) -> Hmac<Sha256> {
        // HMAC pads a key that is shorter than a block with zeros (RFC 2104).
        let mut block = [0; 64];
        block.iter_mut().zip(self.0).for_each(|(to, byte)| *to = byte);
        Hmac::<Sha256>::new(&block.into())
    }

    /// A random key of this process. No other server accepts its tokens.
    ///
    /// # Errors
    ///
    /// The system provides no random numbers.
    pub fn random() -> std::io::Result<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).map_err(std::io::Error::other)?;
        Ok(Self(key))
    }
}

impl std::fmt::Debug for PageKey {
    /// The key is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PageKey").finish_non_exhaustive()
    }
}

/// The identity of a list: everything in the request that determines the entries.
#[derive(Debug)]
pub(crate) struct List<'r> {
    /// The name of the method.
    pub(crate) method: &'static str,
    pub(crate) fields: [&'r str; 2],
    pub(crate) attributes: &'r Attributes,
    /// Whether the list has conditional entries, too.
    pub(crate) conditional: bool,
}

/// One page of a list.
pub(crate) struct Page {
    /// The last entry of the page before; `None` for the first page.
    pub(crate) after: Option<String>,
    /// The number of entries of this page, at most.
    pub(crate) size: usize,
    /// The time of the whole list. Otherwise a binding could expire between two pages.
    pub(crate) now: Timestamp,
    revision: u64,
    /// The MAC over key and list, without revision, time and entry.
    mac: Hmac<Sha256>,
}

/// The fields of a token, not yet verified.
struct Token {
    revision: u64,
    now: Timestamp,
    after: String,
    mac: [u8; MAC_BYTES],
}

impl Page {
    /// Parses `page_size` and `page_token` of a request.
    ///
    /// # Errors
    ///
    /// A negative size, a token of another list, or a token of a revision that is no longer kept.
    pub(crate) fn parse(
        key: &PageKey,
        size: i32,
        token: &str,
        list: &List<'_>,
        snapshot: &Snapshot,
        now: Timestamp,
    ) -> Result<Self, RequestError> {
        let size = match usize::try_from(size) {
            Ok(0) => PAGE_DEFAULT,
            Ok(size) => size.min(PAGE_MAX),
            Err(_) => return Err(RequestError::field("page_size", "negative")),
        };
        let (mac, revision) = (list.mac(key), snapshot.revision());
        let first = Self { after: None, size, now, revision, mac };
        if token.is_empty() {
            return Ok(first);
        }
        let refused = || RequestError::field("page_token", "not one that this list gave out");
        let Token { revision, now, after, mac } = Token::parse(token).ok_or_else(refused)?;
        let page = Self { now, revision, ..first };
        page.mac_of(&after).verify_truncated_left(&mac).map_err(|_| refused())?;
        if revision != snapshot.revision() {
            // The token is authentic, but its revision is no longer kept.
            return Err(RequestError::RevisionGone { revision });
        }
        Ok(Self { after: Some(after), ..page })
    }

    /// The page as the engine takes it.
    pub(crate) fn cursor(&self) -> Cursor<'_> {
        Cursor { after: self.after.as_deref(), limit: self.size }
    }

    /// The token of the next page, given the last entry of this one; empty if there is no next
    /// page.
    pub(crate) fn next_token(&self, last: Option<&str>, more: bool) -> String {
        let Some(last) = last.filter(|_| more) else { return String::new() };
        let mut bytes = Vec::with_capacity(20 + last.len() + MAC_BYTES);
        bytes.extend(self.head());
        bytes.extend(last.as_bytes());
        let mac = self.mac_of(last).finalize().into_bytes();
        bytes.extend(mac.iter().take(MAC_BYTES));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn head(&self) -> [u8; 20] {
        let mut head = [0; 20];
        let parts = self.revision.to_le_bytes().into_iter();
        let parts = parts.chain(self.now.seconds().to_le_bytes());
        let parts = parts.chain(self.now.nanos().to_le_bytes());
        head.iter_mut().zip(parts).for_each(|(to, byte)| *to = byte);
        head
    }

    fn mac_of(&self, after: &str) -> Hmac<Sha256> {
        let mut mac = self.mac.clone();
        mac.update(&self.head());
        mac.update(after.as_bytes());
        mac
    }
}

impl Token {
    fn parse(token: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (revision, rest) = bytes.split_first_chunk()?;
        let (seconds, rest) = rest.split_first_chunk()?;
        let (nanos, rest) = rest.split_first_chunk()?;
        let (after, mac) = rest.split_last_chunk()?;
        let now = Timestamp::new(i64::from_le_bytes(*seconds), u32::from_le_bytes(*nanos));
        let after = str::from_utf8(after).ok()?.to_owned();
        Some(Self { revision: u64::from_le_bytes(*revision), now, after, mac: *mac })
    }
}

/// The revision in a token, not verified; `None` if the text is no token.
pub(crate) fn revision(token: &str) -> Option<u64> {
    Some(Token::parse(token)?.revision)
}

impl List<'_> {
    /// The MAC of the list. Each part has its length or type before it, so no two lists have the
    /// same bytes.
    fn mac(&self, key: &PageKey) -> Hmac<Sha256> {
        let mut mac = key.mac();
        let Self { method, fields, attributes, conditional } = self;
        text(&mut mac, method);
        mac.update(&[u8::from(*conditional)]);
        fields.iter().for_each(|field| text(&mut mac, field));
        let Attributes { subject, resource, action, context } = attributes;
        for properties in [subject, resource, action, context] {
            all(&mut mac, properties);
        }
        mac
    }
}

fn text(mac: &mut Hmac<Sha256>, text: &str) {
    mac.update(&(text.len() as u64).to_le_bytes());
    mac.update(text.as_bytes());
}

fn all(mac: &mut Hmac<Sha256>, properties: &Properties) {
    mac.update(&(properties.len() as u64).to_le_bytes());
    for (name, value) in properties {
        text(mac, name);
        match value {
            Value::String(string) => {
                mac.update(&[0]);
                text(mac, string);
            }
            Value::Boolean(boolean) => mac.update(&[1, u8::from(*boolean)]),
            Value::Integer(integer) => {
                mac.update(&[2]);
                mac.update(&integer.to_le_bytes());
            }
        }
    }
}
