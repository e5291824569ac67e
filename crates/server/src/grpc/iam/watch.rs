//! `PolicyService.Watch`: what changes in an organization, revision by revision.
//!
//! ```text
//! start revision ─▶ place in the change log ─▶ revisions ─▶ what the caller may see ─▶ responses
//!                        ▲                                                               │
//!                        └── a later revision, or a checkpoint after a while ◀───────────┘
//! ```
//!
//! **Invariants**: the caller is judged at the latest revision before each response. A change that a response leaves out is
//! one that the caller may not see: whoever misses one for another reason is told that the watch is over.

use std::pin::Pin;
use std::time::Duration;

use capstan_engine::PathBuf;
use capstan_iam::{Kind, ObjectsError};
use capstan_proto::iam::v1;
use futures_util::stream::{self, Stream, TryStreamExt as _};
use prost::Message as _;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::audit::is_in;
use super::fields::optional_path;
use super::json::json;
use super::policy::whole;
use super::reading::{Reading, Viewer};
use super::service::Iam;
use crate::RequestError;
use crate::authn::caller::CallerKind;
use crate::error::StoreFailure;
use crate::feed::Freshness;
use crate::feed::change_log::{self, Changed, Start};
use crate::limits::{PAGE_REST_BYTES, WATCH_CHECKPOINT, WATCH_READ_BYTES, WATCH_READ_REVISIONS};
use crate::places::Place;

/// The responses of a watch.
pub(super) type Watched = Pin<Box<dyn Stream<Item = Result<v1::WatchResponse, Status>> + Send>>;

/// What was read at once.
struct Read {
    responses: Vec<v1::WatchResponse>,
    /// The revision that was read.
    revision: u64,
    /// Whether the log has more of it.
    is_behind: bool,
}

/// A watch between two reads.
struct Watcher {
    iam: Iam,
    caller: CallerKind,
    parent: Option<PathBuf>,
    /// The number of the next record of the log.
    next: u64,
    _place: Place,
}

impl Iam {
    /// Begins a watch.
    pub(super) async fn watch_changes(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Watched>, Status> {
        let caller = super::service::caller(&request)?.kind;
        let v1::WatchRequest { parent, start_revision } = request.into_inner();
        // Who asks for the next revision waits for it in the watch.
        let freshness = match start_revision {
            0 | 1 => Freshness::Any,
            start => Freshness::AtLeast(start.saturating_sub(1)),
        };
        let reading = self.reading_as(caller.clone(), freshness).await?;
        let parent = optional_path("parent", &parent)?;
        let at = parent.clone();
        let place = self.watches.take(reading.identity().cloned());
        let place = place.ok_or(RequestError::Store(StoreFailure::Busy))?;
        let begin = self.blocking(reading, move |reading, viewer| {
            whole(reading, viewer, at.as_ref())?;
            if at.as_ref().is_some_and(|parent| parent.as_path().parent().is_some()) {
                let problem = "a folder: a watch is of an organization, which is its first segment";
                return Err(RequestError::field("parent", problem));
            }
            let view = reading.view().ok_or(RequestError::ReadOnly)?;
            match start_revision {
                0 => Ok(change_log::head(&**view)?.next),
                start => match change_log::start(&**view, start)? {
                    Start::At(number) => Ok(number),
                    Start::Compacted => Err(RequestError::RevisionCompacted { revision: start }),
                },
            }
        });
        let next = begin.await?;
        let watcher = Watcher { iam: self.clone(), caller, parent, next, _place: place };
        let batches = stream::try_unfold(watcher, |mut watcher| async move {
            let responses = watcher.step().await?;
            Ok::<_, RequestError>(Some((stream::iter(responses.into_iter().map(Ok)), watcher)))
        });
        Ok(Response::new(Box::pin(
            batches.try_flatten().map_err(|error: RequestError| error.into()),
        )))
    }
}

impl Watcher {
    /// The next responses: what changed, or a checkpoint.
    async fn step(&mut self) -> Result<Vec<v1::WatchResponse>, RequestError> {
        let until = Instant::now() + WATCH_CHECKPOINT;
        loop {
            if self.iam.draining.is_cancelled() {
                return Err(RequestError::Draining);
            }
            let Read { responses, revision, is_behind } = self.read().await?;
            if !responses.is_empty() {
                return Ok(responses);
            }
            // Nothing of what was read is for this caller: that is no reason to wait, nor to say that all was sent.
            if is_behind {
                continue;
            }
            if Instant::now() >= until {
                return Ok(vec![v1::WatchResponse { revision, changes: vec![] }]);
            }
            // Its credential may end before.
            let now = self.iam.clock.now().seconds();
            let ends = self.caller.counts_until().map(|end| end.seconds().saturating_sub(now));
            let ends = ends.map(|seconds| Duration::from_secs(seconds.try_into().unwrap_or(0)));
            let until = ends.map_or(until, |ends| until.min(Instant::now() + ends));
            tokio::select! {
                () = self.iam.draining.cancelled() => {}
                () = self.iam.published.later_than(revision) => {}
                () = tokio::time::sleep_until(until) => {}
                () = self.caller.refused() => {}
            }
        }
    }

    /// What changed since the last read, as far as one read goes, and the revision that was read.
    async fn read(&mut self) -> Result<Read, RequestError> {
        let reading = self.iam.reading_as(self.caller.clone(), Freshness::Any).await?;
        let revision = reading.revision();
        let (parent, next) = (self.parent.clone(), self.next);
        let bytes_max = self.iam.message_bytes_max.saturating_sub(PAGE_REST_BYTES);
        let read = self.iam.blocking(reading, move |reading, viewer| {
            whole(reading, viewer, parent.as_ref())?;
            changes(reading, viewer, (parent.as_ref(), next), bytes_max)
        });
        let (responses, next, is_behind) = read.await?;
        self.next = next;
        Ok(Read { responses, revision, is_behind })
    }
}

/// The responses from a record of the log on, the number of the record behind them, and whether there is more.
fn changes(
    reading: &Reading,
    viewer: &Viewer<'_>,
    (parent, from): (Option<&PathBuf>, u64),
    bytes_max: usize,
) -> Result<(Vec<v1::WatchResponse>, u64, bool), RequestError> {
    let view = reading.view().ok_or(RequestError::ReadOnly)?;
    let head = change_log::head(&**view)?;
    if from < head.first {
        // It was too slow: what it needs next is not kept any more.
        return Err(RequestError::RevisionCompacted { revision: reading.revision() });
    }
    let (mut responses, mut bytes, mut read, mut failed) = (vec![], 0_usize, 0_usize, None);
    let next = change_log::read(&**view, from, &mut |found| {
        let (number, revision) = (found.number, found.record.revision);
        let messages = match found.is_cut {
            true => Err(RequestError::RevisionCompacted { revision }),
            false => messages(viewer, parent, found.changes).map_err(Into::into),
        };
        match messages {
            Ok(messages) => {
                bytes = messages.iter().fold(bytes, |bytes, one| bytes + one.encoded_len());
                responses.extend(in_responses(revision, messages, bytes_max));
            }
            Err(error) => failed = Some((number, error)),
        }
        read += 1;
        failed.is_none() && read < WATCH_READ_REVISIONS && bytes < WATCH_READ_BYTES
    })?;
    match failed {
        Some((_, error)) if responses.is_empty() => Err(error),
        // What was before it is sent first.
        Some((number, _)) => Ok((responses, number, true)),
        None => Ok((responses, next, next < head.next)),
    }
}

/// The changes that a viewer may see of an organization.
fn messages(
    viewer: &Viewer<'_>,
    parent: Option<&PathBuf>,
    changes: Vec<Changed>,
) -> Result<Vec<v1::WatchedChange>, ObjectsError> {
    let mut messages = vec![];
    for change in changes {
        let is_inside = parent.is_none_or(|parent| is_in(change.id.as_str(), parent.as_str()));
        if !is_inside || !is_shown(viewer, &change)? {
            continue;
        }
        let (action, kind, id) = (change.action(), change.kind, change.id.to_string());
        let [before, after] = [change.before, change.after].map(|object| object.map(json));
        let (action, kind) = (action.as_str().to_owned(), kind.to_string());
        messages.push(v1::WatchedChange { action, kind, id, before, after });
    }
    Ok(messages)
}

/// Whether a viewer, who may list the organization, may see a change: resources of some types and the kinds that decide
/// nothing need another capability.
fn is_shown(viewer: &Viewer<'_>, change: &Changed) -> Result<bool, ObjectsError> {
    let Viewer::Actor(reader) = viewer else { return Ok(true) };
    for object in change.objects() {
        let needs_more = object.kind() == Kind::Resource || Kind::BESIDE.contains(&object.kind());
        if needs_more && reader.show(object)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The changes of a revision in responses that are no longer than a message.
fn in_responses(
    revision: u64,
    messages: Vec<v1::WatchedChange>,
    bytes_max: usize,
) -> Vec<v1::WatchResponse> {
    let mut responses: Vec<v1::WatchResponse> = vec![];
    let mut room = 0_usize;
    for message in messages {
        let bytes = message.encoded_len() + super::list::ENTRY_BYTES;
        match responses.last_mut().filter(|_| bytes <= room) {
            Some(last) => last.changes.push(message),
            None => {
                responses.push(v1::WatchResponse { revision, changes: vec![message] });
                room = bytes_max;
            }
        }
        room = room.saturating_sub(bytes);
    }
    responses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_with_many_changes_is_cut_into_responses() {
        let one = v1::WatchedChange { id: "x".repeat(100), ..Default::default() };
        let bytes = one.encoded_len() + super::super::list::ENTRY_BYTES;
        let of = |count: usize, room: usize| {
            let responses = in_responses(7, vec![one.clone(); count], room);
            assert!(responses.iter().all(|response| response.revision == 7));
            responses.iter().map(|response| response.changes.len()).collect::<Vec<_>>()
        };
        assert_eq!(of(0, bytes), [0; 0]);
        assert_eq!(of(5, 2 * bytes), [2, 2, 1]);
        assert_eq!(of(5, 5 * bytes), [5]);
        assert_eq!(of(2, 1), [1, 1], "one that fits nowhere is alone");
    }
}
