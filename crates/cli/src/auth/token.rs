//! `capstan auth token`: the token of a login, for other programs.

use std::process::ExitCode;

use anyhow::bail;

use super::LoginServer;
use crate::logins::{self, Refresh};
use crate::output;

const EXAMPLES: &str = "\
Examples:
  curl -H \"Authorization: Bearer $(capstan auth token)\" https://pdp.example.com/access/v1/evaluation
  (umask 077; capstan auth token > token)

With --output json it is the same text: other programs get nothing but the token.";

/// Prints the token of the login for the server, refreshed if it is over, and nothing else
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Token {
    #[command(flatten)]
    server: LoginServer,
}

impl Token {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let address = self.server.address()?;
        match logins::current(&address, Refresh::Yes).await? {
            Some(login) => output::line(login.token.expose())?,
            None => bail!("there is no login for {address}: capstan auth login --addr {address}"),
        }
        Ok(ExitCode::SUCCESS)
    }
}
