//! How identities authenticate, where a document and the store say the same in two forms.
//!
//! A document has each pattern with its anchors, and a set of keys as a mapping.

use std::collections::BTreeMap;

use capstan_iam::{Authentication, ClaimMatch, Match, StaticKeys, anchored};

/// The one that is held already, if a document says the same in another form; else the new one.
pub(crate) fn kept(
    old: Option<&Authentication>,
    new: Option<&Authentication>,
) -> Option<Authentication> {
    match (old, new) {
        (Some(old), Some(new)) if said(old) == said(new) => Some(old.clone()),
        (_, new) => new.cloned(),
    }
}

/// In the form of documents.
fn said(stored: &Authentication) -> Authentication {
    let said = |matched: &Match| match matched {
        Match::Exact(text) => Match::Exact(text.clone()),
        Match::Pattern(text) => Match::Pattern(anchored(text).into_owned()),
    };
    match stored {
        Authentication::ClaimMatch(stored) => {
            let patterns = stored.claim_patterns.iter();
            let patterns = patterns.map(|(name, text)| (name.clone(), anchored(text).into_owned()));
            Authentication::ClaimMatch(ClaimMatch {
                issuer: said(&stored.issuer),
                subject: said(&stored.subject),
                audience: stored.audience.as_ref().map(said),
                claims: stored.claims.clone(),
                claim_patterns: patterns.collect::<BTreeMap<_, _>>(),
            })
        }
        Authentication::StaticKeys(stored) => {
            let set = serde_json::from_str::<serde_json::Value>(&stored.jwks);
            let jwks = set.map_or_else(|_| stored.jwks.clone(), |set| set.to_string());
            Authentication::StaticKeys(StaticKeys { jwks, ..stored.clone() })
        }
        Authentication::ClientCertificate(_) => stored.clone(),
    }
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
        assert_eq!(kept(Some(&old), Some(&new)), Some(old.clone()));
        let other = keys("{\"keys\":[{\"crv\":\"P-384\",\"kty\":\"EC\"}]}");
        assert_eq!(kept(Some(&old), Some(&other)), Some(other));
        assert_eq!(kept(None, Some(&new)), Some(new));
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
        let (old, anchored) = (claims("a|b"), claims("^(?:a|b)$"));
        assert_eq!(said(&old), anchored);
        assert_eq!(kept(Some(&old), Some(&anchored)), Some(old));
        let other = claims("^a|b$");
        assert_eq!(kept(Some(&anchored), Some(&other)), Some(other));
    }
}
