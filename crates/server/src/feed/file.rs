//! The feed of a policy file: loads the document, runs the self-check, publishes the snapshot.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use futures_util::future::BoxFuture;

use super::catalog_files::CatalogFiles;
use super::published::{Current, Published};
use super::reload::{Document, run_on_thread};
use super::source::{Built, Reading, Source};
use super::watched::WatchedFile;
use crate::clock::Clock;
use crate::telemetry::metrics::{LoadOutcome, Metrics};

/// The source of a policy, its catalogs, and the clock for the self-check.
#[derive(Clone, Debug)]
pub struct Config {
    /// The source of the policy.
    pub source: Source,
    /// Catalogs that the policy can name: names of built-in ones, or files.
    pub catalogs: Vec<String>,
    /// The clock.
    pub clock: Clock,
    /// Gives memory that was freed back to the system.
    pub give_back: fn(),
}

/// The policy document of a server.
pub(crate) struct PolicyFile {
    config: Config,
    published: Arc<Published>,
    metrics: Arc<Metrics>,
    revision: u64,
    catalogs: CatalogFiles,
    /// The file of the policy, and those of the catalogs.
    files: Vec<WatchedFile>,
    /// Warnings that were logged, without their positions, so that a reload does not repeat them.
    warned: HashSet<(String, String)>,
}

impl PolicyFile {
    pub(crate) fn new(config: Config, published: Arc<Published>, metrics: Arc<Metrics>) -> Self {
        let path = match &config.source {
            Source::File { path, .. } => Some(path.clone()),
            Source::Demo => None,
        };
        let catalogs = CatalogFiles::new(config.catalogs.clone());
        let paths = catalogs.paths().map(|path| Some(path.to_owned()));
        let files = std::iter::once(path).chain(paths).map(WatchedFile::new).collect();
        let (revision, warned) = (0, HashSet::new());
        Self { config, published, metrics, revision, catalogs, files, warned }
    }

    async fn load(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let applied = self.apply(started).await;
        let outcome = if applied.is_ok() { LoadOutcome::Applied } else { LoadOutcome::Rejected };
        let served = self.published.current();
        let served = served.as_ref().map(|current| &current.snapshot);
        let now = self.config.clock.now();
        self.metrics.loaded(outcome, now, started.elapsed(), served.filter(|_| applied.is_ok()));
        applied.inspect_err(|error| self.files.iter_mut().for_each(|file| file.failed(error)))
    }

    async fn apply(&mut self, started: Instant) -> anyhow::Result<()> {
        let (config, published) = (self.config.clone(), Arc::clone(&self.published));
        self.files.iter_mut().for_each(WatchedFile::record_state);
        let mut catalog_files = self.catalogs.clone();
        let revision = self.revision + 1;
        let loaded = run_on_thread("load", move || {
            let Config { source, clock, give_back, .. } = config;
            // On a thread of its own: what it freed can be given back once it has ended.
            let replaced = published.current();
            let served = replaced.as_ref().map(|current| &current.snapshot);
            let built = std::thread::scope(|scope| {
                let build = || {
                    let first = served.is_none();
                    let reading = if first { Reading::First } else { Reading::Again };
                    let (catalogs, warnings) = catalog_files.load(reading)?;
                    let built = source.build(&catalogs, revision, served, clock.now())?;
                    anyhow::Ok((built, warnings))
                };
                scope.spawn(build).join().map_err(|_| anyhow!("loading failed; the log says why"))
            });
            let (Built { snapshot, credentials, compared, warnings }, of_catalogs) = built??;
            let loaded = (snapshot.clone(), compared, (warnings, of_catalogs), catalog_files);
            let bytes = served.map_or(0, |served| served.bytes_beside(&snapshot));
            drop(replaced);
            drop(published.publish(Current::of_document(snapshot, credentials), bytes));
            give_back();
            anyhow::Ok(loaded)
        });
        let (snapshot, compared, (warnings, of_catalogs), catalogs) = loaded.await??;
        self.revision = revision;
        self.catalogs = catalogs;
        for warning in of_catalogs {
            if self.warned.insert((warning.clone(), String::new())) {
                tracing::warn!("{warning}");
            }
        }
        for warning in warnings {
            let text = warning.to_string();
            if self.warned.insert((warning.found, warning.expected)) {
                tracing::warn!("{text}");
            }
        }
        tracing::info!(
            revision,
            catalog = snapshot.catalog().name(),
            identities = snapshot.identities_len(),
            role_bindings = snapshot.bindings_len(),
            answers_compared = compared,
            milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "policy loaded and checked"
        );
        Ok(())
    }
}

impl Document for PolicyFile {
    fn not_reloaded(&self) -> &'static str {
        "the policy is not reloaded, the old one is served on"
    }

    fn files(&self) -> &[WatchedFile] {
        &self.files
    }

    fn load(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.load())
    }

    fn on_tick(&mut self) {
        super::free_expired(&self.published, self.config.give_back);
    }
}
