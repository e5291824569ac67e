//! Tokens of an issuer that others have written: npm's oidc-provider.
//!
//! `dev/test --without receivers` leaves it out by the name of this module.

mod browser;
mod login;

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use capstan_server::limits::KEYS_PAUSE;
use capstan_testkit::https::Authority;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tonic::Status;

use super::{AUDIENCE, Caller, World, encode};
use crate::common::{PATIENCE, stderr, stdout};

/// The process. Dropped, it ends.
struct Issuer {
    process: Child,
    asks: ChildStdin,
    says: Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Issuer {
    /// With the files of a folder, on a port; 0 for any.
    fn start(folder: &Path, port: u16) -> Self {
        let file = |name: &str| folder.join(name);
        let mut process = node("issuer.mjs")
            .arg(port.to_string())
            .args([file("issuer.pem"), file("issuer.key"), file("issuer.jwks")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut says = BufReader::new(process.stdout.take().unwrap()).lines();
        let url = said(&mut says, "issuer ");
        Self { asks: process.stdin.take().unwrap(), says, url, process }
    }

    /// An access token of a client.
    fn token(&mut self, client: &str, algorithm: &str, audience: &str) -> String {
        writeln!(self.asks, "{client} {algorithm} {audience}").unwrap();
        said(&mut self.says, "token ")
    }

    /// How often its keys were read.
    fn reads(&mut self) -> u64 {
        writeln!(self.asks, "reads").unwrap();
        said(&mut self.says, "reads ").parse().unwrap()
    }

    fn port(&self) -> u16 {
        self.url.rsplit_once(':').unwrap().1.parse().unwrap()
    }
}

/// A script of Node, with the folder of its packages as its first argument.
fn node(script: &str) -> Command {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let (node, modules) =
        (workspace.join("target/webhook/node/node"), workspace.join("target/issuer"));
    assert!(node.exists() && modules.exists(), "dev/test installs {}", modules.display());
    let mut command = Command::new(node);
    command.arg(workspace.join("crates/cli/tests/node/issuer").join(script));
    command.arg(modules.canonicalize().unwrap());
    command
}

/// A client that others have written exchanges a token, narrowed, and reads the answer as the standard has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_real_client_exchanges_a_token() {
    let world = World::start().await;
    let token = world.ci.sign(&world.of_ci());
    let endpoint = format!("http://{}/oauth2/token", world.server.address("http"));
    let run = |identity: &str| {
        let asked = [identity, "scope=repo.list groups.list", "subtree=acme"];
        node("exchange.mjs").args([&endpoint, &token]).args(asked).output().unwrap()
    };
    let done = run("identity=acme/ci");
    assert!(done.status.success(), "{}", stderr(&done));
    let answer: Value = serde_json::from_str(&stdout(&done)).unwrap();
    assert_eq!(
        (&answer["token_type"], &answer["scope"]),
        (&json!("bearer"), &json!("groups.list repo.list"))
    );
    let access = answer["access_token"].as_str().unwrap();
    assert_eq!(world.caller().await.by(access, None).await.unwrap(), "acme/ci");
    let refused = run("identity=acme/bot");
    let said = stderr(&refused);
    assert!(!refused.status.success() && said.contains("invalid_request"), "{said}");
}

/// What follows this word in the next line that begins with it.
fn said(lines: &mut Lines<BufReader<ChildStdout>>, word: &str) -> String {
    let mut lines = lines.map(|line| line.unwrap());
    lines.find_map(|line| line.strip_prefix(word).map(str::to_owned)).unwrap()
}

impl Drop for Issuer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A world with an issuer beside its own: `acme/builder` is a client of it, and its groups have roles in `acme`.
async fn start() -> (World, Issuer) {
    let authority = Authority::generate();
    let world = World::start_of(&authority, &[]).await;
    let folder = world.folder.path();
    let (certificate, key) = authority.certificate(&["127.0.0.1"], false);
    std::fs::write(folder.join("issuer.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.join("issuer.key"), key.serialize_pem()).unwrap();
    let issuer = Issuer::start(folder, 0);
    world.operate(&[
        "identity-providers",
        "create",
        "acme/real",
        "--issuer",
        &issuer.url,
        "--groups-claim",
        "groups",
    ]);
    world.operate(&[
        "group-role-mappings",
        "create",
        "--provider",
        "acme/real",
        "--external-group",
        "devs",
        "--role",
        "viewer",
        "--scope",
        "acme",
    ]);
    let claims = format!("issuer={},subject=builder", issuer.url);
    world.operate(&[
        "identities",
        "create",
        "acme/builder",
        "--type",
        "service",
        "--claim-match",
        &claims,
    ]);
    (world, issuer)
}

/// Every algorithm that it signs with, its groups, an outage, and other keys after it.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_a_real_issuer_count() {
    let (world, mut issuer) = start().await;
    let (caller, folder) = (world.caller().await, world.folder.path());
    let named = Some("acme/builder");
    let first = Instant::now();
    for algorithm in ["RS256", "PS256", "ES256", "Ed25519", "EdDSA"] {
        let token = issuer.token("builder", algorithm, AUDIENCE);
        let found = caller.by(&token, named).await;
        assert_eq!(found.expect(algorithm), "acme/builder");
        let bearer = format!("Bearer {token}");
        let metadata = [("authorization", &*bearer), ("x-capstan-caller", "acme/builder")];
        let found = caller.who(&metadata).await.unwrap();
        assert_eq!(found.scopes[0].scope, "acme", "{algorithm}: the role of its group");
        let access = world.access_token(&token, &[("identity", "acme/builder")]);
        let bearer = format!("Bearer {access}");
        let found = caller.who(&[("authorization", &bearer)]).await.unwrap();
        assert_eq!((&*found.identity, &*found.authentication), ("acme/builder", "access-token"));
        assert_eq!(found.scopes[0].scope, "acme", "{algorithm}: the same role, in exchange");
    }
    Caller::assert_refused(
        caller.by(&issuer.token("ann", "ES256", AUDIENCE), named).await,
        "another client",
    );
    let elsewhere = issuer.token("builder", "ES256", "https://other.example");
    Caller::assert_refused(caller.by(&elsewhere, named).await, "another audience");

    // It is away: what it has signed counts on.
    let access = [("identity", "acme/builder")];
    let access = world.access_token(&issuer.token("builder", "RS256", AUDIENCE), &access);
    let (before, late) =
        (issuer.token("builder", "RS256", AUDIENCE), issuer.token("builder", "ES256", AUDIENCE));
    let port = issuer.port();
    drop(issuer);
    assert_eq!(caller.by(&before, named).await.unwrap(), "acme/builder");
    // It is back with other keys. A token of them is found once the issuer may be asked again, and then none of the old keys.
    std::fs::remove_file(folder.join("issuer.jwks")).unwrap();
    let mut issuer = Issuer::start(folder, port);
    let new = issuer.token("builder", "Ed25519", AUDIENCE);
    while caller.by(&new, named).await.is_err() {
        assert!(first.elapsed() < KEYS_PAUSE + PATIENCE, "the new key is never found");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for old in [&before, &late, &access] {
        Caller::assert_refused(caller.by(old, named).await, "a key that is gone");
    }
}

/// Its RSA key is for any algorithm of RSA, as far as it says. A provider takes the one that it names, with the keys that the issuer
/// publishes, and with the same keys given.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_takes_one_algorithm_of_a_real_key() {
    let (world, mut issuer) = start().await;
    let (caller, named) = (world.caller().await, Some("acme/builder"));
    let given = world.folder.path().join("given.jwks");
    let keys = std::fs::read(world.folder.path().join("issuer.jwks")).unwrap();
    let mut keys: Value = serde_json::from_slice(&keys).unwrap();
    for key in keys["keys"].as_array_mut().unwrap() {
        assert!(key.get("alg").is_none());
        let members = key.as_object_mut().unwrap();
        members.retain(|name, _| !capstan_iam::SECRET_MEMBERS.contains(&&**name));
    }
    std::fs::write(&given, keys.to_string()).unwrap();
    let given = given.display().to_string();
    let update = ["identity-providers", "update", "acme/real"];
    let mut tokens = vec![];
    for algorithm in ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"] {
        let token = issuer.token("builder", algorithm, AUDIENCE);
        let access = world.access_token(&token, &[("identity", "acme/builder")]);
        tokens.push((algorithm, token, access));
    }
    for keys in [&["--no-jwks"][..], &["--jwks", &given]] {
        for (list, taken) in [
            (&["RS256"][..], &["RS256"][..]),
            (&["PS256"], &["PS256"]),
            (&["RS256", "PS256"], &["RS256", "PS256"]),
            (&["Ed25519", "ES256"], &["Ed25519", "EdDSA", "ES256"]),
            (&["RS512"], &[]),
        ] {
            let list: Vec<_> = list.iter().flat_map(|one| ["--algorithm", one]).collect();
            world.operate(&[&update[..], keys, &list].concat());
            for (algorithm, token, access) in &tokens {
                let new = issuer.token("builder", algorithm, AUDIENCE);
                for token in [token, access, &new] {
                    let found = caller.by(token, named).await;
                    let what = format!("{keys:?} {list:?}: {algorithm}");
                    if taken.contains(algorithm) {
                        assert_eq!(found.expect(&what), "acme/builder");
                    } else {
                        Caller::assert_refused(found, &what);
                    }
                }
            }
        }
    }
    // Without a list a given key that says nothing is for the usual algorithm of its type: what was signed otherwise is over.
    world.operate(&[&update[..], &["--algorithm", "PS256"]].concat());
    let (_, ps, access) = &tokens[1];
    assert!(caller.by(ps, named).await.is_ok() && caller.by(access, named).await.is_ok());
    world.operate(&[&update[..], &["--no-algorithms"]].concat());
    for token in [ps, access] {
        Caller::assert_refused(caller.by(token, named).await, "PS256 without a list");
    }
    assert_eq!(caller.by(&tokens[0].1, named).await.unwrap(), "acme/builder");
}

/// A4: 1,000 tokens a second name keys that nobody has. The issuer is asked twice a minute, and tokens that are known go on to count.
///
/// The default run takes some seconds, in which the keys are read once. `CAPSTAN_STORM_SECONDS=70` has it last so long, and the rate must be met:
///
/// ```text
/// CAPSTAN_STORM_SECONDS=70 cargo test --release -p capstan --test it tokens::real::a_storm -- --nocapture
/// ```
#[expect(clippy::print_stdout, reason = "a long run prints figures")]
#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_unknown_keys_reaches_the_issuer_twice_a_minute() {
    const A_SECOND: u32 = 1_000;
    const IN_FLIGHT_MAX: usize = 200;
    let long = std::env::var("CAPSTAN_STORM_SECONDS").ok();
    let time = long.as_ref().map_or(4, |seconds| seconds.parse().expect("a number"));
    let time = Duration::from_secs(time);
    let (world, mut issuer) = start().await;
    let caller = world.caller().await;
    let named = Some("acme/builder");
    let token = issuer.token("builder", "ES256", AUDIENCE);
    // They were read when the provider was saved.
    let saved = issuer.reads();
    let began = Instant::now();
    assert_eq!(caller.by(&token, named).await.unwrap(), "acme/builder");
    // The same token under other names of keys: its signature is never looked at.
    let (_, rest) = token.split_once('.').unwrap();
    let unknown = |at: u32| {
        let header = json!({"alg": "ES256", "typ": "JWT", "kid": format!("unknown-{at}")});
        format!("{}.{rest}", encode(&header.to_string()))
    };
    let (mut calls, mut refused, mut known) = (JoinSet::new(), 0, 0_u32);
    let is_refused =
        |found: Result<_, Status>| Caller::assert_refused(found, "a key that nobody has");
    for at in 0.. {
        let due = began + Duration::from_secs(1) * at / A_SECOND;
        if due > began + time {
            break;
        }
        if at % 10 == 0 {
            tokio::time::sleep_until(due.into()).await;
            assert_eq!(caller.by(&token, named).await.expect("known"), "acme/builder");
            known += 1;
        }
        // More at a time would be shed.
        while calls.len() >= IN_FLIGHT_MAX {
            is_refused(calls.join_next().await.unwrap().unwrap());
            refused += 1;
        }
        let (caller, token) = (caller.clone(), unknown(at));
        calls.spawn(async move { caller.by(&token, named).await });
    }
    let rest = calls.join_all().await;
    refused += rest.len();
    rest.into_iter().for_each(is_refused);
    let elapsed = began.elapsed();
    let (reads, most) = (issuer.reads() - saved, 1 + elapsed.as_secs() / KEYS_PAUSE.as_secs());
    assert!((1..=most).contains(&reads), "{reads} readings in {elapsed:?}, at most {most}");
    println!(
        "{refused} tokens with unknown keys in {elapsed:.1?}, {known} calls with a known token: {reads} readings"
    );
    assert!(long.is_none() || elapsed < time + time / 10, "fewer than {A_SECOND} a second");
}
