//! The policy of a store as documents: export, import, and its catalog. And all of the store as a backup.
//!
//! ```text
//! export: view ─▶ objects, one by one ─▶ parts of a document ─▶ client
//! backup: view ─▶ entries, one by one ─▶ parts of a backup ─▶ client
//! import: document ─▶ load ─▶ writer: compare, one transaction ─▶ who gains or loses what ─▶ answer
//! ```
//!
//! **Invariants**: a document is loaded, and access is compared, away from the writer. The writer compares a document
//! with the state and commits; with another catalog it loads the whole state anew, as only its own state is the last one.
//! Other writes wait meanwhile. One import at a time holds its document.
//!
//! Read `authentication`, `export`, `parts`, `access`, then `whole`.

mod access;
pub(super) mod authentication;
mod export;
mod parts;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use capstan_engine::PathBuf;
use capstan_policy::{DOCUMENT_BYTES_MAX, Diagnostics, load_policy};
use capstan_store::{View, write_backup};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use sha2::{Digest as _, Sha256};
use tokio::sync::Semaphore;

use super::catalog::{self, StoredCatalog};
use super::whole::{Replaced, Whole};
use super::writer::Writes;
use super::{Clock, whole};
use crate::RequestError;
use crate::error::StoreFailure;
use crate::feed::management::{
    CatalogSource, Difference, Documents, Export, Import, SetCatalog, Turn, viewed,
};
use crate::feed::published::{Freshness, Published};
use crate::feed::reload::run_on_thread;
use crate::feed::source;
use crate::limits::{BACKUPS_MAX, CALLER_EXPORTS_MAX, EXPORTS_MAX, IMPORTS_MAX, PROBLEMS_MAX};
use crate::places::{Place, Places};

/// The policy of a store as documents.
pub(crate) struct StoreDocuments {
    writes: Writes,
    published: Arc<Published>,
    clock: Clock,
    /// The values of `--catalog`.
    catalogs: Vec<String>,
    exports: Places,
    backups: Places,
    imports: Arc<Semaphore>,
}

impl StoreDocuments {
    pub(crate) fn new(
        writes: Writes,
        published: Arc<Published>,
        clock: Clock,
        catalogs: Vec<String>,
    ) -> Self {
        let exports = Places::new(EXPORTS_MAX, CALLER_EXPORTS_MAX);
        let backups = Places::new(BACKUPS_MAX, BACKUPS_MAX);
        let imports = Arc::new(Semaphore::new(IMPORTS_MAX));
        Self { writes, published, clock, catalogs, exports, backups, imports }
    }

    /// A place for an export of a caller, if one is left.
    pub(super) fn place(&self, caller: Option<PathBuf>) -> Option<Place> {
        self.exports.take(caller)
    }

    /// Exports that can begin now.
    #[cfg(test)]
    pub(super) fn exports_free(&self) -> usize {
        self.exports.free()
    }

    /// Backups that can begin now.
    #[cfg(test)]
    pub(super) fn backups_free(&self) -> usize {
        self.backups.free()
    }

    /// Makes a change of the whole policy, and finds out who gains or loses what.
    async fn replace(&self, whole: Whole) -> Result<Difference, RequestError> {
        let replaced = self.writes.whole(whole).await?;
        let now = self.clock.now();
        let compare = move || {
            let (access, truncated) = access::compare(&replaced, now);
            let Replaced { states: (_, after), changes, revision, .. } = replaced;
            let catalog = after.catalog().name().to_owned();
            Difference { changes, access, truncated, catalog, revision }
        };
        run_on_thread("compare", compare).await.map_err(|error| broken(&error))
    }

    async fn take_turn(&self) -> Result<Turn, RequestError> {
        let turn = Arc::clone(&self.imports).acquire_owned().await;
        turn.map(Turn::new).map_err(|_| RequestError::Draining)
    }

    async fn try_import(&self, turn: Turn, import: Import) -> Result<Difference, RequestError> {
        let _turn = turn;
        let (_, view) = viewed(&self.published, Freshness::Any).await?;
        let Import { mut origin, parent, document, dry_run, prune } = import;
        let load = move || {
            let catalogs = catalog::known(&*view).map_err(|error| broken(&error))?;
            let policy = load_policy(&document, &catalogs)
                .map_err(|found| RequestError::field("chunk", problems(&found)))?;
            origin.request = Sha256::digest(&document).into();
            Ok::<_, RequestError>(whole::Import { origin, parent, policy, dry_run, prune })
        };
        let loaded = run_on_thread("import", load).await.map_err(|error| broken(&error))?;
        let import = loaded?;
        self.replace(Whole::Import(Box::new(import))).await
    }

    async fn try_set_catalog(&self, change: SetCatalog) -> Result<Difference, RequestError> {
        let _turn = self.take_turn().await?;
        let SetCatalog { origin, catalog, dry_run } = change;
        let names = self.catalogs.clone();
        let load = move || -> Result<_, RequestError> {
            match catalog {
                CatalogSource::Document(document) => {
                    let loaded = StoredCatalog::of_document(document);
                    let loaded = loaded.map_err(|error| {
                        RequestError::field("document", first_lines(&error.to_string()))
                    });
                    Ok(("document", loaded?))
                }
                CatalogSource::Name(name) => Ok(("name", named(&name, &names)?)),
            }
        };
        let loaded = run_on_thread("catalog", load).await;
        let (field, catalog) = loaded.map_err(|error| broken(&error))??;
        let change = whole::SetCatalog { origin, catalog, field, dry_run };
        self.replace(Whole::Catalog(change)).await
    }
}

impl Documents for StoreDocuments {
    fn export(&self, export: Export) -> BoxStream<'static, Result<Bytes, RequestError>> {
        let caller = export.actor.id().cloned();
        let Some(place) = self.place(caller) else {
            return parts::failed(RequestError::Store(StoreFailure::Busy));
        };
        parts::streamed("export", place, move |parts| export::write(&export, parts))
    }

    fn backup(&self, view: Arc<dyn View>) -> BoxStream<'static, Result<Bytes, RequestError>> {
        let Some(place) = self.backups.take(None) else {
            return parts::failed(RequestError::Store(StoreFailure::Busy));
        };
        parts::streamed("backup", place, move |mut parts| {
            write_backup(&*view, &mut parts)?;
            Ok(parts)
        })
    }

    fn turn(&self) -> BoxFuture<'_, Result<Turn, RequestError>> {
        Box::pin(self.take_turn())
    }

    fn import(
        &self,
        turn: Turn,
        import: Import,
    ) -> BoxFuture<'_, Result<Difference, RequestError>> {
        Box::pin(self.try_import(turn, import))
    }

    fn set_catalog(&self, change: SetCatalog) -> BoxFuture<'_, Result<Difference, RequestError>> {
        Box::pin(self.try_set_catalog(change))
    }
}

impl fmt::Debug for StoreDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreDocuments").field("writes", &self.writes).finish_non_exhaustive()
    }
}

/// The catalog of this name: a built-in one, or a file that the server was started with.
fn named(name: &str, files: &[String]) -> Result<StoredCatalog, RequestError> {
    if let Some(catalog) = StoredCatalog::built_in(name) {
        return Ok(catalog);
    }
    let mut known: Vec<String> =
        capstan_policy::Catalogs::default().names().map(Into::into).collect();
    for file in files.iter().filter(|file| !known.contains(file)).collect::<Vec<_>>() {
        let read = source::read(file.as_ref(), DOCUMENT_BYTES_MAX);
        let catalog = read.and_then(StoredCatalog::of_document).map_err(|error| {
            tracing::error!(%error, "a catalog that the server was started with cannot be loaded");
            RequestError::field(
                "name",
                "a catalog file of the server cannot be loaded; its log says why",
            )
        })?;
        if catalog.catalog().name() == name {
            return Ok(catalog);
        }
        known.push(catalog.catalog().name().into());
    }
    let problem = format!("no catalog has this name; the server knows {}", known.join(", "));
    Err(RequestError::field("name", problem))
}

/// The first problems of a document, and how many there are.
fn problems(found: &Diagnostics) -> String {
    let named: Vec<_> = found.iter().take(PROBLEMS_MAX).map(ToString::to_string).collect();
    let more = found.total().saturating_sub(named.len());
    let more = if more > 0 { format!("\nand {more} more") } else { String::new() };
    format!("the document does not load:\n{}{more}", named.join("\n"))
}

fn first_lines(text: &str) -> String {
    text.lines().take(PROBLEMS_MAX).collect::<Vec<_>>().join("\n")
}

/// A failure of this machine, which is for its operator only.
fn broken(error: &anyhow::Error) -> RequestError {
    tracing::error!("{error:#}");
    RequestError::Store(StoreFailure::Unreachable)
}
