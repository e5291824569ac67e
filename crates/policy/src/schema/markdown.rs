//! The reference of the documents, in Markdown.

use std::fmt::Write as _;

use serde_json::Value;

use super::json::parsed;
use super::{DOCUMENTS, Document, Key, Kind, Table, Text};
use crate::scalar::{Plain, resolve};

const INTRODUCTION: &str = "\
# Documents

Every key of the documents that Capstan reads: policies, catalogs, route tables and policy tests. This page is
generated from `crates/policy/src/schema`; `cargo golden` writes it anew.

A document is YAML 1.2 (core schema) or JSON, in UTF-8. Unknown keys, repeated keys, anchors, aliases, tags, merge keys
and a second document are errors. A key without a value (null) is an error, too: leave the key out. A number or a
boolean that stands for a string must be quoted.

`capstan schema policy`, `catalog`, `routes` and `tests` print a JSON Schema, with which an editor completes keys and
marks mistakes. The schema states the shape of a document. What it cannot state is listed here under *Only the reader
checks*; `capstan policy validate`, `routes validate` and `policy test` report all of it.
";

/// The reference of all documents, in Markdown: `docs/POLICY.md`.
#[must_use]
pub fn reference() -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut texts: Vec<&Text> = Vec::new();
    let mut described: Vec<&str> = Vec::new();
    for document in DOCUMENTS {
        write_document(&mut page, document, &mut described, &mut texts);
    }
    page.push_str("\n## Forms of strings\n\n| form | what it is |\n|---|---|\n");
    texts.sort_by_key(|text| text.name);
    for text in texts {
        row(&mut page, &[text.name, &(text.description)()]);
    }
    page
}

fn write_document<'d>(
    page: &mut String,
    document: &'d Document,
    described: &mut Vec<&'d str>,
    texts: &mut Vec<&'d Text>,
) {
    let Document { title, description, name, .. } = document;
    append(page, format_args!("\n## {title}\n\n{description} Schema: `capstan schema {name}`.\n"));
    for example in document.examples {
        append(page, format_args!("\n```yaml\n{example}```\n"));
    }
    if described.contains(&document.root.name) {
        let name = document.root.name;
        append(page, format_args!("\nThe keys: [{}](#{name}), above.\n", capitalized(name)));
    }
    document.tables(&mut |table| {
        if !described.contains(&table.name) {
            described.push(table.name);
            write_table(page, table, texts);
        }
    });
}

fn write_table<'d>(page: &mut String, table: &'d Table, texts: &mut Vec<&'d Text>) {
    let Table { name, description, .. } = table;
    append(page, format_args!("\n### {}\n\n{description}\n\n", capitalized(name)));
    page.push_str("| key | type | required | meaning | example |\n|---|---|---|---|---|\n");
    for key in table.keys {
        let (name, required) = (format!("`{}`", key.name), if key.required { "yes" } else { "no" });
        row(page, &[&name, &words(&key.kind, texts), required, &meaning(key), &example(key)]);
    }
    let notes: Vec<&str> = table.rules.iter().map(|rule| rule.description).collect();
    for note in notes {
        append(page, format_args!("\n{note}\n"));
    }
    if !table.forms.is_empty() {
        append(page, format_args!("\n| {name} | meaning |\n|---|---|\n"));
        for (form, meaning) in table.forms {
            row(page, &[&format!("`{form}`"), meaning]);
        }
    }
    if !table.notes.is_empty() {
        append(page, format_args!("\n*Only the reader checks:* {}\n", table.notes.join(" ")));
    }
}

fn meaning(key: &Key) -> String {
    match parsed(key.default) {
        Some(default) => format!("{} Default: `{}`.", key.description, flow(&default)),
        None => key.description.into(),
    }
}

/// An example on one line. A list of mappings is in the example document already.
fn example(key: &Key) -> String {
    match parsed(key.example) {
        Some(Value::Array(items)) if items.iter().any(Value::is_object) => "see above".into(),
        Some(value) => format!("`{}: {}`", key.name, flow(&value)),
        None => "see above".into(),
    }
}

/// The type in words. Adds the forms of strings that the words name.
fn words<'d>(kind: &Kind, texts: &mut Vec<&'d Text>) -> String
where
    'static: 'd,
{
    match kind {
        Kind::Version => "the number 1".into(),
        Kind::Boolean => "boolean".into(),
        Kind::Text(text) => {
            let text: &'static Text = text;
            if !texts.iter().any(|known| (known.description)() == (text.description)()) {
                texts.push(text);
            }
            format!("[{}](#forms-of-strings)", text.name)
        }
        Kind::Words(words) => code(&words()),
        Kind::Attribute => "string, boolean or integer within ±(2^53 − 1)".into(),
        Kind::Attributes => {
            "mapping of names to strings, booleans or integers within ±(2^53 − 1)".into()
        }
        Kind::Claims(text) => {
            format!("mapping of claims to: {}", self::words(&Kind::Text(text), texts))
        }
        Kind::PublicKey => {
            "public key: a mapping of names to strings, booleans or lists of strings, with `kty`, and without \
             members of a private key"
                .into()
        }
        Kind::Forms(words) => format!("mapping of parameters to {}", code(&words())),
        Kind::List { of, min, max } => {
            let bounds = match (min, max) {
                (0, None) => String::new(),
                (min, None) => format!(", at least {min}"),
                (0, Some(max)) => format!(", at most {max}"),
                (min, Some(max)) => format!(", {min} to {max}"),
            };
            format!("list of: {}{bounds}", self::words(of, texts))
        }
        Kind::Table(table) => format!("[{}](#{})", table.name, table.name.replace(' ', "-")),
        Kind::Either(one, other) => {
            format!("{} or {}", self::words(one, texts), self::words(other, texts))
        }
    }
}

fn code(words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}

/// A value in YAML on one line.
fn flow(value: &Value) -> String {
    let joined = |items: Vec<String>| items.join(", ");
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        Value::Array(items) => format!("[{}]", joined(items.iter().map(flow).collect())),
        Value::Object(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{key}: {}", flow(value)));
            format!("{{{}}}", joined(entries.collect()))
        }
        other => other.to_string(),
    }
}

/// Whether a string needs no quotes in YAML, also inside brackets.
fn is_plain(text: &str) -> bool {
    let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b" _./+-:".contains(&byte);
    let begins =
        text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'/');
    begins
        && text.bytes().all(is_safe)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && resolve(text) == Plain::String
}

fn row(page: &mut String, cells: &[&str]) {
    let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', r"\|")).collect();
    append(page, format_args!("| {} |\n", cells.join(" | ")));
}

/// Writing to a string cannot fail.
fn append(page: &mut String, text: std::fmt::Arguments<'_>) {
    let _ = page.write_fmt(text);
}

fn capitalized(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}
