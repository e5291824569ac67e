//! The command line: what was typed, and where it goes.

mod capabilities;
mod check;
mod output;
mod policy;
mod queries;
mod roles;
mod serve;
mod target;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use output::Format;

/// Exit code when a check is denied.
const DENIED: u8 = 1;
/// Exit code when a question could not be answered.
const FAILED: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  capstan serve --demo                                  a server with a policy to play with
  capstan check alice repo.list acme/platform/web       ask it
  capstan capabilities alice acme/platform/web          what can alice do there?
  capstan check alice repo.list acme --policy acme.yaml ask a file, without a server
  capstan policy validate acme.yaml                     is it right? if not, where not?
  capstan roles list                                    the built-in roles

Exit codes: 0 allowed or done, 1 denied, 2 error.";

/// A policy decision point: may this identity do this here?
#[derive(Debug, Parser)]
#[command(name = "capstan", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    /// A table for people, or JSON with the field names of the API's messages.
    #[arg(long, short, value_enum, global = true, default_value_t = Format::Table)]
    output: Format,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Check(check::Check),
    Capabilities(capabilities::ListCapabilities),
    #[command(visible_alias = "role")]
    Roles(roles::Roles),
    Policy(policy::Documents),
    /// The same commands under the name that other tools give them.
    #[command(subcommand, hide = true)]
    Iam(Iam),
}

#[derive(Debug, Subcommand)]
enum Iam {
    #[command(visible_alias = "role")]
    Roles(roles::Roles),
}

/// Runs the command that was typed.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let format = cli.output;
    match run(cli) {
        Ok(code) => code,
        // Whoever read our output has gone: nobody is left to tell.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(FAILED),
        Err(error) => {
            output::error(format, &error);
            ExitCode::from(FAILED)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let format = cli.output;
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    threads.block_on(async move {
        match cli.command {
            Command::Serve(serve) => serve.run(format).await,
            Command::Check(check) => check.run(format).await,
            Command::Capabilities(list) => list.run(format).await,
            Command::Roles(roles) | Command::Iam(Iam::Roles(roles)) => roles.run(format).await,
            Command::Policy(documents) => documents.run(format),
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
