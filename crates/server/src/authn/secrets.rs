//! Secrets and the identities that they prove, of one revision: those of a policy document, and those of pull tokens.
//!
//! **Invariant**: the pull tokens are those of the same revision as the snapshot, so that a token which is revoked proves
//! nothing from the next request on.

use std::sync::Arc;

use capstan_engine::{PathBuf, Timestamp};
use capstan_iam::{Credential, Secret, SecretHash, SecretKind};
use capstan_policy::Credentials;
use rpds::HashTrieMapSync;
use sha2::{Digest as _, Sha256};

/// The pull tokens of a store, by the hash of their secret. A clone shares what does not change.
#[derive(Clone, Default)]
pub(crate) struct Tokens(HashTrieMapSync<[u8; 32], Arc<Token>>);

#[derive(Debug)]
struct Token {
    identity: PathBuf,
    expires_at: Timestamp,
}

impl Tokens {
    /// Adds the token of an identity.
    pub(crate) fn insert(&mut self, identity: PathBuf, credential: &Credential) {
        let token = Token { identity, expires_at: credential.expires_at };
        self.0.insert_mut(*credential.secret.bytes(), Arc::new(token));
    }

    /// Removes a token.
    pub(crate) fn remove(&mut self, secret: &SecretHash) {
        self.0.remove_mut(secret.bytes());
    }

    /// The number of tokens.
    pub(crate) fn len(&self) -> usize {
        self.0.size()
    }
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tokens({})", self.len())
    }
}

/// The secret that proved an identity, without the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProvedBy {
    secret: SecretDigest,
    /// When it ends; `None` for never.
    pub(crate) expires_at: Option<Timestamp>,
}

impl ProvedBy {
    /// Of the secret.
    pub(crate) const fn digest(&self) -> SecretDigest {
        self.secret
    }

    #[cfg(test)]
    pub(crate) fn declared(secret: &[u8]) -> Self {
        Self { secret: SecretDigest::of(secret), expires_at: None }
    }
}

/// Of which kind a secret is, and its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum SecretDigest {
    Token([u8; 32]),
    Declared([u8; 32]),
}

impl SecretDigest {
    pub(crate) fn of(secret: &[u8]) -> Self {
        let text = std::str::from_utf8(secret).ok();
        match text.and_then(|text| Secret::parse(SecretKind::PullToken, text)) {
            Some(secret) => Self::Token(*secret.hash().bytes()),
            None => Self::Declared(Sha256::digest(secret).into()),
        }
    }
}

/// What proves identities at a revision.
#[derive(Clone, Debug, Default)]
pub(crate) struct Secrets {
    /// Of a policy document; of a store, those of the demo.
    pub(crate) declared: Arc<Credentials>,
    /// Of a store.
    pub(crate) tokens: Tokens,
}

impl Secrets {
    /// The identity of a secret, and what proves it.
    pub(crate) fn prove(
        &self,
        secret: SecretDigest,
        now: Timestamp,
    ) -> Option<(PathBuf, ProvedBy)> {
        let (identity, expires_at) = self.find(secret, now)?;
        Some((identity.clone(), ProvedBy { secret, expires_at }))
    }

    /// Whether a secret still proves an identity.
    pub(crate) fn proves(&self, by: &ProvedBy, identity: &PathBuf, now: Timestamp) -> bool {
        self.find(by.secret, now).is_some_and(|(found, _)| found == identity)
    }

    /// The identity of a secret that counts. The time of the look-up depends on the hash, which nobody can choose.
    fn find(&self, secret: SecretDigest, now: Timestamp) -> Option<(&PathBuf, Option<Timestamp>)> {
        let (identity, expires_at) = match secret {
            SecretDigest::Token(hash) => {
                let token = self.tokens.0.get(&hash)?;
                (&token.identity, Some(token.expires_at))
            }
            SecretDigest::Declared(hash) => {
                let credential = self.declared.get(&hash)?;
                (&credential.identity, credential.expires_at)
            }
        };
        expires_at.is_none_or(|end| now < end).then_some((identity, expires_at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(at: u8) -> Secret {
        Secret::new(SecretKind::PullToken, [at; 32])
    }

    fn credential(at: u8, ends: i64) -> Credential {
        let (expires_at, secret) = (Timestamp::new(ends, 0), secret(at).hash());
        Credential { created: 1, expires_at, secret }
    }

    #[test]
    fn a_token_proves_its_identity_until_it_ends_or_is_removed() {
        let mut secrets = Secrets::default();
        let path = |text: &str| text.parse::<PathBuf>().unwrap();
        let (a, b) = (path("acme/a"), path("acme/b"));
        secrets.tokens.insert(a.clone(), &credential(1, 100));
        secrets.tokens.insert(b.clone(), &credential(2, 200));
        let verify = |secrets: &Secrets, at: u8, now| {
            let secret = SecretDigest::of(secret(at).text().as_bytes());
            let proved = secrets.prove(secret, Timestamp::new(now, 0));
            proved.map(|(identity, _)| identity)
        };
        assert_eq!(verify(&secrets, 1, 99), Some(a));
        assert_eq!(verify(&secrets, 1, 100), None);
        assert_eq!(verify(&secrets, 2, 100), Some(b.clone()));
        assert_eq!(verify(&secrets, 3, 0), None);
        let text = secret(2).text().to_owned();
        let digest = SecretDigest::of(text.as_bytes());
        let proved = |secrets: &Secrets, now| secrets.prove(digest, Timestamp::new(now, 0));
        let (identity, by) = proved(&secrets, 199).unwrap();
        assert_eq!((&identity, by.expires_at), (&b, Some(Timestamp::new(200, 0))));
        let proves = |secrets: &Secrets, identity: &PathBuf, now| {
            secrets.proves(&by, identity, Timestamp::new(now, 0))
        };
        assert!(proves(&secrets, &b, 199) && !proves(&secrets, &b, 200));
        assert!(!proves(&secrets, &path("acme/a"), 199));
        let before = secrets.clone();
        secrets.tokens.remove(&secret(2).hash());
        assert_eq!(verify(&secrets, 2, 0), None);
        assert!(!proves(&secrets, &b, 0) && proves(&before, &b, 0));
        assert_eq!(verify(&before, 2, 0), Some(b), "an earlier revision has it still");
        assert_eq!((secrets.tokens.len(), before.tokens.len()), (1, 2));
        assert_eq!(format!("{:?}", secrets.tokens), "Tokens(1)");
    }
}
