//! What the callers and the tasks of a client share: the queue behind its lock, and what wakes whom.
//!
//! **Invariant**: nobody is woken or told while the lock is held.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use capstan_proto::contract::epoch;
use capstan_proto::v1;
use tokio::sync::{Notify, Semaphore, TryAcquireError, oneshot};
use tokio::time::{Instant, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::check::{Check, Consistency};
use crate::error::Error;
use crate::limits::{Options, REVISION_MAX, TIME_MAX};
use crate::queue::{After, Call, Outcome, Pushed, Queue, Sealed, Wanted, places};
use crate::verdict::Verdict;
use crate::wire::{Item, Question, Reply, decision};

/// Shortest time between two looks at the deadlines.
const SWEEP_PAUSE: Duration = Duration::from_millis(1);

/// See the module.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    queue: Mutex<Queue>,
    /// What is left of [`Options::pending_max`].
    places: Semaphore,
    /// The highest revision of any answer; 0 before the first.
    seen: AtomicU64,
    sweep: Notify,
    alone: Notify,
    pub(crate) stop: CancellationToken,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            queue: Mutex::new(Queue::new(options)),
            places: Semaphore::new(options.pending_max),
            seen: AtomicU64::new(0),
            sweep: Notify::new(),
            alone: Notify::new(),
            stop: CancellationToken::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the queue, then wakes and tells whomever that concerns.
    fn with<T>(&self, act: impl FnOnce(&mut Queue, &mut After) -> T) -> T {
        let mut after = After::default();
        let done = act(&mut self.lock(), &mut after);
        self.follow(after);
        done
    }

    fn follow(&self, after: After) {
        let After { wake, tell, places, sweep, alone } = after;
        for waker in wake {
            waker.wake();
        }
        for (answer, outcome) in tell {
            // The caller may have gone.
            let _ = answer.send(outcome);
        }
        if places > 0 {
            self.places.add_permits(places);
        }
        if sweep {
            self.sweep.notify_one();
        }
        if alone {
            self.alone.notify_one();
        }
    }

    // === Callers ===

    /// Takes a question in, if there is a place for it.
    ///
    /// # Errors
    ///
    /// It cannot be asked.
    pub(crate) fn ask(&self, check: &Check<'_>) -> Result<Asked, Error> {
        let item = Item::new(check);
        item.fits()?;
        let timeout = check.timeout.unwrap_or(self.options.timeout);
        let deadline = Instant::now() + timeout.min(TIME_MAX);
        match self.places.try_acquire_many(item_places(&item)) {
            Ok(places) => {
                places.forget();
                Ok(Asked::Taken(self.push(&item, check.consistency, deadline)))
            }
            Err(TryAcquireError::NoPermits) => Ok(Asked::Crowded { deadline }),
            Err(TryAcquireError::Closed) => Err(Error::Closed),
        }
    }

    /// Waits for a place, then for the answer.
    pub(crate) async fn ask_when_there_is_a_place(
        &self,
        check: Check<'_>,
        deadline: Instant,
    ) -> Outcome {
        let item = Item::new(&check);
        let places = item_places(&item);
        if places as usize > self.options.pending_max {
            let problem = "a check of more bytes than the client may hold (Options::pending_max)";
            return Err(Error::refused(tonic::Code::ResourceExhausted, "TOO_LARGE", problem));
        }
        match timeout_at(deadline, self.places.acquire_many(places)).await {
            Ok(Ok(places)) => places.forget(),
            Ok(Err(_)) => return Err(Error::Closed),
            Err(_) => {
                let why = "the client holds as many calls as it may".into();
                return Err(Error::DeadlineExceeded(Some(why)));
            }
        }
        let answered = self.push(&item, check.consistency, deadline);
        answered.await.unwrap_or(Err(Error::Closed))
    }

    /// Takes in a question that has its places.
    fn push(
        &self,
        item: &Item<'_>,
        consistency: Consistency,
        deadline: Instant,
    ) -> oneshot::Receiver<Outcome> {
        let (answer, answered) = oneshot::channel();
        let (wanted, seen) = self.wanted(consistency);
        let call = Call { answer: Some(answer), deadline, wanted, bytes: item.bytes() };
        let Pushed { wake, sweep, alone } = self.lock().push(item, call, seen);
        if let Some(waker) = wake {
            waker.wake();
        }
        if sweep {
            self.sweep.notify_one();
        }
        if alone {
            self.alone.notify_one();
        }
        answered
    }

    /// What a call wants, and the highest revision seen.
    fn wanted(&self, consistency: Consistency) -> (Wanted, u64) {
        let seen = self.revision();
        // A revision of epoch 0 means nothing to another process; within one, answers only advance.
        let implied = match self.options.monotonic && epoch(seen) > 0 {
            true => Wanted::at_least(seen),
            false => Wanted::ANY,
        };
        let wanted = match consistency {
            Consistency::Any => implied,
            Consistency::AtLeast(revision) => Wanted::at_least(revision).max(implied),
            Consistency::Full => Wanted::FULL,
        };
        (wanted, seen)
    }

    pub(crate) fn revision(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    pub(crate) fn forget_revision(&self) {
        self.seen.store(0, Ordering::Release);
    }

    // === Streams ===

    /// A stream begins: its number, and what tells it that it has stalled.
    pub(crate) fn open(&self) -> (u64, CancellationToken) {
        self.lock().open()
    }

    pub(crate) fn poll_next(&self, id: u64, cx: &Context<'_>) -> Poll<Option<Question>> {
        let (seen, now) = (self.revision(), Instant::now());
        self.with(|queue, after| queue.poll_next(id, seen, now, after, cx))
    }

    /// A reply came on a stream.
    ///
    /// # Errors
    ///
    /// It is no answer: nothing more can be believed on this stream.
    pub(crate) fn reply(&self, id: u64, reply: Reply) -> Result<(), Error> {
        let sealed = self.with(|queue, after| queue.answered(id, after));
        let sealed = sealed.ok_or(Error::Protocol("an answer to nothing"))?;
        self.answer(sealed, reply)
    }

    /// Lets a stream end once what it sent is answered.
    pub(crate) fn finish(&self, id: u64) {
        self.with(|queue, after| queue.finish(id, after));
    }

    /// A stream has ended.
    pub(crate) fn end(&self, id: u64, verdict: &Verdict) {
        self.with(|queue, after| queue.end(id, verdict, after));
        // Whoever answers next may be another process.
        let forget = |seen| (epoch(seen) == 0).then_some(0);
        let _ = self.seen.fetch_update(Ordering::AcqRel, Ordering::Acquire, forget);
    }

    /// Something is wrong between here and the server.
    pub(crate) fn failed(&self, why: &str) {
        self.lock().failed(why.into());
    }

    /// Tells the callers of a batch.
    fn answer(&self, mut sealed: Sealed, reply: Reply) -> Result<(), Error> {
        let answers = reply.map_err(|_| Error::Protocol("undecodable")).and_then(|answers| {
            if answers.results.len() != sealed.calls.len() {
                return Err(Error::Protocol("not as many answers as questions"));
            }
            if !(1..=REVISION_MAX).contains(&answers.revision) {
                return Err(Error::Protocol("no revision that a store can have"));
            }
            if !sealed.wanted.is_kept_at(answers.revision) {
                return Err(Error::Protocol("an older revision than was asked for"));
            }
            Ok(answers)
        });
        match answers {
            Ok(v1::BatchCheckResponse { results, revision }) => {
                self.seen.fetch_max(revision, Ordering::AcqRel);
                for (call, result) in sealed.calls.drain(..).zip(results) {
                    if let Some(answer) = call.answer {
                        // The caller may have gone.
                        let _ = answer.send(decision(result, revision));
                    }
                }
                self.lock().recycle(sealed);
                Ok(())
            }
            Err(error) => {
                for answer in sealed.calls.drain(..).filter_map(|call| call.answer) {
                    let _ = answer.send(Err(error.clone()));
                }
                Err(error)
            }
        }
    }

    // === Alone ===

    /// The next batch to ask alone, with a number for it and how often it was sent; waits for one.
    pub(crate) async fn next_alone(&self) -> (u64, Question, u32) {
        loop {
            if let Some(next) = self.lock().take_alone(Instant::now()) {
                // There may be more.
                self.alone.notify_one();
                return next;
            }
            self.alone.notified().await;
        }
    }

    /// What came of a batch that was asked alone.
    pub(crate) fn reply_alone(&self, id: u64, reply: Reply) {
        if let Some(sealed) = self.with(|queue, after| queue.answered_alone(id, after)) {
            // Its callers are told; there is no stream to end.
            let _ = self.answer(sealed, reply);
        }
        self.alone.notify_one();
    }

    /// A batch that was asked alone has no answer.
    pub(crate) fn failed_alone(&self, id: u64, verdict: &Verdict) {
        self.with(|queue, after| queue.failed_alone(id, verdict, after));
    }

    // === Time and the end ===

    /// Keeps the deadlines, until the client is shut down.
    pub(crate) async fn keep_deadlines(&self) {
        loop {
            let at = self.lock().sweep_at();
            let pass = async {
                match at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.sweep.notified() => continue,
                () = pass => {}
            }
            self.with(|queue, after| queue.sweep(Instant::now(), after));
            tokio::time::sleep(SWEEP_PAUSE).await;
        }
    }

    /// Tells every call that the client was shut down, and ends its tasks.
    pub(crate) fn close(&self) {
        self.stop.cancel();
        self.places.close();
        self.with(Queue::close);
    }
}

/// What becomes of a question at first.
#[derive(Debug)]
pub(crate) enum Asked {
    Taken(oneshot::Receiver<Outcome>),
    Crowded { deadline: Instant },
}

fn item_places(item: &Item<'_>) -> u32 {
    u32::try_from(places(item.bytes())).unwrap_or(u32::MAX)
}

/// Closes the client when a task that it cannot do without ends, whyever: nobody may wait for what
/// cannot come.
#[derive(Debug)]
pub(crate) struct CloseOnDrop(pub(crate) Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}
