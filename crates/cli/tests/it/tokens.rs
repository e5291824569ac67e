//! Callers that tokens and secrets prove: which tokens count, of which keys, and for how long.

mod algorithms;
mod cases;
mod command_line;
mod exchanged;
mod groups;
mod issuers;
mod lives;
mod login;
mod real;
mod revoked;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::secrets::Channel;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use capstan_client::ServerAddress;
use capstan_proto::iam::v1 as iam;
use capstan_proto::iam::v1::auth_service_client::AuthServiceClient;
use capstan_testkit::https::{Authority, Reply, Server};
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::metadata::MetadataKey;
use tonic::{Code, Request, Status};

use crate::common::{PATIENCE, Serving, capstan, stderr, stdout};

/// The audience of the server.
const AUDIENCE: &str = "https://iam.example.com";

/// An issuer that nobody can ask.
const PINNED: &str = "https://pinned.example";

fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// A key pair of an issuer.
#[derive(Clone)]
struct Key {
    id: &'static str,
    algorithm: Algorithm,
    private: EncodingKey,
    /// A JSON Web Key.
    public: Value,
}

impl Key {
    fn new(id: &'static str, algorithm: Algorithm) -> Self {
        if algorithm == Algorithm::EdDSA {
            let pair = KeyPair::generate_for(&PKCS_ED25519).unwrap();
            let x = URL_SAFE_NO_PAD.encode(pair.der_bytes());
            let private = EncodingKey::from_ed_der(&pair.serialize_der());
            let public = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": id, "use": "sig"});
            return Self { id, algorithm, private, public };
        }
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let (x, y) = pair.der_bytes()[1..].split_at(32);
        let [x, y] = [x, y].map(|half| URL_SAFE_NO_PAD.encode(half));
        let private = EncodingKey::from_ec_der(&pair.serialize_der());
        let public =
            json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": id, "alg": "ES256"});
        Self { id, algorithm, private, public }
    }

    fn header(&self) -> Value {
        let name = if self.algorithm == Algorithm::EdDSA { "EdDSA" } else { "ES256" };
        json!({"alg": name, "kid": self.id, "typ": "JWT"})
    }

    /// A token of these claims.
    fn sign(&self, claims: &Value) -> String {
        self.sign_with(&self.header(), claims)
    }

    /// A token with any header, which this key signs as it does all.
    fn sign_with(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    fn sign_text(&self, header: &str, claims: &str) -> String {
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.private, self.algorithm);
        format!("{message}.{}", signature.unwrap())
    }
}

fn encode_basic(user: &str, password: &str) -> String {
    base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
}

fn encode(text: &str) -> String {
    URL_SAFE_NO_PAD.encode(text)
}

fn key_set(keys: &[&Key]) -> Value {
    let keys: Vec<_> = keys.iter().map(|key| &key.public).collect();
    json!({"keys": keys})
}

/// Issuers at one address: `https://127.0.0.1:PORT/NAME`.
struct Issuers {
    server: Server,
    /// The keys of each, by its name; `None` while it does not answer.
    keys: Arc<Mutex<BTreeMap<String, Option<Value>>>>,
}

impl Issuers {
    async fn start(authority: &Authority) -> Self {
        let keys = Arc::<Mutex<BTreeMap<String, Option<Value>>>>::default();
        let published = Arc::clone(&keys);
        let config = authority.server_config(&["127.0.0.1"], false);
        let server = Server::listen(Ipv4Addr::LOCALHOST, config, move |request| {
            let path = request.line.split(' ').nth(1).unwrap();
            let (name, what) = path[1..].split_once('/').unwrap_or_default();
            let published = published.lock().unwrap();
            let Some(Some(keys)) = published.get(name) else { return Reply::status(503, "") };
            let host = request.header("host").unwrap();
            let issuer = format!("https://{host}/{name}");
            let body = match what {
                ".well-known/openid-configuration" => {
                    json!({"issuer": issuer, "jwks_uri": format!("{issuer}/keys"),
                        "id_token_signing_alg_values_supported": ["ES256", "EdDSA", "RS256"]})
                }
                "keys" => keys.clone(),
                _ => return Reply::status(404, ""),
            };
            let body = body.to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            Reply::raw(head + &body)
        })
        .await;
        Self { server, keys }
    }

    fn url(&self, name: &str) -> String {
        format!("https://{}/{name}", self.server.address)
    }

    /// What an issuer publishes from now on; nothing while it does not answer.
    fn publish(&self, name: &str, keys: Option<&[&Key]>) {
        self.keys.lock().unwrap().insert(name.into(), keys.map(key_set));
    }

    /// How often the keys of an issuer were read.
    fn reads(&self, name: &str) -> usize {
        let line = format!("GET /{name}/keys HTTP/1.1");
        self.server.requests().iter().filter(|request| request.line == line).count()
    }
}

/// A store with callers of all kinds, and its server.
///
/// - `people` is an issuer that the operator trusts; `ann` of it is a viewer of `acme`.
/// - `ci` is the issuer of a provider of `acme`. `acme/ci`, an owner, is whoever builds the main branch.
/// - `acme/bot`, a viewer, has keys of its own.
/// - [`PINNED`] is another issuer that the operator trusts, by a file of its keys.
struct World {
    folder: TempDir,
    issuers: Issuers,
    people: Key,
    ci: Key,
    bot: Key,
    pinned: Key,
    /// The id of `ann`.
    ann: String,
    server: Serving,
}

impl World {
    async fn start() -> Self {
        Self::start_with(None).await
    }

    /// With a route table for requests of Envoy.
    async fn start_with(routes: Option<&str>) -> Self {
        let routes = routes.map(|routes| ("--routes", routes));
        Self::start_of(&Authority::generate(), routes.as_slice()).await
    }

    /// With issuers whose certificates are of this authority, and options with files of these texts.
    async fn start_of(authority: &Authority, files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let issuers = Issuers::start(authority).await;
        let (people, ci) = (Key::new("p1", Algorithm::ES256), Key::new("c1", Algorithm::EdDSA));
        let bot = Key::new("b1", Algorithm::EdDSA);
        issuers.publish("people", Some(&[&people]));
        issuers.publish("ci", Some(&[&ci]));
        let data = folder.path().join("data").display().to_string();
        let made = capstan(&["init", "--data", &data, "--org", "acme", "--owner", "alice"]);
        assert!(made.status.success(), "{}", stderr(&made));
        let mut more = vec![];
        for (option, text) in files {
            let file = folder.path().join(format!("{}.yaml", &option[2..]));
            std::fs::write(&file, text).unwrap();
            more.extend([(*option).to_owned(), file.display().to_string()]);
        }
        // An issuer whose keys are in a file.
        let pinned = Key::new("f1", Algorithm::ES256);
        let file = folder.path().join("pinned.jwks");
        std::fs::write(&file, key_set(&[&pinned]).to_string()).unwrap();
        let by_file = format!("{PINNED},{}", file.display());
        let more = more.iter().map(String::as_str);
        let more: Vec<_> = ["--trust-issuer", &by_file].into_iter().chain(more).collect();
        let server = serve(folder.path(), &issuers.url("people"), &more);
        let mut world =
            Self { folder, issuers, people, ci, bot, pinned, ann: String::new(), server };
        world.fill();
        world
    }

    /// Makes (`create`) or changes (`update`) `acme/bot` with these keys, that end as `ends` says.
    fn keys_of_bot(&self, verb: &str, keys: &Value, ends: &[&str]) {
        let file = self.folder.path().join("bot.jwks").display().to_string();
        std::fs::write(&file, keys.to_string()).unwrap();
        let kind: &[&str] = if verb == "create" { &["--type", "service"] } else { &[] };
        let of_keys = ["--static-keys", &file, "--issuer", "bots", "--subject", "bot"];
        self.operate(&[&["identities", verb, "acme/bot"], kind, &of_keys, ends].concat());
    }

    fn fill(&mut self) {
        let (people, ci) = (self.issuers.url("people"), self.issuers.url("ci"));
        let found = self.operate(&[
            "identities",
            "lookup",
            "--issuer",
            &people,
            "--subject",
            "ann",
            "-o",
            "json",
        ]);
        let found: Value = serde_json::from_str(&found).unwrap();
        self.ann = found["id"].as_str().unwrap().to_owned();
        let ann = self.ann.clone();
        let of_ann = format!("issuer={people},subject=ann");
        self.operate(&["identities", "create", &ann, "--claim-match", &of_ann]);
        self.operate(&["identity-providers", "create", "acme/ci-idp", "--issuer", &ci]);
        let of_ci = format!(
            r"issuer={ci},subject-pattern=repo:acme/\w+:ref:refs/heads/main,claim.environment=prod"
        );
        self.operate(&[
            "identities",
            "create",
            "acme/ci",
            "--type",
            "service",
            "--claim-match",
            &of_ci,
        ]);
        self.keys_of_bot("create", &key_set(&[&self.bot]), &["--ttl", "30d"]);
        for (identity, role) in [(&*ann, "viewer"), ("acme/ci", "owner"), ("acme/bot", "viewer")] {
            self.operate(&[
                "role-bindings",
                "create",
                "--identity",
                identity,
                "--role",
                role,
                "--group",
                "acme",
            ]);
        }
    }

    /// A command of `iam`, as the operator.
    fn operate(&self, arguments: &[&str]) -> String {
        let addr = self.server.address("management");
        let output = capstan(&[&["iam"], arguments, &["--addr", &addr]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// The same of `auth`, which answers JSON.
    fn operate_auth(&self, arguments: &[&str]) -> Value {
        let addr = self.server.address("management");
        let output = capstan(&[&["auth"], arguments, &["--addr", &addr]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        serde_json::from_str(&stdout(&output)).unwrap()
    }

    /// Claims of `ann`.
    fn of_ann(&self) -> Value {
        claims(&self.issuers.url("people"), "ann")
    }

    /// Claims of `acme/ci`.
    fn of_ci(&self) -> Value {
        let mut claims = claims(&self.issuers.url("ci"), "repo:acme/web:ref:refs/heads/main");
        claims["environment"] = "prod".into();
        claims
    }

    fn of_bot(&self) -> Value {
        claims("bots", "bot")
    }

    async fn caller(&self) -> Caller {
        Caller(channel(&format!("http://{}", self.server.address("grpc"))).await)
    }

    async fn operator(&self) -> Channel {
        channel(&self.server.address("management")).await
    }
}

async fn channel(address: &str) -> Channel {
    let endpoint = address.parse::<ServerAddress>().unwrap().endpoint().unwrap();
    tokio::time::timeout(PATIENCE, endpoint.connect()).await.unwrap().unwrap().into()
}

fn claims(issuer: &str, subject: &str) -> Value {
    let now = now();
    json!({"iss": issuer, "sub": subject, "aud": AUDIENCE, "iat": now, "exp": now + 600})
}

fn with(mut base: Value, name: &str, value: impl Into<Value>) -> Value {
    base[name] = value.into();
    base
}

fn without(mut base: Value, name: &str) -> Value {
    base.as_object_mut().unwrap().remove(name);
    base
}

/// The server of a store that trusts an issuer.
fn serve(folder: &Path, trusted: &str, more: &[&str]) -> Serving {
    let path = |name: &str| folder.join(name).display().to_string();
    let (data, ca) = (path("data"), path("ca.pem"));
    let fixed = [
        "--data",
        &data,
        "--listen",
        "127.0.0.1:0",
        "--http",
        "127.0.0.1:0",
        "--public-url",
        AUDIENCE,
        "--webhook-allow",
        "127.0.0.0/8",
        "--webhook-ca",
        &ca,
        "--trust-issuer",
        trusted,
    ];
    Serving::start(&[&fixed[..], more].concat(), 3)
}

/// Somebody with a connection.
#[derive(Clone)]
struct Caller(Channel);

impl Caller {
    /// Who this metadata is. A machine that is busy with other tests may take longer than the server's deadline.
    async fn who(&self, metadata: &[(&str, &str)]) -> Result<iam::WhoAmIResponse, Status> {
        let until = Instant::now() + PATIENCE;
        loop {
            let mut request = Request::new(iam::WhoAmIRequest {});
            for (name, value) in metadata {
                let name: MetadataKey<_> = name.parse().unwrap();
                request.metadata_mut().append(name, value.parse().unwrap());
            }
            match AuthServiceClient::new(self.0.clone()).who_am_i(request).await {
                Err(late) if late.code() == Code::DeadlineExceeded && Instant::now() < until => {}
                found => return found.map(tonic::Response::into_inner),
            }
        }
    }

    /// Whom a token proves, beside the identity that is named.
    async fn by(&self, token: &str, named: Option<&str>) -> Result<String, Status> {
        let bearer = format!("Bearer {token}");
        let named = named.map(|named| ("x-capstan-caller", named));
        let metadata: Vec<_> =
            [Some(("authorization", &*bearer)), named].into_iter().flatten().collect();
        self.who(&metadata).await.map(|found| found.identity)
    }

    #[track_caller]
    fn assert_refused(found: Result<String, Status>, what: &str) {
        let status = found.expect_err(what);
        assert_eq!(status.code(), Code::Unauthenticated, "{what}: {status:?}");
        assert_eq!(crate::raw::reason(&status), "AUTHN_FAILED", "{what}");
    }
}
