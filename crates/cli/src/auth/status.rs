//! `capstan auth status`: the kept logins, without their tokens.

use std::process::ExitCode;

use capstan_engine::Timestamp;
use capstan_policy::format_timestamp;
use serde::Serialize;

use super::LoginServer;
use crate::DENIED;
use crate::logins::{Login, Logins, Sends, ServerKey, now};
use crate::output::{self, Format};

const EXAMPLES: &str = "\
Examples:
  capstan auth status
  capstan auth status --addr https://capstan.example.com:4480 -q && echo logged in

Exit codes: 0 there is a login for the server, and its token counts or can be refreshed; 1 there is none; 2 error. Nobody is \
asked: an issuer may have ended a login before.";

/// Who is logged in at which server, until when, and whether that is refreshed
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Status {
    #[command(flatten)]
    server: LoginServer,
}

#[derive(Debug, Serialize)]
struct Listing<'l> {
    logins: Vec<Row<'l>>,
}

/// A login as it is shown.
#[derive(Debug, Serialize)]
pub(super) struct Row<'l> {
    server: &'l str,
    /// Whether commands ask this server.
    current: bool,
    issuer: &'l str,
    client_id: &'l str,
    subject: &'l str,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<&'l str>,
    #[serde(rename = "use")]
    sends: Sends,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    refreshable: bool,
    /// Whether the token counts, or can be refreshed.
    valid: bool,
}

impl<'l> Row<'l> {
    pub(super) fn new(server: &'l ServerKey, login: &'l Login, current: bool) -> Self {
        let refreshable = login.refresh_token.is_some();
        Self {
            server: server.as_str(),
            current,
            issuer: &login.client.issuer,
            client_id: &login.client.client_id,
            subject: &login.subject,
            email: login.email.as_deref(),
            sends: login.client.sends,
            expires_at: end(login),
            refreshable,
            valid: refreshable || login.counts_at(now()),
        }
    }
}

/// When the token of a login ends.
fn end(login: &Login) -> Option<String> {
    format_timestamp(Timestamp::new(login.expires_at?, 0))
}

/// The same for people.
pub(super) fn until(login: &Login) -> String {
    end(login).unwrap_or_else(|| "no known end".into())
}

impl Status {
    pub(super) fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        // There is no login for a unix socket.
        let server = ServerKey::of(&self.server.address()?).ok();
        let logins = Logins::load()?;
        let rows: Vec<_> = logins
            .iter()
            .map(|(key, login)| Row::new(key, login, server.as_ref() == Some(key)))
            .collect();
        let is_in = rows.iter().any(|row| row.current && row.valid);
        match format {
            Format::Json => output::json(&Listing { logins: rows }),
            Format::Table if rows.is_empty() => {
                output::line("no logins; log in: capstan auth login --issuer URL --client-id ID")
            }
            Format::Table => {
                let header = ["", "server", "subject", "e-mail", "issuer", "until", "refreshed"];
                let mut table = output::table(header);
                for (row, (_, login)) in rows.iter().zip(logins.iter()) {
                    let refreshed = match (row.refreshable, row.valid) {
                        (true, _) => "yes",
                        (false, true) => "no",
                        (false, false) => "no, and over",
                    };
                    table.add_row([
                        if row.current { "*" } else { "" },
                        row.server,
                        row.subject,
                        row.email.unwrap_or(""),
                        row.issuer,
                        &until(login),
                        refreshed,
                    ]);
                }
                output::line(table)
            }
        }?;
        Ok(if is_in { ExitCode::SUCCESS } else { ExitCode::from(DENIED) })
    }
}
