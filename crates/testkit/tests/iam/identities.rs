//! Identities: who may change whom, what is fixed, and how they may authenticate.

use std::collections::BTreeMap;

use capstan_iam::limits::{
    CLAIM_BYTES_MAX, CLAIMS_MAX, DNS_LABEL_BYTES_MAX, DNS_NAME_BYTES_MAX, JWKS_BYTES_MAX,
    JWKS_KEYS_MAX, PATTERN_BYTES_MAX, PATTERN_COMPILED_BYTES_MAX, PATTERN_NESTING_MAX,
    PATTERNS_BYTES_MAX, PROPERTY_BYTES_MAX,
};
use capstan_iam::{
    Actor, Authentication, Cause, ClaimMatch, ClientCertificate, CreateIdentity, Identity,
    IdentityUpdate, Kind, Match, Meta, Object, Operation, PULL_TOKEN, Rule, StaticKeys,
    compile_pattern,
};
use capstan_testkit::managed::operations::*;
use capstan_testkit::managed::{Managed, T0, after};

use crate::common::*;

fn rename(id: &str) -> Operation {
    change(id, IdentityUpdate { name: Some("Other".into()), ..IdentityUpdate::default() })
}

/// R13: a root identity is changed only by itself or the operator, and by itself only in name, description and keys.
#[test]
fn a_root_identity_is_its_own_and_the_operators() {
    let mut world = acme();
    // Owners see bob where it is bound, and are told; the others see nobody.
    for operation in [rename("bob"), disable("bob", true), delete_identity("bob")] {
        let refusal = refused(&world, "alice", &operation);
        assert_eq!(
            (reason(&refusal), refusal.rule),
            ("OPERATOR_ONLY", Some(Rule::AcrossOrganizations))
        );
        assert_eq!(reason(&refused(&world, "gina", &operation)), "NOT_FOUND");
        assert_eq!(reason(&refused(&world, "acme/ci", &operation)), "NOT_FOUND");
    }
    assert_eq!(reason(&refused(&world, "alice", &rename("nobody"))), "NOT_FOUND");
    assert_eq!(reason(&refused(&world, "alice", &identity("new"))), "OPERATOR_ONLY");
    does(&mut world, "bob", &rename("bob"));
    for operation in [disable("bob", true), describe("bob", properties(&[("team", "x")]))] {
        assert_eq!(reason(&refused(&world, "bob", &operation)), "OPERATOR_ONLY");
        done(&mut world, &Actor::Operator, &operation);
        done(&mut world, &Actor::Operator, &disable("bob", false));
    }
    does(&mut world, "bob", &delete_identity("bob"));
    assert!(!exists(&world, Kind::Identity, "bob") && bindings_of(&world, "bob") == 0);
    assert_eq!(reason(&refused(&world, "bob", &rename("bob"))), "AUTHN_FAILED");
}

#[test]
fn an_identity_rotates_its_own_keys_and_nothing_else() {
    let mut world = acme();
    let end = Some(after(100));
    let key = |key: &str, end| Some(keys("https://idp.example", "1", key, end));
    does(&mut world, "alice", &authenticate("acme/ci", key("1", end)));
    does(&mut world, "alice", &bind("acme/ci", "owner", "acme/shop"));
    does(&mut world, "acme/ci", &authenticate("acme/ci", key("2", end)));
    let others = [
        key("3", None),
        key("3", Some(after(200))),
        Some(keys("https://other.example", "1", "3", end)),
        Some(keys("https://idp.example", "2", "3", end)),
        None,
    ];
    for other in others {
        let refusal = refused(&world, "acme/ci", &authenticate("acme/ci", other));
        hides(&refusal, "acme", &["identity.update"]);
    }
    hides(&refused(&world, "acme/ci", &rename("acme/ci")), "acme", &["identity.update"]);
    // A root identity likewise.
    let issued = |key: &str| {
        Operation::CreateIdentity(CreateIdentity {
            id: None,
            authentication: Some(keys("https://idp.example", "7", key, None)),
            ..new_identity("x")
        })
    };
    let made = done(&mut world, &Actor::Operator, &issued("1"));
    let id = made.objects[0].id.as_str().to_owned();
    let rotate =
        |key: &str, end| authenticate(&id, Some(keys("https://idp.example", "7", key, end)));
    does(&mut world, &id, &rotate("2", None));
    assert_eq!(reason(&refused(&world, &id, &rotate("3", end))), "OPERATOR_ONLY");
    assert_eq!(reason(&refused(&world, &id, &authenticate(&id, None))), "OPERATOR_ONLY");
}

#[test]
fn a_disabled_identity_has_nothing_and_cannot_call() {
    let mut world = acme();
    does(&mut world, "alice", &bind("acme/ci", "editor", "acme"));
    assert!(!world.list(&actor("acme/ci"), Kind::Group).is_empty());
    does(&mut world, "alice", &disable("acme/ci", true));
    let (disabled, unknown) = (
        refused(&world, "acme/ci", &rename("acme/ci")),
        refused(&world, "nobody", &rename("nobody")),
    );
    assert_eq!((reason(&disabled), disabled.to_string()), ("AUTHN_FAILED", unknown.to_string()));
    assert!(world.reader(&actor("acme/ci")).is_err());
    does(&mut world, "alice", &disable("acme/ci", false));
    assert!(!world.list(&actor("acme/ci"), Kind::Group).is_empty());
}

/// IdentityService neither makes pull tokens nor changes more of them than name and description; nobody binds them again.
#[test]
fn pull_tokens_are_left_as_they_were_made() {
    let mut world = acme();
    let of_type = |kind: &str| {
        Operation::CreateIdentity(CreateIdentity { kind: kind.into(), ..new_identity("acme/new") })
    };
    for who in [actor("alice"), Actor::Operator] {
        assert_eq!(invalid(&refused_to(&world, &who, &of_type(PULL_TOKEN))), "identity.type");
    }
    let meta = Meta::new(1, T0);
    world
        .put(Object::Identity(Identity {
            id: path("acme/token"),
            name: String::new(),
            description: String::new(),
            kind: PULL_TOKEN.into(),
            properties: BTreeMap::new(),
            disabled: false,
            authentication: None,
            meta,
        }))
        .unwrap();
    world
        .put(Object::RoleBinding(capstan_iam::RoleBinding {
            id: path("acme/its-binding"),
            name: String::new(),
            description: String::new(),
            identity: path("acme/token"),
            role: "apk.pull".into(),
            scope: path("acme"),
            expires_at: None,
            when: vec![],
            meta,
        }))
        .unwrap();
    let bob = id_of(&world, "bob", "viewer", "acme");
    let to_token =
        capstan_iam::UpdateRoleBinding { identity: Some(path("acme/token")), ..rebinding(&bob) };
    let refused_ones = [
        bind("acme/token", "registry.pull", "acme/shop"),
        Operation::UpdateRoleBinding(to_token),
        rebind("acme/its-binding", "registry.pull"),
        disable("acme/token", true),
        describe("acme/token", properties(&[("a", "b")])),
        authenticate("acme/token", Some(keys("https://idp.example", "1", "1", None))),
    ];
    for operation in refused_ones {
        assert_eq!(reason(&refused(&world, "alice", &operation)), "PULL_TOKEN", "{operation:?}");
    }
    does(&mut world, "alice", &rename("acme/token"));
    // Nor does it count as an owner.
    let retype = change(
        "acme/ci",
        IdentityUpdate { kind: Some("robot".into()), ..IdentityUpdate::default() },
    );
    assert_eq!(invalid(&refused(&world, "alice", &retype)), "identity.type");
    does(&mut world, "alice", &delete_identity("acme/token"));
}

/// R8: properties that conditions of its own test are changed as if the binding were made.
#[test]
fn properties_that_conditions_test_are_changed_as_a_grant() {
    let roles: &[(&str, &[&str])] = &[
        ("keeper", &["groups.list", "identity.update", "groups.update"]),
        ("granter", &["role_bindings.create"]),
        ("undoer", &["role_bindings.delete"]),
        ("reader", &["doc.read"]),
        ("viewer", &["groups.list"]),
        ("editor", &["groups.list"]),
    ];
    let mut world = two_organizations(catalog(&KINDS, roles));
    for role in ["keeper", "reader"] {
        does(&mut world, "alice", &bind("mallory", role, "acme"));
    }
    does(
        &mut world,
        "alice",
        &bind_when("acme/ci", "reader", "acme/shop", equals("subject.team", "x")),
    );
    let describe_it = describe("acme/ci", properties(&[("team", "x")]));
    let refusal = refused(&world, "mallory", &describe_it);
    misses(&refusal, Some(Rule::CredentialChange), "acme/shop", &["role_bindings.create"]);
    does(&mut world, "alice", &bind("mallory", "granter", "acme"));
    does(&mut world, "mallory", &describe_it);
    // Of a resource: every conditional binding at or above it.
    let writer = role("acme/w", &["doc.write"]);
    does(&mut world, "alice", &writer);
    does(&mut world, "alice", &bind_when("erin", "acme/w", "acme", equals("resource.stage", "x")));
    let with = |stage: &str| resource("acme/shop/s", "doc", properties(&[("stage", stage)]));
    misses(
        &refused(&world, "mallory", &with("x")),
        Some(Rule::CredentialChange),
        "acme",
        &["doc.write"],
    );
    does(&mut world, "mallory", &resource("acme/shop/s", "doc", properties(&[])));
    let change = update_resource("acme/shop/s", properties(&[("stage", "x")]));
    misses(
        &refused(&world, "mallory", &change),
        Some(Rule::CredentialChange),
        "acme",
        &["doc.write"],
    );
    does(&mut world, "alice", &change);
    let delete = delete_resource("acme/shop/s");
    misses(
        &refused(&world, "mallory", &delete),
        Some(Rule::CredentialChange),
        "acme",
        &["doc.write"],
    );
    does(&mut world, "alice", &bind("mallory", "acme/w", "acme"));
    does(&mut world, "mallory", &delete);
    does(&mut world, "mallory", &resource("acme/platform/s", "doc", properties(&[])));
}

// === How they authenticate ===

fn claims() -> ClaimMatch {
    ClaimMatch {
        issuer: Match::Exact("https://idp.example".into()),
        subject: Match::Exact("1".into()),
        audience: None,
        claims: BTreeMap::new(),
        claim_patterns: BTreeMap::new(),
    }
}

fn field(world: &Managed, authentication: Authentication) -> String {
    let refusal = refused(world, "alice", &authenticate("acme/ci", Some(authentication)));
    invalid(&refusal).to_owned()
}

fn allowed(world: &Managed, authentication: Authentication) {
    let judged = world.judge(&actor("alice"), &authenticate("acme/ci", Some(authentication)));
    assert!(judged.is_ok(), "{}", judged.unwrap_err());
}

#[test]
fn claims_are_literal_or_anchored_patterns_within_limits() {
    let world = acme();
    let with = |change: &dyn Fn(&mut ClaimMatch)| {
        let mut claims = claims();
        change(&mut claims);
        Authentication::ClaimMatch(claims)
    };
    let long = "x".repeat(CLAIM_BYTES_MAX + 1);
    allowed(&world, with(&|one| one.subject = Match::Exact(long[1..].into())));
    for bad in ["", "a\0b", "a\nb", &long] {
        assert_eq!(
            field(&world, with(&|one| one.subject = Match::Exact(bad.into()))),
            "identity.claim_match.subject"
        );
        assert_eq!(
            field(&world, with(&|one| one.issuer = Match::Exact(bad.into()))),
            "identity.claim_match.issuer"
        );
    }
    let pattern = |text: &str| with(&|one| one.audience = Some(Match::Pattern(text.into())));
    allowed(&world, pattern("repo:acme/.*:ref:refs/heads/main"));
    // With its anchors.
    let whole = |bytes: usize| "x".repeat(bytes - "^(?:)$".len());
    allowed(&world, pattern(&whole(PATTERN_BYTES_MAX)));
    allowed(&world, pattern(&format!("^{}$", "x".repeat(PATTERN_BYTES_MAX - 2))));
    for bad in [
        "",
        "(",
        "a)|(b",
        "(?x) a # ",
        "a\nb",
        &whole(PATTERN_BYTES_MAX + 1),
        "(?:(?:x{500}){500}){500}",
    ] {
        assert_eq!(field(&world, pattern(bad)), "identity.claim_match.audience_pattern", "{bad}");
    }
    let huge = format!("\\w{{{}}}", PATTERN_COMPILED_BYTES_MAX / 100);
    assert_eq!(field(&world, pattern(&huge)), "identity.claim_match.audience_pattern");
    let many = |count: usize| (0..count).map(|n| (format!("c{n}"), "x".to_owned())).collect();
    allowed(&world, with(&|one| one.claims = many(CLAIMS_MAX)));
    assert_eq!(
        field(&world, with(&|one| one.claims = many(CLAIMS_MAX + 1))),
        "identity.claim_match.claims"
    );
    let long = "x".repeat(PROPERTY_BYTES_MAX + 1);
    for name in ["iss", "sub", "aud", "", "<<", "a\0b", &long] {
        let one = || [(name.to_owned(), ".*".to_owned())].into();
        assert_eq!(
            field(&world, with(&|it| it.claim_patterns = one())),
            "identity.claim_match.claim_patterns"
        );
    }
}

/// An identity has this much of patterns, and not a byte more, whoever may set each of them.
#[test]
fn all_patterns_of_an_identity_have_one_limit() {
    let world = acme();
    let with = |first: usize| {
        let whole = |bytes: usize| "x".repeat(bytes - "^(?:)$".len());
        let pattern = |bytes| Match::Pattern(whole(bytes));
        let rest = PATTERNS_BYTES_MAX - 3 * 1_000;
        Authentication::ClaimMatch(ClaimMatch {
            issuer: pattern(first),
            subject: pattern(1_000),
            audience: Some(pattern(1_000)),
            claim_patterns: [("c".to_owned(), whole(rest))].into(),
            ..claims()
        })
    };
    allowed(&world, with(1_000));
    assert_eq!(field(&world, with(1_001)), "identity.claim_match");
    let nested = |depth: u32| {
        let (open, close) = ("(".repeat(depth as usize), ")".repeat(depth as usize));
        Authentication::ClaimMatch(ClaimMatch {
            subject: Match::Pattern(format!("{open}x{close}")),
            ..claims()
        })
    };
    // The anchors take two levels.
    allowed(&world, nested(PATTERN_NESTING_MAX - 2));
    assert_eq!(
        field(&world, nested(PATTERN_NESTING_MAX - 1)),
        "identity.claim_match.subject_pattern"
    );
}

/// Whoever lacks the capability is refused before a pattern is compiled: it does not learn that this one cannot be.
#[test]
fn patterns_are_compiled_for_those_who_may_set_them() {
    let world = acme();
    let bad = ClaimMatch { subject: Match::Pattern("(".into()), ..claims() };
    let bad = Authentication::ClaimMatch(bad);
    let new = |parent: Option<&str>| {
        Operation::CreateIdentity(CreateIdentity {
            authentication: Some(bad.clone()),
            parent: parent.map(path),
            id: None,
            ..new_identity("acme/new")
        })
    };
    let change = |id: &str| authenticate(id, Some(bad.clone()));
    for who in ["mallory", "bob"] {
        for operation in [new(Some("acme")), change("acme/ci")] {
            let refusal = refused(&world, who, &operation);
            assert!(
                matches!(refusal.real, Cause::MissingCapability { .. }),
                "{}",
                refusal.audit_text()
            );
        }
        assert_eq!(reason(&refused(&world, who, &new(None))), "OPERATOR_ONLY");
        let own = refused(&world, who, &change(who));
        assert_eq!(reason(&own), "OPERATOR_ONLY");
    }
    let at = "identity.claim_match.subject_pattern";
    assert_eq!(invalid(&refused(&world, "alice", &new(Some("acme")))), at);
    assert_eq!(invalid(&refused(&world, "alice", &change("acme/ci"))), at);
    for operation in [new(None), change("bob")] {
        assert_eq!(invalid(&refused_to(&world, &Actor::Operator, &operation)), at);
    }
}

/// I15: a pattern matches whole texts only, whatever it says.
#[test]
fn patterns_are_anchored() {
    let matches = |pattern: &str, text: &str| compile_pattern(pattern).unwrap().is_match(text);
    assert!(matches("https://acc\\.example", "https://acc.example"));
    for (pattern, text) in [
        ("main", "main2"),
        ("main", "xmain"),
        ("main", "main\n"),
        ("a|b", "ax"),
        ("a|b", "xb"),
        ("(?m)^a$", "a\nb"),
        ("(?i)a", "Ab"),
    ] {
        assert!(!matches(pattern, text), "{pattern} {text:?}");
    }
    assert!(matches("a|b", "b") && matches("(?i)a", "A"));
}

#[test]
fn keys_are_public_and_of_an_issuer_of_their_own() {
    let mut world = acme();
    world.reserved_issuers = vec!["https://capstan.example".into()];
    let with = |jwks: &str| {
        Authentication::StaticKeys(StaticKeys {
            issuer: "https://idp.example".into(),
            subject: "1".into(),
            jwks: jwks.into(),
            expires_at: None,
            audience: None,
        })
    };
    let key = |kid: usize| format!(r#"{{"kty": "EC", "kid": "{kid}"}}"#);
    let set = |count: usize| {
        let keys: Vec<_> = (0..count).map(key).collect();
        with(&format!(r#"{{"keys": [{}]}}"#, keys.join(",")))
    };
    allowed(&world, set(JWKS_KEYS_MAX));
    allowed(&world, with(r#"{"keys": [{"kty": "RSA"}]}"#));
    let long = |bytes: usize| {
        let (start, end) = (r#"{"keys": [{"kty": "RSA", "n": ""#, r#""}]}"#);
        with(&format!("{start}{}{end}", "x".repeat(bytes - start.len() - end.len())))
    };
    allowed(&world, long(JWKS_BYTES_MAX));
    allowed(&world, with(r#"{"keys": [{"kty": "OKP", "ext": true, "x5c": ["a"]}]}"#));
    let name = "n".repeat(PROPERTY_BYTES_MAX + 1);
    let bad = [
        // No document can say these.
        with(r#"{"keys": [{"kty": "RSA", "exp": 1}]}"#),
        with(r#"{"keys": [{"kty": "RSA", "x5c": [1]}]}"#),
        with(r#"{"keys": [{"kty": "RSA", "<<": "x"}]}"#),
        with(&format!(r#"{{"keys": [{{"kty": "RSA", "{name}": "x"}}]}}"#)),
        with(r#"{"keys": [{"kty": "RSA"}], "more": "x"}"#),
        set(0),
        set(JWKS_KEYS_MAX + 1),
        long(JWKS_BYTES_MAX + 1),
        with("no json"),
        with("[]"),
        with(r#"{"keys": {}}"#),
        with(r#"{"keys": [{"kty": "oct", "k": "AA"}]}"#),
        with(r#"{"keys": [{"kty": "RSA", "d": "AA"}]}"#),
        with(r#"{"keys": [{"kty": "RSA"}, {"kty": "RSA"}]}"#),
        with(r#"{"keys": [{"kty": "RSA", "kid": "1"}, {"kty": "RSA", "kid": "1"}]}"#),
    ];
    for bad in bad {
        assert_eq!(field(&world, bad), "identity.static_keys.jwks");
    }
    let reserved = keys("https://capstan.example", "1", "1", None);
    assert_eq!(field(&world, reserved), "identity.static_keys.issuer");
}

#[test]
fn certificates_name_one_spiffe_id() {
    let world = acme();
    let with = |id: &str| Authentication::ClientCertificate(ClientCertificate::SpiffeId(id.into()));
    allowed(&world, with("spiffe://acme.example/ns/prod/sa/ci"));
    for bad in [
        "",
        "https://acme.example/x",
        "spiffe://acme.example",
        "spiffe://acme.example/",
        "spiffe://acme.example//x",
        "spiffe://acme.example/../x",
        "spiffe://ACME.example/x",
        "spiffe://user@acme.example/x",
        "spiffe://acme.example:1/x",
        "spiffe://acme.example/x?y",
        "spiffe:///x",
    ] {
        assert_eq!(field(&world, with(bad)), "identity.client_certificate.spiffe_id", "{bad}");
    }
}

#[test]
fn certificates_name_one_host() {
    let world = acme();
    let with =
        |name: &str| Authentication::ClientCertificate(ClientCertificate::DnsName(name.into()));
    let label = "l".repeat(DNS_LABEL_BYTES_MAX);
    let labels = [&*label; 4].join(".");
    let long = |bytes: usize| labels.get(..bytes).unwrap();
    for right in ["ci.acme.example", "ci", "4.acme-2", &label, long(DNS_NAME_BYTES_MAX)] {
        allowed(&world, with(right));
    }
    for bad in [
        "",
        "*.acme.example",
        "*",
        "CI.acme.example",
        "ci.acme.example.",
        ".acme.example",
        "ci..example",
        "-ci.example",
        "ci-.example",
        "ci_1.example",
        "bücher.example",
        "192.0.2.1",
        "::1",
        "ci.acme.example:443",
        "spiffe://acme.example/ci",
        &format!("{label}l"),
        long(DNS_NAME_BYTES_MAX + 1),
    ] {
        assert_eq!(field(&world, with(bad)), "identity.client_certificate.dns_name", "{bad}");
    }
}
