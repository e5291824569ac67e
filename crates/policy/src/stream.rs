//! Reads a policy in JSON piece by piece, without the text and without all of its facts at a time.
//!
//! ```text
//! bytes ──serde_json──▶ events of one item ──Reader──▶ one fact ──▶ sink
//! ```
//!
//! An item, such as a role binding, is judged by the same code as an item of a document that is read whole; only the
//! events come from elsewhere. They have no positions.
//!
//! **Invariant**: what is accepted here, [`load_policy`](crate::load_policy) accepts, with the same facts. What is
//! not accepted is to be read whole, which may accept it: YAML, and whatever has a warning or no catalog before its
//! facts.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufReader};
use std::sync::Arc;

use capstan_engine::{Catalog, FactSink};
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::catalog::Catalogs;
use crate::credentials::{Credentials, CredentialsDraft};
use crate::policy::{
    Source, read_custom_role, read_group, read_identity, read_registered, read_role_binding,
    read_source,
};
use crate::reader::{Kind, Next, Node, Reader};

/// Bytes of a document that are read at a time.
const READ_BYTES: usize = 64 * 1024;

/// A policy whose facts went to a sink.
#[derive(Debug)]
pub struct Streamed<S> {
    /// The sink, which has all facts.
    pub sink: S,
    /// The credentials, by hash.
    pub credentials: Credentials,
}

/// A document is not read piece by piece. It may be a policy all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotStreamed(String);

impl fmt::Display for NotStreamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotStreamed {}

/// Reads a policy in JSON, and hands its facts to the sink that `start` makes for its catalog.
///
/// The document is read in large parts, so it needs no buffer. Memory is needed for one item of a list at a time, for the catalog and for the credentials.
///
/// # Errors
///
/// Whatever has to be read whole, see [`load_policy`](crate::load_policy): a document that is not JSON, has a
/// mistake or a warning, declares facts before its catalog, or whose facts the sink refuses. The sink is
/// dropped.
pub fn stream_policy<S: FactSink>(
    document: impl io::Read,
    catalogs: &Catalogs,
    start: impl FnOnce(Arc<Catalog>) -> S,
) -> Result<Streamed<S>, NotStreamed> {
    let document = BufReader::with_capacity(READ_BYTES, Close { document, blanks: 0 });
    let mut json = serde_json::Deserializer::from_reader(document);
    let document = Document { reader: Reader::of_items(), catalogs, start };
    let read = json.deserialize_map(document);
    let read = read.and_then(|streamed| json.end().map(|()| streamed));
    read.map_err(|error| NotStreamed(error.to_string()))
}

/// The mapping of the whole document.
struct Document<'c, F> {
    reader: Reader<'static>,
    catalogs: &'c Catalogs,
    start: F,
}

impl<'de, S: FactSink, F: FnOnce(Arc<Catalog>) -> S> Visitor<'de> for Document<'_, F> {
    type Value = Streamed<S>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a policy")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Streamed<S>, A::Error> {
        let Self { mut reader, catalogs, start } = self;
        let (mut start, mut sink) = (Some(start), None);
        let mut credentials = CredentialsDraft::default();
        let mut seen = Vec::new();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            if seen.contains(&key) {
                return Err(A::Error::custom("a key again"));
            }
            let mut items = Items { reader: &mut reader, sink: sink.as_mut() };
            match &*key {
                "version" => {
                    items.value(&mut map)?;
                    if let Next::Node(node) = reader.next() {
                        reader.exactly(node, 1);
                    }
                    is_clean(&reader)?;
                }
                "catalog" => {
                    items.value(&mut map)?;
                    let Next::Node(node) = reader.next() else {
                        return Err(A::Error::custom("no catalog"));
                    };
                    let source = read_source(&mut reader, node, catalogs);
                    is_clean(&reader)?;
                    let catalog = match source {
                        Some(Source::Named(catalog)) => Some(catalog),
                        Some(Source::Inline(draft)) => draft.proved().map(Arc::new),
                        None => None,
                    };
                    let catalog = catalog.ok_or_else(|| A::Error::custom("no catalog"))?;
                    sink = start.take().map(|start| start(catalog));
                }
                "groups" => items.read(&mut map, read_group, S::group)?,
                "roles" => items.read(&mut map, read_custom_role, S::role)?,
                "identities" => items.read(&mut map, read_identity, S::identity)?,
                "role_bindings" => items.read(&mut map, read_role_binding, S::role_binding)?,
                "resources" => items.read(&mut map, read_registered, S::resource)?,
                "credentials" => {
                    let read = |reader: &mut _, node| credentials.read_item(reader, node);
                    items.read_without_sink(&mut map, read)?;
                }
                _ => return Err(A::Error::custom("an unknown key")),
            }
            seen.push(key);
        }
        let sink = sink.filter(|_| seen.iter().any(|key| key == "version"));
        let sink = sink.ok_or_else(|| A::Error::custom("no version or no catalog"))?;
        let credentials = credentials.proved(&sink);
        let credentials =
            credentials.ok_or_else(|| A::Error::custom("a credential of an unknown identity"))?;
        Ok(Streamed { sink, credentials })
    }
}

fn is_clean<E: Error>(reader: &Reader<'_>) -> Result<(), E> {
    if reader.is_clean() { Ok(()) } else { Err(E::custom("a mistake or a warning")) }
}

/// What the items of one list need.
struct Items<'r, S> {
    reader: &'r mut Reader<'static>,
    sink: Option<&'r mut S>,
}

impl<S: FactSink> Items<'_, S> {
    /// Reads one value whole into events.
    fn value<'de, A: MapAccess<'de>>(&mut self, map: &mut A) -> Result<(), A::Error> {
        map.next_value_seed(Events(self.reader.items()))
    }

    /// Reads a list of facts into the sink.
    fn read<'de, A: MapAccess<'de>, T>(
        self,
        map: &mut A,
        read: fn(&mut Reader<'static>, Node<'static>) -> Option<T>,
        put: fn(&mut S, T) -> Result<(), S::Error>,
    ) -> Result<(), A::Error> {
        let Self { reader, sink } = self;
        let sink = sink.ok_or_else(|| A::Error::custom("facts before the catalog"))?;
        let each = |reader: &mut Reader<'static>, node| {
            let fact = read(reader, node).ok_or_else(|| String::from("a mistake"))?;
            if !reader.is_clean() {
                return Err("a mistake or a warning".into());
            }
            put(sink, fact).map_err(|error| error.to_string())
        };
        map.next_value_seed(List { reader, each })
    }

    /// Reads a list of something else.
    fn read_without_sink<'de, A: MapAccess<'de>>(
        self,
        map: &mut A,
        mut read: impl FnMut(&mut Reader<'static>, Node<'static>) -> Option<()>,
    ) -> Result<(), A::Error> {
        let each = |reader: &mut Reader<'static>, node| {
            let is_read = read(reader, node).is_some() && reader.is_clean();
            if is_read { Ok(()) } else { Err("a mistake".into()) }
        };
        map.next_value_seed(List { reader: self.reader, each })
    }
}

/// A list, of which one item at a time is in memory.
struct List<'r, F> {
    reader: &'r mut Reader<'static>,
    each: F,
}

impl<'de, F> DeserializeSeed<'de> for List<'_, F>
where
    F: FnMut(&mut Reader<'static>, Node<'static>) -> Result<(), String>,
{
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, list: D) -> Result<(), D::Error> {
        list.deserialize_seq(self)
    }
}

impl<'de, F> Visitor<'de> for List<'_, F>
where
    F: FnMut(&mut Reader<'static>, Node<'static>) -> Result<(), String>,
{
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Events(self.reader.items()))?.is_some() {
            if let Next::Node(node) = self.reader.next() {
                (self.each)(self.reader, node).map_err(A::Error::custom)?;
            }
        }
        Ok(())
    }
}

/// The events of one value, as the reader takes them.
struct Events<'e>(&'e mut VecDeque<Next<'static>>);

impl Events<'_> {
    fn push(&mut self, kind: Kind<'static>) {
        self.0.push_back(Next::Node(Node { mark: (0, 0), kind }));
    }

    fn plain<E>(mut self, text: impl Into<Cow<'static, str>>) -> Result<(), E> {
        self.push(Kind::Scalar { text: text.into(), plain: true });
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Events<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<(), D::Error> {
        value.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Events<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.plain(if value { "true" } else { "false" })
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.plain(value.to_string())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        self.plain(value.to_string())
    }

    /// The text is another one than that of the document, with the same value.
    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        self.plain(format!("{value:?}"))
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.plain("null")
    }

    fn visit_str<E: Error>(mut self, text: &str) -> Result<(), E> {
        self.push(Kind::Scalar { text: Cow::Owned(checked(text)?.into()), plain: false });
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.push(Kind::Sequence);
        while list.next_element_seed(Events(self.0))?.is_some() {}
        self.0.push_back(Next::Close);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.push(Kind::Mapping);
        while map.next_key_seed(Key(self.0))?.is_some() {
            map.next_value_seed(Events(self.0))?;
        }
        self.0.push_back(Next::Close);
        Ok(())
    }
}

/// A key of a mapping. Frequent ones are not copied.
struct Key<'e>(&'e mut VecDeque<Next<'static>>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<(), D::Error> {
        key.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<(), E> {
        let text = match key {
            "id" => Cow::Borrowed("id"),
            "identity" => Cow::Borrowed("identity"),
            "role" => Cow::Borrowed("role"),
            "scope" => Cow::Borrowed("scope"),
            "expires_at" => Cow::Borrowed("expires_at"),
            "name" => Cow::Borrowed("name"),
            "type" => Cow::Borrowed("type"),
            _ if key.len() > KEY_BYTES_MAX => return Err(E::custom("a long key")),
            _ => Cow::Owned(checked(key)?.into()),
        };
        let kind = Kind::Scalar { text, plain: false };
        self.0.push_back(Next::Node(Node { mark: (0, 0), kind }));
        Ok(())
    }
}

/// Longest key of a mapping, in bytes, and most blanks one behind the other. YAML has at most 1,024 characters from
/// the start of a key to its colon, blanks and escapes included: a character of one byte can take six.
const KEY_BYTES_MAX: usize = 100;
const BLANKS_MAX: usize = 255;

/// Refuses a document with too many blanks in one place.
struct Close<R> {
    document: R,
    /// Blanks at the end of what was read.
    blanks: usize,
}

impl<R: io::Read> io::Read for Close<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.document.read(buffer)?;
        let read = buffer.get(..count).unwrap_or_default();
        if has_many_blanks(self.blanks, read) {
            return Err(io::Error::other("too many blanks in one place"));
        }
        let blanks = blanks(read.iter().rev());
        self.blanks = if blanks == count { self.blanks + blanks } else { blanks };
        Ok(count)
    }
}

/// Whether there are more blanks than [`BLANKS_MAX`] one behind the other. `before` of them are before the bytes.
fn has_many_blanks(before: usize, bytes: &[u8]) -> bool {
    if before + blanks(bytes.iter()) > BLANKS_MAX {
        return true;
    }
    // Many blanks include one of these places.
    (BLANKS_MAX..bytes.len()).step_by(BLANKS_MAX + 1).any(|at| {
        let (before, after) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
        let after = blanks(after.iter());
        after > 0 && blanks(before.iter().rev()) + after > BLANKS_MAX
    })
}

/// How many bytes are blanks before the first that is not.
fn blanks<'b>(bytes: impl Iterator<Item = &'b u8>) -> usize {
    bytes.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// Refuses a text with U+FFFE or U+FFFF: JSON may have them, YAML only escaped.
fn checked<E: Error>(text: &str) -> Result<&str, E> {
    if text.contains(['\u{fffe}', '\u{ffff}']) {
        return Err(E::custom("a character that YAML does not have"));
    }
    Ok(text)
}
