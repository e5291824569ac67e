//! Who calls: what a call says of its caller, compared with the store.
//!
//! ```text
//! certificate ─▶ identity that is named ─▶ its SPIFFE ID or DNS name is the certificate's?
//! secret ─▶ hash ─▶ pull token of the served revision
//! token ─▶ remembered, at this revision? ──────────────────────────────────────────────┐
//!    └▶ read ─▶ identity that is named, or the one derived from issuer and subject      ├▶ identity
//!           ─▶ how it authenticates, and whose keys ─▶ signature ─▶ remembered ─────────┘
//! access token ─▶ signature of the server's own key ─▶ the token that it was made for, as above
//! ```
//!
//! **Invariants** (R9 and R13 of the privilege rules): a token alone finds a root identity with this literal issuer and
//! subject, and no other. Identities below a group, and patterns, are reached by naming them. For a root identity the issuer
//! must be trusted by the operator; for one of an organization, by the operator or by a provider of that organization. Keys of an
//! identity's own prove no other identity. By an account association a token finds an identity below its group that has no other way to
//! prove itself, and only in exchange. All credentials that prove nothing are one error, and the log says why.

mod own;
mod trust;
mod whose;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use capstan_engine::{PathBuf, Timestamp};
use capstan_iam::{Authentication, Identity, Kind, Object};
use tokio::sync::Semaphore;

use crate::RequestError;
use crate::authn::caller::{CallerKind, Claim, Proof};
use crate::authn::credential::Authorization;
use crate::authn::guesses::{Attempt, Guesses, Place};
use crate::authn::issuers::Issuers;
use crate::authn::keys::SignedBy;
use crate::authn::remembered::{Named, Remembered, TokenDigest, Tokens, Verified};
use crate::authn::secrets::Secrets;
use crate::authn::token::{Claims, Token, has_header};
use crate::clock::Clock;
use crate::feed::management::{Management, viewed};
use crate::feed::{Current, Freshness, Published};
use crate::limits::{REFUSAL_LOGGED, TOKEN_READS_MAX};
use crate::signing::Signing;
use crate::telemetry::metrics::{Metrics, ShedScope};
use crate::transport::tls::ClientCertificate;
use trust::Trusted;
use whose::{Finder, Keys, Whose};

pub(crate) use own::{ExchangeError, Exchanged};
pub use trust::{Options, TrustedIssuer};
pub(crate) use trust::{Trust, TrustFiles};

/// Finds out who calls. Clones share what they know.
#[derive(Clone, Debug)]
pub(crate) struct Callers(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    published: Arc<Published>,
    /// The store's; `None` if the policy is a file: who may read that is a matter of `askers`, and nobody changes it.
    management: Option<Arc<dyn Management>>,
    /// `None` if nothing is discovered.
    issuers: Option<Issuers>,
    /// What the server signs with; `None` if it signs nothing.
    signing: Option<Signing>,
    /// The keys of issuers that the operator trusts; `None` for discovered ones.
    trusted: Arc<ArcSwap<Trusted>>,
    /// Those that tokens of trusted issuers may be signed with; all without any.
    algorithms: Vec<String>,
    audiences: Vec<String>,
    remembered: Tokens,
    guesses: Guesses,
    clock: Clock,
    metrics: Arc<Metrics>,
    /// Permits to read the store, for what was proved before.
    reads: Arc<Semaphore>,
    /// The same for tokens that have proved nothing yet: they delay nobody who has.
    strangers: Arc<Semaphore>,
}

impl Callers {
    pub(crate) fn new(
        (published, management): (&Arc<Published>, Option<&Arc<dyn Management>>),
        (issuers, signing): (Option<Issuers>, Option<Signing>),
        trust: Trust,
        clock: Clock,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let Trust { trusted, algorithms, audiences } = trust;
        for (issuer, keys) in &trusted.load().keys {
            if let (None, Some(issuers)) = (keys, &issuers) {
                issuers.keep(issuer);
            }
        }
        Self(Arc::new(Parts {
            published: Arc::clone(published),
            management: management.cloned(),
            issuers,
            signing,
            trusted,
            algorithms,
            audiences,
            remembered: Tokens::default(),
            guesses: Guesses::default(),
            clock,
            metrics: Arc::clone(metrics),
            reads: Arc::new(Semaphore::new(TOKEN_READS_MAX)),
            strangers: Arc::new(Semaphore::new(TOKEN_READS_MAX)),
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
            Claim::Certificate { path, certificate } => {
                self.by_certificate(path, certificate).await
            }
            // Who may read a policy file is a matter of `askers`.
            Claim::Authorization { .. } if self.0.management.is_none() => {
                return Ok(CallerKind::Nobody);
            }
            Claim::Authorization { header, named, place } => {
                self.by_authorization(&header, named, place).await
            }
        };
        self.0.metrics.credential(resolved.is_ok());
        resolved
    }

    /// Whom a claim proves, if that is known without looking anything up; `None` if it is not, or proves nobody.
    pub(crate) fn known(&self, claim: &Claim) -> Option<CallerKind> {
        let Claim::Authorization { header, named, place } = claim else { return None };
        let shown = Authorization::read(header)?;
        let (current, now) = (self.0.published.current()?, self.0.clock.now());
        let attempt = self.attempt(&current.secrets, *place, now);
        if let Some(found) = by_secret(&shown, &attempt, named.as_ref()) {
            return found.ok();
        }
        let found = self.0.remembered.get(&digest_of(&shown, named.as_ref())?, now)?;
        self.is_current(&found, current.snapshot.revision()).then(|| identity(found))
    }

    /// Whether a claim's token was verified before, at whichever revision: it is no stranger's.
    pub(crate) fn is_remembered(&self, claim: &Claim) -> bool {
        let Claim::Authorization { header, named, .. } = claim else { return false };
        let shown = Authorization::read(header);
        let token = shown.and_then(|shown| digest_of(&shown, named.as_ref()));
        token.is_some_and(|token| self.0.remembered.get(&token, self.0.clock.now()).is_some())
    }

    /// Whether what [`Self::known`] has found counts as it did, without looking anything up.
    pub(crate) fn still(&self, kind: &CallerKind, current: &Current) -> bool {
        let CallerKind::Identity { path, proof, .. } = kind else { return false };
        let now = self.0.clock.now();
        match proof {
            Proof::Secret(by) => current.secrets.proves(by, path, now),
            Proof::Token(found) => {
                now < found.counts_until && self.is_current(found, current.snapshot.revision())
            }
            Proof::Header | Proof::Certificate { .. } => false,
        }
    }

    /// Whom a claim proves, also with a policy file: its secrets prove identities.
    ///
    /// # Errors
    ///
    /// As [`Self::resolve`].
    pub(crate) async fn prove(&self, claim: Claim) -> Result<CallerKind, RequestError> {
        let proved = match claim {
            Claim::Authorization { header, named, place } => {
                self.by_authorization(&header, named, place).await
            }
            other => return self.resolve(other).await,
        };
        self.0.metrics.credential(proved.is_ok());
        proved
    }

    /// The caller as it is proved now: time passes between the head of a call and its body, in a wait for a revision, and in a
    /// stream. What is as it was costs a comparison.
    ///
    /// # Errors
    ///
    /// As [`Self::resolve`].
    pub(crate) async fn prove_again(&self, kind: CallerKind) -> Result<CallerKind, RequestError> {
        let CallerKind::Identity { path, email, proof } = kind else { return Ok(kind) };
        let now = self.0.clock.now();
        let current = self.0.published.read(Freshness::Any).await?;
        let revision_now = current.snapshot.revision();
        match proof {
            Proof::Certificate { certificate, revision }
                if revision != revision_now || !certificate.counts() =>
            {
                self.by_certificate(path, certificate).await
            }
            Proof::Secret(by) if !current.secrets.proves(&by, &path, now) => {
                Err(refused("a secret counts no more"))
            }
            Proof::Token(found) if now >= found.counts_until => {
                Err(refused("the time of a token is over"))
            }
            Proof::Token(found) if !self.is_current(&found, revision_now) => {
                let found = self.judge(&self.0.reads, &found.verified, now).await?;
                let is_same = found.identity == path;
                is_same.then(|| identity(found)).ok_or_else(|| refused("a token of somebody else"))
            }
            proof => Ok(CallerKind::Identity { path, email, proof }),
        }
    }

    /// Whether a token is still of whom it was, as nothing has changed.
    fn is_current(&self, found: &Remembered, revision: u64) -> bool {
        found.revision == revision
            && found.trust == self.0.trusted.load().generation
            && found.verified.issued.as_ref().is_none_or(|issued| self.signs_with(&issued.by))
            && found.issuer.as_ref().is_none_or(|issuer| {
                let issuers = self.0.issuers.as_ref();
                issuers.is_some_and(|issuers| issuers.has_key(issuer, &found.verified.by))
            })
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
            if self.is_current(&found, current.snapshot.revision()) {
                return Ok(found);
            }
            match self.judge(&self.0.reads, &found.verified, now).await {
                Ok(found) => {
                    self.0.remembered.insert(digest, found.clone(), now);
                    return Ok(found);
                }
                // Its key may have another name now: it is looked at as if it had never been seen.
                Err(RequestError::AuthnFailed) => self.0.remembered.remove(&digest),
                Err(error) => return Err(error),
            }
        }
        let verified = Arc::new(self.verify(text, named.into(), now).await?);
        let found = self.judge(&self.0.reads, &verified, now).await?;
        self.0.remembered.insert(digest, found.clone(), now);
        Ok(found)
    }

    /// Reads a token and verifies its signature. Whom it proves is not judged yet.
    async fn verify(
        &self,
        text: &str,
        named: Named,
        now: Timestamp,
    ) -> Result<Verified, RequestError> {
        let token = Token::read(text, now).map_err(|problem| refused(&problem.to_string()))?;
        if self.is_own(&token) {
            return self.verify_own(&token, &named);
        }
        let (claims, wanted) = (token.claims.clone(), named.clone());
        let algorithm = token.algorithm;
        let candidate = self.find(&self.0.strangers, now, claims, move |finder| {
            finder.candidate(&wanted, algorithm)
        });
        let keys = candidate.await?.0.keys;
        let by = self.signed_by(&keys, &token).await?;
        Ok(Verified { body: token.body.into(), named, by, issued: None })
    }

    async fn by_authorization(
        &self,
        header: &str,
        named: Option<PathBuf>,
        place: Place,
    ) -> Result<CallerKind, RequestError> {
        let Some(shown) = Authorization::read(header) else {
            return Err(refused("a header of another scheme, or too long"));
        };
        let current = self.0.published.read(Freshness::Any).await?;
        let now = self.0.clock.now();
        let attempt = self.attempt(&current.secrets, place, now);
        if let Some(found) = by_secret(&shown, &attempt, named.as_ref()) {
            return found;
        }
        self.failed(&shown, &attempt)?;
        let Some((token, user)) = shown.token() else {
            return Err(refused("neither a secret of an identity nor a token"));
        };
        let token = token.to_owned();
        drop(shown);
        let named = one_of(named, user)?;
        self.by_token(&token, named).await.map(identity)
    }

    /// A look at secrets that a call or a request shows.
    pub(crate) fn attempt<'a>(
        &'a self,
        secrets: &'a Secrets,
        place: Place,
        now: Timestamp,
    ) -> Attempt<'a> {
        Attempt::new((secrets, &self.0.guesses), place, now)
    }

    /// Counts secrets that have proved nothing.
    ///
    /// # Errors
    ///
    /// [`RequestError::GuessesWait`]: they were not looked at, since too many came from there before.
    pub(crate) fn failed(
        &self,
        shown: &Authorization<'_>,
        attempt: &Attempt<'_>,
    ) -> Result<(), RequestError> {
        let token = shown.token().filter(|_| self.0.management.is_some());
        let is_signed = token.is_some_and(|(token, _)| has_header(token));
        if is_signed || attempt.failed() {
            return Ok(());
        }
        static LOGGED: Mutex<Option<Instant>> = Mutex::new(None);
        self.0.metrics.shed(ShedScope::Guesses);
        logged(&LOGGED, "too many secrets prove nothing", &attempt.place().to_string());
        Err(RequestError::GuessesWait)
    }

    /// Judges a token whose signature was verified, at the served revision: whom it is of, and whether its key counts.
    async fn judge(
        &self,
        permits: &Arc<Semaphore>,
        token: &Arc<Verified>,
        now: Timestamp,
    ) -> Result<Remembered, RequestError> {
        let issued = token.issued.as_ref();
        let claims = Claims::read(&token.body, issued.map_or(now, |issued| issued.at));
        let mut claims = claims.map_err(|problem| refused(&problem.to_string()))?;
        if let Some(issued) = issued {
            if !self.signs_with(&issued.by) {
                return Err(refused("the key of an access token counts no more"));
            }
            claims.expires_at = issued.ends;
        }
        let (issuer, expires_at) = (claims.issuer.clone(), claims.expires_at);
        let counts_until = claims.counts_until();
        // Before the keys are looked at: what is read meanwhile has it judged again.
        let trust = self.0.trusted.load().generation;
        let (named, by) = (token.named.clone(), token.by);
        let judged = self.find(permits, now, claims, move |finder| {
            let candidate = finder.candidate(&named, by.algorithm)?;
            let is_published = match &candidate.keys {
                Keys::Given(keys) if !keys.contains(&by) => return Err(no_keys()),
                Keys::Given(_) => false,
                Keys::Published => true,
            };
            Ok((finder.judge(candidate, &by)?, is_published))
        });
        let ((whose, is_published), revision) = judged.await?;
        let issuer: Option<Arc<str>> = is_published.then(|| issuer.into());
        if let Some(issuer) = &issuer {
            let issuers = self.0.issuers.as_ref().ok_or_else(no_keys)?;
            if !issuers.still_has_key(issuer, &token.by).await {
                return Err(no_keys());
            }
        }
        let Whose { identity, email, session, keys_end, created } = whose;
        if let Some(issued) = issued
            && !(issued.identity == identity && issued.is_of(&identity, created))
        {
            return Err(refused("an access token of another identity"));
        }
        let until = |end: Timestamp| keys_end.map_or(end, |keys| keys.min(end));
        Ok(Remembered {
            verified: Arc::clone(token),
            identity,
            created,
            email,
            session,
            revision,
            trust,
            issuer,
            keys_end,
            expires_at: until(expires_at),
            counts_until: until(counts_until),
        })
    }

    /// The key that has signed a token.
    async fn signed_by(&self, keys: &Keys, token: &Token<'_>) -> Result<SignedBy, RequestError> {
        let key = match keys {
            Keys::Given(keys) => keys.verify(token),
            Keys::Published => {
                let issuers = self.0.issuers.as_ref().ok_or_else(no_keys)?;
                let keys = issuers.keys(&token.claims.issuer, token).await.ok_or_else(no_keys)?;
                keys.verify(token)
            }
        };
        key.ok_or_else(|| refused("the signature is of no key that counts"))
    }

    /// Compares claims with the store at the served revision, on a thread that may block.
    async fn find<A: Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        now: Timestamp,
        claims: Claims,
        find: impl FnOnce(&Finder<'_>) -> Result<A, RequestError> + Send + 'static,
    ) -> Result<(A, u64), RequestError> {
        let Some(management) = &self.0.management else { return Err(RequestError::AuthnFailed) };
        let (current, view) = viewed(&self.0.published, Freshness::Any).await?;
        let objects = management.objects(view);
        let parts = Arc::clone(&self.0);
        let found = self.read(permits, move || {
            let trusted = parts.trusted.load();
            find(&Finder {
                objects: &*objects,
                trusted: &trusted.keys,
                algorithms: &parts.algorithms,
                own: &parts.audiences,
                claims: &claims,
                now,
            })
        });
        Ok((found.await?, current.snapshot.revision()))
    }

    /// Whether a client certificate is the one that an identity has, by the served revision.
    async fn by_certificate(
        &self,
        path: PathBuf,
        certificate: ClientCertificate,
    ) -> Result<CallerKind, RequestError> {
        if !certificate.counts() {
            return Err(refused(
                "a certificate that is revoked, or that no authority is trusted for any more",
            ));
        }
        let caller = |revision| {
            let proof = Proof::Certificate { certificate: certificate.clone(), revision };
            CallerKind::Identity { path: path.clone(), email: None, proof }
        };
        // A policy file has no callers: who may read it is a matter of `askers`, and nobody may change it.
        let Some(management) = &self.0.management else {
            let current = self.0.published.read(Freshness::Any).await?;
            return Ok(caller(current.snapshot.revision()));
        };
        let (current, view) = viewed(&self.0.published, Freshness::Any).await?;
        let objects = management.objects(view);
        let id = path.clone();
        let found = self.read(&self.0.reads, move || {
            let found = objects.get(Kind::Identity, id.as_path());
            found.map_err(|_| RequestError::Unreadable)
        });
        match found.await? {
            Some(Object::Identity(Identity {
                authentication: Some(Authentication::ClientCertificate(own)),
                ..
            })) if certificate.names().has(&own) => Ok(caller(current.snapshot.revision())),
            _ => Err(refused("a certificate of another identity")),
        }
    }

    /// Reads the store on a thread that may block.
    async fn read<A: Send + 'static>(
        &self,
        permits: &Arc<Semaphore>,
        read: impl FnOnce() -> Result<A, RequestError> + Send + 'static,
    ) -> Result<A, RequestError> {
        // The semaphore is never closed.
        let permit = Arc::clone(permits).acquire_owned().await.ok();
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

/// Whom a secret proves; `None` if it is none.
///
/// # Errors
///
/// Another identity is named.
fn by_secret(
    shown: &Authorization<'_>,
    attempt: &Attempt<'_>,
    named: Option<&PathBuf>,
) -> Option<Result<CallerKind, RequestError>> {
    let (path, by) = shown.prove(|secret| attempt.find(secret))?;
    attempt.proved(&by);
    if named.is_some_and(|named| *named != path) {
        return Some(Err(refused("a secret of another identity than the one that is named")));
    }
    Some(Ok(CallerKind::Identity { path, email: None, proof: Proof::Secret(by) }))
}

/// The digest of a signed token; `None` if what is shown is none, or names two identities.
fn digest_of(shown: &Authorization<'_>, named: Option<&PathBuf>) -> Option<TokenDigest> {
    let (token, user) = shown.token()?;
    let named = one_of(named.cloned(), user).ok()?;
    Some(TokenDigest::of(token, named.as_ref()))
}

/// The identity that a call names, in a header of its own and as the user of `Basic`.
///
/// # Errors
///
/// They are two.
fn one_of(named: Option<PathBuf>, user: Option<PathBuf>) -> Result<Option<PathBuf>, RequestError> {
    match (named, user) {
        (Some(named), Some(user)) if named != user => Err(refused("two identities are named")),
        (named, user) => Ok(named.or(user)),
    }
}

fn identity(found: Remembered) -> CallerKind {
    let (path, email) = (found.identity.clone(), found.email.clone());
    CallerKind::Identity { path, email, proof: Proof::Token(Box::new(found)) }
}

fn refused(reason: &str) -> RequestError {
    static LOGGED: Mutex<Option<Instant>> = Mutex::new(None);
    logged(&LOGGED, "a credential proves nothing", reason)
}

/// The reason is logged, once a second at most, and the caller is not told it.
pub(crate) fn logged(last: &Mutex<Option<Instant>>, what: &str, reason: &str) -> RequestError {
    let mut logged = last.lock().unwrap_or_else(PoisonError::into_inner);
    if logged.is_none_or(|at| at.elapsed() >= REFUSAL_LOGGED) {
        *logged = Some(Instant::now());
        tracing::info!(reason, "{what}");
    }
    RequestError::AuthnFailed
}

fn no_keys() -> RequestError {
    refused("there is no such key of its issuer")
}
