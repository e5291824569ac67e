//! What is refused in place of a store, with an error of its own each, and without changing it.

use std::fs::{self, File, Permissions};
use std::ops::Bound;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use capstan_store::{Batch, Journal as _, Limits, OpenError, RedbStore, StoreError};
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tempfile::TempDir;

use crate::common::{batch, dump, put};

type Table<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;

/// A directory with a store, in a directory that goes with the test.
struct Stored {
    _parent: TempDir,
    dir: PathBuf,
    file: PathBuf,
}

impl Stored {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let first = batch((0..200).map(|at| put(&format!("key {at:03}"), [7; 500])).collect());
        RedbStore::init(&dir, 1, &first, &Limits::default()).unwrap();
        let file = dir.join("store.redb");
        Self { _parent: parent, dir, file }
    }

    fn open(&self) -> Result<RedbStore, OpenError> {
        RedbStore::open(&self.dir, Limits::default())
    }

    /// The error of opening, of verifying and of compacting, which must be one; nothing may have changed.
    fn refusal(&self) -> OpenError {
        let before = fs::read(&self.file).ok();
        let error = self.open().unwrap_err();
        let checked = RedbStore::check(&self.dir).unwrap_err();
        let compacted = RedbStore::compact(&self.dir).unwrap_err();
        assert_eq!(error.to_string(), checked.to_string());
        assert_eq!(error.to_string(), compacted.to_string());
        // A look finds the same, as far as it looks.
        if let Err(seen) = RedbStore::look_at(&self.dir) {
            assert_eq!(seen.to_string(), error.to_string());
        }
        let made = RedbStore::init(&self.dir, 1, &Batch::default(), &Limits::default());
        assert!(before.is_none() || matches!(made, Err(OpenError::Exists(_))), "{made:?}");
        assert!(fs::read(&self.file).ok() == before, "the file was changed: {error}");
        error
    }

    fn write(&self, bytes: impl AsRef<[u8]>) {
        fs::write(&self.file, bytes).unwrap();
    }
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

fn text_of(error: &OpenError, dir: &Path) -> String {
    error.to_string().replace(dir.to_str().unwrap(), "DIR")
}

#[test]
fn a_store_is_private_and_its_first_batch_is_there_from_the_start() {
    let stored = Stored::new();
    assert_eq!(mode(&stored.dir), 0o700);
    assert_eq!(mode(&stored.file), 0o600);
    assert_eq!(mode(&stored.dir.join("lock")), 0o600);
    let names = fs::read_dir(&stored.dir).unwrap().map(|it| it.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["lock", "store.redb"]);

    let checked = RedbStore::check(&stored.dir).unwrap();
    assert_eq!((checked.head.seq, checked.head.epoch, checked.head.n_ops), (1, 1, 200));
    assert_eq!((checked.entries, checked.entry_bytes, checked.kept_from), (200, 200 * 507, 1));

    // Who checks a store changes nothing, not even what a crash has left to be repaired.
    let store = stored.open().unwrap();
    fs::copy(&stored.file, stored.dir.join("crashed")).unwrap();
    drop(store);
    fs::rename(stored.dir.join("crashed"), &stored.file).unwrap();
    let before =
        (fs::read(&stored.file).unwrap(), stored.file.metadata().unwrap().modified().unwrap());
    assert_eq!(RedbStore::check(&stored.dir).unwrap(), checked);
    let after =
        (fs::read(&stored.file).unwrap(), stored.file.metadata().unwrap().modified().unwrap());
    assert!(before == after);

    // A restored copy may have the mode of its archive.
    fs::set_permissions(&stored.file, Permissions::from_mode(0o644)).unwrap();
    let store = stored.open().unwrap();
    assert_eq!(mode(&stored.file), 0o600);
    let key = *store.page_key();
    let age = store.created().elapsed().unwrap();
    assert!(age.as_secs() < 600, "{age:?}");
    drop(store);
    assert_eq!(*stored.open().unwrap().page_key(), key);
    assert_ne!(*Stored::new().open().unwrap().page_key(), key);
}

/// A look takes no lock, makes no file, and changes no mode.
#[test]
fn a_look_at_a_store_changes_nothing() {
    let stored = Stored::new();
    fs::remove_file(stored.dir.join("lock")).unwrap();
    fs::set_permissions(&stored.file, Permissions::from_mode(0o644)).unwrap();
    RedbStore::look_at(&stored.dir).unwrap();
    assert!(!stored.dir.join("lock").exists());
    assert_eq!(mode(&stored.file), 0o644);
    let store = stored.open().unwrap();
    RedbStore::look_at(&stored.dir).unwrap();
    assert!(matches!(stored.open().unwrap_err(), OpenError::AlreadyOpen { .. }));
    drop(store);
    stored.open().unwrap();

    fs::set_permissions(&stored.dir, Permissions::from_mode(0o777)).unwrap();
    let error = RedbStore::look_at(&stored.dir).unwrap_err();
    assert!(matches!(error, OpenError::OpenToOthers { .. }), "{error}");
    fs::set_permissions(&stored.dir, Permissions::from_mode(0o700)).unwrap();
    for (bytes, said) in [("", "is empty"), ("SQLite format 3", "is not a store of Capstan")] {
        stored.write(bytes);
        let error = RedbStore::look_at(&stored.dir).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    fs::remove_file(&stored.file).unwrap();
    assert!(matches!(RedbStore::look_at(&stored.dir).unwrap_err(), OpenError::Missing(_)));
}

#[test]
fn what_is_no_store_is_refused_and_left_alone() {
    let stored = Stored::new();
    let whole = fs::read(&stored.file).unwrap();

    stored.write([]);
    assert!(matches!(stored.refusal(), OpenError::Empty(_)));
    let mut random = fastrand::Rng::with_seed(1);
    let noise: Vec<u8> = (0..whole.len()).map(|_| random.u8(..)).collect();
    for other in [&noise[..], b"redb", b"SQLite format 3\0", &[0; 8192]] {
        stored.write(other);
        assert!(matches!(stored.refusal(), OpenError::Foreign { .. }), "{:?}", &other[..4]);
    }
    for length in
        [9, 100, 320, 4_095, 4_096, 5_000, whole.len() / 2, whole.len() - 4_096, whole.len() - 1]
    {
        stored.write(&whole[..length]);
        let error = stored.refusal();
        assert!(matches!(error, OpenError::Truncated(_)), "{length} bytes: {error:?}");
    }
    let mut damaged = whole.clone();
    // The magic number stays.
    for byte in damaged.iter_mut().skip(4_096).step_by(50) {
        *byte ^= 0x10;
    }
    stored.write(&damaged);
    assert!(matches!(stored.refusal(), OpenError::Corrupt { .. }));

    fs::remove_file(&stored.file).unwrap();
    let database = Database::create(&stored.file).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(TableDefinition::<u64, u64>::new("theirs")).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(stored.refusal(), OpenError::Foreign { .. }));

    fs::remove_file(&stored.file).unwrap();
    let target = stored.dir.join("elsewhere");
    fs::write(&target, &whole).unwrap();
    symlink(&target, &stored.file).unwrap();
    let error = stored.refusal();
    assert_eq!(text_of(&error, &stored.dir), "`DIR/store.redb` is a symbolic link, not a file");
    assert!(fs::read(&target).unwrap() == whole);
    fs::remove_file(&stored.file).unwrap();
    fs::create_dir(&stored.file).unwrap();
    assert_eq!(
        text_of(&stored.refusal(), &stored.dir),
        "`DIR/store.redb` is a directory, not a file"
    );

    fs::remove_dir(&stored.file).unwrap();
    assert_eq!(
        text_of(&stored.open().unwrap_err(), &stored.dir),
        "there is no store in `DIR`: make one with `capstan init`"
    );
    stored.write(&whole);
    assert_eq!(RedbStore::check(&stored.dir).unwrap().entries, 200);
}

/// The record of the format, and its envelope, stay as they are in every version.
#[test]
fn a_store_of_a_later_version_is_refused() {
    let stored = Stored::new();
    let database = Database::open(&stored.file).unwrap();
    let meta = TableDefinition::<&[u8], &[u8]>::new("meta");
    let read = database.begin_read().unwrap().open_table(meta).unwrap();
    let record = read.get(&b"format"[..]).unwrap().unwrap().value().to_vec();
    assert_eq!(record.len(), 9 + 4);
    assert_eq!(record[9..], 1_u32.to_le_bytes());
    drop(read);
    let transaction = database.begin_write().unwrap();
    {
        let checksum = twox_hash::XxHash3_64::oneshot_with_seed(
            twox_hash::XxHash3_64::oneshot_with_seed(1, b"format"),
            &2_u32.to_le_bytes(),
        );
        let record = [&[1][..], &checksum.to_le_bytes(), &2_u32.to_le_bytes()].concat();
        transaction.open_table(meta).unwrap().insert(&b"format"[..], &record[..]).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    let error = stored.refusal();
    assert!(matches!(error, OpenError::Newer { found: 2, known: 1, .. }));
    assert_eq!(
        text_of(&error, &stored.dir),
        "the store `DIR/store.redb` has format 2, this program reads format 1: use a later version"
    );
}

/// What redb itself cannot find: a record under another key, and a history that somebody has changed.
#[test]
fn a_record_that_does_not_belong_to_its_key_is_no_value() {
    let stored = Stored::new();
    let change = |name: &str, change: &dyn Fn(&mut Table<'_>)| {
        let database = Database::open(&stored.file).unwrap();
        let transaction = database.begin_write().unwrap();
        change(&mut transaction.open_table(TableDefinition::new(name)).unwrap());
        transaction.commit().unwrap();
    };
    let moved = |from: &'static [u8], to: &'static [u8]| {
        move |table: &mut Table<'_>| {
            let record = table.get(from).unwrap().unwrap().value().to_vec();
            table.insert(to, &record[..]).unwrap();
        }
    };
    change("state", &moved(b"key 007", b"key 008"));
    let run = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = stored.open().unwrap();
    let view = run.block_on(store.view()).unwrap();
    let corrupt = "the store is corrupt: record `key 008` does not match its checksum";
    assert_eq!(view.get(b"key 008").unwrap_err().to_string(), corrupt);
    assert_eq!(view.get(b"key 007").unwrap().unwrap().len(), 500);
    let mut seen = 0;
    let all = (Bound::Unbounded, Bound::Unbounded);
    let counted = view.scan(all, &mut |_, _| {
        seen += 1;
        true
    });
    assert_eq!((counted.unwrap_err().to_string(), seen), (corrupt.to_owned(), 8));
    drop(store);
    assert_eq!(
        text_of(&RedbStore::check(&stored.dir).unwrap_err(), &stored.dir),
        "the store `DIR/store.redb` is corrupt: record `key 008` does not match its checksum; restore it from a backup"
    );

    // The checksums are right, but not the digest.
    let stored = Stored::new();
    let store = stored.open().unwrap();
    run.block_on(async {
        let head = store.head().await.unwrap();
        let head = store.append(head, batch(vec![put("a", "1")])).await.unwrap();
        store.append(head, batch(vec![put("b", "1")])).await.unwrap();
    });
    drop(store);
    let database = Database::open(&stored.file).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let mut log = transaction.open_table(TableDefinition::<&[u8], &[u8]>::new("log")).unwrap();
        let key = [&2_u64.to_be_bytes()[..], &0_u32.to_be_bytes()].concat();
        let record = log.get(&key[..]).unwrap().unwrap().value().to_vec();
        let mut value = record[9..].to_vec();
        assert_eq!(value.pop(), Some(b'1'));
        value.push(b'2');
        let seed = twox_hash::XxHash3_64::oneshot_with_seed(1, &key);
        let checksum = twox_hash::XxHash3_64::oneshot_with_seed(seed, &value);
        let record = [&[1][..], &checksum.to_le_bytes(), &value].concat();
        log.insert(&key[..], &record[..]).unwrap();
    }
    transaction.commit().unwrap();
    drop(database);
    assert_eq!(
        text_of(&RedbStore::check(&stored.dir).unwrap_err(), &stored.dir),
        "the store `DIR/store.redb` is corrupt: the digest of transaction 2 does not follow from it and the one \
         before; restore it from a backup"
    );
}

/// A disk that changes what it holds, while the store is open: who reads it gets an error.
#[test]
fn a_bit_that_flips_while_the_store_is_open_is_found() {
    let stored = Stored::new();
    let limits = Limits { cache_bytes: 0, ..Limits::default() };
    let store = RedbStore::open(&stored.dir, limits).unwrap();
    let run = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let view = run.block_on(store.view()).unwrap();
    let read = || {
        let mut entries = 0;
        let all = (Bound::Unbounded, Bound::Unbounded);
        view.scan(all, &mut |_, _| {
            entries += 1;
            true
        })?;
        Ok(entries)
    };
    assert_eq!(read().unwrap(), 200);
    let whole = fs::read(&stored.file).unwrap();
    let value = [7; 500];
    let places = (0..whole.len() - value.len()).filter(|place| whole[*place..].starts_with(&value));
    let places: Vec<u64> = places.step_by(10).map(|place| place as u64).collect();
    assert!(places.len() >= 20, "{places:?}");
    let mut found = 0;
    for place in &places {
        let file = File::options().write(true).open(&stored.file).unwrap();
        file.write_all_at(&[6], *place).unwrap();
        match read() {
            Err(StoreError::Corrupt(reason)) => {
                assert!(reason.contains("checksum"), "{reason}");
                found += 1;
            }
            Ok(_) => {} // a page of the log, one that is not in use any more, or one that redb has in memory
            Err(other) => panic!("{other}"),
        }
        file.write_all_at(&[7], *place).unwrap();
    }
    assert!(found * 4 >= places.len(), "{found} of {} changes were found", places.len());
    assert_eq!(read().unwrap(), 200);
}

#[test]
fn a_directory_that_others_may_change_is_refused() {
    let stored = Stored::new();
    for open_mode in [0o770, 0o720, 0o702, 0o777, 0o1777] {
        fs::set_permissions(&stored.dir, Permissions::from_mode(open_mode)).unwrap();
        assert_eq!(
            text_of(&stored.open().unwrap_err(), &stored.dir),
            format!(
                "`DIR` may be changed by other users (its mode is {open_mode:04o}): run `chmod 700 DIR`"
            )
        );
        let made = RedbStore::init(&stored.dir, 1, &Batch::default(), &Limits::default());
        assert!(matches!(made, Err(OpenError::OpenToOthers { .. })));
    }
    fs::set_permissions(&stored.dir, Permissions::from_mode(0o755)).unwrap();
    stored.open().unwrap();

    // Only root can give a directory away.
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(&stored.dir, Some(12_345), None).unwrap();
        assert_eq!(
            text_of(&stored.open().unwrap_err(), &stored.dir),
            "`DIR` may be changed by other users (it belongs to user 12345, this process is of user 0): \
             run as that user, or change the owner with `chown`"
        );
    }

    let link = stored.dir.parent().unwrap().join("link");
    symlink(&stored.dir, &link).unwrap();
    let error = RedbStore::open(&link, Limits::default()).unwrap_err();
    assert_eq!(text_of(&error, &link), "`DIR` is a symbolic link, not a directory");
    let file = stored.dir.parent().unwrap().join("file");
    File::create(&file).unwrap();
    let error = RedbStore::open(&file, Limits::default()).unwrap_err();
    assert_eq!(text_of(&error, &file), "`DIR` is a file, not a directory");
    let nowhere = stored.dir.parent().unwrap().join("nowhere");
    let error = RedbStore::open(&nowhere, Limits::default()).unwrap_err();
    assert!(matches!(error, OpenError::Missing(_)));
    assert!(!nowhere.exists());
}

/// A crash while a store is made leaves nothing that counts as one.
#[test]
fn a_half_made_store_is_none() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b/data");
    RedbStore::init(&dir, 8_191, &Batch::default(), &Limits::default()).unwrap();
    fs::rename(dir.join("store.redb"), dir.join("store.redb.new")).unwrap();
    let open = || RedbStore::open(&dir, Limits::default());
    assert!(matches!(open(), Err(OpenError::Missing(_))));
    RedbStore::init(&dir, 1, &Batch::default(), &Limits::default()).unwrap();
    assert!(!dir.join("store.redb.new").exists());
    open().unwrap();
    for epoch in [0, 8_192] {
        let made = RedbStore::init(parent.path(), epoch, &Batch::default(), &Limits::default());
        assert!(matches!(made, Err(OpenError::Invalid(_))), "{made:?}");
    }
}

#[test]
fn compacting_gives_back_the_space_of_what_was_deleted() {
    let stored = Stored::new();
    let run = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = stored.open().unwrap();
    let before = run.block_on(async {
        let key = |at| format!("long {at}");
        let many = (0..2_000).map(|at| put(&key(at), [1; 2_000])).collect();
        let head = store.append(store.head().await.unwrap(), batch(many)).await.unwrap();
        let none = (0..2_000)
            .map(|at| capstan_store::Op::Delete { key: key(at).into_bytes().into() })
            .collect();
        store.append(head, batch(none)).await.unwrap();
        assert!(matches!(RedbStore::compact(&stored.dir), Err(OpenError::AlreadyOpen { .. })));
        dump(&*store.view().await.unwrap())
    });
    drop(store);
    let compacted = RedbStore::compact(&stored.dir).unwrap();
    // The history still holds the deleted values.
    assert!(compacted.before > 8_000_000, "{compacted:?}");
    assert!(compacted.after < compacted.before * 3 / 4, "{compacted:?}");
    RedbStore::check(&stored.dir).unwrap();
    let store = stored.open().unwrap();
    assert_eq!(dump(&*run.block_on(store.view()).unwrap()), before);
}

/// A commit inserts its records in the order of their keys, in whatever order they come: pages are full then.
#[test]
fn the_order_of_operations_does_not_make_a_longer_file() {
    let length = |order: &dyn Fn(u64) -> u64| {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        let puts = (0..12_000).map(|at| put(&format!("key {:020}", order(at)), [7; 150]));
        // Too long for the log.
        let limits = Limits { history_bytes_max: 1_000, ..Limits::default() };
        RedbStore::init(&dir, 1, &batch(puts.collect()), &limits).unwrap();
        RedbStore::compact(&dir).unwrap().after
    };
    let ascending = length(&|at| at);
    // An odd factor repeats no key.
    let spread = length(&|at| at.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let descending = length(&|at| 12_000 - at);
    for other in [spread, descending] {
        assert!(other < ascending * 11 / 10, "{other} {ascending}");
    }
}
