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

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use capstan_engine::{PathBuf, Snapshot, Timestamp};
use capstan_iam::Actor;
use capstan_iam::audit::AuditRecord;
use capstan_policy::Credentials;
use capstan_store::{AppendError, Batch, Head, Journal, StoreError, View};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rpds::HashTrieSetSync;
use tokio::sync::{oneshot, watch};

use super::group::{Base, Group, Judge};
use super::overlay::{Overlay, ViewedObjects, last_seen_hour};
#[cfg(test)]
use super::queue::Place;
use super::queue::{self, QueueError, Receiver, Sender};
use super::quotas::Uncommitted;
use super::whole::{Judged, Replaced, Whole};
use super::{auditor, load};
use crate::RequestError;
use crate::authn::secrets::{Secrets, Tokens};
use crate::clock::Clock;
use crate::error::StoreFailure;
use crate::feed::management::{Management, StoredObjects, Write, Written};
use crate::feed::position::Position;
use crate::feed::published::{Current, Published};
use crate::limits::{SEEN_CALLERS_MAX, SETTLE_PAUSE, WRITE_GROUP_BYTES, WRITE_GROUP_MAX};
use crate::telemetry::metrics::{Metrics, WriteOutcome};

pub(super) type Answer = Result<Written, RequestError>;
pub(super) type AnswerTo = oneshot::Sender<Answer>;
type WholeTo = oneshot::Sender<Result<Replaced, RequestError>>;

/// Work in the queue.
pub(super) enum Queued {
    /// A write, which is committed together with those that wait beside it.
    Write(Box<Write>, AnswerTo),
    /// A change of the policy as a whole, which has a commit of its own.
    Whole(Whole, WholeTo),
    /// A note for the next commit.
    Note(Note),
}

/// What is kept and changes nothing.
pub(super) enum Note {
    /// An attempt that was refused before it came here.
    Refused(Box<AuditRecord>),
    /// A caller that was seen.
    Saw(PathBuf),
    /// How far deliveries are.
    Positions(Vec<(PathBuf, Position)>),
}

impl Queued {
    /// Answers that the store does not work. Returns how many changes that were.
    fn fail(self, failure: &StoreFailure) -> u64 {
        let error = RequestError::Store(failure.clone());
        match self {
            Self::Write(_, to) => drop(to.send(Err(error))),
            Self::Whole(_, to) => drop(to.send(Err(error))),
            Self::Note(_) => return 0,
        }
        1
    }
}

/// The queue of the writer. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Writes {
    queue: Sender<Queued>,
    seen: Arc<Seen>,
    metrics: Arc<Metrics>,
}

/// The other end of the queue.
pub(crate) struct Queue(Receiver<Queued>);

/// An empty queue.
pub(crate) fn queue(metrics: &Arc<Metrics>) -> (Writes, Queue) {
    let (queue, receiver) = queue::channel();
    (Writes { queue, seen: Arc::default(), metrics: Arc::clone(metrics) }, Queue(receiver))
}

/// Callers that were noted in this hour, so that each is noted once. Whoever is noted is found without a lock: each request of
/// Envoy asks.
#[derive(Debug, Default)]
struct Seen(ArcSwap<SeenInHour>);

#[derive(Debug, Default)]
struct SeenInHour {
    hour: i64,
    callers: HashTrieSetSync<PathBuf>,
}

impl Seen {
    /// Whether a caller is to be noted now. Of more callers than are remembered, some are noted again.
    fn is_new(&self, caller: &PathBuf, now: Timestamp) -> bool {
        let hour = last_seen_hour(now);
        let knows = |seen: &SeenInHour| seen.hour == hour && seen.callers.contains(caller);
        if knows(&self.0.load()) {
            return false;
        }
        let before = self.0.rcu(|seen| {
            let goes_on = seen.hour == hour && seen.callers.size() < SEEN_CALLERS_MAX;
            let callers = if goes_on { seen.callers.clone() } else { HashTrieSetSync::new_sync() };
            SeenInHour { hour, callers: callers.insert(caller.clone()) }
        });
        !knows(&before)
    }
}

impl Writes {
    /// Queues work, and waits for its answer. If the caller stops waiting, work that was not begun is not done.
    async fn ask<T>(
        &self,
        caller: &str,
        work: impl FnOnce(oneshot::Sender<Result<T, RequestError>>) -> Queued,
    ) -> Result<T, RequestError> {
        let (answer, answered) = oneshot::channel();
        let place = self.queue.send(caller, work(answer)).map_err(|error| {
            self.metrics.wrote(WriteOutcome::Failed, 1);
            match error {
                QueueError::Full => RequestError::Store(StoreFailure::Busy),
                QueueError::Closed => RequestError::Draining,
            }
        })?;
        let answered = answered.await;
        drop(place);
        // Without an answer the writer has ended, or met a bug, while it had the work.
        answered.unwrap_or(Err(RequestError::Store(StoreFailure::OutcomeUnknown)))
    }

    /// Changes the policy as a whole, which the operator does.
    pub(super) async fn whole(&self, whole: Whole) -> Result<Replaced, RequestError> {
        self.ask("", |answer| Queued::Whole(whole, answer)).await
    }

    /// Leaves a note, unless there is no place: nobody waits for it.
    fn note(&self, caller: &str, note: Note) {
        if let Ok(place) = self.queue.send(caller, Queued::Note(note)) {
            place.keep();
        }
    }
}

impl Management for Writes {
    fn write(&self, write: Write) -> BoxFuture<'_, Answer> {
        Box::pin(async move {
            let caller = write.actor.id().cloned();
            let caller = caller.as_ref().map_or("", PathBuf::as_str);
            self.ask(caller, |answer| Queued::Write(Box::new(write), answer)).await
        })
    }

    fn saw(&self, caller: &PathBuf, now: Timestamp) {
        if self.seen.is_new(caller, now) {
            self.note(caller.as_str(), Note::Saw(caller.clone()));
        }
    }

    fn refused(&self, record: AuditRecord) {
        let caller = record.actor.clone();
        self.note(&caller, Note::Refused(Box::new(record)));
    }

    fn positions(&self, positions: Vec<(PathBuf, Position)>) {
        self.note("", Note::Positions(positions));
    }

    fn objects(&self, view: Arc<dyn View>) -> Arc<dyn StoredObjects> {
        Arc::new(ViewedObjects(view))
    }
}

/// A state that the store may be in.
struct State {
    head: Head,
    snapshot: Snapshot,
    tokens: Tokens,
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
    credentials: Arc<Credentials>,
    judge: Judge,
    /// The state that is served, and the one of a group whose commit has begun. The store says which it is in.
    states: Vec<State>,
    /// The state that the store is in. `None` until it has said so.
    base: Option<Base>,
    /// Whether the last commit was refused because there was no room, or nothing may be written. A trial shows when that
    /// is over.
    is_blocked: bool,
}

impl Writer {
    /// A writer that begins with a state that was loaded, and serves it.
    pub(super) fn new(
        (journal, credentials): (Arc<dyn Journal>, Credentials),
        (published, metrics): (Arc<Published>, Arc<Metrics>),
        writable: watch::Sender<bool>,
        clock: Clock,
        judge: Judge,
        (snapshot, tokens, view): (Snapshot, Tokens, Arc<dyn View>),
    ) -> Self {
        let mut writer = Self {
            journal,
            published,
            metrics,
            writable,
            clock,
            credentials: Arc::new(credentials),
            judge,
            states: vec![],
            base: None,
            is_blocked: false,
        };
        writer.publish(Base { snapshot, tokens, view });
        // A list may have begun with it before a restart.
        if let Some(current) = writer.published.current() {
            writer.published.keep(&current);
        }
        writer.set_writable(true);
        writer
    }

    /// Does what is in the queue until all senders are gone.
    pub(super) async fn run(mut self, Queue(mut queue): Queue) {
        let mut alone = None;
        loop {
            let first = match alone.take() {
                None => self.next(&mut queue).await,
                found => found,
            };
            let Some(first) = first else { return };
            if let Err(failure) = self.settle().await {
                self.set_writable(false);
                // Those that wait would only wait longer. Whoever asks after an answer is not among them.
                let mut failed = vec![first];
                failed.extend(std::iter::from_fn(|| queue.try_recv()));
                let count = failed.into_iter().map(|queued| queued.fail(&failure)).sum();
                self.metrics.wrote(WriteOutcome::Failed, count);
                continue;
            }
            let work = AssertUnwindSafe(self.work(first, &mut queue));
            alone = work.catch_unwind().await.unwrap_or_else(|_| {
                // A bug, which is logged. Whoever waits for the work learns that its outcome is not known. The state is
                // loaded from the store again.
                self.metrics.panicked();
                (self.states, self.base) = (vec![], None);
                None
            });
        }
    }

    /// Does one piece of work, and what joins it. Returns work that waits and does not join.
    async fn work(&mut self, first: Queued, queue: &mut Receiver<Queued>) -> Option<Queued> {
        match first {
            Queued::Whole(whole, answer) => {
                self.replace(whole, answer).await;
                None
            }
            first => self.group(first, queue).await,
        }
    }

    /// The next piece of work. After a failure the store is asked meanwhile which state it has: the view that is served
    /// may be of a file that was closed, and neither reads nor the health of the services must wait for somebody who
    /// writes.
    async fn next(&mut self, queue: &mut Receiver<Queued>) -> Option<Queued> {
        loop {
            let is_settled = self.settle().await.is_ok();
            self.set_writable(is_settled && !self.is_blocked);
            if is_settled && !self.is_blocked {
                return queue.recv().await;
            }
            if let Ok(next) = tokio::time::timeout(SETTLE_PAUSE, queue.recv()).await {
                return next;
            }
            if is_settled {
                self.try_commit().await;
            }
        }
    }

    /// Commits nothing new, to see whether that is possible.
    async fn try_commit(&mut self) {
        let Some(base) = &self.base else { return };
        let Ok(audit) = auditor::head_of(&Overlay::new(Arc::clone(&base.view))) else { return };
        let batch = Batch { transactions: vec![], side: vec![auditor::head_op(&audit)] };
        let tried = self.journal.append(base.head(), batch).await;
        // The view may be of a file that was opened anew.
        self.base = None;
        self.is_blocked = tried.is_err();
    }

    fn set_writable(&self, is_writable: bool) {
        self.writable
            .send_if_modified(|writable| std::mem::replace(writable, is_writable) != is_writable);
    }

    /// Finds out which state the store is in, if that is not known.
    async fn settle(&mut self) -> Result<(), StoreFailure> {
        if self.base.is_some() {
            return Ok(());
        }
        let view = self.journal.view().await.map_err(|error| failure(&error))?;
        let head = view.head();
        let known = self.states.iter().position(|state| state.head == head);
        let (snapshot, tokens) = match known {
            Some(known) => {
                let State { snapshot, tokens, counts, .. } = self.states.swap_remove(known);
                self.judge.quotas.commit(counts);
                (snapshot, tokens)
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
                (loaded.snapshot, loaded.tokens)
            }
        };
        self.publish(Base { snapshot, tokens, view });
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
                let (declared, tokens) = (Arc::clone(&self.credentials), base.tokens.clone());
                let current = Current::of_store(snapshot, view, Secrets { declared, tokens });
                drop(self.published.publish(current, bytes));
            }
        }
        let (head, snapshot, tokens) = (base.head(), base.snapshot.clone(), base.tokens.clone());
        self.states = vec![State { head, snapshot, tokens, counts: Uncommitted::default() }];
        self.base = Some(base);
    }

    /// Judges the writes that wait, and commits them together. Returns work that waits and does not join them.
    async fn group(&mut self, first: Queued, queue: &mut Receiver<Queued>) -> Option<Queued> {
        let base = self.base.clone()?;
        let mut group = match Group::new(&base) {
            Ok(group) => group,
            Err(error) => {
                let count = first.fail(&failure(&error));
                self.metrics.wrote(WriteOutcome::Failed, count);
                self.base = None;
                return None;
            }
        };
        let (mut next, mut alone, mut taken) = (Some(first), None, vec![]);
        while let Some(queued) = next {
            let now = self.clock.now();
            match queued {
                // Nobody waits for it any more.
                Queued::Write(_, to) if to.is_closed() => {}
                Queued::Write(write, to) => {
                    let judge = &mut self.judge;
                    let judged = AssertUnwindSafe(|| group.take(&write, judge, now));
                    if catch_unwind(judged).is_ok() {
                        taken.push((write, to));
                    } else {
                        self.metrics.panicked();
                        let method = write.operation.method();
                        let _ = to.send(Err(RequestError::bug(&format!("{method} panicked"))));
                        // Whatever it left half done goes; the others are judged again.
                        group = match self.judge_again(&base, &taken, now) {
                            Ok(group) => group,
                            Err(error) => {
                                self.answer(taken, &mut std::iter::repeat(Err(error)));
                                return None;
                            }
                        };
                    }
                }
                Queued::Note(Note::Saw(caller)) => group.saw(&Actor::identity(caller), now),
                Queued::Note(Note::Positions(positions)) => group.put_positions(&positions),
                Queued::Note(Note::Refused(record)) => {
                    group.audit_refusal(*record, &mut self.judge, now);
                }
                whole @ Queued::Whole(..) => {
                    alone = Some(whole);
                    break;
                }
            }
            let is_full = taken.len() >= WRITE_GROUP_MAX || group.bytes >= WRITE_GROUP_BYTES;
            next = if is_full { None } else { queue.try_recv() };
        }
        match self.append(&mut group).await {
            Ok(()) => self.answer(taken, &mut group.answers.into_iter()),
            Err(failure) => {
                let error = Err(RequestError::Store(failure));
                self.answer(taken, &mut std::iter::repeat(error));
            }
        }
        alone
    }

    fn judge_again(
        &mut self,
        base: &Base,
        taken: &[(Box<Write>, AnswerTo)],
        now: Timestamp,
    ) -> Result<Group, RequestError> {
        let mut group = Group::new(base).map_err(|error| RequestError::Store(failure(&error)))?;
        for (write, _) in taken {
            group.take(write, &mut self.judge, now);
        }
        Ok(group)
    }

    fn answer(
        &self,
        taken: Vec<(Box<Write>, AnswerTo)>,
        answers: &mut dyn Iterator<Item = Answer>,
    ) {
        for ((write, to), answer) in taken.into_iter().zip(answers) {
            if !write.validate_only || answer.is_err() {
                self.metrics.wrote(outcome(&answer), 1);
            }
            let _ = to.send(answer);
        }
    }

    /// Changes the policy as a whole, in one transaction, or says what would change.
    async fn replace(&mut self, whole: Whole, to: WholeTo) {
        if to.is_closed() {
            return;
        }
        let is_rehearsal = whole.is_rehearsal();
        let replaced = self.try_replace(whole).await;
        if !is_rehearsal || replaced.is_err() {
            self.metrics.wrote(outcome(&replaced), 1);
        }
        let _ = to.send(replaced);
    }

    async fn try_replace(&mut self, whole: Whole) -> Result<Replaced, RequestError> {
        let unreachable = || RequestError::Store(StoreFailure::Unreachable);
        let base = self.base.clone().ok_or_else(unreachable)?;
        let now = self.clock.now();
        let judged = catch_unwind(AssertUnwindSafe(|| {
            let Judge { reserved_issuers, trusted_issuers, .. } = &self.judge;
            let not_for_keys = [&reserved_issuers[..], trusted_issuers].concat();
            whole.judge(&base, now, &not_for_keys)
        }));
        let Judged { replaced, change } = judged.unwrap_or_else(|_| {
            self.metrics.panicked();
            Err(RequestError::bug("a change of the whole policy panicked"))
        })?;
        if let Some(change) = change {
            let group = Group::new(&base);
            let mut group = group.map_err(|error| RequestError::Store(failure(&error)))?;
            group.replace(change);
            self.append(&mut group).await.map_err(RequestError::Store)?;
        }
        Ok(replaced)
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
            let (tokens, counts) = (group.tokens.clone(), std::mem::take(&mut group.counts));
            self.states.push(State { head, snapshot, tokens, counts });
        }
        let began = Instant::now();
        let appended = self.journal.append(head, batch).await;
        self.metrics.committed(began.elapsed(), appended.is_ok());
        self.is_blocked = matches!(
            &appended,
            Err(AppendError::Store(StoreError::Full | StoreError::ReadOnly(_)))
        );
        self.set_writable(appended.is_ok());
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
        Err(RequestError::Store(_) | RequestError::Unreadable | RequestError::Bug { .. }) => {
            WriteOutcome::Failed
        }
        Err(_) => WriteOutcome::Refused,
    }
}

/// What callers are told. The log has the error.
pub(super) fn failure(error: &StoreError) -> StoreFailure {
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
            let place = self.queue.send("", Queued::Write(Box::new(write), answer));
            assert!(place.map(Place::keep).is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_is_noted_once_an_hour_and_the_memory_is_bounded() {
        let seen = Seen::default();
        let caller = |at: usize| format!("u{at}").parse::<PathBuf>().unwrap();
        let at = |hour: i64| Timestamp::new(hour * 3_600 + 59, 0);
        assert!(seen.is_new(&caller(0), at(1)));
        assert!(!seen.is_new(&caller(0), at(1)));
        assert!(seen.is_new(&caller(0), at(2)));
        for other in 1..SEEN_CALLERS_MAX {
            assert!(seen.is_new(&caller(other), at(2)));
        }
        assert!(!seen.is_new(&caller(1), at(2)));
        // One more than are remembered: all may be noted again.
        assert!(seen.is_new(&caller(SEEN_CALLERS_MAX), at(2)));
        assert!(seen.is_new(&caller(1), at(2)));
        assert!(seen.0.load().callers.size() <= SEEN_CALLERS_MAX);
    }
}
