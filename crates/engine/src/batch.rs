//! Many checks at once: the same decisions, with their memory accesses interleaved.
//!
//! A check of a large policy waits for memory three or four times, each time for an address that the
//! wait before gave it. Sixteen checks that take each step together wait for sixteen addresses at
//! once. Nothing here decides: every answer is [`Snapshot::decide`]'s.

use std::hint::black_box;

use crate::binding::{BINDING_BYTES, Beside, Packed};
use crate::table::{Entry, Probe};
use crate::{CapabilityIx, Decision, Question, Reason, Snapshot, Timestamp, UnknownCapability};

/// Checks that take each step together: about as many as the processor waits for at once.
const LANES: usize = 16;

/// A check under way.
#[derive(Default)]
struct Lane<'s> {
    capability: Option<CapabilityIx>,
    probe: Option<Probe<'s, Beside>>,
    identity: Option<Entry<'s, Beside>>,
}

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
            let mut lanes: [Lane<'_>; LANES] = Default::default();
            for (lane, question) in lanes.iter_mut().zip(questions) {
                lane.capability = self.catalog.capability(question.capability);
                let hash = self.seed().hash(question.identity.as_str());
                lane.probe = self.identities.probe(hash);
            }
            for probe in lanes.iter().filter_map(|lane| lane.probe.as_ref()) {
                black_box(probe.touch());
            }
            for (lane, question) in lanes.iter_mut().zip(questions) {
                let probe = lane.probe.as_ref();
                lane.identity = probe.and_then(|probe| probe.entry(question.identity.as_str()));
                self.touch_scope(lane, question.resource.as_str().as_bytes());
            }
            for (at, (lane, question)) in lanes.iter().zip(questions).enumerate() {
                answer(group * LANES + at, self.land(lane, question, now));
            }
        }
    }

    /// Reads what the scope of a binding on the path will be compared with.
    fn touch_scope(&self, lane: &Lane<'_>, path: &[u8]) {
        let Some(identity) = &lane.identity else { return };
        let (bindings, _) = identity.payload().as_chunks::<BINDING_BYTES>();
        let first = bindings.iter().take(LANES).map(|bytes| Packed::read(*bytes));
        let mut on_path = first.filter(|packed| packed.can_be_above(self.seed(), path));
        if let Some(packed) = on_path.next() {
            black_box(self.scopes.touch(packed.scope));
        }
    }

    fn land(
        &self,
        lane: &Lane<'_>,
        question: &Question<'_>,
        now: Timestamp,
    ) -> Result<Decision, UnknownCapability> {
        let capability = lane.capability.ok_or(UnknownCapability)?;
        Ok(match lane.identity {
            Some(identity) => self.decide(identity, capability, question, now),
            None => Decision::deny(Reason::UnknownIdentity),
        })
    }
}
