//! The calls that a client holds: in batches that are being filled, in batches in flight, and in
//! those that come around again. Nothing here waits or does I/O; `shared.rs` holds the lock.
//!
//! **Invariants**: a call is in exactly one batch until it is told, and is told once. The calls of a
//! batch stand in the order of its bytes, those whose callers are gone too. The places of a call are
//! given back when it leaves.

mod batch;

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use batch::Filling;
pub(crate) use batch::{Call, Sealed, Wanted, places};

use crate::check::Decision;
use crate::error::Error;
use crate::limits::{ALONE_MAX, BATCHES_IN_FLIGHT_MAX, Options, SPARE_BUFFERS_MAX};
use crate::verdict::Verdict;
use crate::wire::{Item, Question};

/// What a call comes to.
pub(crate) type Outcome = Result<Decision, Error>;

/// Everything that a client holds.
#[derive(Debug)]
pub(crate) struct Queue {
    options: Options,
    /// For streams, oldest first.
    filling: VecDeque<Filling>,
    /// To be sent again: before what waits.
    again: VecDeque<Sealed>,
    lanes: Vec<Lane>,
    /// To be asked alone: what may wait at the server.
    filling_alone: VecDeque<Filling>,
    /// To be asked alone: parts of what a server refused.
    suspects: VecDeque<Sealed>,
    /// Being asked alone.
    asked: Vec<(u64, Sealed)>,
    spare: Vec<Filling>,
    /// When somebody must look at deadlines; at the latest when the first of them passes.
    sweep_at: Option<Instant>,
    last_id: u64,
    /// What went wrong last, since the last answer.
    failure: Option<Arc<str>>,
    closed: bool,
}

/// A connection's stream.
#[derive(Debug)]
struct Lane {
    id: u64,
    sent: VecDeque<Sealed>,
    /// Waits for something to send.
    hungry: Option<Waker>,
    /// Waits for room.
    full: Option<Waker>,
    /// Takes nothing more.
    finishing: bool,
    stalled: CancellationToken,
}

/// What must be done once the lock is given back.
#[derive(Debug, Default)]
pub(crate) struct After {
    pub(crate) wake: Vec<Waker>,
    pub(crate) tell: Vec<(oneshot::Sender<Outcome>, Outcome)>,
    pub(crate) places: usize,
    /// Somebody must look at deadlines earlier than was planned.
    pub(crate) sweep: bool,
    /// There is something to ask alone.
    pub(crate) alone: bool,
}

/// The same of a call that came, which is all that most of them need.
#[derive(Debug, Default)]
pub(crate) struct Pushed {
    pub(crate) wake: Option<Waker>,
    pub(crate) sweep: bool,
    pub(crate) alone: bool,
}

impl After {
    fn tell(&mut self, call: &mut Call, outcome: impl FnOnce() -> Outcome) {
        if let Some(answer) = call.answer.take() {
            self.tell.push((answer, outcome()));
        }
    }

    /// Tells every call of a batch, and gives their places back.
    fn fail(&mut self, mut sealed: Sealed, error: &Error) {
        self.places += sealed.places();
        for call in &mut sealed.calls {
            self.tell(call, || Err(error.clone()));
        }
    }
}

impl Queue {
    pub(crate) const fn new(options: Options) -> Self {
        Self {
            options,
            filling: VecDeque::new(),
            again: VecDeque::new(),
            lanes: Vec::new(),
            filling_alone: VecDeque::new(),
            suspects: VecDeque::new(),
            asked: Vec::new(),
            spare: Vec::new(),
            sweep_at: None,
            last_id: 0,
            failure: None,
            closed: false,
        }
    }

    // === Calls come ===

    /// Takes a call in; `seen` is the highest revision that any answer had.
    pub(crate) fn push(&mut self, item: &Item<'_>, call: Call, seen: u64) -> Pushed {
        if self.closed {
            // The call is dropped, which tells its caller.
            return Pushed::default();
        }
        let (deadline, wanted) = (call.deadline, call.wanted);
        let streams = wanted.is_met_at(seen);
        let batches = if streams { &mut self.filling } else { &mut self.filling_alone };
        // Of calls that want different things the batches fill side by side.
        let fits = |batch: &Filling| batch.takes(item, wanted, streams, &self.options);
        let at = batches.len().saturating_sub(2);
        match batches.range_mut(at..).rev().find(|batch| fits(batch)) {
            Some(batch) => batch.push(item, call),
            None => {
                let mut batch = self.spare.pop().unwrap_or_default();
                batch.push(item, call);
                batches.push_back(batch);
            }
        }
        let wake = if streams { self.hungry() } else { None };
        Pushed { wake, sweep: self.sweep_by(deadline), alone: !streams }
    }

    /// A stream that waits for something to send, if there is one.
    fn hungry(&mut self) -> Option<Waker> {
        self.lanes.iter_mut().find_map(|lane| lane.hungry.take())
    }

    /// Whether this is earlier than somebody would look at deadlines.
    fn sweep_by(&mut self, at: Instant) -> bool {
        let earlier = self.sweep_at.is_none_or(|planned| at < planned);
        if earlier {
            self.sweep_at = Some(at);
        }
        earlier
    }

    // === Streams ===

    /// A stream begins: its number, and what tells it that it has stalled.
    pub(crate) fn open(&mut self) -> (u64, CancellationToken) {
        self.last_id += 1;
        let stalled = CancellationToken::new();
        self.lanes.push(Lane {
            id: self.last_id,
            sent: VecDeque::new(),
            hungry: None,
            full: None,
            finishing: false,
            stalled: stalled.clone(),
        });
        (self.last_id, stalled)
    }

    fn lane(&mut self, id: u64) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.id == id)
    }

    /// The next batch for a stream, or nothing if it shall end.
    pub(crate) fn poll_next(
        &mut self,
        id: u64,
        seen: u64,
        now: Instant,
        after: &mut After,
        cx: &Context<'_>,
    ) -> Poll<Option<Question>> {
        let Some(at) = self.lanes.iter().position(|lane| lane.id == id) else {
            return Poll::Ready(None);
        };
        let Some(lane) = self.lanes.get_mut(at) else { return Poll::Ready(None) };
        if lane.finishing {
            return Poll::Ready(None);
        }
        if lane.sent.len() >= BATCHES_IN_FLIGHT_MAX {
            lane.full = Some(cx.waker().clone());
            return Poll::Pending;
        }
        loop {
            let Some(mut sealed) =
                self.again.pop_front().or_else(|| self.filling.pop_front().map(Filling::seal))
            else {
                lane.hungry = Some(cx.waker().clone());
                return Poll::Pending;
            };
            // The revision may have been forgotten since.
            if !sealed.wanted.is_met_at(seen) {
                self.suspects.push_back(sealed);
                after.alone = true;
                continue;
            }
            let question = sealed.question(now);
            lane.sent.push_back(sealed);
            // What is left is for another stream.
            if !(self.filling.is_empty() && self.again.is_empty()) {
                after.wake.extend(self.hungry());
            }
            after.sweep = self.sweep_by(now + self.options.stall);
            return Poll::Ready(Some(question));
        }
    }

    /// The batch that was answered: the oldest on the stream.
    pub(crate) fn answered(&mut self, id: u64, after: &mut After) -> Option<Sealed> {
        self.failure = None;
        let lane = self.lane(id)?;
        let sealed = lane.sent.pop_front()?;
        after.wake.extend(lane.full.take());
        after.places = sealed.places();
        Some(sealed)
    }

    /// Keeps a batch's memory for a later one.
    pub(crate) fn recycle(&mut self, sealed: Sealed) {
        if self.spare.len() < SPARE_BUFFERS_MAX
            && let Some(spare) = sealed.recycle()
        {
            self.spare.push(spare);
        }
    }

    /// Lets a stream end once what it sent is answered.
    pub(crate) fn finish(&mut self, id: u64, after: &mut After) {
        if let Some(lane) = self.lane(id) {
            lane.finishing = true;
            after.wake.extend(lane.hungry.take());
            after.wake.extend(lane.full.take());
        }
    }

    /// A stream has ended. An error of the server is of the oldest batch: it answers in order.
    pub(crate) fn end(&mut self, id: u64, verdict: &Verdict, after: &mut After) {
        let Some(at) = self.lanes.iter().position(|lane| lane.id == id) else { return };
        let mut sent = self.lanes.remove(at).sent;
        match verdict {
            Verdict::Again { why, .. } => {
                if !sent.is_empty() {
                    self.failure = Some(Arc::clone(why));
                }
                // It may be what its calls want that the server does not have yet.
                if sent.front().is_some_and(|oldest| oldest.wanted != Wanted::ANY) {
                    self.suspects.extend(sent.pop_front());
                    after.alone = true;
                }
            }
            Verdict::Apart(error) => {
                if let Some(oldest) = sent.pop_front() {
                    self.take_apart(oldest, error, after);
                }
            }
            Verdict::All(error) => {
                for sealed in sent.drain(..) {
                    after.fail(sealed, error);
                }
            }
        }
        for sealed in sent.into_iter().rev() {
            if let Some(sealed) = sealed.without_gone(after) {
                self.again.push_front(sealed);
            }
        }
        // What this stream was woken for, and did not take, is another's, too.
        if !(self.filling.is_empty() && self.again.is_empty()) {
            after.wake.extend(self.hungry());
        }
    }

    // === Alone ===

    /// The next batch to ask alone, with a number for it and how often it was sent before.
    pub(crate) fn take_alone(&mut self, now: Instant) -> Option<(u64, Question, u32)> {
        if self.asked.len() >= ALONE_MAX {
            return None;
        }
        let suspect = self.suspects.pop_front();
        let mut sealed = suspect.or_else(|| self.filling_alone.pop_front().map(Filling::seal))?;
        let question = sealed.question(now);
        self.last_id += 1;
        let times = sealed.times;
        self.asked.push((self.last_id, sealed));
        Some((self.last_id, question, times))
    }

    /// The batch that was asked under this number is answered.
    pub(crate) fn answered_alone(&mut self, id: u64, after: &mut After) -> Option<Sealed> {
        self.failure = None;
        let sealed = self.remove_asked(id)?;
        after.places = sealed.places();
        Some(sealed)
    }

    fn remove_asked(&mut self, id: u64) -> Option<Sealed> {
        let at = self.asked.iter().position(|(asked, _)| *asked == id)?;
        Some(self.asked.swap_remove(at).1)
    }

    /// The batch that was asked under this number has no answer.
    pub(crate) fn failed_alone(&mut self, id: u64, verdict: &Verdict, after: &mut After) {
        let Some(sealed) = self.remove_asked(id) else { return };
        match verdict {
            Verdict::Again { why, .. } => {
                self.failure = Some(Arc::clone(why));
                self.suspects.extend(sealed.without_gone(after));
            }
            Verdict::Apart(error) => self.take_apart(sealed, error, after),
            Verdict::All(error) => after.fail(sealed, error),
        }
        after.alone = true;
    }

    /// Asks the halves of a batch that the server refused as a whole; one call gets the error.
    fn take_apart(&mut self, sealed: Sealed, error: &Error, after: &mut After) {
        let Some(sealed) = sealed.without_gone(after) else { return };
        match sealed.halves() {
            Ok(halves) => {
                self.suspects.extend(halves);
                after.alone = true;
            }
            Err(single) => after.fail(single, error),
        }
    }

    // === Time and the end ===

    /// What went wrong between here and the server.
    pub(crate) fn failed(&mut self, why: Arc<str>) {
        self.failure = Some(why);
    }

    /// When to look at deadlines next.
    pub(crate) const fn sweep_at(&self) -> Option<Instant> {
        self.sweep_at
    }

    /// Tells the calls whose deadline has passed, and the streams that have stalled.
    pub(crate) fn sweep(&mut self, now: Instant, after: &mut After) {
        let late = Err(Error::DeadlineExceeded(self.failure.clone()));
        let mut next: Option<Instant> = None;
        let mut look_at = |at: Instant| next = Some(next.map_or(at, |next| next.min(at)));
        let in_flight = self.lanes.iter_mut().flat_map(|lane| &mut lane.sent);
        let in_flight = in_flight.chain(self.asked.iter_mut().map(|(_, sealed)| sealed));
        for call in in_flight.flat_map(|sealed| &mut sealed.calls) {
            if call.deadline <= now {
                after.tell(call, || late.clone());
            } else if call.answer.is_some() {
                look_at(call.deadline);
            }
        }
        for batches in [&mut self.filling, &mut self.filling_alone] {
            for batch in batches.iter_mut() {
                batch.remove(
                    |call| call.deadline <= now,
                    |mut call| {
                        after.places += call.places();
                        after.tell(&mut call, || late.clone());
                    },
                );
                batch.calls.iter().for_each(|call| look_at(call.deadline));
            }
            batches.retain(|batch| !batch.calls.is_empty());
        }
        for batches in [&mut self.again, &mut self.suspects] {
            for sealed in std::mem::take(batches) {
                let mut sealed = sealed;
                for call in &mut sealed.calls {
                    if call.deadline <= now {
                        after.tell(call, || late.clone());
                    }
                }
                if let Some(sealed) = sealed.without_gone(after) {
                    sealed.calls.iter().for_each(|call| look_at(call.deadline));
                    batches.push_back(sealed);
                }
            }
        }
        for lane in &self.lanes {
            let Some(oldest) = lane.sent.front() else { continue };
            let stalls = oldest.sent_at.map(|at| at + self.options.stall);
            match stalls {
                Some(at) if at <= now => lane.stalled.cancel(),
                Some(at) => look_at(at),
                None => {}
            }
        }
        self.sweep_at = next;
    }

    /// Tells every call that the client was shut down, and takes no more.
    pub(crate) fn close(&mut self, after: &mut After) {
        self.closed = true;
        let lanes = std::mem::take(&mut self.lanes);
        for lane in lanes {
            after.wake.extend(lane.hungry.into_iter().chain(lane.full));
            self.again.extend(lane.sent);
        }
        self.again.extend(self.asked.drain(..).map(|(_, sealed)| sealed));
        self.again.extend(self.suspects.drain(..));
        let filling = self.filling.drain(..).chain(self.filling_alone.drain(..));
        self.again.extend(filling.map(Filling::seal));
        for sealed in self.again.drain(..) {
            after.fail(sealed, &Error::Closed);
        }
    }
}

#[cfg(test)]
mod tests;
