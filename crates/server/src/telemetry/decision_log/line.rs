//! One line of the decision log, as JSON.
//!
//! **Invariants**: a line is printable ASCII and has exactly one line break, at its end, whatever
//! text a caller sends. A field longer than its limit is cut and ends in `…`.

use std::io;

use capstan_engine::Decision;
use capstan_policy::format_timestamp;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use super::Entry;
use crate::limits::DECISION_LOG_FIELD_BYTES_MAX;

/// One question and its decision, or its error.
#[derive(Debug)]
pub(crate) struct Line {
    identity: String,
    capability: String,
    resource: String,
    decision: Result<Outcome, String>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Outcome {
    allowed: bool,
    reason: &'static str,
}

impl Line {
    /// A line for a question with its decision, or with the error that it got.
    pub(crate) fn new(
        [identity, capability, resource]: [&str; 3],
        decision: Result<Decision, impl ToString>,
    ) -> Self {
        let decided = |decision: Decision| Outcome {
            allowed: decision.allowed(),
            reason: decision.reason.as_str(),
        };
        Self {
            identity: cut(identity),
            capability: cut(capability),
            resource: cut(resource),
            decision: decision.map(decided).map_err(|error| cut(&error.to_string())),
        }
    }

    /// Bytes of memory that the line takes.
    pub(super) fn bytes(&self) -> usize {
        let Self { identity, capability, resource, decision } = self;
        let error = decision.as_ref().err().map_or(0, String::len);
        size_of::<Self>() + identity.len() + capability.len() + resource.len() + error
    }
}

fn cut(text: &str) -> String {
    if text.len() <= DECISION_LOG_FIELD_BYTES_MAX {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(DECISION_LOG_FIELD_BYTES_MAX);
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[derive(Serialize)]
struct DecisionLine<'a> {
    time: Option<&'a str>,
    rpc: &'static str,
    identity: &'a str,
    capability: &'a str,
    resource: &'a str,
    #[serde(flatten)]
    decided: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    revision: u64,
}

#[derive(Serialize)]
struct LostLine {
    time: Option<String>,
    lost: u64,
}

impl Entry {
    /// The time of the request, in RFC 3339 with `Z`.
    pub(super) fn time(&self) -> Option<String> {
        format_timestamp(self.now)
    }

    /// Appends one line of the request to `to`.
    pub(super) fn append(&self, line: &Line, time: Option<&str>, to: &mut Vec<u8>) {
        let line = DecisionLine {
            time,
            rpc: self.rpc.name(),
            identity: &line.identity,
            capability: &line.capability,
            resource: &line.resource,
            decided: line.decision.as_ref().ok().copied(),
            error: line.decision.as_ref().err().map(String::as_str),
            revision: self.revision,
        };
        append(&line, to);
    }
}

/// The line that reports lost lines.
pub(super) fn lost(now: capstan_engine::Timestamp, lost: u64) -> Vec<u8> {
    let mut line = Vec::new();
    append(&LostLine { time: format_timestamp(now), lost }, &mut line);
    line
}

fn append(line: &impl Serialize, to: &mut Vec<u8>) {
    // Writing to memory does not fail, and these structures always serialize.
    let written = line.serialize(&mut Serializer::with_formatter(&mut *to, Ascii));
    debug_assert!(written.is_ok());
    to.push(b'\n');
}

/// JSON in printable ASCII. `serde_json` escapes what JSON requires, and this formatter escapes
/// everything else that is not printable ASCII. No terminal and no line-based reader can misread
/// it.
struct Ascii;

impl Formatter for Ascii {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(|c: char| !matches!(c, ' '..='~')) {
            let (plain, odd) = rest.split_at(at);
            writer.write_all(plain.as_bytes())?;
            let mut chars = odd.chars();
            if let Some(char) = chars.next() {
                for unit in char.encode_utf16(&mut [0; 2]) {
                    write!(writer, "\\u{unit:04x}")?;
                }
            }
            rest = chars.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use capstan_engine::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::methods::Rpc;

    fn json(identity: &str, error: &str) -> (String, serde_json::Value) {
        let fields = [identity, "repo.list", "acme"];
        let lines = vec![Line::new(fields, Err(error))];
        let now = Timestamp::new(1_800_000_000, 500_000_000);
        let entry = Entry { rpc: Rpc::BATCH_CHECK, now, revision: 7, lines };
        let mut text = Vec::new();
        entry.append(&entry.lines[0], entry.time().as_deref(), &mut text);
        let text = String::from_utf8(text).unwrap();
        let json = serde_json::from_str(&text).unwrap();
        (text, json)
    }

    proptest! {
        /// One line is one JSON object with the texts that were given.
        #[test]
        fn any_text_of_a_caller_is_one_line(identity: String, error: String) {
            let (text, json) = json(&identity, &error);
            prop_assert_eq!(text.find(|c: char| !matches!(c, ' '..='~')), Some(text.len() - 1));
            prop_assert!(text.ends_with('\n'));
            prop_assert_eq!(&json["identity"], &identity);
            prop_assert_eq!(&json["error"], &error);
        }
    }

    #[test]
    fn control_characters_are_escaped_and_long_texts_are_cut() {
        let (text, json) = json("a\r\n\u{1b}[2J\u{9b}\u{202e}\u{1f980}\"\\", "x");
        let escaped = r#""identity":"a\r\n\u001b[2J\u009b\u202e\ud83e\udd80\"\\""#;
        assert!(text.contains(escaped), "{text}");
        assert_eq!(json["time"], "2027-01-15T08:00:00.5Z");

        for (length, char) in [(1_024, "x"), (1_025, "x"), (4 << 20, "é")] {
            let (_, json) = self::json(&char.repeat(length / char.len()), "x");
            let told = json["identity"].as_str().unwrap();
            assert_eq!(told.ends_with('…'), length > 1_024);
            assert_eq!(told.trim_end_matches('…').len(), DECISION_LOG_FIELD_BYTES_MAX);
        }
    }
}
