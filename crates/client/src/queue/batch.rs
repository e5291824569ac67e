//! Batches: being filled, then sealed.

use capstan_proto::v1::{Consistency, consistency::Mode};
use prost::bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{After, Outcome};
use crate::limits::{BATCH_BYTES_MAX, Options, PLACE_BYTES, SPARE_BYTES_MAX};
use crate::wire::{Item, Question};

/// How recent an answer must be. The order is that of strictness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted(u64);

impl Wanted {
    pub(crate) const ANY: Self = Self(0);
    pub(crate) const FULL: Self = Self(u64::MAX);

    /// No store ever reaches the one revision that this cannot say.
    pub(crate) const fn at_least(revision: u64) -> Self {
        if revision == u64::MAX { Self(u64::MAX - 1) } else { Self(revision) }
    }

    /// Whether a server at this revision has it, so that nobody need wait.
    pub(crate) fn is_met_at(self, revision: u64) -> bool {
        self.0 <= revision
    }

    /// Whether an answer at this revision keeps it. Of `FULL` only the server can tell.
    pub(crate) fn is_kept_at(self, revision: u64) -> bool {
        self == Self::FULL || self.0 <= revision
    }

    /// As it is sent.
    pub(crate) fn message(self) -> Option<Consistency> {
        let mode = match self {
            Self::ANY => return None,
            Self::FULL => Mode::FullyConsistent(true),
            Self(revision) => Mode::AtLeast(revision),
        };
        Some(Consistency { mode: Some(mode) })
    }
}

/// Whoever waits for an answer.
#[derive(Debug)]
pub(crate) struct Call {
    /// Nothing once the caller is told.
    pub(crate) answer: Option<oneshot::Sender<Outcome>>,
    pub(crate) deadline: Instant,
    pub(crate) wanted: Wanted,
    /// Bytes in the batch.
    pub(crate) bytes: usize,
}

impl Call {
    /// Places that it takes.
    pub(crate) const fn places(&self) -> usize {
        places(self.bytes)
    }

    /// Whether nobody waits for it any more.
    fn is_gone(&self) -> bool {
        self.answer.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// Places that a check of so many bytes takes.
pub(crate) const fn places(bytes: usize) -> usize {
    1 + bytes / PLACE_BYTES
}

/// A batch that takes more calls.
#[derive(Debug, Default)]
pub(crate) struct Filling {
    bytes: Vec<u8>,
    pub(crate) calls: Vec<Call>,
    wanted: Wanted,
}

impl Filling {
    /// Whether there is room for this, and all here want much the same. A stream answers in order,
    /// so what is met already can want the highest of its revisions; but who wants any must not wait
    /// with who wants more, and what may wait waits only with its like.
    pub(crate) fn takes(
        &self,
        item: &Item<'_>,
        wanted: Wanted,
        streams: bool,
        options: &Options,
    ) -> bool {
        let alike = match streams {
            true => (self.wanted == Wanted::ANY) == (wanted == Wanted::ANY),
            false => self.wanted == wanted,
        };
        alike
            && self.calls.len() < options.batch_checks_max
            && self.bytes.len() + item.bytes() <= BATCH_BYTES_MAX
    }

    pub(crate) fn push(&mut self, item: &Item<'_>, call: Call) {
        item.put(&mut self.bytes);
        self.wanted = self.wanted.max(call.wanted);
        self.calls.push(call);
    }

    /// Removes calls and their bytes.
    pub(crate) fn remove(&mut self, gone: impl Fn(&Call) -> bool, mut removed: impl FnMut(Call)) {
        if !self.calls.iter().any(&gone) {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        let mut rest = &*bytes;
        for call in std::mem::take(&mut self.calls) {
            // The bytes of a batch are those of its calls.
            let (item, others) = rest.split_at_checked(call.bytes).unwrap_or((rest, &[]));
            rest = others;
            if gone(&call) {
                removed(call);
            } else {
                self.bytes.extend_from_slice(item);
                self.calls.push(call);
            }
        }
    }

    pub(crate) fn seal(self) -> Sealed {
        let Self { bytes, calls, wanted } = self;
        Sealed { bytes: bytes.into(), calls, wanted, times: 0, sent_at: None }
    }
}

/// A batch that is or was in flight.
#[derive(Debug)]
pub(crate) struct Sealed {
    bytes: Bytes,
    pub(crate) calls: Vec<Call>,
    pub(crate) wanted: Wanted,
    /// How often it was sent.
    pub(crate) times: u32,
    /// When it was, last.
    pub(crate) sent_at: Option<Instant>,
}

impl Sealed {
    /// The message to send now.
    pub(crate) fn question(&mut self, now: Instant) -> Question {
        self.times += 1;
        self.sent_at = Some(now);
        Question { checks: self.bytes.clone(), wanted: self.wanted }
    }

    pub(crate) fn places(&self) -> usize {
        self.calls.iter().map(Call::places).sum()
    }

    /// The batch without the calls that nobody waits for, if any is left.
    pub(crate) fn without_gone(self, after: &mut After) -> Option<Self> {
        if !self.calls.iter().any(Call::is_gone) {
            return Some(self);
        }
        let Self { bytes, calls, wanted, times, sent_at } = self;
        let mut left = Filling { bytes: bytes.into(), calls, wanted };
        left.remove(Call::is_gone, |call| after.places += call.places());
        if left.calls.is_empty() {
            return None;
        }
        Some(Self { times, sent_at, ..left.seal() })
    }

    /// Two batches, or the one that is a single call.
    pub(crate) fn halves(self) -> Result<[Self; 2], Self> {
        if self.calls.len() < 2 {
            return Err(self);
        }
        let Self { mut bytes, mut calls, times, sent_at, .. } = self;
        let tail = calls.split_off(calls.len() / 2);
        let head_bytes = bytes.split_to(calls.iter().map(|call| call.bytes).sum());
        let half = |bytes, calls: Vec<Call>| {
            let wanted = calls.iter().map(|call| call.wanted).max().unwrap_or_default();
            Self { bytes, calls, wanted, times, sent_at }
        };
        Ok([half(head_bytes, calls), half(bytes, tail)])
    }

    /// Its memory, for another batch, unless it is still being sent or is too much.
    pub(crate) fn recycle(self) -> Option<Filling> {
        let Self { bytes, mut calls, .. } = self;
        calls.clear();
        if !bytes.is_unique() {
            return None;
        }
        let mut bytes = Vec::from(bytes);
        bytes.clear();
        let small = bytes.capacity() <= SPARE_BYTES_MAX;
        small.then_some(Filling { bytes, calls, wanted: Wanted::ANY })
    }
}
