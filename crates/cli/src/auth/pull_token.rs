//! `capstan auth pull-token`: secrets with one role at one group, for the clients of registries.

use std::process::ExitCode;

use anyhow::ensure;
use capstan_proto::iam::v1::pull_token_service_client::PullTokenServiceClient;
use capstan_proto::iam::v1::{self as iam, Group, PullToken, Role};
use clap::ValueEnum as _;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use serde_json::json;
use tonic::Request;

use super::clients::{CLIENTS, ClientArgs, Configuration, Credential};
use crate::completion;
use crate::iam::connection::{Connection, Safety, Write, WriteArgs, present};
use crate::iam::json;
use crate::iam::kind::{self, Listed as _, Query, time};
use crate::iam::names::id_to_write;
use crate::iam::prompt::confirm;
use crate::iam::refusal::Refusal;
use crate::iam::show::{self, Done};
use crate::iam::values::ttl;
use crate::iam::verbs::ListArgs;
use crate::output::{self, Client, Output};

const EXAMPLES: &str = "\
Examples:
  capstan auth pull-token create --group acme/platform --role registry.pull --name ci --ttl 30d
  capstan auth pull-token create --group acme --role registry.pull \\
      --output docker --registry registry.example.com > config.json
  capstan auth pull-token create --group acme --role libraries.python.pull \\
      --output pip --registry packages.example.com/simple > pip.conf
  eval \"$(capstan auth pull-token create --group acme --role apk.pull --output env)\"
  capstan auth pull-token list --parent acme
  capstan auth pull-token revoke acme/0123456789abcdef --yes";

const CREATE: &str = "\
Examples:
  capstan auth pull-token create --group acme/platform --role registry.pull --name ci --ttl 30d
  capstan auth pull-token create --group acme --role registry.pull --output json
  capstan auth pull-token create --group acme --role registry.pull \\
      --output docker --registry registry.example.com > config.json
  capstan auth pull-token create --group acme --role libraries.javascript.pull \\
      --output npm --registry packages.example.com/npm > .npmrc
  capstan auth pull-token create --group acme --role libraries.java.pull \\
      --output maven --id acme-libraries > settings.xml
  capstan auth pull-token create --group acme --role apk.pull \\
      --output apk --registry apk.example.com/acme >> /etc/apk/repositories

The secret is shown once, and the server keeps only a hash of it. Before a redirection, `umask 077` keeps what is written \
from others. The user name is the id of the token.";

/// Pull tokens: a secret with one role at one group, which ends by itself
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PullTokens {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Creates a pull token, and shows its secret this once
    #[command(after_help = CREATE)]
    Create(Box<Create>),

    /// The pull tokens that the caller may see, without their secrets
    #[command(alias = "ls")]
    List(ListArgs),

    /// Revokes pull tokens: the next request with one is refused
    #[command(alias = "rm")]
    Revoke(Revoke),
}

#[derive(Debug, clap::Args)]
struct Create {
    /// The group that it is in and has its role at: a path, or name:NAME
    #[arg(long, value_name = "GROUP", add = completion::managed::group())]
    group: String,

    /// Its role, one that manages nothing: a built-in role, or the path of a custom one, or name:NAME
    #[arg(long, value_name = "ROLE", add = completion::managed::role())]
    role: String,

    /// Display name
    #[arg(long, value_name = "TEXT")]
    name: Option<String>,

    /// How long it is valid: a number with s, m, h, d or w, at most 365d
    /// [default: 30d, or as long as the caller's own right if that ends earlier]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,

    /// What is written: a text for people, JSON, lines for a shell, or the configuration of a client
    // Instead of the option of every command, which does not offer the clients. Its id and type are the same.
    #[arg(long, short, value_name = "FORMAT",
        value_parser = PossibleValuesParser::new(OUTPUTS.map(Output::word)).try_map(|word| Output::from_str(&word, false)))]
    output: Option<Output>,

    #[command(flatten)]
    client: ClientArgs,

    #[command(flatten)]
    write: WriteArgs,
}

#[derive(Debug, clap::Args)]
struct Revoke {
    /// Their ids
    #[arg(value_name = "ID", required = true, add = completion::managed::pull_token())]
    pull_token: Vec<String>,

    /// Revoke without a question
    #[arg(long, short)]
    yes: bool,

    #[command(flatten)]
    write: WriteArgs,
}

impl PullTokens {
    pub(crate) async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Create(create) => create.run(output).await,
            Command::List(list) => {
                output.of_management()?;
                let server = list.connect().await?;
                list.list::<PullToken>(&server, None, |_| true, output).await
            }
            Command::Revoke(revoke) => {
                output.of_management()?;
                revoke.run(output).await
            }
        }
    }
}

impl Create {
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        // Before anything is sent: a token whose secret nobody sees is of no use.
        let configuration = self.client.configuration(output)?;
        ensure!(
            OUTPUTS.contains(&output),
            "--output {}: it does not show the secret, which is shown only here; choose table, json, or {CLIENTS}",
            output.word()
        );
        let mut write = self.write.write()?;
        ensure!(
            !output::is_quiet() || write.validate_only,
            "--quiet: the secret is shown only here, and would be lost"
        );
        let ttl = self.ttl.as_deref().map(ttl).transpose()?;
        let server = self.write.server.connect().await?;
        let group = id_to_write::<Group>(&server, &self.group, &mut write).await?;
        let role = id_to_write::<Role>(&server, &self.role, &mut write).await?;
        if let Some(configuration) = &configuration {
            configuration.check(&group)?;
        }
        let request = iam::CreatePullTokenRequest {
            group,
            role,
            name: self.name.unwrap_or_default(),
            ttl,
            request_id: write.request_id.clone(),
            validate_only: write.validate_only,
        };
        let send = async |request: Request<_>| {
            PullTokenServiceClient::new(server.service()).create_pull_token(request).await
        };
        let made = server.call(Safety::Write(&write), request, send).await?;
        let token = present(made.pull_token.as_ref(), "pull_token")?;
        let printed = print(&made, token, (output, configuration.as_ref()), &write);
        if printed.is_err() && !write.validate_only {
            output::note(format!(
                "the pull token was created and its secret is lost: revoke it with `capstan auth pull-token revoke {}`",
                token.id
            ))?;
        }
        printed.map(|()| ExitCode::SUCCESS)
    }
}

/// The formats of `create`.
const OUTPUTS: [Output; 8] = [
    Output::Table,
    Output::Json,
    Output::Client(Client::Env),
    Output::Client(Client::Docker),
    Output::Client(Client::Pip),
    Output::Client(Client::Npm),
    Output::Client(Client::Maven),
    Output::Client(Client::Apk),
];

/// Prints a token that was made, or what would be made, to standard output, and what was done to standard error.
///
/// # Errors
///
/// The server's answer has no secret, or the output cannot be written.
fn print(
    made: &iam::CreatePullTokenResponse,
    token: &PullToken,
    (output, configuration): (Output, Option<&Configuration>),
    write: &Write,
) -> anyhow::Result<()> {
    if output == Output::Json {
        output::json(&json::of(made, "CreatePullTokenResponse")?)?;
    } else if !write.validate_only {
        let credential = Credential::new(&made.username, &made.secret)?;
        match configuration {
            Some(configuration) => output::line(configuration.text(credential))?,
            None => output::line(for_people(made, token))?,
        }
    }
    let what = format!("pull token with {} at {}:", token.role, token.scope);
    let id = if write.validate_only { "one" } else { &*token.id };
    Done { verb: "created", what: &what, id, revision: made.revision }.note(write)?;
    if let Some(configuration) = configuration.filter(|_| !write.validate_only) {
        output::note(format!(
            "it is valid until {}; its secret is shown only here: {}",
            time(token.expires_at),
            configuration.what_to_do()
        ))?;
        if configuration.is_open() {
            output::note("warning: with http:// the client sends the secret unencrypted")?;
        }
    }
    Ok(())
}

/// Lines, and no table: a table breaks a secret that is longer than the terminal is wide.
fn for_people(made: &iam::CreatePullTokenResponse, token: &PullToken) -> String {
    let iam::CreatePullTokenResponse { username, secret, .. } = made;
    let PullToken { id, name, role, scope, .. } = token;
    let name = if name.is_empty() { String::new() } else { format!("  {name}") };
    let until = time(token.expires_at);
    format!(
        "pull token   {id}{name}\n\
         may          what {role} gives at and below {scope}: capstan iam roles describe {role}\n\
         valid until  {until}\n\
         user name    {username}\n\
         secret       {secret}\n\
         \n\
         The secret is shown only here: keep it where only its user can read it. Clients take it as the password beside the \
         user name,\n\
         and {CLIENTS} of this command writes their configuration.\n\
         When it is no longer needed, or somebody else has seen it: capstan auth pull-token revoke {id}"
    )
}

impl Revoke {
    /// Revokes each token, those behind one that is refused, too.
    async fn run(self, output: Output) -> anyhow::Result<ExitCode> {
        let (mut write, server) = self.write.open().await?;
        let is_one = self.pull_token.len() == 1;
        if !is_one {
            write.ensure_first("several tokens", "one token, for each is a request of its own")?;
        }
        let mut ids = Vec::new();
        for text in &self.pull_token {
            ids.push(id_to_write::<PullToken>(&server, text, &mut write).await?);
        }
        if !self.yes && !write.validate_only {
            confirm(false, &question(&server, &ids).await?)?;
        }
        let mut failures = Vec::new();
        for id in &ids {
            let write = if is_one { write.clone() } else { self.write.write()? };
            match revoke(&server, id, &write).await {
                Ok(revision) => {
                    let done = Done { verb: "revoked", what: PullToken::WORD, id, revision };
                    show::done(done, &json!({ "revision": revision }), &write, output)?;
                }
                Err(error) => failures.push(error),
            }
        }
        // The last one ends the command, and says its exit code: an error, if there is one beside refusals.
        failures.sort_by_key(|error| !error.downcast_ref().is_some_and(Refusal::is_refused));
        let last = failures.pop();
        failures.iter().for_each(|error| output::error(output.of_errors(), error));
        last.map_or(Ok(ExitCode::SUCCESS), Err)
    }
}

/// What is asked before tokens are revoked: their ids, and what the caller may see of them.
async fn question(server: &Connection, ids: &[String]) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    for id in ids {
        let parent = id.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
        let (tokens, _) = kind::list(server, &Query { parent, ..Query::default() }).await?;
        let found = tokens.iter().find(|token: &&PullToken| token.id == *id);
        let about = found.map(|token| format!("  {} at {}", token.label(), token.scope));
        lines.push(format!("revoke pull token {id}{}", about.unwrap_or_default()));
    }
    Ok(lines)
}

async fn revoke(server: &Connection, id: &str, write: &Write) -> anyhow::Result<u64> {
    let request = iam::RevokePullTokenRequest {
        id: id.to_owned(),
        request_id: write.request_id.clone(),
        validate_only: write.validate_only,
    };
    let send = async |request: Request<_>| {
        PullTokenServiceClient::new(server.service()).revoke_pull_token(request).await
    };
    Ok(server.call(Safety::Write(write), request, send).await?.revision)
}
