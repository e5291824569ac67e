//! The calls of a client: in open batches, in batches in flight, and in batches to retry. A state machine
//! that neither waits nor does I/O; `shared.rs` holds it in a mutex.
//!
//! ```text
//! push ─▶ open ────────┐
//!            retries ──┼─▶ stream: in flight ─▶ answered
//! push ─▶ unary_open ──┐
//!       unary_retries ─┴─▶ unary_in_flight ───▶ answered
//! ```
//!
//! A batch goes to a unary call if it may block at the server, or if the server has rejected a batch with
//! its calls.
//!
//! **Invariants**: a call is in exactly one batch until its outcome is sent, and gets one outcome. The calls
//! of a batch are in the order of its bytes, including cancelled ones. A call's permits are returned when it
//! leaves the queue.

mod batch;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use batch::OpenBatch;
pub(crate) use batch::{Call, MinRevision, SealedBatch, permits};

use crate::check::Decision;
use crate::error::Error;
use crate::failure::Failure;
use crate::limits::{BATCHES_IN_FLIGHT_MAX, Options, SPARE_BUFFERS_MAX, UNARY_CALLS_MAX};
use crate::wire::{CheckEncoder, EncodedBatch};

/// The result of a check.
pub(crate) type Outcome = Result<Decision, Error>;

/// See the module.
#[derive(Debug)]
pub(crate) struct Queue {
    options: Options,
    /// For streams, oldest first.
    open: VecDeque<OpenBatch>,
    /// Batches to send again on a stream, before the open ones.
    retries: VecDeque<SealedBatch>,
    streams: Vec<StreamState>,
    /// For unary calls: batches that may block at the server.
    unary_open: VecDeque<OpenBatch>,
    /// For unary calls: batches to send again, and parts of rejected batches.
    unary_retries: VecDeque<SealedBatch>,
    unary_in_flight: Vec<(u64, SealedBatch)>,
    /// Buffers for new batches.
    spare: Vec<OpenBatch>,
    /// When the next sweep is due: not after the first deadline or stall.
    sweep_at: Option<Instant>,
    /// The last id of a stream or unary call.
    last_id: u64,
    /// The last problem between client and server since the last answer.
    problem: Option<Arc<str>>,
    closed: bool,
}

/// The stream of a connection.
#[derive(Debug)]
struct StreamState {
    id: u64,
    in_flight: VecDeque<SealedBatch>,
    /// Set while the stream waits for a batch to send.
    idle: Option<Waker>,
    /// Set while the stream waits for an answer, with [`BATCHES_IN_FLIGHT_MAX`] batches in flight.
    saturated: Option<Waker>,
    /// Sends no further batch.
    finishing: bool,
    stalled: CancellationToken,
}

/// What the caller of the queue must do after it has released the mutex.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    pub(crate) wake: Vec<Waker>,
    pub(crate) complete: Vec<(oneshot::Sender<Outcome>, Outcome)>,
    /// Permits to return.
    pub(crate) permits: usize,
    /// The next sweep is due earlier than before.
    pub(crate) sweep_changed: bool,
    /// There is a batch for a unary call.
    pub(crate) unary_ready: bool,
}

/// The effects of [`Queue::push`]: a subset of [`Effects`] that needs no allocation.
#[derive(Debug, Default)]
pub(crate) struct PushEffects {
    pub(crate) wake: Option<Waker>,
    pub(crate) sweep_changed: bool,
    pub(crate) unary_ready: bool,
}

impl Effects {
    /// Completes a call, unless that is done already.
    fn complete(&mut self, call: &mut Call, outcome: impl FnOnce() -> Outcome) {
        if let Some(answer) = call.answer.take() {
            self.complete.push((answer, outcome()));
        }
    }

    /// Completes every call of a batch with an error, and returns their permits.
    fn fail(&mut self, mut batch: SealedBatch, error: &Error) {
        self.permits += batch.permits();
        for call in &mut batch.calls {
            self.complete(call, || Err(error.clone()));
        }
    }
}

impl Queue {
    pub(crate) const fn new(options: Options) -> Self {
        Self {
            options,
            open: VecDeque::new(),
            retries: VecDeque::new(),
            streams: Vec::new(),
            unary_open: VecDeque::new(),
            unary_retries: VecDeque::new(),
            unary_in_flight: Vec::new(),
            spare: Vec::new(),
            sweep_at: None,
            last_id: 0,
            problem: None,
            closed: false,
        }
    }

    // === New calls ===

    /// Adds a call. `highest` is the highest revision of any answer.
    pub(crate) fn push(
        &mut self,
        encoder: &CheckEncoder<'_>,
        call: Call,
        highest: u64,
    ) -> PushEffects {
        if self.closed {
            // Dropping the call closes its channel, which the caller reads as `Error::Closed`.
            return PushEffects::default();
        }
        let (deadline, min_revision) = (call.deadline, call.min_revision);
        let on_stream = min_revision.is_met_at(highest);
        let batches = if on_stream { &mut self.open } else { &mut self.unary_open };
        let accepts =
            |batch: &OpenBatch| batch.accepts(encoder, min_revision, on_stream, &self.options);
        // The last two: batches with and without a required revision are open at the same time.
        let last_two = batches.len().saturating_sub(2);
        match batches.range_mut(last_two..).rev().find(|batch| accepts(batch)) {
            Some(batch) => batch.push(encoder, call),
            None => {
                let mut batch = self.spare.pop().unwrap_or_default();
                batch.push(encoder, call);
                batches.push_back(batch);
            }
        }
        let wake = if on_stream { self.take_idle() } else { None };
        let sweep_changed = self.schedule_sweep(deadline);
        PushEffects { wake, sweep_changed, unary_ready: !on_stream }
    }

    /// The waker of a stream that waits for a batch.
    fn take_idle(&mut self) -> Option<Waker> {
        self.streams.iter_mut().find_map(|stream| stream.idle.take())
    }

    /// Makes the next sweep due at this time at the latest. Returns whether it is earlier than before.
    fn schedule_sweep(&mut self, at: Instant) -> bool {
        let is_earlier = self.sweep_at.is_none_or(|due| at < due);
        if is_earlier {
            self.sweep_at = Some(at);
        }
        is_earlier
    }

    // === Streams ===

    /// Registers a stream. Returns its id, and a token that is cancelled when the stream stalls. After
    /// [`Queue::close`] the stream is not registered, so that [`Queue::poll_next`] ends it.
    pub(crate) fn open(&mut self) -> (u64, CancellationToken) {
        self.last_id += 1;
        let stalled = CancellationToken::new();
        if self.closed {
            return (self.last_id, stalled);
        }
        self.streams.push(StreamState {
            id: self.last_id,
            in_flight: VecDeque::new(),
            idle: None,
            saturated: None,
            finishing: false,
            stalled: stalled.clone(),
        });
        (self.last_id, stalled)
    }

    fn stream(&mut self, id: u64) -> Option<&mut StreamState> {
        self.streams.iter_mut().find(|stream| stream.id == id)
    }

    /// The next batch for a stream; `None` if the stream should be half-closed.
    pub(crate) fn poll_next(
        &mut self,
        id: u64,
        highest: u64,
        now: Instant,
        effects: &mut Effects,
        cx: &Context<'_>,
    ) -> Poll<Option<EncodedBatch>> {
        let stream = self.streams.iter_mut().find(|stream| stream.id == id);
        let Some(stream) = stream.filter(|stream| !stream.finishing) else {
            return Poll::Ready(None);
        };
        if stream.in_flight.len() >= BATCHES_IN_FLIGHT_MAX {
            stream.saturated = Some(cx.waker().clone());
            return Poll::Pending;
        }
        loop {
            let Some(mut batch) =
                self.retries.pop_front().or_else(|| self.open.pop_front().map(OpenBatch::seal))
            else {
                stream.idle = Some(cx.waker().clone());
                return Poll::Pending;
            };
            // The highest revision may have been forgotten since the call was added.
            if !batch.min_revision.is_met_at(highest) {
                self.unary_retries.push_back(batch);
                effects.unary_ready = true;
                continue;
            }
            let message = batch.message(now);
            stream.in_flight.push_back(batch);
            // Another stream takes the next batch.
            if !(self.open.is_empty() && self.retries.is_empty()) {
                effects.wake.extend(self.take_idle());
            }
            effects.sweep_changed = self.schedule_sweep(now + self.options.stall);
            return Poll::Ready(Some(message));
        }
    }

    /// Removes the batch that was answered: the oldest in flight on the stream.
    pub(crate) fn answered(&mut self, id: u64, effects: &mut Effects) -> Option<SealedBatch> {
        self.problem = None;
        let stream = self.stream(id)?;
        let batch = stream.in_flight.pop_front()?;
        effects.wake.extend(stream.saturated.take());
        effects.permits = batch.permits();
        Some(batch)
    }

    /// Keeps the buffers of an answered batch for a later one.
    pub(crate) fn recycle(&mut self, batch: SealedBatch) {
        if self.spare.len() < SPARE_BUFFERS_MAX
            && let Some(spare) = batch.recycle()
        {
            self.spare.push(spare);
        }
    }

    /// Stops sending on a stream. Its batches in flight may still be answered.
    pub(crate) fn finish(&mut self, id: u64, effects: &mut Effects) {
        if let Some(stream) = self.stream(id) {
            stream.finishing = true;
            effects.wake.extend(stream.idle.take());
            effects.wake.extend(stream.saturated.take());
        }
    }

    /// Removes a stream that has ended. A server answers a stream in order, so its error concerns the oldest
    /// batch in flight; the others are retried.
    pub(crate) fn end(&mut self, id: u64, failure: &Failure, effects: &mut Effects) {
        let Some(at) = self.streams.iter().position(|stream| stream.id == id) else { return };
        let mut in_flight = self.streams.remove(at).in_flight;
        match failure {
            Failure::Retry { problem, .. } => {
                if !in_flight.is_empty() {
                    self.problem = Some(Arc::clone(problem));
                }
                // The server may lack the revision that the oldest batch requires. A unary call may wait
                // for it without blocking other batches.
                if in_flight.front().is_some_and(|oldest| oldest.min_revision != MinRevision::ANY) {
                    self.unary_retries.extend(in_flight.pop_front());
                    effects.unary_ready = true;
                }
            }
            Failure::Split(error) => {
                if let Some(oldest) = in_flight.pop_front() {
                    self.split(oldest, error, effects);
                }
            }
            Failure::Final(error) => {
                for batch in in_flight.drain(..) {
                    effects.fail(batch, error);
                }
            }
        }
        for batch in in_flight.into_iter().rev() {
            if let Some(batch) = batch.without_cancelled(effects) {
                self.retries.push_front(batch);
            }
        }
        // This stream may have been woken for a batch that it has not taken.
        if !(self.open.is_empty() && self.retries.is_empty()) {
            effects.wake.extend(self.take_idle());
        }
    }

    // === Unary calls ===

    /// The next batch for a unary call: its id, the message, and the number of attempts including this one.
    /// `None` if there is none, or [`UNARY_CALLS_MAX`] are in flight.
    pub(crate) fn take_unary(&mut self, now: Instant) -> Option<(u64, EncodedBatch, u32)> {
        if self.unary_in_flight.len() >= UNARY_CALLS_MAX {
            return None;
        }
        let retry = self.unary_retries.pop_front();
        let mut batch = retry.or_else(|| self.unary_open.pop_front().map(OpenBatch::seal))?;
        let message = batch.message(now);
        self.last_id += 1;
        let attempts = batch.attempts;
        self.unary_in_flight.push((self.last_id, batch));
        Some((self.last_id, message, attempts))
    }

    /// Removes the batch of a unary call that was answered.
    pub(crate) fn unary_answered(&mut self, id: u64, effects: &mut Effects) -> Option<SealedBatch> {
        self.problem = None;
        let batch = self.remove_unary(id)?;
        effects.permits = batch.permits();
        Some(batch)
    }

    fn remove_unary(&mut self, id: u64) -> Option<SealedBatch> {
        let at = self.unary_in_flight.iter().position(|(known, _)| *known == id)?;
        Some(self.unary_in_flight.swap_remove(at).1)
    }

    /// Handles the failure of a unary call.
    pub(crate) fn unary_failed(&mut self, id: u64, failure: &Failure, effects: &mut Effects) {
        let Some(batch) = self.remove_unary(id) else { return };
        match failure {
            Failure::Retry { problem, .. } => {
                self.problem = Some(Arc::clone(problem));
                self.unary_retries.extend(batch.without_cancelled(effects));
            }
            Failure::Split(error) => self.split(batch, error, effects),
            Failure::Final(error) => effects.fail(batch, error),
        }
        effects.unary_ready = true;
    }

    /// Retries both halves of a rejected batch in unary calls. A batch of one call gets the error.
    fn split(&mut self, batch: SealedBatch, error: &Error, effects: &mut Effects) {
        let Some(batch) = batch.without_cancelled(effects) else { return };
        match batch.halves() {
            Ok(halves) => {
                self.unary_retries.extend(halves);
                effects.unary_ready = true;
            }
            Err(single) => effects.fail(single, error),
        }
    }

    // === Deadlines and shutdown ===

    /// Records a problem between client and server, for [`Error::DeadlineExceeded`].
    pub(crate) fn record_problem(&mut self, problem: Arc<str>) {
        self.problem = Some(problem);
    }

    /// When the next sweep is due; `None` without calls.
    pub(crate) const fn sweep_at(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Fails the calls whose deadline has passed, and cancels the tokens of stalled streams.
    ///
    /// A failed call in flight keeps its place in its batch, and its permits, until the batch is answered or
    /// retried.
    pub(crate) fn sweep(&mut self, now: Instant, effects: &mut Effects) {
        let late = Err(Error::DeadlineExceeded(self.problem.clone()));
        let mut next: Option<Instant> = None;
        let mut schedule = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        let in_flight = self.streams.iter_mut().flat_map(|stream| &mut stream.in_flight);
        let in_flight = in_flight.chain(self.unary_in_flight.iter_mut().map(|(_, batch)| batch));
        for call in in_flight.flat_map(|batch| &mut batch.calls) {
            if call.deadline <= now {
                effects.complete(call, || late.clone());
            } else if call.answer.is_some() {
                schedule(call.deadline);
            }
        }
        for batches in [&mut self.open, &mut self.unary_open] {
            for batch in batches.iter_mut() {
                batch.remove(
                    |call| call.deadline <= now,
                    |mut call| {
                        effects.permits += call.permits();
                        effects.complete(&mut call, || late.clone());
                    },
                );
                batch.calls.iter().for_each(|call| schedule(call.deadline));
            }
            batches.retain(|batch| !batch.calls.is_empty());
        }
        for batches in [&mut self.retries, &mut self.unary_retries] {
            for batch in std::mem::take(batches) {
                let mut batch = batch;
                for call in &mut batch.calls {
                    if call.deadline <= now {
                        effects.complete(call, || late.clone());
                    }
                }
                if let Some(batch) = batch.without_cancelled(effects) {
                    batch.calls.iter().for_each(|call| schedule(call.deadline));
                    batches.push_back(batch);
                }
            }
        }
        for stream in &self.streams {
            let Some(oldest) = stream.in_flight.front() else { continue };
            match oldest.sent_at.map(|at| at + self.options.stall) {
                Some(at) if at <= now => stream.stalled.cancel(),
                Some(at) => schedule(at),
                None => {}
            }
        }
        self.sweep_at = next;
    }

    /// Fails every call with [`Error::Closed`]. Later calls are rejected.
    pub(crate) fn close(&mut self, effects: &mut Effects) {
        self.closed = true;
        let mut all: Vec<SealedBatch> = self.retries.drain(..).collect();
        for stream in std::mem::take(&mut self.streams) {
            effects.wake.extend(stream.idle.into_iter().chain(stream.saturated));
            all.extend(stream.in_flight);
        }
        all.extend(self.unary_in_flight.drain(..).map(|(_, batch)| batch));
        all.extend(self.unary_retries.drain(..));
        let open = self.open.drain(..).chain(self.unary_open.drain(..));
        all.extend(open.map(OpenBatch::seal));
        for batch in all {
            effects.fail(batch, &Error::Closed);
        }
    }
}

#[cfg(test)]
mod tests;
