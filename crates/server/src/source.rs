//! Where a policy comes from: a file, or the demo that comes with Capstan.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::{fs::File, sync::Arc};

use anyhow::{Context as _, anyhow, bail};
use capstan_engine::{Catalog, Snapshot, Timestamp, self_check};
use capstan_policy::{
    Catalogs, Credentials, DOCUMENT_BYTES_MAX, Diagnostic, Diagnostics, Policy, load_policy,
};

use crate::limits::SELF_CHECK_IDENTITIES;

/// The demo: an organization that uses every built-in role.
pub const DEMO: &str = include_str!("../../../deploy/quickstart/policy.yaml");

/// Where a policy comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A policy document.
    File {
        /// Its path.
        path: PathBuf,
        /// Most bytes that are read of it.
        bytes_max: u64,
    },
    /// The embedded [`DEMO`].
    Demo,
}

impl Source {
    /// A policy document of at most [`DOCUMENT_BYTES_MAX`] bytes.
    #[must_use]
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::File { path: path.into(), bytes_max: DOCUMENT_BYTES_MAX }
    }

    /// Loads the policy.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or everything that is wrong with the document.
    pub fn load(&self, catalogs: &Catalogs) -> anyhow::Result<Policy> {
        match self {
            Self::Demo => load_policy(DEMO.as_bytes(), catalogs)
                .map_err(|found| in_file(Path::new("demo"), &found)),
            Self::File { path, bytes_max } => {
                let document = read(path, *bytes_max)?;
                load_policy(&document, catalogs).map_err(|found| in_file(path, &found))
            }
        }
    }

    /// Loads the policy and indexes it, and compares a sample of the index with the rules.
    ///
    /// # Errors
    ///
    /// As [`Source::load`]; or the index is wrong, which must never serve.
    pub fn build(
        &self,
        catalogs: &Catalogs,
        revision: u64,
        now: Timestamp,
    ) -> anyhow::Result<Built> {
        let Policy { model, credentials, warnings } = self.load(catalogs)?;
        let snapshot = Snapshot::build(&model, revision)?;
        let compared = self_check(&snapshot, SELF_CHECK_IDENTITIES, now)
            .context("the index fails its self-check, so it will not serve")?;
        Ok(Built { snapshot: Arc::new(snapshot), credentials, compared, warnings })
    }
}

/// A snapshot that may serve.
#[derive(Debug)]
pub struct Built {
    /// The snapshot.
    pub snapshot: Arc<Snapshot>,
    /// The policy's credentials, which serve with it.
    pub credentials: Credentials,
    /// How many of its answers were compared with the rules.
    pub compared: usize,
    /// What is allowed in the document and surely a mistake.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a document, whole: of a file that somebody writes meanwhile it could be the first half,
/// where a binding has no expiry yet.
///
/// # Errors
///
/// It cannot be read, is being written (both of an [`io::Error`]), or has more bytes than `bytes_max`.
pub fn read(path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let name = path.display();
    let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
    let looks = || {
        let found = file.metadata().with_context(|| format!("cannot read {name}"))?;
        anyhow::Ok(found.is_file().then(|| (found.len(), found.modified().ok())))
    };
    let before = looks()?;
    let mut document = Vec::new();
    // One byte more than allowed tells too long from just long enough, for pipes too.
    (&file)
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut document)
        .with_context(|| format!("cannot read {name}"))?;
    if looks()? != before {
        let text = "it was written while it was read: rename a new file over the old one instead";
        let torn = io::Error::new(io::ErrorKind::ResourceBusy, text);
        return Err(torn).with_context(|| format!("cannot read {name}"));
    }
    if document.len() as u64 > bytes_max {
        bail!("{name} has more than {bytes_max} bytes (--max-document-bytes allows more)");
    }
    Ok(document)
}

/// Adds each of the operator's `--catalog`s: names of built-in catalogs, or files.
///
/// # Errors
///
/// Neither a name nor a file, or everything that is wrong with the document.
pub fn load_catalogs(names_or_files: &[String]) -> anyhow::Result<Catalogs> {
    let mut catalogs = Catalogs::default();
    for name_or_file in names_or_files {
        load_catalog(&mut catalogs, name_or_file)?;
    }
    Ok(catalogs)
}

/// One catalog, by the name of a built-in one or from a file.
///
/// # Errors
///
/// As [`load_catalogs`].
pub fn load_catalog(catalogs: &mut Catalogs, name_or_file: &str) -> anyhow::Result<Arc<Catalog>> {
    if let Some(catalog) = catalogs.get(name_or_file) {
        return Ok(catalog);
    }
    let path = Path::new(name_or_file);
    if !path.exists() {
        let known: Vec<_> = catalogs.names().collect();
        let known = known.join(", ");
        return Err(anyhow!(
            "no catalog and no file is named `{name_or_file}` (built in: {known})"
        ));
    }
    let document = read(path, DOCUMENT_BYTES_MAX)?;
    let (catalog, warnings) = catalogs.load(&document).map_err(|found| in_file(path, &found))?;
    for warning in warnings {
        tracing::warn!("{}:{warning}", path.display());
    }
    Ok(catalog)
}

/// Diagnostics as lines that editors and people can follow: `file:line:column: …`.
#[must_use]
pub fn in_file(path: &Path, found: &Diagnostics) -> anyhow::Error {
    let lines: Vec<_> =
        found.to_string().lines().map(|line| format!("{}:{line}", path.display())).collect();
    anyhow!("{}", lines.join("\n"))
}
