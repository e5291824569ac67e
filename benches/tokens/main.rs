//! What it costs the server to know who calls, and what its refusals tell: `cargo bench -p capstan-benches --bench tokens`.
//!
//! ```text
//! WhoAmI of one client ─▶ a store, by the caller header that is trusted ─▶ CPU of the server a call ┐
//!                     ├─▶ by a pull token                                                           ├ in turns
//!                     ├─▶ by one signed token, again and again                                      │
//!                     └─▶ by tokens that were never seen                                            ┘
//! Check, the same: by nobody, of a server that is open; and by tokens, of one that names its callers
//! ```
//!
//! Options: see [`capstan_benches::started::Options`].

mod refusals;

use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use capstan_benches::started::{Options, Started, quartiles};
use capstan_proto::iam::v1::WhoAmIRequest;
use capstan_proto::iam::v1::auth_service_client::AuthServiceClient;
use capstan_proto::v1::CheckRequest;
use capstan_proto::v1::decision_service_client::DecisionServiceClient;
use futures_util::future::try_join_all;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _};
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// Signs tokens of an identity with a key of its own.
struct Signer {
    key: EncodingKey,
    /// The number of the next token.
    next: AtomicU64,
    /// When tokens end.
    ends: u64,
}

impl Signer {
    fn token(&self) -> anyhow::Result<String> {
        let number = self.next.fetch_add(1, Relaxed);
        let claims =
            json!({"iss": "bench", "sub": "bot", "aud": "bench", "exp": self.ends, "jti": number});
        let [header, claims] =
            [json!({"alg": "EdDSA"}), claims].map(|part| URL_SAFE_NO_PAD.encode(part.to_string()));
        let message = format!("{header}.{claims}");
        let signature =
            jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, Algorithm::EdDSA)?;
        Ok(format!("{message}.{signature}"))
    }
}

/// A store with an identity that proves itself in each of the ways.
struct World {
    server: Started,
    signer: Signer,
    identity: String,
    /// The user of the secret, a pull token.
    puller: String,
    secret: String,
    /// The same store's kind, open to callers of this machine.
    open: Started,
}

fn world(options: &Options, folder: &Path) -> anyhow::Result<World> {
    let run = |arguments: &[&str]| -> anyhow::Result<Value> {
        let output = Command::new(&options.binary).args(arguments).args(["-o", "json"]).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {said}");
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    };
    let path = |name: &str| folder.join(name).display().to_string();
    let (data, socket) = (path("data"), format!("unix:{}", path("operator.sock")));
    let callers = path("callers.yaml");
    std::fs::write(&callers, "{version: 1, callers: []}")?;
    run(&["init", "--data", &data, "--org", "acme", "--owner", "alice"])?;
    let served = [
        "--data",
        &data,
        "--management",
        &socket,
        "--insecure-trust-caller-header",
        "--token-audience",
        "bench",
        "--callers",
        &callers,
    ];
    let server = Started::serve(&options.binary, &served.map(str::to_owned))?;
    let (signer, x) = signer()?;
    let keys = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x}]});
    std::fs::write(folder.join("keys.json"), keys.to_string())?;
    let operator = ["--addr", &socket];
    let of = |arguments: &[&str]| run(&[arguments, &operator].concat());
    let found = of(&["iam", "identities", "lookup", "--issuer", "bench", "--subject", "bot"])?;
    let identity = found.get("id").and_then(Value::as_str).context("no id")?.to_owned();
    of(&[
        "iam",
        "identities",
        "create",
        &identity,
        "--static-keys",
        &path("keys.json"),
        "--issuer",
        "bench",
        "--subject",
        "bot",
        "--ttl",
        "30d",
    ])?;
    of(&[
        "iam",
        "role-bindings",
        "create",
        "--identity",
        &identity,
        "--role",
        "viewer",
        "--group",
        "acme",
    ])?;
    let made = of(&["auth", "pull-token", "create", "--group", "acme", "--role", "registry.pull"])?;
    let text = |name| made.get(name).and_then(Value::as_str).context("no pull token");
    let (secret, puller) = (text("secret")?.to_owned(), text("username")?);
    let caller = |name, identity| json!({"name": name, "identity": identity, "methods": ["check"]});
    let named = [caller("bot", &*identity), caller("puller", puller)];
    let document = json!({"version": 1, "this_machine": "named", "callers": named});
    // As everybody replaces a file that is read.
    std::fs::write(path("callers.new"), document.to_string())?;
    std::fs::rename(path("callers.new"), &callers)?;
    let open = Started::demo(&options.binary)?;
    Ok(World { server, signer, identity, puller: puller.to_owned(), secret, open })
}

/// A new key, and its public half.
fn signer() -> anyhow::Result<(Signer, String)> {
    let pair = KeyPair::generate_for(&PKCS_ED25519)?;
    let ends = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 3_600;
    let key = EncodingKey::from_ed_der(&pair.serialize_der());
    let x = URL_SAFE_NO_PAD.encode(pair.der_bytes());
    Ok((Signer { key, next: AtomicU64::new(0), ends }, x))
}

async fn who_am_i(
    mut client: AuthServiceClient<Channel>,
    (name, value): (&'static str, String),
) -> anyhow::Result<()> {
    let mut request = Request::new(WhoAmIRequest {});
    request.metadata_mut().insert(name, value.parse()?);
    client.who_am_i(request).await?;
    Ok(())
}

async fn check(
    mut client: DecisionServiceClient<Channel>,
    identity: &str,
    credential: Option<String>,
) -> anyhow::Result<()> {
    let mut request = Request::new(CheckRequest {
        identity: identity.into(),
        capability: "groups.list".into(),
        resource: "acme".into(),
        ..CheckRequest::default()
    });
    if let Some(value) = credential {
        request.metadata_mut().insert("authorization", value.parse()?);
    }
    ensure!(client.check(request).await?.get_ref().allowed, "denied");
    Ok(())
}

/// Microseconds of the server's CPU a call.
async fn turn<C: Clone>(
    server: &Started,
    options: &Options,
    client: C,
    call: impl AsyncFn(C) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let (before, begun) = (server.cpu()?, Instant::now());
    let doing = (0..options.in_flight).map(|_| async {
        let mut count = 0_u32;
        while begun.elapsed() < options.time {
            call(client.clone()).await?;
            count += 1;
        }
        anyhow::Ok(count)
    });
    let count: u32 = try_join_all(doing).await?.iter().sum();
    Ok((server.cpu()? - before) * 1e6 / f64::from(count))
}

async fn connect(server: &Started) -> anyhow::Result<Channel> {
    // The caller header is believed under this name only.
    Ok(Endpoint::from_shared(format!("http://{}", server.grpc))?.connect().await?)
}

const WAYS: [&str; 4] =
    ["", "a pull token", "a token that is remembered", "a token that was never seen"];

/// Prints the figures of each way, over those of the first.
fn print(
    what: &str,
    first: &str,
    mut figures: [Vec<f64>; WAYS.len()],
    options: &Options,
) -> io::Result<()> {
    let base = figures[0].clone();
    for (way, figures) in WAYS.iter().zip(&mut figures) {
        let way = if way.is_empty() { first } else { way };
        let mut ratios: Vec<_> = figures.iter().zip(&base).map(|(a, b)| a / b).collect();
        let [low, ratio, high] = quartiles(&mut ratios);
        let [_, figure, _] = quartiles(figures);
        writeln!(
            io::stdout(),
            "CPU of the server a {what} by {way}, over one by {first}: {ratio:.2} (quartiles {low:.2}, {high:.2}); {figure:.1} us, \
             {} turns of {:?}, {} at a time",
            options.turns,
            options.time,
            options.in_flight,
        )?;
    }
    Ok(())
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let world = world(options, folder.path())?;
    let bearer = |text: &str| format!("Bearer {text}");
    let again = bearer(&world.signer.token()?);
    let shown = |way: &str| {
        Ok::<_, anyhow::Error>(match way {
            "a pull token" => bearer(&world.secret),
            "a token that is remembered" => again.clone(),
            _ => bearer(&world.signer.token()?),
        })
    };
    let channel = connect(&world.server).await?;
    let (auth, named) =
        (AuthServiceClient::new(channel.clone()), DecisionServiceClient::new(channel));
    let open = DecisionServiceClient::new(connect(&world.open).await?);
    // Until the callers are loaded.
    while check(named.clone(), &world.identity, Some(again.clone())).await.is_err() {}
    let mut calls = WAYS.map(|_| vec![]);
    let mut checks = WAYS.map(|_| vec![]);
    for _ in 0..options.turns {
        for ((way, calls), checks) in WAYS.iter().zip(&mut calls).zip(&mut checks) {
            let credential = || match *way {
                "" => Ok(("x-capstan-caller", world.identity.clone())),
                way => Ok::<_, anyhow::Error>(("authorization", shown(way)?)),
            };
            let call = async |client| who_am_i(client, credential()?).await;
            calls.push(turn(&world.server, options, auth.clone(), call).await?);
            checks.push(if way.is_empty() {
                let call = async |client| check(client, "alice", None).await;
                turn(&world.open, options, open.clone(), call).await?
            } else {
                let call = async |client| check(client, &world.identity, Some(shown(way)?)).await;
                turn(&world.server, options, named.clone(), call).await?
            });
        }
    }
    print("WhoAmI", "the caller header", calls, options)?;
    print("Check", "nobody where everybody may ask", checks, options)?;
    refusals::run(&world, connect(&world.server).await?, options.time).await
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse()?;
    Builder::new_multi_thread().enable_all().build()?.block_on(run(&options))
}
