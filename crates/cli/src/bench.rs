//! `capstan bench`: how fast is a server, and is what it answers right?

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
  capstan bench                                           starts a server with workload W, and asks it
  capstan bench --rate 20000 --plot latency.svg           at a fixed rate: what do users wait?
  capstan bench --mode stream --batch 64 --transport unix
  capstan bench --mode coalesced --connections 1 --in-flight 2000     through the Rust client
  capstan bench --policy acme.yaml --queries mine.ndjson --verify
  capstan bench --addr http://127.0.0.1:4480 --policy acme.yaml
  capstan bench --against do-nothing                      what is Capstan's, and what is the transport's?
  capstan bench generate big-W > big.json                 the workloads as documents

With --rate, a request's latency counts from when it was meant to be sent, so that a server that stalls
cannot hide it. Without, each place in flight asks again as soon as it is answered.

Exit codes: 0 measured, 2 error, or nothing was answered, or some answer was malformed or wrong.";

/// Measures a server: how fast, and whether it is right
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
    /// Serves the yardstick: the same services, answering without looking
    #[command(hide = true)]
    DoNothing {
        /// IP:PORT or unix:PATH
        #[arg(long, value_name = "ADDRESS")]
        listen: Address,

        /// Which threads serve
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
