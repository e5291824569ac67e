//! The order of the rooms of a crate. A room imports only rooms below it, so there is no import cycle. The
//! test reads the imports of each file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{files, workspace};

/// The rooms of the server, from bottom to top. A room is a file or folder of `src`. It may import itself
/// and the rooms of earlier lines, and no other room of its own line.
const SERVER: &[&[&str]] = &[
    &["error", "limits", "jitter", "interleave", "places"],
    &["clock", "discovery"],
    &["methods"],
    &["telemetry"],
    &["transport"],
    &["authn", "turns"],
    &["admission", "feed", "ask"],
    &["signing"],
    &["callers", "webhooks"],
    &["askers"],
    &["grpc", "envoy"],
    &["events", "http"],
    &["server"],
];

/// The rooms of the engine, from bottom to top.
const ENGINE: &[&[&str]] =
    &[&["model"], &["rules"], &["change"], &["index"], &["decide"], &["measure"]];

/// The rooms of iam, from bottom to top.
const IAM: &[&[&str]] = &[
    &["limits"],
    &["fields"],
    &["authentication"],
    &["object"],
    &["operation", "refusal", "state"],
    &["record", "rights", "view"],
    &["audit", "secret"],
    &["rules"],
    &["judge"],
    &["read"],
];

/// The rooms of the store, from bottom to top.
const STORE: &[&[&str]] = &[
    &["limits", "head", "journal", "op", "envelope"],
    &["batch", "follow"],
    &["backup"],
    &["memory", "redb"],
];

/// The rooms of events, from bottom to top.
const EVENTS: &[&[&str]] = &[
    &["limits", "clock"],
    &["guard"],
    &["sink", "event", "schedule", "roots", "pool", "outcome"],
    &["public_url", "resolve"],
    &["signer"],
    &["handshake"],
    &["client"],
];

#[test]
fn no_room_of_events_imports_a_room_above_it() {
    let edges = assert_order("crates/events/src", EVENTS);
    assert!(edges.contains(&("client".into(), "guard".into())));
}

#[test]
fn no_room_of_iam_or_of_the_store_imports_a_room_above_it() {
    let edges = assert_order("crates/iam/src", IAM);
    assert!(edges.contains(&("judge".into(), "rules".into())));
    let edges = assert_order("crates/store/src", STORE);
    assert!(edges.contains(&("redb".into(), "batch".into())));
}

#[test]
fn no_room_of_the_server_imports_a_room_above_it() {
    let edges = assert_order("crates/server/src", SERVER);
    for edge in [("server", "grpc"), ("grpc", "ask"), ("ask", "telemetry"), ("envoy", "feed")] {
        assert!(edges.contains(&(edge.0.into(), edge.1.into())), "{edge:?} is not seen");
    }
}

#[test]
fn no_room_of_the_engine_imports_a_room_above_it() {
    let edges = assert_order("crates/engine/src", ENGINE);
    assert!(edges.contains(&("decide".into(), "index".into())));
}

/// Only some rooms use the types of the schema, of Envoy, of traces and metrics, and of other crates.
#[test]
fn external_types_stay_in_their_rooms() {
    let allowed = [
        ("capstan_proto::v1", &["grpc", "server/services.rs"][..]),
        ("envoy_types", &["envoy"]),
        ("opentelemetry", &["telemetry/traces"]),
        ("prometheus_client", &["telemetry/metrics", "http.rs"]),
        (
            "dashmap",
            &[
                "transport/peers.rs",
                "transport/seats.rs",
                "authn/guesses.rs",
                "authn/issuers.rs",
                "authn/remembered.rs",
            ],
        ),
        ("notify::", &["feed/watched.rs"]),
        (
            "axum",
            &[
                "http.rs",
                "http/authzen",
                "http/connections.rs",
                "http/tokens",
                "server/services.rs",
            ],
        ),
    ];
    let source = workspace().join("crates/server/src");
    for (word, places) in allowed {
        let mut seen = false;
        for path in files(&source, "rs") {
            let name = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
            if code(&path).contains(word) {
                assert!(places.iter().any(|place| name.starts_with(place)), "{word} in {name}");
                seen = true;
            }
        }
        assert!(seen, "no file contains {word}: the row is stale");
    }
}

/// Only one file of the server creates gRPC statuses.
#[test]
fn statuses_are_created_in_one_file() {
    let source = workspace().join("crates/server/src");
    let makes =
        ["Status::new(", "with_error_details(", "Status::internal(", "Status::un", "Status::in"];
    for path in files(&source, "rs") {
        let name = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        let found = makes.iter().any(|make| code(&path).contains(make));
        if name.ends_with("tests.rs") {
            continue;
        }
        assert_eq!(found, name == "grpc/status.rs", "{name}");
    }
}

/// No method changes a snapshot, and only the files of the index change an index.
#[test]
fn snapshots_have_no_mutating_methods() {
    let source = workspace().join("crates/engine/src");
    let mut blocks = 0;
    for path in files(&source, "rs") {
        let name = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        let code = code(&path);
        for block in code.split("\nimpl Snapshot {").skip(1) {
            let block = block.split("\n}\n").next().unwrap();
            assert!(!block.contains("&mut self"), "{name}: a method changes a snapshot");
            blocks += 1;
        }
        let may = name.starts_with("index") || name.ends_with("tests.rs");
        assert!(may || !code.contains("&mut Index"), "{name} changes an index");
    }
    assert!(blocks >= 5, "{blocks}");
}

/// Asserts that every import of a room is of a room below. Returns the imports as pairs of rooms.
fn assert_order(folder: &str, floors: &[&[&str]]) -> BTreeSet<(String, String)> {
    let source = workspace().join(folder);
    let floor_of: BTreeMap<&str, usize> = (0..)
        .zip(floors)
        .flat_map(|(floor, rooms)| rooms.iter().map(move |room| (*room, floor)))
        .collect();
    let mut edges = BTreeSet::new();
    for path in files(&source, "rs") {
        let name = path.strip_prefix(&source).unwrap().to_str().unwrap().to_owned();
        let room = name.split(['/', '.']).next().unwrap();
        if room == "lib" || name.ends_with("tests.rs") {
            continue;
        }
        let floor = floor_of.get(room).unwrap_or_else(|| panic!("{room} has no floor in {folder}"));
        for named in named_rooms(&code(&path)) {
            // A type in `lib.rs` itself, which every room may import.
            let Some(below) = floor_of.get(&*named) else { continue };
            assert!(
                below < floor || named == room,
                "{name} names crate::{named}, which is above it"
            );
            edges.insert((room.to_owned(), named));
        }
    }
    assert!(edges.len() > 5, "{edges:?}");
    edges
}

/// The names after `crate::` in code, alone or in braces.
fn named_rooms(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
    };
    let mut rooms = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => rooms.extend([word(rest)]),
            Some(list) => {
                let mut depth = 0;
                let mut item = String::new();
                for c in list.chars() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => rooms.extend([word(std::mem::take(&mut item).trim())]),
                        _ => {}
                    }
                    if c != ',' || depth > 0 {
                        item.push(c);
                    }
                }
                rooms.extend([word(item.trim())]);
            }
        }
    }
    rooms
}

/// A file without its comments and its unit tests.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    )
}

#[test]
fn the_import_parser_reads_lists() {
    let code = "use crate::{Path, model::{a, b}, index};\nlet x = crate::hash::f();";
    let rooms = named_rooms(code);
    assert_eq!(rooms, ["Path", "hash", "index", "model"].map(String::from).into());
}
