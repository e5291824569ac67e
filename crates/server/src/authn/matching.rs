//! Whether the claims of a token are those that an identity says.
//!
//! **Invariants**: texts are compared byte for byte, and patterns match whole texts. A claim that is absent or no text
//! matches nothing. A token is for Capstan only if its audience says so.

use capstan_engine::Timestamp;
use capstan_iam::{Authentication, ClaimMatch, Match, compile_pattern};
use serde_json::Value;

use super::token::Claims;

/// The audiences that are Capstan's, where an identity does not name its own.
pub(crate) type Audiences<'a> = &'a [&'a str];

/// Whether a token of these claims is one of an identity with this authentication, at this time.
pub(crate) fn is_of(
    claims: &Claims,
    authentication: &Authentication,
    own: Audiences<'_>,
    now: Timestamp,
) -> bool {
    match authentication {
        Authentication::ClaimMatch(wanted) => has(claims, wanted, own),
        Authentication::StaticKeys(keys) => {
            let audience = keys.audience.as_deref();
            claims.issuer == keys.issuer
                && claims.subject == keys.subject
                && keys.expires_at.is_none_or(|end| now < end)
                && audience.map_or_else(|| is_for(claims, own), |one| is_for(claims, &[one]))
        }
        Authentication::ClientCertificate(_) => false,
    }
}

/// Whether a token is for one of these audiences. Others may be named beside it.
pub(crate) fn is_for(claims: &Claims, own: Audiences<'_>) -> bool {
    claims.audiences.iter().any(|audience| own.contains(&audience.as_str()))
}

fn has(claims: &Claims, wanted: &ClaimMatch, own: Audiences<'_>) -> bool {
    let text = |name: &str| claims.all.get(name).and_then(Value::as_str);
    let of_claims = [(&wanted.issuer, &claims.issuer), (&wanted.subject, &claims.subject)];
    // Texts first: a pattern is compiled for each look.
    let has_texts = of_claims.iter().all(|(wanted, text)| match wanted {
        Match::Exact(exact) => exact == *text,
        Match::Pattern(_) => true,
    });
    let is_for_it = match &wanted.audience {
        None => is_for(claims, own),
        Some(Match::Exact(exact)) => claims.audiences.contains(exact),
        Some(Match::Pattern(_)) => true,
    };
    let named = wanted.claims.iter().all(|(name, value)| text(name) == Some(value));
    let has_names = wanted.claim_patterns.keys().all(|name| text(name).is_some());
    let fits_audience = || match &wanted.audience {
        Some(Match::Pattern(pattern)) => {
            claims.audiences.iter().any(|one| is_matched(pattern, one))
        }
        _ => true,
    };
    has_texts
        && is_for_it
        && named
        && has_names
        && of_claims.iter().all(|(wanted, text)| match wanted {
            Match::Exact(_) => true,
            Match::Pattern(pattern) => is_matched(pattern, text),
        })
        && fits_audience()
        && wanted
            .claim_patterns
            .iter()
            .all(|(name, pattern)| text(name).is_some_and(|text| is_matched(pattern, text)))
}

/// A pattern that does not compile was refused when it was written, and matches nothing.
fn is_matched(pattern: &str, text: &str) -> bool {
    compile_pattern(pattern).is_ok_and(|pattern| pattern.is_match(text))
}

#[cfg(test)]
mod tests {
    use capstan_iam::StaticKeys;
    use serde_json::json;

    use super::*;

    fn claims(all: &Value) -> Claims {
        let text = |name: &str| all[name].as_str().unwrap().to_owned();
        let audiences =
            all["aud"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().into());
        Claims {
            issuer: text("iss"),
            subject: text("sub"),
            audiences: audiences.collect(),
            expires_at: Timestamp::new(2, 0),
            all: all.as_object().unwrap().clone(),
        }
    }

    fn exact(text: &str) -> Match {
        Match::Exact(text.into())
    }

    fn is(claims: &Claims, wanted: &ClaimMatch) -> bool {
        let wanted = Authentication::ClaimMatch(wanted.clone());
        is_of(claims, &wanted, &["capstan"], Timestamp::new(1, 0))
    }

    #[test]
    fn claims_are_compared_byte_for_byte() {
        let token = claims(&json!({
            "iss": "https://a", "sub": "repo:org/x:ref:refs/heads/main", "aud": ["other", "capstan"],
            "ref": "main", "number": 7, "list": ["main"],
        }));
        let wanted = ClaimMatch {
            issuer: exact("https://a"),
            subject: exact("repo:org/x:ref:refs/heads/main"),
            audience: None,
            claims: [("ref".to_owned(), "main".to_owned())].into(),
            claim_patterns: [("ref".to_owned(), "ma.n".to_owned())].into(),
        };
        assert!(is(&token, &wanted));
        let subject = Match::Pattern("repo:org/.*:ref:refs/heads/main".into());
        assert!(is(&token, &ClaimMatch { subject, ..wanted.clone() }));
        let audience = Some(exact("other"));
        assert!(is(&token, &ClaimMatch { audience, ..wanted.clone() }));
        let changes: [fn(&mut ClaimMatch); 12] = [
            |it| it.issuer = exact("https://a/"),
            |it| it.issuer = exact("https://A"),
            |it| it.issuer = Match::Pattern("https://".into()),
            |it| it.subject = exact("repo:org/x:ref:refs/heads/main2"),
            |it| it.subject = Match::Pattern("repo:org/.".into()),
            |it| it.audience = Some(exact("third")),
            |it| it.audience = Some(Match::Pattern("apstan".into())),
            |it| drop(it.claims.insert("ref".into(), "Main".into())),
            |it| drop(it.claims.insert("number".into(), "7".into())),
            |it| drop(it.claims.insert("list".into(), "main".into())),
            |it| drop(it.claims.insert("absent".into(), "x".into())),
            |it| drop(it.claim_patterns.insert("absent".into(), ".*".into())),
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut wanted = wanted.clone();
            change(&mut wanted);
            assert!(!is(&token, &wanted), "change {at}");
        }
        let elsewhere = claims(
            &json!({"iss": "https://a", "sub": wanted_subject(), "aud": ["other"], "ref": "main"}),
        );
        assert!(!is(&elsewhere, &wanted), "for somebody else");
    }

    fn wanted_subject() -> &'static str {
        "repo:org/x:ref:refs/heads/main"
    }

    #[test]
    fn keys_of_its_own_prove_one_subject_until_they_end() {
        let token = claims(&json!({"iss": "ci", "sub": "bot", "aud": ["capstan"]}));
        let keys = StaticKeys {
            issuer: "ci".into(),
            subject: "bot".into(),
            jwks: "{}".into(),
            expires_at: Some(Timestamp::new(10, 0)),
            audience: None,
        };
        let is = |keys: &StaticKeys, now: i64| {
            let keys = Authentication::StaticKeys(keys.clone());
            is_of(&token, &keys, &["capstan"], Timestamp::new(now, 0))
        };
        assert!(is(&keys, 9) && !is(&keys, 10));
        assert!(!is(&StaticKeys { issuer: "Ci".into(), ..keys.clone() }, 9));
        assert!(!is(&StaticKeys { subject: "bot2".into(), ..keys.clone() }, 9));
        let audience = Some("other".to_owned());
        assert!(!is(&StaticKeys { audience, ..keys }, 9));
    }
}
