//! Access tokens that the server signs itself: for which tokens it makes one, and which it takes.
//!
//! ```text
//! token of an issuer ─▶ verified, and judged at the served revision ─▶ identity ─▶ access token
//! access token ─▶ signed by a key that counts ─▶ the token that it was made for, judged as if it were shown
//! ```

use std::sync::Arc;

use capstan_engine::Timestamp;
use capstan_iam::Narrowing;

use super::{Callers, refused};
use crate::RequestError;
use crate::authn::issued::{self, AccessToken, Asked, IssueError};
use crate::authn::keys::SignedBy;
use crate::authn::matching::is_for;
use crate::authn::remembered::{Named, Remembered, Verified};
use crate::authn::token::Token;
use crate::feed::Freshness;

/// A token that was exchanged.
#[derive(Debug)]
pub(crate) struct Exchanged {
    pub(crate) token: AccessToken,
    /// What it is held to.
    pub(crate) narrowing: Option<Narrowing>,
    pub(crate) now: Timestamp,
}

/// Why a token is not exchanged.
#[derive(Debug)]
pub(crate) enum ExchangeError {
    /// It proves nobody, or the store cannot be read.
    Request(RequestError),
    /// More was asked for than it can.
    Wider,
    /// It is not for this audience.
    Audience,
    /// It cannot be carried.
    Issue(IssueError),
}

impl From<RequestError> for ExchangeError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

impl Callers {
    /// Makes an access token for a token, narrowed to this.
    ///
    /// # Errors
    ///
    /// See [`ExchangeError`].
    pub(crate) async fn exchange(
        &self,
        text: &str,
        named: Named,
        narrowing: Narrowing,
        audience: Option<&str>,
    ) -> Result<Exchanged, ExchangeError> {
        let found = self.exchangeable(text, named).await;
        self.0.metrics.credential(found.is_ok());
        let found = found?;
        let own = self.0.audiences.iter().find(|own| audience.is_none_or(|wanted| wanted == *own));
        let audience = own.ok_or(ExchangeError::Audience)?;
        let verified = &found.verified;
        let issued = verified.issued.as_ref();
        let outer = issued.and_then(|issued| issued.narrowing.as_deref());
        let narrowing = issued::within(outer, narrowing).ok_or(ExchangeError::Wider)?;
        let narrowing = Some(narrowing).filter(|one| *one != Narrowing::default());
        let signing = self.0.signing.as_ref();
        let signing = signing.ok_or(ExchangeError::Request(RequestError::AuthnFailed))?;
        let now = self.0.clock.now();
        let of_first = issued.map(|issued| issued.ends);
        let ends = [of_first, found.keys_end].into_iter().flatten().min();
        if ends.is_some_and(|end| end <= now) {
            return Err(ExchangeError::Request(refused("what it would end with is over")));
        }
        let asked = Asked {
            verified,
            identity: &found.identity,
            created: found.created,
            audience,
            narrowing: narrowing.as_ref(),
            ends,
        };
        let token =
            issued::issue(&signing.load().signer, &asked, now).map_err(ExchangeError::Issue)?;
        let (identity, is_narrowed) = (&found.identity, narrowing.is_some());
        tracing::info!(%identity, is_narrowed, named = ?verified.named, "a token was exchanged");
        Ok(Exchanged { token, narrowing, now })
    }

    /// Whom a token proves that may be exchanged: not one of an identity that is disabled.
    async fn exchangeable(&self, text: &str, named: Named) -> Result<Remembered, RequestError> {
        let now = self.0.clock.now();
        let verified = Arc::new(self.verify(text, named, now).await?);
        // Exchanges delay nobody who calls with what was proved before.
        let found = self.judge(&self.0.strangers, &verified, now).await?;
        let current = self.0.published.read(Freshness::Any).await?;
        let state = current.snapshot.identity_state(found.identity.as_path());
        // A person may not be registered yet: an invite is accepted with the access token.
        let is_person = found.identity.as_path().parent().is_none();
        let counts =
            state.map_or(is_person, |state| !state.disabled && (state.registered || is_person));
        if !counts {
            return Err(refused("a token of an identity that is disabled, or not registered"));
        }
        Ok(found)
    }

    /// Whether a token says that this server has signed it.
    pub(super) fn is_own(&self, token: &Token<'_>) -> bool {
        let signing = self.0.signing.as_ref();
        signing.is_some_and(|it| it.load().signer.issuer().as_str() == token.claims.issuer)
    }

    /// Whether a key of the server's counts.
    pub(super) fn signs_with(&self, by: &SignedBy) -> bool {
        self.0.signing.as_ref().is_some_and(|it| it.load().verifying.contains(by))
    }

    /// Verifies an access token of this server. What is named beside it must be its identity.
    pub(super) fn verify_own(
        &self,
        token: &Token<'_>,
        named: &Named,
    ) -> Result<Verified, RequestError> {
        let signing = self.0.signing.as_ref().ok_or(RequestError::AuthnFailed)?;
        let by = signing.load().verifying.verify(token);
        let by = by.ok_or_else(|| refused("the signature is of no key of the server's"))?;
        let own: Vec<_> = self.0.audiences.iter().map(String::as_str).collect();
        if !is_for(&token.claims, &own) {
            return Err(refused("an access token for somebody else"));
        }
        let read = issued::read(&token.claims, by);
        let verified = read.ok_or_else(|| refused("a token of the server's for something else"))?;
        let identity = verified.issued.as_ref().map(|issued| &issued.identity);
        let is_named = match named {
            Named::Nobody => true,
            Named::Identity(named) => identity == Some(named),
            Named::Service { .. } => false,
        };
        if is_named { Ok(verified) } else { Err(refused("another identity is named")) }
    }
}
