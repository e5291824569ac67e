//! Concurrency tests of the shared state: callers, streams, unary calls, sweeps and shutdown as threads,
//! under many schedules that `shuttle` generates. `shuttle` reports a lost wake-up as a deadlock.
//!
//! ```text
//! cargo test -p capstan-client --lib shared                               short: about 10 s
//! SHUTTLE_ITERATIONS=50000 cargo test -p capstan-client --lib shared      long: about 5 minutes
//! ```
//!
//! A thread can be preempted where it locks the queue or accesses the highest revision. tokio's and
//! tokio-util's primitives (`Semaphore`, `Notify`, `oneshot`, `CancellationToken`) do not yield to shuttle,
//! so each of their operations is atomic here; they have concurrency tests of their own. A failed schedule
//! is printed, and can be replayed with `shuttle::replay`.

use std::future::poll_fn;

use capstan_proto::v1::{BatchCheckRequest, BatchCheckResponse, CheckResult, Reason};
use prost::Message as _;
use shuttle::future::block_on;
use shuttle::thread::{self, JoinHandle};

use super::*;
use crate::check_future::CheckFuture;
use crate::limits::PERMIT_BYTES;
use crate::properties::Properties;

/// Random schedules, and as many by the PCT algorithm (Burckhardt et al., 2010).
const ITERATIONS: usize = 1_500;
/// Preemptions of a PCT schedule.
const PREEMPTIONS: usize = 3;
/// In epoch 2, so that it outlives a stream.
const REVISION: u64 = 2 << 40;

/// Runs a scenario under many schedules.
fn explore(scenario: fn()) {
    let iterations = std::env::var("SHUTTLE_ITERATIONS").ok().map(|text| text.parse().unwrap());
    let iterations = iterations.unwrap_or(ITERATIONS);
    // Timers need tokio's time driver. It never runs, so no deadline passes by itself.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let _guard = runtime.enter();
    shuttle::check_random(scenario, iterations);
    shuttle::check_pct(scenario, iterations, PREEMPTIONS);
}

fn shared(pending_max: usize) -> Arc<Shared> {
    let options = Options { pending_max, batch_checks_max: 2, ..Options::default() };
    Arc::new(Shared::new(options.clamped(), None))
}

/// Answers each check with the number in its identity as `valid_until`.
fn answer(batch: &EncodedBatch) -> Reply {
    let request = BatchCheckRequest::decode(&*batch.checks).unwrap();
    let results = request.checks.iter().map(|check| CheckResult {
        allowed: true,
        reason: Reason::Granted.into(),
        error: None,
        valid_until: Some(prost_types::Timestamp {
            seconds: check.identity.parse().unwrap(),
            nanos: 0,
        }),
    });
    Ok(BatchCheckResponse { results: results.collect(), revision: REVISION })
}

/// A check by a thread of its own.
fn caller(shared: &Arc<Shared>, number: u64, consistency: Consistency) -> JoinHandle<Outcome> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let identity = number.to_string();
        let mut check = Check::new(&identity, "a.b", "c");
        check.consistency = consistency;
        let outcome = block_on(CheckFuture::new(&shared, check));
        if let Ok(decision) = &outcome {
            let until = decision.valid_until.unwrap();
            let seconds = until.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
            assert_eq!(seconds, number, "the answer of another call");
        }
        outcome
    })
}

/// A caller that drops its future after the first poll.
fn cancelled_caller(shared: &Arc<Shared>) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let mut future = Box::pin(CheckFuture::new(&shared, Check::new("0", "a.b", "c")));
        block_on(poll_fn(|cx| {
            let _ = future.as_mut().poll(cx);
            Poll::Ready(())
        }));
    })
}

/// Connections that fail one after another, then one that answers until the client is shut down.
fn connection(shared: &Arc<Shared>, failures: &'static [fn() -> Failure]) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        for failure in failures {
            let (id, _) = shared.open();
            // Fails with a batch in flight, if there is one before the shutdown.
            block_on(poll_fn(|cx| shared.poll_next(id, cx)));
            shared.end(id, &failure());
        }
        serve(&shared, shared.open().0);
    })
}

/// Answers the batches of a stream, each after the next one is sent where there is one.
fn serve(shared: &Shared, id: u64) {
    while let Some(batch) = block_on(poll_fn(|cx| shared.poll_next(id, cx))) {
        // Fails if the client was shut down meanwhile.
        let _ = shared.reply(id, answer(&batch));
    }
    shared.end(id, &Failure::lost("finished"));
}

/// Unary calls, each in a thread of its own, of which the first fails, until the client is shut down.
fn unary_calls(shared: &Arc<Shared>) -> JoinHandle<()> {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        let mut calls = vec![];
        let stop = shared.stop.clone();
        while let Some((id, batch, _)) = block_on(stop.run_until_cancelled(shared.next_unary())) {
            let (shared, is_first) = (Arc::clone(&shared), calls.is_empty());
            calls.push(thread::spawn(move || match is_first {
                true => shared.unary_failed(id, &Failure::lost("a unary call")),
                false => shared.unary_reply(id, answer(&batch)),
            }));
        }
        for call in calls {
            call.join().unwrap();
        }
    })
}

/// Returns only if every permit was returned: otherwise it waits for ever, which is a deadlock. Repeats a
/// check that is rejected.
fn acquire_every_permit(shared: &Shared, pending_max: usize) {
    let filler = "x".repeat((pending_max - 1) * PERMIT_BYTES);
    let properties = Properties::default().context("x", filler);
    let check = Check::new("1", "a.b", "c").properties(&properties);
    assert_eq!(permits_of(&CheckEncoder::new(&check)) as usize, pending_max);
    while block_on(CheckFuture::new(shared, check)).is_err() {}
}

fn lost() -> Failure {
    Failure::lost("lost")
}

fn rejected() -> Failure {
    Failure::Split(Error::Protocol("rejected"))
}

/// Connections break and a batch is rejected. Every call gets its own answer, or the error of the rejected
/// batch if it was alone in it, and every permit is returned.
#[test]
fn failures_lose_no_call_and_no_permit() {
    explore(|| {
        let shared = shared(3);
        let connection = connection(&shared, &[lost, rejected]);
        let unary = unary_calls(&shared);
        let callers = [
            caller(&shared, 1, Consistency::Any),
            caller(&shared, 2, Consistency::AtLeast(REVISION)),
            caller(&shared, 3, Consistency::Any),
        ];
        for caller in callers {
            let outcome = caller.join().unwrap();
            let rejected = outcome == Err(Error::Protocol("rejected"));
            assert!(outcome.is_ok() || rejected, "{outcome:?}");
        }
        acquire_every_permit(&shared, 3);
        shared.close();
        connection.join().unwrap();
        unary.join().unwrap();
    });
}

/// Callers wait for permits, one gives up, and a sweep lets every deadline pass at any time.
#[test]
fn cancelled_and_late_calls_return_their_permits() {
    explore(|| {
        let shared = shared(2);
        let connection = connection(&shared, &[lost]);
        let unary = unary_calls(&shared);
        let cancelled = cancelled_caller(&shared);
        let callers = [
            caller(&shared, 1, Consistency::Any),
            caller(&shared, 2, Consistency::Full),
            caller(&shared, 3, Consistency::Any),
        ];
        let late = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.sweep(Instant::now() + TIME_MAX + TIME_MAX))
        };
        cancelled.join().unwrap();
        late.join().unwrap();
        for caller in callers {
            let outcome = caller.join().unwrap();
            let is_late = matches!(outcome, Err(Error::DeadlineExceeded(_)));
            assert!(outcome.is_ok() || is_late, "{outcome:?}");
        }
        acquire_every_permit(&shared, 2);
        shared.close();
        connection.join().unwrap();
        unary.join().unwrap();
    });
}

/// A connection is replaced while calls arrive: no call is left to the old stream.
#[test]
fn a_replaced_connection_leaves_no_call_behind() {
    explore(|| {
        let shared = shared(4);
        let (old, _) = shared.open();
        let old_connection = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || serve(&shared, old))
        };
        let replacement = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (new, _) = shared.open();
                shared.finish(old);
                serve(&shared, new);
            })
        };
        let callers = [1, 2, 3].map(|number| caller(&shared, number, Consistency::Any));
        for caller in callers {
            assert!(caller.join().unwrap().is_ok());
        }
        old_connection.join().unwrap();
        acquire_every_permit(&shared, 4);
        shared.close();
        replacement.join().unwrap();
    });
}

/// A stream ends after it was woken for a batch and before it takes it: another stream takes the batch.
#[test]
fn a_stream_that_ends_passes_its_wake_up_on() {
    explore(|| {
        let shared = shared(2);
        let ending = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (id, _) = shared.open();
                block_on(poll_fn(|cx| {
                    let _ = shared.poll_next(id, cx);
                    Poll::Ready(())
                }));
                shared.end(id, &lost());
            })
        };
        let connection = connection(&shared, &[]);
        let callers = [1, 2].map(|number| caller(&shared, number, Consistency::Any));
        for caller in callers {
            assert!(caller.join().unwrap().is_ok());
        }
        ending.join().unwrap();
        shared.close();
        connection.join().unwrap();
    });
}

/// The client is shut down at any time: every call gets its own answer or `Closed`, and every task ends.
#[test]
fn a_shutdown_completes_every_call() {
    explore(|| {
        let shared = shared(2);
        let connection = connection(&shared, &[lost]);
        let unary = unary_calls(&shared);
        let callers = [
            caller(&shared, 1, Consistency::Any),
            caller(&shared, 2, Consistency::Full),
            caller(&shared, 3, Consistency::Any),
        ];
        let closer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.close())
        };
        for caller in callers {
            let outcome = caller.join().unwrap();
            assert!(outcome.is_ok() || outcome == Err(Error::Closed), "{outcome:?}");
        }
        closer.join().unwrap();
        connection.join().unwrap();
        unary.join().unwrap();
        let outcome = block_on(CheckFuture::new(&shared, Check::new("4", "a.b", "c")));
        assert_eq!(outcome, Err(Error::Closed));
    });
}

/// The highest revision never decreases while streams of a store with epochs end.
#[test]
fn the_highest_revision_survives_the_end_of_a_stream() {
    explore(|| {
        let shared = shared(2);
        let connection = connection(&shared, &[]);
        assert!(caller(&shared, 1, Consistency::Any).join().unwrap().is_ok());
        let ended = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let (id, _) = shared.open();
                shared.end(id, &lost());
            })
        };
        assert!(caller(&shared, 2, Consistency::Any).join().unwrap().is_ok());
        ended.join().unwrap();
        assert_eq!(shared.revision(), REVISION);
        shared.close();
        connection.join().unwrap();
    });
}
