//! What TLS costs the server a check: `cargo bench -p capstan-benches --bench tls`.
//!
//! ```text
//! checks of one client ─▶ the demo, in plain text          ─▶ CPU of the server a check ┐
//!                     ├─▶ the demo with TLS                                             ├ in turns
//!                     └─▶ the demo with TLS, and a certificate of the client            ┘
//! connections of one client ─▶ the same three              ─▶ CPU of the server a connection with one check
//! ```
//!
//! Options: see [`capstan_benches::started::Options`].

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Instant;

use capstan_benches::started::{Options, Started, quartiles};
use capstan_proto::v1::CheckRequest;
use capstan_proto::v1::decision_service_client::DecisionServiceClient;
use capstan_testkit::https::Authority;
use futures_util::future::try_join_all;
use tokio::runtime::Builder;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// A server, and how it is connected to.
struct Target {
    name: &'static str,
    server: Started,
    endpoint: Endpoint,
}

fn targets(options: &Options, folder: &Path) -> anyhow::Result<[Target; 3]> {
    let authority = Authority::generate();
    let (certificate, key) = authority.certificate(&["localhost", "127.0.0.1"], false);
    let (of_client, key_of_client) = authority.workload(&["spiffe://acme.example/ci"]);
    let file = |name: &str, text: String| -> anyhow::Result<String> {
        let path = folder.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path.display().to_string())
    };
    let certificate = file("tls.crt", certificate.pem())?;
    let key = file("tls.key", key.serialize_pem())?;
    let clients = file("ca.crt", authority.pem())?;
    let tls = vec!["--tls-cert".into(), certificate, "--tls-key".into(), key];
    let mutual = [tls.clone(), vec!["--client-ca".into(), clients]].concat();
    let trusting = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem()));
    let own = Identity::from_pem(of_client.pem(), key_of_client.serialize_pem());
    let target = |name, options_of: &[String], tls: Option<ClientTlsConfig>| {
        let server = Started::demo_with(&options.binary, options_of)?;
        let endpoint = match tls {
            None => Endpoint::from_shared(format!("http://{}", server.grpc))?,
            Some(tls) => {
                Endpoint::from_shared(format!("https://{}", server.grpc))?.tls_config(tls)?
            }
        };
        anyhow::Ok(Target { name, server, endpoint })
    };
    Ok([
        target("plain text", &[], None)?,
        target("TLS", &tls, Some(trusting.clone()))?,
        target("TLS, and a certificate of the client", &mutual, Some(trusting.identity(own)))?,
    ])
}

async fn check(client: &mut DecisionServiceClient<Channel>) -> anyhow::Result<()> {
    let request = CheckRequest {
        identity: "alice".into(),
        capability: "repo.list".into(),
        resource: "acme/platform/images/nginx".into(),
        ..CheckRequest::default()
    };
    anyhow::ensure!(client.check(request).await?.into_inner().allowed);
    Ok(())
}

/// Microseconds of the server's CPU for each of what is done again and again, so many times at once.
async fn turn(
    target: &Target,
    options: &Options,
    again: impl AsyncFn(&mut DecisionServiceClient<Channel>) -> anyhow::Result<()>,
) -> anyhow::Result<f64> {
    let mut client = DecisionServiceClient::new(target.endpoint.connect().await?);
    check(&mut client).await?;
    let (before, begun) = (target.server.cpu()?, Instant::now());
    let doing = (0..options.in_flight).map(|_| {
        let (mut client, again) = (client.clone(), &again);
        async move {
            let mut count = 0_u32;
            while begun.elapsed() < options.time {
                again(&mut client).await?;
                count += 1;
            }
            anyhow::Ok(count)
        }
    });
    let count: u32 = try_join_all(doing).await?.iter().sum();
    Ok((target.server.cpu()? - before) * 1e6 / f64::from(count))
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let targets = targets(options, folder.path())?;
    for what in ["check", "connection with one check"] {
        let mut figures = [vec![], vec![], vec![]];
        for _ in 0..options.turns {
            for (target, figures) in targets.iter().zip(&mut figures) {
                let figure = if what == "check" {
                    turn(target, options, async |client| check(client).await).await?
                } else {
                    let new = async |_: &mut DecisionServiceClient<Channel>| {
                        let channel = target.endpoint.connect().await?;
                        check(&mut DecisionServiceClient::new(channel)).await
                    };
                    turn(target, options, new).await?
                };
                figures.push(figure);
            }
        }
        let plain = figures[0].clone();
        for (target, figures) in targets.iter().zip(&mut figures) {
            let mut ratios: Vec<_> = figures.iter().zip(&plain).map(|(a, b)| a / b).collect();
            let [low, ratio, high] = quartiles(&mut ratios);
            let [_, figure, _] = quartiles(figures);
            writeln!(
                io::stdout(),
                "CPU of the server a {what}, {} over plain text: {ratio:.2} (quartiles {low:.2}, {high:.2}); {figure:.1} us, {} turns of \
                 {:?}, {} at a time",
                target.name,
                options.turns,
                options.time,
                options.in_flight,
            )?;
        }
    }
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse()?;
    Builder::new_multi_thread().enable_all().build()?.block_on(run(&options))
}
