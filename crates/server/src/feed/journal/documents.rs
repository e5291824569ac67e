//! The policy of a store as documents: export, import, and its catalog.
//!
//! ```text
//! export: view ─▶ objects, one by one ─▶ parts of a document ─▶ client
//! import: document ─▶ load ─▶ writer: compare, one transaction ─▶ who gains or loses what ─▶ answer
//! ```
//!
//! **Invariants**: a document is loaded, and access is compared, away from the writer. The writer compares a document
//! with the state and commits; with another catalog it loads the whole state anew, as only its own state is the last one.
//! Other writes wait meanwhile. One import at a time holds its document.
//!
//! Read `authentication`, `export`, `access`, then `whole`.

mod access;
pub(super) mod authentication;
mod export;

use std::fmt;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use capstan_engine::PathBuf;
use capstan_policy::{DOCUMENT_BYTES_MAX, Diagnostics, load_policy};
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

use self::export::Ended;
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
use crate::limits::{
    CALLER_EXPORTS_MAX, EXPORT_CHUNK_BYTES, EXPORT_PARTS_MAX, EXPORT_STALL_MAX, EXPORT_TIME_MAX,
    EXPORTS_MAX, IMPORTS_MAX, PROBLEMS_MAX,
};
use crate::places::{Place, Places};

/// The policy of a store as documents.
pub(crate) struct StoreDocuments {
    writes: Writes,
    published: Arc<Published>,
    clock: Clock,
    /// The values of `--catalog`.
    catalogs: Vec<String>,
    exports: Places,
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
        let imports = Arc::new(Semaphore::new(IMPORTS_MAX));
        Self { writes, published, clock, catalogs, exports, imports }
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
            return failed(RequestError::Store(StoreFailure::Busy));
        };
        let (to, from) = mpsc::channel(EXPORT_PARTS_MAX);
        let runtime = Handle::current();
        let write = move || {
            let _place = place;
            let out = Out { to, runtime, until: Instant::now() + EXPORT_TIME_MAX };
            let parts = Parts { part: vec![], out: &out };
            let written = export::write(&export, parts);
            let ended = written.and_then(|mut parts| Ok(parts.send_rest()?));
            let last = match ended {
                Ok(()) => None,
                Err(Ended::Failed(error)) => Some(Err(error)),
                Err(Ended::Gone) => return,
            };
            // Nobody waits for it if this fails.
            let _ = out.send(last);
        };
        // A thread of its own: it waits for a slow client.
        let started = std::thread::Builder::new().name("export".into()).spawn(write);
        if let Err(error) = started {
            return failed(broken(&error.into()));
        }
        stream::unfold(Some(from), next_part).boxed()
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

/// The way to the client of an export.
struct Out {
    to: mpsc::Sender<Part>,
    runtime: Handle,
    /// When the export ends in any case.
    until: Instant,
}

impl Out {
    /// Sends a part, and waits for it no longer than [`EXPORT_STALL_MAX`].
    fn send(&self, part: Part) -> io::Result<()> {
        let sent = self.runtime.block_on(async {
            let until = self.until.min(Instant::now() + EXPORT_STALL_MAX);
            Instant::now() < until
                && tokio::time::timeout_at(until, self.to.send(part))
                    .await
                    .is_ok_and(|sent| sent.is_ok())
        });
        if sent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    }
}

/// A document on its way to a client, in parts of [`EXPORT_CHUNK_BYTES`].
struct Parts<'o> {
    part: Vec<u8>,
    out: &'o Out,
}

impl Parts<'_> {
    fn send_rest(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let part = std::mem::take(&mut self.part);
        self.out.send(Some(Ok(part.into())))
    }
}

impl io::Write for Parts<'_> {
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
