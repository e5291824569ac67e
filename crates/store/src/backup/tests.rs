//! What is written is read; what is damaged, cut off or something else is refused.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::Bound;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::{EPOCH_MAX, StoreError, View};

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// A state of keys and values.
#[derive(Debug)]
struct State(Head, Entries);

impl View for State {
    fn head(&self) -> Head {
        self.0
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.1.get(key).map(|value| Bytes::copy_from_slice(value)))
    }

    fn scan(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let mut entries = self.1.range::<[u8], _>(range);
        while entries.next().is_some_and(|(key, value)| each(key, value)) {}
        Ok(())
    }
}

fn head() -> Head {
    Head { epoch: 3, seq: 7, n_ops: 2, digest: [8; 32], prev_digest: [9; 32] }
}

fn state(entries: &[(&str, &str)]) -> State {
    let entries = entries.iter().map(|(key, value)| (key.as_bytes().into(), (*value).into()));
    State(head(), entries.collect())
}

fn written(state: &State) -> Vec<u8> {
    let mut bytes = vec![];
    let backup = write_backup(state, &mut bytes).unwrap();
    assert_eq!((backup.head, backup.bytes), (state.0, bytes.len() as u64));
    assert_eq!(backup.entries, state.1.len() as u64);
    bytes
}

/// All entries of a backup, and what it holds.
fn read_all(from: impl Read) -> Result<(Entries, Backup), BackupError> {
    let mut reader = BackupReader::new(from)?;
    let mut entries = Entries::new();
    while let Some((key, value)) = reader.next()? {
        entries.insert(key.to_vec(), value.to_vec());
    }
    assert!(reader.next()?.is_none(), "it stays at its end");
    assert_eq!(reader.entries(), entries.len() as u64);
    Ok((entries, reader.finish()?))
}

fn refusal(bytes: &[u8]) -> BackupError {
    read_all(bytes).expect_err("a backup that is not whole")
}

/// A reader that gives as few bytes at a time as it likes, and is interrupted.
struct Slow<'b>(&'b [u8], usize);

impl Read for Slow<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        if self.1.is_multiple_of(2) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let few = to.len().min(3);
        self.0.read(&mut to[..few])
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        entries in prop::collection::btree_map(
            prop::collection::vec(any::<u8>(), 1..20),
            prop::collection::vec(any::<u8>(), 0..300),
            0..30,
        ),
        (epoch, seq) in (0..=EPOCH_MAX, 0..1_u64 << 40),
    ) {
        let state = State(Head { epoch, seq, ..head() }, entries);
        let bytes = written(&state);
        let (entries, backup) = read_all(Slow(&bytes, 0)).unwrap();
        prop_assert_eq!(&entries, &state.1);
        prop_assert_eq!((backup.head, backup.bytes), (state.0, bytes.len() as u64));
        prop_assert_eq!(&backup.digest[..], bytes.last_chunk::<32>().unwrap());
    }
}

#[test]
fn every_part_of_a_backup_is_cut_off() {
    let bytes = written(&state(&[("a", ""), ("b", "value"), ("c", "another")]));
    for end in 0..bytes.len() {
        match refusal(&bytes[..end]) {
            BackupError::Truncated(at) => assert_eq!(at, end as u64),
            other => panic!("{end}: {other}"),
        }
    }
    let text = refusal(&bytes[..10]).to_string();
    assert_eq!(text, "the backup is cut off: it ends at byte 10, before its own end");
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    let mut bytes = written(&state(&[("a", ""), ("b", "value"), ("c", "another")]));
    let start = MAGIC.len() + 4;
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let refused = refusal(&bytes);
        let is_right = match bit / 8 {
            at if at < MAGIC.len() => matches!(refused, BackupError::Foreign),
            at if at < start => {
                matches!(refused, BackupError::Newer { .. } | BackupError::Corrupt { at: 16, .. })
            }
            // A longer length may reach behind the end.
            at => match refused {
                BackupError::Corrupt { at: found, .. } => {
                    found <= at as u64 && found >= start as u64
                }
                BackupError::Truncated(found) => found == bytes.len() as u64,
                _ => false,
            },
        };
        assert!(is_right, "bit {bit}: {refused}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(read_all(&bytes[..]).is_ok());
}

#[test]
fn what_is_damaged_is_named() {
    let whole = state(&[("first", "value"), ("second", "value")]);
    let bytes = written(&whole);
    let at = |wanted: &[u8]| bytes.windows(wanted.len()).position(|it| it == wanted).unwrap();
    let first = at(b"first") - 4;
    let with = |at: usize, new: &[u8]| {
        let mut changed = bytes.clone();
        changed[at..at + new.len()].copy_from_slice(new);
        refusal(&changed).to_string()
    };
    let corrupt = |at: usize, reason: &str| format!("the backup is corrupt at byte {at}: {reason}");
    assert_eq!(with(first + 5, b"F"), corrupt(first, "record `fFrst` does not match its checksum"));
    assert_eq!(
        with(first, &u32::try_from(KEY_BYTES_MAX + 1).unwrap().to_le_bytes()),
        corrupt(first, "a key of 2049 bytes, at most 2048 are possible")
    );
    let longer = u32::try_from(VALUE_BYTES_MAX + 10).unwrap().to_le_bytes();
    assert_eq!(
        with(first + 9, &longer),
        corrupt(
            first,
            "the record of key `first` has 16777226 bytes, at most 16777225 are possible"
        )
    );
    assert_eq!(
        with(20, &[2]),
        corrupt(20, "the record of its head has version 2, this program reads version 1")
    );
    assert_eq!(with(16, &[0]), corrupt(16, "there is no version 0"));
    assert_eq!(
        with(16, &[2]),
        "it is a backup of version 2, this program reads version 1: use a later version"
    );
    assert_eq!(with(0, b"redb"), "it is no backup of Capstan: it begins with other bytes");
    let end = bytes.len() - 44;
    assert_eq!(with(end + 4, &[3]), corrupt(end, "2 entries, and 3 by its end"));
    let digest = "the digest is not that of what comes before it";
    assert_eq!(with(bytes.len() - 1, &[0]), corrupt(bytes.len() - 32, digest));
    // Whole records in another order, or one of them left out.
    let entry = at(b"second") - 4 - first;
    let mut swapped = bytes.clone();
    swapped[first..end].rotate_left(entry);
    let after = first + (end - first - entry);
    assert_eq!(
        refusal(&swapped).to_string(),
        corrupt(after, "key `first` does not come after the one before")
    );
    let mut twice = bytes.clone();
    twice.splice(first..first, bytes[first..first + entry].to_vec());
    let again = corrupt(first + entry, "key `first` does not come after the one before");
    assert_eq!(refusal(&twice).to_string(), again);
    let mut less = bytes.clone();
    less.drain(first..first + entry);
    assert_eq!(refusal(&less).to_string(), corrupt(end - entry, "1 entries, and 2 by its end"));
    let more = [&bytes[..], b"x"].concat();
    assert_eq!(refusal(&more).to_string(), corrupt(bytes.len(), "it goes on behind its end"));
    // A head that no store has.
    let impossible = written(&State(Head { seq: 1 << 40, ..head() }, Entries::new()));
    assert_eq!(refusal(&impossible).to_string(), corrupt(20, "its head is one that no store has"));
    assert!(matches!(refusal(b""), BackupError::Truncated(0)));
    assert!(matches!(refusal(b"capstan-Backup"), BackupError::Foreign));
}

/// The longest key and value are read; whoever does not take the bytes ends the backup.
#[test]
fn entries_at_their_limits_are_written_and_read() {
    let entries = [(vec![255; KEY_BYTES_MAX], vec![7; VALUE_BYTES_MAX]), (vec![0], vec![])];
    let state = State(head(), entries.into());
    let bytes = written(&state);
    assert_eq!(read_all(&bytes[..]).unwrap().0, state.1);
    for room in [0, 10, 20, 125] {
        let mut small = vec![0; room];
        match write_backup(&state, &mut small[..]) {
            Err(WriteBackupError::Io(error)) => assert_eq!(error.kind(), io::ErrorKind::WriteZero),
            other => panic!("{room}: {other:?}"),
        }
        assert!(matches!(refusal(&small), BackupError::Truncated(at) if at == room as u64));
    }
}

/// A view that fails in the middle, and a source that does.
#[test]
fn failures_of_the_system_are_passed_on() {
    #[derive(Debug)]
    struct Broken(State);
    impl View for Broken {
        fn head(&self) -> Head {
            self.0.head()
        }
        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
            self.0.get(key)
        }
        fn scan(
            &self,
            range: (Bound<&[u8]>, Bound<&[u8]>),
            each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
        ) -> Result<(), StoreError> {
            self.0.scan(range, each)?;
            Err(StoreError::Corrupt("here".to_owned()))
        }
    }
    let mut bytes = vec![];
    let broken = write_backup(&Broken(state(&[("a", "b")])), &mut bytes).unwrap_err();
    assert_eq!(broken.to_string(), "the store is corrupt: here");
    assert!(matches!(refusal(&bytes), BackupError::Truncated(_)));

    struct Fails;
    impl Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::NotConnected.into())
        }
    }
    let whole = written(&state(&[]));
    let failed = read_all(whole[..30].chain(Fails)).unwrap_err();
    assert!(
        matches!(failed, BackupError::Io(error) if error.kind() == io::ErrorKind::NotConnected)
    );
}
