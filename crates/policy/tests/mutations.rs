//! Documents of any bytes load or are refused by the rules of [`capstan_testkit::fuzz`].

#![expect(clippy::indexing_slicing, reason = "indexes are taken modulo the length")]

mod common;

use capstan_testkit::fuzz;
use common::{JSON, YAML};
use proptest::prelude::*;

const CATALOG: &str = r#"name: my-catalog
resources:
  - {name: record, purpose: business records, actions: [read, "write", delete]}
capabilities: [gulfstream]  # opaque
roles:
  - {name: reader, family: administrative, description: reads
      records, capabilities: [record.read]}
  - name: owner
    owner: true
    capabilities: [record.read, record.write, record.delete]
"#;
const TESTS: &str = "policy: policy.yaml
now: 2026-11-21T00:00:00Z
tests:
  - {identity: acme/ci, capability: repo.list, resource: acme/platform/nginx, allowed: true}
  - {identity: acme/ci, resource: acme/platform, capabilities: [apk.list, manifest.list]}
  - capability: repo.delete
    resource: acme/platform/nginx
    identities: [alice]
";

/// Pieces of text that have, or may have, a meaning in YAML.
const PIECES: [&str; 40] = [
    "&a ",
    "*a",
    "!!str ",
    "! ",
    "<<: ",
    "\t",
    "\n---\n",
    "\n...\n",
    "\0",
    "[",
    "]",
    "{",
    "}",
    "'",
    "\"",
    "|\n",
    ">-\n",
    "%YAML 1.2\n",
    "\u{feff}",
    "\r",
    "\r\n",
    "? ",
    ": ",
    "- ",
    ", ",
    "# ",
    "null",
    "~",
    "true",
    "0x1F",
    "1e309",
    "-9223372036854775808",
    "9007199254740993",
    "\\ud800",
    "\\",
    "\u{2028}",
    "\u{85}",
    "é",
    "😀",
    "2027-01-01T00:00:60Z",
];

#[derive(Clone, Debug)]
enum Change {
    Flip(usize, u8),
    Delete(usize, usize),
    Insert(usize, &'static str),
    RepeatLine(usize, usize),
    DropLine(usize),
    SwapLines(usize, usize),
    CutOff(usize),
}

fn any_change() -> impl Strategy<Value = Change> {
    let at = 0..4096usize;
    prop_oneof![
        (at.clone(), 1..=255u8).prop_map(|(at, bits)| Change::Flip(at, bits)),
        (at.clone(), 1..8usize).prop_map(|(at, length)| Change::Delete(at, length)),
        (at.clone(), prop::sample::select(&PIECES[..]))
            .prop_map(|(at, piece)| Change::Insert(at, piece)),
        (at.clone(), 1..4usize).prop_map(|(at, times)| Change::RepeatLine(at, times)),
        at.clone().prop_map(Change::DropLine),
        (at.clone(), at.clone()).prop_map(|(one, other)| Change::SwapLines(one, other)),
        at.prop_map(Change::CutOff),
    ]
}

fn changed(document: &str, changes: &[Change]) -> Vec<u8> {
    let mut bytes = document.as_bytes().to_vec();
    for change in changes {
        if bytes.is_empty() {
            break;
        }
        let length = bytes.len();
        let mut lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        let count = lines.len();
        match *change {
            Change::Flip(at, bits) => bytes[at % length] ^= bits,
            Change::Delete(at, many) => {
                let at = at % length;
                bytes.drain(at..length.min(at + many));
            }
            Change::Insert(at, piece) => {
                let at = at % length;
                bytes.splice(at..at, piece.bytes());
            }
            Change::RepeatLine(at, times) => {
                let again = vec![lines[at % count]; times];
                lines.splice(at % count..at % count, again);
                bytes = lines.concat();
            }
            Change::DropLine(at) => {
                lines.remove(at % count);
                bytes = lines.concat();
            }
            Change::SwapLines(one, other) => {
                lines.swap(one % count, other % count);
                bytes = lines.concat();
            }
            Change::CutOff(at) => bytes.truncate(at % length),
        }
    }
    bytes
}

const ROUTES: &str = include_str!("../../../fuzz/seeds/policy/routes.yaml");
const CALLERS: &str = include_str!("../../../fuzz/seeds/policy/callers.yaml");

/// Loads a document as each kind of document. True if it is a policy.
fn load_all(document: &[u8]) -> bool {
    let _ = (fuzz::policy_tests(document), fuzz::catalog(document));
    let _ = (fuzz::routes(document), fuzz::callers(document));
    fuzz::policy(document)
}

#[test]
fn the_documents_load_before_they_are_changed() {
    assert!(load_all(YAML.as_bytes()));
    assert!(load_all(JSON.as_bytes()));
    assert!(fuzz::catalog(CATALOG.as_bytes()));
    assert!(fuzz::policy_tests(TESTS.as_bytes()));
    assert!(fuzz::routes(ROUTES.as_bytes()));
    assert!(fuzz::callers(CALLERS.as_bytes()));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_bytes_are_refused(document in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(!load_all(&document));
    }

    #[test]
    fn random_text_is_refused(document in "\\PC{0,200}") {
        prop_assert!(!load_all(document.as_bytes()));
    }

    #[test]
    fn random_pieces_are_loaded_or_refused(
        pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40),
        indent in 0..4usize,
    ) {
        let body = pieces.join(&" ".repeat(indent));
        load_all(body.as_bytes());
        load_all(common::policy(&format!("groups: {body}")).as_bytes());
    }

    #[test]
    fn changed_policies_are_loaded_or_refused(
        changes in prop::collection::vec(any_change(), 1..6),
        json in any::<bool>(),
    ) {
        load_all(&changed(if json { JSON } else { YAML }, &changes));
    }

    #[test]
    fn changed_catalogs_are_loaded_or_refused(
        changes in prop::collection::vec(any_change(), 1..6),
    ) {
        load_all(&changed(CATALOG, &changes));
        let indented = CATALOG.replace('\n', "\n  ");
        let inline = format!("version: 1\ncatalog:\n  {indented}\ngroups: [{{id: a}}]\n");
        load_all(&changed(&inline, &changes));
    }

    #[test]
    fn changed_policy_tests_are_loaded_or_refused(
        changes in prop::collection::vec(any_change(), 1..6),
    ) {
        load_all(&changed(TESTS, &changes));
    }

    #[test]
    fn changed_route_tables_are_loaded_or_refused(
        changes in prop::collection::vec(any_change(), 1..6),
    ) {
        load_all(&changed(ROUTES, &changes));
    }

    #[test]
    fn changed_callers_are_loaded_or_refused(changes in prop::collection::vec(any_change(), 1..6)) {
        load_all(&changed(CALLERS, &changes));
    }
}
