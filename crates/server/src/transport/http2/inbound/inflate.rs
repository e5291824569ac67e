//! The compressed messages of a body: each is decompressed before the call gets it.
//!
//! ```text
//! whole message ─▶ short: at once ───────────────────────────────▶ charged, decompressed ─▶ the call
//!              └─▶ long: waits for its turn, only its bytes held ──┘
//! ```
//!
//! **Invariants**: the length of the plain message is at most the limit of its method, and is charged to the
//! connection's budget before it is decompressed. The charge ends when the call asks for the next message. Of one
//! worker's long messages, one is decompressed at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::codegen::Bytes;

use super::{Shared, TurnToCome, turn};
use crate::error::CallError;
use crate::transport::budget::{Charge, ConnectionBudget};
use crate::transport::http2::gate::come_again;
use crate::transport::http2::gzip::{Compressed, Inflating, Malformed};

/// What decompresses the messages of one body.
pub(super) struct Inflate {
    stage: Stage,
    message_bytes_max: usize,
    /// For the plain message, until the call asks for the next one.
    charge: Charge,
    turns: Arc<Semaphore>,
}

enum Stage {
    /// No compressed message is here.
    None,
    Waits(Compressed, TurnToCome),
    Runs {
        inflating: Box<Inflating>,
        _permit: Option<OwnedSemaphorePermit>,
    },
    /// For the call to take.
    Done(Bytes),
}

impl Inflate {
    pub(super) const fn new(
        message_bytes_max: usize,
        budget: Arc<ConnectionBudget>,
        turns: Arc<Semaphore>,
    ) -> Self {
        Self { stage: Stage::None, message_bytes_max, charge: Charge::new(budget), turns }
    }

    /// Waits until no compressed message is next: it is decompressed, or the next one is plain or has not arrived.
    pub(super) fn poll(
        &mut self,
        shared: &Shared,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Status>> {
        loop {
            self.stage = match &mut self.stage {
                Stage::Done(_) => return Poll::Ready(Ok(())),
                Stage::None => {
                    // The call asks for the next message: it is done with the one before.
                    self.charge.release(self.charge.bytes());
                    let Some(parts) = compressed(shared, cx) else { return Poll::Ready(Ok(())) };
                    self.begin(Compressed::of(parts))?
                }
                Stage::Waits(message, turn) => {
                    let permit = ready!(turn.as_mut().poll(cx));
                    let message = std::mem::take(message);
                    self.run(message, permit)?
                }
                Stage::Runs { inflating, .. } => match inflating.step() {
                    Ok(Some(frame)) => Stage::Done(frame),
                    Ok(None) => {
                        come_again(cx);
                        return Poll::Pending;
                    }
                    Err(Malformed) => return Poll::Ready(Err(CallError::InvalidGzip.into())),
                },
            };
        }
    }

    /// Whether no message is here.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self.stage, Stage::None)
    }

    /// The length of the plain message in its frame, if there is one.
    pub(super) const fn ready_bytes(&self) -> Option<usize> {
        match &self.stage {
            Stage::Done(frame) => Some(frame.len()),
            _ => None,
        }
    }

    /// Takes the plain message in its frame, if there is one.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        match std::mem::replace(&mut self.stage, Stage::None) {
            Stage::Done(frame) => Some(frame),
            other => {
                self.stage = other;
                None
            }
        }
    }

    fn begin(&mut self, message: Compressed) -> Result<Stage, Status> {
        let bytes = message.plain_bytes().map_err(|Malformed| CallError::InvalidGzip)?;
        if bytes > self.message_bytes_max {
            return Err(Status::out_of_range("the message is too large"));
        }
        if message.is_short() {
            self.run(message, None)
        } else {
            Ok(Stage::Waits(message, turn(&self.turns)))
        }
    }

    fn run(
        &mut self,
        message: Compressed,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<Stage, Status> {
        let bytes = message.plain_bytes().map_err(|Malformed| CallError::InvalidGzip)?;
        if !self.charge.add(bytes) {
            return Err(CallError::Overloaded.into());
        }
        let inflating = Inflating::new(message).map_err(|Malformed| CallError::InvalidGzip)?;
        Ok(Stage::Runs { inflating: Box::new(inflating), _permit: permit })
    }
}

/// Takes the next message, if it is whole and compressed. Its bytes stay charged until the one after it is begun.
fn compressed(shared: &Shared, cx: &Context<'_>) -> Option<VecDeque<Bytes>> {
    if !shared.lock().is_compressed() {
        return None;
    }
    let mut parts = VecDeque::new();
    while let Poll::Ready(Some(Ok(part))) = shared.poll(cx) {
        parts.push_back(part);
        if shared.lock().message_left == 0 {
            break;
        }
    }
    Some(parts)
}
