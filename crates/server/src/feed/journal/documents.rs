//! The policy of a store as documents: export, import, and its catalog.
//!
//! ```text
//! export: view ─▶ objects, one by one ─▶ parts of a document ─▶ client
//! import: document ─▶ load ─▶ writer: compare, one transaction ─▶ who gains or loses what ─▶ answer
//! ```
//!
//! **Invariant**: a document is loaded, and access is compared, away from the writer. The writer compares a document
//! with the state and commits; other writes wait meanwhile.
//!
//! Read `authentication`, `export`, `access`, then `whole`.

mod access;
pub(super) mod authentication;
mod export;

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use capstan_policy::{DOCUMENT_BYTES_MAX, Diagnostics, load_policy};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use self::export::Ended;
use super::catalog::{self, StoredCatalog};
use super::whole::{Replaced, Whole};
use super::writer::Writes;
use super::{Clock, whole};
use crate::RequestError;
use crate::error::StoreFailure;
use crate::feed::management::{CatalogSource, Difference, Documents, Export, Import, SetCatalog};
use crate::feed::published::Published;
use crate::feed::reload::run_on_thread;
use crate::feed::source;
use crate::limits::{
    EXPORT_CHUNK_BYTES, EXPORT_PARTS_MAX, EXPORT_STALL_MAX, EXPORTS_MAX, IMPORTS_MAX, PROBLEMS_MAX,
};

/// The policy of a store as documents.
pub(crate) struct StoreDocuments {
    writes: Writes,
    published: Arc<Published>,
    clock: Clock,
    /// The values of `--catalog`.
    catalogs: Vec<String>,
    exports: Arc<Semaphore>,
    imports: Semaphore,
}

impl StoreDocuments {
    pub(crate) fn new(
        writes: Writes,
        published: Arc<Published>,
        clock: Clock,
        catalogs: Vec<String>,
    ) -> Self {
        let exports = Arc::new(Semaphore::new(EXPORTS_MAX));
        Self { writes, published, clock, catalogs, exports, imports: Semaphore::new(IMPORTS_MAX) }
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

    async fn try_import(&self, import: Import) -> Result<Difference, RequestError> {
        let _one = self.imports.acquire().await.map_err(|_| RequestError::Draining)?;
        let current = self.published.current().ok_or(RequestError::NotReady)?;
        let view = current.view().ok_or(RequestError::Store(StoreFailure::Busy))?;
        let Import { origin, parent, document, dry_run, prune } = import;
        let load = move || {
            let catalogs = catalog::known(&*view).map_err(|error| broken(&error))?;
            load_policy(&document, &catalogs)
                .map_err(|found| RequestError::field("chunk", problems(&found)))
        };
        let policy = run_on_thread("import", load).await.map_err(|error| broken(&error))??;
        let import = whole::Import { origin, parent, policy, dry_run, prune };
        self.replace(Whole::Import(import)).await
    }

    async fn try_set_catalog(&self, change: SetCatalog) -> Result<Difference, RequestError> {
        let _one = self.imports.acquire().await.map_err(|_| RequestError::Draining)?;
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
        let Ok(permit) = Arc::clone(&self.exports).try_acquire_owned() else {
            return failed(RequestError::Store(StoreFailure::Busy));
        };
        let (to, from) = mpsc::channel(EXPORT_PARTS_MAX);
        let runtime = Handle::current();
        let write = move || {
            let _permit = permit;
            let parts = Parts { part: vec![], to: to.clone(), runtime: runtime.clone() };
            let written = export::write(&export, parts);
            let ended = written.and_then(|mut parts| Ok(parts.send_rest()?));
            let last = match ended {
                Ok(()) => None,
                Err(Ended::Failed(error)) => Some(Err(error)),
                Err(Ended::Gone) => return,
            };
            // Nobody waits for it if this fails.
            let _ = send(&runtime, &to, last);
        };
        // A thread of its own: it waits for a slow client.
        let started = std::thread::Builder::new().name("export".into()).spawn(write);
        if let Err(error) = started {
            return failed(broken(&error.into()));
        }
        stream::unfold(Some(from), next_part).boxed()
    }

    fn import(&self, import: Import) -> BoxFuture<'_, Result<Difference, RequestError>> {
        Box::pin(self.try_import(import))
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

fn failed(error: RequestError) -> BoxStream<'static, Result<Bytes, RequestError>> {
    stream::iter([Err(error)]).boxed()
}

/// A part of a document, an error that ends it, or its end.
type Part = Option<Result<Bytes, RequestError>>;

/// The next part for a client. A document that stops without its end is an error: whoever has a part of it must not take
/// it for the whole.
async fn next_part(
    from: Option<mpsc::Receiver<Part>>,
) -> Option<(Result<Bytes, RequestError>, Option<mpsc::Receiver<Part>>)> {
    let mut from = from?;
    match from.recv().await {
        Some(Some(Ok(part))) => Some((Ok(part), Some(from))),
        Some(Some(Err(error))) => Some((Err(error), None)),
        Some(None) => None,
        None => Some((Err(RequestError::Store(StoreFailure::Busy)), None)),
    }
}

/// Sends a part to the client of an export, and waits for it no longer than [`EXPORT_STALL_MAX`].
fn send(runtime: &Handle, to: &mpsc::Sender<Part>, part: Part) -> io::Result<()> {
    let sent = runtime.block_on(async {
        tokio::time::timeout(EXPORT_STALL_MAX, to.send(part)).await.is_ok_and(|sent| sent.is_ok())
    });
    if sent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

/// A document on its way to a client, in parts of [`EXPORT_CHUNK_BYTES`].
struct Parts {
    part: Vec<u8>,
    to: mpsc::Sender<Part>,
    runtime: Handle,
}

impl Parts {
    fn send_rest(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let part = std::mem::take(&mut self.part);
        send(&self.runtime, &self.to, Some(Ok(part.into())))
    }
}

impl io::Write for Parts {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = EXPORT_CHUNK_BYTES.saturating_sub(self.part.len());
        let (fits, _) = bytes.split_at(room.min(bytes.len()));
        self.part.extend_from_slice(fits);
        if self.part.len() >= EXPORT_CHUNK_BYTES {
            self.send_rest()?;
        }
        Ok(fits.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
