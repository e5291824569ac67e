//! Records read back as they were written, and bytes of this version stay what they are.

use super::*;
use crate::{
    AccountAssociation, Accounts, Authentication, Aws, Azure, ClaimMatch, ClientCertificate,
    Github, Google, GroupRoleMapping, IdentityProvider, Match, Oidc, StaticKeys,
};

fn meta() -> Meta {
    Meta {
        created: 7,
        updated: (1 << 40) + 9,
        create_time: Timestamp::new(1_790_000_000, 5),
        update_time: Timestamp::new(-1, 999_999_999),
    }
}

fn path(text: &str) -> PathBuf {
    text.parse().unwrap()
}

fn properties() -> Properties {
    [
        ("team".to_owned(), EngineValue::String("red".into())),
        ("level".into(), EngineValue::Integer(-3)),
        ("mfa".into(), EngineValue::Boolean(false)),
        ("empty".into(), EngineValue::String(String::new())),
    ]
    .into()
}

fn identity(authentication: Option<Authentication>) -> Object {
    Object::Identity(Identity {
        id: path("acme/ci"),
        name: "CI".into(),
        description: "builds".into(),
        kind: "service".into(),
        properties: properties(),
        disabled: true,
        authentication,
        meta: meta(),
    })
}

/// An object of each kind, with every field set, and each way to authenticate.
fn objects() -> Vec<Object> {
    let conditions = [
        (AttributeCategory::Subject, true, EngineValue::String("x".into())),
        (AttributeCategory::Resource, false, EngineValue::Boolean(true)),
        (AttributeCategory::Action, true, EngineValue::Integer(i64::MIN)),
        (AttributeCategory::Context, false, EngineValue::Integer(0)),
    ];
    let conditions = conditions.map(|(category, equals, value)| Condition {
        category,
        name: "a.b".into(),
        equals,
        value,
    });
    let binding = |id: &str, scope: &str| {
        Object::RoleBinding(RoleBinding {
            id: path(id),
            name: "n".into(),
            description: "d".into(),
            identity: path("alice"),
            role: "viewer".into(),
            scope: path(scope),
            expires_at: Some(Timestamp::new(1_800_000_000, 0)),
            when: conditions.to_vec(),
            meta: meta(),
        })
    };
    let claims: BTreeMap<String, String> = [("a".to_owned(), "b".to_owned())].into();
    let exact = |text: &str| Match::Exact(text.into());
    let pattern = |text: &str| Match::Pattern(text.into());
    vec![
        Object::Group(Group {
            id: path("acme"),
            name: "Acme".into(),
            description: "all of it".into(),
            meta: Meta::new(7, Timestamp::new(1_790_000_000, 5)),
        }),
        Object::Role(Role {
            id: path("acme/deployer"),
            name: "Deployer".into(),
            description: String::new(),
            capabilities: vec!["repo.list".into(), "repo.update".into()],
            meta: meta(),
        }),
        binding("acme/x/1", "acme/x"),
        binding("acme/x/y/1", "acme/x"),
        identity(None),
        identity(Some(Authentication::ClaimMatch(ClaimMatch {
            issuer: exact("https://idp.example"),
            subject: pattern("^a.*$"),
            audience: None,
            claims: claims.clone(),
            claim_patterns: claims,
        }))),
        identity(Some(Authentication::ClaimMatch(ClaimMatch {
            issuer: pattern("^https://.*$"),
            subject: exact(""),
            audience: Some(exact("capstan")),
            claims: BTreeMap::new(),
            claim_patterns: BTreeMap::new(),
        }))),
        identity(Some(Authentication::StaticKeys(StaticKeys {
            issuer: "https://ci.example".into(),
            subject: "ci".into(),
            jwks: "{\"keys\": []}".into(),
            expires_at: Some(Timestamp::UNIX_EPOCH),
            audience: Some(String::new()),
        }))),
        identity(Some(Authentication::ClientCertificate(ClientCertificate::SpiffeId(
            "spiffe://example.org/ci".into(),
        )))),
        Object::Resource(Resource {
            id: path("acme/repo"),
            name: String::new(),
            description: "d".into(),
            kind: "repo".into(),
            properties: properties(),
            meta: meta(),
        }),
        Object::GroupInvite(GroupInvite {
            id: path("acme/invite"),
            name: "For Ann".into(),
            description: "d".into(),
            role: "acme/deployer".into(),
            role_created: Some(7),
            email: Some("ann@example.com".into()),
            single_use: true,
            expires_at: Timestamp::new(1_800_000_000, 5),
            creator: Some(Incarnation { id: path("alice"), created: 1 << 40 }),
            meta: meta(),
        }),
        Object::GroupInvite(GroupInvite {
            id: path("acme/open"),
            name: String::new(),
            description: String::new(),
            role: "viewer".into(),
            role_created: None,
            email: None,
            single_use: false,
            expires_at: Timestamp::new(1_800_000_000, 0),
            creator: None,
            meta: meta(),
        }),
        provider(Some("acme/deployer"), Some("{\"keys\": []}")),
        provider(None, None),
        mapping(Some(Incarnation { id: path("alice"), created: 1 << 40 })),
        mapping(None),
        association(),
        Object::AccountAssociation(AccountAssociation {
            id: path("acme"),
            name: String::new(),
            description: String::new(),
            accounts: Accounts::default(),
            services: BTreeMap::new(),
            meta: meta(),
        }),
        // Behind the others, whose bytes stay where they are.
        identity(Some(Authentication::ClientCertificate(ClientCertificate::DnsName(
            "ci.example.org".into(),
        )))),
        limited_provider(),
    ]
}

/// A provider with algorithms, beside those whose bytes stay as they are.
fn limited_provider() -> Object {
    match provider(Some("viewer"), None) {
        Object::IdentityProvider(mut provider) => {
            provider.oidc.algorithms = vec!["ES256".into(), "Ed25519".into()];
            Object::IdentityProvider(provider)
        }
        other => other,
    }
}

fn provider(default_role: Option<&str>, jwks: Option<&str>) -> Object {
    let text = |text: &str| default_role.map(|_| text.to_owned());
    Object::IdentityProvider(IdentityProvider {
        id: path("acme/okta"),
        name: "Okta".into(),
        description: "d".into(),
        oidc: Oidc {
            issuer: "https://acme.okta.example".into(),
            client_id: text("capstan").unwrap_or_default(),
            audiences: text("a").into_iter().chain(text("b")).collect(),
            jwks: jwks.map(ToOwned::to_owned),
            groups_claim: text("groups"),
            algorithms: vec![],
        },
        default_role: default_role.map(Into::into),
        role_created: default_role.map(|_| 9),
        creator: default_role.map(|_| Incarnation { id: path("alice"), created: 1 << 40 }),
        meta: meta(),
    })
}

fn mapping(creator: Option<Incarnation>) -> Object {
    Object::GroupRoleMapping(GroupRoleMapping {
        id: path("acme/okta/admins"),
        name: "n".into(),
        description: "d".into(),
        external_group: "CN=Admins".into(),
        role: "acme/deployer".into(),
        role_created: creator.as_ref().map(|one| one.created),
        scope: path("acme/x"),
        creator,
        meta: meta(),
    })
}

fn association() -> Object {
    let uuid = || "01234567-89ab-cdef-0123-456789abcdef".to_owned();
    let installations = [("acme".to_owned(), u64::MAX), ("beta".into(), 1)].into();
    let one = Incarnation { id: path("acme/ci"), created: 7 };
    Object::AccountAssociation(AccountAssociation {
        id: path("acme/x"),
        name: "n".into(),
        description: "d".into(),
        accounts: Accounts {
            aws: Some(Aws { account: "012345678901".into() }),
            google: Some(Google { project_id: "acme-1".into(), project_number: "12".into() }),
            azure: Some(Azure { tenant_id: uuid(), client_ids: vec![uuid()] }),
            github: Some(Github { installations }),
        },
        services: [("INGESTER".to_owned(), one.clone()), ("x".into(), one)].into(),
        meta: meta(),
    })
}

/// Keys of one kind are those of no other, and none is that of something else.
#[test]
fn every_kind_has_a_first_byte_of_its_own() {
    use prefix::*;
    let others = [META, AUDIT, REQUEST, LAST_SEEN, CREDENTIAL, CREATOR, INVITE_CODE, PROMISE];
    let mut all: Vec<u8> = others.into_iter().chain([REFERENCE, POSITION]).collect();
    all.extend(Kind::ALL.map(prefix_of));
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
}

#[test]
fn what_refers_to_something_is_one_range() {
    let (acme, beta) = (path("acme"), path("beta"));
    let issuer = |organization, issuer| Reference::Issuer { organization, issuer };
    let longest = format!("https://{}", "x".repeat(2_040));
    let all = [
        issuer(acme.as_path(), "https://a"),
        issuer(acme.as_path(), "https://ab"),
        issuer(beta.as_path(), "https://a"),
        issuer(acme.as_path(), &longest),
        Reference::IssuerPattern { organization: acme.as_path() },
        Reference::IssuerPattern { organization: beta.as_path() },
        Reference::Scope(acme.as_path()),
        Reference::Scope(beta.as_path()),
    ];
    let object = (Kind::Identity, path("acme/ci"));
    let keys = all.map(|one| reference_key(&one, &key(object.0, object.1.as_path())));
    for (at, to) in all.iter().enumerate() {
        let range = references_to(to);
        let (Bound::Included(start), Bound::Excluded(end)) = range.bounds() else { panic!() };
        for (of, key) in keys.iter().enumerate() {
            assert_eq!(start <= &**key && &**key < end, at == of, "{to:?} {of}");
            assert_eq!(referring_object(to, key), (at == of).then(|| object.clone()));
        }
    }
    assert!(keys.iter().all(|key| parse_key(key).is_none()));
}

#[test]
fn what_an_object_refers_to() {
    let all = objects();
    let found: Vec<_> = all.iter().filter_map(Object::reference).collect();
    let acme = path("acme");
    let organization = acme.as_path();
    let of = |issuer| Reference::Issuer { organization, issuer };
    let scope = path("acme/x");
    let scope = Reference::Scope(scope.as_path());
    let okta = of("https://acme.okta.example");
    let pattern = Reference::IssuerPattern { organization };
    let ci = of("https://ci.example");
    assert_eq!(found, [of("https://idp.example"), pattern, ci, okta, okta, scope, scope, okta]);
}

#[test]
fn records_read_back_as_they_were_written() {
    for object in objects() {
        let key = key(object.kind(), object.id().as_path());
        let value = encode(&object);
        assert_eq!(decode(&key, &value).as_ref(), Ok(&object));
        assert_eq!(parse_key(&key), Some((object.kind(), object.id().clone())));
        // A record under the key of another path is that of another object: only the key has the path.
        assert_eq!(encode(&decode(&key, &value).unwrap()), value, "{object:?}");
    }
}

/// Bytes that stores of this version hold. If this fails, old stores do not open: add fields, do not change any.
#[test]
fn bytes_of_this_version_are_read_for_ever() {
    let bytes: Vec<String> = objects()
        .iter()
        .map(|object| encode(object).iter().map(|byte| format!("{byte:02x}")).collect())
        .collect();
    let golden = include_str!("golden.txt");
    assert_eq!(bytes.join("\n") + "\n", golden);
    for (line, object) in golden.lines().zip(objects()) {
        let pairs = line.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
        let value: Vec<u8> = pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        let key = key(object.kind(), object.id().as_path());
        assert_eq!(decode(&key, &value), Ok(object));
    }
}

#[test]
fn what_is_below_a_path_is_one_range() {
    let keys = ["acme", "acme-2", "acme-2/a", "acme.b", "acme/a", "acme/a/b", "acme/z", "acme0"];
    let keys = keys.map(|id| key(Kind::Group, path(id).as_path()));
    let within = |range: &KeyRange| {
        let (start, end) = range.bounds();
        let found = keys.iter().filter(|key| {
            let Bound::Included(start) = start else { panic!() };
            let Bound::Excluded(end) = end else { panic!() };
            start <= key.as_slice() && key.as_slice() < end
        });
        found.map(|key| parse_key(key).unwrap().1.to_string()).collect::<Vec<_>>()
    };
    let below = KeyRange::below(Kind::Group, path("acme").as_path());
    assert_eq!(within(&below), ["acme/a", "acme/a/b", "acme/z"]);
    let after = |id: &str| within(&below.clone().after(Kind::Group, id));
    assert_eq!(after("acme/a"), ["acme/a/b", "acme/z"]);
    assert_eq!(after("acme/a/"), ["acme/a/b", "acme/z"]);
    assert_eq!(after("a"), within(&below));
    assert_eq!(after("b"), Vec::<String>::new());
    assert_eq!(within(&KeyRange::starting(Kind::Group, "acme/a")), ["acme/a", "acme/a/b"]);
    assert_eq!(within(&KeyRange::starting(Kind::Group, "")).len(), keys.len());
    assert_eq!(within(&KeyRange::all(Kind::Group)).len(), keys.len());
    assert_eq!(within(&KeyRange::all(Kind::Role)), Vec::<String>::new());
}

#[test]
fn what_is_no_record_is_refused() {
    let group = &objects()[0];
    let value = encode(group);
    for key in [&b""[..], b"g", b"zacme", b"acme", b"g/acme", b"g\xff", b"maudit"] {
        assert!(matches!(decode(key, &value), Err(RecordError::Key(_))), "{key:?}");
    }
    let refused = |key: &[u8], value: &[u8]| match decode(key, value) {
        Err(RecordError::Value { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(b"gacme", b""), "meta is absent");
    assert!(!refused(b"gacme", b"\xff").is_empty());
    // A condition that a later version may have is not left out.
    let meta = Some(encode_meta(&meta()));
    let record = |condition: ConditionRecord| {
        let when = vec![condition];
        let identity = "alice".into();
        BindingRecord { meta: meta.clone(), identity, when, ..Default::default() }.encode_to_vec()
    };
    let condition = encode_condition(&Condition {
        category: AttributeCategory::Subject,
        name: "a".into(),
        equals: true,
        value: EngineValue::Boolean(true),
    });
    assert!(decode(b"bacme/1", &record(condition.clone())).is_ok());
    let other = ConditionRecord { category: 5, ..condition.clone() };
    assert_eq!(refused(b"bacme/1", &record(other)), "5 is no category of attributes");
    let other = ConditionRecord { value: Some(ValueRecord { value: None }), ..condition };
    assert_eq!(refused(b"bacme/1", &record(other)), "a value is absent");
    // Nor is a name of a certificate.
    let certificate = |spiffe_id: &str, dns_name: &str| {
        let names = (spiffe_id.to_owned(), dns_name.to_owned());
        let certificate = ClientCertificateRecord { spiffe_id: names.0, dns_name: names.1 };
        let authentication = Some(AuthenticationRecord::ClientCertificate(certificate));
        let record = IdentityRecord { meta: meta.clone(), authentication, ..Default::default() };
        record.encode_to_vec()
    };
    assert!(decode(b"iacme/ci", &certificate("spiffe://a/b", "")).is_ok());
    assert!(decode(b"iacme/ci", &certificate("", "a")).is_ok());
    assert_eq!(refused(b"iacme/ci", &certificate("", "")), "a name of a certificate is absent");
    let both = certificate("spiffe://a/b", "a");
    assert_eq!(refused(b"iacme/ci", &both), "two names of a certificate");
}

/// The promises of a role are one range, without those of a role whose id only begins alike.
#[test]
fn promises_of_a_role_are_one_range() {
    let object = key(Kind::GroupInvite, path("acme/x").as_path());
    let range = promises_of("viewer");
    let (Bound::Included(start), Bound::Excluded(end)) = range.bounds() else { panic!() };
    let is_in = |key: &[u8]| start <= key && key < end;
    assert!(is_in(&promise_key("viewer", &object)));
    for other in ["viewe", "viewer.", "viewer2", "viewer/x", "Viewer"] {
        assert!(!is_in(&promise_key(other, &object)), "{other}");
    }
}

/// Every key fits into a store, whose keys have at most 2,048 bytes.
#[test]
fn the_longest_keys_fit_into_a_store() {
    let segments = |count: usize| vec!["s".repeat(124); count].join("/");
    let longest = path(&format!("{}/{}", segments(8), "s".repeat(24)));
    assert_eq!(longest.as_str().len(), 1_024);
    let object = key(Kind::GroupRoleMapping, longest.as_path());
    let organization = path(&"s".repeat(124));
    let keys = [
        promise_key(longest.as_str(), &object),
        reference_key(&Reference::Scope(longest.as_path()), &object),
        reference_key(
            &Reference::Issuer { organization: organization.as_path(), issuer: longest.as_str() },
            &object,
        ),
        reference_key(&Reference::IssuerPattern { organization: organization.as_path() }, &object),
    ];
    assert!(keys.iter().all(|key| key.len() <= 2_048), "{:?}", keys.map(|key| key.len()));
}
