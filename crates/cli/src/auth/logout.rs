//! `capstan auth logout`: forgets logins, and has their issuers end them.

use std::process::ExitCode;

use serde::Serialize;

use super::LoginServer;
use crate::logins::{self, Locked, ServerKey};
use crate::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  capstan auth logout
  capstan auth logout --all

The refresh token is revoked, if the issuer has a request for that. A token that was sent before counts until its end.";

/// Forgets the login for the server, and revokes it at the issuer
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LogOut {
    /// The logins for all servers
    #[arg(long, conflicts_with = "addr")]
    all: bool,

    #[command(flatten)]
    server: LoginServer,
}

/// What was done, for JSON.
#[derive(Debug, Serialize)]
struct Done {
    logged_out: Vec<One>,
}

#[derive(Debug, Serialize)]
struct One {
    server: String,
    revoked: bool,
}

impl LogOut {
    pub(super) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let mut locked = Locked::open().await?;
        let gone = if self.all {
            locked.logins.clear()
        } else {
            let server = ServerKey::of(&self.server.address()?)?;
            locked.logins.remove(&server).map(|login| (server, login)).into_iter().collect()
        };
        if !gone.is_empty() {
            // First here: an issuer that does not answer must not keep a login.
            locked.store()?;
        }
        let mut done = Done { logged_out: Vec::new() };
        for (server, login) in gone {
            let revoked = logins::revoke(&login).await.unwrap_or_else(|error| {
                let issuer = &login.client.issuer;
                // Standard error may be closed.
                let _ = output::note(format!(
                    "warning: the refresh token of {issuer} is not revoked, and is forgotten only: {error:#}"
                ));
                false
            });
            done.logged_out.push(One { server: server.as_str().to_owned(), revoked });
        }
        match format {
            Format::Json => output::json(&done)?,
            Format::Table if done.logged_out.is_empty() => output::note("there was no login")?,
            Format::Table => {
                for One { server, revoked } in done.logged_out {
                    let how = if revoked { ", and the refresh token is revoked" } else { "" };
                    output::note(format!("logged out of {server}{how}"))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
