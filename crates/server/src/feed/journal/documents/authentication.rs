//! How identities authenticate, as a document says it and as the store holds it.
//!
//! The two differ in form only: a document has a pattern with its anchors, and a set of keys as a mapping.

use capstan_iam::{Authentication, ClaimMatch, ClientCertificate, Match, StaticKeys};
use capstan_policy::{self as document, Matcher, anchored};

/// What the store holds of it.
pub(crate) fn stored(said: &document::Authentication) -> Authentication {
    let matched = |matcher: &Matcher| match matcher {
        Matcher::Exactly(text) => Match::Exact(text.clone()),
        Matcher::Pattern(text) => Match::Pattern(text.clone()),
    };
    match said {
        document::Authentication::ClaimMatch(said) => Authentication::ClaimMatch(ClaimMatch {
            issuer: matched(&said.issuer),
            subject: matched(&said.subject),
            audience: said.audience.as_ref().map(matched),
            claims: said.claims.clone(),
            claim_patterns: said.claim_patterns.clone(),
        }),
        document::Authentication::StaticKeys(said) => Authentication::StaticKeys(StaticKeys {
            issuer: said.issuer.clone(),
            subject: said.subject.clone(),
            jwks: said.jwks.clone(),
            expires_at: said.expires_at,
            audience: (!said.audience.is_empty()).then(|| said.audience.clone()),
        }),
        document::Authentication::ClientCertificate(id) => {
            Authentication::ClientCertificate(ClientCertificate { spiffe_id: id.clone() })
        }
    }
}

/// What a document says of it.
pub(crate) fn said(stored: &Authentication) -> document::Authentication {
    let matcher = |matched: &Match| match matched {
        Match::Exact(text) => Matcher::Exactly(text.clone()),
        Match::Pattern(text) => Matcher::Pattern(anchored(text)),
    };
    match stored {
        Authentication::ClaimMatch(stored) => {
            let patterns = stored.claim_patterns.iter();
            let patterns = patterns.map(|(name, text)| (name.clone(), anchored(text)));
            document::Authentication::ClaimMatch(document::ClaimMatch {
                issuer: matcher(&stored.issuer),
                subject: matcher(&stored.subject),
                audience: stored.audience.as_ref().map(matcher),
                claims: stored.claims.clone(),
                claim_patterns: patterns.collect(),
            })
        }
        Authentication::StaticKeys(stored) => {
            document::Authentication::StaticKeys(document::StaticKeys {
                issuer: stored.issuer.clone(),
                subject: stored.subject.clone(),
                jwks: stored.jwks.clone(),
                expires_at: stored.expires_at,
                audience: stored.audience.clone().unwrap_or_default(),
            })
        }
        Authentication::ClientCertificate(stored) => {
            document::Authentication::ClientCertificate(stored.spiffe_id.clone())
        }
    }
}

/// The one that is held already, if a document says the same in another form; else the new one.
pub(crate) fn kept(
    old: Option<&Authentication>,
    new: Option<Authentication>,
) -> Option<Authentication> {
    let is_same = match (old, &new) {
        (Some(old), Some(new)) => normal(old) == normal(new),
        _ => false,
    };
    if is_same { old.cloned() } else { new }
}

/// In the form of documents, with keys as they are compared.
fn normal(stored: &Authentication) -> document::Authentication {
    let mut said = said(stored);
    if let document::Authentication::StaticKeys(keys) = &mut said
        && let Ok(set) = serde_json::from_str::<serde_json::Value>(&keys.jwks)
    {
        keys.jwks = set.to_string();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(jwks: &str) -> Authentication {
        Authentication::StaticKeys(StaticKeys {
            issuer: "i".into(),
            subject: "s".into(),
            jwks: jwks.into(),
            expires_at: None,
            audience: None,
        })
    }

    #[test]
    fn another_form_is_no_change() {
        let old = keys("{ \"keys\": [ {\"kty\": \"EC\", \"crv\": \"P-256\"} ] }");
        let new = keys("{\"keys\":[{\"crv\":\"P-256\",\"kty\":\"EC\"}]}");
        assert_eq!(kept(Some(&old), Some(new.clone())), Some(old.clone()));
        let other = keys("{\"keys\":[{\"crv\":\"P-384\",\"kty\":\"EC\"}]}");
        assert_eq!(kept(Some(&old), Some(other.clone())), Some(other));
        assert_eq!(kept(None, Some(new.clone())), Some(new));
        assert_eq!(kept(Some(&old), None), None);
    }

    #[test]
    fn a_pattern_is_said_with_its_anchors_and_kept_without() {
        let claims = |subject: &str| {
            Authentication::ClaimMatch(ClaimMatch {
                issuer: Match::Exact("i".into()),
                subject: Match::Pattern(subject.into()),
                audience: None,
                claims: Default::default(),
                claim_patterns: [("c".to_owned(), subject.to_owned())].into(),
            })
        };
        let old = claims("a|b");
        assert_eq!(stored(&said(&old)), claims("^(?:a|b)$"));
        assert_eq!(kept(Some(&old), Some(stored(&said(&old)))), Some(old));
    }
}
