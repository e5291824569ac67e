//! Loading the policy, at first and again: whole or not at all.
//!
//! A changed file or SIGHUP wakes the loader. It builds and proves the new snapshot on a thread of
//! its own, so that no answer waits, and frees old ones there. A policy that does not load changes
//! nothing: the old one goes on being served, and the log says why.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use capstan_engine::Snapshot;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::limits::{SETTLE, SETTLE_MAX};
use crate::metrics::{LoadOutcome, Metrics};
use crate::published::Published;
use crate::server::Config;
use crate::source::{Built, Source};

/// Why the policy should be loaded again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Somebody asked for it.
    Asked,
    /// Something happened in the folder of the policy's file.
    Changed,
}

/// Asks a running server to load its policy again. Requests that come before the last one was taken
/// up are one.
pub type Reload = mpsc::Sender<Wake>;

/// A channel for asking: room for one request, since more would ask for the same.
#[must_use]
pub fn channel() -> (Reload, mpsc::Receiver<Wake>) {
    mpsc::channel(1)
}

/// Loads one server's policy.
pub(crate) struct Loader {
    config: Config,
    published: Arc<Published>,
    metrics: Arc<Metrics>,
    revision: u64,
    /// What the file looked like when it was last read.
    read: Option<Looks>,
    /// What was warned of, wherever it stood: a reload is no reason to say it again.
    warned: HashSet<(String, String)>,
}

/// What tells one state of a file from another without reading it.
type Looks = (u64, u64, Option<std::time::SystemTime>);

impl Loader {
    pub(crate) fn new(config: Config, published: Arc<Published>, metrics: Arc<Metrics>) -> Self {
        Self { config, published, metrics, revision: 0, read: None, warned: HashSet::new() }
    }

    /// Loads the policy, proves it and publishes it; on an error nothing is changed.
    pub(crate) async fn load(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let loaded = self.apply(started).await;
        let outcome = if loaded.is_ok() { LoadOutcome::Applied } else { LoadOutcome::Rejected };
        let (now, served) = (self.config.clock.now(), loaded.as_ref().ok().map(Arc::as_ref));
        self.metrics.loaded(outcome, now, started.elapsed(), served);
        loaded.map(drop)
    }

    async fn apply(&mut self, started: Instant) -> anyhow::Result<Arc<Snapshot>> {
        let (config, published) = (self.config.clone(), Arc::clone(&self.published));
        // Before the file is read: a change while it is being read must not be missed.
        self.read = looks(&config.source);
        let revision = self.revision + 1;
        let (done, loaded) = tokio::sync::oneshot::channel();
        std::thread::Builder::new().name("load".into()).spawn(move || {
            let Config { source, catalogs, clock, .. } = config;
            let built = source.build(&catalogs, revision, clock.now());
            let _ = done.send(built.map(|Built { snapshot, compared, warnings }| {
                let dropped = published.publish(Arc::clone(&snapshot));
                drop(dropped);
                (snapshot, compared, warnings)
            }));
        })?;
        let loaded = loaded.await.context("loading the policy failed; the log says why")?;
        let (snapshot, compared, warnings) = loaded?;
        self.revision = revision;
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
        Ok(snapshot)
    }

    /// Loads the policy again whenever somebody asks, or its file has changed.
    pub(crate) async fn run(mut self, mut wakes: mpsc::Receiver<Wake>, reload: Reload) {
        // Kept alive as long as this runs.
        let _watcher = match &self.config.source {
            Source::File { path, .. } => watch(path, reload.clone())
                .inspect_err(|error| {
                    tracing::warn!("cannot watch {}: {error}; SIGHUP still works", path.display());
                })
                .ok(),
            Source::Demo => None,
        };
        // What changed between the first load and the watch would be seen by neither.
        let _ = reload.try_send(Wake::Changed);
        // `reload` lives as long as this loop, so there is always another wake to wait for.
        while let Some(wake) = wakes.recv().await {
            if wake == Wake::Changed {
                if looks(&self.config.source) == self.read {
                    continue;
                }
                self.settle().await;
            }
            if let Err(error) = self.load().await {
                tracing::error!("the policy is not reloaded, the old one is served on: {error:#}");
            }
        }
        drop(reload);
    }

    /// Waits until the file rests: whoever writes it may not be done.
    async fn settle(&self) {
        let started = Instant::now();
        let mut before = looks(&self.config.source);
        while started.elapsed() < SETTLE_MAX {
            tokio::time::sleep(SETTLE).await;
            let after = looks(&self.config.source);
            if after == before && after.is_some() {
                return;
            }
            before = after;
        }
    }
}

/// Watches the folder: files are often replaced, and a replaced file is another one.
fn watch(file: &Path, reload: Reload) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading a file is an event too.
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // If there is no room, somebody has asked already.
            let _ = reload.try_send(Wake::Changed);
        }
    })?;
    let folder = match file.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    };
    watcher.watch(&folder, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

fn looks(source: &Source) -> Option<Looks> {
    use std::os::unix::fs::MetadataExt as _;
    let Source::File { path, .. } = source else {
        return None;
    };
    let found = std::fs::metadata(path).ok()?;
    Some((found.ino(), found.len(), found.modified().ok()))
}
