//! How long a token counts: until it ends, or its identity, its keys or its issuer change. And secrets beside tokens.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capstan_proto::iam::v1 as iam;
use capstan_proto::iam::v1::policy_service_client::PolicyServiceClient;
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tonic::Request;

use super::{Caller, Key, World, key_set, now, with};
use crate::common::{PATIENCE, capstan, stderr, stdout};
use crate::ext_authz::envoy::Http;
use crate::metrics::scrape_at;

const ROUTES: &str = "version: 1
identity: [credential]
routes:
- {name: list, methods: [GET], path: /groups, require: [{capability: groups.list, resource: acme}]}
";

/// What is remembered of a token never outlives what the store says.
#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_identity_is_seen_by_the_next_call() {
    let world = World::start().await;
    let caller = world.caller().await;
    let (ann, ci, bot) = (
        world.people.sign(&world.of_ann()),
        world.ci.sign(&world.of_ci()),
        world.bot.sign(&world.of_bot()),
    );
    let all = [
        (&ann, None, &*world.ann),
        (&ci, Some("acme/ci"), "acme/ci"),
        (&bot, Some("acme/bot"), "acme/bot"),
    ];
    for (token, named, identity) in all {
        for _ in 0..3 {
            assert_eq!(caller.by(token, named).await.unwrap(), identity);
        }
        world.operate(&["identities", "disable", identity]);
        Caller::assert_refused(caller.by(token, named).await, identity);
        world.operate(&["identities", "enable", identity]);
        assert_eq!(caller.by(token, named).await.unwrap(), identity);
    }
    // Other keys, another claim, and no provider any more.
    let next = Key::new("b2", Algorithm::ES256);
    world.keys_of_bot("update", &key_set(&[&next]), &["--ttl", "30d"]);
    Caller::assert_refused(caller.by(&bot, Some("acme/bot")).await, "its old keys");
    let new = next.sign(&world.of_bot());
    assert_eq!(caller.by(&new, Some("acme/bot")).await.unwrap(), "acme/bot");
    // The same key without a name is still the one that has signed it.
    let nameless = super::without(next.public.clone(), "kid");
    let header = super::without(next.header(), "kid");
    let unnamed = next.sign_with(&header, &world.of_bot());
    assert_eq!(caller.by(&unnamed, Some("acme/bot")).await.unwrap(), "acme/bot");
    world.keys_of_bot("update", &json!({"keys": [nameless]}), &["--ttl", "30d"]);
    assert_eq!(caller.by(&unnamed, Some("acme/bot")).await.unwrap(), "acme/bot", "at once");
    world.operate(&["identity-providers", "delete", "acme/ci-idp", "--yes"]);
    Caller::assert_refused(caller.by(&ci, Some("acme/ci")).await, "no provider");
    world.operate(&["identities", "delete", &world.ann, "--yes"]);
    Caller::assert_refused(caller.by(&ann, None).await, "deleted");
}

/// A token ends by itself, also one that is remembered, and so does a stream that it began.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_ends_its_streams() {
    let world = World::start().await;
    let caller = world.caller().await;
    // 60 seconds of leeway: this one has some seconds left.
    let short = with(with(world.of_ann(), "exp", now() - 54), "iat", now() - 600);
    let token = world.people.sign(&short);
    let found = caller.who(&[("authorization", &format!("Bearer {token}"))]).await.unwrap();
    assert_eq!(found.authentication, "token");
    assert_eq!(found.expires_at.unwrap().seconds, short["exp"].as_i64().unwrap());
    let mut request = Request::new(iam::WatchRequest { parent: "acme".into(), start_revision: 0 });
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    let mut watch =
        PolicyServiceClient::new(caller.0.clone()).watch(request).await.unwrap().into_inner();
    world.operate(&["folders", "create", "seen", "--parent", "acme"]);
    while watch.message().await.unwrap().unwrap().changes.is_empty() {}
    let began = Instant::now();
    while caller.by(&token, None).await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "it counts for ever");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.operate(&["folders", "create", "unseen", "--parent", "acme"]);
    let ended = loop {
        match watch.message().await {
            Ok(response) => {
                let changes = response.unwrap().changes;
                assert!(changes.iter().all(|change| change.id != "acme/unseen"));
            }
            Err(status) => break status,
        }
    };
    assert_eq!(crate::raw::reason(&ended), "AUTHN_FAILED");
}

/// Pull tokens and tokens of issuers as bearers, and as passwords of the identity's id or of `_token`.
#[tokio::test(flavor = "multi_thread")]
async fn secrets_and_tokens_are_passwords_as_well() {
    let world = World::start().await;
    let caller = world.caller().await;
    let made = world.operate_auth(&[
        "pull-token",
        "create",
        "--group",
        "acme",
        "--role",
        "registry.pull",
        "-o",
        "json",
    ]);
    let (id, secret) = (made["username"].as_str().unwrap(), made["secret"].as_str().unwrap());
    let bot = world.bot.sign(&world.of_bot());
    let ann = world.people.sign(&world.of_ann());
    let basic = |user: &str, password: &str| {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    };
    let who = async |header: &str| {
        let found = caller.who(&[("authorization", header)]).await;
        found.map(|found| (found.identity, found.authentication))
    };
    let proved = |identity: &str, by: &str| (identity.to_owned(), by.to_owned());
    for header in [format!("Bearer {secret}"), basic(id, secret), basic("_token", secret)] {
        assert_eq!(who(&header).await.unwrap(), proved(id, "secret"));
    }
    for header in [basic("acme/bot", &bot)] {
        assert_eq!(who(&header).await.unwrap(), proved("acme/bot", "token"));
    }
    for header in [basic(&world.ann, &ann), basic("_token", &ann), format!("bearer  {ann}")] {
        assert_eq!(who(&header).await.unwrap(), proved(&world.ann, "token"));
    }
    for header in [
        basic("acme/bot", secret),
        basic("_token", &bot),
        basic("acme/ci", &bot),
        basic("", &ann),
        basic(id, &ann),
        basic(&world.ann, "x"),
        basic("_token", ""),
    ] {
        Caller::assert_refused(who(&header).await.map(|found| found.0), &header);
    }
    let named = [("authorization", &*format!("Bearer {secret}")), ("x-capstan-caller", "acme/bot")];
    Caller::assert_refused(caller.who(&named).await.map(|found| found.identity), "another name");
    world.operate_auth(&["pull-token", "revoke", id, "--yes", "-o", "json"]);
    Caller::assert_refused(who(&basic(id, secret)).await.map(|found| found.0), "revoked");
    // A proof is counted, and none is told.
    let http = world.server.address("http").parse().unwrap();
    let counted = scrape_at(http).await;
    assert!(counted["capstan_credentials_total{outcome=\"proved\"}"] >= 7.0);
    assert!(counted["capstan_credentials_total{outcome=\"refused\"}"] >= 9.0);
    let log = world.server.stop("-TERM").1;
    for secret in [secret, &bot, &ann] {
        assert!(!log.contains(secret), "a credential is in the log");
    }
    assert!(log.contains("a credential proves nothing"), "{log}");
}

/// The adapter of Envoy takes the same tokens, for the identity that the decision is about.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_envoy_have_the_same_tokens() {
    let world = World::start_with(Some(ROUTES)).await;
    let Caller(channel) = world.caller().await;
    let mut envoy = AuthorizationClient::new(channel);
    let mut ask = async |header: String| {
        let http = Http::get("/groups").header("authorization", header);
        let answer = envoy.check(http.check_request()).await.unwrap().into_inner();
        crate::ext_authz::envoy::outcome(answer, &http)
    };
    let basic = |user: &str, password: &str| {
        format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
    };
    let (ann, bot) = (world.people.sign(&world.of_ann()), world.bot.sign(&world.of_bot()));
    let ci = world.ci.sign(&world.of_ci());
    for (header, identity) in [
        (format!("Bearer {ann}"), &*world.ann),
        (basic("_token", &ann), &world.ann),
        (basic("acme/bot", &bot), "acme/bot"),
        (basic("acme/ci", &ci), "acme/ci"),
    ] {
        let outcome = ask(header).await;
        assert_eq!(outcome.status(), 200, "{identity}: {outcome:?}");
        assert_eq!(outcome.upstream_header("x-capstan-identity"), [identity]);
    }
    let over = world.people.sign(&with(world.of_ann(), "exp", now() - 100));
    for header in [
        format!("Bearer {bot}"),
        format!("Bearer {over}"),
        basic("acme/bot", &ann),
        "Bearer a.b.c".into(),
    ] {
        assert_eq!(ask(header).await.status(), 401);
    }
    world.operate(&["identities", "disable", &world.ann]);
    assert_eq!(ask(format!("Bearer {ann}")).await.status(), 403, "a disabled identity may nothing");
}

/// A person who is not registered yet joins with the first token: the id is the one that was told before.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_login_accepts_an_invite() {
    let world = World::start().await;
    let caller = world.caller().await;
    let invite = world.operate(&[
        "group-invites",
        "create",
        "--group",
        "acme",
        "--role",
        "viewer",
        "--email",
        "bob@example.com",
        "-o",
        "json",
    ]);
    let invite: Value = serde_json::from_str(&invite).unwrap();
    let code = invite["code"].as_str().unwrap();
    let bob = with(super::claims(&world.issuers.url("people"), "bob"), "email", "bob@example.com");
    let accept = async |claims: &Value| {
        let mut request =
            Request::new(iam::AcceptGroupInviteRequest { code: code.into(), ..Default::default() });
        let bearer = format!("Bearer {}", world.people.sign(claims));
        request.metadata_mut().insert("authorization", bearer.parse().unwrap());
        let mut invites =
            iam::group_invite_service_client::GroupInviteServiceClient::new(caller.0.clone());
        invites.accept_group_invite(request).await
    };
    Caller::assert_refused(caller.by(&world.people.sign(&bob), None).await, "not registered");
    // The address must be verified, by the boolean and nothing else.
    for verified in [json!("true"), json!(false), Value::Null] {
        let refused = accept(&with(bob.clone(), "email_verified", verified)).await.unwrap_err();
        assert_eq!(crate::raw::reason(&refused), "INVITE_INVALID");
    }
    let verified = with(bob.clone(), "email_verified", true);
    // Whoever signs for itself has no address, whatever it says.
    let claimed = with(with(world.of_bot(), "email", "bob@example.com"), "email_verified", true);
    let claimed = [
        ("authorization", format!("Bearer {}", world.bot.sign(&claimed))),
        ("x-capstan-caller", "acme/bot".to_owned()),
    ];
    let mut request =
        Request::new(iam::AcceptGroupInviteRequest { code: code.into(), ..Default::default() });
    for (name, value) in claimed {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    let mut invites =
        iam::group_invite_service_client::GroupInviteServiceClient::new(caller.0.clone());
    let refused = invites.accept_group_invite(request).await.unwrap_err();
    assert_eq!(crate::raw::reason(&refused), "INVITE_INVALID");
    accept(&verified).await.unwrap();
    let found = caller.by(&world.people.sign(&bob), None).await.unwrap();
    let id = world.operate(&[
        "identities",
        "lookup",
        "--issuer",
        bob["iss"].as_str().unwrap(),
        "--subject",
        "bob",
        "-o",
        "id",
    ]);
    assert_eq!(found, id.trim());
}

/// What makes no sense is refused before anything listens.
#[test]
fn a_server_that_could_trust_nobody_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let data = path("data");
    assert!(
        capstan(&["init", "--data", &data, "--org", "acme", "--owner", "alice"]).status.success()
    );
    std::fs::write(path("none.jwks"), r#"{"keys": [{"kty": "oct", "k": "AA"}]}"#).unwrap();
    std::fs::write(path("good.jwks"), key_set(&[&Key::new("k", Algorithm::EdDSA)]).to_string())
        .unwrap();
    let trust = |more: &[&str]| {
        let fixed = ["serve", "--data", &data, "--listen", "127.0.0.1:0", "--http", "none"];
        let output = capstan(&[&fixed[..], more].concat());
        assert!(!output.status.success(), "{}", stdout(&output));
        stderr(&output)
    };
    let file = |name: &str| format!("https://a.example,{}", path(name));
    let https = "https://a.example";
    for (arguments, said) in [
        (&["--trust-issuer", "http://a.example"][..], "expected an https URL"),
        (&["--trust-issuer", https], "--public-url"),
        (&["--trust-issuer", &file("absent.jwks")], "absent.jwks"),
        (&["--trust-issuer", &file("none.jwks")], "no key that verifies"),
        (
            &["--trust-issuer", &file("good.jwks"), "--trust-issuer", &file("good.jwks")],
            "named twice",
        ),
        (&["--trust-issuer", &file("good.jwks"), "--token-audience", ""], "audience"),
        (
            &["--trust-issuer", &file("good.jwks"), "--insecure-trust-caller-header"],
            "leave one of them out",
        ),
    ] {
        let error = trust(arguments);
        assert!(error.contains(said), "{arguments:?}: {error}");
    }
    let policy = capstan(&["serve", "--demo", "--trust-issuer", https]);
    assert_eq!(policy.status.code(), Some(2));
    // At most so many.
    let many: Vec<String> = (0..=capstan_server::limits::TRUSTED_ISSUERS_MAX)
        .map(|at| format!("https://a{at}.example,{}", path("good.jwks")))
        .collect();
    let many: Vec<&str> = many.iter().flat_map(|one| ["--trust-issuer", one]).collect();
    assert!(trust(&many).contains("at most 64"));
}
