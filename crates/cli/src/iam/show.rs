//! How answers are printed: lists, one object, and what a write did.

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Map, Value, json};

use super::connection::Write;
use super::kind::{Kind, Listed};
use super::tree::{Node, by_path};
use crate::output::{self, Output};

/// Prints a list.
///
/// # Errors
///
/// Standard output cannot be written, or an object is none of the schema.
pub(crate) fn list<K: Listed>(objects: &[K], revision: u64, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => {
            let all = objects.iter().map(K::json).collect::<anyhow::Result<Vec<_>>>()?;
            let mut answer = Map::new();
            answer.insert(K::LIST.to_owned(), all.into());
            answer.insert("revision".to_owned(), revision.into());
            output::json(&answer)
        }
        Output::Id => objects.iter().try_for_each(|object| output::line(object.id())),
        Output::Tree => {
            let trees = by_path(objects.iter().map(|object| (object.id(), object.label())));
            trees.iter().flat_map(Node::lines).try_for_each(output::line)
        }
        Output::Table if objects.is_empty() => {
            output::line(format!("no {}", K::LIST.replace('_', " ")))
        }
        Output::Table => {
            let mut table = output::table(K::COLUMNS.iter().copied());
            for object in objects {
                table.add_row(object.row());
            }
            output::line(table)
        }
        Output::Junit | Output::Client(_) => output.format().map(drop),
    }
}

/// Prints one object.
///
/// # Errors
///
/// As of [`list`].
pub(crate) fn object<K: Kind>(object: &K, revision: u64, output: Output) -> anyhow::Result<()> {
    match output {
        Output::Json => output::json(&answer(object, revision)?),
        Output::Id => output::line(object.id()),
        Output::Tree => list(std::slice::from_ref(object), revision, output),
        Output::Table => {
            let mut table = output::table([K::WORD, ""]);
            let json = object.json()?;
            let fields = json.as_object().context("a message is an object")?;
            for (field, value) in in_order(fields) {
                let text = field_text(field, value);
                if !text.is_empty() {
                    table.add_row([field.as_str(), &text]);
                }
            }
            output::line(table)
        }
        Output::Junit | Output::Client(_) => output.format().map(drop),
    }
}

/// The response message of a call that answers one object.
fn answer<K: Kind>(object: &K, revision: u64) -> anyhow::Result<Value> {
    Ok(json!({ (K::FIELD): object.json()?, "revision": revision }))
}

/// The fields with what people look for first at the top.
fn in_order(fields: &Map<String, Value>) -> impl Iterator<Item = (&String, &Value)> {
    const FIRST: [&str; 3] = ["id", "name", "description"];
    let first = FIRST.into_iter().filter_map(|name| fields.get_key_value(name));
    first.chain(fields.iter().filter(|(name, _)| !FIRST.contains(&name.as_str())))
}

/// A field for people. A message is shown without what is empty in it, such as the name that a certificate does not have. An attribute may be
/// empty, and is shown.
fn field_text(field: &str, value: &Value) -> String {
    match value {
        Value::Object(fields) if field != "properties" => {
            let said = fields.iter().filter(|(_, value)| *value != "");
            text(&said.map(|(name, value)| (name.clone(), value.clone())).collect())
        }
        value => text(value),
    }
}

/// A value for people: the items of a list and of a mapping on a line each.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(text).collect::<Vec<_>>().join("\n"),
        Value::Object(fields) => {
            let line = |(name, value): (&String, &Value)| match value {
                Value::Object(_) => format!("{name}: {value}"),
                Value::Array(items) if items.iter().any(Value::is_object) => {
                    format!("{name}: {value}")
                }
                _ => format!("{name} = {}", text(value).replace('\n', ", ")),
            };
            fields.iter().map(line).collect::<Vec<_>>().join("\n")
        }
        other => other.to_string(),
    }
}

/// What a write did: the verb as it is done, and what it is done to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done<'w> {
    /// `created`.
    pub(crate) verb: &'static str,
    /// `folder`.
    pub(crate) what: &'w str,
    pub(crate) id: &'w str,
    pub(crate) revision: u64,
}

impl Done<'_> {
    /// Says on standard error what was done, or what would be.
    ///
    /// # Errors
    ///
    /// Standard error cannot be written.
    pub(crate) fn note(self, write: &Write) -> anyhow::Result<()> {
        let Self { verb, what, id, revision } = self;
        if write.validate_only {
            return output::note(format!(
                "valid: {what} {id} would be {verb}; nothing was changed"
            ));
        }
        output::note(format!("{verb} {what} {id} at revision {revision}"))
    }
}

/// Prints an object that a write made or changed. `verb` is what was done, such as `created`.
///
/// # Errors
///
/// As of [`list`].
pub(crate) fn written<K: Kind>(
    verb: &'static str,
    (object, revision): (&K, u64),
    write: &Write,
    output: Output,
) -> anyhow::Result<ExitCode> {
    match output {
        Output::Json => output::json(&answer(object, revision)?)?,
        // What would be made has no id yet, if the server chooses it.
        Output::Id if !write.validate_only => output::line(object.id())?,
        Output::Id | Output::Table | Output::Tree => {}
        Output::Junit | Output::Client(_) => output.format().map(drop)?,
    }
    Done { verb, what: &object.what(), id: object.id(), revision }.note(write)?;
    Ok(ExitCode::SUCCESS)
}

/// Prints what a write did that answers no object. `answer` is its response message.
///
/// # Errors
///
/// Standard output cannot be written.
pub(crate) fn done(
    done: Done<'_>,
    answer: &Value,
    write: &Write,
    output: Output,
) -> anyhow::Result<ExitCode> {
    removed(done, done.id, answer, write, output)
}

/// As [`done`], with another id than the message names.
///
/// # Errors
///
/// As of [`done`].
pub(crate) fn removed(
    done: Done<'_>,
    id: &str,
    answer: &Value,
    write: &Write,
    output: Output,
) -> anyhow::Result<ExitCode> {
    match output {
        Output::Json => output::json(answer)?,
        Output::Id => output::line(id)?,
        Output::Table | Output::Tree => {}
        Output::Junit | Output::Client(_) => output.format().map(drop)?,
    }
    done.note(write)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_for_people() {
        let is = |json: Value, expected: &str| assert_eq!(text(&json), expected);
        is(json!(["a.list", "b.list"]), "a.list\nb.list");
        is(json!({"team": "web", "level": 3, "ok": true}), "level = 3\nok = true\nteam = web");
        is(json!({"claims": {"a": "b"}, "issuer": "i"}), "claims: {\"a\":\"b\"}\nissuer = i");
        is(json!([{"attribute": "resource.x", "equals": 1}]), "attribute = resource.x\nequals = 1");
        is(json!(""), "");
        is(json!([]), "");
    }

    #[test]
    fn what_is_empty_in_a_message_is_left_out() {
        let certificate = json!({"dns_name": "ci.example", "spiffe_id": ""});
        assert_eq!(field_text("client_certificate", &certificate), "dns_name = ci.example");
        let attributes = json!({"level": 0, "team": ""});
        assert_eq!(field_text("properties", &attributes), "level = 0\nteam = ");
        assert_eq!(field_text("other", &attributes), "level = 0");
        assert_eq!(field_text("name", &json!("")), "");
    }
}
