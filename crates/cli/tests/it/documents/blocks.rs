//! Markdown: the fenced blocks of a document, the commands of a shell block, and the prose around them.

use std::fs;
use std::path::PathBuf;

/// The languages of blocks with commands.
const SHELLS: [&str; 2] = ["sh", "console"];

/// A fenced block.
#[derive(Debug)]
pub(super) struct Block {
    /// The word after the fence; may be empty.
    pub(super) language: String,
    /// The line of the fence, from 1.
    pub(super) line: usize,
    pub(super) text: String,
    /// The last line of text before the block.
    pub(super) introduced_by: String,
}

/// A command of a shell block.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) document: &'static str,
    pub(super) line: usize,
    /// As it is written, with the lines of a continued command joined.
    pub(super) text: String,
    /// What the document shows as its output, if anything.
    pub(super) shown: Option<String>,
}

impl Command {
    pub(super) fn place(&self) -> String {
        format!("{}:{}: {}", self.document, self.line, self.text)
    }
}

pub(super) fn root() -> PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

pub(super) fn read(document: &str) -> String {
    fs::read_to_string(root().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// All fenced blocks, in order.
pub(super) fn blocks(document: &str) -> Vec<Block> {
    let text = read(document);
    let (mut found, mut open, mut before) = (Vec::new(), None::<Block>, "");
    for (at, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                open = Some(Block {
                    language: language.trim().to_owned(),
                    line: at + 1,
                    text: String::new(),
                    introduced_by: before.to_owned(),
                });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) if !line.trim().is_empty() => before = line,
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{document}: the last block has no end");
    found
}

/// The text outside of fenced blocks.
pub(super) fn prose(document: &str) -> String {
    let mut inside = false;
    let text = read(document);
    let outside = text.lines().filter(|line| {
        let is_fence = line.trim_start().starts_with("```");
        inside ^= is_fence;
        !is_fence && !inside
    });
    outside.collect::<Vec<_>>().join("\n")
}

impl Block {
    pub(super) fn is_shell(&self) -> bool {
        SHELLS.contains(&&*self.language)
    }

    /// In `sh` every line is a command. In `console` a command begins with `$ `, and the lines below are its output.
    pub(super) fn commands(&self, document: &'static str) -> Vec<Command> {
        let prompts = self.language == "console";
        let mut found: Vec<Command> = Vec::new();
        let mut continued = false;
        for (at, line) in self.text.lines().enumerate() {
            let begins = if prompts { line.strip_prefix("$ ") } else { Some(line) };
            match (continued, begins) {
                (true, _) => {
                    let command = found.last_mut().unwrap();
                    command.text = format!("{} {}", command.text, line.trim());
                }
                (false, Some(text)) if text.trim().is_empty() || text.starts_with('#') => continue,
                (false, Some(text)) => {
                    let line = self.line + 1 + at;
                    found.push(Command { document, line, text: text.to_owned(), shown: None });
                }
                (false, None) => {
                    let command = found.last_mut();
                    let command = command.unwrap_or_else(|| panic!("{document}: output first"));
                    let shown = command.shown.get_or_insert_default();
                    shown.push_str(line);
                    shown.push('\n');
                    continue;
                }
            }
            let command = found.last_mut().unwrap();
            continued = command.text.ends_with('\\');
            if continued {
                let kept = command.text.trim_end_matches('\\').trim_end().len();
                command.text.truncate(kept);
            }
        }
        found
    }
}

/// Whether an output is what a document shows. `…` and `...` stand for any text. Times and trailing blanks
/// are not compared.
pub(super) fn matches(shown: &str, output: &str) -> bool {
    let (shown, output) = (normal(shown).replace("...", "…"), normal(output));
    let parts: Vec<&str> = shown.split('…').collect();
    let [first, middle @ .., last] = &parts[..] else { return shown == output };
    let Some(mut rest) = output.strip_prefix(first) else { return false };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

fn normal(text: &str) -> String {
    let lines: Vec<String> =
        text.trim_end().lines().map(|line| timeless(line.trim_end())).collect();
    lines.join("\n")
}

/// The line with `TIME` in place of each RFC 3339 time of UTC.
fn timeless(line: &str) -> String {
    let of_time = |c: char| c.is_ascii_digit() || matches!(c, '-' | ':' | '.' | 'T' | 'Z');
    let mut rest = line;
    let mut text = String::new();
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let (before, from) = rest.split_at(start);
        let (word, after) = from.split_at(from.find(|c| !of_time(c)).unwrap_or(from.len()));
        let is_time = word.len() >= 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T';
        text.push_str(before);
        text.push_str(if is_time { "TIME" } else { word });
        rest = after;
    }
    text + rest
}

#[test]
fn shown_output_is_compared_around_elisions_and_times() {
    assert!(matches("a … c\n", "a b c"));
    assert!(matches("a\n...\nd\n", "a\nb\nc\nd\n"));
    assert!(matches("at 2026-11-22T05:37:34.88Z, x 1\n", "at 2027-01-01T00:00:00Z, x 1"));
    for (shown, output) in [
        ("a … c", "a b d"),
        ("a b", "a b c"),
        ("… c", "a b"),
        ("x 1", "x 2"),
        ("a … b … c", "a c b"),
    ] {
        assert!(!matches(shown, output), "{shown:?} {output:?}");
    }
    let block = |language: &str, text: &str| Block {
        language: language.into(),
        line: 1,
        text: text.into(),
        introduced_by: String::new(),
    };
    let of = |language, text| -> Vec<(String, Option<String>)> {
        let commands = block(language, text).commands("README.md");
        commands.into_iter().map(|command| (command.text, command.shown)).collect()
    };
    assert_eq!(of("sh", "# why\na \\\n  b\n\nc\n"), [("a b".into(), None), ("c".into(), None)]);
    let console = of("console", "$ a \\\n    b\nx\n\ny\n$ c\n");
    assert_eq!(console, [("a b".into(), Some("x\n\ny\n".into())), ("c".into(), None)]);
}
