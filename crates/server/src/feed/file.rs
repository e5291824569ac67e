//! Loading the policy, at first and again: whole or not at all.
//!
//! A changed file or SIGHUP wakes the loader. It builds and proves the new snapshot on a thread of
//! its own, so that no answer waits, and frees old ones there. A policy that does not load changes
//! nothing: the old one goes on being served, and the log says why. One that could not even be read is
//! tried again: it may revoke something.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use capstan_engine::Snapshot;
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::envoy::routes::{self, Table};
use crate::feed::published::Published;
use crate::feed::source::{Built, Source};
use crate::limits::{LOOK_AGAIN, SETTLE, SETTLE_IN_PLACE, SETTLE_MAX};
use crate::server::Config;
use crate::telemetry::metrics::{LoadOutcome, Metrics};

/// Why the policy should be loaded again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// Somebody asked for it.
    Asked,
    /// Something happened in the folder of the policy's file, or it was time to look.
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

/// Loads one server's policy, and its route table.
pub(crate) struct Loader {
    config: Config,
    published: Arc<Published>,
    table: Arc<ArcSwap<Table>>,
    metrics: Arc<Metrics>,
    revision: u64,
    policy: Watched,
    routes: Watched,
    /// What was warned of, wherever it stood: a reload is no reason to say it again.
    warned: HashSet<(String, String)>,
}

/// A file, if there is one, and what it looked like when it was last read.
#[derive(Debug, Default)]
struct Watched {
    path: Option<PathBuf>,
    read: Option<Looks>,
}

/// What tells one state of a file from another without reading it.
type Looks = (u64, u64, Option<std::time::SystemTime>);

impl Loader {
    pub(crate) fn new(
        config: Config,
        published: Arc<Published>,
        table: Arc<ArcSwap<Table>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let policy = match &config.source {
            Source::File { path, .. } => Watched { path: Some(path.clone()), read: None },
            Source::Demo => Watched::default(),
        };
        let routes = Watched { path: config.routes.clone(), read: None };
        let (revision, warned) = (0, HashSet::new());
        Self { config, published, table, metrics, revision, policy, routes, warned }
    }

    /// Loads everything for the first time: the routes first, so that none serves without them.
    pub(crate) async fn load_all(&mut self) -> anyhow::Result<()> {
        self.load_routes().await?;
        self.load().await
    }

    /// Loads the route table, proves it and lets it serve; on an error nothing is changed.
    async fn load_routes(&mut self) -> anyhow::Result<()> {
        self.routes.read = self.routes.looks();
        let Some(path) = self.routes.path.clone() else { return Ok(()) };
        let loaded = on_a_thread("routes", move || routes::load(&path)).await.flatten();
        let outcome = if loaded.is_ok() { LoadOutcome::Applied } else { LoadOutcome::Rejected };
        self.metrics.routes_loaded(outcome);
        let loaded = loaded.inspect_err(|error| self.routes.failed(error))?;
        tracing::info!(routes = loaded.routes.routes.len(), "routes loaded and proved");
        self.table.store(Arc::new(loaded));
        self.warn_of_capabilities();
        Ok(())
    }

    /// A route that requires what the catalog lacks lets nothing pass: surely a mistake.
    fn warn_of_capabilities(&mut self) {
        let Some(snapshot) = self.published.current() else { return };
        for route in &self.table.load().routes.routes {
            for capability in route.requires.iter().map(|required| &required.capability) {
                if snapshot.catalog().capability(capability).is_none()
                    && self.warned.insert((route.name.clone(), capability.clone()))
                {
                    tracing::warn!(
                        route = route.name,
                        capability,
                        "the policy's catalog has no such capability: this route lets nothing pass"
                    );
                }
            }
        }
    }

    /// Loads the policy, proves it and publishes it; on an error nothing is changed.
    pub(crate) async fn load(&mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        let loaded = self.apply(started).await;
        let outcome = if loaded.is_ok() { LoadOutcome::Applied } else { LoadOutcome::Rejected };
        let (now, served) = (self.config.clock.now(), loaded.as_ref().ok().map(Arc::as_ref));
        self.metrics.loaded(outcome, now, started.elapsed(), served);
        loaded.map(drop).inspect_err(|error| self.policy.failed(error))
    }

    async fn apply(&mut self, started: Instant) -> anyhow::Result<Arc<Snapshot>> {
        let (config, published) = (self.config.clone(), Arc::clone(&self.published));
        // Before the file is read: a change while it is being read must not be missed.
        self.policy.read = self.policy.looks();
        let revision = self.revision + 1;
        let loaded = on_a_thread("load", move || {
            let Config { source, catalogs, clock, .. } = config;
            let built = source.build(&catalogs, revision, clock.now());
            built.map(|Built { snapshot, credentials, compared, warnings }| {
                let dropped = published.publish_with(Arc::clone(&snapshot), credentials);
                drop(dropped);
                (snapshot, compared, warnings)
            })
        });
        let (snapshot, compared, warnings) = loaded.await??;
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
        self.warn_of_capabilities();
        Ok(snapshot)
    }

    /// Loads again whenever somebody asks, or a file has changed.
    pub(crate) async fn run(mut self, mut wakes: mpsc::Receiver<Wake>, reload: Reload) {
        // Kept alive as long as this runs.
        let files = [&self.policy, &self.routes].into_iter().filter_map(|it| it.path.as_deref());
        let watch = |path: &Path| {
            watch(path, reload.clone())
                .inspect_err(|error| {
                    tracing::warn!("cannot watch {}: {error}; SIGHUP still works", path.display());
                })
                .ok()
        };
        let _watchers: Vec<_> = files.map(watch).collect();
        // What changed between the first load and the watch would be seen by neither.
        let _ = reload.try_send(Wake::Changed);
        let mut look_again = tokio::time::interval(LOOK_AGAIN);
        look_again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // `reload` lives as long as this loop, so there is always another wake to wait for.
        while let Some(wake) = tokio::select! {
            wake = wakes.recv() => wake,
            _ = look_again.tick() => Some(Wake::Changed),
        } {
            if self.routes.is_due(wake).await
                && let Err(error) = self.load_routes().await
            {
                tracing::error!("the routes are not reloaded, the old ones serve on: {error:#}");
            }
            if self.policy.is_due(wake).await
                && let Err(error) = self.load().await
            {
                tracing::error!("the policy is not reloaded, the old one is served on: {error:#}");
            }
        }
        drop(reload);
    }
}

/// Does something on a thread of its own, so that no answer waits for it.
async fn on_a_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let _ = done.send(work());
    })?;
    result.await.context("loading failed; the log says why")
}

impl Watched {
    fn looks(&self) -> Option<Looks> {
        use std::os::unix::fs::MetadataExt as _;
        let found = std::fs::metadata(self.path.as_ref()?).ok()?;
        Some((found.ino(), found.len(), found.modified().ok()))
    }

    /// What could not be read may be readable when it is next looked at; what was wrong stays so.
    fn failed(&mut self, error: &anyhow::Error) {
        if error.chain().any(|cause| cause.is::<io::Error>()) {
            self.read = None;
        }
    }

    /// Whether it should be read again; a file that has changed must rest first.
    async fn is_due(&self, wake: Wake) -> bool {
        wake == Wake::Asked || (self.looks() != self.read && self.rests().await)
    }

    /// Waits until the file rests: whoever writes it may not be done. One that is replaced again and
    /// again is whole each time; one that goes on being written in place is not.
    async fn rests(&self) -> bool {
        let inode = |looks: Option<Looks>| looks.map(|(inode, ..)| inode);
        let started = Instant::now();
        let mut before = self.looks();
        let mut replaced = inode(before) != inode(self.read);
        loop {
            tokio::time::sleep(if replaced { SETTLE } else { SETTLE_IN_PLACE }).await;
            let after = self.looks();
            if after == before && after.is_some() {
                return true;
            }
            replaced |= inode(after) != inode(before);
            if started.elapsed() >= SETTLE_MAX {
                if !replaced {
                    tracing::warn!(
                        "{} is still being written: rename a new file over it instead",
                        self.path.as_deref().unwrap_or(Path::new("")).display()
                    );
                }
                return replaced;
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
