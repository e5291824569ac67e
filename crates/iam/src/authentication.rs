//! How an identity proves who it is, and what such a proof may be.
//!
//! **Invariant**: a pattern is anchored at both ends, whatever it says, and matches in linear time. Everything else
//! is compared byte for byte.

mod algorithms;
mod keys;
mod pattern;

use std::collections::BTreeMap;

use capstan_engine::Timestamp;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

pub use self::algorithms::{ALGORITHM_NAMES, Algorithm, check_algorithms};
pub use self::keys::{KEY_TYPES, SECRET_MEMBERS, check_key_set};
pub use self::pattern::{PatternError, anchored, check_anchored, compile_pattern};
use crate::fields::{check_bytes, check_name};
use crate::limits::{
    CLAIM_BYTES_MAX, CLAIMS_MAX, DNS_LABEL_BYTES_MAX, DNS_NAME_BYTES_MAX, PATTERNS_BYTES_MAX,
    TRUST_DOMAIN_BYTES_MAX,
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

/// A client certificate, by the name among its subject alternative names that proves the identity. Its common name never does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientCertificate {
    /// Its one URI: `spiffe://TRUST-DOMAIN/PATH`.
    SpiffeId(String),
    /// One of its DNS names, of a certificate without a URI.
    DnsName(String),
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
    in_field("issuer", check_claim(issuer))?;
    in_field("subject", check_claim(subject))?;
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
            Self::ClientCertificate(ClientCertificate::SpiffeId(id)) => {
                in_field("client_certificate.spiffe_id", check_spiffe_id(id))
            }
            Self::ClientCertificate(ClientCertificate::DnsName(name)) => {
                in_field("client_certificate.dns_name", check_dns_name(name))
            }
        }
    }

    /// The part of [`Self::check`] that no field can be asked alone: the numbers and names of claims, the bytes of all
    /// patterns. Whoever reads field by field, such as a document, calls this at the end.
    ///
    /// # Errors
    ///
    /// As [`Self::check`].
    pub fn check_together(&self) -> Result<(), AuthenticationError> {
        match self {
            Self::ClaimMatch(claims) => claims.check_together(),
            Self::StaticKeys(_) | Self::ClientCertificate(_) => Ok(()),
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
        self.check_together()?;
        self.issuer.check("claim_match.issuer")?;
        self.subject.check("claim_match.subject")?;
        if let Some(audience) = &self.audience {
            audience.check("claim_match.audience")?;
        }
        for (field, map) in [("claims", &self.claims), ("claim_patterns", &self.claim_patterns)] {
            let field = format!("claim_match.{field}");
            map.keys().try_for_each(|name| in_field(&field, check_name(name)))?;
        }
        for (name, value) in &self.claims {
            in_field(&format!("claim_match.claims[{name}]"), check_claim(value))?;
        }
        for (name, pattern) in &self.claim_patterns {
            check_pattern(&format!("claim_match.claim_patterns[{name}]"), pattern)?;
        }
        Ok(())
    }

    fn check_together(&self) -> Result<(), AuthenticationError> {
        // The anchors of one that has none take some bytes more, so that only few are parsed for nothing.
        let bytes: usize = self.patterns().map(str::len).sum();
        let bytes = if bytes > PATTERNS_BYTES_MAX {
            bytes
        } else {
            self.patterns().map(|pattern| anchored(pattern).len()).sum()
        };
        if bytes > PATTERNS_BYTES_MAX {
            let problem = format!(
                "patterns of {bytes} bytes with their anchors are more than {PATTERNS_BYTES_MAX}"
            );
            return Err(AuthenticationError::new("claim_match", problem));
        }
        for (field, map) in [("claims", &self.claims), ("claim_patterns", &self.claim_patterns)] {
            let field = format!("claim_match.{field}");
            if map.len() > CLAIMS_MAX {
                let problem = format!("{} are more than {CLAIMS_MAX}", map.len());
                return Err(AuthenticationError::new(field, problem));
            }
            if let Some(name) = map.keys().find(|name| matches!(&***name, "iss" | "sub" | "aud")) {
                let problem = format!("the claim {name} has a field of its own");
                return Err(AuthenticationError::new(field, problem));
            }
        }
        Ok(())
    }
}

impl Match {
    fn check(&self, field: &str) -> Result<(), AuthenticationError> {
        match self {
            Self::Exact(text) => in_field(field, check_claim(text)),
            Self::Pattern(pattern) => check_pattern(&format!("{field}_pattern"), pattern),
        }
    }
}

impl StaticKeys {
    fn check(&self) -> Result<(), AuthenticationError> {
        in_field("static_keys.issuer", check_claim(&self.issuer))?;
        in_field("static_keys.subject", check_claim(&self.subject))?;
        if let Some(audience) = &self.audience {
            in_field("static_keys.audience", check_claim(audience))?;
        }
        in_field("static_keys.jwks", check_key_set(&self.jwks))
    }
}

fn check_pattern(field: &str, pattern: &str) -> Result<(), AuthenticationError> {
    let compiled = compile_pattern(pattern).map(|_| ());
    in_field(field, compiled.map_err(|error| error.to_string()))
}

fn in_field(field: &str, checked: Result<(), String>) -> Result<(), AuthenticationError> {
    checked.map_err(|problem| AuthenticationError::new(field, problem))
}

/// The text of a claim: 1 to [`CLAIM_BYTES_MAX`] bytes without control characters.
///
/// # Errors
///
/// What is wrong.
pub fn check_claim(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("not empty".into());
    }
    check_bytes(text, CLAIM_BYTES_MAX)
}

/// `spiffe://TRUST-DOMAIN/PATH`, as the SPIFFE-ID standard (section 2) has it, of a workload: with a path.
///
/// # Errors
///
/// What is wrong, or what is expected.
pub fn check_spiffe_id(text: &str) -> Result<(), String> {
    check_claim(text)?;
    let is_valid = || {
        let (domain, path) = text.strip_prefix("spiffe://")?.split_once('/')?;
        let is_domain = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
        };
        let is_path = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        let is_segment =
            |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_path);
        let holds = !domain.is_empty()
            && domain.len() <= TRUST_DOMAIN_BYTES_MAX
            && domain.bytes().all(is_domain)
            && path.split('/').all(is_segment);
        holds.then_some(())
    };
    let expected =
        "spiffe://TRUST-DOMAIN/PATH, with a domain in lower case and no empty or dotted segment";
    is_valid().ok_or_else(|| expected.into())
}

/// The DNS name of a host, as an identity or a caller names it: labels of letters in lower case, digits and hyphens (RFC 1123,
/// section 2.1). One label is enough. What ends in a number could be an address, and is none.
///
/// # Errors
///
/// What is wrong, or what is expected.
pub fn check_dns_name(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("not empty".into());
    }
    check_bytes(text, DNS_NAME_BYTES_MAX)?;
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let is_label = |label: &str| {
        (1..=DNS_LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(is_inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let ends_in_number = text.rsplit('.').next().is_some_and(is_number);
    if text.split('.').all(is_label) && !ends_in_number {
        return Ok(());
    }
    Err("a host name in lower case, of labels of a-z 0-9 - joined by dots, with no wildcard, no dot at either end, and \
         no IP address"
        .into())
}

fn is_number(label: &str) -> bool {
    label.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spiffe_ids_are_those_of_workloads() {
        let long = |bytes: usize| {
            let start = "spiffe://example.org/";
            start.to_owned() + &"a".repeat(bytes - start.len())
        };
        let domain = |bytes: usize| format!("spiffe://{}/a", "d".repeat(bytes));
        let right = ["spiffe://example.org/ns/prod/sa/web", "spiffe://a_b-c.1/X", "spiffe://a/..."];
        let longest = [long(CLAIM_BYTES_MAX), domain(TRUST_DOMAIN_BYTES_MAX)];
        for id in right.into_iter().chain(longest.iter().map(String::as_str)) {
            assert_eq!(check_spiffe_id(id), Ok(()), "{id}");
        }
        let wrong = [
            "",
            "spiffe://",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe:///a",
            "spiffe://Example.org/a",
            "spiffe://example.org/a/",
            "spiffe://example.org//a",
            "spiffe://example.org/./a",
            "spiffe://example.org/..",
            "spiffe://example.org/a?b",
            "spiffe://user@example.org/a",
            "spiffe://example.org:443/a",
            "https://example.org/a",
            "spiffe://example.org/a%2Fb",
        ];
        let longer = [long(CLAIM_BYTES_MAX + 1), domain(TRUST_DOMAIN_BYTES_MAX + 1)];
        for id in wrong.into_iter().chain(longer.iter().map(String::as_str)) {
            assert!(check_spiffe_id(id).is_err(), "{id}");
        }
    }

    #[test]
    fn dns_names_are_those_of_hosts() {
        let label = "l".repeat(DNS_LABEL_BYTES_MAX);
        let long = |bytes: usize| {
            let labels = [&*label; 4].join(".");
            labels.get(..bytes).unwrap().to_owned()
        };
        assert_eq!(long(DNS_NAME_BYTES_MAX).len(), 253);
        let right = ["a", "ci.acme.example", "localhost", "1.a", "4-2.x1", "xn--bcher-kva.example"];
        let longest = [long(DNS_NAME_BYTES_MAX), format!("{label}.example")];
        for name in right.into_iter().chain(longest.iter().map(String::as_str)) {
            assert_eq!(check_dns_name(name), Ok(()), "{name}");
        }
        let wrong = [
            "",
            ".",
            "CI.acme.example",
            "ci.acme.example.",
            ".acme.example",
            "ci..example",
            "*.acme.example",
            "*",
            "c*.acme.example",
            "-ci.example",
            "ci-.example",
            "ci_1.example",
            "ci.example:443",
            "ci.example/x",
            "user@ci.example",
            "bücher.example",
            "a b",
            "a\n",
            "a\0",
            "192.0.2.1",
            "192.0.2",
            "7",
            "a.7",
            "::1",
            "[::1]",
        ];
        let longer = [long(DNS_NAME_BYTES_MAX + 1), format!("{label}l.example")];
        for name in wrong.into_iter().chain(longer.iter().map(String::as_str)) {
            assert!(check_dns_name(name).is_err(), "{name}");
        }
    }
}
