//! What the layer costs a protected service: `cargo bench -p capstan-benches --bench layer`.
//!
//! ```text
//! calls of one client ─▶ the stock of examples/services, bare ─▶ CPU of this process a call ┐ in turns
//!                    └─▶ the same behind the layer ─▶ Capstan, a process of its own         ┘
//! ```
//!
//! The CPU of the caller is in both. Options: see [`capstan_benches::started::Options`].

use std::io::{self, Write as _};
use std::time::Instant;

use capstan_benches::started::{Options, Started, cpu, quartiles};
use capstan_client::Client;
use capstan_example_services::shop::CountRequest;
use capstan_example_services::shop::stock_client::StockClient;
use capstan_example_services::{serve_bare_stock, serve_stock};
use futures_util::future::try_join_all;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle};
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

async fn listen() -> anyhow::Result<(TcpListener, Channel)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = Endpoint::from_shared(format!("http://{}", listener.local_addr()?))?;
    Ok((listener, endpoint.connect_lazy()))
}

async fn count(client: &mut StockClient<Channel>) -> anyhow::Result<()> {
    let mut request = Request::new(CountRequest { repo: "acme/platform/nginx".into() });
    request.metadata_mut().insert("x-identity", "bob".parse()?);
    client.count(request).await?;
    Ok(())
}

/// Microseconds of this process's CPU a call.
async fn turn(channel: &Channel, options: &Options) -> anyhow::Result<f64> {
    let (before, begun) = (cpu("self")?, Instant::now());
    let calling = (0..options.in_flight).map(|_| {
        let mut client = StockClient::new(channel.clone());
        async move {
            let mut calls = 0_u32;
            while begun.elapsed() < options.time {
                count(&mut client).await?;
                calls += 1;
            }
            anyhow::Ok(calls)
        }
    });
    let calls: u32 = try_join_all(calling).await?.iter().sum();
    Ok((cpu("self")? - before) * 1e6 / f64::from(calls))
}

async fn run(options: &Options) -> anyhow::Result<()> {
    let capstan = Started::demo(&options.binary)?;
    let client = Client::connect(&format!("http://{}", capstan.grpc))?;
    let (at, bare) = listen().await?;
    Handle::current().spawn(serve_bare_stock(at));
    let (at, protected) = listen().await?;
    Handle::current().spawn(serve_stock(at, client));
    for channel in [&bare, &protected] {
        count(&mut StockClient::new(channel.clone())).await?;
    }
    let (mut of_bare, mut of_protected, mut ratios, mut of_capstan) =
        (vec![], vec![], vec![], vec![]);
    for _ in 0..options.turns {
        let without = turn(&bare, options).await?;
        let before = capstan.cpu()?;
        let with = turn(&protected, options).await?;
        of_capstan.push((capstan.cpu()? - before) / options.time.as_secs_f64());
        of_bare.push(without);
        of_protected.push(with);
        ratios.push(with / without);
    }
    let [low, ratio, high] = quartiles(&mut ratios);
    let [[_, bare, _], [_, protected, _]] = [quartiles(&mut of_bare), quartiles(&mut of_protected)];
    let [_, cores, _] = quartiles(&mut of_capstan);
    writeln!(
        io::stdout(),
        "behind the layer over bare, CPU of caller and service a call: {ratio:.2} (quartiles {low:.2}, {high:.2}); {protected:.1} and \
         {bare:.1} us, and {cores:.2} cores of Capstan, {} turns of {:?}, {} calls at a time",
        options.turns,
        options.time,
        options.in_flight,
    )?;
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse()?;
    Builder::new_multi_thread().enable_all().build()?.block_on(run(&options))
}
