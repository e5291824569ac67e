//! Who calls: what a call says of its caller, compared with the store.
//!
//! ```text
//! certificate ─▶ identity that is named ─▶ its SPIFFE ID is the certificate's?
//! secret ─▶ hash ─▶ pull token of the served revision
//! token ─▶ remembered, at this revision? ──────────────────────────────────────────────┐
//!    └▶ read ─▶ identity that is named, or the one derived from issuer and subject      ├▶ identity
//!           ─▶ how it authenticates, and whose keys ─▶ signature ─▶ remembered ─────────┘
//! ```
//!
//! **Invariants** (R9 and R13 of the privilege rules): a token alone finds a root identity with this literal issuer and
//! subject, and no other. Identities below a group, and patterns, are reached by naming them. For a root identity the issuer
//! must be trusted by the operator; for one of an organization, by the operator or by a provider of that organization. Keys of an
//! identity's own prove no other identity. All credentials that prove nothing are one error, and the log says why.

mod trust;
mod whose;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use capstan_engine::{PathBuf, Timestamp};
use capstan_iam::{Authentication, Kind, Object};
use tokio::sync::Semaphore;

use crate::RequestError;
use crate::authn::caller::{CallerKind, Claim, Proof};
use crate::authn::credential::Authorization;
use crate::authn::issuers::Issuers;
use crate::authn::keys::{KeyDigest, KeySet};
use crate::authn::remembered::{Remembered, TokenDigest, Tokens, Verified};
use crate::authn::token::{Claims, Token};
use crate::clock::Clock;
use crate::feed::management::{Management, viewed};
use crate::feed::{Freshness, Published};
use crate::limits::{REFUSAL_LOGGED, TOKEN_READS_MAX};
use crate::telemetry::metrics::Metrics;
use whose::{Finder, Keys, Whose};

pub(crate) use trust::Trust;
pub use trust::{Options, TrustedIssuer};

/// Finds out who calls. Clones share what they know.
#[derive(Clone, Debug)]
pub(crate) struct Callers(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    published: Arc<Published>,
    /// The store's; `None` if the policy is a file: everybody may read that, and nobody changes it.
    management: Option<Arc<dyn Management>>,
    /// `None` if nothing is discovered.
    issuers: Option<Issuers>,
    /// The keys of issuers that the operator trusts; `None` for discovered ones.
    trusted: HashMap<String, Option<KeySet>>,
    audiences: Vec<String>,
    remembered: Tokens,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Permits to read the store. With one read at a time tokens that prove nothing delay those that do, and no decision.
    reads: Arc<Semaphore>,
}

impl Callers {
    pub(crate) fn new(
        (published, management): (&Arc<Published>, Option<&Arc<dyn Management>>),
        issuers: Option<Issuers>,
        trust: Trust,
        clock: Clock,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let Trust { trusted, audiences } = trust;
        Self(Arc::new(Parts {
            published: Arc::clone(published),
            management: management.cloned(),
            issuers,
            trusted,
            audiences,
            remembered: Tokens::default(),
            clock,
            metrics: Arc::clone(metrics),
            reads: Arc::new(Semaphore::new(TOKEN_READS_MAX)),
        }))
    }

    /// Who calls.
    ///
    /// # Errors
    ///
    /// [`RequestError::AuthnFailed`]: it is not proved. Or the store cannot be read.
    pub(crate) async fn resolve(&self, claim: Claim) -> Result<CallerKind, RequestError> {
        let resolved = match claim {
            Claim::Settled(kind) => return Ok(kind),
            Claim::Certificate { path, spiffe_id } => {
                let is_its_own = self.has_certificate(path.clone(), spiffe_id.clone()).await?;
                let proof = Proof::Certificate(spiffe_id);
                let kind = CallerKind::Identity { path, email: None, proof };
                is_its_own.then_some(kind).ok_or(RequestError::AuthnFailed)
            }
            // Everybody may read a policy file.
            Claim::Authorization { .. } if self.0.management.is_none() => {
                return Ok(CallerKind::Nobody);
            }
            Claim::Authorization { header, named } => self.by_authorization(&header, named).await,
        };
        self.0.metrics.credential(resolved.is_ok());
        resolved
    }

    /// Whether what proved a caller still does: for a stream, which outlives the revision that it began at.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub(crate) async fn still_proves(&self, kind: &CallerKind) -> Result<bool, RequestError> {
        let CallerKind::Identity { path, proof, .. } = kind else { return Ok(true) };
        let now = self.0.clock.now();
        match proof {
            Proof::Header => Ok(true),
            Proof::Certificate(own) => self.has_certificate(path.clone(), own.clone()).await,
            Proof::Secret(by) => {
                let current = self.0.published.read(Freshness::Any).await?;
                Ok(current.secrets.proves(by, path, now))
            }
            Proof::Token(token, _) => match self.judge(token, now).await {
                Ok(found) => Ok(found.identity == *path),
                Err(RequestError::AuthnFailed) => Ok(false),
                Err(error) => Err(error),
            },
        }
    }

    /// Whom a signed token proves, at a revision: the identity that is named, if one is.
    ///
    /// # Errors
    ///
    /// As [`Self::resolve`].
    pub(crate) async fn by_token(
        &self,
        text: &str,
        named: Option<PathBuf>,
    ) -> Result<Remembered, RequestError> {
        let now = self.0.clock.now();
        let digest = TokenDigest::of(text, named.as_ref());
        if let Some(found) = self.0.remembered.get(&digest, now) {
            let current = self.0.published.read(Freshness::Any).await?;
            let is_current = found.revision == current.snapshot.revision();
            if is_current && self.has_key(found.issuer.as_deref(), &found.verified.key) {
                return Ok(found);
            }
            return match self.judge(&found.verified, now).await {
                Ok(found) => {
                    self.0.remembered.insert(digest, found.clone(), now);
                    Ok(found)
                }
                Err(error) => {
                    self.0.remembered.remove(&digest);
                    Err(error)
                }
            };
        }
        let token = Token::read(text, now).map_err(|problem| refused(&problem.to_string()))?;
        let claims = token.claims.clone();
        let (whose, revision) = self.whose(claims, named.clone(), now).await?;
        let (key, issuer) = self.signed_by(&whose.keys, &token).await?;
        let verified = Arc::new(Verified { claims: token.claims, named, key });
        let found = remembered(verified, whose, revision, issuer);
        self.0.remembered.insert(digest, found.clone(), now);
        Ok(found)
    }

    async fn by_authorization(
        &self,
        header: &str,
        named: Option<PathBuf>,
    ) -> Result<CallerKind, RequestError> {
        let Some(shown) = Authorization::read(header) else {
            return Err(refused("a header of another scheme, or too long"));
        };
        let current = self.0.published.read(Freshness::Any).await?;
        let now = self.0.clock.now();
        let proved_by = std::cell::RefCell::new(None);
        let found = shown.prove(|secret| {
            let (identity, by) = current.secrets.prove(secret, now)?;
            proved_by.replace(Some(by));
            Some(identity)
        });
        let proved_by = proved_by.into_inner();
        if let (Some(path), Some(by)) = (found, proved_by) {
            if named.is_some_and(|named| named != path) {
                return Err(refused("a secret of another identity than the one that is named"));
            }
            return Ok(CallerKind::Identity { path, email: None, proof: Proof::Secret(by) });
        }
        let Some((token, user)) = shown.token() else {
            return Err(refused("neither a secret of an identity nor a token"));
        };
        let token = token.to_owned();
        drop(shown);
        let named = match (named, user) {
            (Some(named), Some(user)) if named != user => {
                return Err(refused("two identities are named"));
            }
            (named, user) => named.or(user),
        };
        self.by_token(&token, named).await.map(identity)
    }

    /// Judges a token again whose signature was verified: whom it is of now, and whether its key still counts.
    async fn judge(
        &self,
        token: &Arc<Verified>,
        now: Timestamp,
    ) -> Result<Remembered, RequestError> {
        if !token.claims.counts_at(now) {
            return Err(refused("the time of a token is over"));
        }
        let (whose, revision) = self.whose(token.claims.clone(), token.named.clone(), now).await?;
        let issuer: Option<Arc<str>> = match &whose.keys {
            Keys::Given(keys) if keys.contains(&token.key) => None,
            Keys::Published => {
                let issuer = &token.claims.issuer;
                let Some(issuers) = &self.0.issuers else { return Err(no_keys()) };
                if !issuers.still_has_key(issuer, &token.key).await {
                    return Err(no_keys());
                }
                Some(issuer.as_str().into())
            }
            Keys::Given(_) => return Err(no_keys()),
        };
        Ok(remembered(Arc::clone(token), whose, revision, issuer))
    }

    fn has_key(&self, issuer: Option<&str>, key: &KeyDigest) -> bool {
        issuer.is_none_or(|issuer| {
            self.0.issuers.as_ref().is_some_and(|issuers| issuers.has_key(issuer, key))
        })
    }

    /// The key that has signed a token, and the issuer if it is a published one.
    async fn signed_by(
        &self,
        keys: &Keys,
        token: &Token<'_>,
    ) -> Result<(KeyDigest, Option<Arc<str>>), RequestError> {
        let issuer = &token.claims.issuer;
        let (key, issuer) = match keys {
            Keys::Given(keys) => (keys.verify(token), None),
            Keys::Published => {
                let Some(issuers) = &self.0.issuers else { return Err(no_keys()) };
                let keys = issuers.keys(issuer, token).await.ok_or_else(no_keys)?;
                (keys.verify(token), Some(issuer.as_str().into()))
            }
        };
        key.map(|key| (key, issuer))
            .ok_or_else(|| refused("the signature is of no key that counts"))
    }

    /// Whom the claims of a token are of, by the served revision.
    async fn whose(
        &self,
        claims: Claims,
        named: Option<PathBuf>,
        now: Timestamp,
    ) -> Result<(Whose, u64), RequestError> {
        let Some(management) = &self.0.management else { return Err(RequestError::AuthnFailed) };
        let (current, view) = viewed(&self.0.published, Freshness::Any).await?;
        let objects = management.objects(view);
        let parts = Arc::clone(&self.0);
        let find = move || {
            let (trusted, own) = (&parts.trusted, &parts.audiences[..]);
            Finder { objects: &*objects, trusted, own, claims: &claims, now }.find(named)
        };
        let whose = self.read(find).await?;
        Ok((whose, current.snapshot.revision()))
    }

    /// Whether a client certificate is the one that an identity has, by the served revision.
    async fn has_certificate(
        &self,
        identity: PathBuf,
        spiffe_id: Box<str>,
    ) -> Result<bool, RequestError> {
        // A policy file has no callers: everybody may read it, and nobody may change it.
        let Some(management) = &self.0.management else { return Ok(true) };
        let (_, view) = viewed(&self.0.published, Freshness::Any).await?;
        let objects = management.objects(view);
        self.read(move || {
            let found = objects.get(Kind::Identity, identity.as_path());
            let found = found.map_err(|_| RequestError::Unreadable)?;
            let Some(Object::Identity(found)) = found else { return Ok(false) };
            Ok(matches!(
                found.authentication,
                Some(Authentication::ClientCertificate(own)) if *own.spiffe_id == *spiffe_id
            ))
        })
        .await
    }

    /// Reads the store on a thread that may block.
    async fn read<A: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<A, RequestError> + Send + 'static,
    ) -> Result<A, RequestError> {
        // The semaphore is never closed.
        let permit = Arc::clone(&self.0.reads).acquire_owned().await.ok();
        let answered = tokio::task::spawn_blocking(move || {
            // Held until the end, also if nobody waits for the answer any more.
            let _permit = permit;
            read()
        });
        match answered.await {
            Ok(answer) => answer,
            Err(error) => match error.try_into_panic() {
                // Admission counts and logs it as any other panic of a call.
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => Err(RequestError::Draining),
            },
        }
    }
}

fn remembered(
    verified: Arc<Verified>,
    whose: Whose,
    revision: u64,
    issuer: Option<Arc<str>>,
) -> Remembered {
    let identity = whose.identity.clone();
    let session = whose.session(&verified.key, &verified.claims);
    Remembered { verified, identity, session, revision, issuer }
}

fn identity(found: Remembered) -> CallerKind {
    let Remembered { verified, identity: path, session, .. } = found;
    let email = verified.claims.verified_email().map(str::to_owned);
    CallerKind::Identity { path, email, proof: Proof::Token(verified, session) }
}

/// The reason is logged, once a second at most, and the caller is not told it.
fn refused(reason: &str) -> RequestError {
    static LOGGED: Mutex<Option<Instant>> = Mutex::new(None);
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if logged.is_none_or(|at| at.elapsed() >= REFUSAL_LOGGED) {
        *logged = Some(Instant::now());
        tracing::info!(reason, "a credential proves nothing");
    }
    RequestError::AuthnFailed
}

fn no_keys() -> RequestError {
    refused("there is no such key of its issuer")
}
