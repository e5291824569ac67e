//! A store of each format that was ever released opens, and holds what it held.
//!
//! `tests/data/store-FORMAT.redb.gz` is never written anew: a later version must open what this one wrote. For a new
//! format, `CAPSTAN_STORE_GOLDEN=1 cargo test -p capstan-store golden` writes the files that are missing.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use capstan_store::{Batch, Journal as _, Limits, Op, RedbStore, Transaction};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use futures_util::StreamExt as _;

use crate::common::{dump, put};

/// The formats, each with its files.
const FORMATS: [u32; 1] = [1];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// What the golden stores hold: 12 transactions, of which 5 are kept, one of two chunks; side operations; a delete;
/// keys that are not UTF-8.
fn fill(dir: &Path) {
    let limits = Limits { history_transactions_max: 5, ..Limits::default() };
    let first = Batch {
        transactions: vec![Transaction { ops: vec![put("first", "with the store")] }],
        side: vec![put("side/first", "beside it")],
    };
    RedbStore::init(dir, 3, &first, &limits).unwrap();
    let store = RedbStore::open(dir, limits).unwrap();
    runtime().block_on(async {
        let mut head = store.head().await.unwrap();
        for number in 2..=12_u8 {
            let mut ops = vec![put(&format!("key {number}"), [number; 40])];
            if number == 10 {
                ops.push(put("long", vec![10; 300_000]));
                ops.push(Op::Delete { key: "first".into() });
                let key = Bytes::from_static(&[0, 255, 128]);
                ops.push(Op::Put { key, value: Bytes::new() });
            }
            let batch = Batch { transactions: vec![Transaction { ops }], side: Vec::new() };
            head = store.append(head, batch).await.unwrap();
        }
    });
    drop(store);
    RedbStore::compact(dir).unwrap();
}

/// Everything that a store holds, as text.
fn text_of(dir: &Path) -> String {
    let shown = |bytes: &[u8]| {
        let start = bytes[..bytes.len().min(60)].escape_ascii().to_string();
        format!("{start} ({} bytes)", bytes.len())
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let checked = RedbStore::check(dir).unwrap();
    let store = RedbStore::open(dir, Limits::default()).unwrap();
    let mut text = format!(
        "entries {}, bytes {}, kept from {}\npage key {}\n",
        checked.entries,
        checked.entry_bytes,
        checked.kept_from,
        hex(store.page_key())
    );
    runtime().block_on(async {
        let view = store.view().await.unwrap();
        for (key, value) in dump(&*view) {
            writeln!(text, "{} = {}", shown(&key), shown(&value)).unwrap();
        }
        let mut watch = store.watch(checked.kept_from).await.unwrap();
        for _ in checked.kept_from..=checked.head.seq {
            let committed = watch.next().await.unwrap().unwrap();
            let head = committed.head;
            writeln!(
                text,
                "transaction {} of epoch {}, {} operations, digest {} after {}",
                head.seq,
                head.epoch,
                head.n_ops,
                hex(&head.digest),
                hex(&head.prev_digest)
            )
            .unwrap();
            for op in committed.ops {
                match op {
                    Op::Put { key, value } => {
                        writeln!(text, "  put {} = {}", shown(&key), shown(&value)).unwrap();
                    }
                    Op::Delete { key } => writeln!(text, "  delete {}", shown(&key)).unwrap(),
                }
            }
        }
    });
    text
}

#[test]
fn stores_of_every_format_open_and_hold_what_they_held() {
    for format in FORMATS {
        let stored = data(&format!("store-{format}.redb.gz"));
        let expected = data(&format!("store-{format}.txt"));
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        if std::env::var_os("CAPSTAN_STORE_GOLDEN").is_some() && !stored.exists() {
            fill(&dir);
            let mut encoder = GzEncoder::new(File::create(&stored).unwrap(), Compression::best());
            encoder.write_all(&fs::read(dir.join("store.redb")).unwrap()).unwrap();
            encoder.finish().unwrap();
            fs::write(&expected, text_of(&dir)).unwrap();
        }
        let other = parent.path().join("other");
        fs::create_dir(&other).unwrap();
        let mut file = Vec::new();
        GzDecoder::new(File::open(&stored).unwrap()).read_to_end(&mut file).unwrap();
        fs::write(other.join("store.redb"), file).unwrap();
        assert_eq!(text_of(&other), fs::read_to_string(&expected).unwrap(), "format {format}");

        // It goes on from there.
        let store = RedbStore::open(&other, Limits::default()).unwrap();
        runtime().block_on(async {
            let head = store.head().await.unwrap();
            let ops = vec![put("next", "value")];
            let batch = Batch { transactions: vec![Transaction { ops }], side: Vec::new() };
            assert_eq!(store.append(head, batch).await.unwrap().seq, head.seq + 1);
        });
    }
}
