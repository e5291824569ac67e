//! `capstan auth`: credentials, and who calls.

mod clients;
mod pull_token;
mod whoami;

use std::process::ExitCode;

use crate::output::Output;

/// Credentials: pull tokens for the clients of registries, and who the server says that you are
#[derive(Debug, clap::Args)]
pub(crate) struct Auth {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(alias = "pull-tokens")]
    PullToken(pull_token::PullTokens),
    #[command(name = "whoami")]
    WhoAmI(whoami::WhoAmI),
}

impl Auth {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::PullToken(tokens) => tokens.run(output).await,
            Command::WhoAmI(who) => who.run(output).await,
        }
    }
}
