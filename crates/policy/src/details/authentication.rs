//! How an identity proves who it is.

use std::collections::BTreeMap;

use capstan_engine::Timestamp;

use super::keys::read_key_set;
use super::pattern::read_pattern;
use crate::reader::{Node, Reader, Required};

/// Most bytes of a SPIFFE ID (SPIFFE-ID, section 2.3).
pub const SPIFFE_ID_BYTES_MAX: usize = 2048;
/// Most bytes of the trust domain of a SPIFFE ID (SPIFFE-ID, section 2.1).
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// How an identity proves who it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// By a token of an issuer that publishes its keys.
    ClaimMatch(ClaimMatch),
    /// By a token that is signed with one of these keys.
    StaticKeys(StaticKeys),
    /// By a certificate with this SPIFFE ID: `spiffe://trust-domain/path`.
    ClientCertificate(String),
}

/// What a claim must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matcher {
    /// This text.
    Exactly(String),
    /// What this regular expression matches, in the syntax of the crate `regex`. Every match of it is the whole claim.
    Pattern(String),
}

/// The claims that a token must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimMatch {
    /// The claim `iss`.
    pub issuer: Matcher,
    /// The claim `sub`.
    pub subject: Matcher,
    /// The claim `aud`; `None` if the document leaves it to the server.
    pub audience: Option<Matcher>,
    /// Further claims, by name.
    pub claims: BTreeMap<String, String>,
    /// Further claims, by name, and what each must match: see [`Matcher::Pattern`].
    pub claim_patterns: BTreeMap<String, String>,
}

/// The keys that sign an identity's tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticKeys {
    /// The claim `iss`.
    pub issuer: String,
    /// The claim `sub`.
    pub subject: String,
    /// The public keys, as a JSON Web Key Set (RFC 7517) in JSON.
    pub jwks: String,
    /// The keys count before this time; for ever without one.
    pub expires_at: Option<Timestamp>,
    /// The claim `aud`; empty if the document leaves it to the server.
    pub audience: String,
}

pub(crate) fn read_authentication<'t>(
    reader: &mut Reader<'t>,
    node: Node<'t>,
) -> Option<Authentication> {
    let mark = node.mark;
    let mut found = Vec::new();
    let is_mapping = reader.mapping(
        node,
        "how the identity authenticates: a mapping with `claim_match`, `static_keys` or `client_certificate`",
        &["claim_match", "static_keys", "client_certificate"],
        |reader, key, value| {
            found.push(match key {
                "claim_match" => {
                    read_claim_match(reader, value).map(Authentication::ClaimMatch)
                }
                "static_keys" => {
                    read_static_keys(reader, value).map(Authentication::StaticKeys)
                }
                _ => read_certificate(reader, value).map(Authentication::ClientCertificate),
            });
        },
    );
    if is_mapping && found.len() != 1 {
        let found = if found.is_empty() { "no way" } else { "several ways" };
        reader.report(mark, found, "one of `claim_match`, `static_keys` and `client_certificate`");
    }
    found.pop().flatten()
}

/// A claim that is given exactly or by a pattern.
#[derive(Default)]
struct Given {
    count: usize,
    value: Option<Matcher>,
}

impl Given {
    fn exactly<'t>(&mut self, reader: &mut Reader<'t>, node: Node<'t>) {
        self.count += 1;
        self.value = read_word(reader, node).map(Matcher::Exactly);
    }

    fn pattern<'t>(&mut self, reader: &mut Reader<'t>, node: Node<'t>) {
        self.count += 1;
        self.value = read_pattern(reader, node).map(Matcher::Pattern);
    }
}

fn read_claim_match<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<ClaimMatch> {
    let mark = node.mark;
    let (mut issuer, mut subject, mut audience) = <(Given, Given, Given)>::default();
    let (mut claims, mut claim_patterns) = (BTreeMap::new(), BTreeMap::new());
    let is_mapping = reader.mapping(
        node,
        "a mapping with `issuer` or `issuer_pattern`, and `subject` or `subject_pattern`",
        &[
            "issuer",
            "issuer_pattern",
            "subject",
            "subject_pattern",
            "audience",
            "audience_pattern",
            "claims",
            "claim_patterns",
        ],
        |reader, key, value| match key {
            "issuer" => issuer.exactly(reader, value),
            "issuer_pattern" => issuer.pattern(reader, value),
            "subject" => subject.exactly(reader, value),
            "subject_pattern" => subject.pattern(reader, value),
            "audience" => audience.exactly(reader, value),
            "audience_pattern" => audience.pattern(reader, value),
            "claims" => {
                claims = reader.named(value, "a mapping of claims", "a claim's name", read_word)
            }
            _ => {
                let expected = "a mapping of claims to patterns";
                claim_patterns = reader.named(value, expected, "a claim's name", read_pattern);
            }
        },
    );
    if !is_mapping {
        return None;
    }
    for (given, key, least) in
        [(&issuer, "issuer", 1), (&subject, "subject", 1), (&audience, "audience", 0)]
    {
        if given.count < least {
            let expected = format!("`{key}` or `{key}_pattern`");
            reader.report(mark, format!("no {expected}"), expected);
        } else if given.count > 1 {
            let found = format!("two forms of the claim {key}");
            reader.report(mark, found, format!("either `{key}` or `{key}_pattern`"));
        }
    }
    // What is unreadable is reported.
    let all = |named: BTreeMap<String, Option<String>>| -> BTreeMap<String, String> {
        named.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    };
    let (claims, claim_patterns) = (all(claims), all(claim_patterns));
    let (issuer, subject) = (issuer.value?, subject.value?);
    Some(ClaimMatch { issuer, subject, audience: audience.value, claims, claim_patterns })
}

fn read_static_keys<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<StaticKeys> {
    let mark = node.mark;
    let (mut issuer, mut subject) = (Required::new("issuer"), Required::new("subject"));
    let mut jwks = Required::new("jwks");
    let (mut expires_at, mut audience) = (None, String::new());
    let is_mapping = reader.mapping(
        node,
        "a mapping with `issuer`, `subject` and `jwks`",
        &["issuer", "subject", "jwks", "expires_at", "audience"],
        |reader, key, value| match key {
            "issuer" => issuer.read(reader, value, read_word),
            "subject" => subject.read(reader, value, read_word),
            "jwks" => jwks.read(reader, value, read_key_set),
            "expires_at" => expires_at = reader.timestamp(value),
            _ => audience = read_word(reader, value).unwrap_or_default(),
        },
    );
    let issuer = issuer.get(reader, mark, is_mapping);
    let subject = subject.get(reader, mark, is_mapping);
    let jwks = jwks.get(reader, mark, is_mapping);
    let (issuer, subject, jwks) = (issuer?, subject?, jwks?);
    Some(StaticKeys { issuer, subject, jwks, expires_at, audience })
}

fn read_certificate<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<String> {
    let mark = node.mark;
    let mut spiffe_id = Required::new("spiffe_id");
    let is_mapping =
        reader.mapping(node, "a mapping with `spiffe_id`", &["spiffe_id"], |reader, _, value| {
            spiffe_id.read(reader, value, |reader, node| {
                reader.parse(node, "a SPIFFE ID", |text| {
                    let is_right = is_spiffe_id(text);
                    is_right.then(|| text.to_owned()).ok_or("spiffe://trust-domain/path")
                })
            });
        });
    spiffe_id.get(reader, mark, is_mapping)
}

/// A text that is not empty.
fn read_word<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<String> {
    let mark = node.mark;
    let text = reader.text(node)?;
    if text.is_empty() {
        reader.report(mark, "an empty text", "a text that is not empty");
        return None;
    }
    Some(text)
}

/// Whether this is a SPIFFE ID of a workload: a trust domain, and a path of one segment or more.
fn is_spiffe_id(text: &str) -> bool {
    let parts = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
    let Some((domain, path)) = parts else { return false };
    let is_of_domain =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let is_of_path = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let is_segment =
        |segment: &str| !matches!(segment, "" | "." | "..") && segment.bytes().all(is_of_path);
    text.len() <= SPIFFE_ID_BYTES_MAX
        && (1..=TRUST_DOMAIN_BYTES_MAX).contains(&domain.len())
        && domain.bytes().all(is_of_domain)
        && path.split('/').all(is_segment)
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
        let longest = [long(SPIFFE_ID_BYTES_MAX), domain(TRUST_DOMAIN_BYTES_MAX)];
        for id in right.into_iter().chain(longest.iter().map(String::as_str)) {
            assert!(is_spiffe_id(id), "{id}");
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
        let longer = [long(SPIFFE_ID_BYTES_MAX + 1), domain(TRUST_DOMAIN_BYTES_MAX + 1)];
        for id in wrong.into_iter().chain(longer.iter().map(String::as_str)) {
            assert!(!is_spiffe_id(id), "{id}");
        }
    }
}
