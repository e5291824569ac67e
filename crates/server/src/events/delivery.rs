//! The delivery of one subscription: events in order, again after a failure, until it is disabled or deleted.
//!
//! ```text
//!        ┌────────────── a later revision, or the time of the next attempt ◀─────────────┐
//!        ▼                                                                                │
//! subscription as it is now ─▶ creator? consent? ─▶ next revision of the log ─▶ events ─▶ one attempt each
//!        └─ gone or disabled: the end                                                     └─▶ position
//! ```

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capstan_engine::{PathBuf, Timestamp};
use capstan_events::{
    CHALLENGE_EVENT_TYPE, Circuit, Client, Consent, Event, EventFields, Outcome, Sink, UnixMillis,
    Verdict,
};
use capstan_iam::{
    Actor, JudgeError, Kind, Object, Operation, Reader, RuleSet, SetSubscriptionState, State,
    Subscription, SubscriptionState,
};
use capstan_store::View;
use serde_json::json;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout};

use super::compose::{Composed, Told, Wanted};
use super::recent::{Batch, Recent};
use super::wakes::{Wake, organization_of};
use crate::RequestError;
use crate::clock::Clock;
use crate::feed::change_log;
use crate::feed::management::{Management, Origin, StoredObjects, Write, viewed};
use crate::feed::position::Position;
use crate::feed::{Current, Freshness, Published};
use crate::limits::{
    CHALLENGE_PAUSE, DELIVERY_JUDGED_FOR, DELIVERY_PASSES_OVER, DELIVERY_PAUSE, REVISION_HELD,
};
use crate::telemetry::metrics::{EventOutcome, Metrics};
use crate::webhooks::Webhooks;

/// What all deliveries share.
pub(super) struct Shared {
    pub(super) published: Arc<Published>,
    pub(super) management: Arc<dyn Management>,
    pub(super) webhooks: Webhooks,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    /// Places for attempts at sinks that failed last, or have not consented: however many of them hang, they do not hold
    /// the places of the others.
    pub(super) suspects: Semaphore,
    /// Positions that are not saved yet.
    pub(super) positions: Mutex<HashMap<PathBuf, Position>>,
    pub(super) recent: Mutex<Recent>,
}

impl Shared {
    fn now(&self) -> UnixMillis {
        millis(self.clock.now())
    }

    fn save(&self, subscription: &PathBuf, position: Position) {
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        match positions.get_mut(subscription) {
            Some(unsaved) => *unsaved = position,
            None => drop(positions.insert(subscription.clone(), position)),
        }
    }

    pub(super) fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The positions that changed since the last call.
    pub(super) fn unsaved(&self) -> Vec<(PathBuf, Position)> {
        let mut positions = self.positions.lock().unwrap_or_else(PoisonError::into_inner);
        positions.drain().collect()
    }
}

fn millis(time: Timestamp) -> UnixMillis {
    let seconds = u64::try_from(time.seconds()).unwrap_or_default();
    UnixMillis(seconds.saturating_mul(1_000) + u64::from(time.nanos() / 1_000_000))
}

/// The delivery of one subscription.
pub(super) struct Delivery {
    shared: Arc<Shared>,
    id: PathBuf,
    created: u64,
    position: Position,
    /// Says when the log has more for it.
    wake: Wake,
    /// Delivers, with the connections of its thread.
    client: Arc<Client>,
    /// Revisions that were read and are not delivered.
    read: VecDeque<Arc<Told>>,
    /// The sink that the failures are of.
    sink: Option<String>,
    /// When the challenge was posted last.
    challenged: Option<UnixMillis>,
}

/// What follows from a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Look at everything again.
    Again,
    /// The subscription is gone or disabled.
    End,
}

/// One revision, as a step sees it. It is not held while a sink or another revision is waited for: what the store has
/// replaced since could not be used for other changes, and its file would grow.
struct Seen {
    current: Arc<Current>,
    view: Arc<dyn View>,
    objects: Arc<dyn StoredObjects>,
}

impl Delivery {
    pub(super) fn new(
        (shared, client): (Arc<Shared>, Arc<Client>),
        id: PathBuf,
        position: Position,
        wake: Wake,
    ) -> Self {
        let (created, read) = (position.created, VecDeque::new());
        Self { shared, id, created, position, wake, client, read, sink: None, challenged: None }
    }

    /// Delivers until the subscription is gone or disabled.
    pub(super) async fn run(mut self) {
        loop {
            match self.step().await {
                Ok(Step::Again) => {}
                Ok(Step::End) => break,
                Err(error) => {
                    tracing::warn!(subscription = %self.id, %error, "events wait");
                    tokio::time::sleep(DELIVERY_PAUSE).await;
                }
            }
        }
        // What is not saved yet would be put after a later beginning.
        let positions = self.shared.positions.lock();
        positions.unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }

    async fn step(&mut self) -> Result<Step, RequestError> {
        let shared = Arc::clone(&self.shared);
        let mut place = None;
        if self.is_suspect() && self.circuit().is_due(shared.now()) {
            // Before anything is looked at: the wait may be long, and rights may end in it. It is never closed.
            place = shared.suspects.acquire().await.ok();
        }
        let (current, view) = viewed(&self.shared.published, Freshness::Any).await?;
        let objects = self.shared.management.objects(Arc::clone(&view));
        let seen = Seen { current, view, objects };
        let found = match seen.objects.get(Kind::Subscription, self.id.as_path())? {
            Some(Object::Subscription(found)) if found.meta.created == self.created => found,
            _ => return Ok(Step::End),
        };
        if found.disabled {
            return Ok(Step::End);
        }
        if self.sink.as_ref().is_some_and(|sink| *sink != found.sink) {
            // Another sink has not failed yet.
            self.set_circuit(Circuit::default());
            (self.position.interval_millis, self.challenged) = (0, None);
        }
        if found.consented && self.position.is_asking {
            // That it had not consented is no failure of a delivery.
            self.consented();
        }
        self.sink = Some(found.sink.clone());
        let Some(actor) = creator(&seen, &found)? else {
            return self.disable(&found, "its creator is gone").await;
        };
        let circuit = self.circuit();
        if !circuit.is_due(self.shared.now()) {
            drop(place);
            let wait = circuit.next_at.since(self.shared.now());
            let next = change_log::head(&*seen.view)?.next;
            drop(seen);
            // The subscription may be another one by then. Other changes are not worth a look each.
            let changed = async {
                self.wake.wait(next).await;
                tokio::time::sleep(DELIVERY_PAUSE).await;
            };
            let _ = timeout(wait, changed).await;
            return Ok(Step::Again);
        }
        let sink = match self.shared.webhooks.sink(&found.sink) {
            Ok(sink) => sink,
            // The operator allows it no more.
            Err(error) => return self.disable(&found, &error.to_string()).await,
        };
        if !found.consented {
            drop(seen);
            if place.is_none() {
                place = shared.suspects.acquire().await.ok();
            }
            let asked = self.ask_consent(&found, &sink).await;
            drop(place);
            return asked;
        }
        self.deliver_all(seen, &found, (&actor, &sink), place).await
    }

    /// Whether the last attempt failed, or the sink has not consented.
    fn is_suspect(&self) -> bool {
        !self.circuit().is_closed() || self.challenged.is_some() || self.position.is_asking
    }

    fn consented(&mut self) {
        self.set_circuit(Circuit::default());
        (self.position.is_asking, self.challenged) = (false, None);
        self.shared.save(&self.id, self.position);
    }

    /// Delivers what the log has, as long as the served revision is the one that was seen.
    async fn deliver_all(
        &mut self,
        seen: Seen,
        subscription: &Subscription,
        (actor, sink): (&Actor, &Sink),
        mut place: Option<SemaphorePermit<'_>>,
    ) -> Result<Step, RequestError> {
        let revision = seen.current.snapshot.revision();
        let mut seen = Some(seen);
        while let Some(now) = &seen {
            if self.read.is_empty() {
                if self.position.next < change_log::head(&*now.view)?.first {
                    let reason =
                        "it fell behind: changes that it was not told of are not kept any more";
                    return self.disable(subscription, reason).await;
                }
                self.read(&*now.view, revision)?;
                // Deliveries share few threads, and a long log may have nothing for this one.
                tokio::task::yield_now().await;
            }
            let Some(next) = self.read.front() else {
                drop((place, seen));
                self.wait().await;
                return Ok(Step::Again);
            };
            let Some(events) = self.compose(now, (subscription, actor), next)? else {
                return self.disable(subscription, "its creator is disabled").await;
            };
            let (number, judged) = (next.revision.number, Instant::now());
            for (at, event) in events {
                let event = match event {
                    Ok(event) => event,
                    Err(error) => {
                        tracing::error!(subscription = %self.id, %error, "an event cannot be made");
                        self.shared.metrics.event(EventOutcome::Dropped);
                        continue;
                    }
                };
                let group = subscription.group();
                let outcome = {
                    let mut attempt = pin!(self.attempt(sink, group.as_str(), &event));
                    match timeout(REVISION_HELD, attempt.as_mut()).await {
                        Ok(outcome) => outcome?,
                        Err(_) => {
                            seen = None;
                            attempt.await?
                        }
                    }
                };
                if outcome != Outcome::Delivered {
                    return self.failed(subscription, &outcome).await;
                }
                place = None;
                self.set_circuit(Circuit::default());
                self.position.event = u32::try_from(at).unwrap_or(u32::MAX).saturating_add(1);
                self.shared.save(&self.id, self.position);
                let pause = Duration::from_millis(self.position.interval_millis);
                if !pause.is_zero() {
                    seen = None;
                    tokio::time::sleep(pause).await;
                }
                // What the creator may list, and the subscription, may be others by now.
                if self.is_replaced(revision) || judged.elapsed() > DELIVERY_JUDGED_FOR {
                    return Ok(Step::Again);
                }
            }
            (self.position.next, self.position.event) = (number.saturating_add(1), 0);
            self.shared.save(&self.id, self.position);
            self.read.pop_front();
            if self.is_replaced(revision) {
                break;
            }
        }
        Ok(Step::Again)
    }

    /// The events of a revision that are left to be delivered; `None` if the creator is disabled.
    fn compose(
        &self,
        seen: &Seen,
        (subscription, actor): (&Subscription, &Actor),
        told: &Told,
    ) -> Result<Option<Composed>, RequestError> {
        let now = self.shared.clock.now();
        let state = State { snapshot: &seen.current.snapshot, objects: &*seen.objects };
        let reader = match Reader::new(&RuleSet::FULL, &state, actor, now) {
            Ok(reader) => reader,
            Err(JudgeError::Objects(error)) => return Err(error.into()),
            Err(JudgeError::Refused(_)) => return Ok(None),
        };
        let source = self.shared.webhooks.url();
        let wanted = Wanted { subscription, reader: &reader, source };
        let from = usize::try_from(self.position.event).unwrap_or(usize::MAX);
        Ok(Some(wanted.events(told, from)))
    }

    fn is_replaced(&self, revision: u64) -> bool {
        self.shared.published.load().as_ref().is_none_or(|it| it.snapshot.revision() != revision)
    }

    /// Reads some revisions of the log, up to the one that was seen.
    fn read(&mut self, view: &dyn View, revision: u64) -> Result<(), RequestError> {
        let (from, organization) = (self.position.next, organization_of(self.id.as_path()));
        let recent = self.shared.recent().read(from, revision, organization);
        let (batch, next) = match recent {
            Some(recent) => recent,
            None => {
                let mut batch = Batch::default();
                let each = &mut |revision| batch.push(Arc::new(Told::new(revision)));
                let next = change_log::read(view, from, each)?;
                (batch, next)
            }
        };
        self.read = batch.revisions;
        if self.read.is_empty() {
            self.pass_over(next);
        }
        Ok(())
    }

    /// Waits until the log has more that may concern the subscription.
    async fn wait(&mut self) {
        let next = self.position.next;
        if timeout(DELIVERY_PASSES_OVER, self.wake.wait(next)).await.is_err() {
            self.pass_over(self.wake.passed_over(next));
        }
    }

    /// Moves the position on: what is before this record does not concern the subscription.
    fn pass_over(&mut self, next: u64) {
        if next != self.position.next {
            (self.position.next, self.position.event) = (next, 0);
            self.shared.save(&self.id, self.position);
        }
    }

    /// Makes one attempt.
    ///
    /// # Errors
    ///
    /// The event cannot be signed.
    async fn attempt(
        &self,
        sink: &Sink,
        group: &str,
        event: &Event,
    ) -> Result<Outcome, RequestError> {
        let (webhooks, now) = (&self.shared.webhooks, self.shared.now());
        let token = webhooks.signing().load().signer.sign(sink, group, event, now);
        let token = token.map_err(|error| RequestError::bug(&error.to_string()))?;
        let outcome = self.client.deliver(sink, event, &token, now).await;
        self.shared.metrics.event(match &outcome {
            Outcome::Delivered => EventOutcome::Delivered,
            Outcome::Gone => EventOutcome::Gone,
            Outcome::Failed(_) => EventOutcome::Failed,
            Outcome::Refused(_) => EventOutcome::Refused,
        });
        Ok(outcome)
    }

    /// Asks a sink whether it wants events, and its owner by a challenge.
    async fn ask_consent(
        &mut self,
        subscription: &Subscription,
        sink: &Sink,
    ) -> Result<Step, RequestError> {
        let asked = self.client.ask_consent(sink, None).await;
        self.position.is_asking = true;
        match asked {
            Ok(consent @ Consent::Granted { .. }) => {
                let interval = consent.interval().as_millis();
                self.position.interval_millis = u64::try_from(interval).unwrap_or(u64::MAX);
                self.consented();
                self.set(subscription, SubscriptionState::Consented).await?;
                Ok(Step::Again)
            }
            Ok(Consent::Withheld) => {
                self.challenge(subscription, sink).await?;
                self.again_later(subscription, None, "the sink has not consented").await
            }
            Err(outcome) => self.failed(subscription, &outcome).await,
        }
    }

    /// Posts a challenge, unless that was some time ago.
    async fn challenge(
        &mut self,
        subscription: &Subscription,
        sink: &Sink,
    ) -> Result<(), RequestError> {
        let now = self.shared.now();
        if self.challenged.is_some_and(|at| now.since(at) < CHALLENGE_PAUSE) {
            return Ok(());
        }
        self.challenged = Some(now);
        let bug = |error: &dyn std::fmt::Display| RequestError::bug(&error.to_string());
        let challenge = self.shared.webhooks.challenge(subscription, now);
        let challenge = challenge.map_err(|error| bug(&error))?;
        let data = json!({ "subscription": self.id.as_str(), "challenge": challenge });
        let event = Event::new(EventFields {
            id: &format!("{:016x}{:016x}", self.created, now.0),
            source: self.shared.webhooks.url(),
            kind: CHALLENGE_EVENT_TYPE,
            subject: self.id.as_str(),
            group: subscription.group().as_str(),
            time: now,
            data: data.to_string().into(),
        });
        let event = event.map_err(|error| bug(&error))?;
        // Whether it arrived shows in whether somebody returns it.
        self.attempt(sink, subscription.group().as_str(), &event).await.map(|_| ())
    }

    // === Failures ===

    fn circuit(&self) -> Circuit {
        let Position { attempts, first_failed_at, next_at, .. } = self.position;
        Circuit {
            attempts,
            first_failed_at: UnixMillis(first_failed_at),
            next_at: UnixMillis(next_at),
        }
    }

    const fn set_circuit(&mut self, circuit: Circuit) {
        self.position.attempts = circuit.attempts;
        self.position.first_failed_at = circuit.first_failed_at.0;
        self.position.next_at = circuit.next_at.0;
    }

    async fn failed(
        &mut self,
        subscription: &Subscription,
        outcome: &Outcome,
    ) -> Result<Step, RequestError> {
        let (text, retry_after) = match outcome {
            Outcome::Gone => {
                return self.disable(subscription, "the sink answered 410 Gone").await;
            }
            Outcome::Failed(failure) => {
                tracing::debug!(subscription = %self.id, %failure, "an event was not delivered");
                (failure.reason(), failure.retry_after)
            }
            Outcome::Refused(error) => {
                tracing::warn!(subscription = %self.id, %error, "the sink may not be connected to");
                (format!("the sink has {}, which is not allowed", error.kind), None)
            }
            Outcome::Delivered => return Ok(Step::Again),
        };
        self.again_later(subscription, retry_after, &text).await
    }

    async fn again_later(
        &mut self,
        subscription: &Subscription,
        retry_after: Option<Duration>,
        text: &str,
    ) -> Result<Step, RequestError> {
        match self.circuit().failed(self.shared.now(), retry_after, fastrand::f64()) {
            Verdict::Retry(circuit) => {
                self.set_circuit(circuit);
                // It is read again then: until then others need the memory.
                self.read = VecDeque::new();
                self.shared.save(&self.id, self.position);
                Ok(Step::Again)
            }
            Verdict::GiveUp => {
                let reason = format!("nothing could be delivered for 3 days: {text}");
                self.disable(subscription, &reason).await
            }
        }
    }

    /// Disables the subscription and says why.
    async fn disable(
        &self,
        subscription: &Subscription,
        reason: &str,
    ) -> Result<Step, RequestError> {
        tracing::warn!(subscription = %self.id, reason, "a subscription is disabled");
        self.set(subscription, SubscriptionState::Disabled(reason.into())).await?;
        Ok(Step::End)
    }

    async fn set(
        &self,
        subscription: &Subscription,
        state: SubscriptionState,
    ) -> Result<(), RequestError> {
        let operation = Operation::SetSubscriptionState(SetSubscriptionState {
            id: self.id.clone(),
            created: self.created,
            sink: subscription.sink.clone(),
            state,
        });
        let method = operation.method();
        let origin =
            Origin { method, authentication: "server", source: String::new(), request: [0; 32] };
        let (actor, request_id) = (Actor::Operator, None);
        let write = Write { actor, operation, origin, request_id, validate_only: false };
        let written = self.shared.management.write(write).await?;
        // What was written is seen by the next step.
        self.shared.published.later_than(written.revision.saturating_sub(1)).await;
        Ok(())
    }
}

/// Who is asked what may be listed; `None` if that identity is gone.
fn creator(seen: &Seen, subscription: &Subscription) -> Result<Option<Actor>, RequestError> {
    let Some(creator) = &subscription.creator else { return Ok(Some(Actor::Operator)) };
    let found = seen.objects.get(Kind::Identity, creator.id.as_path())?;
    let is_same = matches!(found, Some(Object::Identity(it)) if it.meta.created == creator.created);
    Ok(is_same.then(|| Actor::identity(creator.id.clone())))
}
