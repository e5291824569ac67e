//! Random histories of a queue: every call is told once, and gets its own answer or an error.

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

/// What happens to a queue. Numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A call: its deadline in milliseconds from now, what it wants, how much it supplies.
    Push(u64, Want, usize),
    /// A caller gives up.
    Leave(usize),
    Open,
    Take(usize),
    Answer(usize),
    Finish(usize),
    End(usize, How),
    TakeAlone,
    AnswerAlone(usize),
    FailAlone(usize, How),
    /// Time passes, and somebody looks at the deadlines.
    Sweep(u64),
    /// The highest revision is forgotten, or seen again.
    Forget(bool),
}

#[derive(Clone, Copy, Debug)]
enum Want {
    Any,
    Held,
    Later,
    Full,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Again,
    Apart,
    All,
}

const SEEN: u64 = 1 << 41;

fn step() -> impl Strategy<Value = Step> {
    let want = || {
        prop_oneof![
            6 => Just(Want::Any),
            2 => Just(Want::Held),
            1 => Just(Want::Later),
            1 => Just(Want::Full),
        ]
    };
    let how = || select(vec![How::Again, How::Apart, How::All]);
    let supplied = prop_oneof![60 => 0_usize..200, 1 => 200_000_usize..600_000];
    prop_oneof![
        12 => (1_u64..50, want(), supplied).prop_map(|(at, want, more)| Step::Push(at, want, more)),
        1 => any::<usize>().prop_map(Step::Leave),
        1 => Just(Step::Open),
        6 => any::<usize>().prop_map(Step::Take),
        4 => any::<usize>().prop_map(Step::Answer),
        1 => any::<usize>().prop_map(Step::Finish),
        1 => (any::<usize>(), how()).prop_map(|(at, how)| Step::End(at, how)),
        3 => Just(Step::TakeAlone),
        2 => any::<usize>().prop_map(Step::AnswerAlone),
        2 => (any::<usize>(), how()).prop_map(|(at, how)| Step::FailAlone(at, how)),
        2 => (0_u64..20).prop_map(Step::Sweep),
        1 => any::<bool>().prop_map(Step::Forget),
    ]
}

/// A queue, and what must be true of it.
struct Run {
    queue: Queue,
    now: Instant,
    seen: u64,
    /// Places of calls that are in, less those given back.
    places: usize,
    callers: HashMap<u64, (oneshot::Receiver<Outcome>, Instant)>,
    asked: u64,
    lanes: Vec<(u64, VecDeque<Question>)>,
    alone: Vec<(u64, Question)>,
}

impl Run {
    fn new() -> Self {
        let options = Options { batch_checks_max: 5, ..Options::default() };
        Self {
            queue: Queue::new(options.held()),
            now: Instant::now(),
            seen: SEEN,
            places: 0,
            callers: HashMap::new(),
            asked: 0,
            lanes: vec![],
            alone: vec![],
        }
    }

    fn follow(&mut self, after: After) {
        self.places -= after.places;
        for (answer, outcome) in after.tell {
            let _ = answer.send(outcome);
        }
    }

    fn push(&mut self, in_ms: u64, want: Want, supplied: usize) {
        self.asked += 1;
        let identity = self.asked.to_string();
        let properties = Properties::default().context("x", "x".repeat(supplied));
        let check = Check::new(&identity, "some.capability", "some/where").properties(&properties);
        let item = Item::new(&check);
        let wanted = match want {
            Want::Any => Wanted::ANY,
            Want::Held => Wanted::at_least(SEEN - 1),
            Want::Later => Wanted::at_least(SEEN + 1),
            Want::Full => Wanted::FULL,
        };
        let deadline = self.now + Duration::from_millis(in_ms);
        let (answer, answered) = oneshot::channel();
        let call = Call { answer: Some(answer), deadline, wanted, bytes: item.bytes() };
        self.places += call.places();
        self.callers.insert(self.asked, (answered, deadline));
        item.fits().unwrap();
        let pushed = self.queue.push(&item, call, self.seen);
        assert_eq!(pushed.alone, !wanted.is_met_at(self.seen));
    }

    /// What a server would read.
    fn read(question: &Question) -> BatchCheckRequest {
        let mut bytes = question.checks.to_vec();
        if let Some(consistency) = question.wanted.message() {
            let rest = BatchCheckRequest { checks: vec![], consistency: Some(consistency) };
            bytes.extend(rest.encode_to_vec());
        }
        assert!(bytes.len() <= 4 * 1024 * 1024);
        let request = BatchCheckRequest::decode(&*bytes).unwrap();
        assert!(!request.checks.is_empty());
        assert!(request.checks.len() <= 5);
        assert!(request.checks.len() == 1 || question.checks.len() <= BATCH_BYTES_MAX);
        request
    }

    /// Answers each question with the number of whoever it is about.
    fn answer(sealed: Sealed, question: &Question) {
        let request = Self::read(question);
        assert_eq!(request.checks.len(), sealed.calls.len());
        for (call, check) in sealed.calls.into_iter().zip(request.checks) {
            assert!(call.wanted <= question.wanted, "asked for less than a caller wants");
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
        let mut after = After::default();
        let verdict = |how| match how {
            How::Again => Verdict::lost("lost"),
            How::Apart => Verdict::Apart(Error::Protocol("apart")),
            How::All => Verdict::All(Error::Protocol("all")),
        };
        let some = |at: usize, of: usize| at.checked_rem(of);
        match step {
            Step::Push(in_ms, want, supplied) => self.push(in_ms, want, supplied),
            Step::Leave(at) => {
                let mut pending: Vec<_> = self.callers.keys().copied().collect();
                pending.sort_unstable();
                if let Some(at) = some(at, pending.len()) {
                    self.callers.remove(&pending[at]);
                }
            }
            Step::Open if self.lanes.len() < 3 => {
                self.lanes.push((self.queue.open().0, VecDeque::new()));
            }
            Step::Take(at) => {
                let Some(at) = some(at, self.lanes.len()) else { return };
                let (id, sent) = &mut self.lanes[at];
                let cx = Context::from_waker(Waker::noop());
                let polled = self.queue.poll_next(*id, self.seen, self.now, &mut after, &cx);
                if let Poll::Ready(Some(question)) = polled {
                    assert!(question.wanted.is_met_at(self.seen), "it may wait, on a stream");
                    Self::read(&question);
                    sent.push_back(question);
                    assert!(sent.len() <= BATCHES_IN_FLIGHT_MAX);
                }
            }
            Step::Answer(at) => {
                let Some(at) = some(at, self.lanes.len()) else { return };
                let (id, sent) = &mut self.lanes[at];
                let answered = self.queue.answered(*id, &mut after);
                assert_eq!(answered.is_some(), !sent.is_empty());
                if let Some((sealed, question)) = answered.zip(sent.pop_front()) {
                    Self::answer(sealed, &question);
                }
            }
            Step::Finish(at) => {
                let Some(at) = some(at, self.lanes.len()) else { return };
                self.queue.finish(self.lanes[at].0, &mut after);
            }
            Step::End(at, how) => {
                let Some(at) = some(at, self.lanes.len()) else { return };
                let (id, _) = self.lanes.remove(at);
                self.queue.end(id, &verdict(how), &mut after);
            }
            Step::TakeAlone => {
                if let Some((id, question, _)) = self.queue.take_alone(self.now) {
                    Self::read(&question);
                    self.alone.push((id, question));
                }
            }
            Step::AnswerAlone(at) => {
                let Some(at) = some(at, self.alone.len()) else { return };
                let (id, question) = self.alone.remove(at);
                let sealed = self.queue.answered_alone(id, &mut after).unwrap();
                Self::answer(sealed, &question);
            }
            Step::FailAlone(at, how) => {
                let Some(at) = some(at, self.alone.len()) else { return };
                let (id, _) = self.alone.remove(at);
                self.queue.failed_alone(id, &verdict(how), &mut after);
            }
            Step::Sweep(ms) => {
                self.now += Duration::from_millis(ms);
                self.queue.sweep(self.now, &mut after);
            }
            Step::Forget(forget) => self.seen = if forget { 0 } else { SEEN },
            Step::Open => {}
        }
        self.follow(after);
    }

    /// Whoever is told gets his own answer, or an error; whoever is late has been told.
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
        // Nobody is forgotten: somebody will look when the next deadline passes.
        let next = self.callers.values().map(|(_, deadline)| *deadline).min();
        if let Some(next) = next {
            prop_assert!(self.queue.sweep_at().is_some_and(|at| at <= next), "{} wait", pending);
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_call_is_told_once_and_gets_its_own_answer(steps in vec(step(), 1..200)) {
        let mut run = Run::new();
        for step in steps {
            let swept = matches!(step, Step::Sweep(_));
            run.step(step);
            run.check(swept)?;
        }
        let mut after = After::default();
        run.queue.close(&mut after);
        run.follow(after);
        run.check(false)?;
        prop_assert!(run.callers.is_empty(), "{:?} were never told", run.callers.keys());
        prop_assert_eq!(run.places, 0);
    }
}

#[test]
fn a_batch_that_is_refused_is_taken_apart_down_to_the_culprit() {
    let mut run = Run::new();
    for _ in 0..5 {
        run.push(1_000, Want::Any, 0);
    }
    let (id, _) = run.queue.open();
    let cx = Context::from_waker(Waker::noop());
    let mut after = After::default();
    assert!(run.queue.poll_next(id, SEEN, run.now, &mut after, &cx).is_ready());
    let verdict = Verdict::Apart(Error::Protocol("no"));
    run.queue.end(id, &verdict, &mut after);
    let mut asked = 0;
    while let Some((id, question, _)) = run.queue.take_alone(run.now) {
        asked += 1;
        if Run::read(&question).checks.iter().any(|check| check.identity == "4") {
            run.queue.failed_alone(id, &verdict, &mut after);
        } else {
            Run::answer(run.queue.answered_alone(id, &mut after).unwrap(), &question);
        }
    }
    run.follow(after);
    assert!(asked <= 6, "{asked}");
    for (number, (mut answered, _)) in run.callers {
        let outcome = answered.try_recv().unwrap();
        assert_eq!(outcome.map(|decision| decision.revision).ok(), (number != 4).then_some(number));
    }
}

#[test]
fn calls_that_want_different_things_fill_batches_side_by_side() {
    let mut run = Run::new();
    for _ in 0..3 {
        run.push(1_000, Want::Any, 0);
        run.push(1_000, Want::Held, 0);
        run.push(1_000, Want::Full, 0);
        run.push(1_000, Want::Later, 0);
    }
    assert_eq!(run.queue.filling.len(), 2);
    assert_eq!(run.queue.filling_alone.len(), 2);
}

#[test]
fn no_more_is_asked_alone_at_once_than_may_be() {
    let mut run = Run::new();
    // Batches of five.
    for _ in 0..5 * (ALONE_MAX + 2) {
        run.push(1_000, Want::Full, 0);
    }
    let mut take = || run.queue.take_alone(run.now).map(|(id, ..)| id);
    let asked: Vec<_> = std::iter::from_fn(&mut take).collect();
    assert_eq!(asked.len(), ALONE_MAX);
    assert!(run.queue.answered_alone(asked[0], &mut After::default()).is_some());
    assert!(run.queue.take_alone(run.now).is_some());
}

#[test]
fn few_buffers_are_kept_and_none_that_is_large() {
    let mut run = Run::new();
    let mut kept_after = |supplied: &[usize]| {
        // Each is asked alone while the others wait: all have buffers of their own.
        let asked = supplied.iter().map(|supplied| {
            run.push(1_000, Want::Full, *supplied);
            run.queue.take_alone(run.now).map(|(id, ..)| id).unwrap()
        });
        for id in asked.collect::<Vec<_>>() {
            let answered = run.queue.answered_alone(id, &mut After::default()).unwrap();
            run.queue.recycle(answered);
        }
        run.queue.spare.len()
    };
    assert_eq!(kept_after(&[SPARE_BYTES_MAX]), 0);
    assert_eq!(kept_after(&[1; SPARE_BUFFERS_MAX + 2]), SPARE_BUFFERS_MAX);
}
