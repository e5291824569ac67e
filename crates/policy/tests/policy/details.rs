//! What a policy says beside its facts (descriptions, how identities authenticate), disabled identities, and bindings
//! of persons who are not declared.

#![expect(clippy::unwrap_used, reason = "documents of the test itself")]

use capstan_engine::{Facts, Timestamp};
use capstan_iam::limits::{
    CLAIM_BYTES_MAX, CLAIMS_MAX, JWKS_KEYS_MAX, PATTERN_COMPILED_BYTES_MAX, PATTERNS_BYTES_MAX,
    PROPERTIES_MAX, PROPERTY_BYTES_MAX,
};
use capstan_iam::{Authentication, ClaimMatch, ClientCertificate, Match, StaticKeys};
use capstan_policy::{Details, TEXT_BYTES_MAX, stream_policy};

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
        issuer: Match::Exact("https://a".into()),
        subject: Match::Pattern("^x.*$".into()),
        audience: Some(Match::Exact("c".into())),
        claims: one("env", "prod"),
        claim_patterns: one("run", "^[0-9]+$"),
    };
    assert_eq!(found, Authentication::ClaimMatch(expected));
    let Authentication::ClaimMatch(short) =
        authentication("{claim_match: {issuer_pattern: ^a$, subject: s}}")
    else {
        panic!("no claim match")
    };
    assert_eq!((short.issuer, short.audience), (Match::Pattern("^a$".into()), None));
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
        audience: Some("a".into()),
    };
    assert_eq!(found, Authentication::StaticKeys(expected));
    let found = authentication("{client_certificate: {spiffe_id: 'spiffe://a.b/c/d'}}");
    let spiffe_id = ClientCertificate::SpiffeId("spiffe://a.b/c/d".into());
    assert_eq!(found, Authentication::ClientCertificate(spiffe_id));
    let found = authentication("{client_certificate: {dns_name: a-1.b}}");
    let dns_name = ClientCertificate::DnsName("a-1.b".into());
    assert_eq!(found, Authentication::ClientCertificate(dns_name));
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
            "75 .claim_match.subject: found ``; expected a text (not empty)",
        ],
    );
    refused(
        "{claim_match: {issuer: a, subject: b, claims: {x: 1, '': y}, claim_patterns: {z: z}}}",
        &[
            "69 .claim_match.claims: found the number `1`; expected a text (quote it to make it a string)",
            "72 .claim_match.claims: found ``; expected a claim's name (not empty)",
            "100 .claim_match.claim_patterns: found `z`; expected a pattern that begins with `^` and ends with `$` \
             (it can match a part of the claim; put alternatives in parentheses)",
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
             `$` (it can match a part of the claim; put alternatives in parentheses)",
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
         it is compiled; use fewer or smaller repetitions)"
    );
    pattern(r"^(?:\w{9}){9}$", &[&large]);
    pattern(
        "",
        &[
            "62 .claim_match.subject_pattern: found ``; expected a pattern that begins with `^` and ends with `$` \
             (it can match a part of the claim; put alternatives in parentheses)",
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
            "116 .static_keys.jwks.keys[2]: found a key without the type of a public key; expected `kty`, which is one of RSA, EC, OKP",
            "124 .static_keys.jwks.keys[3]: found the number `5`; expected a public key: a mapping",
            "127 .static_keys.jwks.keys[4]: found a key without the type of a public key; expected `kty`, which is one of RSA, EC, OKP",
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
            "112 .static_keys.audience: found ``; expected a text (not empty)",
        ],
    );
}

/// Limits are those of a store, so that whatever loads can be imported.
#[test]
fn what_a_store_does_not_hold_is_refused() {
    let words = |count: usize, text: &str| {
        let all: Vec<_> = (0..count).map(|at| format!("c{at}: {text}")).collect();
        all.join(", ")
    };
    let claims = |rest: &str| format!("{{claim_match: {{issuer: a, subject: b, {rest}}}}}");
    let longest = "x".repeat(CLAIM_BYTES_MAX);
    authentication(&claims(&format!(
        "audience: {longest}, claims: {{{}}}",
        words(CLAIMS_MAX, "x")
    )));
    refused(
        &claims(&format!("claims: {{{}}}", words(CLAIMS_MAX + 1, "x"))),
        &[&format!(
            "19 : found claim_match.claims: {} are more than {CLAIMS_MAX}; expected how an identity can authenticate",
            CLAIMS_MAX + 1
        )],
    );
    refused(
        &claims("claims: {sub: x}"),
        &[
            "19 : found claim_match.claims: the claim sub has a field of its own; expected how an identity can authenticate",
        ],
    );
    let pattern = format!("^{}$", "x".repeat(PATTERNS_BYTES_MAX / 4 - 2));
    authentication(&claims(&format!("claim_patterns: {{{}}}", words(4, &pattern))));
    refused(
        &claims(&format!("claim_patterns: {{{}, d: ^$}}", words(4, &pattern))),
        &[&format!(
            "19 : found claim_match: patterns of {} bytes with their anchors are more than {PATTERNS_BYTES_MAX}; \
             expected how an identity can authenticate",
            PATTERNS_BYTES_MAX + 2
        )],
    );
    let keys = |count: usize| {
        let keys: Vec<_> = (0..count).map(|at| format!("{{kty: EC, kid: k{at}}}")).collect();
        format!("{{static_keys: {{issuer: a, subject: b, jwks: {{keys: [{}]}}}}}}", keys.join(", "))
    };
    authentication(&keys(JWKS_KEYS_MAX));
    refused(
        &keys(JWKS_KEYS_MAX + 1),
        &[&format!(
            "63 .static_keys.jwks: found {} keys; expected 1 to {JWKS_KEYS_MAX}; expected a JSON Web Key Set of \
             public keys",
            JWKS_KEYS_MAX + 1
        )],
    );

    let properties = |count: usize, bytes: usize| {
        let value = "x".repeat(bytes);
        let resource = format!("{{id: a, type: t, properties: {{{}}}}}", words(count, &value));
        policy(&format!("resources: [{resource}]"))
    };
    assert!(load(properties(PROPERTIES_MAX, PROPERTY_BYTES_MAX)).is_ok());
    check(
        properties(PROPERTIES_MAX + 1, 1),
        &[&format!(
            "3:42: resources[0].properties: found properties beyond a limit; expected at most {PROPERTIES_MAX} \
             properties, not {}",
            PROPERTIES_MAX + 1
        )],
    );
    check(
        properties(1, PROPERTY_BYTES_MAX + 1),
        &[&format!(
            "3:42: resources[0].properties: found properties beyond a limit; expected values: at most \
             {PROPERTY_BYTES_MAX} bytes, not {}",
            PROPERTY_BYTES_MAX + 1
        )],
    );
    let test = |name: &str, bytes: usize| {
        let value = "x".repeat(bytes);
        format!(
            "role_bindings: [{{identity: alice, role: owner, scope: acme, when: [{{attribute: \"context.{name}\", \
             equals: {value}}}]}}]"
        )
    };
    check_acme(&test("<<", PROPERTY_BYTES_MAX), &[]);
    let bound = |expected: &str| {
        format!(
            "7:68: role_bindings[0].when[0]: found a condition beyond a limit; expected {expected}"
        )
    };
    let long =
        format!("its value: at most {PROPERTY_BYTES_MAX} bytes, not {}", PROPERTY_BYTES_MAX + 1);
    check_acme(&test("a", PROPERTY_BYTES_MAX + 1), &[&bound(&long)]);
    check_acme(&test("\\n", 1), &[&bound("its name: no control characters")]);
}

#[test]
fn certificates_have_one_name() {
    refused(
        "{client_certificate: {}}",
        &["40 .client_certificate: found neither; expected either `spiffe_id` or `dns_name`"],
    );
    refused(
        "{client_certificate: {spiffe_id: 'https://a/b'}}",
        &[
            "52 .client_certificate.spiffe_id: found `https://a/b`; expected the SPIFFE ID of a workload (spiffe://TRUST-DOMAIN/PATH, with a domain in lower case and no empty or dotted segment)",
        ],
    );
    refused(
        "{client_certificate: {dns_name: a.b, spiffe_id: 'spiffe://a/b'}}",
        &["40 .client_certificate: found both; expected either `spiffe_id` or `dns_name`"],
    );
    refused(
        "{client_certificate: {dns_name: '*.a.b'}}",
        &[
            "51 .client_certificate.dns_name: found `*.a.b`; expected the DNS name of a host (a host name in lower case, of labels of a-z 0-9 - joined by dots, with no wildcard, no dot at either end, and no IP address)",
        ],
    );
    refused(
        "{client_certificate: {common_name: a}}",
        &[
            "40 .client_certificate: found neither; expected either `spiffe_id` or `dns_name`",
            "41 .client_certificate: found unknown key `common_name`; expected one of the keys spiffe_id, dns_name",
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
