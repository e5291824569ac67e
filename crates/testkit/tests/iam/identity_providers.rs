//! Identity providers (R9): who makes and changes which, and what their issuers exclude.

use capstan_iam::limits::{ALGORITHMS_MAX, ISSUER_PATTERNS_MAX, RESOLVED_MAX};
use capstan_iam::{
    ALGORITHM_NAMES, Actor, Cause, CreateIdentityProvider, Identity, IdentityProvider,
    IdentityProviderUpdate, Incarnation, Kind, Match, Meta, Object, Operation, Response, Rule,
    UpdateIdentityProvider,
};
use capstan_testkit::managed::operations::*;
use capstan_testkit::managed::{Managed, T0, after};

use crate::common::*;

const OKTA: &str = "https://acme.okta.example";
const DEX: &str = "https://dex.example";

fn made(world: &mut Managed, who: &str, operation: &Operation) -> IdentityProvider {
    match does(world, who, operation).response {
        Response::IdentityProvider(provider) => provider,
        other => panic!("{other:?}"),
    }
}

fn found_at<'w>(world: &'w Managed, id: &str) -> &'w IdentityProvider {
    match world.object(Kind::IdentityProvider, id) {
        Some(Object::IdentityProvider(provider)) => provider,
        other => panic!("{other:?}"),
    }
}

/// `acme` where mallory manages providers and binds nobody.
fn with_manager() -> Managed {
    let mut world = acme();
    let names = [
        "groups.list",
        "identity_providers.create",
        "identity_providers.delete",
        "identity_providers.list",
        "identity_providers.update",
    ];
    does(&mut world, "alice", &role("acme/idp-admin", &names));
    does(&mut world, "alice", &bind("mallory", "acme/idp-admin", "acme"));
    world
}

/// An identity that this authentication proves, with a role at the organization.
fn proved(world: &mut Managed, id: &str, issuer: Match, role: &str) {
    does(world, "alice", &identity(id));
    does(world, "alice", &authenticate(id, Some(claims(issuer))));
    does(world, "alice", &bind(id, role, "acme"));
}

fn with(change: impl FnOnce(&mut IdentityProviderUpdate)) -> IdentityProviderUpdate {
    let mut update = IdentityProviderUpdate::default();
    change(&mut update);
    update
}

#[test]
fn an_owner_makes_changes_and_deletes_a_provider() {
    let mut world = acme();
    let provider_ = made(&mut world, "alice", &provider("acme/okta", OKTA, Some("viewer")));
    assert_eq!(provider_.creator.as_ref().map(|one| one.id.as_str()), Some("alice"));
    assert_eq!((provider_.default_role.as_deref(), provider_.role_created), (Some("viewer"), None));
    assert_eq!(found_at(&world, "acme/okta"), &provider_);
    let changed = with(|one| {
        one.name = Some("Okta".into());
        one.client_id = Some("other".into());
        one.audiences = Some(vec!["a".into()]);
        one.jwks = Some(None);
        one.groups_claim = Some(None);
        one.algorithms = Some(vec!["ES256".into()]);
        one.default_role = Some(None);
        one.issuer = Some(OKTA.into());
    });
    let after = made(&mut world, "alice", &update_provider("acme/okta", changed.clone()));
    assert_eq!((&*after.name, &*after.oidc.client_id), ("Okta", "other"));
    assert_eq!(
        (&after.oidc.jwks, &after.oidc.groups_claim, &after.default_role),
        (&None, &None, &None)
    );
    assert_eq!(after.oidc.algorithms, ["ES256"]);
    assert_ne!(after.meta.etag(), provider_.meta.etag());
    // The same again is no change, and an old etag is told.
    assert!(does(&mut world, "alice", &update_provider("acme/okta", changed)).is_unchanged());
    let stale = UpdateIdentityProvider {
        id: path("acme/okta"),
        update: with(|one| one.name = Some("x".into())),
        etag: Some(provider_.meta.etag()),
    };
    let refusal = refused(&world, "alice", &Operation::UpdateIdentityProvider(stale));
    assert_eq!(reason(&refusal), "CONFLICT");
    does(&mut world, "alice", &delete_provider("acme/okta"));
    assert!(!exists(&world, Kind::IdentityProvider, "acme/okta"));
}

#[test]
fn fields_of_a_provider() {
    let mut world = acme();
    let new = |change: fn(&mut CreateIdentityProvider)| {
        let mut new = new_provider("acme/okta", OKTA);
        change(&mut new);
        Operation::CreateIdentityProvider(new)
    };
    let of = |field: &str| format!("identity_provider.{field}");
    let cases: [(Operation, String); 14] = [
        (new(|one| one.oidc.issuer = "http://x".into()), of("oidc.issuer")),
        (new(|one| one.oidc.client_id = "a\n".into()), of("oidc.client_id")),
        (new(|one| one.oidc.audiences = vec!["a".into(), String::new()]), of("oidc.audiences[1]")),
        (new(|one| one.oidc.jwks = Some("{}".into())), of("oidc.jwks")),
        (
            new(|one| {
                one.oidc.jwks = Some(r#"{"keys": [{"kty": "oct", "k": "AA"}]}"#.into());
            }),
            of("oidc.jwks"),
        ),
        (new(|one| one.oidc.groups_claim = Some(String::new())), of("oidc.groups_claim")),
        (new(|one| one.oidc.algorithms = vec!["HS256".into()]), of("oidc.algorithms[0]")),
        (
            new(|one| one.oidc.algorithms = vec!["ES256".into(), "none".into()]),
            of("oidc.algorithms[1]"),
        ),
        (
            new(|one| one.oidc.algorithms = vec!["EdDSA".into(), "Ed25519".into()]),
            of("oidc.algorithms[1]"),
        ),
        (
            new(|one| one.oidc.algorithms = vec!["ES256".into(); ALGORITHMS_MAX + 1]),
            of("oidc.algorithms"),
        ),
        (new(|one| one.default_role = Some("nobody".into())), of("default_role")),
        (new(|one| one.default_role = Some("globex/x".into())), of("default_role")),
        (new(|one| one.name = "a\n".into()), of("name")),
        (new(|one| one.id = Some(path("acme/x/y"))), of("id")),
    ];
    for (operation, field) in cases {
        assert_eq!(invalid(&refused(&world, "alice", &operation)), field, "{operation:?}");
    }
    let mut all = new_provider("acme/okta", OKTA);
    all.oidc.algorithms = ALGORITHM_NAMES[..ALGORITHMS_MAX].iter().map(|&one| one.into()).collect();
    assert!(world.judge(&actor("alice"), &Operation::CreateIdentityProvider(all)).is_ok());
    // Only an organization has providers.
    let folder = provider("acme/shop/okta", OKTA, None);
    assert_eq!(invalid(&refused(&world, "alice", &folder)), "parent");
    assert_eq!(invalid(&refused_to(&world, &Actor::Operator, &folder)), "parent");
    hides(&refused(&world, "gina", &folder), "acme/shop", &["identity_providers.create"]);
    let nowhere = provider("none/okta", OKTA, None);
    assert_eq!(refused_to(&world, &Actor::Operator, &nowhere).told, Cause::NotFound);
    // A role of a folder is not one of the organization (R4).
    does(&mut world, "alice", &role("acme/shop/r", &["repo.list"]));
    let refusal = refused(&world, "alice", &provider("acme/okta", OKTA, Some("acme/shop/r")));
    assert_eq!(
        (invalid(&refusal), refusal.rule),
        ("identity_provider.default_role", Some(Rule::RoleScope))
    );
    does(&mut world, "alice", &provider("acme/okta", OKTA, None));
    let moved = with(|one| one.issuer = Some(DEX.into()));
    let refusal = refused_to(&world, &Actor::Operator, &update_provider("acme/okta", moved));
    assert_eq!(invalid(&refusal), "identity_provider.oidc.issuer");
}

/// X7: an issuer is one provider's of the organization, and no one's else that Capstan believes.
#[test]
fn an_issuer_is_one_providers() {
    let mut world = acme();
    world.reserved_issuers = vec!["https://capstan.example".into()];
    does(&mut world, "alice", &provider("acme/okta", OKTA, None));
    let refusal = refused(&world, "alice", &provider("acme/again", OKTA, None));
    assert_eq!(reason(&refusal), "ALREADY_EXISTS");
    assert_eq!(refusal.to_string(), "`acme/okta` has this issuer already");
    // Byte for byte, and of each organization.
    does(&mut world, "alice", &provider("acme/slash", &format!("{OKTA}/"), None));
    does(&mut world, "gina", &provider("globex/okta", OKTA, None));
    for who in [actor("alice"), Actor::Operator] {
        let reserved = provider("acme/capstan", "https://capstan.example", None);
        assert_eq!(invalid(&refused_to(&world, &who, &reserved)), "identity_provider.oidc.issuer");
    }
    // What the whole server trusts is no identity's, and may be a provider's.
    world.trusted_issuers = vec!["https://google.example".into()];
    does(&mut world, "alice", &provider("acme/google", "https://google.example", None));
    let claimed = authenticate("acme/ci", Some(keys("https://google.example", "ci", "1", None)));
    for who in [actor("alice"), Actor::Operator] {
        assert_eq!(invalid(&refused_to(&world, &who, &claimed)), "identity.static_keys.issuer");
    }
    // Keys of an identity and a provider exclude each other, whichever comes first.
    let own = |issuer: &str| Some(keys(issuer, "ci", "1", None));
    for who in [actor("alice"), Actor::Operator] {
        let refusal = refused_to(&world, &who, &authenticate("acme/ci", own(OKTA)));
        assert_eq!(invalid(&refusal), "identity.static_keys.issuer");
        let mut new = new_identity("acme/shop/bot");
        new.authentication = own(OKTA);
        let refusal = refused_to(&world, &who, &Operation::CreateIdentity(new));
        assert_eq!(invalid(&refusal), "identity.static_keys.issuer");
    }
    done(&mut world, &Actor::Operator, &identity("globex/ci"));
    does(&mut world, "alice", &authenticate("acme/ci", own(DEX)));
    does(&mut world, "gina", &provider("globex/dex", DEX, None));
    for who in [actor("alice"), Actor::Operator] {
        let refusal = refused_to(&world, &who, &provider("acme/dex", DEX, None));
        assert_eq!(invalid(&refusal), "identity_provider.oidc.issuer");
    }
    does(&mut world, "alice", &authenticate("acme/ci", Some(claims(Match::Exact(DEX.into())))));
    does(&mut world, "alice", &provider("acme/dex", DEX, None));
    does(&mut world, "alice", &delete_provider("acme/okta"));
    does(&mut world, "alice", &authenticate("acme/ci", own(OKTA)));
}

#[test]
fn who_makes_a_provider_needs_the_capability() {
    let world = acme();
    let operation = provider("acme/okta", OKTA, None);
    for who in ["bob", "erin"] {
        misses(&refused(&world, who, &operation), None, "acme", &["identity_providers.create"]);
    }
    let missing = ["identity_providers.create", "role_bindings.create"];
    let promising = provider("acme/okta", OKTA, Some("viewer"));
    misses(&refused(&world, "bob", &promising), None, "acme", &missing);
    hides(&refused(&world, "mallory", &operation), "acme", &["identity_providers.create"]);
    // The path is judged before what is there.
    misses(
        &refused(&world, "bob", &delete_provider("acme/none")),
        None,
        "acme",
        &["identity_providers.delete"],
    );
    assert_eq!(refused(&world, "alice", &delete_provider("acme/none")).told, Cause::NotFound);
    assert_eq!(refused(&world, "alice", &rekey("acme/none", "2")).told, Cause::NotFound);
}

/// R9, too: a token of a cloud proves whoever an account association names for its accounts.
#[test]
fn a_provider_of_a_cloud_needs_what_services_hold() {
    const AWS: &str = "https://abc-1.tokens.sts.global.api.aws";
    let mut world = with_manager();
    does(&mut world, "alice", &bind("acme/ci", "registry.pull", "acme"));
    does(&mut world, "alice", &associate("acme/shop", &[("INGESTER", "acme/ci")]));
    let refusal = refused(&world, "mallory", &provider("acme/aws", AWS, None));
    assert_eq!(refusal.rule, Some(Rule::IdentityProvider), "{refusal}");
    assert!(refusal.missing().1.iter().any(|one| one == "manifest.list"), "{refusal}");
    // Of another cloud, or of nobody's, it proves none of them.
    for other in ["https://accounts.google.com", "https://abc-1.tokens.sts.global.api.aws.example"]
    {
        assert!(
            world.judge(&actor("mallory"), &provider("acme/x", other, None)).is_ok(),
            "{other}"
        );
    }
    does(&mut world, "alice", &provider("acme/aws", AWS, None));
    let refusal = refused(&world, "mallory", &rekey("acme/aws", "2"));
    assert_eq!(refusal.rule, Some(Rule::IdentityProvider), "{refusal}");
    // An identity that was made again is not the one that is named.
    does(&mut world, "alice", &delete_identity("acme/ci"));
    does(&mut world, "alice", &identity("acme/ci"));
    does(&mut world, "alice", &bind("acme/ci", "registry.pull", "acme"));
    assert!(world.judge(&actor("mallory"), &rekey("acme/aws", "2")).is_ok());
}

/// R9: whoever decides which tokens are a provider's has what the identities have that these prove.
#[test]
fn a_provider_needs_what_its_identities_hold() {
    let mut world = with_manager();
    // It proves nobody yet.
    does(&mut world, "mallory", &provider("acme/okta", OKTA, None));
    does(&mut world, "mallory", &rekey("acme/okta", "2"));
    proved(&mut world, "acme/robot", Match::Exact(OKTA.into()), "registry.pull");
    let update = |update| update_provider("acme/okta", update);
    let gifts = [
        rekey("acme/okta", "3"),
        update(with(|one| one.client_id = Some("x".into()))),
        update(with(|one| one.audiences = Some(vec!["x".into()]))),
        update(with(|one| one.groups_claim = Some(None))),
        update(with(|one| one.algorithms = Some(vec!["PS256".into()]))),
        delete_provider("acme/okta"),
    ];
    for operation in &gifts {
        let refusal = refused(&world, "mallory", operation);
        assert_eq!(refusal.rule, Some(Rule::IdentityProvider), "{operation:?}: {refusal}");
        let lacking = refusal.missing().1.iter().any(|one| one == "manifest.list");
        assert!(lacking, "{refusal}");
        assert!(world.judge(&actor("alice"), operation).is_ok(), "{operation:?}");
        assert!(world.judge(&Actor::Operator, operation).is_ok(), "{operation:?}");
    }
    // Texts are no matter of it.
    does(&mut world, "mallory", &update(with(|one| one.name = Some("x".into()))));
    // Also a binding that does not count, and an identity that a pattern names.
    let mut world = with_manager();
    proved(
        &mut world,
        "acme/old",
        Match::Pattern("https://.*[.]okta[.]example".into()),
        "acme/idp-admin",
    );
    does(&mut world, "mallory", &provider("acme/okta", OKTA, None));
    does(&mut world, "alice", &bind_until("acme/old", "owner", "acme/shop", after(5)));
    world.now = after(10);
    let refusal = refused(&world, "mallory", &rekey("acme/okta", "2"));
    assert_eq!(refusal.missing().0.map(|scope| scope.as_str()), Some("acme/shop"));
    // Nobody of another issuer, of another organization, and no root identity.
    does(&mut world, "mallory", &provider("acme/dex", DEX, None));
    does(&mut world, "mallory", &rekey("acme/dex", "2"));
    done(&mut world, &Actor::Operator, &identity("globex/robot"));
    let proof = Some(claims(Match::Exact(DEX.into())));
    done(&mut world, &Actor::Operator, &authenticate("globex/robot", proof.clone()));
    done(&mut world, &Actor::Operator, &authenticate("gina", proof));
    does(&mut world, "gina", &bind("globex/robot", "owner", "globex"));
    does(&mut world, "alice", &bind("gina", "owner", "acme"));
    does(&mut world, "mallory", &rekey("acme/dex", "3"));
}

/// A default role is given to everybody with a token: R1, and R14 for it is without end.
#[test]
fn a_default_role_is_a_grant() {
    let mut world = with_manager();
    let promising = provider("acme/okta", OKTA, Some("acme/idp-admin"));
    misses(&refused(&world, "mallory", &promising), None, "acme", &["role_bindings.create"]);
    does(&mut world, "alice", &role("acme/binder", &["role_bindings.create"]));
    does(&mut world, "alice", &bind("mallory", "acme/binder", "acme"));
    // It manages access, so who gives it can take it away.
    let rule = Some(Rule::IdentityProvider);
    misses(&refused(&world, "mallory", &promising), rule, "acme", &["role_bindings.delete"]);
    let refusal = refused(&world, "mallory", &provider("acme/okta", OKTA, Some("apk.pull")));
    misses(&refusal, rule, "acme", &["apk.list"]);
    does(&mut world, "mallory", &provider("acme/okta", OKTA, None));
    misses(
        &refused(&world, "mallory", &default_role("acme/okta", Some("apk.pull"))),
        rule,
        "acme",
        &["apk.list"],
    );
    does(&mut world, "alice", &default_role("acme/okta", Some("apk.pull")));
    // Whoever changes anything of it gives the role again, and whoever takes it holds it.
    for operation in [rekey("acme/okta", "2"), default_role("acme/okta", None)] {
        let refusal = refused(&world, "mallory", &operation);
        let rule = if operation == rekey("acme/okta", "2") { rule } else { Some(Rule::Delete) };
        misses(&refusal, rule, "acme", &["apk.list"]);
    }
    misses(
        &refused(&world, "mallory", &delete_provider("acme/okta")),
        Some(Rule::Delete),
        "acme",
        &["apk.list"],
    );
    // Without end: whoever's right ends makes none (R14), with or without a role.
    done(&mut world, &Actor::Operator, &identity("acme/temp"));
    does(&mut world, "alice", &bind_until("acme/temp", "owner", "acme", after(100)));
    for operation in [
        provider("acme/dex", DEX, None),
        provider("acme/dex", DEX, Some("viewer")),
        rekey("acme/okta", "2"),
    ] {
        let refusal = refused(&world, "acme/temp", &operation);
        assert_eq!(reason(&refusal), "DURATION_EXCEEDED", "{operation:?}");
    }
    does(&mut world, "acme/temp", &delete_provider("acme/okta"));
}

/// ROLE_IN_USE counts default roles; the role is that of then.
#[test]
fn a_default_role_is_in_use() {
    let mut world = acme();
    does(&mut world, "alice", &role("acme/r", &["repo.list"]));
    let made = made(&mut world, "alice", &provider("acme/okta", OKTA, Some("acme/r")));
    let Some(Object::Role(role)) = world.object(Kind::Role, "acme/r") else { panic!("no role") };
    assert_eq!(made.role_created, Some(role.meta.created));
    assert_eq!(reason(&refused(&world, "alice", &delete_role("acme/r"))), "ROLE_IN_USE");
    does(&mut world, "alice", &default_role("acme/okta", None));
    assert_eq!(found_at(&world, "acme/okta").role_created, None);
    does(&mut world, "alice", &delete_role("acme/r"));
}

/// Whoever last changed what it gives is its creator.
#[test]
fn a_provider_names_who_promised() {
    let mut world = acme();
    does(&mut world, "alice", &provider("acme/okta", OKTA, None));
    does(&mut world, "alice", &bind("bob", "owner", "acme"));
    does(&mut world, "bob", &update_provider("acme/okta", with(|one| one.name = Some("x".into()))));
    let creator = |world: &Managed| found_at(world, "acme/okta").creator.clone();
    assert_eq!(creator(&world).map(|one| one.id), Some(path("alice")));
    does(&mut world, "bob", &rekey("acme/okta", "2"));
    let Some(Object::Identity(bob)) = world.object(Kind::Identity, "bob") else { panic!("no bob") };
    let created = bob.meta.created;
    assert_eq!(creator(&world), Some(Incarnation { id: path("bob"), created }));
    done(&mut world, &Actor::Operator, &rekey("acme/okta", "3"));
    assert_eq!(creator(&world), None);
}

/// A provider is content of its organization, and its path is nobody's else.
#[test]
fn an_organization_with_a_provider_is_not_empty() {
    let mut world = acme();
    for id in ["acme/shop", "acme/platform"] {
        does(&mut world, "alice", &delete_group(id));
    }
    does(&mut world, "alice", &delete_identity("acme/ci"));
    does(&mut world, "alice", &provider("acme/okta", OKTA, None));
    let refusal = refused(&world, "alice", &delete_group("acme"));
    assert_eq!(reason(&refusal), "NOT_EMPTY");
    assert!(refusal.to_string().ends_with("there is an identity_provider"), "{refusal}");
    for operation in [folder("acme/okta"), role("acme/okta", &[]), identity("acme/okta")] {
        let refusal = refused(&world, "alice", &operation);
        assert_eq!(reason(&refusal), "ALREADY_EXISTS", "{operation:?}");
    }
    let taken = refused(&world, "alice", &provider("acme/okta", DEX, None));
    assert_eq!(reason(&taken), "ALREADY_EXISTS");
    does(&mut world, "alice", &delete_provider("acme/okta"));
    does(&mut world, "alice", &delete_group("acme"));
}

#[test]
fn providers_are_seen_by_who_may_list_them() {
    let mut world = acme();
    does(&mut world, "alice", &provider("acme/okta", OKTA, None));
    for who in ["alice", "bob", "erin"] {
        assert_eq!(world.list(&actor(who), Kind::IdentityProvider), ["acme/okta"], "{who}");
        assert!(world.get(&actor(who), Kind::IdentityProvider, "acme/okta").is_ok());
    }
    assert_eq!(world.list(&actor("gina"), Kind::IdentityProvider), [""; 0]);
    let refusal = world.get(&actor("gina"), Kind::IdentityProvider, "acme/okta").unwrap_err();
    hides(&refusal, "acme", &["identity_providers.list"]);
}

fn put_identity(world: &mut Managed, id: &str, issuer: Match) {
    let identity = Identity {
        id: path(id),
        name: String::new(),
        description: String::new(),
        kind: "service".into(),
        properties: Default::default(),
        disabled: false,
        authentication: Some(claims(issuer)),
        meta: Meta::new(1, T0),
    };
    world.put(Object::Identity(identity)).unwrap();
}

/// A pattern that is not compiled any more counts as if it matched.
#[test]
fn patterns_are_compiled_up_to_a_number() {
    let mut world = with_manager();
    for at in 0..=ISSUER_PATTERNS_MAX {
        // The last one by its path has a role that mallory lacks.
        let id = format!("acme/p{at:03}");
        put_identity(&mut world, &id, Match::Pattern(format!("https://other{at}")));
    }
    let last = format!("acme/p{ISSUER_PATTERNS_MAX:03}");
    does(&mut world, "mallory", &provider("acme/okta", OKTA, None));
    does(&mut world, "alice", &bind(&last, "apk.pull", "acme"));
    let refusal = refused(&world, "mallory", &rekey("acme/okta", "2"));
    misses(&refusal, Some(Rule::IdentityProvider), "acme", &["apk.list"]);
    // One pattern less, and it is compiled.
    done(&mut world, &Actor::Operator, &delete_identity("acme/p000"));
    does(&mut world, "mallory", &rekey("acme/okta", "2"));
}

/// Of more identities than are judged the provider is the operator's.
#[test]
fn more_identities_than_are_judged_are_the_operators() {
    use capstan_engine::Path;
    use capstan_iam::{Context, Objects, ObjectsError, Reference, RuleSet, State, judge};

    /// A world in which so many identities refer to every issuer.
    struct Many<'w>(&'w Managed, usize);

    impl Objects for Many<'_> {
        fn get(&self, kind: Kind, id: Path<'_>) -> Result<Option<Object>, ObjectsError> {
            Objects::get(self.0, kind, id)
        }
        fn below(
            &self,
            kind: Kind,
            at: Option<Path<'_>>,
            each: &mut dyn FnMut(Object) -> bool,
        ) -> Result<(), ObjectsError> {
            self.0.below(kind, at, each)
        }
        fn invite(
            &self,
            code: &capstan_iam::SecretHash,
        ) -> Result<Option<capstan_iam::InviteCode>, ObjectsError> {
            Objects::invite(self.0, code)
        }
        fn is_promised(&self, role: &str) -> Result<bool, ObjectsError> {
            self.0.is_promised(role)
        }
        fn referring(
            &self,
            to: &Reference<'_>,
            each: &mut dyn FnMut(Kind, capstan_engine::PathBuf) -> bool,
        ) -> Result<(), ObjectsError> {
            if matches!(to, Reference::IssuerPattern { .. }) {
                (0..self.1).take_while(|_| each(Kind::Identity, path("acme/ci"))).for_each(drop);
            }
            Ok(())
        }
    }
    let world = acme();
    let judged = |identities: usize, who: &Actor| {
        let many = Many(&world, identities);
        let state = State { snapshot: world.snapshot(), objects: &many };
        let mut new_id = || 7;
        let mut context = Context {
            now: world.now,
            revision: 99,
            new_id: &mut new_id,
            reserved_issuers: &[],
            trusted_issuers: &[],
        };
        let operation = provider("acme/okta", OKTA, None);
        judge(&RuleSet::FULL, &state, who, &operation, &mut context).map_err(|error| match error {
            capstan_iam::JudgeError::Refused(refusal) => reason(&refusal),
            error => panic!("{error}"),
        })
    };
    assert!(judged(RESOLVED_MAX, &actor("alice")).is_ok());
    assert_eq!(judged(RESOLVED_MAX + 1, &actor("alice")).unwrap_err(), "OPERATOR_ONLY");
    assert!(judged(RESOLVED_MAX + 1, &Actor::Operator).is_ok());
}
