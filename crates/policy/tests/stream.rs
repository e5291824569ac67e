//! A policy that is read piece by piece is the same as one that is read whole. What is not read piece by piece is
//! read whole.

mod common;

use std::io::Read;

use capstan_engine::{Facts, LoadError, Loader};
use capstan_policy::{Credentials, NotStreamed, Streamed, load_policy, stream_policy};
use common::{CATALOGS, JSON, YAML, facts};

/// The facts and credentials of a document that is read piece by piece.
fn streamed(document: &str) -> Result<(String, Credentials), NotStreamed> {
    let streamed = stream_policy(document.as_bytes(), &CATALOGS, |_| Facts::default());
    streamed.map(|Streamed { sink, credentials }| (format!("{sink:#?}"), credentials))
}

/// Expects the same facts and credentials, however the document is read.
fn check_streamed(document: &str) {
    let whole = load_policy(document.as_bytes(), &CATALOGS);
    let whole = whole.map(|policy| (format!("{:#?}", policy.model.facts()), policy.credentials));
    assert_eq!(streamed(document).ok(), whole.ok(), "{document}");
    assert!(streamed(document).is_ok(), "{document}");
}

/// Expects that the document is a policy, and is read whole.
fn check_whole(document: &str) {
    assert!(load_policy(document.as_bytes(), &CATALOGS).is_ok(), "{document}");
    assert!(streamed(document).is_err(), "{document}");
}

/// A document in JSON with this behind its version and catalog.
fn json(rest: &str) -> String {
    format!("{{\"version\": 1, \"catalog\": \"test\"{rest}}}")
}

#[test]
fn json_is_streamed() {
    assert_eq!(streamed(JSON).map(|(facts, _)| facts), Ok(facts(YAML)));
    check_streamed(JSON);
    check_streamed(&json(""));
    check_streamed(&format!(" \n\t\r\n{}\n\n", json("")));
    check_streamed(&JSON.replace('\n', "\r\n"));
    check_streamed(&JSON.replace("\"id\"", r#""\u0069d""#));
    check_streamed(&JSON.replace(['\t', '\n'], "").replace(": ", ":").replace(", ", ","));
    for number in ["-0", "1E3", "10.0", "-9007199254740991", "9007199254740991", "1.5e1"] {
        check_streamed(&JSON.replace("-7", number));
    }
    check_streamed(&json(
        ", \"credentials\": [{\"identity\": \"a\", \"sha256\": \
         \"2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90\"}], \
         \"identities\": [{\"id\": \"a\"}]",
    ));
}

#[test]
fn an_inline_catalog_is_streamed() {
    check_streamed(
        "{\"catalog\": {\"name\": \"c\", \"roles\": [{\"name\": \"r\", \"capabilities\": [\"x.y\"]}], \
         \"resources\": [{\"name\": \"x\", \"actions\": [\"y\"]}]}, \"version\": 1}",
    );
}

/// Every character, written and escaped, is read alike. YAML has fewer than JSON unless they are escaped.
#[test]
fn every_character_is_read_alike() {
    let mut whole = Vec::new();
    // All of the first plane that are special, and a sample of the others.
    let special = (0..0x3100).chain(0xd7f0..=0xffff).chain((0x1_0000..=0x10_ffff).step_by(0x3fd));
    for c in special.filter_map(char::from_u32) {
        let mut units = [0; 2];
        let units = c.encode_utf16(&mut units).iter();
        let escaped: String = units.map(|unit| format!("\\u{unit:04x}")).collect();
        for text in [c.to_string(), escaped] {
            // A name has no control characters, so they are in values only.
            let name = if c.is_control() { "" } else { &*text };
            let identity =
                format!("{{\"id\": \"a\", \"properties\": {{\"k{name}\": \"{text}v\"}}}}");
            let document = json(&format!(", \"identities\": [{identity}]"));
            let read = load_policy(document.as_bytes(), &CATALOGS).ok();
            let read = read.map(|policy| format!("{:#?}", policy.model.facts()));
            match streamed(&document) {
                Ok((facts, _)) => assert_eq!(Some(facts), read, "{c:?}"),
                Err(_) if read.is_some() => whole.push((c, text.len() > c.len_utf8())),
                Err(_) => {}
            }
        }
    }
    // A tab or a line break in a string is YAML, and not JSON. What YAML has only escaped is read whole even then.
    let escaped = ('\u{7f}'..='\u{84}').chain('\u{86}'..='\u{9f}').chain('\u{fffe}'..='\u{ffff}');
    let expected: Vec<_> = ['\t', '\n', '\r']
        .map(|c| (c, false))
        .into_iter()
        .chain(escaped.map(|c| (c, true)))
        .collect();
    assert_eq!(whole, expected);
}

#[test]
fn what_is_not_json_is_read_whole() {
    check_whole(YAML);
    check_whole(&format!("\u{feff}{JSON}"));
    check_whole(&JSON.replacen("1,", "1, # one", 1));
    check_whole(&JSON.replacen("{\"id\": \"acme\\/dev\"", "{id: acme/dev", 1));
}

/// Rare documents in JSON are read whole, too: none is refused because of that.
#[test]
fn some_json_is_read_whole() {
    // Its warning has a position.
    check_whole(&json(
        ", \"groups\": [{\"id\": \"a\"}], \"roles\": [{\"id\": \"a/r\", \"capabilities\": []}]",
    ));
    check_whole("{\"groups\": [], \"version\": 1, \"catalog\": \"test\"}");
    // A number that is a hash, with its digits.
    let hash = "1".repeat(64);
    check_whole(&json(&format!(
        ", \"identities\": [{{\"id\": \"a\"}}], \"credentials\": [{{\"identity\": \"a\", \
         \"sha256\": {hash}}}]"
    )));
}

/// A mistake anywhere is found by the reader that knows positions.
#[test]
fn mistakes_are_not_streamed() {
    let group = |text: &str| json(&format!(", \"groups\": [{text}]"));
    for document in [
        "",
        "{}",
        "[]",
        "null",
        "{\"version\": 1}",
        "{\"catalog\": \"test\"}",
        "{\"version\": 2, \"catalog\": \"test\"}",
        "{\"version\": 1.0, \"catalog\": \"test\"}",
        "{\"version\": 1, \"catalog\": \"none\"}",
        "{\"version\": 1, \"catalog\": {\"nome\": \"c\"}}",
        &json(", \"groups\": null"),
        &json(", \"groups\": {}"),
        &json(", \"groups\": [], \"groups\": []"),
        &json(", \"unknown\": []"),
        &json(", \"credentials\": [{}]"),
        &json(
            ", \"credentials\": [{\"identity\": \"a\", \"sha256\": \
             \"2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90\"}]",
        ),
        &format!("{JSON}{JSON}"),
        JSON.trim_end().trim_end_matches('}'),
        &JSON.replacen("-7", "1e309", 1),
        &JSON.replacen("-7", "9007199254740992", 1),
        &JSON.replacen("-7", "0.5", 1),
        &JSON.replacen(r"\uDE00", "", 1),
        &group("17"),
        &group("null"),
        &group("{\"id\": 17}"),
        &group("{\"id\": \"a\", \"id\": \"a\"}"),
        &group("{\"id\": \"a\", \"unknown\": 1}"),
        &group("{\"id\": \"a//b\"}"),
        &group(&format!("{{\"id\": \"a\", \"name\": \"{}\"}}", "n".repeat(1025))),
        &group(&format!("{}{}", "[".repeat(40), "]".repeat(40))),
        &group(&format!("{}{}", "[".repeat(4_000), "]".repeat(4_000))),
    ] {
        assert!(load_policy(document.as_bytes(), &CATALOGS).is_err(), "{document}");
        assert!(streamed(document).is_err(), "{document}");
    }
    let longest = "n".repeat(1024);
    check_streamed(&group(&format!("{{\"id\": \"a\", \"name\": \"{longest}\"}}")));
}

/// YAML has at most 1,024 characters before a colon.
#[test]
fn long_keys_and_many_blanks_are_read_whole() {
    let named = |name: &str| {
        let properties = format!("{{\"id\": \"a\", \"properties\": {{\"{name}\": 1}}}}");
        json(&format!(", \"identities\": [{properties}]"))
    };
    check_streamed(&named(&"\\u006e".repeat(100)));
    check_whole(&named(&"n".repeat(101)));
    assert!(streamed(&named(&"\\u006e".repeat(1024))).is_err());
    for blank in [" ", "\t", "\n", "\r"] {
        // At any distance from the end of a buffer.
        for first in (0..300).step_by(7) {
            let with = |blanks: usize| {
                let start = "x".repeat(first);
                let description = format!("{{\"id\": \"a\", \"name\": \"{start}\"}}");
                let blanks = blank.repeat(blanks);
                json(&format!(", \"groups\": [{description}], \"roles\"{blanks}: []"))
            };
            check_streamed(&with(255));
            check_whole(&with(256));
        }
    }
    // Even a reader of the whole bounds what is between a key and its colon: by the longest key with escapes.
    let with = |blanks: usize| json(&format!(", \"roles\"{}: []", " ".repeat(blanks)));
    assert!(load_policy(with(1_020).as_bytes(), &CATALOGS).is_ok());
    assert!(load_policy(with(6 * 1_024).as_bytes(), &CATALOGS).is_err());
}

/// A document arrives in parts of any size.
#[test]
fn parts_of_any_size_are_read() {
    struct Parts<'d>(&'d [u8], usize);
    impl Read for Parts<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.1.min(buffer.len());
            (&mut self.0).take(count as u64).read(buffer)
        }
    }
    let document = |blanks: usize| json(&format!(", \"groups\"{}: []", " ".repeat(blanks)));
    for size in [1, 2, 3, 7, 100, 254, 255, 256, 257, 1_000] {
        for (blanks, expected) in [(0, true), (255, true), (256, false), (3_000, false)] {
            let document = document(blanks);
            let parts = Parts(document.as_bytes(), size);
            let read = stream_policy(parts, &CATALOGS, |_| Facts::default());
            assert_eq!(read.is_ok(), expected, "{blanks} blanks in parts of {size}");
        }
    }
}

/// The loader says why it refuses facts, and that it needs all facts together.
#[test]
fn the_loader_refuses_what_breaks_a_rule() {
    let load = |rest: &str| {
        let streamed = stream_policy(json(rest).as_bytes(), &CATALOGS, Loader::new);
        match streamed {
            Ok(streamed) => streamed.sink.finish(1).map(|_| ()).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    };
    let binding = "{\"identity\": \"i\", \"role\": \"owner\", \"scope\": \"a\"}";
    let declared = "\"identities\": [{\"id\": \"i\"}], \"groups\": [{\"id\": \"a\"}]";
    assert_eq!(load(&format!(", {declared}, \"role_bindings\": [{binding}]")), Ok(()));
    assert_eq!(load(&format!(", \"role_bindings\": [{binding}], {declared}")), Ok(()));
    let twice = load(&format!(", {declared}, \"role_bindings\": [{binding}, {binding}]"));
    assert_eq!(twice, Err(LoadError::BindingIds.to_string()));
    for (rest, expected) in [
        (", \"groups\": [{\"id\": \"a/b\"}]", "group `a` does not exist"),
        (
            ", \"groups\": [{\"id\": \"a\"}], \"identities\": [{\"id\": \"a\"}]",
            "`a` exists already",
        ),
        (&format!(", \"role_bindings\": [{binding}]"), "identity `i` does not exist"),
    ] {
        let refused = load(rest).unwrap_err();
        assert!(refused.starts_with(expected), "{refused}");
    }
}
