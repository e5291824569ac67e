//! Batches: open while calls are added, sealed when they are sent.

use capstan_proto::v1::{Consistency, consistency::Mode};
use prost::bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Effects, Outcome};
use crate::limits::{BATCH_BYTES_MAX, Options, PERMIT_BYTES, SPARE_BYTES_MAX};
use crate::wire::{CheckEncoder, EncodedBatch};

/// The lowest revision that an answer may have. Ordered by strictness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MinRevision(u64);

impl MinRevision {
    /// No requirement.
    pub(crate) const ANY: Self = Self(0);
    /// Every write that was acknowledged before the call.
    pub(crate) const FULL: Self = Self(u64::MAX);

    /// At least this revision. `u64::MAX`, which stands for [`Self::FULL`], is beyond every revision of a
    /// store.
    pub(crate) const fn at_least(revision: u64) -> Self {
        if revision == u64::MAX { Self(u64::MAX - 1) } else { Self(revision) }
    }

    /// Whether a server at this revision answers without waiting.
    pub(crate) fn is_met_at(self, revision: u64) -> bool {
        self.0 <= revision
    }

    /// Whether an answer at this revision meets the requirement. For `FULL` only the server knows.
    pub(crate) fn is_kept_at(self, revision: u64) -> bool {
        self == Self::FULL || self.0 <= revision
    }

    /// The field of the request; `None` for [`Self::ANY`].
    pub(crate) fn message(self) -> Option<Consistency> {
        let mode = match self {
            Self::ANY => return None,
            Self::FULL => Mode::FullyConsistent(true),
            Self(revision) => Mode::AtLeast(revision),
        };
        Some(Consistency { mode: Some(mode) })
    }
}

/// A check that waits for its answer.
#[derive(Debug)]
pub(crate) struct Call {
    /// `None` once the outcome is sent.
    pub(crate) answer: Option<oneshot::Sender<Outcome>>,
    pub(crate) deadline: Instant,
    pub(crate) min_revision: MinRevision,
    /// Bytes of the check in its batch.
    pub(crate) bytes: usize,
}

impl Call {
    /// The number of permits that the call holds.
    pub(crate) const fn permits(&self) -> usize {
        permits(self.bytes)
    }

    /// Whether the outcome is sent, or the caller has dropped its future.
    fn is_cancelled(&self) -> bool {
        self.answer.as_ref().is_none_or(oneshot::Sender::is_closed)
    }
}

/// The number of permits for a check of this many bytes.
pub(crate) const fn permits(bytes: usize) -> usize {
    1 + bytes / PERMIT_BYTES
}

/// A batch to which calls are added.
#[derive(Debug, Default)]
pub(crate) struct OpenBatch {
    bytes: Vec<u8>,
    pub(crate) calls: Vec<Call>,
    min_revision: MinRevision,
}

impl OpenBatch {
    /// Whether the call fits and may share the batch.
    ///
    /// A stream answers in order, so a batch on it must not block. `on_stream` says that the server is known
    /// to have the required revision. Such batches may mix revisions, but calls without a requirement never
    /// share a batch with calls that have one. Calls that may block share a batch only with calls of the same
    /// requirement.
    pub(crate) fn accepts(
        &self,
        encoder: &CheckEncoder<'_>,
        min_revision: MinRevision,
        on_stream: bool,
        options: &Options,
    ) -> bool {
        let is_compatible = match on_stream {
            true => (self.min_revision == MinRevision::ANY) == (min_revision == MinRevision::ANY),
            false => self.min_revision == min_revision,
        };
        is_compatible
            && self.calls.len() < options.batch_checks_max
            && self.bytes.len() + encoder.bytes() <= BATCH_BYTES_MAX
    }

    pub(crate) fn push(&mut self, encoder: &CheckEncoder<'_>, call: Call) {
        encoder.put(&mut self.bytes);
        self.min_revision = self.min_revision.max(call.min_revision);
        self.calls.push(call);
    }

    /// Removes the calls that match, with their bytes, and passes them to `removed`.
    pub(crate) fn remove(
        &mut self,
        matches: impl Fn(&Call) -> bool,
        mut removed: impl FnMut(Call),
    ) {
        if !self.calls.iter().any(&matches) {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        let mut rest = &*bytes;
        for call in std::mem::take(&mut self.calls) {
            // The bytes of a batch are those of its calls, so the split never fails.
            let (item, others) = rest.split_at_checked(call.bytes).unwrap_or((rest, &[]));
            rest = others;
            if matches(&call) {
                removed(call);
            } else {
                self.bytes.extend_from_slice(item);
                self.calls.push(call);
            }
        }
    }

    pub(crate) fn seal(self) -> SealedBatch {
        let Self { bytes, calls, min_revision } = self;
        SealedBatch { bytes: bytes.into(), calls, min_revision, attempts: 0, sent_at: None }
    }
}

/// A batch that is or was in flight. No call is added to it.
#[derive(Debug)]
pub(crate) struct SealedBatch {
    bytes: Bytes,
    pub(crate) calls: Vec<Call>,
    pub(crate) min_revision: MinRevision,
    /// How many times it was sent.
    pub(crate) attempts: u32,
    /// When it was last sent.
    pub(crate) sent_at: Option<Instant>,
}

impl SealedBatch {
    /// The message to send now. Counts an attempt.
    pub(crate) fn message(&mut self, now: Instant) -> EncodedBatch {
        self.attempts += 1;
        self.sent_at = Some(now);
        EncodedBatch { checks: self.bytes.clone(), min_revision: self.min_revision }
    }

    /// The number of permits that its calls hold.
    pub(crate) fn permits(&self) -> usize {
        self.calls.iter().map(Call::permits).sum()
    }

    /// The batch without cancelled calls, whose permits are returned; `None` if no call is left.
    pub(crate) fn without_cancelled(self, effects: &mut Effects) -> Option<Self> {
        if !self.calls.iter().any(Call::is_cancelled) {
            return Some(self);
        }
        let Self { bytes, calls, min_revision, attempts, sent_at } = self;
        let mut left = OpenBatch { bytes: bytes.into(), calls, min_revision };
        left.remove(Call::is_cancelled, |call| effects.permits += call.permits());
        if left.calls.is_empty() {
            return None;
        }
        Some(Self { attempts, sent_at, ..left.seal() })
    }

    /// Two batches with half of the calls each; the batch itself if it has fewer than two calls.
    pub(crate) fn halves(self) -> Result<[Self; 2], Self> {
        if self.calls.len() < 2 {
            return Err(self);
        }
        let Self { mut bytes, mut calls, attempts, sent_at, .. } = self;
        let tail = calls.split_off(calls.len() / 2);
        let head_bytes = bytes.split_to(calls.iter().map(|call| call.bytes).sum());
        let half = |bytes, calls: Vec<Call>| {
            let min_revision = calls.iter().map(|call| call.min_revision).max().unwrap_or_default();
            Self { bytes, calls, min_revision, attempts, sent_at }
        };
        Ok([half(head_bytes, calls), half(bytes, tail)])
    }

    /// An empty batch that reuses the buffers; `None` while the transport still holds the bytes, or if they
    /// are more than [`SPARE_BYTES_MAX`].
    pub(crate) fn recycle(self) -> Option<OpenBatch> {
        let Self { bytes, mut calls, .. } = self;
        calls.clear();
        if !bytes.is_unique() {
            return None;
        }
        let mut bytes = Vec::from(bytes);
        bytes.clear();
        let is_small = bytes.capacity() <= SPARE_BYTES_MAX;
        is_small.then_some(OpenBatch { bytes, calls, min_revision: MinRevision::ANY })
    }
}
