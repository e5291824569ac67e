//! Saved contexts: which server commands ask, and as whom. `capstan context` keeps them.
//!
//! ```text
//! --addr ─▶ --context NAME ─▶ $CAPSTAN_ADDR ─▶ $CAPSTAN_CONTEXT ─▶ `capstan context use` ─▶ http://127.0.0.1:4480
//! ```
//!
//! The first that is given says the server. A context's identity and output format count only where the context says
//! the server: an identity is not sent to another one.

mod command;
pub(crate) mod file;

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::bail;
use clap::ArgMatches;
use clap::parser::ValueSource;

pub(crate) use command::ContextCommand;
use file::{Contexts, Saved};

use crate::output::Output;
use crate::tls::TlsFiles;

/// The address without any other (contract, section 8).
pub(crate) const ADDRESS: &str = "http://127.0.0.1:4480";
/// The environment variable with the address of a server.
pub(crate) const ADDRESS_VARIABLE: &str = "CAPSTAN_ADDR";
/// The environment variable with the name of a context.
const CONTEXT_VARIABLE: &str = "CAPSTAN_CONTEXT";

/// The value of `--context`.
static CHOSEN: OnceLock<String> = OnceLock::new();

/// The server that a command asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) addr: String,
    /// The identity of the context.
    pub(crate) caller: Option<String>,
    /// The output format of the context.
    pub(crate) output: Option<Output>,
    /// The files of TLS of the context.
    pub(crate) tls: TlsFiles,
    /// The file of the caller's token of the context.
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) from: Origin,
}

/// What said the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Option,
    Variable,
    /// A context, by its name and what chose it.
    Context {
        name: String,
        by: Choice,
    },
    Default,
}

/// What chose a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Option,
    Variable,
    Saved,
}

/// Sets the value of `--context`, once.
pub(crate) fn choose(name: String) {
    let _ = CHOSEN.set(name);
}

/// Whether `--context` is given.
pub(crate) fn is_chosen() -> bool {
    CHOSEN.get().is_some()
}

/// The server that a command asks whose `--addr` is this.
///
/// # Errors
///
/// Both `--addr` and `--context` are given, there is no context of the name, or the file of the contexts cannot be read.
pub(crate) fn server(addr: Option<&str>) -> anyhow::Result<Server> {
    resolve(addr, CHOSEN.get().map(String::as_str), variable, Contexts::load)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// As [`server`], of a given environment. The file is read only where nothing before it says the server.
fn resolve(
    addr: Option<&str>,
    chosen: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
    load: impl FnOnce() -> anyhow::Result<Contexts>,
) -> anyhow::Result<Server> {
    let at = |addr: String, from| Server {
        addr,
        caller: None,
        output: None,
        tls: TlsFiles::default(),
        token_file: None,
        from,
    };
    let (name, by) = match (addr, chosen) {
        (Some(_), Some(_)) => bail!("--addr and --context both say the server: give one of them"),
        (Some(addr), None) => return Ok(at(addr.to_owned(), Origin::Option)),
        (None, Some(name)) => (Some(name.to_owned()), Choice::Option),
        (None, None) => match (variable(ADDRESS_VARIABLE), variable(CONTEXT_VARIABLE)) {
            (Some(addr), _) => return Ok(at(addr, Origin::Variable)),
            (None, Some(name)) => (Some(name), Choice::Variable),
            (None, None) => (None, Choice::Saved),
        },
    };
    let contexts = load()?;
    let Some(name) = name.or_else(|| contexts.current.clone()) else {
        return Ok(at(ADDRESS.to_owned(), Origin::Default));
    };
    let Saved { addr, caller, output, tls, token_file } = contexts.get(&name)?.clone();
    Ok(Server { addr, caller, output, tls, token_file, from: Origin::Context { name, by } })
}

/// The output format of the context that a command uses; `None` if it uses none.
///
/// # Errors
///
/// As of [`server`].
pub(crate) fn output_of(matches: &ArgMatches) -> anyhow::Result<Option<Output>> {
    if !asks_server(matches) {
        return Ok(None);
    }
    Ok(server(None)?.output)
}

/// Whether a command asks the server of a context: it could be given `--addr`, and neither that nor `--policy` is given.
/// The lists of built-in roles need no server unless one is named (contract, section 8), and `bench` starts one.
fn asks_server(matches: &ArgMatches) -> bool {
    let (mut leaf, mut path) = (matches, Vec::new());
    while let Some((name, inner)) = leaf.subcommand() {
        path.push(name);
        leaf = inner;
    }
    let is_given = |id: &str| {
        leaf.try_contains_id(id).is_ok_and(|given| given)
            && leaf.value_source(id) != Some(ValueSource::DefaultValue)
    };
    let takes_addr = leaf.try_contains_id("addr").is_ok();
    let needs_none = matches!(
        path.as_slice(),
        ["roles", "list" | "compare" | "diff"]
            | ["iam", "roles", "list" | "compare" | "diff"]
            | ["catalog", "capabilities"]
            | ["bench"]
    );
    // Options of the lists of roles that only a server has an answer to.
    let of_server =
        ["as_identity", "token_file", "parent", "filter", "consistency"].into_iter().any(is_given);
    takes_addr
        && !is_given("addr")
        && !is_given("policy")
        && (!needs_none || of_server || is_chosen())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn contexts() -> Contexts {
        Contexts::parse(
            "current = \"prod\"\n\
             [contexts.prod]\naddr = \"unix:/run/capstan.sock\"\noutput = \"json\"\n\
             [contexts.dev]\naddr = \"http://127.0.0.1:1\"\nas = \"alice\"\n",
        )
        .unwrap()
    }

    fn resolved(
        addr: Option<&str>,
        chosen: Option<&str>,
        env: &[(&str, &str)],
    ) -> anyhow::Result<Server> {
        let variable = |name: &str| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        resolve(addr, chosen, variable, || Ok(contexts()))
    }

    #[test]
    fn the_first_that_is_given_says_the_server() {
        let address = |addr, chosen, env| resolved(addr, chosen, env).unwrap().addr;
        let both = &[(ADDRESS_VARIABLE, "unix:/v"), (CONTEXT_VARIABLE, "dev")][..];
        assert_eq!(address(Some("unix:/o"), None, both), "unix:/o");
        assert_eq!(address(None, Some("prod"), both), "unix:/run/capstan.sock");
        assert_eq!(address(None, None, both), "unix:/v");
        assert_eq!(address(None, None, &both[1..]), "http://127.0.0.1:1");
        assert_eq!(address(None, None, &[]), "unix:/run/capstan.sock");
        let none = resolve(None, None, |_| None, || Ok(Contexts::default())).unwrap();
        assert_eq!((none.addr.as_str(), none.from), (ADDRESS, Origin::Default));
    }

    #[test]
    fn an_identity_belongs_to_the_server_of_its_context() {
        let dev = resolved(None, Some("dev"), &[]).unwrap();
        assert_eq!(dev.caller.as_deref(), Some("alice"));
        assert_eq!(dev.from, Origin::Context { name: "dev".into(), by: Choice::Option });
        let other =
            resolved(None, None, &[(ADDRESS_VARIABLE, "unix:/v"), (CONTEXT_VARIABLE, "dev")]);
        assert_eq!(other.unwrap().caller, None);
    }

    #[test]
    fn two_servers_and_unknown_names_are_errors() {
        let error = |addr, chosen| resolved(addr, chosen, &[]).unwrap_err().to_string();
        assert!(error(Some("unix:/o"), Some("dev")).contains("give one of them"));
        let unknown = error(None, Some("pord"));
        assert!(unknown.contains("no context `pord`") && unknown.contains("`prod`"), "{unknown}");
    }

    /// A broken file must not end commands that do not need it.
    #[test]
    fn the_file_is_read_only_where_it_says_the_server() {
        let unread = |addr, env: &[(&str, &str)]| {
            let variable = |name: &str| {
                env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            };
            resolve(addr, None, variable, || bail!("broken")).is_ok()
        };
        assert!(unread(Some("unix:/o"), &[]));
        assert!(unread(None, &[(ADDRESS_VARIABLE, "unix:/v")]));
        assert!(!unread(None, &[]));
    }

    #[test]
    fn only_commands_that_ask_a_server_use_a_context() {
        let asks = |line: &str| {
            asks_server(&crate::Cli::command().try_get_matches_from(line.split(' ')).unwrap())
        };
        assert!(asks("capstan check a b.c d"));
        assert!(asks("capstan iam groups list"));
        assert!(asks("capstan iam roles describe owner"));
        assert!(!asks("capstan check a b.c d --policy p"));
        assert!(!asks("capstan check a b.c d --addr unix:/x"));
        assert!(!asks("capstan iam roles list"));
        assert!(asks("capstan iam roles list --parent acme"));
        assert!(asks("capstan roles diff editor viewer --consistency full"));
        assert!(!asks("capstan bench"));
        assert!(!asks("capstan policy validate p"));
        assert!(!asks("capstan context list"));
    }
}
