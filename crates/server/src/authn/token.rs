//! A signed token, read strictly: a JSON Web Token (RFC 7519) in the compact form of a JSON Web Signature (RFC 7515), by the
//! rules of RFC 8725 and of OpenID Connect Core 1.0, section 3.1.3.7.
//!
//! ```text
//! text ─▶ three parts ─▶ header: algorithm, key id ─▶ claims: who, by whom, for whom, until when ─▶ Token
//! ```
//!
//! Nothing is believed yet: whoever wrote the token has not proved anything until `keys` has verified it.
//!
//! **Invariants**: what is not exactly as the standards have it is refused. A key, or the place of one, that a header
//! names is not looked at. Whether a token is refused depends on nothing but its bytes and the time.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use capstan_engine::Timestamp;
use capstan_iam::{Algorithm, check_claim, check_email};
use serde_json::{Map, Value};
use thiserror::Error;

use super::strict_json;
use crate::limits::{
    AUDIENCES_MAX, KEY_ID_BYTES_MAX, TOKEN_BYTES_MAX, TOKEN_LEEWAY, TOKEN_LIFETIME_MAX,
};

/// Why a text proves nothing. It goes to the log, never to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{part}: {problem}")]
pub(crate) struct TokenError {
    /// Such as `header.alg` or `claims.exp`.
    part: &'static str,
    problem: &'static str,
}

const fn refused<T>(part: &'static str, problem: &'static str) -> Result<T, TokenError> {
    Err(TokenError { part, problem })
}

/// A token that is well-formed and in time.
#[derive(Clone, Debug)]
pub(crate) struct Token<'t> {
    pub(crate) algorithm: Algorithm,
    /// `kid`.
    pub(crate) key_id: Option<String>,
    pub(crate) claims: Claims,
    /// Its second part, in base64url.
    pub(crate) body: &'t str,
    /// What is signed.
    pub(crate) message: &'t str,
    /// In base64url.
    pub(crate) signature: &'t str,
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    /// `iss`.
    pub(crate) issuer: String,
    /// `sub`.
    pub(crate) subject: String,
    /// `aud`, at least one.
    pub(crate) audiences: Vec<String>,
    /// `exp`.
    pub(crate) expires_at: Timestamp,
    /// All of them.
    pub(crate) all: Map<String, Value>,
}

impl Claims {
    /// Reads the second part of a token at this time.
    ///
    /// # Errors
    ///
    /// The first part that is not as it must be.
    pub(crate) fn read(body: &str, now: Timestamp) -> Result<Self, TokenError> {
        read_claims(decoded("claims", body)?, now)
    }

    /// The e-mail address, if it is verified: only the boolean `true` says so.
    pub(crate) fn verified_email(&self) -> Option<&str> {
        let is_verified = self.all.get("email_verified") == Some(&Value::Bool(true));
        let email = self.all.get("email").and_then(Value::as_str).filter(|_| is_verified)?;
        check_email(email).ok().map(|()| email)
    }

    /// The time from which it counts no more, with [`TOKEN_LEEWAY`] for clocks that differ.
    pub(crate) fn counts_until(&self) -> Timestamp {
        Timestamp::new(self.expires_at.seconds().saturating_add(TOKEN_LEEWAY), 0)
    }
}

/// Whether a text that [`is_token`] begins with a header (RFC 7515, section 3.1): what it proves depends on a signature, which nobody guesses.
pub(crate) fn has_header(text: &str) -> bool {
    let header = text.split('.').next().unwrap_or_default();
    let decoded = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    decoded.starts_with(b"{") && decoded.ends_with(b"}")
}

/// Whether a text has the form of a token: three parts. No secret that Capstan makes has.
pub(crate) fn is_token(text: &str) -> bool {
    text.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl<'t> Token<'t> {
    /// Reads a token at this time.
    ///
    /// # Errors
    ///
    /// The first part that is not as it must be.
    pub(crate) fn read(text: &'t str, now: Timestamp) -> Result<Self, TokenError> {
        if text.len() > TOKEN_BYTES_MAX {
            return refused("token", "too long");
        }
        let parts = text.rsplit_once('.').and_then(|(message, signature)| {
            let (header, claims) = message.split_once('.')?;
            (!claims.contains('.')).then_some((message, header, claims, signature))
        });
        let Some((message, header, claims, signature)) = parts else {
            return refused("token", "not three parts");
        };
        let (algorithm, key_id) = read_header(&decoded("header", header)?)?;
        let body = claims;
        let claims = Claims::read(body, now)?;
        if URL_SAFE_NO_PAD.decode(signature).is_err() {
            return refused("signature", "not base64url");
        }
        Ok(Self { algorithm, key_id, claims, body, message, signature })
    }
}

fn decoded(part: &'static str, text: &str) -> Result<Map<String, Value>, TokenError> {
    let Ok(bytes) = URL_SAFE_NO_PAD.decode(text) else { return refused(part, "not base64url") };
    strict_json::mapping(&bytes).map_err(|problem| TokenError { part, problem })
}

fn read_header(header: &Map<String, Value>) -> Result<(Algorithm, Option<String>), TokenError> {
    let algorithm = header.get("alg").and_then(Value::as_str).and_then(Algorithm::of);
    let Some(algorithm) = algorithm else { return refused("header.alg", "not one that is taken") };
    let key_id = match header.get("kid") {
        None => None,
        Some(Value::String(id)) if is_key_id(id) => Some(id.clone()),
        Some(_) => return refused("header.kid", "no text of 1 to 128 visible characters"),
    };
    // Tokens of other types are for something else (RFC 8725, section 3.11): a logout, a security event, a proof.
    match header.get("typ").map(Value::as_str) {
        None => {}
        Some(Some(kind)) => {
            let kind = kind.to_ascii_lowercase();
            let kind = kind.strip_prefix("application/").unwrap_or(&kind);
            // SPIFFE's tokens may be `JOSE`.
            if !["jwt", "at+jwt", "jose"].contains(&kind) {
                return refused("header.typ", "of another type");
            }
        }
        Some(None) => return refused("header.typ", "no text"),
    }
    for extension in ["crit", "b64", "enc", "zip"] {
        if header.contains_key(extension) {
            return refused("header", "an extension that changes what is signed");
        }
    }
    Ok((algorithm, key_id))
}

/// Whether a text can be a key's id: it is compared byte for byte, and nothing else is done with it.
pub(super) fn is_key_id(id: &str) -> bool {
    (1..=KEY_ID_BYTES_MAX).contains(&id.len()) && !id.chars().any(char::is_control)
}

fn read_claims(all: Map<String, Value>, now: Timestamp) -> Result<Claims, TokenError> {
    let text =
        |name: &str| all.get(name).and_then(Value::as_str).filter(|text| check_claim(text).is_ok());
    let Some(issuer) = text("iss") else { return refused("claims.iss", "no text") };
    let Some(subject) = text("sub") else { return refused("claims.sub", "no text") };
    let audiences = match all.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(several)) if several.len() <= AUDIENCES_MAX => {
            let texts = several.iter().map(|one| one.as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().unwrap_or_default()
        }
        _ => vec![],
    };
    if audiences.is_empty() {
        return refused("claims.aud", "no text, and no list of at most 32 texts");
    }
    let Some(expires) = seconds(&all, "exp")? else { return refused("claims.exp", "absent") };
    let (begins, issued) = (seconds(&all, "nbf")?, seconds(&all, "iat")?);
    let now = now.seconds();
    if now >= expires.saturating_add(TOKEN_LEEWAY) {
        return refused("claims.exp", "in the past");
    }
    if begins.is_some_and(|begins| begins > now.saturating_add(TOKEN_LEEWAY)) {
        return refused("claims.nbf", "in the future");
    }
    if issued.is_some_and(|issued| issued > now.saturating_add(TOKEN_LEEWAY)) {
        return refused("claims.iat", "in the future");
    }
    let longest = TOKEN_LIFETIME_MAX.saturating_add(TOKEN_LEEWAY);
    if expires.saturating_sub(issued.unwrap_or(now)) > longest {
        return refused("claims.exp", "more than a day after the token was made");
    }
    // Bound to a key of the sender's (RFC 7800), which this call does not prove; or a security event (RFC 8417).
    for other in ["cnf", "events"] {
        if all.contains_key(other) {
            return refused("claims", "a token that is for something else than to be shown");
        }
    }
    let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
    let expires_at = Timestamp::new(expires, 0);
    Ok(Claims { issuer, subject, audiences, expires_at, all })
}

/// A time in seconds, without a fraction.
fn seconds(all: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, TokenError> {
    match all.get(name) {
        None => Ok(None),
        Some(value) => match value.as_i64().filter(|time| (0..=LATEST).contains(time)) {
            Some(time) => Ok(Some(time)),
            None => refused(name, "no whole number of seconds"),
        },
    }
}

/// The end of the year 9999.
const LATEST: i64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn encode(value: &str) -> String {
        URL_SAFE_NO_PAD.encode(value)
    }

    fn text(header: &Value, claims: &Value) -> String {
        format!("{}.{}.{}", encode(&header.to_string()), encode(&claims.to_string()), encode("s"))
    }

    fn read(text: &str) -> Result<Claims, TokenError> {
        Token::read(text, Timestamp::new(NOW, 0)).map(|token| token.claims)
    }

    fn claims() -> Value {
        json!({"iss": "https://a", "sub": "s", "aud": "c", "exp": NOW + 300, "iat": NOW, "nbf": NOW})
    }

    fn with(mut base: Value, name: &str, value: Value) -> Value {
        base[name] = value;
        base
    }

    fn without(mut base: Value, name: &str) -> Value {
        base.as_object_mut().unwrap().remove(name);
        base
    }

    #[test]
    fn what_the_standards_allow_is_read() {
        let header = json!({"alg": "RS256", "kid": "a/../b'", "typ": "JWT"});
        assert_eq!(read(&text(&header, &claims())).unwrap().audiences, ["c"]);
        for kind in ["jwt", "at+jwt", "application/at+JWT", "JOSE"] {
            assert!(
                read(&text(&json!({"alg": "Ed25519", "typ": kind}), &claims())).is_ok(),
                "{kind}"
            );
        }
        // A key that the header brings, or the place of one, is not looked at.
        let header =
            json!({"alg": "ES256", "jku": "https://x", "x5u": "https://x", "jwk": {}, "x5c": []});
        assert!(read(&text(&header, &claims())).is_ok());
        let header = json!({"alg": "EdDSA"});
        let several = with(claims(), "aud", json!(["a", "b"]));
        assert_eq!(read(&text(&header, &several)).unwrap().audiences, ["a", "b"]);
        for name in ["iat", "nbf"] {
            assert!(read(&text(&header, &without(claims(), name))).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_header_that_is_not_as_it_must_be_is_refused() {
        for alg in [
            "none", "None", "", "HS256", "HS512", "RS1", "rs256", "ES256K", "ES512", "Ed448",
            "RSA-OAEP",
        ] {
            let found = read(&text(&json!({"alg": alg}), &claims())).unwrap_err();
            assert_eq!(found.part, "header.alg", "{alg}");
        }
        let header = json!({"alg": "RS256"});
        for (name, value, part) in [
            ("alg", json!(["RS256"]), "header.alg"),
            ("kid", json!(""), "header.kid"),
            ("kid", json!(7), "header.kid"),
            ("kid", json!("a\u{0}b"), "header.kid"),
            ("kid", json!("x".repeat(KEY_ID_BYTES_MAX + 1)), "header.kid"),
            ("typ", json!("logout+jwt"), "header.typ"),
            ("typ", json!("dpop+jwt"), "header.typ"),
            ("typ", json!(1), "header.typ"),
            ("crit", json!(["exp"]), "header"),
            ("b64", json!(false), "header"),
            ("zip", json!("DEF"), "header"),
        ] {
            let found = read(&text(&with(header.clone(), name, value), &claims())).unwrap_err();
            assert_eq!(found.part, part, "{name}");
        }
        let longest = with(header, "kid", json!("x".repeat(KEY_ID_BYTES_MAX)));
        assert!(read(&text(&longest, &claims())).is_ok());
    }

    #[test]
    fn claims_that_are_not_as_they_must_be_are_refused() {
        let header = json!({"alg": "RS256"});
        for name in ["iss", "sub", "aud", "exp"] {
            assert!(read(&text(&header, &without(claims(), name))).is_err(), "{name}");
        }
        let many = vec!["x"; AUDIENCES_MAX + 1];
        for (name, values) in [
            ("iss", vec![json!(["https://a"]), json!(""), json!(1), json!(null), json!("a\nb")]),
            ("sub", vec![json!({}), json!(["s"]), json!(7), json!("")]),
            ("aud", vec![json!([]), json!(["a", 1]), json!({}), json!(many)]),
            (
                "exp",
                vec![
                    json!(NOW - TOKEN_LEEWAY),
                    json!(NOW as f64 + 300.5),
                    json!((NOW + 300).to_string()),
                    json!(-1),
                    json!(NOW + TOKEN_LIFETIME_MAX + TOKEN_LEEWAY + 1),
                    json!(u64::MAX),
                    json!(1e300),
                ],
            ),
            ("nbf", vec![json!(NOW + TOKEN_LEEWAY + 1), json!("1"), json!(1.5)]),
            (
                "iat",
                vec![
                    json!(NOW + TOKEN_LEEWAY + 1),
                    json!(true),
                    json!(NOW - 2 * TOKEN_LIFETIME_MAX),
                ],
            ),
            ("cnf", vec![json!({"jkt": "x"})]),
            ("events", vec![json!({})]),
        ] {
            for value in values {
                let token = text(&header, &with(claims(), name, value.clone()));
                assert!(read(&token).is_err(), "{name}: {value}");
            }
        }
        for (name, value) in [
            ("exp", NOW - TOKEN_LEEWAY + 1),
            ("exp", NOW + TOKEN_LIFETIME_MAX + TOKEN_LEEWAY),
            ("nbf", NOW + TOKEN_LEEWAY),
            ("iat", NOW + TOKEN_LEEWAY),
        ] {
            assert!(read(&text(&header, &with(claims(), name, json!(value)))).is_ok(), "{name}");
        }
    }

    #[test]
    fn a_text_that_is_no_token_is_refused() {
        let good = text(&json!({"alg": "RS256"}), &claims());
        assert!(read(&good).is_ok() && is_token(&good));
        let parts: Vec<&str> = good.split('.').collect();
        let [header, body, signature] = parts[..] else { panic!() };
        let twice = encode(r#"{"alg": "RS256", "alg": "RS256"}"#);
        let more = claims().to_string().replacen('{', r#"{"sub": "other","#, 1);
        for bad in [
            String::new(),
            "..".into(),
            format!("{header}.{body}"),
            format!("{good}.x"),
            format!("{header}=.{body}.{signature}"),
            format!(" {good}"),
            format!("{twice}.{body}.{signature}"),
            format!("{header}.{}.{signature}", encode(&more)),
            format!("{header}.{body}.s+/="),
            format!("{header}.{}.{signature}", encode(&"x".repeat(TOKEN_BYTES_MAX))),
        ] {
            assert!(read(&bad).is_err(), "{bad}");
        }
        // The last letter of base64 has bits that mean nothing, and they must be 0: one token has one text.
        let changed = format!("{}R.{body}.{signature}", &header[..header.len() - 1]);
        assert!(read(&changed).is_err() || changed == good);
    }

    #[test]
    fn only_a_boolean_verifies_an_address() {
        let email = |verified: Value, email: Value| {
            let claims = with(with(claims(), "email_verified", verified), "email", email);
            let claims = read(&text(&json!({"alg": "RS256"}), &claims)).unwrap();
            claims.verified_email().map(str::to_owned)
        };
        assert_eq!(email(json!(true), json!("a@example.com")), Some("a@example.com".into()));
        for verified in [json!("true"), json!(1), json!(false), json!(null)] {
            assert_eq!(email(verified, json!("a@example.com")), None);
        }
        assert_eq!(email(json!(true), json!("a")), None);
        assert_eq!(email(json!(true), json!(["a@example.com"])), None);
    }
}
