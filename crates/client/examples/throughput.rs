//! Checks a second through the client against a running server:
//!
//! ```text
//! cargo run --release -- serve --demo
//! cargo run --release -p capstan-client --example throughput -- [ADDRESS [TASKS [SECONDS [CONNECTIONS]]]]
//! ```
//!
//! Each task asks one question after another, as a service's requests would. Server and client share
//! the machine, so the figure is for both.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "an example: it prints, and owns its runtime"
)]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use capstan_client::{Check, Client, Options};

/// Questions about the demo's policy; half are allowed.
const QUESTIONS: [(&str, &str, &str); 4] = [
    ("bob", "repo.list", "acme/platform/images/nginx"),
    ("bob", "repo.delete", "acme/platform/images/nginx"),
    ("acme/platform/ci", "apk.list", "acme/platform/packages/openssl"),
    ("acme/research/libraries/python", "repo.create", "acme/research/libraries/requests"),
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "http://127.0.0.1:4480".into());
    let mut number = |default| arguments.next().map_or(Ok(default), |text| text.parse::<u64>());
    let (tasks, seconds, connections) = (number(2_000)?, number(5)?, number(1)?);

    let connections = usize::try_from(connections)?;
    let timeout = Duration::from_secs(30); // a busy machine must not end the measurement
    let options = Options { connections, timeout, ..Options::default() };
    let client = Client::connect_with(&address, options)?;
    let (identity, capability, resource) = QUESTIONS[0];
    let first = client.check(Check::new(identity, capability, resource)).await?;
    println!("revision {}", first.revision);

    let stop = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let (client, stop) = (client.clone(), Arc::clone(&stop));
            let answered = Arc::clone(&answered);
            tokio::spawn(async move {
                let mut asked = 0_u64;
                let mut questions = QUESTIONS.iter().cycle().skip((task % 4) as usize);
                while !stop.load(Ordering::Relaxed) {
                    let Some((identity, capability, resource)) = questions.next() else { break };
                    let decision = client.check(Check::new(identity, capability, resource)).await?;
                    std::hint::black_box(decision.allowed);
                    asked += 1;
                }
                answered.fetch_add(asked, Ordering::Relaxed);
                Ok::<(), capstan_client::Error>(())
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    for task in running {
        task.await??;
    }
    let (answered, took) = (answered.load(Ordering::Relaxed), began.elapsed());
    println!("{tasks} tasks: {:.0} checks/s", answered as f64 / took.as_secs_f64());
    client.shutdown().await;
    Ok(())
}
