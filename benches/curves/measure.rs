//! The cost of a question: CPU time of the thread, wall time, and their spread over rounds.
//!
//! **Invariant**: subjects are measured in turn, round by round, so that other load of the machine affects all
//! of them. Subjects with the same questions must allow the same number. No question is asked twice of one
//! subject, so no part of the index is in the cache because of an earlier question. The text of a question is
//! in the cache, as after decoding.

use std::hint::black_box;

use anyhow::ensure;
use capstan_benches::clock::{Cost, Spread, cost};
use capstan_engine::{Question, Snapshot, Timestamp};

pub(crate) const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// The number of allowed questions among these.
type Ask<'s> = dyn Fn(&[Question<'_>]) -> usize + 's;

/// A subject that answers questions.
pub(crate) struct Subject<'s> {
    pub(crate) name: &'s str,
    pub(crate) ask: Box<Ask<'s>>,
    /// The same number of questions for each round, and for one warm-up round.
    pub(crate) questions: &'s [Question<'s>],
    /// The highest number of questions in a round; slow subjects have fewer.
    pub(crate) most: usize,
    /// The number of questions between two clock readings.
    pub(crate) block: usize,
}

/// With this number, the texts fit into the L2 cache, and the time is long enough to measure.
const BLOCK: usize = 512;

impl<'s> Subject<'s> {
    pub(crate) fn new(
        name: &'s str,
        questions: &'s [Question<'s>],
        ask: impl Fn(&[Question<'_>]) -> usize + 's,
    ) -> Self {
        Self { name, ask: Box::new(ask), questions, most: usize::MAX, block: BLOCK }
    }

    /// The engine with single checks.
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

    /// The engine with batches of this size.
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

    /// The cost of each of these questions, and the number of allowed ones.
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

/// The CPU and wall time of a question for each subject, in their order.
pub(crate) fn in_turn(
    rounds: usize,
    subjects: &[Subject<'_>],
) -> anyhow::Result<Vec<(Spread, Spread)>> {
    let mut costs = vec![Vec::with_capacity(rounds); subjects.len()];
    for round in 0..=rounds {
        let mut answers: Vec<(&str, &[Question<'_>], usize)> = Vec::new();
        let mut turns: Vec<_> = subjects.iter().zip(&mut costs).collect();
        // The first subject of a round changes, too.
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
            // The warm-up round fills the caches.
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
