//! Reads a policy in JSON piece by piece, without the text and without all of its facts at a time.
//!
//! ```text
//! bytes ──Window──▶ slice with whole items ──serde_json──▶ events of one item ──Reader──▶ one fact ──▶ sink
//! ```
//!
//! An item, such as a role binding, is judged by the same code as an item of a document that is read whole; only the
//! events come from elsewhere. They have no positions. Their texts are parts of the window, unless they have escapes.
//!
//! **Invariant**: what is accepted here, [`load_policy`](crate::load_policy) accepts, with the same facts. What is
//! not accepted is to be read whole, which may accept it: YAML, and whatever has a warning or no catalog before its
//! facts. Where the window begins and ends makes no difference, unless an item is longer than a window can be.

mod events;
mod window;

use std::fmt;
use std::io;
use std::sync::Arc;

use capstan_engine::{Catalog, FactSink};

use crate::catalog::Catalogs;
use crate::credentials::{Credentials, CredentialsDraft};
use crate::details::Details;
use crate::policy::{
    Source, read_custom_role, read_group, read_identity, read_registered, read_role_binding,
    read_source,
};
use crate::reader::{Next, Node, Reader};
use events::{read_events, read_key};
use window::{Stop, Window, blanks};

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

impl NotStreamed {
    fn because(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

impl fmt::Display for NotStreamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotStreamed {}

/// Reads a policy in JSON, and hands its facts to the sink that `start` makes for its catalog. What the document says
/// beside its facts (descriptions, and how identities authenticate) is checked and dropped.
///
/// The document is read in large parts, so it needs no buffer. Memory is needed for one part of the document, or for one
/// item of a list if that is longer, for the catalog and for the credentials.
///
/// # Errors
///
/// Whatever has to be read whole, see [`load_policy`](crate::load_policy): a document that is not JSON, has a
/// mistake or a warning, declares facts before its catalog, has an item of more than 16 MiB, or whose facts the sink
/// refuses. The sink is dropped.
pub fn stream_policy<S: FactSink>(
    document: impl io::Read,
    catalogs: &Catalogs,
    start: impl FnOnce(Arc<Catalog>) -> S,
) -> Result<Streamed<S>, NotStreamed> {
    read_document(Window::new(document), catalogs, start)
}

fn read_document<R: io::Read, S: FactSink>(
    mut window: Window<R>,
    catalogs: &Catalogs,
    start: impl FnOnce(Arc<Catalog>) -> S,
) -> Result<Streamed<S>, NotStreamed> {
    let (mut start, mut sink) = (Some(start), None);
    let mut credentials = CredentialsDraft::default();
    let mut seen = Vec::new();
    window.expect(b'{')?;
    let mut has_more = !window.accept(b'}')?;
    while has_more {
        let key = window.value(read_key)?;
        window.expect(b':')?;
        if seen.contains(&key) {
            return Err(NotStreamed::because("a key again"));
        }
        let items = Items { window: &mut window, sink: sink.as_mut() };
        match &*key {
            "version" => items.window.value(read_version)?,
            "catalog" => {
                let catalog = items.window.value(|bytes| read_any_catalog(bytes, catalogs))?;
                sink = start.take().map(|start| start(catalog));
            }
            "groups" => items.read(|reader, node| fact(read_group(reader, node)), S::group)?,
            "roles" => items.read(read_custom_role, S::role)?,
            "identities" => {
                items.read(|reader, node| fact(read_identity(reader, node)), S::identity)?;
            }
            "role_bindings" => {
                items
                    .read(|reader, node| fact(read_role_binding(reader, node)), S::role_binding)?;
            }
            "resources" => {
                items.read(|reader, node| fact(read_registered(reader, node)), S::resource)?;
            }
            "credentials" => read_list(&mut window, |reader, node| {
                let read = credentials.read_item(reader, node);
                read.ok_or_else(|| NotStreamed::because("a mistake"))
            })?,
            _ => return Err(NotStreamed::because("an unknown key")),
        }
        seen.push(key);
        has_more = window.accept(b',')?;
        if !has_more {
            window.expect(b'}')?;
        }
    }
    window.end()?;
    let sink = sink.filter(|_| seen.iter().any(|key| &**key == "version"));
    let sink = sink.ok_or_else(|| NotStreamed::because("no version or no catalog"))?;
    let credentials = credentials.proved(&sink);
    let credentials =
        credentials.ok_or_else(|| NotStreamed::because("a credential of an unknown identity"))?;
    Ok(Streamed { sink, credentials })
}

/// The fact without its details, which a sink does not take.
fn fact<T>(read: Option<(T, Details)>) -> Option<T> {
    read.map(|(fact, _)| fact)
}

fn is_clean(reader: &Reader<'_>) -> Result<(), NotStreamed> {
    let why = "a mistake or a warning";
    if reader.is_clean() { Ok(()) } else { Err(NotStreamed::because(why)) }
}

/// The version, which is 1.
fn read_version(bytes: &[u8]) -> Result<((), usize), Stop> {
    let mut reader = Reader::of_items();
    let length = read_events(bytes, reader.items())?;
    if let Next::Node(node) = reader.next() {
        reader.exactly(node, 1);
    }
    is_clean(&reader)?;
    Ok(((), length))
}

/// A catalog by its name, or a whole one.
fn read_any_catalog(bytes: &[u8], catalogs: &Catalogs) -> Result<(Arc<Catalog>, usize), Stop> {
    let none = || NotStreamed::because("no catalog");
    let mut reader = Reader::of_items();
    let length = read_events(bytes, reader.items())?;
    let Next::Node(node) = reader.next() else { return Err(none().into()) };
    let source = read_source(&mut reader, node, catalogs);
    is_clean(&reader)?;
    let catalog = match source {
        Some(Source::Named(catalog)) => Some(catalog),
        Some(Source::Inline(draft)) => draft.proved().map(Arc::new),
        None => None,
    };
    Ok((catalog.ok_or_else(none)?, length))
}

/// What the facts of one list need.
struct Items<'r, R, S> {
    window: &'r mut Window<R>,
    sink: Option<&'r mut S>,
}

impl<R: io::Read, S: FactSink> Items<'_, R, S> {
    /// Reads a list of facts into the sink.
    fn read<T>(
        self,
        read: for<'w> fn(&mut Reader<'w>, Node<'w>) -> Option<T>,
        put: fn(&mut S, T) -> Result<(), S::Error>,
    ) -> Result<(), NotStreamed> {
        let sink = self.sink.ok_or_else(|| NotStreamed::because("facts before the catalog"))?;
        read_list(self.window, |reader, node| {
            let fact = read(reader, node).ok_or_else(|| NotStreamed::because("a mistake"))?;
            is_clean(reader)?;
            put(sink, fact).map_err(NotStreamed::because)
        })
    }
}

/// Reads a list, of which one item at a time is in memory besides the window.
fn read_list<R: io::Read>(
    window: &mut Window<R>,
    mut each: impl for<'w> FnMut(&mut Reader<'w>, Node<'w>) -> Result<(), NotStreamed>,
) -> Result<(), NotStreamed> {
    window.expect(b'[')?;
    if window.accept(b']')? {
        return Ok(());
    }
    loop {
        let (length, is_end) = read_items(window.bytes(), &mut each)?;
        window.advance(length);
        if is_end {
            return Ok(());
        }
        window.more()?;
    }
}

/// Reads the items whose end is within these bytes. Returns the bytes that they take with what follows each, and
/// whether that was the end of the list.
fn read_items<'w>(
    bytes: &'w [u8],
    each: &mut impl FnMut(&mut Reader<'w>, Node<'w>) -> Result<(), NotStreamed>,
) -> Result<(usize, bool), NotStreamed> {
    let mut reader = Reader::of_items();
    let mut start = 0;
    loop {
        reader.items().clear();
        let rest = bytes.get(start..).unwrap_or_default();
        let length = match read_events(rest, reader.items()) {
            Ok(length) => length,
            Err(Stop::Incomplete) => return Ok((start, false)),
            Err(Stop::Refused(why)) => return Err(why),
        };
        let end = length + blanks(rest.iter().skip(length));
        let is_end = match rest.get(end) {
            // A number may go on behind the window.
            None => return Ok((start, false)),
            Some(b',') => false,
            Some(b']') => true,
            Some(_) => return Err(NotStreamed::because("no comma behind an item")),
        };
        if let Next::Node(node) = reader.next() {
            each(&mut reader, node)?;
        }
        is_clean(&reader)?;
        start += end + 1;
        if is_end {
            return Ok((start, true));
        }
    }
}

#[cfg(test)]
mod tests;
