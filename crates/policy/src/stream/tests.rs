//! Where a window begins and ends, and in which parts a document arrives, makes no difference.

use std::io::Read;

use capstan_engine::Facts;
use proptest::prelude::*;

use super::window::{WINDOW_BYTES, WINDOW_BYTES_MAX};
use super::*;
use crate::load_policy;

/// Everything that a document can have, with escapes, blanks, numbers and characters of several bytes.
const DOCUMENT: &str = r#" {"version" :1, "catalog": {"name": "c\u0061", "roles": [
  {"name": "owner", "capabilities": ["record.read"]}], "resources": [{"name": "record", "actions": ["read"]}]},
"groups": [ {"id": "acme", "name": "it's \u00fc \uD83D\uDE00 ü 😀"} ,{"id": "acme\/dev"}],"roles":[],
"identities":[{"id":"alice","properties":{"on":true,"off":false,"level":-7,"big":9.007199254740991e15,
  "text": "1\\2\"3", "a b": "", "[]{}": ",:"}}, {"\u0069d": "bob", "type": "service"}],
"role_bindings": [
{"identity": "alice", "role": "owner", "scope": "acme", "expires_at": "2027-01-01T00:00:00Z",
 "when": [{"attribute": "resource.status", "not_equals": "archived"}, {"attribute": "context.n", "equals": 12}]},
{"id": "acme/dev/b", "identity": "bob", "role": "owner", "scope": "acme/dev"}],
"resources": [{"id": "acme/dev/web", "type": "repo"}],
"credentials": [{"identity": "bob", "sha256":
  "2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"}] }
"#;

/// A document that arrives in parts of at most so many bytes.
struct Parts<'d>(&'d [u8], usize);

impl Read for Parts<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(buffer.len());
        (&mut self.0).take(count as u64).read(buffer)
    }
}

/// The facts, catalog and credentials of a document that is read with a window of so many bytes at first.
fn read(document: &[u8], window: usize, part: usize) -> Option<(String, Credentials)> {
    let mut known = None;
    let window = Window::with_bytes(Parts(document, part), window);
    let read = read_document(window, &Catalogs::default(), |catalog| {
        known = Some(catalog);
        Facts::default()
    });
    let Streamed { sink, credentials } = read.ok()?;
    Some((format!("{:?} {sink:#?}", known?.facts()), credentials))
}

#[test]
fn windows_of_any_size_read_the_same() {
    let policy = load_policy(DOCUMENT.as_bytes(), &Catalogs::default()).unwrap();
    let catalog = policy.model.catalog().facts();
    let whole = (format!("{catalog:?} {:#?}", policy.model.facts()), policy.credentials);
    for window in 0..DOCUMENT.len() + 2 {
        for part in [1, 7, usize::MAX] {
            let read = read(DOCUMENT.as_bytes(), window, part);
            assert_eq!(read.as_ref(), Some(&whole), "window {window}, parts of {part}");
        }
    }
}

/// No beginning of a document is a document.
#[test]
fn a_document_that_ends_early_is_refused_by_windows_of_any_size() {
    let document = DOCUMENT.trim_end().as_bytes();
    for end in 0..document.len() {
        for window in [1, 64, end, WINDOW_BYTES] {
            assert_eq!(read(&document[..end], window, usize::MAX), None, "{end}, {window}");
        }
    }
}

proptest! {
    /// A document with some other bytes is the same for windows of any size, and whatever is read is a policy.
    #[test]
    fn changed_documents_read_the_same(
        changes in prop::collection::vec(
            (0..DOCUMENT.len(), 0..3usize, prop::sample::select(&b"[]{},:\"\\ \n0123-eut\xc3\xbc"[..])),
            1..4,
        ),
        window in 1..DOCUMENT.len(),
        part in 1..300usize,
    ) {
        let mut document = DOCUMENT.as_bytes().to_vec();
        for (at, removed, byte) in changes {
            let at = at.min(document.len());
            let end = (at + removed).min(document.len());
            document.splice(at..end, [byte]);
        }
        let streamed = read(&document, window, part);
        prop_assert_eq!(&streamed, &read(&document, WINDOW_BYTES, usize::MAX));
        if let Some((facts, credentials)) = streamed
            && let Ok(policy) = load_policy(&document, &Catalogs::default())
        {
            let catalog = policy.model.catalog().facts();
            prop_assert_eq!(facts, format!("{catalog:?} {:#?}", policy.model.facts()));
            prop_assert_eq!(credentials, policy.credentials);
        }
    }
}

/// An item may be as long as the window can be, with the byte behind it.
#[test]
fn a_window_grows_up_to_a_limit() {
    let read = |bytes: usize| {
        let (start, end) = (r#"{"id": "a/b", "capabilities": [""#, "\"]}");
        let text = "n".repeat(bytes - start.len() - end.len());
        let item = format!("{start}{text}{end}");
        let document = format!(
            r#"{{"version": 1, "catalog": "chainguard-2025-08-14+errata", "roles": [{item}]}}"#
        );
        let window = Window::new(document.as_bytes());
        let read = read_document(window, &Catalogs::default(), |_| Facts::default());
        read.map(|read| read.sink.roles.len()).map_err(|why| why.to_string())
    };
    for bytes in [WINDOW_BYTES - 1, WINDOW_BYTES, WINDOW_BYTES + 1, WINDOW_BYTES_MAX - 1] {
        assert_eq!(read(bytes), Ok(1), "{bytes}");
    }
    assert_eq!(read(WINDOW_BYTES_MAX), Err("a value is too long".into()));
}
