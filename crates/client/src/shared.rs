//! The state that callers and background tasks share: the queue behind a mutex, the permits, and the
//! notifications between tasks.
//!
//! **Invariant**: no waker is woken and no answer is sent while the mutex is held.

use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use capstan_proto::contract::epoch;
use capstan_proto::v1;
use tokio::sync::{Notify, Semaphore, TryAcquireError, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::check::{Check, Consistency};
use crate::credential::Credential;
use crate::error::Error;
use crate::failure::Failure;
use crate::limits::{Options, REVISION_MAX, TIME_MAX};
use crate::queue::{Call, Effects, MinRevision, Outcome, PushEffects, Queue, SealedBatch, permits};
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering};
use crate::wire::{CheckEncoder, EncodedBatch, Reply, decision};

/// Minimum time between two sweeps: deadlines are kept to about this precision.
const SWEEP_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// The shared state of a client.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    /// What proves who asks.
    credential: Option<Credential>,
    queue: Mutex<Queue>,
    /// Free permits of [`Options::pending_max`].
    permits: Semaphore,
    /// The highest revision of any answer; 0 before the first answer.
    highest: AtomicU64,
    /// The next sweep is due earlier than before.
    sweep_changed: Notify,
    /// There may be a batch for a unary call.
    unary_ready: Notify,
    /// Cancelled on shutdown.
    pub(crate) stop: CancellationToken,
}

impl Shared {
    pub(crate) fn new(options: Options, credential: Option<Credential>) -> Self {
        Self {
            options,
            credential,
            queue: Mutex::new(Queue::new(options)),
            permits: Semaphore::new(options.pending_max),
            highest: AtomicU64::new(0),
            sweep_changed: Notify::new(),
            unary_ready: Notify::new(),
            stop: CancellationToken::new(),
        }
    }

    /// A request that says who asks.
    ///
    /// # Errors
    ///
    /// The token cannot be read.
    pub(crate) fn request<T>(&self, message: T) -> Result<Request<T>, Failure> {
        let mut request = Request::new(message);
        if let Some(credential) = &self.credential {
            credential.add_to(&mut request).map_err(|error| {
                // Also if no batch has been sent.
                self.record_problem(&error.to_string());
                Failure::lost(error.to_string())
            })?;
        }
        Ok(request)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` under the mutex, then its effects without it.
    fn with<T>(&self, act: impl FnOnce(&mut Queue, &mut Effects) -> T) -> T {
        let mut effects = Effects::default();
        let result = act(&mut self.lock(), &mut effects);
        self.run(effects);
        result
    }

    fn run(&self, effects: Effects) {
        let Effects { wake, complete, permits, sweep_changed, unary_ready } = effects;
        for waker in wake {
            waker.wake();
        }
        for (answer, outcome) in complete {
            // An error means that the caller has dropped its future.
            let _ = answer.send(outcome);
        }
        if permits > 0 {
            self.permits.add_permits(permits);
        }
        if sweep_changed {
            self.sweep_changed.notify_one();
        }
        if unary_ready {
            self.unary_ready.notify_one();
        }
    }

    // === Callers ===

    /// Adds a check to the queue if there are enough permits.
    ///
    /// # Errors
    ///
    /// The check is too large, or the client was shut down.
    pub(crate) fn submit(&self, check: &Check<'_>) -> Result<Admission, Error> {
        let encoder = CheckEncoder::new(check);
        encoder.validate()?;
        let timeout = check.timeout.unwrap_or(self.options.timeout);
        let deadline = Instant::now() + timeout.min(TIME_MAX);
        match self.permits.try_acquire_many(permits_of(&encoder)) {
            Ok(permits) => {
                permits.forget();
                Ok(Admission::Admitted(self.push(&encoder, check.consistency, deadline)))
            }
            Err(TryAcquireError::NoPermits) => Ok(Admission::Full { deadline }),
            Err(TryAcquireError::Closed) => Err(Error::Closed),
        }
    }

    /// Waits for permits, then for the answer.
    pub(crate) async fn submit_when_permitted(
        &self,
        check: Check<'_>,
        deadline: Instant,
    ) -> Outcome {
        let encoder = CheckEncoder::new(&check);
        let permits = permits_of(&encoder);
        if permits as usize > self.options.pending_max {
            let problem = "a check of more bytes than the client may hold (Options::pending_max)";
            return Err(Error::refused(tonic::Code::ResourceExhausted, "TOO_LARGE", problem));
        }
        match timeout_at(deadline, self.permits.acquire_many(permits)).await {
            Ok(Ok(permits)) => permits.forget(),
            Ok(Err(_)) => return Err(Error::Closed),
            Err(_) => {
                let why = "the client holds as many calls as it may".into();
                return Err(Error::DeadlineExceeded(Some(why)));
            }
        }
        let answer = self.push(&encoder, check.consistency, deadline);
        answer.await.unwrap_or(Err(Error::Closed))
    }

    /// Adds a check whose permits are acquired. The queue returns them when the check leaves it.
    fn push(
        &self,
        encoder: &CheckEncoder<'_>,
        consistency: Consistency,
        deadline: Instant,
    ) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        let (min_revision, highest) = self.min_revision(consistency);
        let bytes = encoder.bytes();
        let call = Call { answer: Some(sender), deadline, min_revision, bytes };
        let effects = self.lock().push(encoder, call, highest);
        let PushEffects { wake, sweep_changed, unary_ready } = effects;
        if let Some(waker) = wake {
            waker.wake();
        }
        if sweep_changed {
            self.sweep_changed.notify_one();
        }
        if unary_ready {
            self.unary_ready.notify_one();
        }
        receiver
    }

    /// The revision that a call requires, and the highest revision of any answer.
    fn min_revision(&self, consistency: Consistency) -> (MinRevision, u64) {
        let highest = self.revision();
        // Revisions of epoch 0 are only comparable within one server process, where they only grow.
        let monotonic = match self.options.monotonic && epoch(highest) > 0 {
            true => MinRevision::at_least(highest),
            false => MinRevision::ANY,
        };
        let min_revision = match consistency {
            Consistency::Any => monotonic,
            Consistency::AtLeast(revision) => MinRevision::at_least(revision).max(monotonic),
            Consistency::Full => MinRevision::FULL,
        };
        (min_revision, highest)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.highest.load(Ordering::Acquire)
    }

    pub(crate) fn forget_revision(&self) {
        self.highest.store(0, Ordering::Release);
    }

    // === Streams ===

    /// Registers a stream. Returns its id, and a token that is cancelled when the stream stalls.
    pub(crate) fn open(&self) -> (u64, CancellationToken) {
        self.lock().open()
    }

    /// The next batch to send on a stream; `None` if the client should half-close the stream.
    pub(crate) fn poll_next(&self, id: u64, cx: &Context<'_>) -> Poll<Option<EncodedBatch>> {
        let (highest, now) = (self.revision(), Instant::now());
        self.with(|queue, effects| queue.poll_next(id, highest, now, effects, cx))
    }

    /// Handles a reply on a stream.
    ///
    /// # Errors
    ///
    /// The reply is not an answer to the stream's oldest batch. The stream must be ended.
    pub(crate) fn reply(&self, id: u64, reply: Reply) -> Result<(), Error> {
        let batch = self.with(|queue, effects| queue.answered(id, effects));
        let batch = batch.ok_or(Error::Protocol("an answer to nothing"))?;
        self.answer(batch, reply)
    }

    /// Half-closes a stream once its batches in flight are answered.
    pub(crate) fn finish(&self, id: u64) {
        self.with(|queue, effects| queue.finish(id, effects));
    }

    /// Removes a stream that has ended.
    pub(crate) fn end(&self, id: u64, failure: &Failure) {
        self.with(|queue, effects| queue.end(id, failure, effects));
        // The next stream may reach another process, whose revisions of epoch 0 are not comparable.
        let forget = |highest| (epoch(highest) == 0).then_some(0);
        let _ = self.highest.fetch_update(Ordering::AcqRel, Ordering::Acquire, forget);
    }

    /// Records a problem between client and server, for [`Error::DeadlineExceeded`].
    pub(crate) fn record_problem(&self, problem: &str) {
        self.lock().record_problem(problem.into());
    }

    /// Completes the calls of a batch with the results of a reply; with an error if the reply is not an
    /// answer to the batch.
    fn answer(&self, mut batch: SealedBatch, reply: Reply) -> Result<(), Error> {
        let valid = reply.map_err(|_| Error::Protocol("undecodable")).and_then(|answers| {
            if answers.results.len() != batch.calls.len() {
                return Err(Error::Protocol("not as many answers as questions"));
            }
            if !(1..=REVISION_MAX).contains(&answers.revision) {
                return Err(Error::Protocol("no revision that a store can have"));
            }
            if !batch.min_revision.is_kept_at(answers.revision) {
                return Err(Error::Protocol("an older revision than was asked for"));
            }
            Ok(answers)
        });
        match valid {
            Ok(v1::BatchCheckResponse { results, revision }) => {
                self.highest.fetch_max(revision, Ordering::AcqRel);
                for (call, result) in batch.calls.drain(..).zip(results) {
                    if let Some(answer) = call.answer {
                        // An error means that the caller has dropped its future.
                        let _ = answer.send(decision(result, revision));
                    }
                }
                self.lock().recycle(batch);
                Ok(())
            }
            Err(error) => {
                for answer in batch.calls.drain(..).filter_map(|call| call.answer) {
                    let _ = answer.send(Err(error.clone()));
                }
                Err(error)
            }
        }
    }

    // === Unary calls ===

    /// Waits for the next batch for a unary call; for one task only. Returns its id, the message, and the number of attempts
    /// including this one.
    pub(crate) async fn next_unary(&self) -> (u64, EncodedBatch, u32) {
        loop {
            // A notification may stand for several batches, so the queue is looked at first.
            if let Some(next) = self.lock().take_unary(Instant::now()) {
                return next;
            }
            self.unary_ready.notified().await;
        }
    }

    /// Handles the reply to a unary call.
    pub(crate) fn unary_reply(&self, id: u64, reply: Reply) {
        if let Some(batch) = self.with(|queue, effects| queue.unary_answered(id, effects)) {
            // Its callers get the error; there is no stream to end.
            let _ = self.answer(batch, reply);
        }
        // One more unary call may be in flight.
        self.unary_ready.notify_one();
    }

    /// Handles the failure of a unary call.
    pub(crate) fn unary_failed(&self, id: u64, failure: &Failure) {
        self.with(|queue, effects| queue.unary_failed(id, failure, effects));
    }

    // === Deadlines and shutdown ===

    /// Runs sweeps when they are due. Never returns.
    pub(crate) async fn keep_deadlines(&self) {
        loop {
            let due = self.lock().sweep_at();
            let wait = async {
                match due {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.sweep_changed.notified() => continue,
                () = wait => {}
            }
            self.sweep(Instant::now());
            tokio::time::sleep(SWEEP_INTERVAL_MIN).await;
        }
    }

    /// Fails the calls whose deadline has passed, and cancels the tokens of stalled streams.
    fn sweep(&self, now: Instant) {
        self.with(|queue, effects| queue.sweep(now, effects));
    }

    /// Fails every call with [`Error::Closed`], and ends the client's tasks.
    pub(crate) fn close(&self) {
        self.stop.cancel();
        self.permits.close();
        self.with(Queue::close);
    }
}

/// The result of [`Shared::submit`].
#[derive(Debug)]
pub(crate) enum Admission {
    /// The check is in the queue; the receiver gets its outcome.
    Admitted(oneshot::Receiver<Outcome>),
    /// There are too few permits.
    Full { deadline: Instant },
}

/// The number of permits that a check needs.
fn permits_of(encoder: &CheckEncoder<'_>) -> u32 {
    u32::try_from(permits(encoder.bytes())).unwrap_or(u32::MAX)
}

/// Closes the client when a required task ends, even by a panic, so that no caller waits for an answer that
/// no task can deliver.
#[derive(Debug)]
pub(crate) struct CloseOnDrop(pub(crate) Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests;
