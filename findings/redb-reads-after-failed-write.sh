#!/usr/bin/env bash
# redb 4.6.0, the file below the store: a failed write ends reads, too, but only of pages that are not in memory.
#
# Guess: after a failed write a handle writes no more, and open read transactions go on, because their pages do not
# change.
#
# Seen: every later access to the file is refused, reads included, with `PreviousIo`. What is in redb's cache is still
# answered. So the same read works or not, as the cache has it: with the default of 1 GiB all of 2,000 records are still
# there, with no cache not one is. Small tests never meet it. After `close` the same holds, with
# `DatabaseClosed`.
#
# It matters for a process that goes on serving reads after a full disk: open the file again at once, and give readers
# new transactions; do not count on the old ones.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "reads-after-failed-write"
version = "0.0.0"
edition = "2024"

[dependencies]
redb = "=4.6.0"

[workspace]
TOML
cat >src/main.rs <<'RUST'
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::InMemoryBackend;
use redb::{
    Builder, ReadOnlyTable, ReadableDatabase as _, StorageBackend, StorageError, TableDefinition,
};

const TABLE: TableDefinition<u64, &[u8]> = TableDefinition::new("table");
const RECORDS: u64 = 2_000;

/// A backend whose writes fail while the disk is full.
#[derive(Debug)]
struct Disk(InMemoryBackend, Arc<AtomicBool>);

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.1.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write(offset, data)
    }
}

/// Counts the records that are read, and those that are refused with `PreviousIo`.
fn read(table: &ReadOnlyTable<u64, &[u8]>) -> (u64, u64) {
    let (mut read, mut refused) = (0, 0);
    for key in 0..RECORDS {
        match table.get(key) {
            Ok(Some(value)) => read += u64::from(value.value() == [1; 1_000]),
            Err(StorageError::PreviousIo) => refused += 1,
            other => panic!("{:?}", other.map(drop)),
        }
    }
    (read, refused)
}

fn main() {
    for cache in [1 << 30, 0] {
        let full = Arc::new(AtomicBool::new(false));
        let disk = Disk(InMemoryBackend::new(), Arc::clone(&full));
        let database = Builder::new().set_cache_size(cache).create_with_backend(disk).unwrap();
        let transaction = database.begin_write().unwrap();
        for key in 0..RECORDS {
            transaction.open_table(TABLE).unwrap().insert(key, &[1; 1_000][..]).unwrap();
        }
        transaction.commit().unwrap();
        let table = database.begin_read().unwrap().open_table(TABLE).unwrap();
        let before = read(&table);

        full.store(true, Ordering::Relaxed);
        let write = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            transaction.open_table(TABLE)?.insert(0, &[2; 1_000][..])?;
            Ok(transaction.commit()?)
        };
        write().unwrap_err();
        full.store(false, Ordering::Relaxed);
        let (after, refused) = read(&table);
        println!("cache {cache}: {} read before, {after} after, {refused} refused", before.0);
    }
}
RUST
cargo run --quiet >seen.txt
cat seen.txt

cat >expected.txt <<'TEXT'
cache 1073741824: 2000 read before, 2000 after, 0 refused
cache 0: 2000 read before, 0 after, 2000 refused
TEXT
diff expected.txt seen.txt || { echo "redb does something else now: see the difference" >&2; exit 1; }
