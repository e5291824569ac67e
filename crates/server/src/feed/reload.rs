//! Loads documents again: on SIGHUP, when a file changes, and on a tick every
//! [`LOOK_AGAIN`].
//!
//! **Invariant**: a document is applied whole or not at all. If it fails to load, the earlier one
//! stays, and the log has the error.

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::watched::{WatchedFile, is_due};
use crate::limits::LOOK_AGAIN;

/// The reason to check the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The operator asked for a reload: every document is loaded.
    Asked,
    /// A file may have changed: documents whose file has changed are loaded.
    Changed,
}

/// Asks a running server to reload its documents. Requests that are not taken up yet merge into
/// one.
pub type Reload = mpsc::Sender<Wake>;

/// The channel for reload requests. Its capacity is one, since a second request would ask for the
/// same.
#[must_use]
pub fn channel() -> (Reload, mpsc::Receiver<Wake>) {
    mpsc::channel(1)
}

/// A document that a server loads at its start and reloads later.
pub(crate) trait Document: Send {
    /// The log message when a reload fails.
    fn not_reloaded(&self) -> &'static str;

    /// The files that make the document.
    fn files(&self) -> &[WatchedFile];

    /// Loads the document and serves it.
    ///
    /// # Errors
    ///
    /// The document cannot be read or is invalid; then nothing has changed.
    fn load(&mut self) -> BoxFuture<'_, anyhow::Result<()>>;

    /// Called once, when all documents have been loaded for the first time.
    ///
    /// # Errors
    ///
    /// The document contradicts another one.
    fn on_start(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Called after every wake, so at least every [`LOOK_AGAIN`].
    fn on_tick(&mut self) {}
}

/// The documents of one server, in the order in which they are loaded.
pub(crate) type Documents = Vec<Box<dyn Document>>;

/// Loads every document for the first time.
///
/// # Errors
///
/// The error of the first document that fails to load, or that contradicts another one.
pub(crate) async fn load_all(documents: &mut Documents) -> anyhow::Result<()> {
    for document in &mut *documents {
        document.load().await?;
    }
    documents.iter_mut().try_for_each(|document| document.on_start())?;
    documents.iter_mut().for_each(|document| document.on_tick());
    Ok(())
}

/// Reloads documents for as long as it is polled. Never returns.
pub(crate) async fn run(
    documents: &mut Documents,
    mut wakes: mpsc::Receiver<Wake>,
    reload: Reload,
) {
    // The watchers stop when they are dropped.
    let _watchers: Vec<_> =
        documents.iter().flat_map(|one| one.files()).map(|file| file.watch(&reload)).collect();
    // Between the first load and the start of the watchers, a change would be missed.
    let _ = reload.try_send(Wake::Changed);
    let mut look_again = tokio::time::interval(LOOK_AGAIN);
    look_again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // This function owns a sender, so `recv` never returns `None`.
    while let Some(wake) = tokio::select! {
        wake = wakes.recv() => wake,
        _ = look_again.tick() => Some(Wake::Changed),
    } {
        for document in &mut *documents {
            if is_due(document.files(), wake).await
                && let Err(error) = document.load().await
            {
                tracing::error!("{}: {error:#}", document.not_reloaded());
            }
        }
        documents.iter_mut().for_each(|document| document.on_tick());
    }
    drop(reload);
}

/// Runs blocking work on its own thread, so that no call waits for it.
///
/// # Errors
///
/// The thread cannot start, or the work panics.
pub(crate) async fn run_on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> anyhow::Result<T> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name(name.into()).spawn(move || {
        let _ = done.send(work());
    })?;
    result.await.context("loading failed; the log says why")
}
