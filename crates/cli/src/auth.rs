//! `capstan auth`: credentials, and who calls.

mod clients;
mod exchange;
mod login;
mod logout;
mod pull_token;
mod status;
mod token;
mod whoami;

use std::process::ExitCode;

use capstan_client::ServerAddress;

use crate::context;
use crate::output::Output;

/// Credentials: logins of people, pull tokens for the clients of registries, and who the server says that you are
#[derive(Debug, clap::Args)]
pub(crate) struct Auth {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Login(Box<login::LogIn>),
    Status(status::Status),
    Token(token::Token),
    Exchange(Box<exchange::Exchange>),
    Logout(logout::LogOut),
    #[command(alias = "pull-tokens")]
    PullToken(pull_token::PullTokens),
    #[command(name = "whoami")]
    WhoAmI(whoami::WhoAmI),
}

/// The option that says which server a login is for.
#[derive(Clone, Debug, Default, clap::Args)]
struct LoginServer {
    /// The server that the login is for: http://HOST:PORT or https://HOST:PORT
    /// [default: that of --context, $CAPSTAN_ADDR, that of `capstan context use`, or http://127.0.0.1:4480]
    #[arg(long, value_name = "URL")]
    addr: Option<String>,
}

impl LoginServer {
    /// # Errors
    ///
    /// No address of a server.
    fn address(&self) -> anyhow::Result<ServerAddress> {
        Ok(context::server(self.addr.as_deref())?.addr.parse()?)
    }
}

impl Auth {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Login(login) => login.run(output.format()?).await,
            Command::Status(status) => status.run(output.format()?),
            Command::Token(token) => {
                output.format()?;
                token.run().await
            }
            Command::Exchange(exchange) => exchange.run(output.format()?).await,
            Command::Logout(logout) => logout.run(output.format()?).await,
            Command::PullToken(tokens) => tokens.run(output).await,
            Command::WhoAmI(who) => who.run(output).await,
        }
    }
}
