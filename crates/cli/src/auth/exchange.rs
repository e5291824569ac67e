//! `capstan auth exchange`: a token for an access token of the server (RFC 8693).

use std::io::{Read as _, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::limits::LOGIN_TOKEN_BYTES_MAX;
use crate::logins::{self, Secret};
use crate::output::{self, Format};
use crate::tls::{self, TlsFiles};

const EXAMPLES: &str = "\
Examples:
  capstan auth exchange --url https://iam.example.com --token-file token > access-token
  capstan auth exchange --url https://iam.example.com --token-file token --identity acme/deploy
  capstan auth exchange --url https://iam.example.com --token-file token --identity acme/deploy \\
      --subtree acme/images --capability repo.list --capability manifest.list
  capstan auth token | capstan auth exchange --url https://iam.example.com --token-file -
  capstan auth exchange --url https://iam.example.com --token-file token \\
      --association acme/shop --service INGESTER

The URL is the server's --public-url, or the address of --http on this machine. Commands take what is printed with --token-file.

Exit codes: 0 done, 2 error; a token that proves nobody is one.";

/// Exchanges a token for an access token of the server, held to less if asked, and prints that
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Exchange {
    /// Where the server is known
    #[arg(long, value_name = "URL")]
    url: String,

    /// A file with the token; - for standard input
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,

    /// The identity that the token proves, if it is below a group
    #[arg(long = "identity", id = "whose_identity", value_name = "IDENTITY", conflicts_with_all = ["association", "service"])]
    identity: Option<String>,

    /// The group whose account association names the identity
    #[arg(long, value_name = "GROUP", requires = "service")]
    association: Option<String>,

    /// What the identity does for that group
    #[arg(long, value_name = "NAME", requires = "association")]
    service: Option<String>,

    /// Hold the access token to what is at or below this group
    #[arg(long, value_name = "GROUP")]
    subtree: Option<String>,

    /// Hold it to this capability; repeat for several
    #[arg(long = "capability", id = "held_to", value_name = "CAPABILITY")]
    capability: Vec<String>,

    /// The audience of the access token: one of the server's [default: its first]
    #[arg(long, value_name = "TEXT")]
    audience: Option<String>,

    /// Trust these authorities (PEM) instead of those of the system
    // Instead of the option of every command. Its id and type are the same.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Exchange {
    pub(super) async fn run(self, format: Format) -> anyhow::Result<ExitCode> {
        let TlsFiles { ca, cert, key, server_name } = tls::chosen();
        ensure!(
            cert.is_none() && key.is_none() && server_name.is_none(),
            "--cert, --key and --server-name are no options here: the token is the proof"
        );
        let token = token(&self.token_file)?;
        let scope = self.capability.join(" ");
        let mut asked = vec![("subject_token", token.expose())];
        for (name, value) in [
            ("identity", self.identity.as_deref()),
            ("association", self.association.as_deref()),
            ("service", self.service.as_deref()),
            ("subtree", self.subtree.as_deref()),
            ("scope", Some(&*scope).filter(|_| !self.capability.is_empty())),
            ("audience", self.audience.as_deref()),
        ] {
            asked.extend(value.map(|value| (name, value)));
        }
        let answer = logins::exchange(&self.url, self.ca.or(ca).as_deref(), &asked).await?;
        match format {
            Format::Json => output::json(&answer)?,
            Format::Table => {
                let token = answer.get("access_token").and_then(Value::as_str);
                output::line(token.context("the answer has no access token")?)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn token(file: &Path) -> anyhow::Result<Secret> {
    let (mut text, what) = (String::new(), format!("--token-file {}", file.display()));
    // A line feed may follow.
    let most = u64::try_from(LOGIN_TOKEN_BYTES_MAX)?.saturating_add(2);
    let read = if file == Path::new("-") {
        stdin().take(most).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(most).read_to_string(&mut text))
    };
    read.with_context(|| what.clone())?;
    let token = text.trim();
    let is_short = token.len() <= LOGIN_TOKEN_BYTES_MAX;
    ensure!(is_short, "{what}: longer than {LOGIN_TOKEN_BYTES_MAX} bytes");
    let is_one = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    ensure!(is_one, "{what}: expected one token");
    Ok(Secret::new(token))
}
