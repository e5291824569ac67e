//! The snapshot that is served, waiting for a later one, and a few that lists still go on with.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwapOption, Guard};
use capstan_engine::Snapshot;
use capstan_policy::Credentials;
use capstan_proto::contract::epoch;
use capstan_proto::v1::{Consistency, consistency::Mode};
use tokio::sync::watch;

use crate::RequestError;
use crate::limits::{REVISION_WAIT_MAX, SNAPSHOTS_KEPT};

/// What requests are both authenticated and decided by.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) credentials: Credentials,
}

/// The snapshot that is served: one writer publishes, any number of readers read.
#[derive(Debug)]
pub struct Published {
    snapshot: ArcSwapOption<Snapshot>,
    /// The same with its credentials, for those who ask with one: nobody else pays for them.
    current: ArcSwapOption<Current>,
    revision: watch::Sender<u64>,
    /// The latest snapshots, oldest first: pages of one list are of one revision.
    kept: Mutex<VecDeque<Arc<Snapshot>>>,
}

impl Default for Published {
    fn default() -> Self {
        Self {
            snapshot: ArcSwapOption::empty(),
            current: ArcSwapOption::empty(),
            revision: watch::Sender::new(0),
            kept: Mutex::default(),
        }
    }
}

impl Published {
    /// Makes a snapshot the one that is served. Its revision is above all that were published.
    /// Answers the one that is no longer kept, so that the writer frees it and no reader has to.
    pub fn publish(&self, snapshot: Arc<Snapshot>) -> Option<Arc<Snapshot>> {
        let revision = snapshot.revision();
        debug_assert!(revision > *self.revision.borrow());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back(Arc::clone(&snapshot));
        let dropped = if kept.len() > SNAPSHOTS_KEPT { kept.pop_front() } else { None };
        drop(kept);
        self.snapshot.store(Some(snapshot));
        self.revision.send_replace(revision);
        dropped
    }

    /// The same, with the credentials of the policy: who sees the revision is held to them.
    pub(crate) fn publish_with(
        &self,
        snapshot: Arc<Snapshot>,
        credentials: Credentials,
    ) -> Option<Arc<Snapshot>> {
        let current = Current { snapshot: Arc::clone(&snapshot), credentials };
        self.current.store(Some(Arc::new(current)));
        self.publish(snapshot)
    }

    /// The snapshot that is served, with its credentials. Waits a moment for the first.
    ///
    /// # Errors
    ///
    /// It did not come in time.
    pub(crate) async fn authenticating(&self) -> Result<Arc<Current>, RequestError> {
        self.read(None).await?;
        self.current.load_full().ok_or(RequestError::NotReady)
    }

    /// The snapshot that is served, if any is yet.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Snapshot>> {
        self.snapshot.load_full()
    }

    /// The same for as long as an answer takes: unlike [`Self::current`] it writes nothing that
    /// other cores read.
    pub(crate) fn load(&self) -> Guard<Option<Arc<Snapshot>>> {
        self.snapshot.load()
    }

    /// A snapshot for the next page of a list: of the revision that the list began with, if that is
    /// still kept, else the current one, which the page's token will then not fit.
    pub(crate) fn kept(&self, revision: u64) -> Option<Arc<Snapshot>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|snapshot| snapshot.revision() == revision).map(Arc::clone)
    }

    /// A snapshot as recent as the request wants it. Waits a moment for one that is not here yet:
    /// the first after a start, or the revision of a write that another replica acknowledged.
    ///
    /// # Errors
    ///
    /// It did not come in time, or never will.
    pub async fn read(
        &self,
        consistency: Option<&Consistency>,
    ) -> Result<Arc<Snapshot>, RequestError> {
        let wanted = match consistency.and_then(|consistency| consistency.mode.as_ref()) {
            Some(Mode::AtLeast(revision)) => *revision,
            // A policy file has one writer, in this process: what is held is all there is.
            Some(Mode::FullyConsistent(_)) | None => 0,
        };
        match self.current() {
            Some(snapshot) if wanted <= snapshot.revision() => Ok(snapshot),
            held => self.wait(wanted, held).await,
        }
    }

    async fn wait(
        &self,
        wanted: u64,
        held: Option<Arc<Snapshot>>,
    ) -> Result<Arc<Snapshot>, RequestError> {
        if let Some(held) = held.map(|snapshot| snapshot.revision())
            && epoch(wanted) != epoch(held)
        {
            return Err(RequestError::StoreEpoch { wanted, held });
        }
        let mut revisions = self.revision.subscribe();
        let arrived = revisions.wait_for(|revision| *revision >= wanted.max(1));
        let arrived = tokio::time::timeout(REVISION_WAIT_MAX, arrived).await.is_ok();
        match self.current() {
            Some(snapshot) if arrived => Ok(snapshot),
            Some(snapshot) => {
                Err(RequestError::RevisionNotAvailable { wanted, held: snapshot.revision() })
            }
            None => Err(RequestError::NotReady),
        }
    }
}
