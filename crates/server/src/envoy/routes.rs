//! Which route of a table a request takes, and what it requires.
//!
//! ```text
//! method, host, path?query ─▶ CanonicalRequest, canonical or refused ─▶ Table: the one route ─▶ requirements
//! ```
//!
//! **Invariant**: a request that is not canonical takes no route, and no request takes two. What is
//! done for a request is linear in its length, whatever it holds.

mod canonical;
mod table;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use capstan_policy::{DOCUMENT_BYTES_MAX, load_routes};
use futures_util::future::BoxFuture;

use crate::feed::Published;
use crate::feed::reload::{Document, run_on_thread};
use crate::feed::source::{in_file, read};
use crate::feed::watched::WatchedFile;
use crate::telemetry::metrics::{LoadOutcome, Metrics};

pub use canonical::{CanonicalRequest, MalformedRequestError};
pub use table::{Required, RouteError, Table};

/// Loads a route table.
///
/// # Errors
///
/// The file cannot be read, or everything that is wrong with the document.
pub fn load(path: &Path) -> anyhow::Result<Table> {
    let document = read(path, DOCUMENT_BYTES_MAX)?;
    let routes = load_routes(&document).map_err(|found| in_file(path, &found))?;
    Ok(Table::new(routes))
}

/// The route table that is served; without a file, the empty one.
pub(crate) struct RoutesFile {
    file: WatchedFile,
    table: Arc<ArcSwap<Table>>,
    published: Arc<Published>,
    metrics: Arc<Metrics>,
    /// Route and capability of each warning that was given: a reload does not repeat it.
    warned: HashSet<(String, String)>,
}

impl RoutesFile {
    pub(crate) fn new(
        path: Option<PathBuf>,
        table: Arc<ArcSwap<Table>>,
        published: Arc<Published>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { file: WatchedFile::new(path), table, published, metrics, warned: HashSet::new() }
    }

    async fn load(&mut self) -> anyhow::Result<()> {
        self.file.record_state();
        let Some(path) = self.file.path().map(Path::to_owned) else { return Ok(()) };
        let loaded = run_on_thread("routes", move || load(&path)).await.flatten();
        let outcome = if loaded.is_ok() { LoadOutcome::Applied } else { LoadOutcome::Rejected };
        self.metrics.routes_loaded(outcome);
        let loaded = loaded.inspect_err(|error| self.file.failed(error))?;
        tracing::info!(routes = loaded.routes.routes.len(), "routes loaded and proved");
        self.table.store(Arc::new(loaded));
        Ok(())
    }
}

impl Document for RoutesFile {
    fn not_reloaded(&self) -> &'static str {
        "the routes are not reloaded, the old ones serve on"
    }

    fn file(&self) -> &WatchedFile {
        &self.file
    }

    fn load(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.load())
    }

    /// Warns of routes that require a capability which the policy's catalog lacks: they let nothing pass,
    /// which is surely a mistake.
    fn on_tick(&mut self) {
        let Some(current) = self.published.current() else { return };
        for route in &self.table.load().routes.routes {
            for capability in route.requires.iter().map(|required| &required.capability) {
                if current.snapshot.catalog().capability(capability).is_none()
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
}

#[cfg(test)]
mod tests;
