//! Many checks at once: the same decisions, with their memory accesses interleaved.
//!
//! A check of a large policy waits for memory two or three times, each time for an address that the
//! wait before gave it. Sixteen checks that take each step together wait for sixteen addresses at
//! once. Nothing here decides: every answer is [`Snapshot::decide`]'s.

use std::hint::black_box;

use crate::binding::Beside;
use crate::table::{NOTHING, Probe};
use crate::{Decision, Question, Reason, Snapshot, Timestamp, UnknownCapability};

/// Checks that take each step together: about as many as the processor waits for at once.
const LANES: usize = 16;

impl Snapshot {
    /// Many checks at one time: `answer` gets each question's place and answer, in order. Allocates
    /// nothing.
    pub fn check_batch<'q>(
        &self,
        questions: &[Question<'q>],
        now: Timestamp,
        mut answer: impl FnMut(usize, Result<Decision, UnknownCapability>),
    ) {
        for (group, questions) in questions.chunks(LANES).enumerate() {
            let mut probes: [Option<Probe<'_, Beside>>; LANES] = Default::default();
            for (probe, question) in probes.iter_mut().zip(questions) {
                *probe = self.identities.probe(question.identity.as_str());
            }
            let places =
                probes.each_ref().map(|probe| probe.as_ref().map_or(NOTHING, Probe::place));
            for (probe, place) in probes.iter().zip(places) {
                black_box(probe.as_ref().map(|probe| probe.touch(place)));
            }
            for (at, (found, question)) in probes.iter().zip(places).zip(questions).enumerate() {
                answer(group * LANES + at, self.land(found, question, now));
            }
        }
    }

    fn land(
        &self,
        (probe, place): (&Option<Probe<'_, Beside>>, u32),
        question: &Question<'_>,
        now: Timestamp,
    ) -> Result<Decision, UnknownCapability> {
        let capability = self.catalog.capability(question.capability).ok_or(UnknownCapability)?;
        let entry = probe.as_ref().and_then(|probe| probe.entry(place, question.identity.as_str()));
        Ok(match entry {
            Some(identity) => self.decide(identity, capability, question, now),
            None => Decision::deny(Reason::UnknownIdentity),
        })
    }
}
