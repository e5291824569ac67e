//! Random histories of a queue: every call gets one outcome, its own answer or an error.

use std::collections::HashMap;
use std::time::Duration;

use capstan_proto::v1::{BatchCheckRequest, Reason};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::select;
use proptest::test_runner::TestCaseError;
use prost::Message as _;
use tokio::sync::oneshot::error::TryRecvError;

use super::*;
use crate::check::Check;
use crate::limits::{BATCH_BYTES_MAX, SPARE_BYTES_MAX};
use crate::properties::Properties;

/// An operation on the queue. A `usize` selects a caller, stream or batch, modulo their number.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A call: its timeout in milliseconds, its required revision, and the bytes of its properties.
    Push(u64, Requirement, usize),
    /// A caller drops its future.
    Leave(usize),
    Open,
    Take(usize),
    Answer(usize),
    Finish(usize),
    End(usize, How),
    TakeUnary,
    AnswerUnary(usize),
    FailUnary(usize, How),
    /// A sweep, this many milliseconds later.
    Sweep(u64),
    /// The highest revision is forgotten (true) or known again.
    Forget(bool),
}

#[derive(Clone, Copy, Debug)]
enum Requirement {
    Any,
    Held,
    Later,
    Full,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Retry,
    Split,
    Final,
}

const HIGHEST: u64 = 1 << 41;

fn step() -> impl Strategy<Value = Step> {
    let requirement = || {
        prop_oneof![
            6 => Just(Requirement::Any),
            2 => Just(Requirement::Held),
            1 => Just(Requirement::Later),
            1 => Just(Requirement::Full),
        ]
    };
    let how = || select(vec![How::Retry, How::Split, How::Final]);
    let supplied = prop_oneof![60 => 0_usize..200, 1 => 200_000_usize..600_000];
    prop_oneof![
        12 => (1_u64..50, requirement(), supplied).prop_map(|(at, requirement, more)| Step::Push(at, requirement, more)),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => Just(Step::Open),
        6 => any::<usize>().prop_map(Step::Take),
        4 => any::<usize>().prop_map(Step::Answer),
        1 => any::<usize>().prop_map(Step::Finish),
        1 => (any::<usize>(), how()).prop_map(|(at, how)| Step::End(at, how)),
        3 => Just(Step::TakeUnary),
        2 => any::<usize>().prop_map(Step::AnswerUnary),
        2 => (any::<usize>(), how()).prop_map(|(at, how)| Step::FailUnary(at, how)),
        2 => (0_u64..20).prop_map(Step::Sweep),
        1 => any::<bool>().prop_map(Step::Forget),
    ]
}

/// A queue with its model.
struct Run {
    queue: Queue,
    now: Instant,
    highest: u64,
    /// Permits held by the calls in the queue.
    permits: usize,
    callers: HashMap<u64, (oneshot::Receiver<Outcome>, Instant)>,
    asked: u64,
    streams: Vec<(u64, VecDeque<EncodedBatch>)>,
    unary: Vec<(u64, EncodedBatch)>,
}

impl Run {
    fn new() -> Self {
        let options = Options { batch_checks_max: 5, ..Options::default() };
        Self {
            queue: Queue::new(options.clamped()),
            now: Instant::now(),
            highest: HIGHEST,
            permits: 0,
            callers: HashMap::new(),
            asked: 0,
            streams: vec![],
            unary: vec![],
        }
    }

    fn follow(&mut self, effects: Effects) {
        self.permits -= effects.permits;
        for (answer, outcome) in effects.complete {
            let _ = answer.send(outcome);
        }
    }

    fn push(&mut self, in_ms: u64, requirement: Requirement, supplied: usize) {
        self.asked += 1;
        let identity = self.asked.to_string();
        let properties = Properties::default().context("x", "x".repeat(supplied));
        let check = Check::new(&identity, "some.capability", "some/where").properties(&properties);
        let encoder = CheckEncoder::new(&check);
        let min_revision = match requirement {
            Requirement::Any => MinRevision::ANY,
            Requirement::Held => MinRevision::at_least(HIGHEST - 1),
            Requirement::Later => MinRevision::at_least(HIGHEST + 1),
            Requirement::Full => MinRevision::FULL,
        };
        let deadline = self.now + Duration::from_millis(in_ms);
        let (answer, answered) = oneshot::channel();
        let call = Call { answer: Some(answer), deadline, min_revision, bytes: encoder.bytes() };
        self.permits += call.permits();
        self.callers.insert(self.asked, (answered, deadline));
        encoder.validate().unwrap();
        let pushed = self.queue.push(&encoder, call, self.highest);
        assert_eq!(pushed.unary_ready, !min_revision.is_met_at(self.highest));
    }

    /// The request as a server decodes it.
    fn read(message: &EncodedBatch) -> BatchCheckRequest {
        let mut bytes = message.checks.to_vec();
        if let Some(consistency) = message.min_revision.message() {
            let rest = BatchCheckRequest { checks: vec![], consistency: Some(consistency) };
            bytes.extend(rest.encode_to_vec());
        }
        assert!(bytes.len() <= 4 * 1024 * 1024);
        let request = BatchCheckRequest::decode(&*bytes).unwrap();
        assert!(!request.checks.is_empty());
        assert!(request.checks.len() <= 5);
        assert!(request.checks.len() == 1 || message.checks.len() <= BATCH_BYTES_MAX);
        request
    }

    /// Answers each check with a decision whose revision is the number of its identity.
    fn answer(sealed: SealedBatch, message: &EncodedBatch) {
        let request = Self::read(message);
        assert_eq!(request.checks.len(), sealed.calls.len());
        for (call, check) in sealed.calls.into_iter().zip(request.checks) {
            assert!(
                call.min_revision <= message.min_revision,
                "the batch requires less than a call"
            );
            let decision = Decision {
                allowed: true,
                reason: Reason::Granted,
                revision: check.identity.parse().unwrap(),
                valid_until: None,
            };
            if let Some(answer) = call.answer {
                let _ = answer.send(Ok(decision));
            }
        }
    }

    fn step(&mut self, step: Step) {
        let mut effects = Effects::default();
        let failure = |how| match how {
            How::Retry => Failure::lost("lost"),
            How::Split => Failure::Split(Error::Protocol("apart")),
            How::Final => Failure::Final(Error::Protocol("all")),
        };
        let some = |at: usize, of: usize| at.checked_rem(of);
        match step {
            Step::Push(in_ms, requirement, supplied) => self.push(in_ms, requirement, supplied),
            Step::Leave(at) => {
                let mut pending: Vec<_> = self.callers.keys().copied().collect();
                pending.sort_unstable();
                if let Some(at) = some(at, pending.len()) {
                    self.callers.remove(&pending[at]);
                }
            }
            Step::Open if self.streams.len() < 3 => {
                self.streams.push((self.queue.open().0, VecDeque::new()));
            }
            Step::Take(at) => {
                let Some(at) = some(at, self.streams.len()) else { return };
                let (id, sent) = &mut self.streams[at];
                let cx = Context::from_waker(Waker::noop());
                let polled = self.queue.poll_next(*id, self.highest, self.now, &mut effects, &cx);
                if let Poll::Ready(Some(message)) = polled {
                    assert!(
                        message.min_revision.is_met_at(self.highest),
                        "a batch on a stream may block"
                    );
                    Self::read(&message);
                    sent.push_back(message);
                    assert!(sent.len() <= BATCHES_IN_FLIGHT_MAX);
                }
            }
            Step::Answer(at) => {
                let Some(at) = some(at, self.streams.len()) else { return };
                let (id, sent) = &mut self.streams[at];
                let answered = self.queue.answered(*id, &mut effects);
                assert_eq!(answered.is_some(), !sent.is_empty());
                if let Some((sealed, message)) = answered.zip(sent.pop_front()) {
                    Self::answer(sealed, &message);
                }
            }
            Step::Finish(at) => {
                let Some(at) = some(at, self.streams.len()) else { return };
                self.queue.finish(self.streams[at].0, &mut effects);
            }
            Step::End(at, how) => {
                let Some(at) = some(at, self.streams.len()) else { return };
                let (id, _) = self.streams.remove(at);
                self.queue.end(id, &failure(how), &mut effects);
            }
            Step::TakeUnary => {
                if let Some((id, message, _)) = self.queue.take_unary(self.now) {
                    Self::read(&message);
                    self.unary.push((id, message));
                }
            }
            Step::AnswerUnary(at) => {
                let Some(at) = some(at, self.unary.len()) else { return };
                let (id, message) = self.unary.remove(at);
                let sealed = self.queue.unary_answered(id, &mut effects).unwrap();
                Self::answer(sealed, &message);
            }
            Step::FailUnary(at, how) => {
                let Some(at) = some(at, self.unary.len()) else { return };
                let (id, _) = self.unary.remove(at);
                self.queue.unary_failed(id, &failure(how), &mut effects);
            }
            Step::Sweep(ms) => {
                self.now += Duration::from_millis(ms);
                self.queue.sweep(self.now, &mut effects);
            }
            Step::Forget(forget) => self.highest = if forget { 0 } else { HIGHEST },
            Step::Open => {}
        }
        self.follow(effects);
    }

    /// Every outcome is the caller's own answer or an error. After a sweep no call is past its deadline.
    fn check(&mut self, swept: bool) -> Result<(), TestCaseError> {
        let (now, mut told) = (self.now, vec![]);
        for (number, (answered, deadline)) in &mut self.callers {
            match answered.try_recv() {
                Ok(outcome) => {
                    if let Ok(decision) = outcome {
                        prop_assert_eq!(decision.revision, *number);
                    }
                    told.push(*number);
                }
                Err(TryRecvError::Empty) => prop_assert!(!swept || *deadline > now, "late"),
                Err(TryRecvError::Closed) => prop_assert!(false, "{} was lost", number),
            }
        }
        let pending = self.callers.len() - told.len();
        for number in told {
            self.callers.remove(&number);
        }
        // The next sweep is not after the next deadline.
        let next = self.callers.values().map(|(_, deadline)| *deadline).min();
        if let Some(next) = next {
            prop_assert!(self.queue.sweep_at().is_some_and(|at| at <= next), "{} wait", pending);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_call_gets_one_outcome_of_its_own(steps in vec(step(), 1..200)) {
        let mut run = Run::new();
        for step in steps {
            let swept = matches!(step, Step::Sweep(_));
            run.step(step);
            run.check(swept)?;
        }
        let mut effects = Effects::default();
        run.queue.close(&mut effects);
        run.follow(effects);
        run.check(false)?;
        prop_assert!(run.callers.is_empty(), "{:?} were never told", run.callers.keys());
        prop_assert_eq!(run.permits, 0);
    }
}

#[test]
fn a_rejected_batch_is_split_until_the_invalid_check_is_alone() {
    let mut run = Run::new();
    for _ in 0..5 {
        run.push(1_000, Requirement::Any, 0);
    }
    let (id, _) = run.queue.open();
    let cx = Context::from_waker(Waker::noop());
    let mut effects = Effects::default();
    assert!(run.queue.poll_next(id, HIGHEST, run.now, &mut effects, &cx).is_ready());
    let failure = Failure::Split(Error::Protocol("no"));
    run.queue.end(id, &failure, &mut effects);
    let mut asked = 0;
    while let Some((id, message, _)) = run.queue.take_unary(run.now) {
        asked += 1;
        if Run::read(&message).checks.iter().any(|check| check.identity == "4") {
            run.queue.unary_failed(id, &failure, &mut effects);
        } else {
            Run::answer(run.queue.unary_answered(id, &mut effects).unwrap(), &message);
        }
    }
    run.follow(effects);
    assert!(asked <= 6, "{asked}");
    for (number, (mut answered, _)) in run.callers {
        let outcome = answered.try_recv().unwrap();
        assert_eq!(outcome.map(|decision| decision.revision).ok(), (number != 4).then_some(number));
    }
}

#[test]
fn calls_with_different_requirements_fill_different_batches() {
    let mut run = Run::new();
    for _ in 0..3 {
        run.push(1_000, Requirement::Any, 0);
        run.push(1_000, Requirement::Held, 0);
        run.push(1_000, Requirement::Full, 0);
        run.push(1_000, Requirement::Later, 0);
    }
    assert_eq!(run.queue.open.len(), 2);
    assert_eq!(run.queue.unary_open.len(), 2);
}

#[test]
fn unary_calls_in_flight_are_limited() {
    let mut run = Run::new();
    // Batches of five.
    for _ in 0..5 * (UNARY_CALLS_MAX + 2) {
        run.push(1_000, Requirement::Full, 0);
    }
    let mut take = || run.queue.take_unary(run.now).map(|(id, ..)| id);
    let asked: Vec<_> = std::iter::from_fn(&mut take).collect();
    assert_eq!(asked.len(), UNARY_CALLS_MAX);
    assert!(run.queue.unary_answered(asked[0], &mut Effects::default()).is_some());
    assert!(run.queue.take_unary(run.now).is_some());
}

#[test]
fn few_and_only_small_buffers_are_kept() {
    let mut run = Run::new();
    let mut kept_after = |supplied: &[usize]| {
        // All are in flight at the same time, so each has a buffer of its own.
        let asked = supplied.iter().map(|supplied| {
            run.push(1_000, Requirement::Full, *supplied);
            run.queue.take_unary(run.now).map(|(id, ..)| id).unwrap()
        });
        for id in asked.collect::<Vec<_>>() {
            let answered = run.queue.unary_answered(id, &mut Effects::default()).unwrap();
            run.queue.recycle(answered);
        }
        run.queue.spare.len()
    };
    assert_eq!(kept_after(&[SPARE_BYTES_MAX]), 0);
    assert_eq!(kept_after(&[1; SPARE_BUFFERS_MAX + 2]), SPARE_BUFFERS_MAX);
}
