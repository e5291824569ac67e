//! Flipped bits in a file at rest: refused, or everything that is read is right.

use std::sync::atomic::AtomicUsize;

use ::redb::StorageBackend;

use super::disk::Room;
use super::*;

/// Copies by default. `CAPSTAN_BIT_FLIPS` asks for another number, 2,000 in the long run.
const COPIES: u64 = 100;

/// Another file at each turn: it is opened to verify it, to read meanwhile, and for use.
#[derive(Debug)]
struct Turns {
    files: [Sim; 3],
    opened: Arc<AtomicUsize>,
}

impl Disk for Turns {
    fn open(&self, anew: bool) -> io::Result<Box<dyn StorageBackend>> {
        self.files[self.opened.fetch_add(1, Ordering::Relaxed)].open(anew)
    }

    fn room(&self) -> io::Result<Room> {
        self.files[0].room()
    }
}

fn open_and_dump(disk: Box<dyn Disk>) -> Result<(RedbStore, Option<State>), OpenError> {
    let path = PathBuf::from("store.redb");
    RedbStore::open_and_read_on(disk, path, limits(), |view| dump(&**view).ok())
}

/// What a store answers to everything that can be asked.
fn everything(store: &RedbStore) -> Result<(Head, State, Vec<Committed>), String> {
    let snapshot = recovered(store).map_err(|error| error.to_string())?;
    let state = dump(&*snapshot).map_err(|error| error.to_string())?;
    for (key, value) in &state {
        let found = snapshot.get(key).map_err(|error| error.to_string())?;
        assert_eq!(found.as_ref(), Some(value));
    }
    let transactions = snapshot.transactions(snapshot.kept.from, u64::MAX);
    let transactions = transactions.map_err(|error| error.to_string())?.into();
    Ok((snapshot.head, state, transactions))
}

#[test]
fn a_flipped_bit_is_refused_or_changes_nothing() {
    let wanted = std::env::var("CAPSTAN_BIT_FLIPS").map_or(COPIES, |it| it.parse().unwrap());
    let sim = new_disk();
    let store = open_sim(&sim, limits()).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut head = head_of(&store);
    for number in 0..20 {
        // One long transaction, whose pages are most of the file, and some short ones, which the log keeps.
        let count = if number == 0 { 3_000 } else { 1 };
        let value = |random: &mut fastrand::Rng| vec![random.u8(..); 300];
        let ops =
            (0..count).map(|at| put(format!("key {number} {at}"), value(&mut random))).collect();
        let batch = Batch { transactions: vec![Transaction { ops }], side: Vec::new() };
        head = append(&store, &head, &batch).unwrap();
    }
    let expected = everything(&store).unwrap();
    assert!(expected.1.len() > 3_000 && expected.2.len() == 8);
    drop(store);
    let file = sim.file();

    let (mut refused, mut reads_refused) = (0, 0);
    for copy in 0..wanted {
        let mut flipped = file.clone();
        let bit = random.usize(..file.len() * 8);
        flipped[bit / 8] ^= 1 << (bit % 8);
        // What is read while a file is verified is right, or is not given.
        let read_meanwhile = open_and_dump(Box::new(Sim::of(flipped.clone())));
        let opened = open_sim(&Sim::of(flipped), limits());
        match (&opened, read_meanwhile) {
            (Ok(_), Ok((_, read))) => assert!(read.is_none_or(|read| read == expected.1)),
            (Err(error), Err(again)) => assert_eq!(error.to_string(), again.to_string()),
            (opened, again) => panic!("copy {copy}, bit {bit}: {opened:?}, then {again:?}"),
        }
        match opened {
            Err(error) => {
                let named = matches!(
                    error,
                    OpenError::Corrupt { .. }
                        | OpenError::Foreign { .. }
                        | OpenError::Newer { .. }
                        | OpenError::Truncated(_)
                );
                assert!(named, "copy {copy}, bit {bit}: {error:?}");
                refused += 1;
            }
            Ok(store) => match everything(&store) {
                Ok(found) => assert!(found == expected, "copy {copy}, bit {bit}: another content"),
                Err(_) => reads_refused += 1,
            },
        }
    }
    // Most of the file is content, and redb's checksums, which are verified first, have all of it.
    assert!(refused * 3 > wanted, "of {wanted} copies only {refused} were refused");
    assert_eq!(reads_refused, 0);
}

/// The file of a store with a key, whose value is longer than the pages that are kept while it is opened.
fn file_with(key: &str) -> Vec<u8> {
    let sim = new_disk();
    let store = open_sim(&sim, limits()).unwrap();
    let batch = Batch {
        transactions: vec![Transaction { ops: vec![put(key, vec![1; 2 * OPENING_CACHE_BYTES])] }],
        ..Batch::default()
    };
    append(&store, &head_of(&store), &batch).unwrap();
    drop(store);
    sim.file()
}

#[test]
fn a_store_is_read_while_it_is_verified() {
    let (store, read) = open_and_dump(Box::new(Sim::of(file_with("key")))).unwrap();
    let snapshot = recovered(&store).unwrap();
    assert_eq!(read, Some(dump(&*snapshot).unwrap()));
    assert!(snapshot.get(b"key").unwrap().is_some());
}

/// The unverified file is whole and the other is damaged: nothing is opened, and the reading ends.
#[test]
fn what_was_read_of_a_refused_file_is_dropped() {
    let read = file_with("key");
    let mut damaged = read.clone();
    // Not the header: the pages behind it.
    damaged[4_096..].fill(0xa5);
    let (damaged, read) = (Sim::of(damaged), Sim::of(read));
    let disk = Turns { files: [damaged, read.clone(), read], opened: Arc::default() };
    let path = PathBuf::from("store.redb");
    let reads = |view: &Arc<dyn View>| -> Option<()> {
        while dump(&**view).is_ok() {}
        Some(())
    };
    let refused = RedbStore::open_and_read_on(Box::new(disk), path, limits(), reads);
    assert!(matches!(refused, Err(OpenError::Corrupt { .. })), "{refused:?}");
}

/// As if redb had gone back to an earlier commit.
#[test]
fn what_was_read_at_another_head_is_dropped() {
    let (first, second) = (Sim::of(file_with("first")), Sim::of(file_with("second")));
    let disk = Turns { files: [first.clone(), second, first], opened: Arc::default() };
    let (store, read) = open_and_dump(Box::new(disk)).unwrap();
    assert_eq!(read, None);
    assert!(recovered(&store).unwrap().get(b"first").unwrap().is_some());
}

/// Reading is only for speed: a store opens without it.
#[test]
fn a_panic_of_the_reading_is_no_error() {
    let path = PathBuf::from("store.redb");
    let disk = Box::new(Sim::of(file_with("key")));
    let panics = |_: &Arc<dyn View>| -> Option<()> { panic!("as a test wants it") };
    let (_, read) = RedbStore::open_and_read_on(disk, path, limits(), panics).unwrap();
    assert_eq!(read, None);
}
