//! The served revision, the wait for a later one, and earlier revisions for paged lists.
//!
//! ```text
//! publish ─▶ current ─▶ load, current, read
//!              └─▶ earlier revisions that lists need, by time and bytes ─▶ kept
//! ```
//!
//! **Invariants**: snapshot, credentials and view are one pointer, so one publication replaces all of them.
//! A revision of which a page of a list was given (`Published::keep`) is in `current` or among the earlier ones until it expires. Those
//! are kept for `Retention::time` and up to `Retention::bytes_max`. The writer removes and frees them, and every other one
//! when it is replaced, or, if that takes long, at the next tick (`Published::expire`); a call that still uses one frees it at its end.
//!
//! A view holds old pages of the store's file, so an earlier revision keeps its view only if a paged list
//! needs it (`Published::pin`), and at most [`PINNED_VIEWS_MAX`] do.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use capstan_engine::Snapshot;
use capstan_policy::Credentials;
use capstan_proto::contract::epoch;
use capstan_store::View;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::RequestError;
use crate::authn::secrets::Secrets;
use crate::interleave;
use crate::limits::{FREED_LATER_BYTES, Limits, PINNED_VIEWS_MAX, REVISION_WAIT_MAX};

/// One revision: the snapshot that decides, and what belongs to it.
#[derive(Debug)]
pub struct Current {
    /// The snapshot that decides.
    pub snapshot: Snapshot,
    /// The identities that secrets prove.
    pub(crate) secrets: Secrets,
    objects: Mutex<Objects>,
}

/// Access to the objects of a revision.
#[derive(Debug, Default)]
struct Objects {
    /// `None` for a policy file, and for an earlier revision that is not pinned.
    view: Option<Arc<dyn View>>,
    /// Whether a paged list needs the view.
    pinned: bool,
    /// Whether it is an earlier revision.
    replaced: bool,
    /// Whether a page of a list of it was given that is not the last one.
    is_paged: bool,
    /// Since when there is a later revision.
    since: Option<Since>,
}

/// When a revision was replaced.
#[derive(Clone, Copy, Debug)]
struct Since {
    time: Instant,
    /// See [`EarlierRevisions::replaced_bytes`].
    bytes: usize,
}

impl Objects {
    fn let_go(&mut self) {
        if self.replaced && !self.pinned {
            self.view = None;
        }
    }
}

impl Current {
    /// A revision of a policy file.
    #[must_use]
    pub fn of_document(snapshot: Snapshot, credentials: Credentials) -> Self {
        let secrets = Secrets { declared: Arc::new(credentials), ..Secrets::default() };
        Self { snapshot, secrets, objects: Mutex::default() }
    }

    /// A revision of a store. The view is of the same revision as the snapshot.
    #[must_use]
    pub(crate) fn of_store(snapshot: Snapshot, view: Arc<dyn View>, secrets: Secrets) -> Self {
        debug_assert_eq!(snapshot.revision(), view.head().revision());
        let objects = Mutex::new(Objects { view: Some(view), ..Objects::default() });
        Self { snapshot, secrets, objects }
    }

    /// Shows a later view of the same revision: it may have more of what belongs to no revision, such as audit
    /// records of refusals.
    pub(super) fn refresh(&self, view: Arc<dyn View>) {
        debug_assert_eq!(self.snapshot.revision(), view.head().revision());
        self.objects().view = Some(view);
    }

    /// The objects of this revision. `None` for a policy file, and for an earlier revision that is not pinned:
    /// then the reader begins anew with the served one.
    #[must_use]
    pub fn view(&self) -> Option<Arc<dyn View>> {
        self.objects().view.clone()
    }

    /// Keeps a view of this revision, also if it was let go of meanwhile. Returns whether it was not pinned before.
    fn pin(&self, view: Arc<dyn View>) -> bool {
        let mut objects = self.objects();
        // One that is there may be a later one of the same revision.
        objects.view.get_or_insert(view);
        !std::mem::replace(&mut objects.pinned, true)
    }

    fn unpin(&self) {
        let mut objects = self.objects();
        objects.pinned = false;
        objects.let_go();
    }

    /// A list needs it. Returns since when it is replaced, if no list needed it before.
    fn keep(&self) -> Option<Since> {
        let mut objects = self.objects();
        let was_paged = std::mem::replace(&mut objects.is_paged, true);
        objects.since.filter(|_| !was_paged)
    }

    /// It will be replaced. Returns whether a list needs it.
    fn leaves(&self, since: Since) -> bool {
        let mut objects = self.objects();
        objects.since = Some(since);
        objects.is_paged
    }

    /// Makes it an earlier revision.
    fn replaced(&self) {
        let mut objects = self.objects();
        objects.replaced = true;
        objects.let_go();
    }

    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The minimum revision of an answer (contract, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Any revision that is served.
    Any,
    /// This revision or a later one.
    AtLeast(u64),
    /// Every write that was acknowledged before the request.
    Full,
}

/// How long earlier revisions are kept, and how many bytes of them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// The time since a revision was replaced.
    pub(crate) time: Duration,
    /// Bytes of all earlier revisions together.
    pub(crate) bytes_max: usize,
}

impl From<&Limits> for Retention {
    fn from(limits: &Limits) -> Self {
        Self { time: limits.kept_time, bytes_max: limits.kept_bytes_max }
    }
}

/// The served revision. One writer publishes, any number of readers read.
#[derive(Debug)]
pub struct Published {
    current: ArcSwapOption<Current>,
    revision: watch::Sender<u64>,
    retention: Retention,
    earlier: Mutex<EarlierRevisions>,
    /// Revisions whose view a list needs, in the order in which they were pinned. Some may be gone.
    pinned: Mutex<VecDeque<Weak<Current>>>,
}

/// Earlier revisions that lists need, oldest first.
#[derive(Debug, Default)]
struct EarlierRevisions {
    kept: VecDeque<(Since, Arc<Current>)>,
    /// Bytes of index that later revisions do not share, of all revisions that were replaced so far, kept or not. What a kept one holds may be all that
    /// was replaced since.
    replaced_bytes: usize,
    /// One that is needed no more, and takes long to free. At most one, so that frequent large changes hold no more memory.
    large: Option<Arc<Current>>,
}

impl EarlierRevisions {
    /// Keeps a revision in its place.
    fn keep(&mut self, since: Since, current: &Arc<Current>) {
        let at = self.find(current.snapshot.revision()).unwrap_or_else(|at| at);
        self.kept.insert(at, (since, Arc::clone(current)));
    }

    fn find(&self, revision: u64) -> Result<usize, usize> {
        self.kept.binary_search_by_key(&revision, |(_, one)| one.snapshot.revision())
    }

    /// Removes the revisions that are too old, and the oldest beyond the limit of bytes.
    fn expire(&mut self, retention: Retention) -> Vec<Arc<Current>> {
        let mut freed = Vec::new();
        while let Some((since, _)) = self.kept.front()
            && (self.replaced_bytes.wrapping_sub(since.bytes) > retention.bytes_max
                || since.time.elapsed() >= retention.time)
        {
            freed.extend(self.kept.pop_front().map(|(_, current)| current));
        }
        freed
    }
}

impl Published {
    /// Without a revision.
    pub(crate) fn new(retention: Retention) -> Self {
        Self {
            current: ArcSwapOption::empty(),
            revision: watch::Sender::new(0),
            retention,
            earlier: Mutex::default(),
            pinned: Mutex::default(),
        }
    }

    /// Waits for a revision behind this one.
    pub(crate) async fn later_than(&self, revision: u64) {
        let mut revisions = self.revision.subscribe();
        // The sender lives as long as this.
        let _ = revisions.wait_for(|served| *served > revision).await;
    }

    /// Serves a revision; its number must be higher than all before. `replaced_bytes` are the bytes
    /// of the replaced revision that the new one does not share. Returns the revisions that are no
    /// longer kept, for the writer to free.
    pub(crate) fn publish(&self, current: Current, replaced_bytes: usize) -> Vec<Arc<Current>> {
        let revision = current.snapshot.revision();
        debug_assert!(revision > *self.revision.borrow());
        // The replaced revision is kept before its successor is served: the next page of a list
        // must find it at any time. There is only one writer, so the lock need not span both steps.
        let mut freed = Vec::new();
        if let Some(current) = self.current.load_full() {
            let mut earlier = self.earlier();
            let since = Since { time: Instant::now(), bytes: earlier.replaced_bytes };
            earlier.replaced_bytes = earlier.replaced_bytes.wrapping_add(replaced_bytes);
            if current.leaves(since) {
                earlier.keep(since, &current);
            } else if replaced_bytes >= FREED_LATER_BYTES {
                freed.extend(earlier.large.replace(current));
            }
        }
        interleave::point();
        let replaced = self.current.swap(Some(Arc::new(current)));
        interleave::point();
        freed.append(&mut self.earlier().expire(self.retention));
        if let Some(replaced) = replaced {
            replaced.replaced();
            freed.push(replaced);
        }
        self.revision.send_replace(revision);
        freed
    }

    /// Keeps a revision for the next page of a list, whose first page was made of it. It may have been replaced meanwhile.
    pub(crate) fn keep(&self, current: &Arc<Current>) {
        let mut earlier = self.earlier();
        if let Some(since) = current.keep() {
            earlier.keep(since, current);
        }
    }

    /// [`Self::keep`] for a page that was made, unless it is the last one: then it has no token.
    pub(crate) fn keep_for(&self, current: &Arc<Current>, next_page_token: &str) {
        if !next_page_token.is_empty() {
            self.keep(current);
        }
    }

    /// Removes the revisions that are no longer kept, and returns them for the writer to free.
    pub(crate) fn expire(&self) -> Vec<Arc<Current>> {
        let mut earlier = self.earlier();
        let mut freed = earlier.expire(self.retention);
        freed.extend(earlier.large.take());
        freed
    }

    fn earlier(&self) -> MutexGuard<'_, EarlierRevisions> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The served revision; `None` before the first load.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Current>> {
        self.current.load_full()
    }

    /// The served revision, for one answer. Unlike [`Self::current`] it writes no reference count,
    /// which other cores would read.
    pub(crate) fn load(&self) -> Guard<Option<Arc<Current>>> {
        self.current.load()
    }

    /// The revision of a paged list, if it is served or still kept.
    pub(crate) fn kept(&self, revision: u64) -> Option<Arc<Current>> {
        // The order matters: a replaced revision is kept before its successor is served. So a look
        // at the served one first, then at the kept ones, finds it.
        let is_wanted = |current: &Arc<Current>| current.snapshot.revision() == revision;
        if let Some(current) = self.current().filter(is_wanted) {
            return Some(current);
        }
        interleave::point();
        let earlier = self.earlier();
        let at = earlier.find(revision).ok()?;
        earlier.kept.get(at).map(|(_, current)| Arc::clone(current))
    }

    /// Keeps a view for the next pages of a list, for as long as its revision is kept. Of more than [`PINNED_VIEWS_MAX`]
    /// revisions the one that was pinned first is let go of; its lists begin anew. The revision may have been replaced
    /// while the first page was made.
    pub(crate) fn pin(&self, current: &Arc<Current>, view: Arc<dyn View>) {
        if !current.pin(view) {
            return;
        }
        let mut pinned = self.pinned.lock().unwrap_or_else(PoisonError::into_inner);
        pinned.push_back(Arc::downgrade(current));
        if pinned.len() > PINNED_VIEWS_MAX
            && let Some(first) = pinned.pop_front().and_then(|first| first.upgrade())
        {
            first.unpin();
        }
    }

    /// A revision as recent as the request requires. Waits up to [`REVISION_WAIT_MAX`] for one that
    /// this server does not have yet: the first after a start, or one that another replica wrote.
    ///
    /// # Errors
    ///
    /// [`RequestError::RevisionNotAvailable`] or [`RequestError::NotReady`] if it did not arrive in
    /// time, [`RequestError::StoreEpoch`] if it belongs to another epoch.
    pub async fn read(&self, freshness: Freshness) -> Result<Arc<Current>, RequestError> {
        let wanted = match freshness {
            Freshness::AtLeast(revision) => revision,
            // The only writer of a policy file, or of a store in a file, is in this process and publishes before
            // it acknowledges, so the served revision is the latest.
            Freshness::Full | Freshness::Any => 0,
        };
        match self.current() {
            // Also one of an earlier epoch is refused: it may name what a restore has undone.
            Some(current) if is_reached(wanted, current.snapshot.revision()) => Ok(current),
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

/// Whether a revision is at or behind another one in the same epoch. Revision 0 is before all.
const fn is_reached(wanted: u64, held: u64) -> bool {
    wanted == 0 || wanted <= held && epoch(wanted) == epoch(held)
}

#[cfg(test)]
mod tests;
