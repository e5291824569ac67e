//! Backups of a store, and what is restored from them.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use capstan_store::{
    Backup, BackupReader, Batch, EPOCH_MAX, Head, Journal, Limits, MemoryStore, OpenError,
    RedbStore, RestoreError, Restored, Transaction, View, write_backup,
};

use crate::common::{batch, dump, put};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn in_memory(epoch: u16, batches: Vec<Batch>) -> MemoryStore {
    let store = MemoryStore::new(epoch, Limits::default());
    runtime().block_on(async {
        let mut head = store.head().await.unwrap();
        for batch in batches {
            head = store.append(head, batch).await.unwrap();
        }
    });
    store
}

fn view(store: &dyn Journal) -> Arc<dyn View> {
    runtime().block_on(store.view()).unwrap()
}

fn backup_of(store: &dyn Journal) -> (Vec<u8>, Backup) {
    let mut bytes = vec![];
    let backup = write_backup(&*view(store), &mut bytes).unwrap();
    (bytes, backup)
}

fn last(
    _: &Arc<dyn View>,
    _: &Backup,
) -> Result<Transaction, Box<dyn std::error::Error + Send + Sync>> {
    Ok(Transaction { ops: vec![put("restored", "yes")] })
}

fn restore(dir: &Path, bytes: &[u8], epoch: Option<u16>) -> Result<Restored, RestoreError> {
    RedbStore::restore(dir, BackupReader::new(bytes)?, epoch, &Limits::default(), last)
}

fn files(dir: &Path) -> Vec<String> {
    let Ok(files) = fs::read_dir(dir) else { return vec![] };
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

/// A store in a file that has written for a while.
fn used(dir: &Path) -> RedbStore {
    RedbStore::init(dir, 4, &batch(vec![put("first", "value")]), &Limits::default()).unwrap();
    let store = RedbStore::open(dir, Limits::default()).unwrap();
    runtime().block_on(async {
        let mut head = store.head().await.unwrap();
        for number in 0..20_u8 {
            let mut more = batch(vec![put(&format!("key {number}"), [number; 100])]);
            more.side = vec![put(&format!("side {number}"), "beside")];
            head = store.append(head, more).await.unwrap();
        }
    });
    store
}

#[test]
fn a_restored_store_holds_the_state_in_a_later_epoch() {
    let parent = tempfile::tempdir().unwrap();
    let store = used(&parent.path().join("data"));
    let (bytes, backup) = backup_of(&store);
    assert_eq!((backup.head.epoch, backup.head.seq, backup.entries), (4, 21, 41));

    let dir = parent.path().join("restored");
    let mut seen = None;
    let reader = BackupReader::new(&bytes[..]).unwrap();
    let restored = RedbStore::restore(&dir, reader, None, &Limits::default(), |view, found| {
        seen = Some((view.head(), dump(&**view), *found));
        last(view, found)
    });
    let Restored { backup: found, head } = restored.unwrap();
    let (start, at_last, of_last) = seen.unwrap();
    assert_eq!((found, of_last), (backup, backup));
    assert_eq!(start, Head { epoch: 5, ..backup.head });
    assert_eq!(at_last, dump(&*view(&store)));
    assert_eq!(files(&dir), ["lock", "store.redb"]);

    let checked = RedbStore::check(&dir).unwrap();
    assert_eq!((checked.head, checked.entries, checked.kept_from), (head, 42, 22));
    let again = RedbStore::open(&dir, Limits::default()).unwrap();
    let entries = dump(&*view(&again));
    assert_eq!(
        entries.iter().filter(|(key, _)| key != "restored").cloned().collect::<Vec<_>>(),
        at_last
    );
    // The digests go on from the history that was restored, and revisions from a later one.
    assert_eq!(head, start.next(&[put("restored", "yes")]));
    assert_eq!(head.prev_digest, backup.head.digest);
    assert!(head.revision() > backup.head.revision());
    assert_ne!(again.page_key(), store.page_key());
    let next = runtime().block_on(again.append(head, batch(vec![put("next", "value")]))).unwrap();
    assert_eq!((next.epoch, next.seq), (5, 23));
    // And can be saved again.
    let (bytes, _) = backup_of(&again);
    drop(again);
    let third = restore(&parent.path().join("third"), &bytes, None).unwrap();
    assert_eq!((third.head.epoch, third.head.seq), (6, 24));
}

/// What a view shows does not change, however much is written meanwhile.
#[test]
fn a_backup_is_of_the_revision_of_its_view() {
    let parent = tempfile::tempdir().unwrap();
    let store = used(&parent.path().join("data"));
    let view = view(&store);
    let (mut before, mut after) = (vec![], vec![]);
    write_backup(&*view, &mut before).unwrap();
    runtime().block_on(async {
        let head = store.head().await.unwrap();
        store.append(head, batch(vec![put("key 1", "other"), put("new", "")])).await.unwrap();
    });
    let of_view = write_backup(&*view, &mut after).unwrap();
    assert!(before == after);
    assert_eq!(of_view.head.seq, 21);
}

#[test]
fn a_restored_store_is_in_a_later_epoch_or_not_there() {
    let parent = tempfile::tempdir().unwrap();
    let of = |epoch: u16| backup_of(&in_memory(epoch, vec![batch(vec![put("a", "b")])])).0;
    let dir = parent.path().join("data");
    let refused = |epoch: u16, wanted: Option<u16>| {
        let error = restore(&dir, &of(epoch), wanted).unwrap_err().to_string();
        assert!(!dir.exists());
        error
    };
    let range = "the epoch of the restored store must be 8 to 8191, not";
    assert_eq!(refused(7, Some(7)), format!("{range} 7: the backup is of epoch 7"));
    assert_eq!(refused(7, Some(EPOCH_MAX + 1)), format!("{range} 8192: the backup is of epoch 7"));
    assert!(refused(EPOCH_MAX, None).contains("epoch 8191, the last one"));
    for (epoch, wanted, found) in
        [(0, None, 1), (7, None, 8), (7, Some(99), 99), (EPOCH_MAX - 1, None, EPOCH_MAX)]
    {
        let dir = parent.path().join(format!("{epoch}-{found}"));
        assert_eq!(restore(&dir, &of(epoch), wanted).unwrap().head.epoch, found);
        assert_eq!(RedbStore::check(&dir).unwrap().head.epoch, found);
    }
}

#[test]
fn nothing_is_overwritten_and_what_is_not_whole_is_not_restored() {
    let parent = tempfile::tempdir().unwrap();
    let (dir, other) = (parent.path().join("data"), parent.path().join("other"));
    let store = used(&dir);
    let (bytes, _) = backup_of(&store);
    let error = restore(&dir, &bytes, None).unwrap_err();
    assert!(matches!(error, RestoreError::Store(OpenError::AlreadyOpen { .. })), "{error}");
    drop(store);
    let file = fs::read(dir.join("store.redb")).unwrap();
    let error = restore(&dir, &bytes, None).unwrap_err();
    assert!(matches!(error, RestoreError::Store(OpenError::Exists(_))), "{error}");
    assert!(fs::read(dir.join("store.redb")).unwrap() == file);

    for end in [bytes.len() - 1, bytes.len() / 2, 200] {
        let error = restore(&other, &bytes[..end], None).unwrap_err();
        assert!(matches!(error, RestoreError::Backup(_)), "{error}");
        assert_eq!(files(&other), ["lock"], "nothing that looks like a store");
    }
    let mut flipped = bytes.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert!(restore(&other, &flipped, None).unwrap_err().to_string().contains("the digest is not"));
    let reader = BackupReader::new(&bytes[..]).unwrap();
    let broken = |_: &Arc<dyn View>, _: &Backup| Err("no head".into());
    let error = RedbStore::restore(&other, reader, None, &Limits::default(), broken).unwrap_err();
    assert!(error.to_string().ends_with("what a store needs: no head"));
    assert_eq!(files(&other), ["lock"]);
    let missing = RedbStore::open(&other, Limits::default()).unwrap_err();
    assert!(matches!(missing, OpenError::Missing(_)), "{missing}");

    // What a crash has left is replaced.
    fs::write(other.join("store.redb.new"), "half of a store").unwrap();
    restore(&other, &bytes, None).unwrap();
    assert_eq!(files(&other), ["lock", "store.redb"]);
}

/// More than fits into one commit: with few entries in each, and with long ones.
#[test]
fn a_long_backup_is_restored_in_batches() {
    let parent = tempfile::tempdir().unwrap();
    let put = |number: usize| put(&format!("{number:04}"), vec![3; (number % 10) * 1_000]);
    let batches = (0..10).map(|at| batch((at * 100..at * 100 + 100).map(put).collect()));
    let store = in_memory(2, batches.collect());
    let (bytes, backup) = backup_of(&store);
    for restore_batch_bytes in [50_000, u64::MAX] {
        let dir = parent.path().join(restore_batch_bytes.to_string());
        let reader = BackupReader::new(&bytes[..]).unwrap();
        let limits = Limits { restore_batch_bytes, ..Limits::default() };
        let restored = RedbStore::restore(&dir, reader, None, &limits, last).unwrap();
        assert_eq!((restored.backup, restored.head.seq), (backup, 11));
        assert_eq!(RedbStore::check(&dir).unwrap().entries, 1_001);
        let again = RedbStore::open(&dir, Limits::default()).unwrap();
        let mut entries = dump(&*view(&again));
        entries.retain(|(key, _)| key != "restored");
        assert!(entries == dump(&*view(&store)));
    }
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// A backup of each version that was ever released is read, and holds what it held. `tests/data/backup-VERSION.bin` is never
/// written anew. For a new version, `CAPSTAN_STORE_GOLDEN=1 cargo test -p capstan-store backup` writes the file.
#[test]
fn backups_of_every_version_are_read() {
    let first = batch(vec![put("first", "with the store")]);
    let mut second = batch(vec![put("key", [2; 40]), put("empty", "")]);
    second.side = vec![put("side", "beside it"), put("\u{0}\u{7f}", "no text")];
    let store = in_memory(3, vec![first, second]);
    let (bytes, written) = backup_of(&store);
    let path = data("backup-1.bin");
    if std::env::var_os("CAPSTAN_STORE_GOLDEN").is_some() && !path.exists() {
        fs::write(&path, &bytes).unwrap();
    }
    let golden = fs::read(&path).unwrap();
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let restored = restore(&dir, &golden, None).unwrap();
    assert_eq!(restored.backup, written);
    let hex = restored.backup.digest.iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").unwrap();
        hex
    });
    assert_eq!(hex, GOLDEN_DIGEST);
    let again = RedbStore::open(&dir, Limits::default()).unwrap();
    let mut entries = dump(&*view(&again));
    entries.retain(|(key, _)| key != "restored");
    assert_eq!(entries, dump(&*view(&store)));
    assert!(golden == bytes, "this version writes what it always wrote");
}

const GOLDEN_DIGEST: &str = "b23dce68a365f4c185ca5415da453db0b9c91ddfa5b135efcefd84c44a7a36a5";
