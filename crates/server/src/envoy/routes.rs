//! The route table: the route that a request matches, and what it requires.
//!
//! ```text
//! method, host, path?query ─▶ CanonicalRequest, or malformed ─▶ Table: one route ─▶ requirements
//! ```
//!
//! **Invariants**: a request that is not canonical matches no route, and no request matches two.
//! For a given table, the work for a request is linear in its length.

mod canonical;
mod table;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use capstan_engine::Catalog;
use capstan_policy::{DOCUMENT_BYTES_MAX, load_routes};
use futures_util::future::BoxFuture;

use crate::feed::Published;
use crate::feed::reload::{Document, run_on_thread};
use crate::feed::source::{Reading, in_file};
use crate::feed::watched::WatchedFile;
use crate::telemetry::metrics::{LoadOutcome, Metrics};

pub use canonical::{CanonicalRequest, MalformedRequestError};
pub use table::{Required, RouteError, Table};

/// Loads a route table.
///
/// # Errors
///
/// The file cannot be read, or every problem of the document.
pub fn load(path: &Path) -> anyhow::Result<Table> {
    load_by(Reading::First, path)
}

fn load_by(reading: Reading, path: &Path) -> anyhow::Result<Table> {
    let document = reading.document(path, DOCUMENT_BYTES_MAX)?;
    let routes = load_routes(&document).map_err(|found| in_file(path, &found))?;
    Ok(Table::new(routes))
}

/// Refuses a table with a capability that the policy's catalog lacks.
///
/// # Errors
///
/// Each such route, with its place in the file.
pub(crate) fn ensure_known(
    path: &Path,
    table: &Table,
    catalog: &Arc<Catalog>,
) -> anyhow::Result<()> {
    let checked = table.routes.check_capabilities(&[Arc::clone(catalog)]);
    checked.map_err(|found| in_file(path, &found))
}

/// The file of the served route table. Without a file, the table is empty.
pub(crate) struct RoutesFile {
    file: WatchedFile,
    is_loaded: bool,
    table: Arc<ArcSwap<Table>>,
    published: Arc<Published>,
    metrics: Arc<Metrics>,
    /// The route and the capability of each logged warning, so that a reload does not repeat it.
    warned: HashSet<(String, String)>,
}

impl RoutesFile {
    pub(crate) fn new(
        path: Option<PathBuf>,
        table: Arc<ArcSwap<Table>>,
        published: Arc<Published>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (file, warned) = (WatchedFile::new(path), HashSet::new());
        Self { file, is_loaded: false, table, published, metrics, warned }
    }

    async fn load(&mut self) -> anyhow::Result<()> {
        self.file.record_state();
        let Some(path) = self.file.path().map(Path::to_owned) else { return Ok(()) };
        let reading = if self.is_loaded { Reading::Again } else { Reading::First };
        let loaded = run_on_thread("routes", move || load_by(reading, &path)).await.flatten();
        let outcome = if loaded.is_ok() { LoadOutcome::Applied } else { LoadOutcome::Rejected };
        self.metrics.routes_loaded(outcome);
        let loaded = loaded.inspect_err(|error| self.file.failed(error))?;
        tracing::info!(routes = loaded.routes.routes.len(), "routes loaded and proved");
        self.table.store(Arc::new(loaded));
        self.is_loaded = true;
        Ok(())
    }
}

impl Document for RoutesFile {
    fn not_reloaded(&self) -> &'static str {
        "the routes are not reloaded, the old ones serve on"
    }

    fn files(&self) -> &[WatchedFile] {
        std::slice::from_ref(&self.file)
    }

    fn load(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.load())
    }

    /// A capability that the policy's catalog lacks is an error at the start.
    fn on_start(&mut self) -> anyhow::Result<()> {
        let (Some(path), Some(current)) = (self.file.path(), self.published.current()) else {
            return Ok(());
        };
        ensure_known(path, &self.table.load(), current.snapshot.catalog())
    }

    /// Warns about routes that require a capability which the policy's catalog lacks. Later it is no error, because
    /// the policy, its catalog and the routes change one after another. Such a route denies every request.
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
