//! Backups of a store in memory.

use capstan_iam::audit::HEAD_KEY;
use capstan_store::{Backup, BackupReader, EntryRef, Op, Transaction};
use futures_util::StreamExt as _;

use super::*;
use crate::feed::journal::restored;
use crate::limits::BACKUPS_MAX;

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

fn owned((key, value): EntryRef<'_>) -> (Vec<u8>, Vec<u8>) {
    (key.to_vec(), value.to_vec())
}

fn entries(view: &dyn View) -> Entries {
    let mut entries = vec![];
    let all = (Bound::Unbounded, Bound::Unbounded);
    view.scan(all, &mut |key, value| {
        entries.push(owned((key, value)));
        true
    })
    .unwrap();
    entries
}

fn read(bytes: &[u8]) -> (Entries, Backup) {
    let mut reader = BackupReader::new(bytes).unwrap();
    let mut entries = vec![];
    while let Some(entry) = reader.next().unwrap() {
        entries.push(owned(entry));
    }
    (entries, reader.finish().unwrap())
}

impl Running {
    fn view(&self) -> Arc<dyn View> {
        self.published.current().unwrap().view().unwrap()
    }
}

/// What is written after its view was taken, also while it is sent, is not in it; what belongs to no object is.
#[tokio::test]
async fn a_backup_is_of_one_revision_while_others_are_written() {
    let running = start(&acme().await).await;
    running.import(&many(10_000, "")).await;
    let (revision, expected) = (running.revision(), entries(&*running.view()));
    let documents = running.documents();
    let mut stream = documents.backup(running.view());
    let mut parts = vec![stream.try_next().await.unwrap().unwrap()];
    running.import(&many(10_002, "")).await;
    assert!(running.revision() > revision);
    parts.extend(stream.try_collect::<Vec<_>>().await.unwrap());
    assert!(parts.len() > EXPORT_PARTS_MAX + 2);
    assert!(parts.iter().rev().skip(1).all(|part| part.len() == EXPORT_CHUNK_BYTES));
    let (found, backup) = read(&parts.concat());
    assert_eq!(backup.head.revision(), revision);
    assert!(found == expected);
    for key in [HEAD_KEY, &capstan_iam::audit::key(1), catalog::KEY] {
        assert!(found.iter().any(|(found, _)| found == key), "{}", key.escape_ascii());
    }
}

#[tokio::test]
async fn few_backups_run_at_a_time() {
    let running = start(&acme().await).await;
    running.import(&many(20_000, "")).await;
    let documents = running.documents();
    let waiting: Vec<_> = (0..BACKUPS_MAX).map(|_| documents.backup(running.view())).collect();
    let busy = Err(RequestError::Store(StoreFailure::Busy));
    assert_eq!(documents.backup(running.view()).try_collect::<Vec<_>>().await, busy);
    drop(waiting);
    let mut tries = 0..1_000;
    while documents.backup(running.view()).try_collect::<Vec<_>>().await.is_err() {
        assert!(tries.next().is_some());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A part of a backup is never taken for the whole.
#[tokio::test(start_paused = true)]
async fn a_backup_whose_client_stops_reading_ends_with_an_error() {
    let running = start(&acme().await).await;
    running.import(&many(20_000, "")).await;
    let documents = running.documents();
    let stream = documents.backup(running.view());
    // The thread of the backup works in the time of the machine, and waits in that of the runtime.
    while documents.backups_free() < BACKUPS_MAX {
        tokio::time::sleep(EXPORT_STALL_MAX).await;
    }
    let mut parts: Vec<_> = stream.collect().await;
    assert_eq!(parts.pop().unwrap(), Err(RequestError::Store(StoreFailure::Busy)));
    let parts: Vec<_> = parts.into_iter().map(Result::unwrap).collect();
    assert!(parts.len() <= EXPORT_PARTS_MAX + 1, "{}", parts.len());
    let bytes = parts.concat();
    let read = BackupReader::new(&bytes[..]).and_then(|mut reader| reader.finish());
    assert!(matches!(read, Err(capstan_store::BackupError::Truncated(_))), "{read:?}");
}

/// A view that cannot be read beyond its first entry.
#[derive(Debug)]
struct Unreadable(Arc<dyn View>);

impl View for Unreadable {
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
        self.0.scan(range, &mut |key, value| {
            each(key, value);
            false
        })?;
        Err(StoreError::Unreachable(io_error()))
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_read_ends_the_backup_with_an_error() {
    let running = start(&acme().await).await;
    let view = Arc::new(Unreadable(running.view()));
    let ended = running.documents().backup(view).try_collect::<Vec<_>>().await;
    assert_eq!(ended, Err(RequestError::Store(StoreFailure::Unreachable)));
}

/// The first transaction of a restored store is audited behind what was restored.
#[tokio::test]
async fn a_restore_is_audited() {
    let running = start(&acme().await).await;
    let view = running.view();
    let mut bytes = vec![];
    let backup = capstan_store::write_backup(&*view, &mut bytes).unwrap();
    let Transaction { ops } = restored(&view, &backup, Timestamp::new(START, 0)).unwrap();
    let [Op::Put { key, value }, Op::Put { key: head_key, value: head }] = &ops[..] else {
        panic!("{ops:?}")
    };
    let (before, head) = (running.audit().len() as u64, AuditHead::decode(head).unwrap());
    assert_eq!((number(key), &head_key[..], head.next), (Some(before + 1), HEAD_KEY, before + 2));
    let (record, digest) = AuditRecord::decode(before + 1, value).unwrap();
    assert_eq!(digest, head.digest);
    let AuditRecord { revision, actor, origin, method, text, .. } = record;
    assert_eq!((revision, &*actor, &*method), (running.revision() + 1, "", "restore"));
    assert_eq!((&*origin.authentication, origin.request), ("offline", backup.digest));
    assert_eq!(text, format!("from a backup of revision {}", running.revision()));

    // What no server has written is not restored.
    let other: Arc<dyn View> = Faulty::new().view().await.unwrap();
    let error = restored(&other, &backup, Timestamp::new(START, 0)).unwrap_err().to_string();
    assert_eq!(error, "the store has no catalog: it was not made by `capstan init`");
}
