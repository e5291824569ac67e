//! Bash: its script, and its command lines.
//!
//! Bash divides words at `:`, `=` and `@`, too, which URLs, options and ids have, and replaces only what follows the last
//! of them. The script therefore hands over the line as it is typed; it is divided here, and candidates lose what Bash
//! keeps. clap_complete's own script completes `--addr http://HOST:PORT al<TAB>` wrongly.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;

use clap_complete::CompletionCandidate;
use clap_complete::engine::complete;
use clap_complete::env::EnvCompleter;

use super::LINE;
use super::line::Line;

/// `nospace`: a candidate brings the blank behind it along, because a path ends in `/` while there is more below it.
const SCRIPT: &str = r#"_capstan() {
    local IFS=$'\n'
    COMPREPLY=($(
        _CAPSTAN_BEFORE="${COMP_LINE:0:COMP_POINT}" \
        _CAPSTAN_AFTER="${COMP_LINE:COMP_POINT}" \
        _CAPSTAN_BREAKS="$COMP_WORDBREAKS" \
        VARIABLE=bash PROGRAM -- capstan 2>/dev/null
    ))
}
complete -o nospace -o bashdefault -F _capstan NAME
"#;

/// The adapter of Bash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bash;

impl EnvCompleter for Bash {
    fn name(&self) -> &'static str {
        "bash"
    }

    fn is(&self, name: &str) -> bool {
        name == self.name()
    }

    fn write_registration(
        &self,
        variable: &str,
        _: &str,
        name: &str,
        program: &str,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let program = format!("'{}'", program.replace('\'', r"'\''"));
        let script = SCRIPT.replace("VARIABLE", variable).replace("NAME", name);
        out.write_all(script.replace("PROGRAM", &program).as_bytes())
    }

    fn write_complete(
        &self,
        command: &mut clap::Command,
        _: Vec<OsString>,
        folder: Option<&Path>,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let of = |name: &str| env::var(name).unwrap_or_default();
        let typed = Typed::read(&of("_CAPSTAN_BEFORE"), &of("_CAPSTAN_BREAKS"));
        let mut words: Vec<OsString> = typed.words.iter().map(OsString::from).collect();
        let index = words.len() - 1;
        words.extend(rest(&of("_CAPSTAN_AFTER")).into_iter().map(OsString::from));
        let _ = LINE.set(Line::read(command.clone(), words.clone(), index));
        let found = complete(command, words, index, folder)?;
        out.write_all(typed.replies(&found).join("\n").as_bytes())
    }
}

/// What is typed before the cursor.
#[derive(Debug, PartialEq, Eq)]
struct Typed {
    /// The last one is to be completed; it may be empty.
    words: Vec<String>,
    /// The number of bytes of the last word that Bash keeps.
    kept: usize,
    /// Whether the cursor is within quotes.
    is_quoted: bool,
}

impl Typed {
    /// Divides a line as the shell does, without expansions.
    fn read(line: &str, breaks: &str) -> Self {
        let (mut words, mut word, mut quote, mut kept) = (Vec::new(), None::<String>, None, 0);
        let mut letters = line.chars();
        while let Some(letter) = letters.next() {
            match (quote, letter) {
                (Some(open), _) if letter == open => quote = None,
                (Some('"') | None, '\\') => word.get_or_insert_default().extend(letters.next()),
                (None, '"' | '\'') => {
                    quote = Some(letter);
                    word.get_or_insert_default();
                }
                (None, _) if letter.is_whitespace() => {
                    words.extend(word.take());
                    kept = 0;
                }
                _ => {
                    let word = word.get_or_insert_default();
                    word.push(letter);
                    if quote.is_none() && breaks.contains(letter) {
                        kept = word.len();
                    }
                }
            }
        }
        words.push(word.unwrap_or_default());
        Self { words, kept, is_quoted: quote.is_some() }
    }

    /// The candidates as Bash takes them. Options are offered with a `-`, or where there is nothing else.
    fn replies(&self, found: &[CompletionCandidate]) -> Vec<String> {
        let word = self.words.last().map_or("", String::as_str);
        let mut values: Vec<_> =
            found.iter().filter_map(|candidate| candidate.get_value().to_str()).collect();
        if word.is_empty() && values.iter().any(|value| !value.starts_with('-')) {
            values.retain(|value| !value.starts_with('-'));
        }
        let is_only = values.len() == 1;
        let reply = |value: &str| {
            let shown = value.get(self.kept..).unwrap_or_default();
            let mut reply = if self.is_quoted { shown.to_owned() } else { escaped(shown) };
            if is_only && !value.ends_with(['/', '=', ':']) && !self.is_quoted {
                reply.push(' ');
            }
            reply
        };
        values.into_iter().map(reply).collect()
    }
}

/// One word of a shell without its quotes.
pub(super) fn unquoted(word: &str) -> String {
    Typed::read(word, "").words.pop().unwrap_or_default()
}

/// The words behind the cursor, without the rest of the word at the cursor.
fn rest(line: &str) -> Vec<String> {
    let mut words = Typed::read(line, "").words;
    if !line.is_empty() && !line.starts_with(char::is_whitespace) {
        words.remove(0);
    }
    words.retain(|word| !word.is_empty());
    words
}

/// With a backslash before each character that means something to the shell.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        let is_plain = letter.is_alphanumeric() || "-._~@:+=/,%".contains(letter);
        escaped.extend((!is_plain).then_some('\\'));
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bash's own value.
    const BREAKS: &str = " \t\n\"'@><=;|&(:";

    #[test]
    fn a_line_is_divided_as_the_shell_does() {
        let read = |line: &str| {
            let Typed { words, kept, is_quoted } = Typed::read(line, BREAKS);
            (words.join("|"), kept, is_quoted)
        };
        let expected = |words: &str, kept, is_quoted| (words.to_owned(), kept, is_quoted);
        assert_eq!(read("capstan check "), expected("capstan|check|", 0, false));
        assert_eq!(read("capstan check al"), expected("capstan|check|al", 0, false));
        let addr = "capstan check --addr http://127.0.0.1:4480 al";
        let words = "capstan|check|--addr|http://127.0.0.1:4480|al";
        assert_eq!(read(addr), expected(words, 0, false));
        assert_eq!(read("c --policy=a"), expected("c|--policy=a", 9, false));
        assert_eq!(read("c a:b@c"), expected("c|a:b@c", 4, false));
        assert_eq!(read(r#"c 'a b' "c\"d" e\ f"#), expected(r#"c|a b|c"d|e f"#, 0, false));
        assert_eq!(read("c 'a:b"), expected("c|a:b", 0, true));
        assert_eq!(read(""), expected("", 0, false));
        assert_eq!(unquoted(r"--policy='a b'\ c"), "--policy=a b c");
        assert_eq!(rest("b c d"), ["c", "d"]);
        assert_eq!(rest(" c  d "), ["c", "d"]);
        assert_eq!(rest(""), [""; 0]);
    }

    #[test]
    fn replies_lose_what_bash_keeps_and_bring_a_blank_if_they_are_whole() {
        let replies = |line: &str, values: &[&str]| {
            let found: Vec<_> =
                values.iter().map(|value| CompletionCandidate::new(*value)).collect();
            Typed::read(line, BREAKS).replies(&found)
        };
        assert_eq!(replies("c al", &["alice"]), ["alice "]);
        assert_eq!(replies("c a", &["alice", "ann"]), ["alice", "ann"]);
        assert_eq!(replies("c a", &["acme/"]), ["acme/"]);
        assert_eq!(replies("c a:b", &["a:bob"]), ["bob "]);
        assert_eq!(replies("c ", &["alice", "--policy"]), ["alice "]);
        assert_eq!(replies("c ", &["--policy", "--addr"]), ["--policy", "--addr"]);
        assert_eq!(replies("c a", &["a b"]), [r"a\ b "]);
        assert_eq!(replies("c 'a", &["a b"]), ["a b"]);
    }
}
