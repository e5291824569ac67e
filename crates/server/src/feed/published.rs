//! The revision that is served, the wait for a later one, and earlier ones for lists to go on with.
//!
//! **Invariant**: snapshot and credentials are one pointer, so that one publication replaces both for
//! everybody. Earlier revisions are kept for [`Retention::time`] and up to [`Retention::bytes_max`]; the writer frees them,
//! never a reader.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use capstan_engine::Snapshot;
use capstan_policy::Credentials;
use capstan_proto::contract::epoch;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::RequestError;
use crate::interleave;
use crate::limits::{Limits, REVISION_WAIT_MAX};

/// What requests are authenticated and decided by.
#[derive(Debug)]
pub struct Current {
    /// The policy.
    pub snapshot: Snapshot,
    /// Who proves what identity by a secret.
    pub credentials: Credentials,
}

/// How recent an answer must be (contract, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Whatever is served.
    Any,
    /// This revision or a later one.
    AtLeast(u64),
    /// Every write that was acknowledged before the request.
    Full,
}

/// How long and how many earlier revisions are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// Since a revision was replaced.
    pub(crate) time: Duration,
    /// Of all earlier revisions together.
    pub(crate) bytes_max: usize,
}

impl From<&Limits> for Retention {
    fn from(limits: &Limits) -> Self {
        Self { time: limits.kept_time, bytes_max: limits.kept_bytes_max }
    }
}

/// The revision that is served: one writer publishes, any number of readers read.
#[derive(Debug)]
pub struct Published {
    current: ArcSwapOption<Current>,
    revision: watch::Sender<u64>,
    retention: Retention,
    earlier: Mutex<EarlierRevisions>,
}

/// Revisions that are no longer served, oldest first.
#[derive(Debug, Default)]
struct EarlierRevisions {
    kept: VecDeque<EarlierRevision>,
    bytes: usize,
}

#[derive(Debug)]
struct EarlierRevision {
    current: Arc<Current>,
    replaced: Instant,
    /// What it holds that the revision after it does not.
    bytes: usize,
}

impl EarlierRevisions {
    /// Takes out what is too old or too much.
    fn expire(&mut self, retention: Retention) -> Vec<Arc<Current>> {
        let mut freed = Vec::new();
        while let Some(oldest) = self.kept.front()
            && (self.bytes > retention.bytes_max || oldest.replaced.elapsed() >= retention.time)
        {
            self.bytes = self.bytes.saturating_sub(oldest.bytes);
            freed.extend(self.kept.pop_front().map(|kept| kept.current));
        }
        freed
    }
}

impl Published {
    /// Nothing yet.
    pub(crate) fn new(retention: Retention) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            revision: watch::Sender::new(0),
            retention,
            earlier: Mutex::default(),
        }
    }

    /// Serves a revision, which is later than all before it. `replaced_bytes` is what the one before it
    /// holds and the new one does not. Answers revisions that are no longer kept, for the writer to
    /// free.
    pub(crate) fn publish(&self, current: Current, replaced_bytes: usize) -> Vec<Arc<Current>> {
        let revision = current.snapshot.revision();
        debug_assert!(revision > *self.revision.borrow());
        // Kept before its successor is served: a page of it must find it at any time. Nothing else
        // publishes meanwhile, so the lock is not held over both.
        if let Some(current) = self.current.load_full() {
            let replaced = Instant::now();
            let mut earlier = self.earlier();
            earlier.kept.push_back(EarlierRevision { current, replaced, bytes: replaced_bytes });
            earlier.bytes = earlier.bytes.saturating_add(replaced_bytes);
        }
        interleave::point();
        self.current.store(Some(Arc::new(current)));
        interleave::point();
        let freed = self.earlier().expire(self.retention);
        self.revision.send_replace(revision);
        freed
    }

    /// Takes out revisions that were kept long enough, for the writer to free.
    pub(crate) fn expire(&self) -> Vec<Arc<Current>> {
        self.earlier().expire(self.retention)
    }

    fn earlier(&self) -> MutexGuard<'_, EarlierRevisions> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The revision that is served, if any is yet.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Current>> {
        self.current.load_full()
    }

    /// The same for as long as an answer takes: unlike [`Self::current`] it writes nothing that
    /// other cores read.
    pub(crate) fn load(&self) -> Guard<Option<Arc<Current>>> {
        self.current.load()
    }

    /// The revision that a list began with, if it is served or still kept.
    pub(crate) fn kept(&self, revision: u64) -> Option<Arc<Current>> {
        // What is served comes first: a revision that is replaced is kept before its successor is served, so
        // that it is found in one of the two at any time.
        let is_wanted = |current: &Arc<Current>| current.snapshot.revision() == revision;
        if let Some(current) = self.current().filter(is_wanted) {
            return Some(current);
        }
        interleave::point();
        let earlier = self.earlier();
        let at =
            earlier.kept.binary_search_by_key(&revision, |one| one.current.snapshot.revision());
        at.ok().and_then(|at| Some(Arc::clone(&earlier.kept.get(at)?.current)))
    }

    /// A revision as recent as the request wants it. Waits up to [`REVISION_WAIT_MAX`] for one that is
    /// not here yet: the first after a start, or that of a write which another replica acknowledged.
    ///
    /// # Errors
    ///
    /// It did not come in time, or never will.
    pub async fn read(&self, freshness: Freshness) -> Result<Arc<Current>, RequestError> {
        let wanted = match freshness {
            Freshness::AtLeast(revision) => revision,
            // A policy file has one writer, in this process: what is served is all that there is.
            Freshness::Full | Freshness::Any => 0,
        };
        match self.current() {
            Some(current) if wanted <= current.snapshot.revision() => Ok(current),
            held => self.wait(wanted, held).await,
        }
    }

    async fn wait(
        &self,
        wanted: u64,
        held: Option<Arc<Current>>,
    ) -> Result<Arc<Current>, RequestError> {
        if let Some(held) = held.map(|current| current.snapshot.revision())
            && epoch(wanted) != epoch(held)
        {
            return Err(RequestError::StoreEpoch { wanted, held });
        }
        let mut revisions = self.revision.subscribe();
        let arrived = revisions.wait_for(|revision| *revision >= wanted.max(1));
        let arrived = tokio::time::timeout(REVISION_WAIT_MAX, arrived).await.is_ok();
        match self.current() {
            Some(current) if arrived => Ok(current),
            Some(current) => {
                let held = current.snapshot.revision();
                Err(RequestError::RevisionNotAvailable { wanted, held })
            }
            None => Err(RequestError::NotReady),
        }
    }
}

#[cfg(test)]
mod tests;
