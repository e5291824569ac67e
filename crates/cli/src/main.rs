//! The `capstan` binary: parses the command line and runs the command. One file per command; see
//! `capstan --help`.

mod answers;
mod audit;
mod bench;
mod capabilities;
mod check;
mod completion;
mod decider;
mod explain;
mod figures;
mod init;
mod limits;
mod memory;
mod output;
mod policy;
mod policy_test;
mod properties;
mod queries;
mod roles;
mod routes;
mod schema;
mod search;
mod serve;
mod signals;
mod store_error;
mod top;
mod validation;

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use output::{Format, Output};

/// The exit code of a denied check.
const DENIED: u8 = 1;
/// The exit code of an error.
const FAILED: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  capstan serve --demo                                  start a server with a demo policy
  capstan init --data DIR --org acme --owner alice      make a store, for `capstan serve --data DIR`
  capstan check alice repo.list acme/platform/web       may alice do this? ask the server
  capstan capabilities alice acme/platform/web          what can alice do there?
  capstan explain bob repo.delete acme/platform/web     why may bob not? which role would allow it?
  capstan who repo.delete acme/platform/web             who can?
  capstan where alice repo.delete                       where can alice?
  capstan check alice repo.list acme --policy acme.yaml ask a policy file, without a server
  capstan capabilities alice --policy acme.yaml         everything that alice may do, scope by scope
  capstan bindings --policy acme.yaml --role owner      who is bound to this role?
  capstan groups --policy acme.yaml                     the tree of groups with the bindings
  capstan policy diff old.yaml new.yaml                 who gains or loses what?
  capstan policy validate acme.yaml                     is the document valid?
  capstan schema policy > policy.schema.json            a JSON Schema, for your editor
  capstan roles list                                    the built-in roles
  capstan bench                                         throughput and latency on this machine
  capstan top                                           rates and latencies of a running server

Exit codes: 0 allowed or done, 1 denied, 2 error.";

/// A policy decision point: may this identity do this here?
#[derive(Debug, Parser)]
#[command(name = "capstan", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    /// A table for people, or JSON with the field names of the API's messages
    #[arg(long, short, value_enum, global = true, default_value_t = Output::Table)]
    output: Output,

    /// Print no result: the exit code says it. Errors are printed
    #[arg(long, short, global = true)]
    quiet: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Init(init::Init),
    Check(check::Check),
    Capabilities(capabilities::ListCapabilities),
    Explain(explain::Explain),
    Who(search::Who),
    Where(search::Where),
    #[command(alias = "role")]
    Roles(roles::Roles),
    Bindings(audit::bindings::Bindings),
    Groups(audit::groups::Groups),
    Identities(audit::identities::Identities),
    Catalog(audit::catalog::CatalogCommand),
    Policy(policy::Documents),
    Routes(routes::Routes),
    Schema(schema::Schema),
    Bench(Box<bench::Bench>),
    Top(top::Top),
    /// Prints a script that completes commands, and the names of a policy or server, in a shell
    #[command(after_help = completion::EXAMPLES)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// The same commands under the name of chainctl
    #[command(subcommand, hide = true)]
    Iam(Iam),
}

#[derive(Debug, Subcommand)]
enum Iam {
    #[command(alias = "role")]
    Roles(roles::Roles),
}

fn main() -> ExitCode {
    // Before threads are started, and before anything is written.
    if let Some(code) = completion::answer(Cli::command) {
        return code;
    }
    let cli = Cli::parse();
    let format = cli.output.format().unwrap_or(Format::Table);
    if cli.quiet {
        output::be_quiet();
    }
    match run(cli) {
        Ok(code) => code,
        // The reader of standard output has closed it, so there is no place for a message.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(FAILED),
        Err(error) => {
            output::error(format, &error);
            ExitCode::from(FAILED)
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let format = match &cli.command {
        Command::Policy(_) => Format::Table, // It takes the output itself.
        _ => cli.output.format()?,
    };
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    threads.block_on(async move {
        match cli.command {
            Command::Serve(serve) => serve.run(format).await,
            Command::Init(init) => init.run(format),
            Command::Check(check) => check.run(format).await,
            Command::Capabilities(list) => list.run(format).await,
            Command::Roles(roles) | Command::Iam(Iam::Roles(roles)) => roles.run(format).await,
            Command::Explain(explain) => explain.run(format).await,
            Command::Who(who) => who.run(format).await,
            Command::Where(places) => places.run(format).await,
            Command::Bindings(bindings) => bindings.run(format),
            Command::Groups(groups) => groups.run(format),
            Command::Identities(identities) => identities.run(format),
            Command::Catalog(catalog) => catalog.run(format).await,
            Command::Policy(documents) => documents.run(cli.output),
            Command::Routes(routes) => routes.run(format),
            Command::Schema(schema) => schema.run(format),
            Command::Bench(bench) => bench.run(format).await,
            Command::Top(top) => top.run(format).await,
            Command::Completions { shell } => completion::print_script(shell),
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}
