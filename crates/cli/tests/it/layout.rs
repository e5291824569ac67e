//! Rules that the compiler does not enforce: dependencies between crates, and file sizes.

mod rooms;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn dependencies(manifest: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace().join(manifest)).unwrap();
    let manifest: toml::Table = text.parse().unwrap();
    let table = manifest.get("dependencies").and_then(toml::Value::as_table);
    table.map(|table| table.keys().cloned().collect()).unwrap_or_default()
}

/// Dependencies have one direction, the engine has no I/O dependencies, and no crate of the product depends
/// on test code.
#[test]
fn crates_depend_only_on_allowed_crates() {
    let forbidden: BTreeMap<&str, &[&str]> = BTreeMap::from([
        (
            "Cargo.toml",
            &[
                "capstan",
                "capstan-client",
                "capstan-engine",
                "capstan-policy",
                "capstan-server",
                "capstan-testkit",
            ][..],
        ),
        (
            "crates/engine/Cargo.toml",
            &[
                "capstan",
                "capstan-policy",
                "capstan-server",
                "capstan-proto",
                "capstan-testkit",
                "prost",
                "serde",
                "time",
                "tokio",
                "tonic",
                "tracing",
            ],
        ),
        (
            "crates/policy/Cargo.toml",
            &["capstan", "capstan-proto", "capstan-testkit", "prost", "tokio", "tonic"],
        ),
        (
            "crates/iam/Cargo.toml",
            &[
                "capstan",
                "capstan-policy",
                "capstan-proto",
                "capstan-server",
                "capstan-store",
                "capstan-testkit",
                "tokio",
                "tonic",
                "tracing",
            ],
        ),
        (
            "crates/http2/Cargo.toml",
            &[
                "capstan",
                "capstan-engine",
                "capstan-policy",
                "capstan-proto",
                "capstan-server",
                "capstan-testkit",
                "h2",
                "tokio",
                "tonic",
            ],
        ),
        (
            "crates/store/Cargo.toml",
            &[
                "capstan",
                "capstan-engine",
                "capstan-iam",
                "capstan-policy",
                "capstan-proto",
                "capstan-server",
                "capstan-testkit",
                "prost",
                "tonic",
            ],
        ),
        (
            "crates/events/Cargo.toml",
            &[
                "capstan",
                "capstan-engine",
                "capstan-iam",
                "capstan-policy",
                "capstan-proto",
                "capstan-server",
                "capstan-store",
                "capstan-testkit",
                "prost",
                "tonic",
            ],
        ),
        (
            "crates/server/Cargo.toml",
            &[
                "capstan",
                "capstan-bench",
                "capstan-client",
                "capstan-testkit",
                "clap",
                "comfy-table",
                "crossterm",
                "hdrhistogram",
                "indicatif",
                "plotters",
                "proptest",
                "ratatui",
            ],
        ),
        ("crates/bench/Cargo.toml", &["capstan", "capstan-testkit", "proptest"]),
        ("crates/cli/Cargo.toml", &["capstan-testkit", "proptest"]),
        (
            "crates/client/Cargo.toml",
            &[
                "capstan",
                "capstan-engine",
                "capstan-policy",
                "capstan-server",
                "capstan-testkit",
                "proptest",
            ],
        ),
        ("crates/testkit/Cargo.toml", &["capstan", "capstan-server"]),
    ]);
    for (manifest, names) in forbidden {
        let found = dependencies(manifest);
        assert!(!found.is_empty(), "{manifest}");
        for name in names {
            assert!(!found.contains(&(*name).to_owned()), "{manifest} must not depend on {name}");
        }
    }
}

/// Every Rust file begins with a doc comment and has a limited number of lines.
#[test]
fn files_begin_with_a_doc_comment_and_are_short() {
    let mut seen = 0;
    for folder in ["crates", "proto", "benches", "fuzz/fuzz_targets"] {
        for path in files(&workspace().join(folder), "rs") {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.starts_with("//!"), "{} does not begin with //!", path.display());
            // Tables of cases may be longer than code.
            let lines_max = if path.to_string_lossy().contains("/tests/") { 1_200 } else { 600 };
            assert!(text.lines().count() <= lines_max, "{} is too long", path.display());
            seen += 1;
        }
    }
    assert!(seen > 30);
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found
}
