//! Many checks at once: the same decisions, with their memory accesses interleaved.
//!
//! A check of a large policy waits for memory two or three times, each time for an address that the
//! wait before gave it. Checks that take each step together ask for all of their addresses, and then
//! wait for all at once. Nothing here decides: every answer is [`Snapshot::decide`]'s.

use crate::index::binding::Beside;
use crate::index::table::{NOTHING, Probe};
use crate::{Decision, Question, Reason, Snapshot, Timestamp, UnknownCapability};

/// Checks that take each step together. While one step is taken for all of them, what was asked for in
/// the step before arrives.
const LANES: usize = 32;

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
                if let Some(probe) = probe {
                    probe.fetch_slot();
                }
            }
            let mut places = [NOTHING; LANES];
            for (probe, to) in probes.iter().zip(&mut places) {
                if let Some(probe) = probe {
                    *to = probe.place();
                    probe.fetch_record(*to);
                }
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
