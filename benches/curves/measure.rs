//! What a piece of work costs: CPU time of the thread, wall time, and their spread over rounds.
//!
//! **Invariant**: what is compared is measured in turn, round by round, so that whatever else the
//! machine does meets all of it; and what is measured is right: subjects that are asked the same
//! questions must give as many permissions. No question is asked twice of one subject, so that of the
//! index nothing is near because it was asked before; but the text of a question is, as if it had
//! just been decoded.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::ensure;
use capstan_engine::{Question, Snapshot, Timestamp};
use rustix::time::{ClockId, clock_gettime};

pub(crate) const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// Nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    pub(crate) cpu: f64,
    pub(crate) wall: f64,
}

/// Median, least and most of some rounds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        Self { median: at(values.len() / 2), low: at(0), high: at(values.len().wrapping_sub(1)) }
    }
}

/// CPU time that this thread has used.
pub(crate) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or_default());
    seconds + Duration::from_nanos(u64::try_from(time.tv_nsec).unwrap_or_default())
}

pub(crate) const fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// What the work costs on this thread.
pub(crate) fn cost<T>(work: impl FnOnce() -> T) -> (Cost, T) {
    let (wall, cpu) = (Instant::now(), thread_cpu());
    let done = black_box(work());
    let cost = Cost { cpu: nanos(thread_cpu() - cpu), wall: nanos(wall.elapsed()) };
    (cost, done)
}

/// How many of these are allowed.
type Ask<'s> = dyn Fn(&[Question<'_>]) -> usize + 's;

/// Something that answers questions.
pub(crate) struct Subject<'s> {
    pub(crate) name: &'s str,
    pub(crate) ask: Box<Ask<'s>>,
    /// As many for each round, and for one before the first.
    pub(crate) questions: &'s [Question<'s>],
    /// Most questions of a round; a slow subject is asked fewer.
    pub(crate) most: usize,
    /// Questions between two readings of the clock.
    pub(crate) block: usize,
}

/// Questions whose text fits into the second cache, and takes long enough to be timed.
const BLOCK: usize = 512;

impl<'s> Subject<'s> {
    pub(crate) fn new(
        name: &'s str,
        questions: &'s [Question<'s>],
        ask: impl Fn(&[Question<'_>]) -> usize + 's,
    ) -> Self {
        Self { name, ask: Box::new(ask), questions, most: usize::MAX, block: BLOCK }
    }

    /// The engine, one question at a time.
    pub(crate) fn engine(
        name: &'s str,
        snapshot: &'s Snapshot,
        questions: &'s [Question<'s>],
    ) -> Self {
        Self::new(name, questions, |questions| {
            let allowed = |question: &&Question<'_>| {
                snapshot.check(question, NOW).is_ok_and(|decision| decision.allowed())
            };
            questions.iter().filter(allowed).count()
        })
    }

    /// The engine, so many questions at a time.
    pub(crate) fn batch(
        name: &'s str,
        size: usize,
        snapshot: &'s Snapshot,
        questions: &'s [Question<'s>],
    ) -> Self {
        let subject = Self::new(name, questions, move |questions| {
            let mut allowed = 0;
            for batch in questions.chunks(size) {
                snapshot.check_batch(batch, NOW, |_, decision| {
                    allowed += usize::from(decision.is_ok_and(|decision| decision.allowed()));
                });
            }
            allowed
        });
        Self { block: size * (BLOCK / size).max(1), ..subject }
    }

    /// The questions of a round.
    fn slice(&self, round: usize, rounds: usize) -> &'s [Question<'s>] {
        let per_round = (self.questions.len() / rounds).max(1);
        let slice = self.questions.chunks_exact(per_round).nth(round).unwrap_or_default();
        slice.get(..self.most.min(slice.len())).unwrap_or_default()
    }

    /// What each of these costs, and how many are allowed.
    fn answer(&self, questions: &[Question<'_>]) -> (Cost, usize) {
        let (mut total, mut allowed) = (Cost { cpu: 0.0, wall: 0.0 }, 0);
        for block in questions.chunks(self.block) {
            bring_near(block);
            let (cost, of_block) = cost(|| (self.ask)(black_box(block)));
            total = Cost { cpu: total.cpu + cost.cpu, wall: total.wall + cost.wall };
            allowed += of_block;
        }
        let each = questions.len() as f64;
        (Cost { cpu: total.cpu / each, wall: total.wall / each }, allowed)
    }
}

fn bring_near(questions: &[Question<'_>]) {
    for Question { identity, capability, resource, .. } in questions {
        for text in [identity.as_str(), capability, resource.as_str()] {
            black_box(text.bytes().fold(0u8, u8::wrapping_add));
        }
    }
}

/// What a question costs each subject, in their order: CPU and wall time.
pub(crate) fn in_turn(
    rounds: usize,
    subjects: &[Subject<'_>],
) -> anyhow::Result<Vec<(Spread, Spread)>> {
    let mut costs = vec![Vec::with_capacity(rounds); subjects.len()];
    for round in 0..=rounds {
        let mut answers: Vec<(&str, &[Question<'_>], usize)> = Vec::new();
        let mut turns: Vec<_> = subjects.iter().zip(&mut costs).collect();
        // Who begins changes, too.
        turns.rotate_left(round % subjects.len().max(1));
        for (subject, costs) in turns {
            let slice = subject.slice(round, rounds + 1);
            ensure!(!slice.is_empty(), "no questions for {}", subject.name);
            let (cost, allowed) = subject.answer(slice);
            for (other, asked, others) in &answers {
                ensure!(
                    !std::ptr::eq(*asked, slice) || *others == allowed,
                    "{} allows {allowed}, {other} {others}",
                    subject.name,
                );
            }
            answers.push((subject.name, slice, allowed));
            // The round before the first brings near what can be near.
            if round > 0 {
                costs.push(cost);
            }
        }
    }
    let spread = |costs: &Vec<Cost>| {
        let (cpu, wall) = (costs.iter().map(|cost| cost.cpu), costs.iter().map(|cost| cost.wall));
        (Spread::of(cpu), Spread::of(wall))
    };
    Ok(costs.iter().map(spread).collect())
}
