//! The writer: judges operations one after the other, and makes them durable, visible and acknowledged.
//!
//! ```text
//! services ─▶ queue ─▶ group: judge each on the state before it ─▶ one commit ─▶ publish ─▶ answers
//! ```
//!
//! **Invariants**: there is one writer. A change is durable before it is visible, and visible before it is
//! acknowledged. No answer of a group is given before its commit, refusals included: they may depend on changes of
//! the same group. If the commit fails, nothing of the group is visible. After a failure nothing is written until
//! the store has said which state it has.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use capstan_engine::Snapshot;
use capstan_policy::Credentials;
use capstan_store::{AppendError, Head, Journal, StoreError, View};
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::group::{Base, Group, Judge};
use super::load;
use super::overlay::ViewedObjects;
use super::quotas::Uncommitted;
use crate::RequestError;
use crate::clock::Clock;
use crate::error::StoreFailure;
use crate::feed::management::{Management, StoredObjects, Write, Written};
use crate::feed::published::{Current, Published};
use crate::limits::{SETTLE_PAUSE, WRITE_GROUP_BYTES, WRITE_GROUP_MAX, WRITES_QUEUED_MAX};

pub(super) type Answer = Result<Written, RequestError>;
pub(super) type AnswerTo = oneshot::Sender<Answer>;

/// A write in the queue.
pub(super) struct Queued {
    pub(super) write: Write,
    pub(super) answer: AnswerTo,
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

impl Management for Writes {
    /// Makes a write. If the caller stops waiting, a write that was not begun is not made.
    fn write(&self, write: Write) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            self.0.try_send(Queued { write, answer }).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => RequestError::Store(StoreFailure::Busy),
                mpsc::error::TrySendError::Closed(_) => RequestError::Draining,
            })?;
            // Without an answer the writer has ended while it had the write.
            answered.await.unwrap_or(Err(RequestError::Store(StoreFailure::OutcomeUnknown)))
        })
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
        journal: Arc<dyn Journal>,
        published: Arc<Published>,
        clock: Clock,
        credentials: Credentials,
        judge: Judge,
        (snapshot, view): (Snapshot, Arc<dyn View>),
    ) -> Self {
        let (states, base) = (vec![], None);
        let mut writer = Self { journal, published, clock, credentials, judge, states, base };
        writer.publish(Base { snapshot, view });
        writer
    }

    /// Takes writes until all senders of the queue are gone.
    pub(super) async fn run(mut self, mut queue: Queue) {
        while let Some(first) = self.next(&mut queue).await {
            if let Err(failure) = self.settle().await {
                // Those that wait would only wait longer. Whoever asks after an answer is not among them.
                let mut failed = vec![first];
                failed.extend(std::iter::from_fn(|| queue.0.try_recv().ok()));
                for queued in failed {
                    let _ = queued.answer.send(Err(RequestError::Store(failure.clone())));
                }
                continue;
            }
            self.group(first, &mut queue).await;
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
                let current = Current::of_store(snapshot, view, self.credentials.clone());
                drop(self.published.publish(current, bytes));
            }
        }
        let (head, snapshot) = (base.head(), base.snapshot.clone());
        self.states = vec![State { head, snapshot, counts: Uncommitted::default() }];
        self.base = Some(base);
    }

    /// Judges the writes that wait, and commits them together.
    async fn group(&mut self, first: Queued, queue: &mut Queue) {
        let Some(base) = &self.base else { return };
        let mut group = match Group::new(base) {
            Ok(group) => group,
            Err(error) => {
                let _ = first.answer.send(Err(RequestError::Store(failure(&error))));
                self.base = None;
                return;
            }
        };
        let mut next = Some(first);
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
                return;
            }
            let is_full =
                group.answers.len() >= WRITE_GROUP_MAX || group.bytes() >= WRITE_GROUP_BYTES;
            next = if is_full { None } else { queue.0.try_recv().ok() };
        }
        self.commit(group).await;
    }

    async fn commit(&mut self, mut group: Group) {
        let committed = self.append(&mut group).await;
        match committed {
            Ok(()) => {
                for (to, answer) in group.answers {
                    let _ = to.send(answer);
                }
            }
            Err(failure) => {
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
        if batch.transactions.is_empty() && batch.side.is_empty() {
            return Ok(());
        }
        if !batch.transactions.is_empty() {
            let (head, snapshot) = (group.head, group.snapshot.clone());
            let counts = std::mem::take(&mut group.counts);
            self.states.push(State { head, snapshot, counts });
        }
        let appended = self.journal.append(head, batch).await;
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
            assert!(self.0.try_send(Queued { write, answer }).is_ok());
        }
    }
}
