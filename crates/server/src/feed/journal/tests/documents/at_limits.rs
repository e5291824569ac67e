//! Whatever requests can say is exported, and what is exported loads: objects at each limit.

use capstan_engine::{AttributeCategory, CONDITIONS_MAX, Condition, Properties, Value};
use capstan_iam::limits::{
    CLAIM_BYTES_MAX, CLAIMS_MAX, DNS_LABEL_BYTES_MAX, DNS_NAME_BYTES_MAX, JWKS_BYTES_MAX,
    JWKS_KEYS_MAX, PATTERN_BYTES_MAX, PATTERN_COMPILED_BYTES_MAX, PATTERN_NESTING_MAX,
    PATTERNS_BYTES_MAX, PROPERTIES_MAX, PROPERTY_BYTES_MAX, TEXT_BYTES_MAX, TRUST_DOMAIN_BYTES_MAX,
};
use capstan_iam::{
    ClientCertificate, CreateIdentity, CreateResource, CreateRole, CreateRoleBinding,
    NewRoleBinding, StaticKeys, compile_pattern,
};
use capstan_policy::Catalogs;

use super::*;

/// A text of exactly this many bytes, with what has to be quoted and escaped.
fn text(start: &str, bytes: usize) -> String {
    let hard = " # : - ? \" ' \\ ä\u{a0}\u{2028}\u{feff}\u{1f600} {[,]} << null 1 ~ ";
    let mut text = start.to_owned();
    let fits = |c: &char, text: &str| text.len() + c.len_utf8() <= bytes;
    for c in hard.chars().cycle() {
        if !fits(&c, &text) {
            break;
        }
        text.push(c);
    }
    let rest = bytes - text.len();
    text + &"x".repeat(rest)
}

fn properties() -> Properties {
    let values = [
        Value::String(text("s", PROPERTY_BYTES_MAX)),
        Value::String("\u{0}\n\r\t\u{1b}\u{85}".repeat(PROPERTY_BYTES_MAX / 7)),
        Value::String(String::new()),
        Value::Integer((1 << 53) - 1),
        Value::Integer(1 - (1 << 53)),
        Value::Boolean(true),
    ];
    let named = (0..PROPERTIES_MAX).zip(values.into_iter().cycle());
    named.map(|(at, value)| (text(&format!("{at} "), PROPERTY_BYTES_MAX), value)).collect()
}

fn claim_match(issuer: Match, subject: Match) -> ClaimMatch {
    let (claims, claim_patterns) = Default::default();
    ClaimMatch { issuer, subject, audience: None, claims, claim_patterns }
}

/// The longest or deepest pattern of a kind that can be.
fn last(pattern: impl Fn(usize) -> String) -> String {
    let is_possible = |count: &usize| compile_pattern(&pattern(*count)).is_ok();
    pattern((1..PATTERN_BYTES_MAX).take_while(is_possible).last().unwrap())
}

fn ways() -> Vec<Authentication> {
    let exact = |start: &str| Match::Exact(text(start, CLAIM_BYTES_MAX));
    let around = "^(?:)$".len();
    let pattern = |bytes: usize| "x|".repeat(bytes).split_off(bytes + around);
    let claim = |at: usize| text(&format!("{at} "), PROPERTY_BYTES_MAX);
    let claims = ClaimMatch {
        audience: Some(exact("aud")),
        claims: (0..CLAIMS_MAX).map(|at| (claim(at), text("c", CLAIM_BYTES_MAX))).collect(),
        claim_patterns: (0..CLAIMS_MAX).map(|at| (claim(at), "a|b".to_owned())).collect(),
        ..claim_match(exact("iss"), exact("sub"))
    };
    let long = claim_match(
        Match::Pattern(pattern(PATTERN_BYTES_MAX)),
        Match::Pattern(pattern(PATTERNS_BYTES_MAX - PATTERN_BYTES_MAX)),
    );
    let nested = last(|depth| format!("{}x{}", "(".repeat(depth), ")".repeat(depth)));
    assert!(nested.len() >= 2 * (PATTERN_NESTING_MAX as usize - 2));
    let large = last(|count| format!("\\w{{{count}}}"));
    assert!(compile_pattern(&format!("{large}\\w")).is_err(), "{PATTERN_COMPILED_BYTES_MAX}");
    let key = |at: usize| {
        format!(
            "{{\"kty\" : \"EC\", \"kid\": \"{at}\", \"\\u00e4{at}\": [\"\\u0000\"], \"ext\": true}}"
        )
    };
    let keys: Vec<_> = (1..JWKS_KEYS_MAX).map(key).collect();
    let name = "n".repeat(PROPERTY_BYTES_MAX);
    let set = |more: &str| {
        let keys = keys.join(",\n");
        format!(
            "{{\"keys\": [{keys}, {{\"kty\": \"RSA\", \"kid\": \"x\", \"{name}\": \"{more}\"}}]}}"
        )
    };
    let static_keys = StaticKeys {
        issuer: text("iss", CLAIM_BYTES_MAX),
        subject: text("sub", CLAIM_BYTES_MAX),
        jwks: set(&"x".repeat(JWKS_BYTES_MAX - set("").len())),
        // The last second that RFC 3339 can say.
        expires_at: Some(Timestamp::new(253_402_300_799, 999_999_999)),
        audience: Some(text("aud", CLAIM_BYTES_MAX)),
    };
    let spiffe_id = |domain: usize, bytes: usize| {
        let start = format!("spiffe://{}/", "d".repeat(domain));
        let path = "p".repeat(bytes - start.len());
        Authentication::ClientCertificate(ClientCertificate::SpiffeId(start + &path))
    };
    let labels = vec!["l".repeat(DNS_LABEL_BYTES_MAX); 4].join(".");
    let dns_name = labels.get(..DNS_NAME_BYTES_MAX).unwrap().to_owned();
    let by_pattern =
        |text: String| Authentication::ClaimMatch(claim_match(exact("iss"), Match::Pattern(text)));
    vec![
        Authentication::ClaimMatch(claims),
        Authentication::ClaimMatch(long),
        by_pattern(nested),
        by_pattern(large),
        by_pattern("(?x) a b | ^c$".into()),
        Authentication::StaticKeys(static_keys),
        spiffe_id(TRUST_DOMAIN_BYTES_MAX, CLAIM_BYTES_MAX),
        spiffe_id(1, CLAIM_BYTES_MAX),
        Authentication::ClientCertificate(ClientCertificate::DnsName(dns_name)),
    ]
}

/// One object of each kind, and an identity for each way to authenticate, as large as can be.
fn operations() -> Vec<Operation> {
    let name = || text("name", TEXT_BYTES_MAX);
    let description = || text("description", TEXT_BYTES_MAX);
    let (parent, kind) = (Some(path("acme")), text("type", TEXT_BYTES_MAX));
    let group = CreateGroup {
        parent: parent.clone(),
        id: Some(path("acme/group")),
        name: name(),
        description: description(),
        owner: None,
    };
    let catalog = StoredCatalog::built_in(CATALOG).unwrap();
    let role = CreateRole {
        parent: path("acme"),
        id: Some(path("acme/role")),
        name: name(),
        description: description(),
        capabilities: catalog.catalog().capabilities().map(ToOwned::to_owned).collect(),
    };
    let resource = CreateResource {
        parent: parent.clone(),
        id: Some(path("acme/resource")),
        name: name(),
        description: description(),
        kind: kind.clone(),
        properties: properties(),
    };
    let identities = ways().into_iter().enumerate().map(|(at, way)| CreateIdentity {
        parent: parent.clone(),
        id: Some(path(&format!("acme/identity-{at}"))),
        name: name(),
        description: description(),
        kind: kind.clone(),
        properties: properties(),
        disabled: at == 0,
        authentication: Some(way),
    });
    let conditions = (0..CONDITIONS_MAX).zip(properties());
    let when = conditions.map(|(at, (name, value))| Condition {
        category: AttributeCategory::Context,
        name: if at == 0 { "<<".into() } else { name },
        equals: at % 2 == 0,
        value,
    });
    let binding = NewRoleBinding {
        id: Some(path("acme/binding")),
        name: String::new(),
        description: description(),
        identity: path("acme/identity-1"),
        role: "acme/role".into(),
        scope: path("acme"),
        expires_at: Some(Timestamp::new(253_402_300_799, 0)),
        when: when.collect(),
    };
    let made = [
        Operation::CreateGroup(group),
        Operation::CreateRole(role),
        Operation::CreateResource(resource),
    ];
    let binding = CreateRoleBinding { parent: path("acme"), binding };
    let identities = identities.map(Operation::CreateIdentity);
    made.into_iter().chain(identities).chain([Operation::CreateRoleBinding(binding)]).collect()
}

#[tokio::test]
async fn whatever_a_store_holds_is_exported_and_loads() {
    let running = start(&acme().await).await;
    for operation in operations() {
        let written = running.writes.write(write(Actor::Operator, operation.clone())).await;
        assert!(written.is_ok(), "{written:?} {operation:?}");
    }
    let (catalogs, catalog) = (Catalogs::default(), StoredCatalog::built_in(CATALOG).unwrap());
    let exported = running.export().await;
    for format in [DocumentFormat::Yaml, DocumentFormat::Json] {
        let export = running.export_of(Actor::Operator, None, format);
        let parts: Vec<_> = running.documents().export(export).try_collect().await.unwrap();
        let document = String::from_utf8(parts.concat()).unwrap();
        // As `serve --policy` reads it whole, which it does of keys as long as these.
        let loaded = load_policy(document.as_bytes(), &catalogs);
        let warnings = loaded.unwrap_or_else(|found| panic!("{found:.3000}")).warnings;
        assert_eq!(warnings.len(), 1, "the catalog has errata: {warnings:?}");
        // It changes nothing here, and makes the same elsewhere.
        assert_eq!(running.import(&document).await.changes, vec![]);
        let other = start(&empty(&catalog).await).await;
        other.import(&document).await;
        assert!(other.export().await == exported, "another document");
    }
}
