//! `capstan auth`: credentials.

mod clients;
mod pull_token;

use std::process::ExitCode;

use crate::output::Output;

/// Credentials: pull tokens for the clients of registries
#[derive(Debug, clap::Args)]
pub(crate) struct Auth {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(alias = "pull-tokens")]
    PullToken(pull_token::PullTokens),
}

impl Auth {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::PullToken(tokens) => tokens.run(output).await,
        }
    }
}
