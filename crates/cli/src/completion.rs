//! Completion in shells: `capstan check <TAB>` offers the identities, capabilities, scopes and roles of the policy file
//! or server that the command line names.
//!
//! ```text
//! shell ─ words ─▶ clap_complete ─▶ which argument? ─▶ Kind ─▶ names ─▶ narrow ─▶ candidates
//!                                                              │
//!               line: --policy, --addr, --catalog, arguments ──┘
//! ```
//!
//! `capstan completions SHELL` prints a script that calls the binary at each TAB. What cannot be listed gives no
//! candidates, and never an error: a message would end up in the line that is typed.

mod bash;
mod line;
pub(crate) mod managed;
mod names;
mod narrow;

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use capstan_policy::Catalogs;
use capstan_proto::methods::METHODS;
use clap_complete::env::{Elvish, EnvCompleter, Fish, Powershell, Shells, Zsh};
use clap_complete::{
    ArgValueCompleter, CompleteEnv, CompletionCandidate, PathCompleter, Shell,
    engine::ValueCompleter,
};

use super::FAILED;
use super::context::file::Contexts;
use super::events::types;
use super::limits::COMPLETION_TIME_MAX;
use bash::Bash;
use line::Line;
use managed::Managed;

/// Help of `capstan completions`.
pub(crate) const EXAMPLES: &str = "\
Examples:
  source <(capstan completions bash)      in ~/.bashrc
  source <(capstan completions zsh)       in ~/.zshrc, after compinit
  capstan completions fish | source       in ~/.config/fish/config.fish

The script asks capstan for candidates: the names of the document of --policy or of the server of --addr (of \
$CAPSTAN_ADDR, of the context, or at http://127.0.0.1:4480), and the built-in roles and capabilities without either. No \
call about decisions lists all identities or groups: there, a scope is completed behind an identity, and an identity \
before a capability and a resource. The ids of `capstan iam` and `capstan events` are those that the caller may see. A TAB waits for at most 500 ms; $CAPSTAN_COMPLETE_MS says another number of milliseconds. \
Source the script anew at each start of a shell, as above: one of another version may give no candidates.";

/// The environment variable by which a script asks for candidates. Its value is the shell.
const VARIABLE: &str = "CAPSTAN_COMPLETE";
/// The environment variable for another limit than [`COMPLETION_TIME_MAX`], in milliseconds.
const TIME_VARIABLE: &str = "CAPSTAN_COMPLETE_MS";
/// Bash's script is our own: it knows words with `:`, `=` and `@`, which Bash divides.
const SHELLS: Shells<'static> = Shells(&[&Bash, &Elvish, &Fish, &Powershell, &Zsh]);

/// The command line that is completed.
static LINE: OnceLock<Line> = OnceLock::new();

/// What an argument names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Identity,
    Capability,
    Scope,
    Role,
    /// What a server manages.
    Managed(Managed),
}

/// The completer of an argument that is the path of an identity.
pub(crate) fn identity() -> ArgValueCompleter {
    completer(Kind::Identity)
}

/// The completer of an argument that is a capability.
pub(crate) fn capability() -> ArgValueCompleter {
    completer(Kind::Capability)
}

/// The completer of an argument that is the path of a resource or group.
pub(crate) fn scope() -> ArgValueCompleter {
    completer(Kind::Scope)
}

/// The completer of an argument that is a role.
pub(crate) fn role() -> ArgValueCompleter {
    completer(Kind::Role)
}

/// The completer of an argument that is the name of a saved context.
pub(crate) fn context() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let start = typed.to_string_lossy();
        let contexts = Contexts::load().unwrap_or_default();
        let names = contexts.names().filter(|name| name.starts_with(&*start));
        names.map(CompletionCandidate::new).collect()
    })
}

/// The completer of an argument that is the name of a built-in catalog or a file.
pub(crate) fn catalog() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let catalogs = Catalogs::default();
        let start = typed.to_string_lossy();
        let names = catalogs.names().filter(|name| name.starts_with(&*start));
        let mut found: Vec<_> = names.map(CompletionCandidate::new).collect();
        found.extend(PathCompleter::file().complete(typed));
        found
    })
}

/// The completer of an argument that is a method of the management, as the audit log names it.
pub(crate) fn method() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let start = typed.to_string_lossy();
        let names = METHODS.iter().filter_map(|method| method.path.strip_prefix('/'));
        let names =
            names.filter(|name| name.starts_with("capstan.iam.") && name.starts_with(&*start));
        names.map(CompletionCandidate::new).collect()
    })
}

/// The completer of an argument that is a type of events, in short.
pub(crate) fn event_type() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| {
        let start = typed.to_string_lossy();
        let forms = types::short_forms().filter(|form| form.starts_with(&*start));
        forms.map(CompletionCandidate::new).collect()
    })
}

fn completer(kind: Kind) -> ArgValueCompleter {
    ArgValueCompleter::new(move |typed: &OsStr| {
        let most = std::env::var(TIME_VARIABLE).ok().and_then(|most| most.parse().ok());
        let most = most.map_or(COMPLETION_TIME_MAX, Duration::from_millis);
        let (Some(line), Some(typed)) = (LINE.get(), typed.to_str()) else { return Vec::new() };
        let are_paths = !matches!(kind, Kind::Capability | Kind::Role);
        let typed = typed.to_owned();
        let found =
            in_time(most, move || narrow::narrow(names::of(kind, line, &typed), &typed, are_paths));
        let found = found.unwrap_or_default();
        found.into_iter().map(CompletionCandidate::new).collect()
    })
}

/// What `work` returns within this time. It may panic or never end: the process ends first.
fn in_time<T: Send + 'static>(
    most: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (send, receive) = mpsc::channel();
    thread::Builder::new().spawn(move || send.send(work())).ok()?;
    receive.recv_timeout(most).ok()
}

/// Answers a shell that asks for candidates. `None` if none asks, so that the command is run.
pub(crate) fn answer(command: fn() -> clap::Command) -> Option<ExitCode> {
    let shell = std::env::var_os(VARIABLE).filter(|shell| !shell.is_empty() && shell != "0")?;
    std::panic::set_hook(Box::new(|_| {}));
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    // zsh hands over words with their quotes.
    let words: Vec<OsString> = words
        .map(|word| word.to_str().map_or(word.clone(), |word| bash::unquoted(word).into()))
        .collect();
    let asks = !words.is_empty();
    if let Some(last) = words.len().checked_sub(1)
        && shell != Bash.name()
    {
        let index = std::env::var("_CLAP_COMPLETE_INDEX").ok().and_then(|index| index.parse().ok());
        let _ = LINE.set(Line::read(command(), words, index.unwrap_or(last)));
    }
    let folder = std::env::current_dir().ok();
    let complete = CompleteEnv::with_factory(command).var(VARIABLE).shells(SHELLS);
    let answered = complete.try_complete(std::env::args_os(), folder.as_deref());
    match answered {
        Ok(_) => Some(ExitCode::SUCCESS),
        // A message would end up in the line that is typed.
        Err(_) if asks => Some(ExitCode::from(FAILED)),
        Err(unknown_shell) => unknown_shell.exit(),
    }
}

/// Prints the script by which a shell asks this binary.
///
/// # Errors
///
/// Standard output cannot be written.
pub(crate) fn print_script(shell: Shell) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    if let Some(shell) = SHELLS.completer(&shell.to_string()) {
        shell.write_registration(VARIABLE, "capstan", "capstan", &program(), &mut script)?;
    }
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// The binary as it was called: by its name, or by its whole path if it was called by a path.
fn program() -> String {
    let called = PathBuf::from(std::env::args_os().next().unwrap_or_else(|| "capstan".into()));
    let is_name = called.components().count() == 1;
    let path = if is_name { called } else { std::path::absolute(&called).unwrap_or(called) };
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    /// The arguments that name something, by their ids.
    const NAMING: [&str; 28] = [
        "identity",
        "capability",
        "resource",
        "scope",
        "role",
        "catalog",
        "a",
        "b",
        "only",
        "group",
        "parent",
        "binding",
        "pull_token",
        "invite",
        "subscription",
        "provider",
        "mapping",
        "default_role",
        "event_type",
        "owner_identity",
        "organization",
        "like",
        "as_identity",
        "actor",
        "audit_method",
        "add_capability",
        "remove_capability",
        "saved_context",
    ];

    #[test]
    fn every_argument_that_names_something_has_a_completer() {
        fn visit(command: &clap::Command, found: &mut Vec<String>) {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                let names = NAMING.contains(&id);
                let completed = argument.get::<ArgValueCompleter>().is_some() && id != "context";
                assert_eq!(names, completed, "{} of {}", id, command.get_name());
                found.extend(names.then(|| id.to_owned()));
            }
            command.get_subcommands().for_each(|inner| visit(inner, found));
        }
        let mut found = Vec::new();
        visit(&crate::Cli::command(), &mut found);
        assert!(NAMING.iter().all(|id| found.iter().any(|one| one == id)), "{found:?}");
    }

    #[test]
    fn work_that_panics_or_never_ends_gives_nothing() {
        assert_eq!(in_time(Duration::MAX, || 1), Some(1));
        let panics = || -> u8 { panic!("on purpose") };
        assert_eq!(in_time(Duration::MAX, panics), None);
        let (_kept, never) = mpsc::channel::<u8>();
        assert_eq!(in_time(Duration::from_millis(10), move || never.recv()), None);
    }
}
