#!/usr/bin/env bash
# redb 4.6.0, the file below the store: in which order many records are inserted decides how large the file stays.
#
# Guess: records that are inserted in the order of their keys fill pages to about a half, as in a plain B-tree that splits
# pages in the middle. Those in any other order fill two thirds. `compact` packs all of them.
#
# Seen, of 200,000 records of 200 bytes in one transaction: in the order of the keys pages are filled to 98 %. If one record
# with a higher key is there before, the same order fills them to 54 %. The descending order fills 49 %, a spread
# one 67 %. `compact` frees pages and shortens the file, but joins no pages: afterwards the four files, of the same
# records, have 42, 76, 83 and 61 MB, and as many pages of records as before.
#
# It matters for a large import, and for the start that reads the file: sort the records, and insert first what has the
# lowest keys. What is behind them in the same table halves the effect.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "half-full-pages"
version = "0.0.0"
edition = "2024"

[dependencies]
redb = "=4.6.0"

[workspace]
TOML
cat >src/main.rs <<'RUST'
use std::fs;

use redb::{Database, ReadableDatabase as _, ReadableTableMetadata as _, TableDefinition};

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("table");
const RECORDS: u64 = 200_000;
const PAGE_BYTES: u64 = 4_096;

/// Inserts records whose keys are in this order. Returns the pages of records, their fill in percent, and the megabytes
/// of the compacted file.
fn fill(name: &str, key: impl Fn(u64) -> u64) -> (u64, u64, u64) {
    let mut database = Database::create(name).unwrap();
    let write = database.begin_write().unwrap();
    let mut table = write.open_table(TABLE).unwrap();
    for at in 0..RECORDS {
        table.insert(key(at), &[7_u8; 192][..]).unwrap();
    }
    drop(table);
    write.commit().unwrap();
    let stats = |database: &Database| {
        let table = database.begin_read().unwrap().open_table(TABLE).unwrap();
        let stats = table.stats().unwrap();
        let bytes = stats.leaf_pages() * PAGE_BYTES;
        (stats.leaf_pages(), (stats.stored_bytes() * 100 + bytes / 2) / bytes)
    };
    let before = stats(&database);
    database.compact().unwrap();
    assert_eq!(stats(&database), before, "compact joins pages");
    drop(database);
    let megabytes = (fs::metadata(name).unwrap().len() + 500_000) / 1_000_000;
    println!("{name}: {} pages, {} % full; {megabytes} MB after compact", before.0, before.1);
    (before.0, before.1, megabytes)
}

fn main() {
    let ascending = fill("ascending", |at| at);
    // The first record has the highest key.
    let behind = fill("ascending, one behind", |at| if at == 0 { u64::MAX } else { at });
    let descending = fill("descending", |at| RECORDS - at);
    // An odd factor repeats no key.
    let spread = fill("spread", |at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    assert_eq!(ascending.1, 98, "in the order of the keys");
    assert!((50..=58).contains(&behind.1), "{behind:?}");
    assert!((45..=52).contains(&descending.1), "{descending:?}");
    assert!((62..=72).contains(&spread.1), "{spread:?}");
    assert!(behind.2 * 10 > ascending.2 * 17 && descending.2 * 10 > ascending.2 * 18);
}
RUST
cargo run --quiet --release
echo "as described"
