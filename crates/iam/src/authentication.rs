//! How an identity proves who it is, and what such a proof may be.
//!
//! **Invariant**: a pattern is anchored at both ends, whatever it says, and matches in linear time. Everything else
//! is compared byte for byte.

use std::collections::{BTreeMap, BTreeSet};

use capstan_engine::Timestamp;
use regex::{Regex, RegexBuilder};
use regex_syntax::ParserBuilder;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::limits::{
    CLAIM_BYTES_MAX, CLAIMS_MAX, JWKS_BYTES_MAX, JWKS_KEYS_MAX, PATTERN_BYTES_MAX,
    PATTERN_COMPILED_BYTES_MAX, PATTERN_NESTING_MAX, PATTERNS_BYTES_MAX,
};

/// How an identity proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// By a token of an issuer that is trusted, with these claims.
    ClaimMatch(ClaimMatch),
    /// By a token that one of these keys has signed.
    StaticKeys(StaticKeys),
    /// By a client certificate.
    ClientCertificate(ClientCertificate),
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// This text, byte for byte.
    Exact(String),
    /// A text that this pattern matches as a whole.
    Pattern(String),
}

/// The claims that a token must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimMatch {
    /// `iss`.
    pub issuer: Match,
    /// `sub`.
    pub subject: Match,
    /// One of `aud`; `None` for Capstan's own audience.
    pub audience: Option<Match>,
    /// Other claims, by name.
    pub claims: BTreeMap<String, String>,
    /// Patterns of other claims, by name.
    pub claim_patterns: BTreeMap<String, String>,
}

/// Keys of the identity's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticKeys {
    /// `iss` of tokens. No issuer that anything else trusts.
    pub issuer: String,
    /// `sub` of tokens.
    pub subject: String,
    /// Public keys: a JSON Web Key Set.
    pub jwks: String,
    /// When the keys end; `None` for never.
    pub expires_at: Option<Timestamp>,
    /// One of `aud`; `None` for Capstan's own audience.
    pub audience: Option<String>,
}

/// A client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Its one URI: `spiffe://TRUST-DOMAIN/PATH`.
    pub spiffe_id: String,
}

/// Why an [`Authentication`] cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {problem}")]
pub struct AuthenticationError {
    /// The field, below the identity: `claim_match.issuer`.
    pub field: String,
    /// What is wrong, and what is expected.
    pub problem: String,
}

impl AuthenticationError {
    fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

/// The id of the root identity of an issuer and a subject: the first 40 hex digits of SHA-256 over issuer, a NUL
/// byte, subject (contract, section 6).
///
/// # Errors
///
/// One of them is empty, too long or has a control character, so that two pairs could be one text.
pub fn derived_identity_id(issuer: &str, subject: &str) -> Result<String, AuthenticationError> {
    check_text("issuer", issuer)?;
    check_text("subject", subject)?;
    let mut hash = Sha256::new();
    hash.update(issuer.as_bytes());
    hash.update([0]);
    hash.update(subject.as_bytes());
    let digest = hash.finalize();
    Ok(digest.iter().take(20).map(|byte| format!("{byte:02x}")).collect())
}

impl Authentication {
    /// Checks what can be checked without any state.
    ///
    /// # Errors
    ///
    /// The first field that is wrong.
    pub fn check(&self) -> Result<(), AuthenticationError> {
        match self {
            Self::ClaimMatch(claims) => claims.check(),
            Self::StaticKeys(keys) => keys.check(),
            Self::ClientCertificate(certificate) => check_spiffe_id(&certificate.spiffe_id),
        }
    }

    /// Issuer and subject, if both are literal.
    #[must_use]
    pub fn literal(&self) -> Option<(&str, &str)> {
        match self {
            Self::ClaimMatch(ClaimMatch {
                issuer: Match::Exact(issuer),
                subject: Match::Exact(subject),
                ..
            }) => Some((issuer, subject)),
            Self::StaticKeys(keys) => Some((&keys.issuer, &keys.subject)),
            Self::ClaimMatch(_) | Self::ClientCertificate(_) => None,
        }
    }

    /// When it ends by itself; `None` for never.
    #[must_use]
    pub const fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::StaticKeys(keys) => keys.expires_at,
            Self::ClaimMatch(_) | Self::ClientCertificate(_) => None,
        }
    }

    /// Whether `new` has other keys and is the same in everything else: what an identity may do by itself.
    #[must_use]
    pub fn is_rotated_to(&self, new: &Self) -> bool {
        match (self, new) {
            (Self::StaticKeys(old), Self::StaticKeys(new)) => {
                StaticKeys { jwks: new.jwks.clone(), ..old.clone() } == *new
            }
            _ => false,
        }
    }
}

impl ClaimMatch {
    /// Every pattern of it.
    fn patterns(&self) -> impl Iterator<Item = &str> {
        let matches = [Some(&self.issuer), Some(&self.subject), self.audience.as_ref()];
        let own = matches.into_iter().flatten().filter_map(|one| match one {
            Match::Pattern(pattern) => Some(pattern.as_str()),
            Match::Exact(_) => None,
        });
        own.chain(self.claim_patterns.values().map(String::as_str))
    }

    fn check(&self) -> Result<(), AuthenticationError> {
        let bytes: usize = self.patterns().map(str::len).sum();
        if bytes > PATTERNS_BYTES_MAX {
            let problem = format!("patterns of {bytes} bytes are more than {PATTERNS_BYTES_MAX}");
            return Err(AuthenticationError::new("claim_match", problem));
        }
        self.issuer.check("claim_match.issuer")?;
        self.subject.check("claim_match.subject")?;
        if let Some(audience) = &self.audience {
            audience.check("claim_match.audience")?;
        }
        for (field, map) in [("claims", &self.claims), ("claim_patterns", &self.claim_patterns)] {
            let field = format!("claim_match.{field}");
            if map.len() > CLAIMS_MAX {
                let problem = format!("{} are more than {CLAIMS_MAX}", map.len());
                return Err(AuthenticationError::new(field, problem));
            }
            for name in map.keys() {
                check_text(&field, name)?;
                if matches!(&**name, "iss" | "sub" | "aud") {
                    let problem = format!("`{name}` has a field of its own");
                    return Err(AuthenticationError::new(field, problem));
                }
            }
        }
        for (name, value) in &self.claims {
            check_text(&format!("claim_match.claims[{name}]"), value)?;
        }
        for (name, pattern) in &self.claim_patterns {
            check_pattern(&format!("claim_match.claim_patterns[{name}]"), pattern)?;
        }
        Ok(())
    }
}

impl Match {
    fn check(&self, field: &str) -> Result<(), AuthenticationError> {
        match self {
            Self::Exact(text) => check_text(field, text),
            Self::Pattern(pattern) => check_pattern(&format!("{field}_pattern"), pattern),
        }
    }
}

/// Why a pattern cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PatternError {
    /// It is empty.
    #[error("an empty pattern; expected a regular expression")]
    Empty,
    /// It is no regular expression, or its groups are nested deeper than [`PATTERN_NESTING_MAX`].
    #[error("not a regular expression whose groups are nested at most {PATTERN_NESTING_MAX} deep")]
    Malformed,
    /// It takes more than [`PATTERN_COMPILED_BYTES_MAX`] when it is compiled.
    #[error("too large when compiled, use fewer or smaller repetitions")]
    Large,
}

/// Compiles a pattern, once, so that it matches whole texts only, in linear time.
///
/// # Errors
///
/// The pattern is malformed or too large when compiled.
pub fn compile_pattern(pattern: &str) -> Result<Regex, PatternError> {
    if pattern.is_empty() {
        return Err(PatternError::Empty);
    }
    // Parsed alone first, which is cheap: `a)|(b` is no pattern, and would be one inside the parentheses.
    let parsed = ParserBuilder::new().nest_limit(PATTERN_NESTING_MAX).build().parse(pattern);
    parsed.map_err(|_| PatternError::Malformed)?;
    let mut whole = RegexBuilder::new(&format!("\\A(?:{pattern})\\z"));
    whole.size_limit(PATTERN_COMPILED_BYTES_MAX).build().map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => PatternError::Large,
        _ => PatternError::Malformed,
    })
}

fn check_pattern(field: &str, pattern: &str) -> Result<(), AuthenticationError> {
    let problem = if pattern.len() > PATTERN_BYTES_MAX {
        format!("{} bytes are more than {PATTERN_BYTES_MAX}", pattern.len())
    } else {
        match compile_pattern(pattern) {
            Ok(_) => return Ok(()),
            Err(error) => error.to_string(),
        }
    };
    Err(AuthenticationError::new(field, problem))
}

/// 1 to [`CLAIM_BYTES_MAX`] bytes without control characters.
fn check_text(field: &str, text: &str) -> Result<(), AuthenticationError> {
    let problem = if text.is_empty() {
        "empty".to_owned()
    } else if text.len() > CLAIM_BYTES_MAX {
        format!("{} bytes are more than {CLAIM_BYTES_MAX}", text.len())
    } else if text.chars().any(char::is_control) {
        "a control character".to_owned()
    } else {
        return Ok(());
    };
    Err(AuthenticationError::new(field, problem))
}

impl StaticKeys {
    fn check(&self) -> Result<(), AuthenticationError> {
        check_text("static_keys.issuer", &self.issuer)?;
        check_text("static_keys.subject", &self.subject)?;
        if let Some(audience) = &self.audience {
            check_text("static_keys.audience", audience)?;
        }
        check_jwks(&self.jwks)
            .map_err(|problem| AuthenticationError::new("static_keys.jwks", problem))
    }
}

/// Members of a JSON Web Key that only a secret one has (RFC 7518, sections 6.2.2, 6.3.2 and 6.4).
const SECRET_MEMBERS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// A set of 1 to [`JWKS_KEYS_MAX`] public keys, each with its own `kid` if there are several.
fn check_jwks(text: &str) -> Result<(), String> {
    if text.len() > JWKS_BYTES_MAX {
        return Err(format!("{} bytes are more than {JWKS_BYTES_MAX}", text.len()));
    }
    let expected = "expected a JSON Web Key Set: {\"keys\": [...]}";
    let json: serde_json::Value =
        serde_json::from_str(text).map_err(|_| format!("not JSON; {expected}"))?;
    let keys = json.get("keys").and_then(serde_json::Value::as_array);
    let keys = keys.ok_or_else(|| format!("no `keys`; {expected}"))?;
    if keys.is_empty() || keys.len() > JWKS_KEYS_MAX {
        return Err(format!("{} keys; expected 1 to {JWKS_KEYS_MAX}", keys.len()));
    }
    let mut ids = BTreeSet::new();
    for (at, key) in keys.iter().enumerate() {
        let text = |name: &str| key.get(name).and_then(serde_json::Value::as_str);
        if !matches!(text("kty"), Some("RSA" | "EC" | "OKP")) {
            return Err(format!("keys[{at}].kty: expected RSA, EC or OKP"));
        }
        if let Some(secret) = SECRET_MEMBERS.iter().find(|name| key.get(**name).is_some()) {
            return Err(format!("keys[{at}].{secret}: a secret key; give the public one only"));
        }
        let is_new = text("kid").is_some_and(|id| !id.is_empty() && ids.insert(id));
        if keys.len() > 1 && !is_new {
            return Err(format!(
                "keys[{at}].kid: expected an id of its own, since there are several keys"
            ));
        }
    }
    Ok(())
}

/// `spiffe://TRUST-DOMAIN/PATH` as the SPIFFE-ID standard (section 2) has it.
fn check_spiffe_id(text: &str) -> Result<(), AuthenticationError> {
    let field = "client_certificate.spiffe_id";
    check_text(field, text)?;
    let is_valid = || {
        let (domain, path) = text.strip_prefix("spiffe://")?.split_once('/')?;
        let is_domain = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
        };
        let is_path = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_segment =
            |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_path);
        let holds = !domain.is_empty()
            && domain.len() <= 255
            && domain.bytes().all(is_domain)
            && path.split('/').all(is_segment);
        holds.then_some(())
    };
    let problem = "expected spiffe://TRUST-DOMAIN/PATH, with a domain in lower case and no empty or dotted segment";
    is_valid().ok_or_else(|| AuthenticationError::new(field, problem))
}
