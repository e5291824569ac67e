//! The feed of a store: loads its objects, serves them, and writes.
//!
//! ```text
//! store ─▶ load: catalog, objects ─▶ self-check ─▶ published: serve ─▶ calls
//!                                                     ▲
//! management calls ─▶ queue ─▶ writer ─▶ store ───────┘
//! ```
//!
//! **Invariants**: a change is durable before it is visible, and visible before it is acknowledged. Each revision
//! that is served is one that the store has.
//!
//! Read `overlay`, `catalog`, `seed`, `load`, `beside`, `requests`, `auditor`, `queue`, `quotas`, `group`, `whole`, `writer`, then
//! `documents`.

mod auditor;
mod beside;
mod catalog;
pub(crate) mod documents;
mod group;
mod load;
mod overlay;
mod queue;
mod quotas;
mod requests;
mod seed;
mod whole;
pub(crate) mod writer;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use capstan_engine::self_check;
use capstan_iam::Meta;
use capstan_policy::{Catalogs, Credentials, Policy};
use capstan_store::{Batch, Head, Journal, MemoryStore, Op, OpenError, RedbStore, View};
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use self::group::Judge;
use self::writer::{Queue, Writer};
use super::published::Published;
use super::reload::{Document, run_on_thread};
use super::source::Source;
use super::watched::WatchedFile;
use crate::clock::Clock;
use crate::limits::{Limits, REFERENCES_AT_ONCE, SELF_CHECK_IDENTITIES};
use crate::telemetry::metrics::{LoadOutcome, Metrics};

pub use catalog::StoredCatalog;
pub use seed::{first_batch, objects_of, organization, restored};

/// The store of a server.
#[derive(Clone, Debug)]
pub enum Store {
    /// The demo, in memory.
    Demo,
    /// A store that is open, and what was loaded while it was opened.
    Opened(Arc<dyn Journal>, Preloaded),
}

/// What [`open`] has loaded, if that succeeded. The feed takes it once.
#[derive(Clone, Debug, Default)]
pub struct Preloaded(Arc<Mutex<Option<Timed>>>);

/// What was loaded, and how long it took.
#[derive(Debug)]
struct Timed {
    loaded: load::Loaded,
    took: Duration,
}

impl Preloaded {
    /// What was loaded of this revision.
    fn take(&self, revision: u64) -> Option<Timed> {
        let found = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        found.filter(|found| found.loaded.snapshot.revision() == revision)
    }
}

/// Opens the store of a directory, and loads its objects while its file is verified. If they cannot be loaded, the feed tries
/// it again, and says why.
///
/// # Errors
///
/// See [`OpenError`]: then nothing was loaded.
pub fn open(
    dir: &Path,
    limits: capstan_store::Limits,
) -> Result<(RedbStore, Preloaded), OpenError> {
    let (store, loaded) = RedbStore::open_and_read(dir, limits, |view| {
        let started = Instant::now();
        let loaded = load::load(view).ok()?;
        Some(Timed { loaded, took: started.elapsed() })
    })?;
    Ok((store, Preloaded(Arc::new(Mutex::new(loaded)))))
}

/// What the feed of a store needs beside the store.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) clock: Clock,
    pub(crate) limits: Limits,
    /// Issuers that neither a provider nor an identity's keys can have: the server's own.
    pub(crate) reserved_issuers: Vec<String>,
    /// Issuers that an identity's keys cannot have: they are trusted for others.
    pub(crate) trusted_issuers: Vec<String>,
    pub(crate) give_back: fn(),
}

/// The feed of a store.
pub(crate) struct StoreFeed {
    config: Config,
    published: Arc<Published>,
    metrics: Arc<Metrics>,
    /// Whether changes can be made.
    writable: watch::Sender<bool>,
    /// Until the first load.
    begin: Option<(Store, Queue)>,
}

impl StoreFeed {
    pub(crate) fn new(
        config: Config,
        (published, metrics): (Arc<Published>, Arc<Metrics>),
        writable: watch::Sender<bool>,
        store: Store,
        queue: Queue,
    ) -> Self {
        Self { config, published, metrics, writable, begin: Some((store, queue)) }
    }

    /// Opens and loads the store, serves it, and starts the writer.
    async fn begin(&mut self) -> anyhow::Result<()> {
        let Some((store, queue)) = self.begin.take() else { return Ok(()) };
        let started = Instant::now();
        let now = self.config.clock.now();
        let (journal, credentials, preloaded) = match store {
            Store::Opened(journal, loaded) => (journal, Credentials::default(), loaded),
            Store::Demo => {
                let (journal, credentials) = demo(self.config.clock).await?;
                (journal, credentials, Preloaded::default())
            }
        };
        let view = journal.view().await.context("the store cannot be read")?;
        let preloaded = preloaded.take(view.head().revision());
        let took_before = preloaded.as_ref().map_or(Duration::ZERO, |it| it.took);
        let of_view = Arc::clone(&view);
        let give_back = self.config.give_back;
        let loaded = run_on_thread("load", move || {
            // On a thread of its own: what it freed can be given back once it has ended.
            let loaded = std::thread::scope(|scope| {
                let load = || {
                    let loaded = match preloaded {
                        Some(Timed { loaded, .. }) => loaded,
                        None => load::load(&of_view)?,
                    };
                    let checked = self_check(&loaded.snapshot, SELF_CHECK_IDENTITIES, now);
                    let compared =
                        checked.context("the index fails its self-check, so it will not serve")?;
                    anyhow::Ok((loaded, compared))
                };
                scope.spawn(load).join().map_err(|_| anyhow!("loading failed; the log says why"))
            });
            give_back();
            loaded?
        });
        let outcome = loaded.await?;
        let result = if outcome.is_ok() { LoadOutcome::Applied } else { LoadOutcome::Rejected };
        let snapshot = outcome.as_ref().ok().map(|(loaded, _)| loaded.snapshot.clone());
        let took = took_before.saturating_add(started.elapsed());
        self.metrics.loaded(result, now, took, snapshot.as_ref());
        let (load::Loaded { snapshot, quotas, tokens, references }, compared) = outcome?;
        let view = refer(&*journal, view, references).await?;
        tracing::info!(
            revision = snapshot.revision(),
            catalog = snapshot.catalog().name(),
            identities = snapshot.identities_len(),
            role_bindings = snapshot.bindings_len(),
            answers_compared = compared,
            milliseconds = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "store loaded and checked"
        );
        let (clock, limits) = (self.config.clock, self.config.limits);
        let Config { reserved_issuers, trusted_issuers, .. } = self.config.clone();
        let refusals = Default::default();
        let judge = Judge { quotas, refusals, limits, reserved_issuers, trusted_issuers };
        let serving = (Arc::clone(&self.published), Arc::clone(&self.metrics));
        let writable = self.writable.clone();
        let store = (journal, credentials);
        let writer = Writer::new(store, serving, writable, clock, judge, (snapshot, tokens, view));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        // A thread of its own: to judge a change may take longer than calls should wait.
        std::thread::Builder::new()
            .name("writer".into())
            .spawn(move || runtime.block_on(writer.run(queue)))?;
        Ok(())
    }
}

/// Writes references that a store of an earlier version lacks. They are no change: no revision has them.
async fn refer(
    journal: &dyn Journal,
    view: Arc<dyn View>,
    mut missing: Vec<Op>,
) -> anyhow::Result<Arc<dyn View>> {
    if missing.is_empty() {
        return Ok(view);
    }
    tracing::info!(
        operations = missing.len(),
        "the store is of an earlier version: writing references"
    );
    while !missing.is_empty() {
        let rest = missing.split_off(missing.len().min(REFERENCES_AT_ONCE));
        let side = std::mem::replace(&mut missing, rest);
        journal.append(view.head(), Batch { transactions: vec![], side }).await?;
        // It may have blocked the thread. A signal to stop waits for one of them.
        tokio::task::yield_now().await;
    }
    Ok(journal.view().await?)
}

/// A store in memory with the demo's policy.
async fn demo(clock: Clock) -> anyhow::Result<(Arc<dyn Journal>, Credentials)> {
    let Policy { model, credentials, .. } = Source::Demo.load(&Catalogs::default())?;
    let name = model.catalog().name();
    let catalog = StoredCatalog::built_in(name).context("the demo's catalog is built in")?;
    let (empty, now) = (Head::empty(0), clock.now());
    let objects = seed::objects_of(model.facts(), Meta::new(empty.revision() + 1, now));
    let batch = first_batch(&empty, &catalog, objects, ("demo", now));
    let journal = MemoryStore::new(empty.epoch, capstan_store::Limits::default());
    journal.append(empty, batch).await?;
    Ok((Arc::new(journal), credentials))
}

impl Document for StoreFeed {
    fn not_reloaded(&self) -> &'static str {
        "the store is not loaded"
    }

    /// Nobody else changes the store.
    fn files(&self) -> &[WatchedFile] {
        &[]
    }

    fn load(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.begin())
    }

    fn on_tick(&mut self) {
        super::free_expired(&self.published, self.config.give_back);
    }
}

#[cfg(test)]
mod tests;
