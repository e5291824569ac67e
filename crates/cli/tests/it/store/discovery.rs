//! What the issuer of an identity provider publishes decides whether a provider without keys is saved (R9).

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use capstan_proto::contract::WARNING_KEY;
use capstan_proto::iam::v1 as iam;
use capstan_server::limits::{
    CALLER_DISCOVERIES_MAX, DISCOVERED_KEYS_MAX, DISCOVERIES_MAX, DISCOVERY_TIME_MAX,
};
use capstan_testkit::https::{Authority, Reply, Server};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tonic::{Request, Response, Status};
use tonic_types::StatusExt as _;

use super::{Caller, Data, Served, reason, serve};

const CREATE: &str = "IdentityProviderService/CreateIdentityProvider";
const UPDATE: &str = "IdentityProviderService/UpdateIdentityProvider";
const CATALOG: &str = "chainguard-2025-08-14";
const KEY: &str = r#"{"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "1"}"#;

/// What an issuer answers: of its discovery document, and of its keys.
type Answers = Arc<Mutex<[(u16, String); 2]>>;

struct Issuer {
    server: Server,
    answers: Answers,
}

impl Issuer {
    async fn start(authority: &Authority) -> Self {
        let answers = Answers::default();
        let said = Arc::clone(&answers);
        let config = authority.server_config(&["127.0.0.1"], false);
        let server = Server::listen(Ipv4Addr::LOCALHOST, config, move |request| {
            let said = said.lock().unwrap();
            let at = match &*request.line {
                "GET /.well-known/openid-configuration HTTP/1.1" => 0,
                "GET /keys HTTP/1.1" => 1,
                _ => return Reply::status(404, ""),
            };
            let (status, body) = &said[at];
            if *status == 0 {
                return Reply::raw("").hang();
            }
            let head = format!("HTTP/1.1 {status} Any\r\ncontent-length: {}\r\n\r\n", body.len());
            Reply::raw(head + body)
        })
        .await;
        Self { server, answers }
    }

    fn url(&self) -> String {
        format!("https://{}", self.server.address)
    }

    /// What it answers from now on.
    fn says(&self, document: (u16, String), keys: (u16, String)) {
        *self.answers.lock().unwrap() = [document, keys];
    }

    /// A discovery document of this issuer.
    fn document(&self) -> String {
        json!({"issuer": self.url(), "jwks_uri": format!("{}/keys", self.url())}).to_string()
    }
}

fn keys(count: usize) -> String {
    format!(r#"{{"keys": [{}]}}"#, vec![KEY; count].join(","))
}

fn with_discovery(data: &Data, authority: &Authority) -> crate::secrets::Capstan {
    let ca = data.parent.path().join("ca.pem");
    std::fs::write(&ca, authority.pem()).unwrap();
    let mut command = serve(&data.dir);
    command.args(["--public-url", "https://iam.example.com", "--webhook-allow", "127.0.0.0/8"]);
    command.arg("--webhook-ca").arg(ca);
    command
}

fn provider(id: &str, issuer: &str, jwks: &str) -> Value {
    json!({"parent": "acme", "identity_provider": {"id": id, "oidc": {"issuer": issuer, "jwks": jwks}}})
}

/// Saves a provider without keys. Returns the warning.
async fn discovery_warning(caller: &Caller, id: &str, issuer: &str) -> Option<String> {
    let oidc = iam::Oidc { issuer: issuer.into(), ..Default::default() };
    let provider = iam::IdentityProvider {
        id: id.into(),
        configuration: Some(iam::identity_provider::Configuration::Oidc(oidc)),
        ..Default::default()
    };
    let request = iam::CreateIdentityProviderRequest {
        parent: "acme".into(),
        identity_provider: Some(provider),
        ..Default::default()
    };
    let path = format!("/capstan.iam.v1.{CREATE}");
    let made: Response<iam::CreateIdentityProviderResponse> =
        caller.send(&path, Request::new(request)).await.unwrap();
    made.metadata().get(WARNING_KEY).map(|warning| warning.to_str().unwrap().to_owned())
}

#[track_caller]
fn refused(status: &Status) -> String {
    let info = status.get_details_error_info().unwrap();
    assert_eq!(info.metadata["field"], "identity_provider.oidc.issuer", "{status:?}");
    status.message().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_issuer_publishes_decides() {
    let data = Data::init(CATALOG);
    let authority = Authority::generate();
    let issuer = Issuer::start(&authority).await;
    let server = Served::start(with_discovery(&data, &authority));
    let alice = server.caller("alice").await;
    let create = provider("acme/idp", &issuer.url(), "");
    let ok = |body: String| (200, body);

    let other = json!({"issuer": format!("{}/", issuer.url()), "jwks_uri": "https://x.example/"});
    let no_https = json!({"issuer": issuer.url(), "jwks_uri": "http://x.example/"});
    for (document, keys, said) in [
        (ok(other.to_string()), ok(keys(1)), "is of another issuer"),
        (ok("<html>".into()), ok(keys(1)), "the discovery document is no JSON"),
        (ok("{}".into()), ok(keys(1)), "has no valid `issuer` and `jwks_uri`"),
        ((404, String::new()), ok(keys(1)), "is not there: status 404"),
        ((302, String::new()), ok(keys(1)), "is not there: status 302"),
        ((410, String::new()), ok(keys(1)), "is gone"),
        (ok(no_https.to_string()), ok(keys(1)), "`jwks_uri` is at no https URL"),
        (ok(issuer.document()), ok(keys(0)), "must have 1 to 100 keys"),
        (ok(issuer.document()), ok(keys(DISCOVERED_KEYS_MAX + 1)), "must have 1 to 100 keys"),
        (ok(issuer.document()), ok("{}".into()), "`jwks_uri` has no valid `keys`"),
        (ok(issuer.document()), (404, String::new()), "`jwks_uri` is not there"),
    ] {
        issuer.says(document, keys);
        let status = alice.json(CREATE, &create).await.unwrap_err();
        let message = refused(&status);
        assert!(message.contains(said), "{said}: {message}");
    }

    // Whoever may not save a provider makes the server ask nobody, and neither does one with keys.
    let asked = issuer.server.requests().len();
    let ci = json!({"parent": "acme", "identity": {"id": "acme/ci"}});
    alice.json("IdentityService/CreateIdentity", &ci).await.unwrap();
    let binding = json!({"identity": "acme/ci", "role": "editor"});
    let binding = json!({"parent": "acme", "role_binding": binding});
    alice.json("RoleBindingService/CreateRoleBinding", &binding).await.unwrap();
    for (who, why) in [("acme/ci", "MISSING_CAPABILITY"), ("nobody", "AUTHN_FAILED")] {
        let refused = server.caller(who).await.json(CREATE, &create).await.unwrap_err();
        assert_eq!(reason(&refused), why);
    }
    let invalid = provider("acme/idp", &format!("{}/?query", issuer.url()), "");
    refused(&alice.json(CREATE, &invalid).await.unwrap_err());
    let given = provider("acme/given", &issuer.url(), &keys(1));
    alice.json(CREATE, &given).await.unwrap();
    let rename = json!({"identity_provider": {"id": "acme/given", "name": "Given"}});
    alice.json(UPDATE, &rename).await.unwrap();
    assert_eq!(issuer.server.requests().len(), asked);

    // Its keys are taken away: then the issuer must publish some.
    let take = json!({"identity_provider": {"id": "acme/given"}, "update_mask": "oidc.jwks"});
    refused(&alice.json(UPDATE, &take).await.unwrap_err());
    issuer.says(ok(issuer.document()), ok(keys(DISCOVERED_KEYS_MAX)));
    alice.json(UPDATE, &take).await.unwrap();
    assert_eq!(issuer.server.requests().len(), asked + 4);
    alice
        .json("IdentityProviderService/DeleteIdentityProvider", &json!({"id": "acme/given"}))
        .await
        .unwrap();
    assert_eq!(discovery_warning(&alice, "acme/idp", &issuer.url()).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_does_not_answer_decides_nothing_and_is_told() {
    let data = Data::init(CATALOG);
    let authority = Authority::generate();
    let issuer = Issuer::start(&authority).await;
    let server = Served::start(with_discovery(&data, &authority));
    let alice = server.caller("alice").await;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    let warning = async |id: &str, issuer: &str| {
        let warning = discovery_warning(&alice, id, issuer).await.unwrap();
        assert!(warning.contains("no token of it is taken"), "{warning}");
        warning
    };
    issuer.says((503, String::new()), (200, String::new()));
    let said = warning("acme/a", &issuer.url()).await;
    assert!(said.contains("the discovery document: the answer is an error, status 503"), "{said}");
    issuer.says((200, issuer.document()), (0, String::new()));
    let begun = Instant::now();
    let hangs = json!({"parent": "acme", "validate_only": true,
        "identity_provider": {"id": "acme/b", "oidc": {"issuer": format!("{}/b", issuer.url())}}});
    let status = alice.json(CREATE, &hangs).await.unwrap_err();
    assert!(refused(&status).contains("status 404"), "{status:?}");
    let delete = json!({"id": "acme/a"});
    alice.json("IdentityProviderService/DeleteIdentityProvider", &delete).await.unwrap();
    let said = warning("acme/b", &issuer.url()).await;
    assert!(said.contains(&format!("within {DISCOVERY_TIME_MAX:?}")), "{said}");
    assert!(begun.elapsed() < DISCOVERY_TIME_MAX + Duration::from_secs(20));
    for (id, at, why) in [
        ("acme/c", "https://10.0.0.1", "a private address"),
        ("acme/d", "https://idp.example:22", "a port that the server does not connect to"),
    ] {
        let said = warning(id, at).await;
        assert!(said.contains(why), "{said}");
    }
    // One caller cannot have all places: of one issuer more nobody is asked.
    const { assert!(CALLER_DISCOVERIES_MAX < DISCOVERIES_MAX) };
    let ids: Vec<String> = (0..=CALLER_DISCOVERIES_MAX).map(|n| format!("acme/hangs{n}")).collect();
    let urls: Vec<String> =
        ids.iter().map(|id| format!("https://127.0.0.1:{}/{id}", silent.port())).collect();
    let told = join_all(ids.iter().zip(&urls).map(|(id, url)| warning(id, url))).await;
    let not_asked = told.iter().filter(|said| said.contains("too many issuers are being asked"));
    assert_eq!(not_asked.count(), 1, "{told:?}");
    drop(server);
    // Without a public URL no issuer is asked.
    let server = data.start();
    let alice = server.caller("alice").await;
    let said = discovery_warning(&alice, "acme/e", "https://idp.example").await.unwrap();
    assert!(said.contains("asks nobody without --public-url"), "{said}");
}
