//! How an identity proves who it is: claims of a token, keys of its own, or a certificate.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use capstan_engine::quote;
use capstan_proto::iam::v1::claim_match::{AudienceMatch, IssuerMatch, SubjectMatch};
use capstan_proto::iam::v1::identity::Authentication;
use capstan_proto::iam::v1::{ClaimMatch, ClientCertificate, StaticKeys};
use serde_json::Value;

use crate::audit::file;
use crate::iam::connection::Write;
use crate::iam::values::EndArgs;
use crate::limits::KEYS_BYTES_MAX;

/// The members of a JSON Web Key that are secret (RFC 7518, section 6).
const SECRETS: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The options that say how an identity proves who it is. At most one of them.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct AuthenticationArgs {
    /// A token whose claims match: issuer=, subject=, audience= and claim.NAME= exactly, or with -pattern a regular
    /// expression for the whole value: issuer-pattern=, subject-pattern=, audience-pattern=, claim-pattern.NAME=. Join
    /// them with commas, or repeat. Issuer and subject are required
    #[arg(long, value_name = "CLAIM=VALUE,...", group = "how")]
    claim_match: Vec<String>,

    /// A token that is signed with one of these keys: a JSON Web Key Set with public keys; `-` is standard input
    #[arg(long, value_name = "FILE", group = "how", requires_all = ["issuer", "subject", "end"])]
    static_keys: Option<PathBuf>,

    /// A client certificate with this as its only URI name, such as spiffe://example.org/ci
    #[arg(long, value_name = "URI", group = "how")]
    spiffe_id: Option<String>,

    /// A client certificate without URI names and with this DNS name, such as ci.example.org: in lower case, no wildcard
    #[arg(long, value_name = "NAME", group = "how")]
    dns_name: Option<String>,

    /// With --static-keys: the `iss` claim of its tokens
    #[arg(long, value_name = "ISSUER", requires = "static_keys")]
    issuer: Option<String>,

    /// With --static-keys: the `sub` claim of its tokens
    #[arg(long, value_name = "SUBJECT", requires = "static_keys")]
    subject: Option<String>,

    /// With --static-keys: the `aud` claim of its tokens [default: the audience of the server]
    #[arg(long, value_name = "AUDIENCE", requires = "static_keys")]
    audience: Option<String>,

    #[command(flatten)]
    end: EndArgs,
}

impl AuthenticationArgs {
    /// # Errors
    ///
    /// A claim that is none, keys that cannot be read or that are secret, no end of the keys, or one that differs each time
    /// in a request that may be repeated.
    pub(super) fn authentication(
        &self,
        write: &mut Write,
    ) -> anyhow::Result<Option<Authentication>> {
        let end = self.end.end()?;
        self.end.ensure_repeatable(end, write)?;
        if let Some(path) = &self.static_keys {
            let keys = StaticKeys {
                issuer: self.issuer.clone().unwrap_or_default(),
                subject: self.subject.clone().unwrap_or_default(),
                jwks: public_keys("--static-keys", path)?,
                expires_at: end,
                audience: self.audience.clone().unwrap_or_default(),
            };
            return Ok(Some(Authentication::StaticKeys(keys)));
        }
        ensure!(end.is_none(), "--expires-at and --ttl are the end of --static-keys");
        if self.spiffe_id.is_some() || self.dns_name.is_some() {
            let certificate = ClientCertificate {
                spiffe_id: self.spiffe_id.clone().unwrap_or_default(),
                dns_name: self.dns_name.clone().unwrap_or_default(),
            };
            return Ok(Some(Authentication::ClientCertificate(certificate)));
        }
        if self.claim_match.is_empty() {
            return Ok(None);
        }
        Ok(Some(Authentication::ClaimMatch(claim_match(&self.claim_match)?)))
    }
}

/// A key set as it is in the file of an option.
///
/// # Errors
///
/// The file is longer than [`KEYS_BYTES_MAX`], is no key set, or has a secret key: that never leaves its machine.
pub(in crate::iam) fn public_keys(option: &str, path: &Path) -> anyhow::Result<String> {
    let what = || format!("{option} {}", path.display());
    let mut text = String::new();
    let opened = File::open(file(path)).with_context(what)?;
    opened.take(KEYS_BYTES_MAX + 1).read_to_string(&mut text).with_context(what)?;
    check_keys(&text).with_context(what)?;
    Ok(text)
}

fn check_keys(text: &str) -> anyhow::Result<()> {
    ensure!(text.len() as u64 <= KEYS_BYTES_MAX, "longer than {KEYS_BYTES_MAX} bytes");
    let set: Value = serde_json::from_str(text).context("no JSON")?;
    let Some(keys) = set.get("keys").and_then(Value::as_array) else {
        bail!("no JSON Web Key Set: expected {{\"keys\": [...]}}");
    };
    for (key, number) in keys.iter().zip(1..) {
        if let Some(secret) = SECRETS.into_iter().find(|member| key.get(member).is_some()) {
            bail!("key {number} has the secret member `{secret}`: give public keys only");
        }
    }
    Ok(())
}

/// What a part of `--claim-match` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Claim<'a> {
    Issuer,
    Subject,
    Audience,
    Other(&'a str),
}

/// The claim of a key such as `subject-pattern` or `claim.email`, and whether its value is a pattern.
fn claim(key: &str) -> Option<(Claim<'_>, bool)> {
    let key = key.trim();
    Some(match key {
        "issuer" => (Claim::Issuer, false),
        "issuer-pattern" | "issuer_pattern" => (Claim::Issuer, true),
        "subject" => (Claim::Subject, false),
        "subject-pattern" | "subject_pattern" => (Claim::Subject, true),
        "audience" => (Claim::Audience, false),
        "audience-pattern" | "audience_pattern" => (Claim::Audience, true),
        _ => {
            let (kind, name) = key.split_once('.')?;
            let is_pattern = match kind {
                "claim" => false,
                "claim-pattern" | "claim_pattern" => true,
                _ => return None,
            };
            (Claim::Other(name), is_pattern)
        }
    })
}

/// The parts of an argument. A comma ends a part only if a key and `=` follow, because patterns have commas, too.
fn parts(argument: &str) -> Vec<(&str, &str)> {
    let is_start = |at: usize| {
        let rest = argument.get(at..).unwrap_or_default();
        rest.split_once('=').is_some_and(|(key, _)| claim(key).is_some())
    };
    let commas = argument.match_indices(',').map(|(at, _)| at);
    let mut ends: Vec<usize> = commas.filter(|at| is_start(at + 1)).collect();
    ends.push(argument.len());
    let mut start = 0;
    let mut found = Vec::new();
    for end in ends {
        let part = argument.get(start..end).unwrap_or_default();
        found.push(part.split_once('=').unwrap_or((part, "")));
        start = end + 1;
    }
    found
}

/// # Errors
///
/// A key that is none, a claim given twice, or no issuer or subject.
fn claim_match(arguments: &[String]) -> anyhow::Result<ClaimMatch> {
    let mut found = ClaimMatch::default();
    for (key, value) in arguments.iter().flat_map(|argument| parts(argument)) {
        let Some((claim, is_pattern)) = claim(key) else {
            bail!(
                "--claim-match: {} is no claim: expected issuer, subject, audience or claim.NAME, or one of them with \
                 -pattern, and =",
                quote(key)
            );
        };
        ensure!(!value.is_empty(), "--claim-match: {} has no value", quote(key));
        let value = value.to_owned();
        let is_twice = match claim {
            Claim::Issuer => {
                let one = if is_pattern { IssuerMatch::IssuerPattern } else { IssuerMatch::Issuer };
                found.issuer_match.replace(one(value)).is_some()
            }
            Claim::Subject => {
                let one =
                    if is_pattern { SubjectMatch::SubjectPattern } else { SubjectMatch::Subject };
                found.subject_match.replace(one(value)).is_some()
            }
            Claim::Audience => {
                let one = if is_pattern {
                    AudienceMatch::AudiencePattern
                } else {
                    AudienceMatch::Audience
                };
                found.audience_match.replace(one(value)).is_some()
            }
            Claim::Other(name) => {
                let into = if is_pattern { &mut found.claim_patterns } else { &mut found.claims };
                into.insert(name.to_owned(), value).is_some()
            }
        };
        ensure!(!is_twice, "--claim-match: {} is given twice", quote(key));
    }
    ensure!(
        found.issuer_match.is_some() && found.subject_match.is_some(),
        "--claim-match: a token is of an issuer and about a subject: give both, such as \
         issuer=https://accounts.example.com,subject=1234"
    );
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> anyhow::Result<ClaimMatch> {
        claim_match(&arguments.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_comma_in_a_pattern_ends_nothing() {
        let found = read(&[
            "issuer=https://a.example,subject-pattern=repo:[a-z]{1,3}:x=y,z,claim.email=a@b.c",
            "claim_pattern.ref=refs/tags/.+",
        ])
        .unwrap();
        assert_eq!(found.issuer_match, Some(IssuerMatch::Issuer("https://a.example".into())));
        let subject = SubjectMatch::SubjectPattern("repo:[a-z]{1,3}:x=y,z".into());
        assert_eq!(found.subject_match, Some(subject));
        assert_eq!(found.claims["email"], "a@b.c");
        assert_eq!(found.claim_patterns["ref"], "refs/tags/.+");
        assert_eq!(found.audience_match, None);
    }

    #[test]
    fn claims_are_known_single_and_enough() {
        for (arguments, expected) in [
            (&["isuer=x,subject=y"][..], "`isuer` is no claim"),
            (&["issuer=x", "issuer-pattern=y", "subject=z"], "given twice"),
            (&["issuer=x"], "give both"),
            (&["issuer=,subject=y"], "has no value"),
            (&["issuer"], "has no value"),
            (&["issuer=x,subject=y,claim.a=1,claim.a=2"], "given twice"),
        ] {
            let error = read(arguments).unwrap_err().to_string();
            assert!(error.starts_with("--claim-match: ") && error.contains(expected), "{error}");
        }
    }

    #[test]
    fn secret_keys_are_not_sent() {
        let error = |text: &str| format!("{:#}", check_keys(text).unwrap_err());
        check_keys(r#"{"keys": [{"kty": "EC", "x": "1", "y": "2"}]}"#).unwrap();
        let secret = error(r#"{"keys": [{"kty": "EC"}, {"kty": "EC", "d": "3"}]}"#);
        assert!(secret.contains("key 2 has the secret member `d`"), "{secret}");
        assert!(error(r#"{"keys": [{"kty": "oct", "k": "3"}]}"#).contains("`k`"));
        assert!(error(r#"[]"#).contains("no JSON Web Key Set"));
        assert!(error("-----BEGIN").contains("no JSON"));
        let most = usize::try_from(KEYS_BYTES_MAX).unwrap();
        let set = r#"{"keys": []}"#;
        let padded = |length: usize| [set, &" ".repeat(length - set.len())].concat();
        check_keys(&padded(most)).unwrap();
        assert!(error(&padded(most + 1)).contains("longer than"));
    }
}
