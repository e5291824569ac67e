//! What it costs the server to know the caller of a management call: `cargo bench -p capstan-benches --bench tokens`.
//!
//! ```text
//! WhoAmI of one client ─▶ a store, by the caller header that is trusted ─▶ CPU of the server a call ┐
//!                     ├─▶ by a pull token                                                           ├ in turns
//!                     ├─▶ by one signed token, again and again                                      │
//!                     └─▶ by tokens that were never seen                                            ┘
//! ```
//!
//! Options: see [`capstan_benches::started::Options`].

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
    secret: String,
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
    run(&["init", "--data", &data, "--org", "acme", "--owner", "alice"])?;
    let served = [
        "--data",
        &data,
        "--management",
        &socket,
        "--insecure-trust-caller-header",
        "--token-audience",
        "bench",
    ];
    let server = Started::serve(&options.binary, &served.map(str::to_owned))?;
    let pair = KeyPair::generate_for(&PKCS_ED25519)?;
    let x = URL_SAFE_NO_PAD.encode(pair.der_bytes());
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
    let secret = made.get("secret").and_then(Value::as_str).context("no secret")?.to_owned();
    let ends = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs() + 3_600;
    let key = EncodingKey::from_ed_der(&pair.serialize_der());
    Ok(World { server, signer: Signer { key, next: AtomicU64::new(0), ends }, identity, secret })
}

async fn ask(
    client: &mut AuthServiceClient<Channel>,
    (name, value): (&'static str, &str),
) -> anyhow::Result<()> {
    let mut request = Request::new(WhoAmIRequest {});
    request.metadata_mut().insert(name, value.parse()?);
    client.who_am_i(request).await?;
    Ok(())
}

/// Microseconds of the server's CPU a call.
async fn turn(
    world: &World,
    options: &Options,
    credential: impl Fn() -> anyhow::Result<(&'static str, String)>,
) -> anyhow::Result<f64> {
    let endpoint = Endpoint::from_shared(format!("http://{}", world.server.grpc))?;
    // The caller header is believed under this name only.
    let client = AuthServiceClient::new(endpoint.connect().await?);
    let (before, begun) = (world.server.cpu()?, Instant::now());
    let doing = (0..options.in_flight).map(|_| {
        let (mut client, credential) = (client.clone(), &credential);
        async move {
            let mut count = 0_u32;
            while begun.elapsed() < options.time {
                let (name, value) = credential()?;
                ask(&mut client, (name, &value)).await?;
                count += 1;
            }
            anyhow::Ok(count)
        }
    });
    let count: u32 = try_join_all(doing).await?.iter().sum();
    Ok((world.server.cpu()? - before) * 1e6 / f64::from(count))
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let world = world(options, folder.path())?;
    let again = format!("Bearer {}", world.signer.token()?);
    let ways = [
        "the caller header",
        "a pull token",
        "a token that is remembered",
        "a token that was never seen",
    ];
    let mut figures = ways.map(|_| vec![]);
    for _ in 0..options.turns {
        for (way, figures) in ways.iter().zip(&mut figures) {
            let credential = || {
                Ok(match *way {
                    "the caller header" => ("x-capstan-caller", world.identity.clone()),
                    "a pull token" => ("authorization", format!("Bearer {}", world.secret)),
                    "a token that is remembered" => ("authorization", again.clone()),
                    _ => ("authorization", format!("Bearer {}", world.signer.token()?)),
                })
            };
            figures.push(turn(&world, options, credential).await?);
        }
    }
    let header = figures[0].clone();
    for (way, figures) in ways.iter().zip(&mut figures) {
        let mut ratios: Vec<_> = figures.iter().zip(&header).map(|(a, b)| a / b).collect();
        let [low, ratio, high] = quartiles(&mut ratios);
        let [_, figure, _] = quartiles(figures);
        writeln!(
            io::stdout(),
            "CPU of the server a WhoAmI by {way}, over one by the caller header: {ratio:.2} (quartiles {low:.2}, {high:.2}); {figure:.1} us, \
             {} turns of {:?}, {} at a time",
            options.turns,
            options.time,
            options.in_flight,
        )?;
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse()?;
    Builder::new_multi_thread().enable_all().build()?.block_on(run(&options))
}
