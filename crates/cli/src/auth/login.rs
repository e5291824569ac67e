//! `capstan auth login`: a person logs in, and commands call as that person.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, ensure};

use super::LoginServer;
use super::status::{Row, until};
use crate::logins::{self, Browser, Client, Locked, Logins, Sends, ServerKey, Way};
use crate::output::{self, Format};
use crate::tls::{self, TlsFiles};

const EXAMPLES: &str = "\
Examples:
  capstan auth login --issuer https://accounts.example.com --client-id capstan
  capstan auth login --issuer https://accounts.example.com --client-id capstan --device
  capstan auth login --addr https://capstan.example.com:4480      again, as before
  capstan auth whoami

The client is registered with the issuer as a public or native one, with the redirect URI http://127.0.0.1/callback at any \
port; --device needs the device grant instead. The server believes the issuer (--trust-issuer), and the ID token is for the \
client: --token-audience CLIENT_ID.

Commands use the login for the server that it was made for, unless another credential is given (--token-file, --cert, or a \
unix socket as address). It is kept in $XDG_CONFIG_HOME/capstan/logins.toml, or in ~/.config without it.";

/// Logs in at an OpenID Connect issuer, in the browser or on another device: commands then call the server as you
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LogIn {
    /// The issuer, as its discovery document writes it [default: that of the last login for the server, with all that was given with it]
    #[arg(long, value_name = "URL", requires = "client_id")]
    issuer: Option<String>,

    /// The client as which capstan is registered with the issuer
    #[arg(long, value_name = "ID", requires = "issuer")]
    client_id: Option<String>,

    /// A file with the secret of the client, if it has one, that only its owner can read
    #[arg(long, value_name = "FILE", requires = "issuer")]
    client_secret_file: Option<PathBuf>,

    /// What is asked for: words with blanks between them
    /// [default: openid, and email and offline_access if the issuer has them]
    // Ids of their own: `scope` and `resource` name what the server has.
    #[arg(long = "scope", value_name = "SCOPE", requires = "issuer", value_delimiter = ' ')]
    asked_scope: Vec<String>,

    /// Whom access tokens are for, if the issuer makes them for somebody (RFC 8707)
    #[arg(long = "resource", value_name = "URI", requires = "issuer")]
    token_resource: Option<String>,

    /// Which of the issuer's tokens is sent
    #[arg(long = "use", value_name = "TOKEN", requires = "issuer", value_enum, default_value_t)]
    sends: Sends,

    /// Log in on another device: shows where, and a code
    #[arg(long)]
    device: bool,

    /// Do not open the browser, and only say where to go
    #[arg(long, conflicts_with = "device")]
    no_browser: bool,

    /// The port of this machine that the browser comes back to, for an issuer that knows one only [default: any]
    #[arg(
        long,
        value_name = "PORT",
        default_value_t,
        hide_default_value = true,
        conflicts_with = "device"
    )]
    redirect_port: u16,

    /// Trust these authorities (PEM) instead of those of the system, for the issuer
    // Instead of the option of every command, which is about the server. Its id and type are the same.
    #[arg(long, value_name = "FILE", requires = "issuer")]
    ca: Option<PathBuf>,

    #[command(flatten)]
    server: LoginServer,
}

impl LogIn {
    pub(super) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let address = self.server.address()?;
        let server = ServerKey::of(&address)?;
        let way = if self.device {
            Way::Device
        } else {
            Way::Browser(Browser { opens: !self.no_browser, port: self.redirect_port })
        };
        let client = self.client(&server)?;
        // What cannot be kept is not asked for.
        drop(Locked::open().await?);
        let login = logins::log_in(client, way).await?;
        let mut locked = Locked::open().await?;
        locked.logins.put(server.clone(), login.clone());
        locked.store()?;
        match format {
            Format::Json => output::json(&Row::new(&server, &login, true)),
            Format::Table => {
                let who = login.email.as_deref().unwrap_or(&login.subject);
                let how = if login.refresh_token.is_some() {
                    "refreshed by itself"
                } else {
                    "then log in again"
                };
                output::note(format!(
                    "logged in at {address} as {} of {}, until {}, {how}",
                    capstan_engine::quote(who),
                    login.client.issuer,
                    until(&login)
                ))
            }
        }?;
        Ok(ExitCode::SUCCESS)
    }

    /// The client of the options, or else that of the last login for the server.
    fn client(self, server: &ServerKey) -> anyhow::Result<Client> {
        let TlsFiles { ca, cert, key, server_name } = tls::chosen();
        ensure!(
            cert.is_none() && key.is_none() && server_name.is_none(),
            "--cert, --key and --server-name are about the server, which is not asked here"
        );
        let (Some(issuer), Some(client_id)) = (self.issuer, self.client_id) else {
            return match Logins::load()?.remove(server) {
                Some(login) => Ok(login.client),
                None => bail!(
                    "nobody has logged in at {} yet: give --issuer and --client-id",
                    server.as_str()
                ),
            };
        };
        let absolute = |file: Option<PathBuf>| file.map(std::path::absolute).transpose();
        let scope: Vec<_> = self.asked_scope.into_iter().filter(|one| !one.is_empty()).collect();
        ensure!(
            scope.is_empty() || scope.iter().any(|one| one == "openid"),
            "--scope needs openid: without it there is no ID token, which says who logs in"
        );
        let client_secret_file = absolute(self.client_secret_file)?;
        if let Some(file) = &client_secret_file {
            logins::read_secret(file)?;
        }
        let (ca, resource, sends) = (absolute(self.ca.or(ca))?, self.token_resource, self.sends);
        Ok(Client { issuer, client_id, client_secret_file, ca, scope, resource, sends })
    }
}
