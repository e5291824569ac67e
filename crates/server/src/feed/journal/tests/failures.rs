//! A store that fails or is slow, and callers that do not wait.

use capstan_iam::BatchCreateRoleBindings;

use super::*;
use crate::limits::{CALLER_WRITES_QUEUED_MAX, SETTLE_PAUSE, WRITE_GROUP_BYTES, WRITES_QUEUED_MAX};
use crate::telemetry::metrics;

#[tokio::test]
async fn a_failure_changes_nothing_and_is_over_with_the_next_write() {
    let journal = acme().await;
    let running = start(&journal).await;
    let first = running.revision();
    for (fault, expected) in [
        (Fault::Full, StoreFailure::Full),
        (Fault::ReadOnly, StoreFailure::ReadOnly),
        (Fault::Unreachable, StoreFailure::Unreachable),
        (Fault::UnknownNotMade, StoreFailure::OutcomeUnknown),
        (Fault::Conflict, StoreFailure::Unreachable),
    ] {
        journal.fails(fault);
        let failed = running.try_as_alice(create("acme/x")).await;
        assert!(
            matches!(&failed, Err(RequestError::Store(found)) if *found == expected),
            "{failed:?}"
        );
        assert_eq!((running.revision(), running.group("acme/x")), (first, None), "{fault:?}");
        // Checks go on.
        assert!(running.allows("alice", "repo.list", "acme/x"));
    }
    let made = running.as_alice(create("acme/x")).await;
    assert_eq!(made.revision, first + 1);
    assert_eq!(running.audit().len(), 2);
}

#[tokio::test]
async fn a_write_of_unknown_outcome_is_settled_by_its_request_id() {
    for (fault, made) in [(Fault::UnknownMade, true), (Fault::UnknownNotMade, false)] {
        let journal = acme().await;
        let running = start(&journal).await;
        let first = running.revision();
        let asked = || Write { request_id: Some("r".into()), ..write(alice(), create("acme/x")) };
        journal.fails(fault);
        // Nor can the store be read for a while.
        journal.blind.store(usize::MAX, Ordering::Relaxed);
        let failed = running.writes.write(asked()).await;
        assert!(matches!(failed, Err(RequestError::Store(StoreFailure::OutcomeUnknown))));
        assert_eq!(running.revision(), first, "what is not known to be made is not shown");
        for _ in 0..2 {
            let failed = running.writes.write(asked()).await;
            assert!(matches!(failed, Err(RequestError::Store(StoreFailure::Unreachable))));
        }
        journal.blind.store(0, Ordering::Relaxed);
        let settled = running.writes.write(asked()).await.unwrap();
        assert_eq!((settled.revision, running.revision()), (first + 1, first + 1), "{made}");
        assert!(running.group("acme/x").is_some());
        assert_eq!(running.audit().len(), 2, "it was made once");
    }
}

#[tokio::test]
async fn a_change_that_cannot_be_read_is_shown_as_soon_as_it_can() {
    let journal = acme().await;
    let running = start(&journal).await;
    let first = running.revision();
    journal.blind.store(usize::MAX, Ordering::Relaxed);
    let failed = running.try_as_alice(create("acme/x")).await;
    assert!(matches!(failed, Err(RequestError::Store(StoreFailure::OutcomeUnknown))));
    assert_eq!(running.revision(), first);
    journal.blind.store(0, Ordering::Relaxed);
    // Nobody writes.
    let shown = async {
        while running.revision() == first {
            tokio::time::sleep(SETTLE_PAUSE / 10).await;
        }
    };
    tokio::time::timeout(SETTLE_PAUSE * 10, shown).await.unwrap();
    assert_eq!(running.revision(), first + 1);
    running.as_alice(create("acme/y")).await;
    assert_eq!(running.revision(), first + 2);
    assert!(running.group("acme/x").is_some());
}

#[tokio::test]
async fn a_store_that_another_process_has_changed_is_loaded_anew() {
    let journal = acme().await;
    let (running, other) = (start(&journal).await, start(&journal).await);
    other.as_alice(create("acme/theirs")).await;
    let failed = running.try_as_alice(create("acme/mine")).await;
    assert!(matches!(failed, Err(RequestError::Store(StoreFailure::Unreachable))), "{failed:?}");
    running.as_alice(create("acme/theirs/mine")).await;
    assert!(running.group("acme/theirs").is_some());
    running.audit();
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_made() {
    let journal = acme().await;
    let running = start(&journal).await;
    let (first, mut dropped) = (running.revision(), vec![]);
    for at in 0..10 {
        let (answer, _) = tokio::sync::oneshot::channel();
        dropped.push((write(alice(), create(&format!("acme/g{at}"))), answer));
    }
    running.writes.send_all_for_test(dropped);
    running.as_alice(create("acme/wanted")).await;
    assert_eq!(running.revision(), first + 1);
}

fn scrape(metrics: &Arc<Metrics>) -> String {
    metrics::scrape(&metrics::registry(metrics), metrics::Format::Text).unwrap()
}

/// Starts a write that waits in the queue.
fn wait<'w>(writes: &'w Writes, actor: Actor) -> BoxFuture<'w, Result<Written, RequestError>> {
    let mut waiting = writes.write(write(actor, create("acme/x")));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(waiting.as_mut().poll(&mut context).is_pending());
    waiting
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let metrics: Arc<Metrics> = Arc::default();
    let (writes, _queue) = writer::queue(&metrics);
    let mut waiting: Vec<_> =
        (0..CALLER_WRITES_QUEUED_MAX).map(|_| wait(&writes, alice())).collect();
    // One caller has half of the places.
    let refused = writes.write(write(alice(), create("acme/x"))).await;
    assert!(matches!(refused, Err(RequestError::Store(StoreFailure::Busy))));
    let others = CALLER_WRITES_QUEUED_MAX..WRITES_QUEUED_MAX;
    waiting.extend(others.map(|_| wait(&writes, Actor::Operator)));
    let bob = || Actor::identity(path("bob"));
    let refused = writes.write(write(bob(), create("acme/x"))).await;
    assert!(matches!(refused, Err(RequestError::Store(StoreFailure::Busy))));
    // The place of a call that was cancelled is free at once.
    waiting.pop();
    waiting.push(wait(&writes, bob()));
    let text = scrape(&metrics);
    assert!(text.contains("capstan_writes_total{outcome=\"failed\"} 2"), "{text}");
}

/// A bug in one write is the failure of that one: those beside it are made.
#[tokio::test]
async fn a_write_that_panics_takes_no_other_with_it() {
    let journal = acme().await;
    let running = start(&journal).await;
    running.as_alice(create("acme/trap")).await;
    let first = running.revision();
    let all = [create("acme/a"), rename("acme/trap", "a"), create("acme/b")];
    let all = all.into_iter().chain([rename("acme/trap", "b"), create("acme/c")]);
    let answers = futures_util::future::join_all(all.map(|one| running.try_as_alice(one))).await;
    let made: Vec<_> = answers.iter().map(|answer| answer.as_ref().ok()).collect();
    let made: Vec<_> = made.iter().map(|one| one.map(|one| one.revision - first)).collect();
    assert_eq!(made, [Some(1), None, Some(2), None, Some(3)]);
    for answer in [&answers[1], &answers[3]] {
        let Err(RequestError::Bug { correlation }) = answer else { panic!("{answer:?}") };
        assert_eq!(correlation.len(), 16, "the log has the rest");
    }
    assert_eq!(running.audit().len(), 5);
    running.as_alice(create("acme/d")).await;
    let text = scrape(&running.metrics);
    assert!(text.contains("capstan_panics_total 2"), "{text}");
}

/// The services say that they cannot write, and that they can again, also if nobody writes meanwhile.
#[tokio::test]
async fn health_follows_the_store_and_recovers_by_itself() {
    let journal = acme().await;
    let mut running = start(&journal).await;
    for fault in [Fault::Full, Fault::ReadOnly, Fault::Unreachable, Fault::UnknownMade] {
        assert!(*running.writable.borrow(), "{fault:?}");
        journal.fails(fault);
        let failed = running.try_as_alice(rename("acme", "other")).await;
        assert!(failed.is_err());
        // It was said before the answer.
        assert!(running.writable.has_changed().unwrap(), "{fault:?}");
        let recovered = running.writable.wait_for(|is_writable| *is_writable);
        tokio::time::timeout(SETTLE_PAUSE * 10, recovered).await.unwrap().unwrap();
    }
}

/// The bytes of a commit are bounded, too: further writes wait for the next one.
#[tokio::test]
async fn large_writes_share_fewer_commits() {
    let journal = acme().await;
    let running = start(&journal).await;
    let identity = |at: usize| path(&format!("{at:040x}"));
    let batch = |first: usize| {
        let bindings = (first..first + 250).map(|at| NewRoleBinding {
            id: None,
            name: "x".repeat(1_000),
            description: "y".repeat(1_000),
            identity: identity(at),
            role: "viewer".into(),
            scope: path("acme"),
            expires_at: None,
            when: vec![],
        });
        let (parent, bindings) = (path("acme"), bindings.collect());
        Operation::BatchCreateRoleBindings(BatchCreateRoleBindings { parent, bindings })
    };
    let all = (0..20).map(|at| running.as_alice(batch(at * 250)));
    futures_util::future::join_all(all).await;
    let largest = journal.largest.load(Ordering::Relaxed);
    // Each has half a megabyte of bindings, and the same in its audit record.
    let one = 1_500_000;
    assert!(largest > WRITE_GROUP_BYTES / 2 && largest < WRITE_GROUP_BYTES + one, "{largest}");
    assert!(journal.appended.load(Ordering::Relaxed) >= 3);
}
