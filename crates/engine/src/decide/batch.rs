//! Batches: the same decisions as single checks, with their cache misses overlapped.
//!
//! A check of a large policy has two or three cache misses in sequence, because each address comes from the
//! record before. Here a group of checks takes each step together: all addresses of a step are prefetched
//! before any of them is read. Every answer is [`Snapshot::decide`]'s.

use crate::index::binding::IdentityExtra;
use crate::index::table::{EMPTY, Probe};
use crate::{Decision, Question, Reason, Snapshot, Timestamp, UnknownCapabilityError};

/// Checks that take each step together. While one step runs for all of them, the prefetches of the step
/// before complete.
const LANES: usize = 32;

impl Snapshot {
    /// Answers many checks at one time. Calls `answer` with the position and the answer of each
    /// question, in order. Allocates nothing.
    pub fn check_batch<'q>(
        &self,
        questions: &[Question<'q>],
        now: Timestamp,
        mut answer: impl FnMut(usize, Result<Decision, UnknownCapabilityError>),
    ) {
        for (group, questions) in questions.chunks(LANES).enumerate() {
            let mut probes: [Option<Probe<'_, IdentityExtra>>; LANES] = Default::default();
            for (probe, question) in probes.iter_mut().zip(questions) {
                *probe = self.index().identities().probe(question.identity.as_str());
                if let Some(probe) = probe {
                    probe.prefetch_slot();
                }
            }
            let mut offsets = [EMPTY; LANES];
            for (probe, to) in probes.iter().zip(&mut offsets) {
                if let Some(probe) = probe {
                    *to = probe.offset();
                    probe.prefetch_record(*to);
                }
            }
            for (at, (found, question)) in probes.iter().zip(offsets).zip(questions).enumerate() {
                answer(group * LANES + at, self.finish(found, question, now));
            }
        }
    }

    /// The decision, given where the record of the identity may be.
    pub(crate) fn finish(
        &self,
        (probe, offset): (&Option<Probe<'_, IdentityExtra>>, u32),
        question: &Question<'_>,
        now: Timestamp,
    ) -> Result<Decision, UnknownCapabilityError> {
        let capability = self.capability(question.capability)?;
        let entry =
            probe.as_ref().and_then(|probe| probe.entry(offset, question.identity.as_str()));
        Ok(match entry {
            Some(identity) => self.decide(identity, capability, question, now),
            None => Decision::deny(Reason::UnknownIdentity),
        })
    }
}
