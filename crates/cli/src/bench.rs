//! `capstan bench`: load tests of a server, with verified decisions.

mod generate;
mod run;
mod show;
mod world;

use std::process::ExitCode;

use clap::Subcommand;

use super::output::{self, Format};
use capstan_bench::do_nothing;
use capstan_server::server::Address;

const EXAMPLES: &str = "\
Examples:
  capstan bench                                           starts a server with workload W
  capstan bench --rate 20000 --plot latency.svg           latencies at a fixed rate
  capstan bench --mode stream --batch 64 --transport unix
  capstan bench --mode coalesced --connections 1 --in-flight 2000     through the Rust client
  capstan bench --policy acme.yaml --queries mine.ndjson --verify
  capstan bench --addr http://127.0.0.1:4480 --policy acme.yaml
  capstan bench --addr https://pdp-1:4480 --ca ca.pem --policy acme.yaml
  capstan bench --against do-nothing                      Capstan's cost without the transport's
  capstan bench generate big-W > big.json                 a workload as a policy document

With --rate (open loop), a request's latency counts from its scheduled time, so that a stall of the server \
shows in full (no coordinated omission). Without it (closed loop), each slot in flight sends its next \
request when the last one is answered.

Exit codes: 0 measured; 2 error, no answer at all, or a malformed or wrong answer.";

/// Measures the throughput and latency of a server, and verifies its decisions
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Bench {
    #[command(subcommand)]
    command: Option<Command>,

    #[command(flatten)]
    run: run::Run,
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(generate::Generate),
    /// Serves the yardstick: the same services, with handlers that allow everything
    #[command(hide = true)]
    DoNothing {
        /// IP:PORT or unix:PATH
        #[arg(long, value_name = "ADDRESS")]
        listen: Address,

        /// The threads that serve
        #[arg(long, value_enum, default_value_t = do_nothing::Runtime::PerCore)]
        runtime: do_nothing::Runtime,
    },
}

impl Bench {
    pub(crate) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        match self.command {
            None => self.run.run(format).await,
            Some(Command::Generate(generate)) => generate.run(),
            Some(Command::DoNothing { listen, runtime }) => {
                let ready = |address: &Address| output::line(format!("grpc {address}"));
                do_nothing::serve(&listen, runtime, ready).await?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
