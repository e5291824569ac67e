//! Tokens that were verified, so that the next call with one verifies no signature.
//!
//! **Invariants**: at most [`TOKENS_REMEMBERED_MAX`] are kept, and none by its text: a dump of the memory of this map shows no
//! token. That one is remembered lets nobody in: whether its identity is what it was, and its key still counts, is asked again.

use std::sync::Arc;

use capstan_engine::{PathBuf, Timestamp};
use capstan_iam::{Narrowing, Session};
use dashmap::DashMap;
use sha2::{Digest as _, Sha256};

use super::issued::Issued;
use super::keys::SignedBy;
use crate::limits::TOKENS_REMEMBERED_MAX;

/// Whom the sender of a token says that it is of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Named {
    /// Nobody: the root identity of its issuer and subject is meant.
    #[default]
    Nobody,
    /// This identity.
    Identity(PathBuf),
    /// The identity that does this for the group of an account association.
    Service {
        /// The path of the group.
        association: PathBuf,
        /// The name of the service there.
        service: Box<str>,
    },
}

impl From<Option<PathBuf>> for Named {
    fn from(named: Option<PathBuf>) -> Self {
        named.map_or(Self::Nobody, Self::Identity)
    }
}

/// A token, and the identity that its sender names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub(crate) fn of(token: &str, named: Option<&PathBuf>) -> Self {
        // No token has a NUL byte.
        let hash = Sha256::new().chain_update(token).chain_update([0]);
        Self(hash.chain_update(named.map_or("", PathBuf::as_str)).finalize().into())
    }
}

/// A token whose signature was verified.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verified {
    /// Its claims, as it has them: read, they take many times as much memory.
    pub(crate) body: Box<str>,
    /// Whom its sender names.
    pub(crate) named: Named,
    /// What has signed it.
    pub(crate) by: SignedBy,
    /// What the access token says that was made for it; `None` if it was shown itself.
    pub(crate) issued: Option<Issued>,
}

/// Whom a token proves, at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) verified: Arc<Verified>,
    pub(crate) identity: PathBuf,
    /// The revision that made the identity, if it is registered.
    pub(crate) created: Option<u64>,
    /// An address that an issuer of people has verified.
    pub(crate) email: Option<String>,
    /// The roles that it carries.
    pub(crate) session: Option<Arc<Session>>,
    pub(crate) revision: u64,
    /// Which reading of the keys of trusted issuers.
    pub(crate) trust: u64,
    /// The issuer whose key it must still be; `None` if the key is of the revision, or of a file of the operator's.
    pub(crate) issuer: Option<Arc<str>>,
    /// When the keys of its identity end.
    pub(crate) keys_end: Option<Timestamp>,
    /// When the token or the keys of its identity end.
    pub(crate) expires_at: Timestamp,
    /// The time from which it counts no more, whatever is served.
    pub(crate) counts_until: Timestamp,
}

impl Remembered {
    /// What it is held to.
    pub(crate) fn narrowing(&self) -> Option<&Arc<Narrowing>> {
        self.verified.issued.as_ref()?.narrowing.as_ref()
    }
}

/// Tokens by their digests.
#[derive(Debug, Default)]
pub(crate) struct Tokens(DashMap<TokenDigest, Remembered>);

impl Tokens {
    /// A token that still counts.
    pub(crate) fn get(&self, token: &TokenDigest, now: Timestamp) -> Option<Remembered> {
        let found = self.0.get(token)?.clone();
        if now < found.counts_until {
            return Some(found);
        }
        self.0.remove(token);
        None
    }

    pub(crate) fn insert(&self, token: TokenDigest, found: Remembered, now: Timestamp) {
        if self.0.len() >= TOKENS_REMEMBERED_MAX {
            self.0.retain(|_, one| now < one.counts_until);
        }
        if self.0.len() >= TOKENS_REMEMBERED_MAX {
            let any = self.0.iter().nth(fastrand::usize(..TOKENS_REMEMBERED_MAX / 16));
            let any = any.map(|entry| *entry.key());
            any.map(|any| self.0.remove(&any));
        }
        self.0.insert(token, found);
    }

    pub(crate) fn remove(&self, token: &TokenDigest) {
        self.0.remove(token);
    }
}

#[cfg(test)]
mod tests {
    use capstan_iam::Algorithm;

    use super::*;

    fn remembered(at: i64) -> Remembered {
        let verified = Arc::new(Verified {
            body: "".into(),
            named: Named::Nobody,
            by: SignedBy { key: [0; 32], algorithm: Algorithm::Es256 },
            issued: None,
        });
        let (expires_at, counts_until) = (Timestamp::new(at, 0), Timestamp::new(at + 60, 0));
        Remembered {
            verified,
            identity: "a".parse().unwrap(),
            created: None,
            email: None,
            session: None,
            revision: 1,
            trust: 0,
            issuer: None,
            keys_end: None,
            expires_at,
            counts_until,
        }
    }

    #[test]
    fn so_many_are_remembered_and_none_longer_than_it_counts() {
        let (tokens, now) = (Tokens::default(), Timestamp::new(1_000, 0));
        let digest = |at: usize| TokenDigest::of(&at.to_string(), None);
        for at in 0..TOKENS_REMEMBERED_MAX + 10 {
            tokens.insert(digest(at), remembered(1_000), now);
        }
        assert_eq!(tokens.0.len(), TOKENS_REMEMBERED_MAX);
        assert!(tokens.get(&digest(TOKENS_REMEMBERED_MAX + 9), now).is_some());
        let late = Timestamp::new(1_060, 0);
        assert!(tokens.get(&digest(TOKENS_REMEMBERED_MAX + 9), late).is_none());
        for at in [10_000, 10_001] {
            tokens.insert(digest(at), remembered(2_000), late);
        }
        assert_eq!(tokens.0.len(), 2, "those that are over make room");
        tokens.remove(&digest(10_000));
        assert!(tokens.get(&digest(10_000), late).is_none());
    }

    #[test]
    fn a_token_of_another_named_identity_is_another_one() {
        let (a, b): (PathBuf, PathBuf) = ("a".parse().unwrap(), "b".parse().unwrap());
        let all = [None, Some(&a), Some(&b)].map(|named| TokenDigest::of("x.y.z", named));
        assert!(all[0] != all[1] && all[1] != all[2]);
        assert_eq!(all[1], TokenDigest::of("x.y.z", Some(&a)));
    }
}
