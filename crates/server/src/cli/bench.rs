//! `capstan bench`: how fast is a server, and is what it answers right?

mod generate;
mod world;

use std::process::ExitCode;

use clap::Subcommand;

/// Measures a server
#[derive(Debug, clap::Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Generate(generate::Generate),
}

impl Bench {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Generate(generate) => generate.run(),
        }
    }
}
