//! The writer: judges operations one after the other, and makes them durable, visible and acknowledged.
//!
//! ```text
//! services ─▶ queue ─┬▶ group: judge each on the state before it ─┬▶ one commit ─▶ publish ─▶ answers
//!                     └▶ whole: an import, another catalog ────────┘
//! ```
//!
//! **Invariants**: there is one writer. A change is durable before it is visible, and visible before it is
//! acknowledged. No answer of a group is given before its commit, refusals included: they may depend on changes of
//! the same group. If the commit fails, nothing of the group is visible. After a failure nothing is written until
//! the store has said which state it has.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use capstan_engine::Snapshot;
use capstan_policy::Credentials;
use capstan_store::{AppendError, Head, Journal, StoreError, View};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};

use super::group::{Base, Group, Judge};
use super::load;
use super::overlay::ViewedObjects;
use super::quotas::Uncommitted;
use super::whole::{Judged, Replaced, Whole};
use crate::RequestError;
use crate::clock::Clock;
use crate::error::StoreFailure;
use crate::feed::management::{Management, StoredObjects, Write, Written};
use crate::feed::published::{Current, Published};
use crate::limits::{SETTLE_PAUSE, WRITE_GROUP_BYTES, WRITE_GROUP_MAX, WRITES_QUEUED_MAX};
use crate::telemetry::metrics::{Metrics, WriteOutcome};

pub(super) type Answer = Result<Written, RequestError>;
pub(super) type AnswerTo = oneshot::Sender<Answer>;
type WholeTo = oneshot::Sender<Result<Replaced, RequestError>>;

/// Work in the queue.
pub(super) enum Queued {
    /// A write, which is committed together with those that wait beside it.
    Write(Write, AnswerTo),
    /// A change of the policy as a whole, which has a commit of its own.
    Whole(Box<Whole>, WholeTo),
}

impl Queued {
    /// Answers that the store does not work.
    fn fail(self, failure: &StoreFailure) {
        let error = RequestError::Store(failure.clone());
        match self {
            Self::Write(_, to) => drop(to.send(Err(error))),
            Self::Whole(_, to) => drop(to.send(Err(error))),
        }
    }
}

/// The queue of the writer. Clones share it.
#[derive(Clone)]
pub(crate) struct Writes(mpsc::Sender<Queued>);

/// The other end of the queue.
pub(crate) struct Queue(mpsc::Receiver<Queued>);

/// A queue of at most [`WRITES_QUEUED_MAX`] writes.
pub(crate) fn queue() -> (Writes, Queue) {
    let (sender, receiver) = mpsc::channel(WRITES_QUEUED_MAX);
    (Writes(sender), Queue(receiver))
}

impl Writes {
    /// Queues work, and waits for its answer. If the caller stops waiting, work that was not begun is not done.
    async fn ask<T>(
        &self,
        work: impl FnOnce(oneshot::Sender<Result<T, RequestError>>) -> Queued,
    ) -> Result<T, RequestError> {
        let (answer, answered) = oneshot::channel();
        self.0.try_send(work(answer)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => RequestError::Store(StoreFailure::Busy),
            mpsc::error::TrySendError::Closed(_) => RequestError::Draining,
        })?;
        // Without an answer the writer has ended while it had the work.
        answered.await.unwrap_or(Err(RequestError::Store(StoreFailure::OutcomeUnknown)))
    }

    /// Changes the policy as a whole.
    pub(super) async fn whole(&self, whole: Whole) -> Result<Replaced, RequestError> {
        self.ask(|answer| Queued::Whole(Box::new(whole), answer)).await
    }
}

impl Management for Writes {
    fn write(&self, write: Write) -> BoxFuture<'_, Answer> {
        Box::pin(self.ask(|answer| Queued::Write(write, answer)))
    }

    fn objects(&self, view: Arc<dyn View>) -> Arc<dyn StoredObjects> {
        Arc::new(ViewedObjects(view))
    }
}

impl fmt::Debug for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writes").field("capacity", &self.0.capacity()).finish()
    }
}

/// A state that the store may be in.
struct State {
    head: Head,
    snapshot: Snapshot,
    /// What it counts beside the state before it.
    counts: Uncommitted,
}

/// The writer of a store.
pub(super) struct Writer {
    journal: Arc<dyn Journal>,
    published: Arc<Published>,
    metrics: Arc<Metrics>,
    /// Whether the last commit was made, for the health of the management services.
    writable: watch::Sender<bool>,
    clock: Clock,
    /// Of the demo; empty for a store.
    credentials: Credentials,
    judge: Judge,
    /// The state that is served, and the one of a group whose commit has begun. The store says which it is in.
    states: Vec<State>,
    /// The state that the store is in. `None` until it has said so.
    base: Option<Base>,
}

impl Writer {
    /// A writer that begins with a state that was loaded, and serves it.
    pub(super) fn new(
        (journal, credentials): (Arc<dyn Journal>, Credentials),
        (published, metrics): (Arc<Published>, Arc<Metrics>),
        writable: watch::Sender<bool>,
        clock: Clock,
        judge: Judge,
        (snapshot, view): (Snapshot, Arc<dyn View>),
    ) -> Self {
        let (states, base) = (vec![], None);
        let mut writer =
            Self { journal, published, metrics, writable, clock, credentials, judge, states, base };
        writer.publish(Base { snapshot, view });
        writer
    }

    /// Takes writes until all senders of the queue are gone.
    pub(super) async fn run(mut self, mut queue: Queue) {
        let mut alone = None;
        loop {
            let first = match alone.take() {
                None => self.next(&mut queue).await,
                found => found,
            };
            let Some(first) = first else { return };
            if let Err(failure) = self.settle().await {
                // Those that wait would only wait longer. Whoever asks after an answer is not among them.
                let mut failed = vec![first];
                failed.extend(std::iter::from_fn(|| queue.0.try_recv().ok()));
                failed.into_iter().for_each(|queued| queued.fail(&failure));
                continue;
            }
            match first {
                Queued::Write(write, answer) => {
                    alone = self.group((write, answer), &mut queue).await;
                }
                Queued::Whole(whole, answer) => self.replace(*whole, answer).await,
            }
        }
    }

    /// The next write. After a failure the store is asked meanwhile which state it has: the view that is served may be of
    /// a file that was closed, and reads must not wait for somebody who writes.
    async fn next(&mut self, queue: &mut Queue) -> Option<Queued> {
        while self.settle().await.is_err() {
            if let Ok(next) = tokio::time::timeout(SETTLE_PAUSE, queue.0.recv()).await {
                return next;
            }
        }
        queue.0.recv().await
    }

    /// Finds out which state the store is in, if that is not known.
    async fn settle(&mut self) -> Result<(), StoreFailure> {
        if self.base.is_some() {
            return Ok(());
        }
        let view = self.journal.view().await.map_err(|error| failure(&error))?;
        let head = view.head();
        let known = self.states.iter().position(|state| state.head == head);
        let snapshot = match known {
            Some(known) => {
                let State { snapshot, counts, .. } = self.states.swap_remove(known);
                self.judge.quotas.commit(counts);
                snapshot
            }
            None => {
                let of_view = Arc::clone(&view);
                let loaded = tokio::task::spawn_blocking(move || load::load(&of_view));
                let loaded = loaded.await.map_err(|error| error.to_string());
                let loaded = loaded.and_then(|loaded| loaded.map_err(|error| format!("{error:#}")));
                let loaded = loaded.map_err(|error| {
                    tracing::error!(%error, "the store cannot be loaded again");
                    StoreFailure::Unreachable
                })?;
                self.judge.quotas = loaded.quotas;
                loaded.snapshot
            }
        };
        self.publish(Base { snapshot, view });
        Ok(())
    }

    /// Serves a state.
    fn publish(&mut self, base: Base) {
        let served = self.published.current();
        let (snapshot, view) = (base.snapshot.clone(), Arc::clone(&base.view));
        match served.filter(|served| served.snapshot.revision() == snapshot.revision()) {
            Some(served) => served.refresh(view),
            None => {
                let served = self.published.current();
                let bytes = served.map_or(0, |one| one.snapshot.bytes_beside(&snapshot));
                self.metrics.serves(&snapshot);
                let current = Current::of_store(snapshot, view, self.credentials.clone());
                drop(self.published.publish(current, bytes));
            }
        }
        let (head, snapshot) = (base.head(), base.snapshot.clone());
        self.states = vec![State { head, snapshot, counts: Uncommitted::default() }];
        self.base = Some(base);
    }

    /// Judges the writes that wait, and commits them together. Returns work that waits and does not join them.
    async fn group(&mut self, first: (Write, AnswerTo), queue: &mut Queue) -> Option<Queued> {
        let base = self.base.as_ref()?;
        let mut group = match Group::new(base) {
            Ok(group) => group,
            Err(error) => {
                let _ = first.1.send(Err(RequestError::Store(failure(&error))));
                self.base = None;
                return None;
            }
        };
        let (mut next, mut alone) = (Some(first), None);
        while let Some(queued) = next {
            let now = self.clock.now();
            let judge = &mut self.judge;
            let taken = catch_unwind(AssertUnwindSafe(|| group.take(queued, judge, now)));
            if taken.is_err() {
                // The panic is logged. Whatever it left half done is dropped with the group.
                let lost = group.answers.into_iter();
                lost.for_each(|(to, _)| {
                    let _ = to.send(Err(RequestError::Store(StoreFailure::Unreachable)));
                });
                return None;
            }
            let is_full =
                group.answers.len() >= WRITE_GROUP_MAX || group.bytes() >= WRITE_GROUP_BYTES;
            next = match if is_full { None } else { queue.0.try_recv().ok() } {
                Some(Queued::Write(write, answer)) => Some((write, answer)),
                other => {
                    alone = other;
                    None
                }
            };
        }
        self.commit(group).await;
        alone
    }

    /// Changes the policy as a whole, in one transaction, or says what would change.
    async fn replace(&mut self, whole: Whole, to: WholeTo) {
        if to.is_closed() {
            return;
        }
        let replaced = self.try_replace(whole).await;
        self.metrics.wrote(outcome(&replaced), 1);
        let _ = to.send(replaced);
    }

    async fn try_replace(&mut self, whole: Whole) -> Result<Replaced, RequestError> {
        let unreachable = || RequestError::Store(StoreFailure::Unreachable);
        let base = self.base.clone().ok_or_else(unreachable)?;
        let now = self.clock.now();
        let judged = catch_unwind(AssertUnwindSafe(|| whole.judge(&base, now)));
        // A panic is logged.
        let Judged { replaced, change } = judged.map_err(|_| unreachable())??;
        if let Some(change) = change {
            let group = Group::new(&base);
            let mut group = group.map_err(|error| RequestError::Store(failure(&error)))?;
            group.replace(change);
            self.append(&mut group).await.map_err(RequestError::Store)?;
        }
        Ok(replaced)
    }

    async fn commit(&mut self, mut group: Group) {
        let committed = self.append(&mut group).await;
        match committed {
            Ok(()) => {
                for (to, answer) in group.answers {
                    self.metrics.wrote(outcome(&answer), 1);
                    let _ = to.send(answer);
                }
            }
            Err(failure) => {
                self.metrics.wrote(WriteOutcome::Failed, group.answers.len() as u64);
                for (to, _) in group.answers {
                    let _ = to.send(Err(RequestError::Store(failure.clone())));
                }
            }
        }
    }

    /// Makes a group durable and visible.
    async fn append(&mut self, group: &mut Group) -> Result<(), StoreFailure> {
        let Some(head) = self.base.as_ref().map(Base::head) else {
            return Err(StoreFailure::Unreachable);
        };
        let batch = group.finish(&self.judge, self.clock.now());
        let batch = batch.map_err(|error| failure(&error))?;
        self.metrics.audited(group.audit_records());
        if batch.transactions.is_empty() && batch.side.is_empty() {
            return Ok(());
        }
        if !batch.transactions.is_empty() {
            let (head, snapshot) = (group.head, group.snapshot.clone());
            let counts = std::mem::take(&mut group.counts);
            self.states.push(State { head, snapshot, counts });
        }
        let began = Instant::now();
        let appended = self.journal.append(head, batch).await;
        self.metrics.committed(began.elapsed(), appended.is_ok());
        self.writable.send_if_modified(|writable| {
            std::mem::replace(writable, appended.is_ok()) != appended.is_ok()
        });
        // Also after a success the state is what the store says.
        self.base = None;
        match appended {
            Ok(_) => self.settle().await.map_err(|failure| {
                // It is durable, and cannot be served yet.
                tracing::error!(%failure, "a change is committed and cannot be read");
                StoreFailure::OutcomeUnknown
            }),
            Err(AppendError::Store(error)) => Err(failure(&error)),
            Err(error @ (AppendError::Conflict(_) | AppendError::Invalid(_))) => {
                tracing::error!(%error, "the store does not take a change");
                Err(StoreFailure::Unreachable)
            }
        }
    }
}

const fn outcome<T>(answer: &Result<T, RequestError>) -> WriteOutcome {
    match answer {
        Ok(_) => WriteOutcome::Made,
        Err(RequestError::Store(StoreFailure::Quota(_))) => WriteOutcome::Refused,
        Err(RequestError::Store(_) | RequestError::Unreadable) => WriteOutcome::Failed,
        Err(_) => WriteOutcome::Refused,
    }
}

/// What callers are told. The log has the error.
fn failure(error: &StoreError) -> StoreFailure {
    tracing::error!(%error, "the store does not answer");
    match error {
        StoreError::Full => StoreFailure::Full,
        StoreError::ReadOnly(_) => StoreFailure::ReadOnly,
        StoreError::OutcomeUnknown(_) => StoreFailure::OutcomeUnknown,
        StoreError::Corrupt(_) | StoreError::Unreachable(_) => StoreFailure::Unreachable,
    }
}

#[cfg(test)]
impl Writes {
    /// Queues writes that nobody waits for.
    pub(super) fn send_all_for_test(&self, all: Vec<(Write, AnswerTo)>) {
        for (write, answer) in all {
            assert!(self.0.try_send(Queued::Write(write, answer)).is_ok());
        }
    }
}
