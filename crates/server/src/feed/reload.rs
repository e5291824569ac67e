//! Documents that are loaded again: on SIGHUP, when their file changes, and at a look every
//! [`LOOK_AGAIN`](crate::limits::LOOK_AGAIN).
//!
//! **Invariant**: a document loads whole or not at all. One that does not load changes nothing, and the log
//! says why.

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use super::watched::WatchedFile;
use crate::limits::LOOK_AGAIN;

/// Why documents should be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wake {
    /// The operator asked for it: every document is loaded again.
    Asked,
    /// A file may have changed.
    Changed,
}

/// Asks a running server to load its documents again. A request that comes before the one before it was
/// taken up is the same request.
pub type Reload = mpsc::Sender<Wake>;

/// A channel for asking. It has room for one request, since more would ask for the same.
#[must_use]
pub fn channel() -> (Reload, mpsc::Receiver<Wake>) {
    mpsc::channel(1)
}

/// A document that a server loads, at first and again.
pub(crate) trait Document: Send {
    /// What the log says when it is not loaded again.
    fn not_reloaded(&self) -> &'static str;

    /// Its file.
    fn file(&self) -> &WatchedFile;

    /// Loads it and lets it serve. On an error nothing has changed.
    fn load(&mut self) -> BoxFuture<'_, anyhow::Result<()>>;

    /// Called every [`LOOK_AGAIN`] and after every load of any document.
    fn on_tick(&mut self) {}
}

/// The documents of one server, in the order in which they load.
pub(crate) type Documents = Vec<Box<dyn Document>>;

/// Loads every document for the first time.
///
/// # Errors
///
/// The first that does not load.
pub(crate) async fn load_all(documents: &mut Documents) -> anyhow::Result<()> {
    for document in &mut *documents {
        document.load().await?;
    }
    documents.iter_mut().for_each(|document| document.on_tick());
    Ok(())
}

/// Loads documents again for as long as it is polled.
pub(crate) async fn run(
    documents: &mut Documents,
    mut wakes: mpsc::Receiver<Wake>,
    reload: Reload,
) {
    // Kept alive as long as this runs.
    let _watchers: Vec<_> = documents.iter().map(|one| one.file().watch(&reload)).collect();
    // A change between the first load and the watch would be seen by neither.
    let _ = reload.try_send(Wake::Changed);
    let mut look_again = tokio::time::interval(LOOK_AGAIN);
    look_again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // `reload` lives as long as this loop, so there is always another wake to wait for.
    while let Some(wake) = tokio::select! {
        wake = wakes.recv() => wake,
        _ = look_again.tick() => Some(Wake::Changed),
    } {
        for document in &mut *documents {
            if document.file().is_due(wake).await
                && let Err(error) = document.load().await
            {
                tracing::error!("{}: {error:#}", document.not_reloaded());
            }
        }
        documents.iter_mut().for_each(|document| document.on_tick());
    }
    drop(reload);
}

/// Does blocking work on a thread of its own, so that no answer waits for it.
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
