//! The `capstan` binary: parses the command line and runs the command. One file per command; see
//! `capstan --help`.

mod answers;
mod audit;
mod audit_log;
mod auth;
mod backup;
mod bench;
mod capabilities;
mod channel;
mod check;
mod completion;
mod config;
mod context;
mod decider;
mod events;
mod explain;
mod figures;
mod http1;
mod iam;
mod init;
mod keys;
mod limits;
mod logins;
mod machine;
mod memory;
mod new_file;
mod output;
mod policy;
mod policy_test;
mod properties;
mod queries;
mod restore;
mod roles;
mod routes;
mod schema;
mod search;
mod serve;
mod signals;
mod store;
mod store_error;
mod tls;
mod top;
mod validation;

use std::io;
use std::process::ExitCode;

use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use iam::refusal::Refusal;
use output::{Format, Output};

/// The exit code of a denied check and of a refused change.
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
  capstan iam tree acme                                 an organization of a server
  capstan iam role-bindings create --identity alice --role editor --group acme/platform
  capstan auth login --issuer URL --client-id ID        log in, in the browser
  capstan auth pull-token create --group acme --role registry.pull --output docker --registry HOST
  capstan events tail --parent acme                     what changes there, as it happens
  capstan context add dev --addr http://127.0.0.1:4480 --as alice
  capstan backup FILE --addr unix:DIR/operator.sock     all of a server's store, while it runs
  capstan restore FILE --data DIR                       a new store from a backup
  capstan store verify FILE                             is this backup whole?
  capstan keys list --data DIR                          what a server signs events and tokens with
  capstan bench                                         throughput and latency on this machine
  capstan top                                           rates and latencies of a running server

Exit codes: 0 allowed or done, 1 denied or refused, 2 error; of `serve`, `init`, `restore` and `store` also those that their help \
lists.";

/// Behind what is a command's own.
const GLOBAL: &str = "Options of every command";

/// A policy decision point: may this identity do this here?
#[derive(Debug, Parser)]
#[command(name = "capstan", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    /// A table for people, or JSON with the field names of the API's messages [default: that of the context, or table]
    #[arg(long, short, value_enum, global = true, help_heading = GLOBAL)]
    output: Option<Output>,

    /// Ask the server of this saved context: see `capstan context`
    #[arg(long, value_name = "NAME", global = true, help_heading = GLOBAL,
        add = completion::context())]
    context: Option<String>,

    #[command(flatten)]
    tls: tls::TlsFiles,

    /// Print no result: the exit code says it. Errors are printed
    #[arg(long, short, global = true, help_heading = GLOBAL)]
    quiet: bool,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<serve::Serve>),
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
    Iam(Box<iam::Iam>),
    Auth(auth::Auth),
    Events(Box<events::Events>),
    Audit(audit_log::AuditLog),
    Backup(backup::BackupCommand),
    Restore(restore::Restore),
    Store(store::StoreCommand),
    Keys(keys::KeysCommand),
    Context(context::ContextCommand),
    Config(config::ConfigCommand),
    Bench(Box<bench::Bench>),
    Top(top::Top),
    /// Prints a script that completes commands, and the names of a policy or server, in a shell
    #[command(after_help = completion::EXAMPLES)]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    machine::hide();
    // Before threads are started, and before anything is written.
    if let Some(code) = completion::answer(Cli::command) {
        return code;
    }
    let words: Vec<_> = std::env::args_os().collect();
    let words = match config::expand(words, Cli::command()) {
        Ok(words) => words,
        Err(error) => {
            output::error(Format::Table, &error);
            return ExitCode::from(FAILED);
        }
    };
    let matches = Cli::command().get_matches_from(words);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if cli.quiet {
        output::be_quiet();
    }
    if let Some(name) = cli.context.clone() {
        context::choose(name);
    }
    let mut errors = cli.output.map_or(Format::Table, Output::of_errors);
    match run(cli, &matches, &mut errors) {
        Ok(code) => code,
        // The reader of standard output has closed it, so there is no place for a message.
        Err(error) if is_broken_pipe(&error) => ExitCode::from(FAILED),
        Err(error) => {
            output::error(errors, &error);
            let refused = error.downcast_ref().is_some_and(Refusal::is_refused);
            ExitCode::from(if refused { DENIED } else { FAILED })
        }
    }
}

/// `errors` is set to the format of errors as soon as it is known.
fn run(cli: Cli, matches: &ArgMatches, errors: &mut Format) -> anyhow::Result<ExitCode> {
    let given = cli.output;
    let output = match given {
        Some(output) => output,
        None => context::output_of(matches)?.unwrap_or(Output::Table),
    };
    *errors = output.of_errors();
    if !cli.tls.is_empty() {
        tls::ensure_asks(matches)?;
        tls::choose(cli.tls);
    }
    if let Command::Serve(serve) = &cli.command {
        machine::ensure_threads(serve.threads())?;
    }
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    threads.block_on(run_command(cli.command, given, output))
}

/// `given` is the output that the command line says, `output` the one that counts.
async fn run_command(
    command: Command,
    given: Option<Output>,
    output: Output,
) -> anyhow::Result<ExitCode> {
    // Of the commands that write a table or JSON, and refuse other outputs.
    let format = || output.format();
    match command {
        Command::Roles(roles) => roles.run(output).await,
        Command::Iam(iam) => iam.run(output).await,
        Command::Auth(auth) => auth.run(output).await,
        Command::Events(events) => events.run(output).await,
        Command::Context(context) => context.run(given),
        Command::Policy(documents) => documents.run(output).await,
        Command::Serve(serve) => serve.run(format()?).await,
        Command::Init(init) => init.run(format()?),
        Command::Config(config) => config.run(format()?),
        Command::Check(check) => check.run(format()?).await,
        Command::Capabilities(list) => list.run(format()?).await,
        Command::Explain(explain) => explain.run(format()?).await,
        Command::Who(who) => who.run(format()?).await,
        Command::Where(places) => places.run(format()?).await,
        Command::Bindings(bindings) => bindings.run(format()?),
        Command::Groups(groups) => groups.run(format()?),
        Command::Identities(identities) => identities.run(format()?),
        Command::Catalog(catalog) => catalog.run(format()?).await,
        Command::Routes(routes) => routes.run(format()?),
        Command::Schema(schema) => schema.run(format()?),
        Command::Audit(audit) => audit.run(format()?).await,
        Command::Backup(backup) => backup.run(format()?).await,
        Command::Restore(restore) => restore.run(format()?),
        Command::Store(store) => store.run(format()?),
        Command::Keys(keys) => keys.run(format()?),
        Command::Bench(bench) => bench.run(format()?).await,
        Command::Top(top) => top.run(format()?).await,
        Command::Completions { shell } => {
            format()?;
            completion::print_script(shell)
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of a command that is wrapped cannot be copied, and prose is wrapped at the width of the terminal.
    #[test]
    fn examples_are_not_wrapped_and_prose_is() {
        const WIDTH: usize = 100;
        fn visit(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let is_prose =
                |line: &str| !line.is_empty() && !line.starts_with(' ') && !line.ends_with(':');
            let mut before = "";
            for line in text.lines() {
                let fits = !line.starts_with("  capstan") || line.chars().count() <= WIDTH;
                assert!(fits, "{path}: longer than {WIDTH}: {line}");
                let is_broken =
                    is_prose(before) && is_prose(line) && !line.starts_with("Exit codes");
                assert!(!is_broken, "{path}: the line ends within a paragraph: {before}");
                before = line;
            }
            command.get_subcommands().for_each(|command| visit(command, &path));
        }
        visit(&Cli::command(), "");
    }
}
