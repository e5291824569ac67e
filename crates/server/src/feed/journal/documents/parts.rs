//! What is long on its way to a client: written by a thread, part by part.
//!
//! ```text
//! thread: write ─▶ Parts ─▶ channel of a few parts ─▶ stream ─▶ client
//! ```
//!
//! **Invariants**: what stops without its end is an error at the client: whoever has a part of it must not take it for the
//! whole. A client that stops reading, or reads too slowly, ends the thread.

use std::io;

use bytes::Bytes;
use capstan_store::WriteBackupError;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{broken, export::Ended};
use crate::RequestError;
use crate::error::StoreFailure;
use crate::limits::{EXPORT_CHUNK_BYTES, EXPORT_PARTS_MAX, EXPORT_STALL_MAX, EXPORT_TIME_MAX};
use crate::places::Place;

impl From<WriteBackupError> for Ended {
    fn from(error: WriteBackupError) -> Self {
        match error {
            WriteBackupError::Store(error) => {
                Self::Failed(RequestError::Store(super::super::writer::failure(&error)))
            }
            WriteBackupError::Io(_) => Self::Gone,
        }
    }
}

/// Writes on a thread of its own, which waits for a slow client. It keeps its place until it ends.
pub(super) fn streamed(
    name: &str,
    place: Place,
    write: impl FnOnce(Parts) -> Result<Parts, Ended> + Send + 'static,
) -> BoxStream<'static, Result<Bytes, RequestError>> {
    let (to, from) = mpsc::channel(EXPORT_PARTS_MAX);
    let runtime = Handle::current();
    let write = move || {
        let _place = place;
        let out = Out { to, runtime, until: Instant::now() + EXPORT_TIME_MAX };
        let written = write(Parts { part: vec![], out: out.clone() });
        let ended = written.and_then(|mut parts| Ok(parts.send_rest()?));
        let last = match ended {
            Ok(()) => None,
            Err(Ended::Failed(error)) => Some(Err(error)),
            Err(Ended::Gone) => return,
        };
        // Nobody waits for it if this fails.
        let _ = out.send(last);
    };
    let started = std::thread::Builder::new().name(name.into()).spawn(write);
    if let Err(error) = started {
        return failed(broken(&error.into()));
    }
    stream::unfold(Some(from), next_part).boxed()
}

/// Nothing but an error.
pub(super) fn failed(error: RequestError) -> BoxStream<'static, Result<Bytes, RequestError>> {
    stream::iter([Err(error)]).boxed()
}

/// A part, an error that ends it, or its end.
type Part = Option<Result<Bytes, RequestError>>;

/// The next part for a client.
async fn next_part(
    from: Option<mpsc::Receiver<Part>>,
) -> Option<(Result<Bytes, RequestError>, Option<mpsc::Receiver<Part>>)> {
    let mut from = from?;
    match from.recv().await {
        Some(Some(Ok(part))) => Some((Ok(part), Some(from))),
        Some(Some(Err(error))) => Some((Err(error), None)),
        Some(None) => None,
        None => Some((Err(RequestError::Store(StoreFailure::Busy)), None)),
    }
}

/// The way to the client.
#[derive(Clone)]
struct Out {
    to: mpsc::Sender<Part>,
    runtime: Handle,
    /// When it ends in any case.
    until: Instant,
}

impl Out {
    /// Sends a part, and waits for it no longer than [`EXPORT_STALL_MAX`].
    fn send(&self, part: Part) -> io::Result<()> {
        let sent = self.runtime.block_on(async {
            let until = self.until.min(Instant::now() + EXPORT_STALL_MAX);
            Instant::now() < until
                && tokio::time::timeout_at(until, self.to.send(part))
                    .await
                    .is_ok_and(|sent| sent.is_ok())
        });
        if sent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

/// Takes what is written, and sends it in parts of [`EXPORT_CHUNK_BYTES`].
pub(super) struct Parts {
    part: Vec<u8>,
    out: Out,
}

impl Parts {
    fn send_rest(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let part = std::mem::take(&mut self.part);
        self.out.send(Some(Ok(part.into())))
    }
}

impl io::Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = EXPORT_CHUNK_BYTES.saturating_sub(self.part.len());
        let (fits, _) = bytes.split_at(room.min(bytes.len()));
        self.part.extend_from_slice(fits);
        if self.part.len() >= EXPORT_CHUNK_BYTES {
            self.send_rest()?;
        }
        Ok(fits.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
