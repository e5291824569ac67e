//! Failures of single operations of the disk: each has a fitting error, nothing acknowledged is lost, nothing refused
//! is made, and the store works again without a restart.

use ::redb::ReadableTable as _;

use super::*;
use sim::{EINTR, EIO, ENOSPC, EROFS, Fault, FaultKind};

/// Limits under which failures stop the writing.
fn stopping() -> Limits {
    Limits { failures_period: Duration::from_secs(60), ..limits() }
}

fn batch(key: &str, value: impl AsRef<[u8]>) -> Batch {
    let transaction = Transaction { ops: vec![put(key, value)] };
    Batch { transactions: vec![transaction], side: Vec::new() }
}

/// What the store holds, by what its answers say.
struct Known {
    head: Head,
    state: State,
    /// A view at this state.
    view: Arc<Snapshot>,
}

impl Known {
    fn of(store: &RedbStore) -> Self {
        let view = recovered(store).unwrap();
        Self { head: view.head, state: dump(&*view).unwrap(), view }
    }
}

/// Appends while an operation may fail, and compares what the answer says with what is there afterwards. Returns whether
/// the append failed.
fn append_and_judge(store: &RedbStore, known: &mut Known, batch: &Batch, label: &str) -> bool {
    let after = applied(known.state.clone(), batch);
    let answer = append(store, &known.head, batch);
    // The view of before goes on, or fails. It is never wrong.
    match dump(&*known.view) {
        Ok(state) => assert_eq!(state, known.state, "{label}"),
        Err(StoreError::Unreachable(_)) => {}
        Err(other) => panic!("{label}: {other}"),
    }
    // The fault may meet the opening, too. It has an end.
    let found = (0..10).find_map(|_| recovered(store).ok());
    let view = found.unwrap_or_else(|| panic!("{label}: the store does not open again"));
    let state = dump(&*view).or_else(|_| dump(&*recovered(store)?)).unwrap();
    match &answer {
        Ok(head) => assert_eq!((view.head, &state), (*head, &after), "{label}"),
        Err(AppendError::Store(StoreError::OutcomeUnknown(_))) => {
            let before = (known.head, &known.state);
            let is_before = (view.head, &state) == before;
            assert!(is_before || state == after, "{label}: neither before nor after");
            let moved = !batch.transactions.is_empty() && !is_before;
            assert_eq!(view.head != known.head, moved, "{label}: the head tells another thing");
        }
        Err(AppendError::Store(error)) => {
            assert!(!matches!(error, StoreError::Corrupt(_)), "{label}: {error}");
            assert_eq!((view.head, &state), (known.head, &known.state), "{label}: {error}");
        }
        Err(other) => panic!("{label}: {other}"),
    }
    *known = Known { head: view.head, state, view };
    answer.is_err()
}

/// Every operation of a run fails, in each way.
#[test]
fn each_failing_operation_has_its_error_and_loses_nothing() {
    let kinds = [
        (FaultKind::Error(EIO), 1),
        (FaultKind::Error(EIO), 4),
        (FaultKind::Error(ENOSPC), 1),
        (FaultKind::Error(EROFS), 1),
        (FaultKind::Error(EINTR), 1),
        (FaultKind::ShortWrite, 1),
        (FaultKind::Sync(EIO), 1),
        (FaultKind::Sync(ENOSPC), 1),
    ];
    for (kind, count) in kinds {
        let (mut failed, mut met) = (0, 0);
        for number in 0.. {
            let label = format!("{kind:?} {count} at {number}");
            let mut random = fastrand::Rng::with_seed(5);
            let sim = new_disk();
            let store = open_sim(&sim, limits()).unwrap();
            let mut known = Known::of(&store);
            let first = sim.operations();
            sim.set_fault(Some(Fault { at: first + number, kind, count }));
            for _ in 0..4 {
                let batch = random_batch(&mut random);
                failed += u64::from(append_and_judge(&store, &mut known, &batch, &label));
            }
            let is_met = sim.operations() > first + number;
            sim.set_fault(None);
            met += u64::from(is_met);
            assert!(!append_and_judge(&store, &mut known, &batch("end", "1"), &label), "{label}");
            let checked = scrub(&store).unwrap_or_else(|error| panic!("{label}: {error}"));
            assert_eq!((checked.head, checked.entries), (known.head, known.state.len() as u64));
            drop(store);
            // Nothing unsynced is needed.
            let store = open_sim(&Sim::of(sim.file()), limits()).unwrap();
            assert_eq!(Known::of(&store).state, known.state, "{label}");
            if !is_met {
                break;
            }
        }
        assert!(met > 40 && failed > 10, "{kind:?}: {met} operations failed, {failed} appends");
    }
}

/// A failed fsync is never tried again on the same handle, and its outcome is unknown until the file is read anew.
#[test]
fn a_failed_sync_leaves_the_outcome_unknown_until_the_head_tells() {
    let (mut made, mut not_made) = (0, 0);
    for number in 0.. {
        let sim = new_disk();
        let store = open_sim(&sim, limits()).unwrap();
        let before = head_of(&store);
        sim.set_fault(Some(Fault {
            at: sim.operations() + number,
            kind: FaultKind::Sync(EIO),
            count: 1,
        }));
        match append(&store, &before, &batch("key", "value")) {
            Err(AppendError::Store(StoreError::OutcomeUnknown(_))) => {}
            Ok(_) => break, // the fault waits behind the last sync
            other => panic!("{other:?}"),
        }
        let head = recovered(&store).unwrap().head;
        if head == before {
            not_made += 1
        } else {
            made += 1
        }
        assert!(append(&store, &head, &batch("next", "value")).is_ok());
    }
    assert!(not_made > 5, "{made} made, {not_made} not");
}

#[test]
fn a_full_disk_refuses_until_there_is_room() {
    let sim = new_disk();
    let store = open_sim(&sim, stopping()).unwrap();
    let head = head_of(&store);
    sim.set_room(crate::limits::FREE_BYTES_MIN + 7, false);
    let too_long = batch("key", "v");
    for _ in 0..10 {
        let operations = sim.operations();
        let answer = append(&store, &head, &too_long);
        assert!(matches!(answer, Err(AppendError::Store(StoreError::Full))), "{answer:?}");
        assert_eq!(sim.operations(), operations, "a full disk is not touched");
    }
    sim.set_room(crate::limits::FREE_BYTES_MIN + 8, false);
    append(&store, &head, &too_long).unwrap();
}

/// The last bytes of a disk may go while a batch is written: that is no failure of the disk either.
#[test]
fn a_disk_that_fills_up_meanwhile_heals_without_a_restart() {
    let sim = new_disk();
    let store = open_sim(&sim, stopping()).unwrap();
    let mut known = Known::of(&store);
    for number in 0..10 {
        let full = Fault { at: sim.operations(), kind: FaultKind::Error(ENOSPC), count: 1 };
        sim.set_fault(Some(full));
        let answer = append(&store, &known.head, &batch("key", vec![1; 300_000]));
        assert!(matches!(answer, Err(AppendError::Store(StoreError::Full))), "{answer:?}");
        assert_eq!(dump(&*known.view).unwrap(), known.state);
        let failed = append_and_judge(&store, &mut known, &batch("key", [number]), "with room");
        assert!(!failed);
    }
}

#[test]
fn a_read_only_file_system_refuses_and_reads_go_on() {
    let sim = new_disk();
    let store = open_sim(&sim, stopping()).unwrap();
    let head = append(&store, &head_of(&store), &batch("key", "value")).unwrap();
    let view = recovered(&store).unwrap();
    sim.set_room(u64::MAX, true);
    for _ in 0..10 {
        let answer = append(&store, &head, &batch("key", "other"));
        assert!(matches!(answer, Err(AppendError::Store(StoreError::ReadOnly(_)))), "{answer:?}");
    }
    assert_eq!(view.get(b"key").unwrap().unwrap(), "value");
    sim.set_room(u64::MAX, false);
    append(&store, &head, &batch("key", "other")).unwrap();
    assert_eq!(view.get(b"key").unwrap().unwrap(), "value");
}

#[test]
fn three_failures_in_a_minute_end_the_writing_until_the_store_is_opened_anew() {
    let sim = new_disk();
    let store = open_sim(&sim, stopping()).unwrap();
    let head = head_of(&store);
    for _ in 0..crate::limits::FAILURES_MAX {
        let fault = Fault { at: sim.operations(), kind: FaultKind::Error(EIO), count: 1 };
        sim.set_fault(Some(fault));
        let answer = append(&store, &head, &batch("key", vec![1; 300_000]));
        assert!(
            matches!(answer, Err(AppendError::Store(StoreError::Unreachable(_)))),
            "{answer:?}"
        );
    }
    sim.set_fault(None);
    match append(&store, &head, &batch("key", "value")) {
        Err(AppendError::Store(StoreError::ReadOnly(reason))) => {
            assert!(reason.contains("failed 3 times within 60 s"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(recovered(&store).unwrap().head, head);
    drop(store);
    let store = open_sim(&sim, stopping()).unwrap();
    append(&store, &head, &batch("key", "value")).unwrap();
}

/// The third failure may be that of a read, which the next append finds: it must not make one more commit.
#[test]
fn a_failed_read_may_be_the_failure_that_ends_the_writing() {
    let sim = new_disk();
    let store = open_sim(&sim, Limits { cache_bytes: 0, ..stopping() }).unwrap();
    // More than redb keeps in memory.
    let ops = (0..200).map(|number| put(format!("key {number}"), vec![1; 1_000])).collect();
    let many = Batch { transactions: vec![Transaction { ops }], side: Vec::new() };
    let head = append(&store, &head_of(&store), &many).unwrap();
    let fail_next = || {
        let fault = Fault { at: sim.operations(), kind: FaultKind::Error(EIO), count: 1 };
        sim.set_fault(Some(fault));
    };
    for _ in 1..crate::limits::FAILURES_MAX {
        fail_next();
        append(&store, &head, &batch("key", vec![2; 300_000])).unwrap_err();
    }
    // As a reader before it says that its read failed.
    let tables = recovered(&store).unwrap().tables.load_full();
    fail_next();
    let read = caught(|| {
        let mut entries = tables.state.iter()?;
        Ok(entries.find_map(Result::err).map_or(Ok(()), Err)?)
    });
    assert!(read.is_err());
    match append(&store, &head, &batch("key", "value")) {
        Err(AppendError::Store(StoreError::ReadOnly(reason))) => {
            assert!(reason.contains("failed 3 times"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    let view = recovered(&store).unwrap();
    assert_eq!((view.head, dump(&*view).unwrap().len()), (head, 200));
}

/// A disk may say only at a sync that it is full. Then the outcome is unknown, but the disk has not failed: writes go on
/// however often that happens.
#[test]
fn a_disk_that_is_full_at_a_sync_does_not_count_as_failed() {
    let sim = new_disk();
    let store = open_sim(&sim, stopping()).unwrap();
    let mut head = head_of(&store);
    for number in 0..4 * crate::limits::FAILURES_MAX {
        sim.set_fault(Some(Fault {
            at: sim.operations(),
            kind: FaultKind::Sync(ENOSPC),
            count: 1,
        }));
        let answer = append(&store, &head, &batch("key", [1]));
        assert!(
            matches!(answer, Err(AppendError::Store(StoreError::OutcomeUnknown(_)))),
            "{number}: {answer:?}"
        );
        head = recovered(&store).unwrap().head;
    }
    sim.set_fault(None);
    append(&store, &head, &batch("key", "value")).unwrap();
    scrub(&store).unwrap();
}

/// A store that cannot be opened again after a failure is tried again after a pause, not at once.
#[test]
fn a_disk_that_stays_away_is_tried_again_after_a_pause() {
    let sim = new_disk();
    let pause = Duration::from_secs(3600);
    let store = open_sim(&sim, Limits { reopen_pause: pause, ..limits() }).unwrap();
    let head = head_of(&store);
    let view = recovered(&store).unwrap();
    sim.set_fault(Some(Fault {
        at: sim.operations(),
        kind: FaultKind::Error(EIO),
        count: 1 << 40,
    }));
    append(&store, &head, &batch("key", "value")).unwrap_err();
    let operations = sim.operations();
    for _ in 0..10 {
        assert!(matches!(recovered(&store), Err(StoreError::Unreachable(_))));
        assert!(matches!(view.get(b"key"), Ok(None) | Err(StoreError::Unreachable(_))));
        append(&store, &head, &batch("key", "value")).unwrap_err();
    }
    assert_eq!(sim.operations(), operations, "a disk that is away is not asked again and again");

    sim.set_fault(None);
    store.shared.lock().end_pause();
    append(&store, &head, &batch("key", "value")).unwrap();
    assert!(matches!(view.get(b"key"), Ok(None) | Err(StoreError::Unreachable(_))));
}

/// A failed read is one error at most: the file is opened again, and the view goes on.
#[test]
fn a_view_goes_on_after_a_failed_read() {
    let sim = new_disk();
    let store = open_sim(&sim, limits()).unwrap();
    let mut head = head_of(&store);
    let mut known = State::new();
    for number in 0..200_u32 {
        let batch = batch(&format!("key {number}"), vec![1; 1_000]);
        known = applied(known, &batch);
        head = append(&store, &head, &batch).unwrap();
    }
    drop(store);
    let mut met = 0;
    for number in 0..30 {
        let store = open_sim(&sim, Limits { cache_bytes: 0, ..limits() }).unwrap();
        let view = recovered(&store).unwrap();
        let at = sim.operations() + number;
        sim.set_fault(Some(Fault { at, kind: FaultKind::Error(EIO), count: 1 }));
        assert_eq!(dump(&*view).unwrap(), known, "at {number}");
        met += u64::from(sim.operations() > at);
        sim.set_fault(None);
    }
    assert!(met > 10, "{met} reads failed");
    let store = open_sim(&sim, limits()).unwrap();
    let view = recovered(&store).unwrap();
    // Not so a view whose state is gone.
    append(&store, &head, &batch("key", "value")).unwrap();
    store.shared.lock().forget_handle();
    assert!(matches!(dump(&*view), Err(StoreError::Unreachable(_))));
    assert_eq!(recovered(&store).unwrap().get(b"key").unwrap().unwrap(), "value");
}

/// Another store in the place of this one is not written.
#[test]
fn a_file_that_was_replaced_is_refused() {
    let sim = new_disk();
    let store = open_sim(&sim, limits()).unwrap();
    let empty = sim.file();
    let head = append(&store, &head_of(&store), &batch("key", "value")).unwrap();
    store.shared.lock().forget_handle();
    sim.replace(empty);
    match append(&store, &head, &batch("key", "other")) {
        Err(AppendError::Store(StoreError::Corrupt(reason))) => {
            assert!(reason.contains("transaction 1 was acknowledged"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
}
