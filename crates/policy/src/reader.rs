//! Reads typed values from the stream of YAML events, and collects diagnostics.
//!
//! **Invariant**: every method that takes a node consumes exactly that node, even on an error, so
//! one mistake neither hides nor causes another diagnostic. After a syntax error there are no more
//! nodes.

#![expect(clippy::needless_pass_by_value, reason = "a method that reads a node consumes it")]

mod required;

use std::borrow::Cow;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;

use capstan_engine::{Properties, Timestamp, Value as Attribute, did_you_mean, quote};
use capstan_iam::fields::{check_name, check_text};
use capstan_iam::limits::PROPERTY_BYTES_MAX;
use granit_parser::{Event, Marker, Parser, ScalarStyle, StrInput};

use crate::NESTING_MAX;
use crate::diagnostics::{DIAGNOSTICS_MAX, Diagnostic, Diagnostics};
use crate::locate::Unread;
use crate::scalar::{INTEGER_MAX, Plain, TIME, parse_timestamp, resolve, whole};
use crate::syntax::{SyntaxError, explain};

pub(crate) use required::Required;

/// Most characters of a key, with its quotes and escapes. YAML has 1,024, which is fewer than the longest name of a
/// property takes in JSON, where each byte may be an escape of six characters.
const KEY_CHARS_MAX: usize = 6 * PROPERTY_BYTES_MAX + 2;

/// A position in the text: line and column in characters, both from 1.
pub(crate) type Mark = (usize, usize);

/// The start of a node: a complete scalar, or the opening of a collection.
#[derive(Debug)]
pub(crate) struct Node<'t> {
    pub(crate) mark: Mark,
    pub(crate) kind: Kind<'t>,
}

#[derive(Debug)]
pub(crate) enum Kind<'t> {
    Scalar {
        text: Cow<'t, str>,
        /// Whether the scalar is unquoted, so that it may be other than a string.
        plain: bool,
    },
    Sequence,
    Mapping,
    /// An alias: already reported, without content.
    Refused,
}

impl Node<'_> {
    fn is_null(&self) -> bool {
        matches!(&self.kind, Kind::Scalar { text, plain: true } if resolve(text) == Plain::Null)
    }

    /// The node as a diagnostic's `found`.
    fn describe(&self) -> String {
        match &self.kind {
            Kind::Scalar { text, plain: true } => match resolve(text) {
                Plain::Null => "null".into(),
                Plain::Boolean(_) => format!("the boolean {}", quote(text)),
                Plain::Number(_) | Plain::Integer(_) => format!("the number {}", quote(text)),
                Plain::String => format!("the string {}", quote(text)),
            },
            Kind::Scalar { text, plain: false } => format!("the string {}", quote(text)),
            Kind::Sequence => "a list".into(),
            Kind::Mapping => "a mapping".into(),
            Kind::Refused => "an alias".into(),
        }
    }
}

/// The next item of the stream.
#[derive(Debug)]
pub(crate) enum Next<'t> {
    Node(Node<'t>),
    /// The end of the innermost open collection.
    Close,
    /// The end of the stream, or a syntax error.
    End,
}

/// One step of the current field's path.
#[derive(Clone, Copy, Debug)]
enum Step {
    Key(&'static str),
    Index(usize),
}

/// Reads one document, and collects its diagnostics and warnings.
pub(crate) struct Reader<'t> {
    /// The text of a document; `None` if it is read item by item (`stream.rs`).
    parser: Option<Parser<'t, StrInput<'t>>>,
    text: &'t str,
    /// The nodes of the current item.
    items: VecDeque<Next<'t>>,
    path: Vec<Step>,
    diagnostics: Diagnostics,
    unread: Unread,
    warnings: Vec<Diagnostic>,
    /// Whether a syntax error was reported.
    broken: bool,
}

impl<'t> Reader<'t> {
    /// A reader of this text. A byte-order mark at the start is ignored.
    pub(crate) fn new(text: &'t str) -> Self {
        let mut options = granit_parser::options! {
            disallow_directives: true,
            emit_unresolved_aliases: true,
            emit_anchor_events: true,
            flow_nesting_limit: NESTING_MAX,
            block_nesting_limit: NESTING_MAX,
            simple_key_max_lookahead: KEY_CHARS_MAX,
        };
        options.set_emit_comments(false);
        Self { text, ..Self::of(Some(Parser::new_from_str_with_options(text, options))) }
    }

    /// A reader of what is put into [`Self::items`].
    pub(crate) fn of_items() -> Self {
        Self::of(None)
    }

    fn of(parser: Option<Parser<'t, StrInput<'t>>>) -> Self {
        Self {
            parser,
            text: "",
            items: VecDeque::new(),
            path: Vec::new(),
            diagnostics: Diagnostics::default(),
            unread: Unread::default(),
            warnings: Vec::new(),
            broken: false,
        }
    }

    /// The nodes that a reader of items reads next.
    pub(crate) const fn items(&mut self) -> &mut VecDeque<Next<'t>> {
        &mut self.items
    }

    /// Whether there are neither diagnostics nor warnings.
    pub(crate) fn is_clean(&self) -> bool {
        self.diagnostics.is_empty() && self.warnings.is_empty()
    }

    /// The diagnostics, the unreadable fields, and whether there was a syntax error.
    pub(crate) fn finish(self) -> (Diagnostics, Unread, bool) {
        (self.diagnostics, self.unread, self.broken)
    }

    /// Takes the first [`DIAGNOSTICS_MAX`] warnings.
    pub(crate) fn take_warnings(&mut self) -> Vec<Diagnostic> {
        std::mem::take(&mut self.warnings)
    }

    /// Reads the only document of the text. `None`, which is reported, if there is none. A second
    /// document is reported.
    pub(crate) fn document<T>(&mut self, read: impl FnOnce(&mut Self, Node<'t>) -> T) -> Option<T> {
        let value = match self.next() {
            Next::Node(node) => Some(read(self, node)),
            Next::Close | Next::End => {
                if !self.broken {
                    self.report((1, 1), "nothing", "a document");
                }
                None
            }
        };
        if let Next::Node(node) = self.next() {
            self.report(node.mark, "a second document", "one document");
        }
        value
    }

    // === Shapes ===

    /// Reads a mapping with any of the known keys (at most 64). Calls `read` with each key and
    /// value. A repeated key is reported, and still read: its declarations are declared. False if
    /// the node is no mapping, or a syntax error ends it.
    pub(crate) fn mapping(
        &mut self,
        node: Node<'t>,
        expected: &str,
        known: &'static [&'static str],
        mut read: impl FnMut(&mut Self, &'static str, Node<'t>),
    ) -> bool {
        if !matches!(node.kind, Kind::Mapping) {
            self.mismatch(node, expected);
            return false;
        }
        let mut seen = 0u64;
        loop {
            let key = match self.next() {
                Next::Node(key) => key,
                Next::Close => return true,
                Next::End => return false,
            };
            let found = match &key.kind {
                Kind::Scalar { text, .. } => known.iter().position(|name| *name == &**text),
                _ => None,
            };
            let place = found.and_then(|at| Some((at, *known.get(at)?)));
            let Some((at, name)) = place else {
                self.unknown_key(key, known);
                self.skip_next();
                continue;
            };
            if seen & 1 << at != 0 {
                self.report(key.mark, format!("key `{name}` again"), "each key once");
            }
            seen |= 1 << at;
            self.path.push(Step::Key(name));
            if let Next::Node(value) = self.next() {
                read(self, name, value);
            }
            self.path.pop();
        }
    }

    fn unknown_key(&mut self, key: Node<'t>, known: &[&str]) {
        let expected = format!("one of the keys {}", known.join(", "));
        match &key.kind {
            Kind::Scalar { text, plain: true } if text == "<<" => {
                self.report(key.mark, "the merge key `<<`", "explicit keys");
            }
            Kind::Scalar { text, .. } => {
                let hint = did_you_mean(text, known.iter().copied());
                self.report(key.mark, format!("unknown key {}", quote(text)), expected + &hint);
            }
            _ => self.mismatch(key, &expected),
        }
    }

    /// Appends a list's items, without those that `read` cannot read. The indexes of a list under a
    /// repeated key continue those of the first one.
    pub(crate) fn list<T>(
        &mut self,
        items: &mut Vec<T>,
        node: Node<'t>,
        expected: &str,
        mut read: impl FnMut(&mut Self, Node<'t>) -> Option<T>,
    ) {
        if !matches!(node.kind, Kind::Sequence) {
            // Null is reported, and counts as an empty list: it declares nothing.
            if !node.is_null() {
                self.unread.add_field(render(&self.path));
            }
            self.mismatch(node, expected);
            return;
        }
        let start = match items.len() {
            0 => 0,
            read => read + self.unread.items(&render(&self.path)).len(),
        };
        for at in start.. {
            let Next::Node(item) = self.next() else {
                break;
            };
            self.path.push(Step::Index(at));
            let value = read(self, item);
            self.path.pop();
            if value.is_none() {
                self.unread.add_item(render(&self.path), at);
            }
            items.extend(value);
        }
    }

    // === Scalars ===

    /// A string. A plain scalar that resolves to another type is an error.
    pub(crate) fn string(&mut self, node: Node<'t>, expected: &str) -> Option<Cow<'t, str>> {
        match node.kind {
            Kind::Scalar { text, plain } if !plain || resolve(&text) == Plain::String => Some(text),
            Kind::Scalar { ref text, .. } if resolve(text) != Plain::Null => {
                self.mismatch(node, &format!("{expected} (quote it to make it a string)"));
                None
            }
            _ => {
                self.mismatch(node, expected);
                None
            }
        }
    }

    /// Any scalar as a string, also an unquoted number. No diagnostic quotes it.
    pub(crate) fn secret(&mut self, node: Node<'t>, expected: &str) -> Option<Cow<'t, str>> {
        match node.kind {
            Kind::Scalar { text, .. } => Some(text),
            _ => {
                self.mismatch(node, expected);
                None
            }
        }
    }

    /// A declared id or name. An unquoted number or boolean is reported and kept, so that
    /// references to it are not reported too.
    pub(crate) fn declared<T: FromStr>(
        &mut self,
        node: Node<'t>,
        read: impl FnOnce(&mut Self, Node<'t>) -> Option<T>,
    ) -> Option<T> {
        let unquoted = match &node.kind {
            Kind::Scalar { text, plain: true } => match resolve(text) {
                Plain::Null | Plain::String => None,
                _ => text.parse().ok(),
            },
            _ => None,
        };
        read(self, node).or(unquoted)
    }

    /// A string that `parse` accepts. An error of `parse` says what was expected.
    pub(crate) fn parse<T, E: std::fmt::Display>(
        &mut self,
        node: Node<'t>,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let mark = node.mark;
        let text = self.string(node, expected)?;
        match parse(&text) {
            Ok(value) => Some(value),
            Err(error) => {
                self.report(mark, quote(&text), format!("{expected} ({error})"));
                None
            }
        }
    }

    /// A name, description or purpose: see [`check_text`].
    pub(crate) fn text(&mut self, node: Node<'t>) -> Option<String> {
        self.parse(node, "a text", |text| check_text(text).map(|()| text.to_owned()))
    }

    /// A boolean.
    pub(crate) fn boolean(&mut self, node: Node<'t>) -> Option<bool> {
        if let Kind::Scalar { text, plain: true } = &node.kind
            && let Plain::Boolean(value) = resolve(text)
        {
            return Some(value);
        }
        self.mismatch(node, "true or false");
        None
    }

    /// Whether the node is this integer. Anything else is reported.
    pub(crate) fn exactly(&mut self, node: Node<'t>, wanted: i64) -> bool {
        if let Kind::Scalar { text, plain: true } = &node.kind
            && resolve(text) == Plain::Integer(Some(wanted))
        {
            return true;
        }
        self.mismatch(node, &format!("the number {wanted}"));
        false
    }

    /// A time in RFC 3339.
    pub(crate) fn timestamp(&mut self, node: Node<'t>) -> Option<Timestamp> {
        let mark = node.mark;
        let text = match node.kind {
            Kind::Scalar { text, plain } if !plain || resolve(&text) == Plain::String => text,
            _ => {
                // Without the advice of `string`: a number in quotes is no time either.
                self.mismatch(node, TIME);
                return None;
            }
        };
        match parse_timestamp(&text) {
            Ok(time) => Some(time),
            Err(expected) => {
                self.report(mark, quote(&text), expected);
                None
            }
        }
    }

    /// A mapping of attributes: any keys, each once; values as [`Self::attribute`] reads them.
    pub(crate) fn properties(&mut self, node: Node<'t>) -> Properties {
        self.named(node, "a mapping of attributes", "an attribute's name", |reader, value| {
            // An unreadable value is already reported.
            reader.attribute(value).unwrap_or(Attribute::Boolean(false))
        })
    }

    /// A mapping with any keys, each once. Empty for another node, which is reported.
    pub(crate) fn named<T>(
        &mut self,
        node: Node<'t>,
        expected: &str,
        expected_name: &str,
        mut read: impl FnMut(&mut Self, Node<'t>) -> T,
    ) -> BTreeMap<String, T> {
        let mut named = BTreeMap::new();
        if !matches!(node.kind, Kind::Mapping) {
            self.mismatch(node, expected);
            return named;
        }
        while let Next::Node(key) = self.next() {
            let mark = key.mark;
            let name =
                self.parse(key, expected_name, |text| check_name(text).map(|()| text.to_owned()));
            let Next::Node(value) = self.next() else {
                return named;
            };
            let value = read(self, value);
            let Some(name) = name else {
                continue;
            };
            match named.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(value);
                }
                Entry::Occupied(entry) => {
                    let found = format!("key {} again", quote(entry.key()));
                    self.report(mark, found, "each key once");
                }
            }
        }
        named
    }

    /// A string, a boolean or an integer within ±(2^53 − 1).
    pub(crate) fn attribute(&mut self, node: Node<'t>) -> Option<Attribute> {
        let mark = node.mark;
        if let Kind::Scalar { text, plain } = &node.kind {
            if !plain {
                return Some(Attribute::String(text.to_string()));
            }
            let integer = match resolve(text) {
                Plain::String => return Some(Attribute::String(text.to_string())),
                Plain::Boolean(value) => return Some(Attribute::Boolean(value)),
                Plain::Integer(value) => value.filter(|n| (-INTEGER_MAX..=INTEGER_MAX).contains(n)),
                Plain::Number(value) => whole(value),
                Plain::Null => None,
            };
            if let Some(integer) = integer {
                return Some(Attribute::Integer(integer));
            }
        }
        let found = node.describe();
        self.report(mark, found, "a string, a boolean or a whole number within 2^53 - 1");
        self.skip(&node);
        None
    }

    // === Reports ===

    /// Adds a diagnostic for the current field.
    pub(crate) fn report(
        &mut self,
        mark: Mark,
        found: impl Into<String>,
        expected: impl Into<String>,
    ) {
        let diagnostic = self.diagnostic(mark, found.into(), expected.into());
        self.diagnostics.push(diagnostic);
    }

    /// Adds a warning for the current field: it is valid, but certainly a mistake.
    pub(crate) fn warn(&mut self, mark: Mark, found: String, expected: &str) {
        if self.warnings.len() < DIAGNOSTICS_MAX {
            let diagnostic = self.diagnostic(mark, found, expected.into());
            self.warnings.push(diagnostic);
        }
    }

    fn diagnostic(&self, (line, column): Mark, found: String, expected: String) -> Diagnostic {
        Diagnostic { line, column, field: render(&self.path), found, expected }
    }

    /// Reports that a mapping has no such required key.
    pub(crate) fn missing(&mut self, mark: Mark, key: &str) {
        self.report(mark, format!("no `{key}`"), format!("the key `{key}`"));
    }

    /// Reports that a node has the wrong shape, and skips it.
    pub(crate) fn mismatch(&mut self, node: Node<'t>, expected: &str) {
        if !matches!(node.kind, Kind::Refused) {
            let found = node.describe();
            self.report(node.mark, found, expected);
        }
        self.skip(&node);
    }

    // === The stream ===

    /// Skips the rest of a node.
    pub(crate) fn skip(&mut self, node: &Node<'_>) {
        let mut depth = usize::from(matches!(node.kind, Kind::Sequence | Kind::Mapping));
        while depth > 0 {
            match self.next() {
                Next::Node(Node { kind: Kind::Sequence | Kind::Mapping, .. }) => depth += 1,
                Next::Node(_) => {}
                Next::Close => depth -= 1,
                Next::End => return,
            }
        }
    }

    fn skip_next(&mut self) {
        if let Next::Node(node) = self.next() {
            self.skip(&node);
        }
    }

    /// The next item of the stream. Reports anchors, tags, aliases and syntax errors.
    pub(crate) fn next(&mut self) -> Next<'t> {
        loop {
            if self.broken {
                return Next::End;
            }
            let Some(parser) = &mut self.parser else {
                return self.items.pop_front().unwrap_or(Next::End);
            };
            let (event, span) = match parser.next_event() {
                Some(Ok(event)) => event,
                Some(Err(error)) => {
                    self.broken = true;
                    let SyntaxError { mark, found, expected } =
                        explain(self.text, place(error.marker()), &error.info());
                    self.report(mark, found, expected);
                    return Next::End;
                }
                None => return Next::End,
            };
            let (anchor, tag) = (event.anchor_id().is_some(), event.tag().is_some());
            let mark = place(&span.start);
            let kind = match event {
                Event::Scalar(text, style, ..) => {
                    Kind::Scalar { text, plain: style == ScalarStyle::Plain }
                }
                Event::SequenceStart(..) => Kind::Sequence,
                Event::MappingStart(..) => Kind::Mapping,
                Event::Alias(_) | Event::UnresolvedAlias(_) => {
                    self.report(mark, "an alias", "the value itself");
                    Kind::Refused
                }
                Event::SequenceEnd | Event::MappingEnd => return Next::Close,
                Event::StreamEnd => return Next::End,
                _ => continue,
            };
            if anchor && !matches!(kind, Kind::Refused) {
                // The event after a node with an anchor has the anchor's position.
                let mark = match self.parser.as_mut().and_then(Parser::peek) {
                    Some(Ok((Event::Anchor(..), span))) => place(&span.start),
                    _ => mark,
                };
                self.report(mark, "an anchor", "a value without an anchor");
            }
            if tag {
                let mark = span.tag_start().map_or(mark, |marker| place(&marker));
                self.report(mark, "a tag", "a value without a tag");
            }
            return Next::Node(Node { mark, kind });
        }
    }
}

fn place(marker: &Marker) -> Mark {
    (marker.line(), marker.col() + 1)
}

fn render(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) if text.is_empty() => text.push_str(key),
            Step::Key(key) => text = text + "." + key,
            Step::Index(at) => text = format!("{text}[{at}]"),
        }
    }
    text
}
