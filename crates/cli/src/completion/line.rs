//! What the command line says so far: where names come from, and which arguments are there already.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgMatches, Command};

/// A command line with a word that is to be completed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) policy: Option<PathBuf>,
    pub(super) addr: Option<String>,
    pub(super) catalogs: Vec<String>,
    pub(super) context: Option<String>,
    pub(super) caller: Option<String>,
    pub(super) email: Option<String>,
    pub(super) token_file: Option<PathBuf>,
    /// Whether the command could ask a server.
    pub(super) has_addr: bool,
    /// Whether the command asks a server if there is no policy file.
    pub(super) asks_server: bool,
    pub(super) identity: Option<String>,
    pub(super) capability: Option<String>,
    pub(super) resource: Option<String>,
}

impl Line {
    /// Reads all words but the one at `index`, as far as clap understands them.
    pub(super) fn read(command: Command, mut words: Vec<OsString>, index: usize) -> Self {
        match words.get_mut(index) {
            Some(word) if word.as_encoded_bytes().starts_with(b"-") => drop(words.remove(index)),
            // The place stays taken, by a word that is no option.
            Some(word) => *word = "x".into(),
            None => {}
        }
        let definition = command.clone();
        let Ok(matches) = lenient(command).try_get_matches_from(words) else {
            return Self::default();
        };
        let (mut matches, mut definition) = (&matches, &definition);
        let mut path = Vec::new();
        while let Some((name, inner)) = matches.subcommand() {
            let Some(found) = definition.find_subcommand(name) else { break };
            (matches, definition) = (inner, found);
            path.push(name);
        }
        let has_addr = definition.get_arguments().any(|argument| argument.get_id() == "addr");
        let addr = text(matches, "addr");
        let context = text(matches, "context");
        let is_named = addr.is_some() || context.is_some();
        let lists_roles = path.contains(&"roles")
            && path.last().is_some_and(|name| ["list", "compare", "diff"].contains(name));
        Self {
            context,
            caller: text(matches, "as_identity"),
            email: text(matches, "email"),
            token_file: values(matches, "token_file")
                .into_iter()
                .next()
                .map(|file| expanded(file).into()),
            has_addr,
            policy: values(matches, "policy").into_iter().next().map(|file| expanded(file).into()),
            catalogs: texts(matches, "catalog"),
            // These list a catalog unless they are given a server.
            asks_server: has_addr && (is_named || !lists_roles),
            addr,
            identity: text(matches, "identity"),
            capability: text(matches, "capability"),
            resource: text(matches, "resource"),
        }
    }
}

/// A command that takes what it understands, at each level.
fn lenient(command: Command) -> Command {
    command.ignore_errors(true).mut_subcommands(lenient)
}

fn values(matches: &ArgMatches, id: &str) -> Vec<OsString> {
    // An error: the command has no such argument.
    let values = matches.try_get_raw(id).ok().flatten();
    values.into_iter().flatten().map(ToOwned::to_owned).collect()
}

fn texts(matches: &ArgMatches, id: &str) -> Vec<String> {
    values(matches, id).into_iter().filter_map(|value| value.into_string().ok()).collect()
}

fn text(matches: &ArgMatches, id: &str) -> Option<String> {
    texts(matches, id).into_iter().next()
}

/// The file of a word that the shell has not expanded: `~/` is the home folder.
fn expanded(word: OsString) -> OsString {
    let in_home = word.to_str().and_then(|word| word.strip_prefix("~/"));
    match (in_home, std::env::home_dir()) {
        (Some(rest), Some(home)) => home.join(rest).into(),
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn read(line: &str) -> Line {
        let index = line.split(' ').position(|word| word.ends_with('|')).unwrap();
        let words = line.split(' ').map(|word| word.trim_end_matches('|').into()).collect();
        // As clap_complete hands it to the adapter of Bash.
        let mut command = crate::Cli::command();
        command.build();
        Line::read(command, words, index)
    }

    #[test]
    fn options_and_arguments_are_found_before_and_behind_the_cursor() {
        let line = read("capstan check | repo.list acme --policy p.yaml --catalog a --catalog=b");
        assert_eq!(line.policy, Some("p.yaml".into()));
        assert_eq!(line.catalogs, ["a", "b"]);
        assert_eq!(line.capability.as_deref(), Some("repo.list"));
        assert_eq!(line.resource.as_deref(), Some("acme"));
        let line = read("capstan -o json check alice --addr unix:/run/x repo.list ac|");
        assert_eq!(line.addr.as_deref(), Some("unix:/run/x"));
        assert_eq!(line.identity.as_deref(), Some("alice"));
        assert_eq!(line.capability.as_deref(), Some("repo.list"));
        assert!(line.asks_server);
        assert_eq!(read("capstan routes test --policy p --identity |").policy, Some("p".into()));
        assert_eq!(read("capstan check alice --pol|").identity.as_deref(), Some("alice"));
    }

    #[test]
    fn roles_ask_only_a_server_that_is_given() {
        assert!(!read("capstan roles list |").asks_server);
        assert!(!read("capstan iam role list |").asks_server);
        assert!(read("capstan roles list --addr http://127.0.0.1:1 |").asks_server);
        assert!(read("capstan who |").asks_server);
        assert!(!read("capstan bindings --role |").asks_server);
    }

    #[test]
    fn a_line_that_makes_no_sense_says_nothing() {
        for line in [
            "|",
            "capstan |",
            "capstan nonsense |",
            "capstan check --help |",
            "capstan check a b c d e |",
        ] {
            assert_eq!(read(line).policy, None, "{line}");
        }
    }
}
