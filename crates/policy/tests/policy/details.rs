//! What a policy says beside its facts (descriptions, how identities authenticate), disabled identities, and bindings
//! of persons who are not declared.

#![expect(clippy::unwrap_used, reason = "documents of the test itself")]

use capstan_engine::{Facts, Timestamp};
use capstan_policy::{
    Authentication, ClaimMatch, Details, Matcher, PATTERN_COMPILED_BYTES_MAX, StaticKeys,
    TEXT_BYTES_MAX, stream_policy,
};

use crate::common::{CATALOGS, check, check_acme, facts, load, policy};

const PERSON: &str = "0123456789abcdef0123456789abcdef01234567";

fn described(text: &str) -> Option<Details> {
    Some(Details { description: text.into(), ..Details::default() })
}

/// Of most facts there is nothing to say.
#[test]
fn descriptions_are_by_the_positions_of_facts() {
    let loaded = load(policy(
        "groups: [{id: a}, {id: a/b, description: teams}, {id: c, description: ''}]
identities: [{id: i, description: one}, {id: j}, {id: k, description: three}]
role_bindings: [{identity: i, role: reader, scope: a}, {identity: j, role: reader, scope: a, description: why}]
resources: [{id: r, type: record, description: what}]
",
    ));
    let details = loaded.unwrap().details;
    assert_eq!((details.groups.get(0), details.groups.get(2)), (None, None));
    assert_eq!(details.groups.get(1).cloned(), described("teams"));
    assert_eq!((details.groups.len(), details.identities.len()), (1, 2));
    assert_eq!(details.identities.get(0).cloned(), described("one"));
    assert_eq!(details.identities.get(2).cloned(), described("three"));
    assert_eq!((details.role_bindings.get(0), details.identities.get(1)), (None, None));
    assert_eq!(details.role_bindings.get(1).cloned(), described("why"));
    assert_eq!(details.resources.get(0).cloned(), described("what"));
    assert!(load(policy("")).unwrap().details.resources.is_empty());
}

fn authentication(text: &str) -> Authentication {
    let identities = format!("identities: [{{id: i, authentication: {text}}}]");
    let details = load(policy(&identities)).unwrap().details;
    details.identities.get(0).unwrap().authentication.clone().unwrap()
}

#[test]
fn every_kind_of_authentication_is_read() {
    let found = authentication(
        "{claim_match: {issuer: 'https://a', subject_pattern: '^x.*$', audience: c, claims: {env: prod}, \
         claim_patterns: {run: '^[0-9]+$'}}}",
    );
    let one = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
    let expected = ClaimMatch {
        issuer: Matcher::Exactly("https://a".into()),
        subject: Matcher::Pattern("^x.*$".into()),
        audience: Some(Matcher::Exactly("c".into())),
        claims: one("env", "prod"),
        claim_patterns: one("run", "^[0-9]+$"),
    };
    assert_eq!(found, Authentication::ClaimMatch(expected));
    let Authentication::ClaimMatch(short) =
        authentication("{claim_match: {issuer_pattern: ^a$, subject: s}}")
    else {
        panic!("no claim match")
    };
    assert_eq!((short.issuer, short.audience), (Matcher::Pattern("^a$".into()), None));
    assert!(short.claims.is_empty() && short.claim_patterns.is_empty());

    let found = authentication(
        "{static_keys: {issuer: i, subject: s, jwks: {keys: [{kty: RSA, n: 'AQ', e: AQAB, key_ops: [verify], ext: true}]}, \
         expires_at: 2027-01-01T00:00:00Z, audience: a}}",
    );
    let expected = StaticKeys {
        issuer: "i".into(),
        subject: "s".into(),
        jwks: r#"{"keys":[{"e":"AQAB","ext":true,"key_ops":["verify"],"kty":"RSA","n":"AQ"}]}"#
            .into(),
        expires_at: Some(Timestamp::new(1_798_761_600, 0)),
        audience: "a".into(),
    };
    assert_eq!(found, Authentication::StaticKeys(expected));
    let found = authentication("{client_certificate: {spiffe_id: 'spiffe://a.b/c/d'}}");
    assert_eq!(found, Authentication::ClientCertificate("spiffe://a.b/c/d".into()));
}

/// The complete diagnostics of an identity that authenticates so, each as column, key below `authentication`, found and
/// expected.
fn refused(text: &str, expected: &[&str]) {
    let whole = |line: &&str| {
        let (column, rest) = line.split_once(' ').unwrap();
        format!("5:{column}: identities[0].authentication{rest}")
    };
    let expected: Vec<_> = expected.iter().map(whole).collect();
    let expected: Vec<_> = expected.iter().map(String::as_str).collect();
    check(policy(&format!("identities:\n- id: i\n  authentication: {text}\n")), &expected);
}

#[test]
fn an_identity_authenticates_in_one_way() {
    refused(
        "{}",
        &[
            "19 : found no way; expected one of `claim_match`, `static_keys` and `client_certificate`",
        ],
    );
    refused(
        "later",
        &[
            "19 : found the string `later`; expected how the identity authenticates: a mapping with `claim_match`, \
             `static_keys` or `client_certificate`",
        ],
    );
    refused(
        "{client_certificate: {spiffe_id: 'spiffe://a/b'}, static_keys: {issuer: i}}",
        &[
            "19 : found several ways; expected one of `claim_match`, `static_keys` and `client_certificate`",
            "82 .static_keys: found no `subject`; expected the key `subject`",
            "82 .static_keys: found no `jwks`; expected the key `jwks`",
        ],
    );
    refused(
        "{password: x}",
        &[
            "19 : found no way; expected one of `claim_match`, `static_keys` and `client_certificate`",
            "20 : found unknown key `password`; expected one of the keys claim_match, static_keys, client_certificate",
        ],
    );
}

#[test]
fn claims_are_named_once() {
    refused(
        "{claim_match: {}}",
        &[
            "33 .claim_match: found no `issuer` or `issuer_pattern`; expected `issuer` or `issuer_pattern`",
            "33 .claim_match: found no `subject` or `subject_pattern`; expected `subject` or `subject_pattern`",
        ],
    );
    refused(
        "{claim_match: {issuer: a, issuer_pattern: ^a$, subject: '', audience: a, audience_pattern: ^a$}}",
        &[
            "33 .claim_match: found two forms of the claim issuer; expected either `issuer` or `issuer_pattern`",
            "33 .claim_match: found two forms of the claim audience; expected either `audience` or `audience_pattern`",
            "75 .claim_match.subject: found an empty text; expected a text that is not empty",
        ],
    );
    refused(
        "{claim_match: {issuer: a, subject: b, claims: {x: 1, '': y}, claim_patterns: {z: z}}}",
        &[
            "69 .claim_match.claims: found the number `1`; expected a text (quote it to make it a string)",
            "72 .claim_match.claims: found ``; expected a claim's name (not empty)",
            "100 .claim_match.claim_patterns: found `z`; expected a pattern that begins with `^` and ends with `$` \
             (it would match a part of the claim)",
        ],
    );
    refused(
        "{claim_match: {issuer: \"a\\u0000\", subject: b, claims: []}}",
        &[
            "42 .claim_match.issuer: found `a\\0`; expected a text (no control characters)",
            "73 .claim_match.claims: found a list; expected a mapping of claims",
        ],
    );
}

#[test]
fn patterns_match_a_claim_as_a_whole() {
    let pattern = |text: &str, lines: &[&str]| {
        refused(&format!("{{claim_match: {{issuer: a, subject_pattern: '{text}'}}}}"), lines);
    };
    pattern(
        "^a",
        &[
            "62 .claim_match.subject_pattern: found `^a`; expected a pattern that begins with `^` and ends with \
             `$` (it would match a part of the claim)",
        ],
    );
    pattern(
        "^a|b$",
        &[
            "62 .claim_match.subject_pattern: found `^a|b$`; expected a pattern that begins with `^` and ends with \
             `$` (it can match a part of the claim; put alternatives in parentheses)",
        ],
    );
    pattern(
        "^(x$",
        &[
            "62 .claim_match.subject_pattern: found `^(x$`; expected a pattern that begins with `^` and ends with \
             `$` (unclosed group)",
        ],
    );
    // A character of a class of all of Unicode takes hundreds of bytes.
    let large = format!(
        "62 .claim_match.subject_pattern: found `^(?:\\\\w{{9}}){{9}}$`; expected a \
         pattern that begins with `^` and ends with `$` (it takes more than {PATTERN_COMPILED_BYTES_MAX} bytes when \
         it is compiled)"
    );
    pattern(r"^(?:\w{9}){9}$", &[&large]);
    pattern(
        "",
        &[
            "62 .claim_match.subject_pattern: found ``; expected a pattern that begins with `^` and ends with `$` \
             (it would match a part of the claim)",
        ],
    );
}

#[test]
fn keys_are_public_and_there_is_one() {
    let keys = |text: &str, lines: &[&str]| {
        refused(&format!("{{static_keys: {{issuer: a, subject: b, jwks: {text}}}}}"), lines);
    };
    keys(
        "[]",
        &["63 .static_keys.jwks: found a list; expected a JSON Web Key Set: a mapping with `keys`"],
    );
    keys("{}", &["63 .static_keys.jwks: found no `keys`; expected the key `keys`"]);
    keys("{keys: []}", &["70 .static_keys.jwks.keys: found no keys; expected at least one key"]);
    keys(
        "{keys: [{kty: EC, d: secret}, {kty: oct, k: secret}, {x: y}, 5, {kty: [EC]}]}",
        &[
            "71 .static_keys.jwks.keys[0]: found a private or symmetric key; expected a public key, which has no \
             member `d`",
            "93 .static_keys.jwks.keys[1]: found a private or symmetric key; expected a public key, which has no \
             member `k`",
            "116 .static_keys.jwks.keys[2]: found a key without a type; expected the string `kty`, such as `kty: EC`",
            "124 .static_keys.jwks.keys[3]: found the number `5`; expected a public key: a mapping",
            "127 .static_keys.jwks.keys[4]: found a key without a type; expected the string `kty`, such as `kty: EC`",
        ],
    );
    keys(
        "{keys: [{kty: EC, n: 5, x: {}, y: [1]}]}",
        &[
            "84 .static_keys.jwks.keys[0]: found the number `5`; expected a string, a boolean or a list of strings \
             (quote it to make it a string)",
            "90 .static_keys.jwks.keys[0]: found a mapping; expected a string, a boolean or a list of strings",
            "98 .static_keys.jwks.keys[0][0]: found the number `1`; expected a string (quote it to make it a string)",
        ],
    );
    refused(
        "{static_keys: {}}",
        &[
            "33 .static_keys: found no `issuer`; expected the key `issuer`",
            "33 .static_keys: found no `subject`; expected the key `subject`",
            "33 .static_keys: found no `jwks`; expected the key `jwks`",
        ],
    );
    refused(
        "{static_keys: {issuer: a, subject: b, jwks: {keys: [{kty: EC}]}, expires_at: soon, audience: ''}}",
        &[
            "96 .static_keys.expires_at: found `soon`; expected a time in RFC 3339, such as 2027-01-01T00:00:00Z",
            "112 .static_keys.audience: found an empty text; expected a text that is not empty",
        ],
    );
}

#[test]
fn certificates_have_a_spiffe_id() {
    refused(
        "{client_certificate: {}}",
        &["40 .client_certificate: found no `spiffe_id`; expected the key `spiffe_id`"],
    );
    refused(
        "{client_certificate: {spiffe_id: 'https://a/b'}}",
        &[
            "52 .client_certificate.spiffe_id: found `https://a/b`; expected a SPIFFE ID (spiffe://trust-domain/path)",
        ],
    );
}

#[test]
fn descriptions_are_texts() {
    let long = "a".repeat(TEXT_BYTES_MAX + 1);
    check(
        policy(&format!("groups: [{{id: a, description: {long}}}]")),
        &["3:31: groups[0].description: found \
             `aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…`; expected a text \
             (at most 1024 bytes, not 1025)"],
    );
    check_acme(
        "role_bindings: [{identity: alice, role: owner, scope: acme, description: 5}]",
        &[
            "7:74: role_bindings[0].description: found the number `5`; expected a text (quote it to make it a string)",
        ],
    );
}

#[test]
fn whether_an_identity_is_disabled_is_a_fact() {
    let text =
        facts(policy("identities: [{id: a, disabled: true}, {id: b, disabled: false}, {id: c}]"));
    let disabled: Vec<_> = text.lines().filter(|line| line.contains("disabled")).collect();
    assert_eq!(disabled.iter().filter(|line| line.contains("true")).count(), 1, "{text}");
    assert_eq!(disabled.len(), 3, "{text}");
    check(
        policy("identities: [{id: a, disabled: 'true'}]"),
        &["3:32: identities[0].disabled: found the string `true`; expected true or false"],
    );
}

/// A person is bound before being declared, also in a document that is read piece by piece.
#[test]
fn a_person_need_not_be_declared() {
    let bound = format!("role_bindings: [{{identity: {PERSON}, role: owner, scope: acme}}]\n");
    assert!(load(policy(&format!("groups: [{{id: acme}}]\n{bound}"))).is_ok());
    check(
        policy(&format!("groups: [{{id: acme}}, {{id: {PERSON}}}]\n{bound}")),
        &[
            "4:28: role_bindings[0].identity: found `0123456789abcdef0123456789abcdef01234567`; expected a \
             declared identity",
        ],
    );
    let upper = PERSON.to_uppercase();
    for other in [&PERSON[1..], &upper, &format!("acme/{PERSON}")] {
        let bound = bound.replace(PERSON, other);
        let line = format!(
            "4:28: role_bindings[0].identity: found `{other}`; expected a declared identity"
        );
        check(policy(&format!("groups: [{{id: acme}}]\n{bound}")), &[&line]);
    }
    // A list that cannot be read may declare the path: nothing is said about it.
    check(
        policy(&format!("groups: 5\n{bound}")),
        &["3:9: groups: found the number `5`; expected a list of groups"],
    );
    // A credential is of a declared identity.
    let hash = "a".repeat(64);
    check(
        policy(&format!(
            "groups: [{{id: acme}}]\n{bound}credentials: [{{identity: {PERSON}, sha256: {hash}}}]"
        )),
        &[
            "5:26: credentials[0].identity: found `0123456789abcdef0123456789abcdef01234567`; expected a declared \
             identity",
        ],
    );
}

/// What is dropped is checked all the same.
#[test]
fn a_streamed_document_has_the_same_keys() {
    let streamed = |identity: &str| {
        let text = format!(
            "{{\"version\": 1, \"catalog\": \"test\", \"identities\": [{{\"id\": \"i\", {identity}}}]}}"
        );
        let streamed = stream_policy(text.as_bytes(), &CATALOGS, |_| Facts::default());
        streamed.map(|streamed| streamed.sink.identities.len())
    };
    let certificate = |id: &str| {
        format!("\"authentication\": {{\"client_certificate\": {{\"spiffe_id\": \"{id}\"}}}}")
    };
    assert_eq!(streamed(&certificate("spiffe://a/b")).ok(), Some(1));
    assert!(streamed(&certificate("a/b")).is_err());
    assert_eq!(streamed("\"description\": \"x\", \"disabled\": true").ok(), Some(1));
    assert!(streamed("\"description\": 5").is_err());
}
