//! Secrets that are made here, shown once, and kept as a hash.
//!
//! ```text
//! capstan_pt_   52 letters and digits: 256 random bits   7 of them: CRC-32 of everything before
//! ```
//!
//! Letters and digits are those of base 32 (RFC 4648) in lower case: `capstan_pt_[a-z2-7]{59}`. The beginning lets tools
//! that look for secrets find one, and the checksum tells one from a text that only looks like it, without a server.
//!
//! A secret has 256 random bits, so a fast hash keeps it: nobody can try all of them.

use std::fmt;

use capstan_engine::{Path, PathBuf, Timestamp};
use data_encoding::BASE32_NOPAD;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::record::prefix;

/// Random bytes of a secret.
const BYTES: usize = 32;
/// Characters of the checksum.
const CHECKSUM_CHARS: usize = 7;

/// What a secret is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretKind {
    /// A pull token.
    PullToken,
    /// A group invite.
    GroupInvite,
}

impl SecretKind {
    /// What its secrets begin with.
    #[must_use]
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::PullToken => "capstan_pt_",
            Self::GroupInvite => "capstan_inv_",
        }
    }
}

/// A secret. Its `Debug` text does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    kind: SecretKind,
    bytes: [u8; BYTES],
}

/// SHA-256 of a secret. Its `Debug` text does not show it, so that two requests which differ only in it have one text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash([u8; 32]);

impl Secret {
    /// A secret of random bytes.
    #[must_use]
    pub const fn new(kind: SecretKind, random: [u8; BYTES]) -> Self {
        Self { kind, bytes: random }
    }

    /// Reads a secret of this kind; `None` if the text is none.
    #[must_use]
    pub fn parse(kind: SecretKind, text: &str) -> Option<Self> {
        let rest = text.strip_prefix(kind.prefix())?;
        let (secret, _) = rest.split_at_checked(rest.len().checked_sub(CHECKSUM_CHARS)?)?;
        if secret.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        let bytes = BASE32_NOPAD.decode(secret.to_ascii_uppercase().as_bytes()).ok()?;
        let secret = Self { kind, bytes: bytes.try_into().ok()? };
        (secret.text() == text).then_some(secret)
    }

    /// The secret as a text, to be shown once.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = self.kind.prefix().to_owned() + &lower(&self.bytes);
        let checksum = crc32fast::hash(text.as_bytes()).to_be_bytes();
        text += &lower(&checksum);
        text
    }

    /// What is kept of it.
    #[must_use]
    pub fn hash(&self) -> SecretHash {
        let mut hash = Sha256::new();
        hash.update(self.kind.prefix());
        hash.update(self.bytes);
        SecretHash(hash.finalize().into())
    }
}

fn lower(bytes: &[u8]) -> String {
    BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

impl SecretHash {
    /// As it is kept.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// From what was kept.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Whether both are of one secret, in a time that does not depend on where they differ.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// What the store keeps to know the secret of an identity, apart from the identity: no response, export or audit record is
/// made of it.
///
/// ```text
/// key `t`, then the path of the identity ─▶ its create revision: u64   seconds and nanoseconds of its end: i64, u32
///                                           SHA-256 of the secret: 32 bytes
/// ```
///
/// Numbers are big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credential {
    /// The create revision of the identity: an identity that is made again under the same id has no secret of the old one.
    pub created: u64,
    /// The secret counts while the time is before this.
    pub expires_at: Timestamp,
    /// The hash of the secret.
    pub secret: SecretHash,
}

impl Credential {
    /// Its key.
    #[must_use]
    pub fn key(identity: Path<'_>) -> Vec<u8> {
        [&[prefix::CREDENTIAL], identity.as_str().as_bytes()].concat()
    }

    /// Its value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (seconds, nanos) = (self.expires_at.seconds(), self.expires_at.nanos());
        let numbers = [&self.created.to_be_bytes()[..], &seconds.to_be_bytes()].concat();
        [&numbers[..], &nanos.to_be_bytes(), self.secret.bytes()].concat()
    }

    /// The identity of a key; `None` if the key is that of no credential.
    #[must_use]
    pub fn identity(key: &[u8]) -> Option<PathBuf> {
        let path = key.strip_prefix(&[prefix::CREDENTIAL])?;
        std::str::from_utf8(path).ok()?.parse().ok()
    }

    /// Reads what [`Self::encode`] made; `None` if it is something else.
    #[must_use]
    pub fn decode(value: &[u8]) -> Option<Self> {
        let (created, rest) = value.split_first_chunk()?;
        let (seconds, rest) = rest.split_first_chunk()?;
        let (nanos, secret) = rest.split_first_chunk()?;
        let (seconds, nanos) = (i64::from_be_bytes(*seconds), u32::from_be_bytes(*nanos));
        Some(Self {
            created: u64::from_be_bytes(*created),
            expires_at: Timestamp::new(seconds, nanos),
            secret: SecretHash(secret.try_into().ok()?),
        })
    }
}

/// What the store keeps to find an invite by its code, apart from the invite.
///
/// ```text
/// key `c` `h`, then SHA-256 of the code: 32 bytes ─▶ create revision of the invite: u64, then its path
/// key `c` `i`, then the path of the invite        ─▶ SHA-256 of the code: 32 bytes
/// ```
///
/// Numbers are big-endian. The second one is for the delete of an invite, whose code is not known then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InviteCode {
    /// The path of the invite.
    pub invite: PathBuf,
    /// Its create revision: an invite that is made again under the same id has another code.
    pub created: u64,
}

impl InviteCode {
    /// The key by the hash of the code.
    #[must_use]
    pub fn key(code: &SecretHash) -> Vec<u8> {
        [&[prefix::INVITE_CODE, b'h'], &code.bytes()[..]].concat()
    }

    /// The key by the path of the invite. Its value is the hash.
    #[must_use]
    pub fn key_of_invite(invite: Path<'_>) -> Vec<u8> {
        [&[prefix::INVITE_CODE, b'i'], invite.as_str().as_bytes()].concat()
    }

    /// The value by the hash of the code.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [&self.created.to_be_bytes(), self.invite.as_str().as_bytes()].concat()
    }

    /// Reads what [`Self::encode`] made; `None` if it is something else.
    #[must_use]
    pub fn decode(value: &[u8]) -> Option<Self> {
        let (created, path) = value.split_first_chunk()?;
        let invite = std::str::from_utf8(path).ok()?.parse().ok()?;
        Some(Self { invite, created: u64::from_be_bytes(*created) })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: SecretKind = SecretKind::PullToken;

    #[test]
    fn a_secret_is_read_as_it_was_shown() {
        for bytes in [[0; 32], [0xff; 32], *b"\x80 a secret of 32 bytes, any bits"] {
            let secret = Secret::new(KIND, bytes);
            let text = secret.text();
            let (prefix, rest) = text.split_at(11);
            assert_eq!((prefix, rest.len()), ("capstan_pt_", 59), "{text}");
            assert!(rest.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')), "{text}");
            assert_eq!(Secret::parse(KIND, &text), Some(secret.clone()));
            assert!(secret.hash().is(&Secret::parse(KIND, &text).unwrap().hash()));
            assert!(!secret.hash().is(&Secret::new(KIND, [1; 32]).hash()));
            assert!(!format!("{secret:?} {:?}", secret.hash()).contains(rest));
        }
    }

    /// Every text that differs in one character, is shorter, or is longer is none.
    #[test]
    fn a_text_that_is_not_exactly_a_secret_is_none() {
        let text = Secret::new(KIND, [7; 32]).text();
        for at in 0..text.len() {
            for other in ["a", "7", "A", "0", "_", " ", "\0", "ä"] {
                if text[at..=at] != *other {
                    let mut changed = text.clone();
                    changed.replace_range(at..=at, other);
                    assert_eq!(Secret::parse(KIND, &changed), None, "{changed}");
                }
            }
            assert_eq!(Secret::parse(KIND, &text[..at]), None);
        }
        for wrong in [text.to_ascii_uppercase(), format!("{text}a"), format!(" {text}")] {
            assert_eq!(Secret::parse(KIND, &wrong), None, "{wrong}");
        }
    }

    /// What is kept must be found again by every later version.
    #[test]
    fn a_credential_is_read_as_it_was_kept() {
        let (expires_at, secret) = (Timestamp::new(1_800_000_000, 5), SecretHash([9; 32]));
        let credential = Credential { created: 1 << 40 | 7, expires_at, secret };
        let value = credential.encode();
        assert_eq!(Credential::decode(&value), Some(credential));
        assert_eq!(Credential::decode(&value[1..]), None);
        assert_eq!(Credential::decode(&[&*value, b"x"].concat()), None);
        let key = Credential::key(Path::parse("acme/x").unwrap());
        assert_eq!(key, b"tacme/x");
        assert_eq!(Credential::identity(&key).unwrap().as_str(), "acme/x");
        assert_eq!(Credential::identity(b"iacme/x"), None);
    }

    #[test]
    fn a_code_is_found_again_as_it_was_kept() {
        let code = InviteCode { invite: "acme/x".parse().unwrap(), created: 1 << 40 | 7 };
        assert_eq!(InviteCode::decode(&code.encode()), Some(code.clone()));
        assert_eq!(InviteCode::decode(&code.encode()[..8]), None, "no path");
        assert_eq!(InviteCode::decode(b"short"), None);
        assert_eq!(InviteCode::key(&SecretHash([9; 32])), [&b"ch"[..], &[9; 32]].concat());
        assert_eq!(InviteCode::key_of_invite(code.invite.as_path()), b"ciacme/x");
    }

    /// A secret of one kind is none of another, and has another hash.
    #[test]
    fn kinds_of_secrets_are_told_apart() {
        let [token, invite] =
            [SecretKind::PullToken, SecretKind::GroupInvite].map(|kind| Secret::new(kind, [7; 32]));
        assert!(!token.hash().is(&invite.hash()));
        assert_eq!(Secret::parse(SecretKind::PullToken, &invite.text()), None);
        assert_eq!(Secret::parse(SecretKind::GroupInvite, &invite.text()), Some(invite));
    }

    #[test]
    fn the_hash_of_this_version() {
        let secret = Secret::new(KIND, [42; 32]);
        assert_eq!(
            secret.text(),
            "capstan_pt_fivcukrkfivcukrkfivcukrkfivcukrkfivcukrkfivcukrkfivaplndqyy"
        );
        let hex: String = secret.hash().bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "96d63f7bc2f4f1a2ca3439766338837def7edfde5768cded62d080baed332a5e");
    }
}
