//! `capstan context`: adds, chooses, shows and removes contexts.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use serde::Serialize;

use super::file::{Contexts, Saved};
use super::{Choice, Origin, server};
use crate::completion;
use crate::output::{self, Format, Output};
use crate::tls::{self, TlsFiles};

const EXAMPLES: &str = "\
Examples:
  capstan context add prod --addr unix:/var/lib/capstan/operator.sock
  capstan context add dev --addr http://127.0.0.1:4480 --as alice
  capstan context use dev                        from now on, commands ask this server as alice
  capstan check alice repo.list acme --context prod
  CAPSTAN_CONTEXT=prod capstan iam tree acme
  capstan context show                           which server commands ask, and why

Contexts are kept in $XDG_CONFIG_HOME/capstan/contexts.toml, or in ~/.config without it. What says the server, first to \
last: --addr, --context, $CAPSTAN_ADDR, $CAPSTAN_CONTEXT, `capstan context use`, http://127.0.0.1:4480.";

/// Saved servers: which one commands ask, and as whom
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ContextCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// The saved contexts
    #[command(alias = "ls")]
    List,

    /// Chooses the context that commands use from now on
    Use {
        /// The name of a context
        #[arg(value_name = "NAME", add = completion::context())]
        saved_context: String,
    },

    /// Saves a context, or replaces the one of the same name. With --output, its commands write that format; with --ca, --cert,
    /// --key and --server-name, they ask with these files
    Add {
        /// A name: 1 to 64 of A-Z a-z 0-9 - . _
        #[arg(value_name = "NAME")]
        name: String,

        /// The address of the server: http://HOST:PORT, https://HOST:PORT or unix:PATH
        #[arg(long = "addr", id = "server", value_name = "URL")]
        addr: String,

        /// The identity that calls
        #[arg(long = "as", id = "as_identity", value_name = "IDENTITY", add = completion::managed::identity())]
        caller: Option<String>,

        /// A file with the token that proves who calls
        #[arg(long, value_name = "FILE")]
        token_file: Option<PathBuf>,
    },

    /// Removes a context
    #[command(alias = "rm")]
    Remove {
        /// The name of a context
        #[arg(value_name = "NAME", add = completion::context())]
        saved_context: String,
    },

    /// The server that commands ask, and what says so
    Show,
}

#[derive(Debug, Serialize)]
struct Listing<'c> {
    contexts: Vec<Row<'c>>,
}

#[derive(Debug, Serialize)]
struct Row<'c> {
    name: &'c str,
    current: bool,
    #[serde(flatten)]
    saved: &'c Saved,
}

/// The files as they are found from every folder.
fn absolute(files: TlsFiles) -> anyhow::Result<TlsFiles> {
    let of = |file: Option<PathBuf>| file.map(std::path::absolute).transpose();
    let TlsFiles { ca, cert, key, server_name } = files;
    Ok(TlsFiles { ca: of(ca)?, cert: of(cert)?, key: of(key)?, server_name })
}

/// What `capstan context show` prints.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<String>,
    addr: String,
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Output>,
    #[serde(skip_serializing_if = "TlsFiles::is_empty")]
    tls: TlsFiles,
    #[serde(rename = "token-file", skip_serializing_if = "Option::is_none")]
    token_file: Option<PathBuf>,
    /// What says the server.
    from: String,
}

impl ContextCommand {
    /// `output` is `--output`, if it is given.
    pub(crate) fn run(self, output: Option<Output>) -> anyhow::Result<ExitCode> {
        if let Command::Add { name, addr, caller, token_file } = self.command {
            let token_file = token_file.map(std::path::absolute).transpose()?;
            let saved = Saved { addr, caller, output, tls: absolute(tls::chosen())?, token_file };
            let replaced = Contexts::change(|contexts| contexts.add(&name, saved))?;
            let done = if replaced { "replaced" } else { "added" };
            output::note(format!("{done} context {name}; use it: capstan context use {name}"))?;
            return Ok(ExitCode::SUCCESS);
        }
        let format = output.unwrap_or(Output::Table).format()?;
        match self.command {
            Command::Add { .. } => {}
            Command::List => list(&Contexts::load()?, format)?,
            Command::Use { saved_context: name } => {
                Contexts::change(|contexts| {
                    contexts.get(&name)?;
                    contexts.current = Some(name.clone());
                    Ok(())
                })?;
                output::note(format!("commands use context {name} from now on"))?;
            }
            Command::Remove { saved_context: name } => {
                Contexts::change(|contexts| contexts.remove(&name))?;
                output::note(format!("removed context {name}"))?;
            }
            Command::Show => show(format)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn list(contexts: &Contexts, format: Format) -> anyhow::Result<()> {
    let current = contexts.current.as_deref();
    let rows = contexts.iter();
    let rows: Vec<_> =
        rows.map(|(name, saved)| Row { name, current: current == Some(name), saved }).collect();
    match format {
        Format::Json => output::json(&Listing { contexts: rows }),
        Format::Table if rows.is_empty() => {
            output::line("no contexts; add one: capstan context add NAME --addr URL")
        }
        Format::Table => {
            let mut table = output::table(["", "context", "address", "as", "output"]);
            for Row { name, current, saved } in rows {
                let format = saved.output.map_or("", Output::word);
                table.add_row([
                    if current { "*" } else { "" },
                    name,
                    &saved.addr,
                    saved.caller.as_deref().unwrap_or(""),
                    format,
                ]);
            }
            output::line(table)
        }
    }
}

fn show(format: Format) -> anyhow::Result<()> {
    let server = server(None)?;
    let (context, from) = match server.from {
        Origin::Option => bail!("--addr says the server: leave it out"),
        Origin::Variable => (None, "$CAPSTAN_ADDR"),
        Origin::Default => (None, "the default"),
        Origin::Context { name, by } => {
            let from = match by {
                Choice::Option => "--context",
                Choice::Variable => "$CAPSTAN_CONTEXT",
                Choice::Saved => "capstan context use",
            };
            (Some(name), from)
        }
    };
    let (addr, caller, output) = (server.addr, server.caller, server.output);
    let (tls, token_file) = (tls::chosen().or(server.tls), server.token_file);
    let shown = Shown { context, addr, caller, output, tls, token_file, from: from.into() };
    match format {
        Format::Json => output::json(&shown),
        Format::Table => {
            let mut table = output::table(["", "value"]);
            let context = shown.context.as_deref().unwrap_or("none");
            table.add_row(["context", context]);
            table.add_row(["address", &shown.addr]);
            table.add_row(["as", shown.caller.as_deref().unwrap_or("nobody")]);
            table.add_row(["output", shown.output.map_or("table", Output::word)]);
            for (option, value) in shown.tls.given() {
                table.add_row([option, &value]);
            }
            if let Some(file) = &shown.token_file {
                table.add_row(["token file", &file.display().to_string()]);
            }
            table.add_row(["said by", &shown.from]);
            output::line(table)
        }
    }
}
