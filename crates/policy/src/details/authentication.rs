//! How an identity proves who it is. The rules are those of whoever stores it (`capstan-iam`); this reads, and says where
//! a rule is broken.

use std::collections::BTreeMap;

use capstan_iam::{
    Authentication, ClaimMatch, ClientCertificate, Match, StaticKeys, check_anchored, check_claim,
    check_dns_name, check_spiffe_id,
};

use super::keys::read_key_set;
use crate::reader::{Node, Reader, Required};

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
    let found = found.pop().flatten()?;
    if let Err(error) = found.check_together() {
        let expected = "how an identity can authenticate";
        reader.report(mark, error.to_string(), expected);
    }
    Some(found)
}

/// A claim that is given exactly or by a pattern.
#[derive(Default)]
struct Given {
    count: usize,
    value: Option<Match>,
}

impl Given {
    fn exactly<'t>(&mut self, reader: &mut Reader<'t>, node: Node<'t>) {
        self.count += 1;
        self.value = read_word(reader, node).map(Match::Exact);
    }

    fn pattern<'t>(&mut self, reader: &mut Reader<'t>, node: Node<'t>) {
        self.count += 1;
        self.value = read_pattern(reader, node).map(Match::Pattern);
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
    let (mut expires_at, mut audience) = (None, None);
    let is_mapping = reader.mapping(
        node,
        "a mapping with `issuer`, `subject` and `jwks`",
        &["issuer", "subject", "jwks", "expires_at", "audience"],
        |reader, key, value| match key {
            "issuer" => issuer.read(reader, value, read_word),
            "subject" => subject.read(reader, value, read_word),
            "jwks" => jwks.read(reader, value, read_key_set),
            "expires_at" => expires_at = reader.timestamp(value),
            _ => audience = read_word(reader, value),
        },
    );
    let issuer = issuer.get(reader, mark, is_mapping);
    let subject = subject.get(reader, mark, is_mapping);
    let jwks = jwks.get(reader, mark, is_mapping);
    let (issuer, subject, jwks) = (issuer?, subject?, jwks?);
    Some(StaticKeys { issuer, subject, jwks, expires_at, audience })
}

fn read_certificate<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<ClientCertificate> {
    let mark = node.mark;
    let (mut ways, mut certificate) = (0, None);
    let is_mapping = reader.mapping(
        node,
        "a mapping with `spiffe_id` or `dns_name`",
        &["spiffe_id", "dns_name"],
        |reader, key, value| {
            ways += 1;
            certificate = match key {
                "spiffe_id" => reader.parse(value, "the SPIFFE ID of a workload", |text| {
                    check_spiffe_id(text).map(|()| ClientCertificate::SpiffeId(text.into()))
                }),
                _ => reader.parse(value, "the DNS name of a host", |text| {
                    check_dns_name(text).map(|()| ClientCertificate::DnsName(text.into()))
                }),
            };
        },
    );
    if is_mapping && ways != 1 {
        let found = if ways == 0 { "neither" } else { "both" };
        reader.report(mark, found, "either `spiffe_id` or `dns_name`");
    }
    certificate
}

/// The text of a claim.
fn read_word<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<String> {
    reader.parse(node, "a text", |text| check_claim(text).map(|()| text.to_owned()))
}

fn read_pattern<'t>(reader: &mut Reader<'t>, node: Node<'t>) -> Option<String> {
    reader.parse(node, "a pattern that begins with `^` and ends with `$`", |text| {
        check_anchored(text).map(|()| text.to_owned())
    })
}
