//! The document of callers, which is loaded again when it changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use capstan_policy::{Callers, Proves, load_callers};
use futures_util::future::BoxFuture;

use super::Named;
use crate::feed::reload::{Document, run_on_thread};
use crate::feed::source::{Reading, in_file};
use crate::feed::watched::WatchedFile;
use crate::limits::CALLERS_BYTES_MAX;
use crate::telemetry::metrics::{LoadOutcome, Metrics};

/// Loads a document of callers.
///
/// # Errors
///
/// The file cannot be read, or every problem of the document.
pub fn load(path: &Path) -> anyhow::Result<Callers> {
    load_by(Reading::First, path)
}

fn load_by(reading: Reading, path: &Path) -> anyhow::Result<Callers> {
    let document = reading.document(path, CALLERS_BYTES_MAX)?;
    load_callers(&document).map_err(|found| in_file(path, &found))
}

/// The callers that cannot prove who they are, wherever they call from, each with what helps. `takes_certificates`: clients of other machines
/// have certificates; then they have no tokens.
pub fn unproved(
    all: &Callers,
    takes_certificates: bool,
) -> impl Iterator<Item = (&str, &'static str)> {
    all.callers.iter().filter_map(move |caller| {
        let advice = match (&caller.proves, takes_certificates) {
            (Proves::SpiffeId(_) | Proves::DnsName(_), false) => {
                "give --client-ca, or name its identity"
            }
            // By unix sockets and loopback there are tokens, too.
            (Proves::Identity(_), true) if !all.names_this_machine => {
                "name its spiffe_id or dns_name"
            }
            _ => return None,
        };
        Some((&*caller.name, advice))
    })
}

/// The file of the callers. Until it is loaded, nobody is one.
pub(crate) struct AskersFile {
    file: WatchedFile,
    /// Whether clients of other machines have certificates; then they have no tokens.
    takes_certificates: bool,
    is_loaded: bool,
    named: Arc<ArcSwap<Named>>,
    metrics: Arc<Metrics>,
}

impl AskersFile {
    pub(crate) fn new(
        (path, takes_certificates): (PathBuf, bool),
        named: Arc<ArcSwap<Named>>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let file = WatchedFile::new(Some(path));
        Self { file, takes_certificates, is_loaded: false, named, metrics }
    }

    async fn load(&mut self) -> anyhow::Result<()> {
        self.file.record_state();
        let Some(path) = self.file.path().map(Path::to_owned) else { return Ok(()) };
        let reading = if self.is_loaded { Reading::Again } else { Reading::First };
        let loaded = run_on_thread("callers", move || load_by(reading, &path)).await.flatten();
        let outcome = if loaded.is_ok() { LoadOutcome::Applied } else { LoadOutcome::Rejected };
        self.metrics.callers_loaded(outcome);
        let loaded = loaded.inspect_err(|error| self.file.failed(error))?;
        for (caller, advice) in unproved(&loaded, self.takes_certificates) {
            tracing::warn!(caller, advice, "this caller cannot prove who it is");
        }
        tracing::info!(callers = loaded.callers.len(), "callers loaded");
        self.named.store(Arc::new(loaded.into()));
        self.is_loaded = true;
        Ok(())
    }
}

impl Document for AskersFile {
    fn not_reloaded(&self) -> &'static str {
        "the callers are not reloaded, the old ones may ask on"
    }

    fn files(&self) -> &[WatchedFile] {
        std::slice::from_ref(&self.file)
    }

    fn load(&mut self) -> BoxFuture<'_, anyhow::Result<()>> {
        Box::pin(self.load())
    }
}
