//! Access tokens that the server signs itself (RFC 9068), for a token of somebody else (RFC 8693).
//!
//! ```text
//! token of an issuer, verified ─▶ its claims, the key that signed it, whom it was shown for ─┬▶ access token
//! subtree, capabilities ─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! An access token carries the claims of what it was made for, so that whom they prove is judged again at each revision, as if
//! the first token were shown: what takes that away takes this away.
//!
//! **Invariants**: a token that was made for an access token ends no later, and can no more. Nothing here looks at the store.

use std::collections::BTreeSet;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use capstan_engine::{PathBuf, Timestamp};
use capstan_events::Signer;
use capstan_iam::{Algorithm, Narrowing};
use serde::{Deserialize, Serialize};

use super::keys::SignedBy;
use super::remembered::{Named, Verified};
use super::token::Claims;
use crate::limits::{ACCESS_TOKEN_LIFETIME, TOKEN_BYTES_MAX};

/// `typ` of the header (RFC 9068, section 2.1).
const TYPE: &str = "at+jwt";
/// The claim with what the token was made for.
pub(crate) const SUBJECT_TOKEN: &str = "subject_token";

/// What an access token says beside what it was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Issued {
    /// The server's key that signed it.
    pub(crate) by: SignedBy,
    /// `sub`: the identity.
    pub(crate) identity: PathBuf,
    /// The revision that made the identity, if it is below a group: one that is made again is another one.
    pub(crate) created: Option<u64>,
    /// When the token that it was made for was looked at.
    pub(crate) at: Timestamp,
    /// `exp`.
    pub(crate) ends: Timestamp,
    /// What it is held to.
    pub(crate) narrowing: Option<Arc<Narrowing>>,
}

impl Issued {
    /// Whether an identity that was made at this revision is the one that it was issued to.
    pub(crate) fn is_of(&self, identity: &PathBuf, created: Option<u64>) -> bool {
        // A root identity is one person for ever, and may be registered meanwhile.
        identity.as_path().parent().is_none() || self.created == created
    }
}

#[derive(Serialize)]
struct Body<'b> {
    iss: &'b str,
    sub: &'b str,
    aud: &'b str,
    /// Required by RFC 9068, section 2.2. Clients are not registered: whoever has the first token is one.
    client_id: &'b str,
    iat: i64,
    exp: i64,
    jti: &'b str,
    /// The capabilities (RFC 8693, section 4.2).
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'b str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subtree: Option<&'b str>,
    subject_token: &'b SubjectToken,
}

/// What an access token was made for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SubjectToken {
    /// Its second part, in base64url.
    claims: String,
    /// The key that signed it, in base64url.
    key: String,
    /// The algorithm that it was signed with.
    alg: String,
    /// When it was looked at.
    at: i64,
    /// Whether the identity was named.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    named: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    association: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<u64>,
}

/// Why no access token is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IssueError {
    /// The first token is too long to be carried.
    #[error(
        "the token is too long to be exchanged: an access token that carries it has more than {TOKEN_BYTES_MAX} bytes"
    )]
    TooLong,
    /// The system has no random numbers.
    #[error("no random numbers")]
    Random,
}

/// A new access token.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AccessToken {
    pub(crate) text: String,
    pub(crate) ends: Timestamp,
}

impl std::fmt::Debug for AccessToken {
    /// Without the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessToken").field("ends", &self.ends).finish_non_exhaustive()
    }
}

/// What is put into a new access token.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// What it is made for.
    pub(crate) verified: &'a Verified,
    pub(crate) identity: &'a PathBuf,
    pub(crate) created: Option<u64>,
    pub(crate) audience: &'a str,
    pub(crate) narrowing: Option<&'a Narrowing>,
    /// When what it is made for ends by itself: only an access token, and keys that an identity has itself.
    pub(crate) ends: Option<Timestamp>,
}

/// Signs an access token.
///
/// # Errors
///
/// See [`IssueError`].
pub(crate) fn issue(
    signer: &Signer,
    asked: &Asked<'_>,
    now: Timestamp,
) -> Result<AccessToken, IssueError> {
    let Asked { verified, identity, created, audience, narrowing, ends } = *asked;
    let latest = now.seconds().saturating_add(ACCESS_TOKEN_LIFETIME);
    let exp = ends.map_or(latest, |end| end.seconds().min(latest));
    let (association, service) = match &verified.named {
        Named::Service { association, service } => {
            (Some(association.to_string()), Some(service.to_string()))
        }
        Named::Nobody | Named::Identity(_) => (None, None),
    };
    let subject_token = SubjectToken {
        claims: verified.body.to_string(),
        key: URL_SAFE_NO_PAD.encode(verified.by.key),
        alg: verified.by.algorithm.name().to_owned(),
        at: verified.issued.as_ref().map_or(now, |issued| issued.at).seconds(),
        named: matches!(verified.named, Named::Identity(_)),
        association,
        service,
        created,
    };
    let mut id = [0; 16];
    getrandom::fill(&mut id).map_err(|_| IssueError::Random)?;
    let scope = narrowing.and_then(scope_of);
    let body = Body {
        iss: signer.issuer().as_str(),
        sub: identity.as_str(),
        aud: audience,
        client_id: identity.as_str(),
        iat: now.seconds(),
        exp,
        jti: &URL_SAFE_NO_PAD.encode(id),
        scope: scope.as_deref(),
        subtree: narrowing.and_then(|all| all.subtree.as_ref()).map(PathBuf::as_str),
        subject_token: &subject_token,
    };
    let text = signer.sign_claims(TYPE, &body).map_err(|_| IssueError::Random)?;
    if text.len() > TOKEN_BYTES_MAX {
        return Err(IssueError::TooLong);
    }
    Ok(AccessToken { text, ends: Timestamp::new(exp, 0) })
}

/// The capabilities as OAuth writes them: names with spaces between.
pub(crate) fn scope_of(narrowing: &Narrowing) -> Option<String> {
    let names = narrowing.capabilities.as_ref()?;
    Some(names.iter().map(String::as_str).collect::<Vec<_>>().join(" "))
}

/// Reads the claims of an access token that this key of the server has signed: what it was made for, and what it says itself.
/// `None` if the server has not made it so.
pub(crate) fn read(claims: &Claims, by: SignedBy) -> Option<Verified> {
    let text = |name: &str| claims.all.get(name).map(|value| value.as_str().ok_or(()));
    let (Ok(scope), Ok(subtree)) = (text("scope").transpose(), text("subtree").transpose()) else {
        return None;
    };
    let narrowing = match (scope, subtree) {
        (None, None) => None,
        (scope, subtree) => {
            let subtree = subtree.map(str::parse).transpose().ok()?;
            Some(Arc::new(Narrowing { subtree, capabilities: scope.map(capabilities) }))
        }
    };
    let subject_token = claims.all.get(SUBJECT_TOKEN)?;
    let of = SubjectToken::deserialize(subject_token).ok()?;
    let identity: PathBuf = claims.subject.parse().ok()?;
    let named = match (of.named, of.association, of.service) {
        (false, None, None) => Named::Nobody,
        (true, None, None) => Named::Identity(identity.clone()),
        (false, Some(association), Some(service)) => {
            Named::Service { association: association.parse().ok()?, service: service.into() }
        }
        _ => return None,
    };
    let key = URL_SAFE_NO_PAD.decode(of.key).ok()?.try_into().ok()?;
    let signed_by = SignedBy { key, algorithm: Algorithm::of(&of.alg)? };
    let (created, at, ends) = (of.created, Timestamp::new(of.at, 0), claims.expires_at);
    let issued = Issued { by, identity, created, at, ends, narrowing };
    Some(Verified { body: of.claims.into(), named, by: signed_by, issued: Some(issued) })
}

/// Names with spaces between; no capability for none.
pub(crate) fn capabilities(scope: &str) -> BTreeSet<String> {
    scope.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// What is held to both; `None` if the second is not within the first.
pub(crate) fn within(first: Option<&Narrowing>, then: Narrowing) -> Option<Narrowing> {
    let Some(first) = first else { return Some(then) };
    let subtree = match (&first.subtree, then.subtree) {
        (Some(outer), Some(inner)) if !outer.as_path().contains(inner.as_path()) => return None,
        (outer, inner) => inner.or_else(|| outer.clone()),
    };
    let capabilities = match (&first.capabilities, then.capabilities) {
        (Some(outer), Some(inner)) if !inner.is_subset(outer) => return None,
        (outer, inner) => inner.or_else(|| outer.clone()),
    };
    Some(Narrowing { subtree, capabilities })
}

#[cfg(test)]
mod tests {
    use capstan_events::{PublicUrl, SigningKey};

    use super::*;
    use crate::authn::keys::KeySet;
    use crate::authn::token::Token;
    use crate::clock::Clock;

    fn narrowing(subtree: Option<&str>, scope: Option<&str>) -> Narrowing {
        let subtree = subtree.map(|path| path.parse().unwrap());
        Narrowing { subtree, capabilities: scope.map(capabilities) }
    }

    fn verified(named: Named) -> Verified {
        let body = URL_SAFE_NO_PAD.encode(r#"{"iss":"https://a"}"#);
        let by = SignedBy { key: [7; 32], algorithm: Algorithm::Ps384 };
        Verified { body: body.into(), named, by, issued: None }
    }

    fn signer() -> Signer {
        let at = tempfile::tempdir().unwrap();
        let url = PublicUrl::parse("https://iam.example.com").unwrap();
        let key = SigningKey::generate(&at.path().join("key.pem")).unwrap();
        Signer::new(url, key, vec![]).unwrap()
    }

    #[test]
    fn what_is_issued_is_read_as_it_was_asked_for() {
        let signer = signer();
        let keys = KeySet::read(signer.jwks().as_bytes(), None).unwrap();
        let now = Clock::System.now();
        let identity: PathBuf = "acme/ci".parse().unwrap();
        let service = Named::Service { association: "acme".parse().unwrap(), service: "S".into() };
        for (named, narrowing, created, ends) in [
            (Named::Nobody, None, None, None),
            (Named::Identity(identity.clone()), Some(narrowing(Some("acme"), None)), Some(7), None),
            (service, Some(narrowing(None, Some("a.b c.d"))), Some(7), Some(now)),
            (Named::Nobody, Some(narrowing(Some("acme"), Some(""))), None, None),
        ] {
            let verified = verified(named);
            let asked = Asked {
                verified: &verified,
                identity: &identity,
                created,
                audience: "https://iam.example.com",
                narrowing: narrowing.as_ref(),
                ends,
            };
            let made = issue(&signer, &asked, now).unwrap();
            let token = Token::read(&made.text, now).unwrap();
            let key = keys.verify(&token).unwrap();
            let read = read(&token.claims, key).unwrap();
            let (body, named) = (read.body.clone(), read.named.clone());
            assert_eq!((body, named, read.by), (verified.body, verified.named, verified.by));
            let issued = read.issued.unwrap();
            assert_eq!(issued.narrowing.as_deref(), narrowing.as_ref());
            assert_eq!((issued.created, &issued.identity), (created, &identity));
            let latest = now.seconds() + ACCESS_TOKEN_LIFETIME;
            let end = ends.map_or(latest, Timestamp::seconds);
            assert_eq!((issued.ends.seconds(), made.ends.seconds()), (end, end));
            assert_eq!(issued.at.seconds(), now.seconds());
        }
        let long = Verified { body: "x".repeat(TOKEN_BYTES_MAX).into(), ..verified(Named::Nobody) };
        let asked = Asked {
            verified: &long,
            identity: &identity,
            created: None,
            audience: "a",
            narrowing: None,
            ends: None,
        };
        assert_eq!(issue(&signer, &asked, now), Err(IssueError::TooLong));
    }

    #[test]
    fn a_token_of_an_access_token_can_no_more() {
        let outer = narrowing(Some("acme/shop"), Some("a.b c.d"));
        let then = |subtree, scope| within(Some(&outer), narrowing(subtree, scope));
        assert_eq!(then(None, None).as_ref(), Some(&outer));
        let inner = narrowing(Some("acme/shop/x"), Some("a.b"));
        assert_eq!(then(Some("acme/shop/x"), Some("a.b")), Some(inner));
        for (subtree, scope) in
            [(Some("acme"), None), (Some("acme/shop2"), None), (None, Some("a.b e.f"))]
        {
            assert_eq!(then(subtree, scope), None, "{subtree:?} {scope:?}");
        }
        assert_eq!(within(None, outer.clone()), Some(outer));
    }
}
