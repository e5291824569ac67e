//! The ID token of a login: which claims it must have (OpenID Connect Core 1.0, section 3.1.3.7).
//!
//! Its signature is not verified here. It comes from the token endpoint over a connection whose other end TLS has proved, which
//! may stand in for the signature (item 6), or from this machine. The server verifies it with every call.

use anyhow::{Context as _, anyhow, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use capstan_engine::quote;
use serde::Deserialize;

use super::secret::Secret;
use crate::limits::LOGIN_CLOCKS_APART;

/// What an ID token must say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Expected<'e> {
    pub(super) issuer: &'e str,
    pub(super) client_id: &'e str,
    /// The nonce of the request; `None` if it had none.
    pub(super) nonce: Option<&'e str>,
    /// Whom an earlier token of the same login was of, if there is one. Such a token needs no nonce (section 12.2).
    pub(super) subject: Option<&'e str>,
    /// Seconds since 1970.
    pub(super) now: i64,
}

/// What is kept of an ID token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Person {
    pub(super) subject: String,
    pub(super) email: Option<String>,
    /// Seconds since 1970.
    pub(super) expires_at: i64,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: Audience,
    exp: f64,
    nonce: Option<String>,
    email: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

/// # Errors
///
/// The token is malformed, or is not what is expected. The error tells nothing of it but single claims.
pub(super) fn read(token: &Secret, expected: Expected<'_>) -> anyhow::Result<Person> {
    let claims: Claims = claims(token).context("the issuer's ID token")?;
    check(claims, expected).context("the issuer's ID token is refused")
}

fn check(claims: Claims, expected: Expected<'_>) -> anyhow::Result<Person> {
    let Expected { issuer, client_id, nonce, subject, now } = expected;
    let Claims { iss, sub, aud, exp, nonce: found, email } = claims;
    ensure!(iss == issuer, "it is of the issuer {}, and not of {}", quote(&iss), quote(issuer));
    let is_for_us = match &aud {
        Audience::One(one) => one == client_id,
        Audience::Several(all) => all.iter().any(|one| one == client_id),
    };
    ensure!(is_for_us, "it is not for the client {}", quote(client_id));
    let must_have = nonce.is_some() && subject.is_none();
    ensure!(
        found.as_deref() == nonce || (found.is_none() && !must_have),
        "its nonce is that of another login"
    );
    ensure!(!sub.is_empty(), "it has no subject");
    // Both are shown on terminals.
    let is_plain = |text: &str| !text.chars().any(char::is_control);
    ensure!(is_plain(&sub), "its subject has control characters");
    let email = email.filter(|email| is_plain(email));
    ensure!(subject.is_none_or(|before| before == sub), "it is of another person");
    let expires_at = seconds(exp)?;
    ensure!(
        expires_at.saturating_add_unsigned(LOGIN_CLOCKS_APART.as_secs()) > now,
        "it has ended: is the clock of this machine right?"
    );
    Ok(Person { subject: sub, email, expires_at })
}

/// When a token ends that may be a signed one: as an access token is, or is not.
pub(super) fn end(token: &Secret) -> Option<i64> {
    #[derive(Deserialize)]
    struct End {
        exp: f64,
    }
    seconds(claims::<End>(token).ok()?.exp).ok()
}

/// The claims of a signed token in the compact form (RFC 7515, section 7.1).
fn claims<'t, T: for<'d> Deserialize<'d>>(token: &'t Secret) -> anyhow::Result<T> {
    let mut parts = token.expose().split('.');
    let three: [Option<&'t str>; 4] = std::array::from_fn(|_| parts.next());
    let [Some(_), Some(claims), Some(_), None] = three else {
        return Err(anyhow!("it is no signed token"));
    };
    // The errors of both could show a part of the token.
    let json = URL_SAFE_NO_PAD.decode(claims).map_err(|_| anyhow!("it is not base64url"))?;
    serde_json::from_slice(&json).map_err(|_| anyhow!("its claims are malformed or incomplete"))
}

/// Seconds since 1970, of a number of JSON.
fn seconds(number: f64) -> anyhow::Result<i64> {
    // The year 9999, which RFC 3339 ends with.
    const LAST: f64 = 253_402_300_799.0;
    ensure!((0.0..=LAST).contains(&number), "its `exp` is no time");
    #[expect(clippy::cast_possible_truncation, reason = "it is at most `LAST`")]
    Ok(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const NOW: i64 = 1_800_000_000;

    fn token(claims: &Value) -> Secret {
        let [head, claims] = [r#"{"alg":"none"}"#.to_owned(), claims.to_string()]
            .map(|part| URL_SAFE_NO_PAD.encode(part));
        Secret::new(format!("{head}.{claims}.c2ln"))
    }

    fn expected() -> Expected<'static> {
        Expected {
            issuer: "https://a.example",
            client_id: "cli",
            nonce: Some("n"),
            subject: None,
            now: NOW,
        }
    }

    fn good() -> Value {
        json!({"iss": "https://a.example", "sub": "ann", "aud": "cli", "exp": NOW + 60, "nonce": "n", "iat": NOW})
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = good();
        claims[name] = value;
        claims
    }

    fn error(claims: &Value, expected: Expected<'_>) -> String {
        format!("{:#}", read(&token(claims), expected).unwrap_err())
    }

    #[test]
    fn a_token_of_this_login_is_taken() {
        for claims in [
            good(),
            with("aud", json!(["other", "cli"])),
            with("exp", json!(1_800_000_060.5)),
            with("email", json!("ann@a.example")),
        ] {
            let found = read(&token(&claims), expected()).unwrap();
            assert_eq!((&*found.subject, found.expires_at), ("ann", NOW + 60), "{claims}");
            assert_eq!(found.email.as_deref(), claims["email"].as_str());
        }
    }

    #[test]
    fn an_address_that_changes_a_terminal_is_not_kept() {
        let found = read(&token(&with("email", json!("a\u{1b}[2J@a.example"))), expected());
        assert_eq!(found.unwrap().email, None);
    }

    #[test]
    fn any_other_token_is_refused() {
        for (claims, said) in [
            (with("iss", json!("https://a.example/")), "of the issuer `https://a.example/`"),
            (with("aud", json!("other")), "not for the client `cli`"),
            (with("aud", json!(["other"])), "not for the client"),
            (with("aud", json!(7)), "malformed"),
            (with("nonce", json!("m")), "nonce"),
            (with("nonce", Value::Null), "nonce"),
            (with("sub", json!("")), "no subject"),
            (with("sub", json!("a\u{1b}[2J")), "control characters"),
            (with("sub", json!(7)), "malformed"),
            (with("exp", json!("soon")), "malformed"),
            (with("exp", json!(-1)), "no time"),
            (with("exp", json!(1e300)), "no time"),
        ] {
            let error = error(&claims, expected());
            assert!(error.contains(said), "{claims}: {error}");
        }
        for text in ["", "a.b", "a.b.c.d", "a.!.c", "a.e30.c"] {
            let error = format!("{:#}", read(&Secret::new(text), expected()).unwrap_err());
            assert!(error.starts_with("the issuer's ID token: "), "{error}");
        }
    }

    #[test]
    fn clocks_may_be_apart() {
        let apart = i64::try_from(LOGIN_CLOCKS_APART.as_secs()).unwrap();
        assert!(read(&token(&with("exp", json!(NOW - apart + 1))), expected()).is_ok());
        let over = error(&with("exp", json!(NOW - apart)), expected());
        assert!(over.contains("clock of this machine"), "{over}");
    }

    /// OpenID Connect Core 1.0, section 12.2.
    #[test]
    fn a_later_token_is_of_the_same_person() {
        let later = Expected { subject: Some("ann"), ..expected() };
        assert!(read(&token(&with("nonce", Value::Null)), later).is_ok());
        assert!(read(&token(&good()), later).is_ok());
        assert!(error(&with("nonce", json!("m")), later).contains("nonce"));
        assert!(error(&with("sub", json!("bob")), later).contains("another person"));
        // The device grant has no nonce.
        let device = Expected { nonce: None, ..expected() };
        assert!(read(&token(&with("nonce", Value::Null)), device).is_ok());
        assert!(error(&good(), device).contains("nonce"));
    }

    #[test]
    fn the_end_of_an_access_token_is_read_if_it_is_signed() {
        assert_eq!(end(&token(&json!({"exp": 7}))), Some(7));
        assert_eq!(end(&Secret::new("opaque")), None);
    }
}
