//! Access tokens that the server makes for tokens of others (RFC 8693): for whom, held to what, and what takes them away.

use std::io::{Read as _, Write as _};
use std::time::{Duration, Instant};

use capstan_proto::iam::v1 as iam;
use capstan_proto::iam::v1::group_invite_service_client::GroupInviteServiceClient;
use capstan_proto::v1::CheckRequest;
use capstan_proto::v1::decision_service_client::DecisionServiceClient;
use capstan_server::limits::{
    ACCESS_TOKEN_LIFETIME, EXCHANGE_TIME_MAX, KEY_FILES_MAX, PEER_EXCHANGES_MAX, TOKEN_BYTES_MAX,
    TOKEN_REQUEST_BYTES_MAX,
};
use capstan_testkit::https::Authority;
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};
use tonic::Request;

use super::{AUDIENCE, Caller, World, claims, now, with};
use crate::authzen::{Response, get_from, post_to};
use crate::common::{PATIENCE, Serving, capstan, stderr, stdout};
use crate::ext_authz::envoy::{Http, outcome};

const FORM: &str = "content-type: application/x-www-form-urlencoded\r\n";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// Asks the server at an address of HTTP for an access token.
fn ask(http: &str, headers: &str, parameters: &[(&str, &str)]) -> Response {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", EXCHANGE).append_pair("subject_token_type", JWT);
    for (name, value) in parameters {
        form.append_pair(name, value);
    }
    post_to(http, "/oauth2/token", headers, &form.finish())
}

impl World {
    fn ask(&self, headers: &str, parameters: &[(&str, &str)]) -> Response {
        ask(&self.server.address("http"), headers, parameters)
    }

    /// The answer to a token that is exchanged.
    #[track_caller]
    fn exchange(&self, token: &str, more: &[(&str, &str)]) -> Value {
        let answer = self.ask(FORM, &[&[("subject_token", token)], more].concat());
        assert_eq!(answer.header("cache-control").as_deref(), Some("no-store"), "{answer:?}");
        answer.json()
    }

    #[track_caller]
    pub(super) fn access_token(&self, token: &str, more: &[(&str, &str)]) -> String {
        self.exchange(token, more)["access_token"].as_str().unwrap().to_owned()
    }

    /// The error of a token that is not exchanged, which is shown nowhere.
    #[track_caller]
    pub(super) fn not_exchanged(&self, token: &str, more: &[(&str, &str)]) -> String {
        let answer = self.ask(FORM, &[&[("subject_token", token)], more].concat());
        assert_eq!(answer.status, 400, "{answer:?}");
        assert!(!answer.body.contains(token), "{answer:?}");
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        body["error"].as_str().unwrap().to_owned()
    }

    fn keys(&self, arguments: &[&str]) -> Value {
        let data = self.folder.path().join("data").display().to_string();
        let output = capstan(&[&["keys"], arguments, &["--data", &data, "-o", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_str(&stdout(&output)).unwrap()
    }

    /// The published keys.
    fn published(&self) -> JwkSet {
        let found = get_from(&self.server.address("http"), "/.well-known/jwks.json");
        serde_json::from_str(&found.body).unwrap()
    }
}

async fn scopes(caller: &Caller, token: &str) -> Vec<(String, Vec<String>)> {
    let found = caller.who(&[("authorization", &format!("Bearer {token}"))]).await.unwrap();
    found.scopes.into_iter().map(|one| (one.scope, one.capabilities)).collect()
}

async fn until(what: &str, mut is: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !is().await {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_exchanged_for_one_that_everybody_can_verify() {
    let world = World::start().await;
    let caller = world.caller().await;
    let answer = world.exchange(&world.people.sign(&world.of_ann()), &[]);
    assert_eq!(answer["token_type"], "Bearer");
    assert_eq!(answer["issued_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(answer["expires_in"], ACCESS_TOKEN_LIFETIME);
    assert_eq!((answer.get("scope"), answer.get("subtree")), (None, None));
    let token = answer["access_token"].as_str().unwrap();
    for _ in 0..2 {
        let found = caller.who(&[("authorization", &format!("Bearer {token}"))]).await.unwrap();
        assert_eq!((&found.identity, &*found.authentication), (&world.ann, "access-token"));
        let ends = found.expires_at.unwrap().seconds;
        assert!((ends - now() - ACCESS_TOKEN_LIFETIME).abs() < 60, "it outlives what it is for");
    }
    assert_eq!(caller.by(token, Some(&world.ann)).await.unwrap(), world.ann);
    Caller::assert_refused(caller.by(token, Some("acme/ci")).await, "another one is named");

    // By the documents, as others do.
    let http = world.server.address("http");
    for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
        let document = get_from(&http, path).json();
        assert_eq!(document["issuer"], AUDIENCE);
        assert_eq!(document["jwks_uri"], format!("{AUDIENCE}/.well-known/jwks.json"));
        assert_eq!(document["token_endpoint"], format!("{AUDIENCE}/oauth2/token"));
        assert_eq!(document["grant_types_supported"], json!([EXCHANGE]));
    }
    let key = DecodingKey::from_jwk(&world.published().keys[0]).unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[AUDIENCE]);
    let read = jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap();
    assert_eq!(
        (read.header.typ.as_deref(), &read.claims["sub"]),
        (Some("at+jwt"), &json!(world.ann))
    );

    // Of identities of an organization: by claims, and by keys of their own, with which it ends.
    let ci = world.access_token(&world.ci.sign(&world.of_ci()), &[("identity", "acme/ci")]);
    assert_eq!(caller.by(&ci, None).await.unwrap(), "acme/ci");
    assert_eq!(scopes(&caller, &ci).await[0].0, "acme");
    let bot = world.exchange(&world.bot.sign(&world.of_bot()), &[("identity", "acme/bot")]);
    assert_eq!(caller.by(bot["access_token"].as_str().unwrap(), None).await.unwrap(), "acme/bot");
    // As the password of a registry.
    let basic = format!("Basic {}", super::encode_basic("_token", &ci));
    assert_eq!(caller.who(&[("authorization", &basic)]).await.unwrap().identity, "acme/ci");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_proves_nobody_or_asks_for_too_much_is_refused() {
    let world = World::start().await;
    let ann = world.people.sign(&world.of_ann());
    let ci = world.ci.sign(&world.of_ci());
    let later = world.people.sign(&with(world.of_ann(), "exp", now() - 100));
    let elsewhere = world.people.sign(&with(world.of_ann(), "aud", "https://other.example"));
    let tag = claims(&world.issuers.url("ci"), "repo:acme/web:ref:refs/tags/v1");
    let forged = world.ci.sign(&world.of_ann());
    for (token, named) in [
        ("a.b.c", None),
        (&*later, None),
        (&elsewhere, None),
        (&forged, None),
        (&ci, None),
        (&ci, Some("acme/bot")),
        (&ann, Some("acme/ci")),
        (&world.ci.sign(&tag), Some("acme/ci")),
        (&world.people.sign(&claims(&world.issuers.url("nobody"), "x")), None),
    ] {
        let named: Vec<_> = named.map(|named| ("identity", named)).into_iter().collect();
        assert_eq!(world.not_exchanged(token, &named), "invalid_request");
    }
    for (more, error) in [
        (&[("audience", "https://other.example")][..], "invalid_target"),
        (&[("association", "acme"), ("service", "X")], "invalid_request"),
        (&[("association", "acme")], "invalid_request"),
        (&[("actor_token", "a.b.c")], "invalid_request"),
        (&[("subtree", "acme//x")], "invalid_request"),
        (&[("subject_token", "again")], "invalid_request"),
    ] {
        assert_eq!(world.not_exchanged(&ann, more), error, "{more:?}");
    }
    // One credential, a form, and not too long.
    let with_header = format!("{FORM}authorization: Bearer {ann}\r\n");
    assert_eq!(world.ask(&with_header, &[("subject_token", &ann)]).status, 400);
    let no_form = world.ask("content-type: application/json\r\n", &[("subject_token", &ann)]);
    assert!(no_form.status == 400 && no_form.body.contains("content type"), "{no_form:?}");
    let long = "x".repeat(TOKEN_REQUEST_BYTES_MAX);
    let long = world.ask(FORM, &[("subject_token", &ann), ("more", &long)]);
    assert!(long.status == 400 && long.body.contains("bytes"), "{long:?}");
    let wide =
        world.people.sign(&with(world.of_ann(), "more", "x".repeat(TOKEN_BYTES_MAX * 2 / 3)));
    let wide = world.ask(FORM, &[("subject_token", &wide)]);
    assert!(wide.body.contains("too long to be exchanged"), "{wide:?}");
    let get = get_from(&world.server.address("http"), "/oauth2/token");
    assert_eq!(get.status, 405);
    // A disabled identity gets none, and one that was never seen may: it has yet to accept an invite.
    world.operate(&["identities", "disable", &world.ann]);
    assert_eq!(world.not_exchanged(&ann, &[]), "invalid_request");
    let new = world.people.sign(&claims(&world.issuers.url("people"), "new"));
    world.access_token(&new, &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrowed_token_can_what_it_says_and_nothing_else() {
    let world = World::start_with(Some(
        "version: 1
identity: [credential]
routes:
- {name: shop, methods: [GET], path: /shop, require: [{capability: repo.list, resource: acme/shop/web}]}
- {name: tags, methods: [GET], path: /tags, require: [{capability: tag.list, resource: acme/shop/web}]}
- {name: other, methods: [GET], path: /other, require: [{capability: repo.list, resource: acme/other}]}
",
    ))
    .await;
    let caller = world.caller().await;
    for folder in ["shop", "other"] {
        world.operate(&["folders", "create", folder, "--parent", "acme"]);
    }
    let first = world.ci.sign(&world.of_ci());
    let ask =
        [("identity", "acme/ci"), ("subtree", "acme/shop"), ("scope", "repo.list groups.list")];
    let answer = world.exchange(&first, &ask);
    assert_eq!(
        (&answer["scope"], &answer["subtree"]),
        (&json!("groups.list repo.list"), &json!("acme/shop"))
    );
    let narrowed = answer["access_token"].as_str().unwrap();
    let given = vec!["groups.list".to_owned(), "repo.list".to_owned()];
    assert_eq!(scopes(&caller, narrowed).await, [("acme/shop".to_owned(), given)]);

    // At Envoy.
    let mut envoy = AuthorizationClient::new(caller.0.clone());
    let mut sees = async |token: &str, path: &str| {
        let http = Http::get(path).bearer(token);
        let found = envoy.check(http.check_request()).await.unwrap().into_inner();
        outcome(found, &http).status()
    };
    let whole = world.access_token(&first, &ask[..1]);
    for (path, expected) in [("/shop", 200), ("/tags", 403), ("/other", 403)] {
        assert_eq!(sees(narrowed, path).await, expected, "{path}");
        assert_eq!(sees(&whole, path).await, 200, "{path}");
    }

    // Where the store is managed.
    let file = |name: &str, token: &str| {
        let path = world.folder.path().join(name);
        std::fs::write(&path, token).unwrap();
        path.display().to_string()
    };
    let (narrowed_file, whole_file) = (file("narrowed", narrowed), file("whole", &whole));
    let addr = format!("http://{}", world.server.address("grpc"));
    let iam = |token: &str, arguments: &[&str]| {
        capstan(&[&["iam"], arguments, &["--addr", &addr, "--token-file", token]].concat())
    };
    let listed = stdout(&iam(&narrowed_file, &["folders", "list"]));
    assert!(listed.contains("acme/shop") && !listed.contains("acme/other"), "{listed}");
    let make = ["folders", "create", "x", "--parent", "acme/shop"];
    assert_eq!(iam(&narrowed_file, &make).status.code(), Some(1));
    assert!(iam(&whole_file, &make).status.success());

    // Exchanged again it gets narrower, ends no later, and never wider.
    let again = world.exchange(narrowed, &[("scope", "repo.list")]);
    assert_eq!((&again["scope"], &again["subtree"]), (&json!("repo.list"), &json!("acme/shop")));
    let ends = |answer: &Value| answer["expires_in"].as_i64().unwrap();
    assert!(ends(&again) <= ends(&answer));
    for wider in [("scope", "tag.list"), ("subtree", "acme"), ("subtree", "acme/other")] {
        assert_eq!(world.not_exchanged(narrowed, &[wider]), "invalid_scope", "{wider:?}");
    }
}

/// Whoever asks for decisions shows a token that can all that it is for.
#[tokio::test(flavor = "multi_thread")]
async fn a_narrowed_token_proves_no_caller_of_decisions() {
    let callers = "version: 1
callers: [{name: ci, identity: acme/ci, methods: [check]}]
this_machine: named
";
    let world = World::start_of(&Authority::generate(), &[("--callers", callers)]).await;
    let first = world.ci.sign(&world.of_ci());
    let whole = world.access_token(&first, &[("identity", "acme/ci")]);
    let narrowed = world.access_token(&first, &[("identity", "acme/ci"), ("subtree", "acme")]);
    let mut decisions = DecisionServiceClient::new(world.caller().await.0);
    let mut check = async |token: &str| {
        let (identity, capability) = ("acme/ci".into(), "repo.list".into());
        let resource = "acme/web".into();
        let mut request =
            Request::new(CheckRequest { identity, capability, resource, ..Default::default() });
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        decisions.check(request).await.map(|answer| answer.into_inner().allowed)
    };
    for _ in 0..2 {
        assert!(check(&whole).await.unwrap());
        let refused = check(&narrowed).await.unwrap_err();
        assert_eq!(crate::raw::reason(&refused), "AUTHN_FAILED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_the_first_token_away_takes_the_access_token_away() {
    let mut world = World::start().await;
    let caller = world.caller().await;
    let first = world.ci.sign(&world.of_ci());
    let exchange = |world: &World| world.access_token(&first, &[("identity", "acme/ci")]);
    let token = exchange(&world);
    let is_known = async |token: &str| caller.by(token, None).await.is_ok();
    assert!(is_known(&token).await);
    // The identity: disabled, proved otherwise, and another one of its id.
    world.operate(&["identities", "disable", "acme/ci"]);
    assert!(!is_known(&token).await);
    world.operate(&["identities", "enable", "acme/ci"]);
    assert!(is_known(&token).await);
    let ci = world.issuers.url("ci");
    let proves =
        |subject: &str| format!("issuer={ci},subject-pattern={subject},claim.environment=prod");
    let (web, tags) = (proves("repo:acme/web:.+"), proves("repo:acme/web:ref:refs/tags/.+"));
    world.operate(&["identities", "update", "acme/ci", "--claim-match", &tags]);
    assert!(!is_known(&token).await);
    world.operate(&["identities", "update", "acme/ci", "--claim-match", &web]);
    assert!(is_known(&token).await);
    world.operate(&["identities", "delete", "acme/ci", "--yes"]);
    world.operate(&["identities", "create", "acme/ci", "--type", "service", "--claim-match", &web]);
    Caller::assert_refused(caller.by(&token, None).await, "an identity that was made again");
    let token = exchange(&world);
    assert!(is_known(&token).await);

    // The key of the server: rotated, it counts on; revoked, it does not.
    assert_eq!(world.published().keys.len(), 1);
    world.keys(&["rotate"]);
    until("the next key is published", async || world.published().keys.len() == 2).await;
    assert!(is_known(&token).await);
    let keys = world.keys(&["list"]);
    let states: Vec<_> = keys["keys"].as_array().unwrap().iter().map(|key| &key["state"]).collect();
    assert_eq!(states, ["signs", "next"]);
    // An id may begin with a hyphen.
    let data = world.folder.path().join("data").display().to_string();
    let none = capstan(&["keys", "revoke", "-0dKKbFFVZrTfNVlWKE7P", "--data", &data]);
    assert_eq!(none.status.code(), Some(1), "{}", stderr(&none));
    assert!(stderr(&none).contains("no key has the id -0dKKb"), "{}", stderr(&none));
    world.keys(&["revoke", keys["keys"][0]["kid"].as_str().unwrap()]);
    until("a revoked key counts no more", async || !is_known(&token).await).await;
    let token = exchange(&world);
    assert!(is_known(&token).await, "another key signs");
    let wrong = world.folder.path().join("data/keys");
    for at in 0..=KEY_FILES_MAX {
        std::fs::write(wrong.join(format!("2030010{at}T000000Z.pem")), "no key").unwrap();
    }
    world.server.wait_for_log("signing keys that are not used");
    assert!(is_known(&exchange(&world)).await);

    // The provider, and with it all that it proves.
    world.operate(&["identity-providers", "delete", "acme/ci-idp", "--yes"]);
    assert!(!is_known(&token).await);
}

/// An account at a cloud acts for a group, as the identity that its association names.
#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_identity_is_exchanged_by_an_account_association() {
    const AWS: &str = "https://abc-123.tokens.sts.global.api.aws";
    let world = World::start().await;
    let caller = world.caller().await;
    let file = world.folder.path().join("aws.jwks").display().to_string();
    std::fs::write(&file, super::key_set(&[&world.pinned]).to_string()).unwrap();
    world.operate(&["identity-providers", "create", "acme/aws", "--issuer", AWS, "--jwks", &file]);
    world.operate(&["folders", "create", "shop", "--parent", "acme"]);
    for identity in ["acme/shop/ingester", "acme/other"] {
        world.operate(&["identities", "create", identity, "--type", "service"]);
    }
    world.operate(&[
        "account-associations",
        "create",
        "acme/shop",
        "--aws",
        "012345678901",
        "--service",
        "INGESTER=acme/shop/ingester",
        "--service",
        "OTHER=acme/other",
    ]);
    let of = |account: &str| {
        let role = format!("arn:aws:iam::{account}:role/ingest");
        let claims =
            with(claims(AWS, &role), "https://sts.amazonaws.com/", json!({"aws_account": account}));
        world.pinned.sign(&claims)
    };
    let token = of("012345678901");
    let named =
        |group: &'static str, service: &'static str| [("association", group), ("service", service)];
    let access = world.access_token(&token, &named("acme/shop", "INGESTER"));
    assert_eq!(caller.by(&access, None).await.unwrap(), "acme/shop/ingester");
    for (token, group, service) in [
        // Somebody of another group: whoever may make associations here must not become that.
        (&*token, "acme/shop", "OTHER"),
        (&*of("012345678902"), "acme/shop", "INGESTER"),
        (&token, "acme/shop", "ingester"),
        (&token, "acme", "INGESTER"),
        (&world.pinned.sign(&claims(AWS, "x")), "acme/shop", "INGESTER"),
        (&world.ci.sign(&world.of_ci()), "acme/shop", "INGESTER"),
    ] {
        assert_eq!(world.not_exchanged(token, &named(group, service)), "invalid_request");
    }
    // It is no token of the identity's own.
    let named = Some("acme/shop/ingester");
    Caller::assert_refused(caller.by(&token, named).await, "not exchanged");
    let named = [("identity", "acme/shop/ingester")];
    assert_eq!(world.not_exchanged(&token, &named), "invalid_request");
    // Another account, and the access token is over.
    world.operate(&["account-associations", "update", "acme/shop", "--aws", "999999999999"]);
    Caller::assert_refused(caller.by(&access, None).await, "another account");
    world.operate(&["account-associations", "update", "acme/shop", "--aws", "012345678901"]);
    assert!(caller.by(&access, None).await.is_ok());
    // An identity that proves itself otherwise is none that an association makes.
    let own = format!("issuer={AWS},subject=x");
    world.operate(&["identities", "update", "acme/shop/ingester", "--claim-match", &own]);
    Caller::assert_refused(caller.by(&access, None).await, "it proves itself otherwise");
}

/// The first thing that a person does may be to accept an invite with an access token.
#[tokio::test(flavor = "multi_thread")]
async fn an_invite_is_accepted_with_an_access_token() {
    let world = World::start().await;
    let caller = world.caller().await;
    let invite = [
        "group-invites",
        "create",
        "--group",
        "acme",
        "--role",
        "viewer",
        "--email",
        "new@example.com",
    ];
    let invite = world.operate(&[&invite[..], &["-o", "json"]].concat());
    let invite: Value = serde_json::from_str(&invite).unwrap();
    let code = invite["code"].as_str().unwrap();
    let new = with(claims(&world.issuers.url("people"), "new"), "email", "new@example.com");
    let verified = world.people.sign(&with(new.clone(), "email_verified", true));
    let accept = async |token: &str| {
        let mut request =
            Request::new(iam::AcceptGroupInviteRequest { code: code.into(), ..Default::default() });
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        GroupInviteServiceClient::new(caller.0.clone()).accept_group_invite(request).await
    };
    let unverified = world.access_token(&world.people.sign(&new), &[]);
    assert!(accept(&unverified).await.is_err());
    let narrowed = world.access_token(&verified, &[("subtree", "acme")]);
    assert!(accept(&narrowed).await.unwrap_err().message().contains("narrowed"));
    let access = world.access_token(&verified, &[]);
    Caller::assert_refused(caller.by(&access, None).await, "not registered yet");
    accept(&access).await.unwrap();
    assert_eq!(scopes(&caller, &access).await[0].0, "acme");
}

/// With a path in the public URL, everything is where the documents say it is, and where each standard looks for it.
#[test]
fn a_public_url_with_a_path_has_its_documents_there() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    let made = capstan(&["init", "--data", &data, "--org", "acme", "--owner", "alice"]);
    assert!(made.status.success(), "{}", stderr(&made));
    let url = "https://iam.example.com/base";
    let fixed = ["--data", &data, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
    let server = Serving::start(&[&fixed[..], &["--public-url", url]].concat(), 3);
    let http = server.address("http");
    for path in [
        "/base/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/base",
        "/.well-known/openid-configuration",
    ] {
        let document = get_from(&http, path).json();
        assert_eq!(document["issuer"], url, "{path}");
        let keys = document["jwks_uri"].as_str().unwrap().strip_prefix("https://iam.example.com");
        let keys: JwkSet = serde_json::from_str(&get_from(&http, keys.unwrap()).body).unwrap();
        assert_eq!(keys.keys.len(), 1);
        let endpoint = document["token_endpoint"].as_str().unwrap();
        let endpoint = endpoint.strip_prefix("https://iam.example.com").unwrap();
        let refused = post_to(&http, endpoint, FORM, "grant_type=password");
        assert!(refused.body.contains("unsupported_grant_type"), "{refused:?}");
    }
}

/// The command prints the access token alone, and its errors say what to do, without a token.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_exchanges_a_token() {
    let world = World::start().await;
    let first = world.ci.sign(&world.of_ci());
    let file = world.folder.path().join("first");
    std::fs::write(&file, format!("{first}\n")).unwrap();
    let file = file.display().to_string();
    let url = format!("http://{}/", world.server.address("http"));
    let run = |more: &[&str]| capstan(&[&["auth", "exchange", "--url", &url], more].concat());
    let asked = ["--token-file", &file, "--identity", "acme/ci"];
    let done = run(&asked);
    assert!(done.status.success(), "{}", stderr(&done));
    let caller = world.caller().await;
    assert_eq!(caller.by(stdout(&done).trim(), None).await.unwrap(), "acme/ci");
    let narrowed =
        ["--subtree", "acme", "--capability", "repo.list", "--capability", "groups.list"];
    let done = run(&[&asked[..], &narrowed, &["-o", "json"]].concat());
    let answer: Value = serde_json::from_str(&stdout(&done)).unwrap();
    assert_eq!(
        (&answer["scope"], &answer["subtree"]),
        (&json!("groups.list repo.list"), &json!("acme"))
    );

    let long = world.folder.path().join("long").display().to_string();
    std::fs::write(&long, "x".repeat(TOKEN_BYTES_MAX + 1)).unwrap();
    for (more, says) in [
        (&["--token-file", &file][..], "invalid_request"),
        (&["--token-file", &file, "--identity", "acme/bot"], "the server's log says why"),
        (&["--token-file", &long], "longer than"),
        (&["--token-file", "/dev/null"], "expected one token"),
        (
            &["--token-file", &file, "--identity", "a", "--association", "b", "--service", "c"],
            "cannot be used",
        ),
        (&["--token-file", &file, "--cert", &file, "--key", &file], "the token is the proof"),
    ] {
        let refused = run(more);
        let said = stderr(&refused);
        assert_eq!(refused.status.code(), Some(2), "{more:?}");
        assert!(said.contains(says) && !said.contains(&first), "{more:?}: {said}");
    }
    // Whoever is asked by mistake may repeat the token.
    let body = format!(r#"{{"error": "{first}", "error_description": "no {first}"}}"#);
    let length = body.len();
    let echo = format!("HTTP/1.1 400 Bad Request\r\ncontent-length: {length}\r\n\r\n{body}");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url_of_echo = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.read_exact(&mut [0; 64]).unwrap();
        stream.write_all(echo.as_bytes()).unwrap();
        let _ = stream.read_to_end(&mut vec![]);
    });
    let echoed = capstan(&["auth", "exchange", "--url", &url_of_echo, "--token-file", &file]);
    let said = stderr(&echoed);
    assert!(said.contains("unknown error") && !said.contains(&first), "{said}");
    for (url, says) in [
        ("http://iam.example.com", "this machine only"),
        ("ftp://iam.example.com", "expected https"),
        (&*format!("{url}x"), "no JSON"),
    ] {
        let refused = capstan(&["auth", "exchange", "--url", url, "--token-file", &file]);
        assert!(stderr(&refused).contains(says), "{url}: {}", stderr(&refused));
    }
}

/// Exchanges of one peer that wait for an issuer take places of its own, and a body that does not come is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn exchanges_of_a_peer_are_limited() {
    let world = World::start().await;
    let address = world.server.address("http");
    // It accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let issuer = format!("https://{}/x", silent.local_addr().unwrap());
    world.operate(&["identity-providers", "create", "acme/silent", "--issuer", &issuer]);
    let own = format!("issuer={issuer},subject=x");
    world.operate(&["identities", "create", "acme/x", "--type", "service", "--claim-match", &own]);
    let ann = world.people.sign(&world.of_ann());
    let began = Instant::now();
    let head =
        format!("POST /oauth2/token HTTP/1.1\r\nhost: x\r\n{FORM}content-length: 100\r\n\r\n");
    let mut slow = std::net::TcpStream::connect(&address).unwrap();
    slow.write_all(head.as_bytes()).unwrap();
    let waits = world.ci.sign(&claims(&issuer, "x"));
    let ask = |token: &str, identity: &'static str| {
        let (address, token) = (address.clone(), token.to_owned());
        tokio::task::spawn_blocking(move || {
            let asked = [("subject_token", &*token), ("identity", identity)];
            ask(&address, FORM, &asked).status
        })
    };
    let mut waiting = vec![];
    until("nobody is refused", async || {
        waiting.extend((0..PEER_EXCHANGES_MAX).map(|_| ask(&waits, "acme/x")));
        let mut is_full = false;
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            is_full |= ask(&ann, "").await.unwrap() == 503;
        }
        is_full
    })
    .await;
    let mut ended = vec![];
    for one in waiting {
        ended.push(one.await.unwrap());
    }
    assert!(ended.contains(&400), "their issuer does not answer: {ended:?}");
    assert_eq!(ask(&ann, "").await.unwrap(), 200, "the places are free again");
    let mut answer = [0; 12];
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    slow.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
    assert!(began.elapsed() >= EXCHANGE_TIME_MAX);
}
