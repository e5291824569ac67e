//! The source of a policy: a file, or the demo that is compiled in.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs::File, sync::Arc};

use anyhow::{Context as _, anyhow, bail, ensure};
use capstan_engine::{Catalog, Difference, Loader, Snapshot, Timestamp, self_check};
use capstan_policy::{
    Catalogs, Credentials, DOCUMENT_BYTES_MAX, Diagnostic, Diagnostics, Policy, load_policy,
};

use rustix::fs::OFlags;

use super::streamed::{self, Indexer};
use crate::limits::SELF_CHECK_IDENTITIES;

/// The demo policy: an organization that uses every built-in role.
pub const DEMO: &str = include_str!("../../../../deploy/quickstart/policy.yaml");

/// The source of a policy.
#[derive(Clone, Debug)]
pub enum Source {
    /// A policy document in a file.
    File {
        /// Its path.
        path: PathBuf,
        /// The largest document, in bytes.
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

    /// Parses the policy.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or every problem of the document, with its line and column.
    pub fn load(&self, catalogs: &Catalogs) -> anyhow::Result<Policy> {
        self.load_by(Reading::First, catalogs)
    }

    fn load_by(&self, reading: Reading, catalogs: &Catalogs) -> anyhow::Result<Policy> {
        match self {
            Self::Demo => load_policy(DEMO.as_bytes(), catalogs)
                .map_err(|found| in_file(Path::new("demo"), &found)),
            Self::File { path, bytes_max } => {
                let document = reading.document(path, *bytes_max)?;
                load_policy(&document, catalogs).map_err(|found| in_file(path, &found))
            }
        }
    }

    /// Reads the policy piece by piece, without its text in memory.
    ///
    /// # Errors
    ///
    /// The policy has to be read whole: it is not JSON, has a mistake or a warning, is too long, changes meanwhile,
    /// or is no regular file. [`Source::load`] judges it anew, from one reading.
    fn stream<I: Indexer>(
        &self,
        catalogs: &Catalogs,
        revision: u64,
        begin: impl FnOnce(&Arc<Catalog>) -> anyhow::Result<I> + Send,
    ) -> anyhow::Result<(Snapshot, Credentials)> {
        let Self::File { path, bytes_max } = self else { bail!("it is no file") };
        let file = open_regular(path)?.context("it is no regular file")?;
        let before = state(&file)?.context("it is no regular file")?;
        ensure!(before.0 <= *bytes_max, "it is too long");
        let loaded = streamed::load((&file).take(*bytes_max), catalogs, revision, begin)?;
        ensure!(state(&file)? == Some(before), "it was written while it was read");
        Ok(loaded)
    }

    /// Parses the policy, builds its snapshot, and compares a sample of decisions with the rules. If little is
    /// different from the served snapshot, the new one shares the rest with it.
    ///
    /// # Errors
    ///
    /// As [`Source::load`]; or the self-check fails, and the snapshot must not serve.
    pub fn build(
        &self,
        catalogs: &Catalogs,
        revision: u64,
        served: Option<&Snapshot>,
        now: Timestamp,
    ) -> anyhow::Result<Built> {
        let changed = served.map(|served| {
            let begin = |catalog: &Arc<Catalog>| Ok(Difference::new(served, catalog)?);
            let made = self.stream(catalogs, revision, begin);
            made.inspect_err(|why| tracing::debug!("the policy is indexed anew: {why:#}"))
        });
        let anew = || {
            let begin = |catalog: &Arc<Catalog>| Ok(Loader::new(Arc::clone(catalog)));
            self.stream(catalogs, revision, begin)
        };
        let reading = if served.is_none() { Reading::First } else { Reading::Again };
        let (snapshot, credentials, warnings) =
            match changed.and_then(Result::ok).map_or_else(anew, Ok) {
                Ok((snapshot, credentials)) => (snapshot, credentials, vec![]),
                Err(why) => {
                    tracing::debug!("the policy is read whole: {why:#}");
                    let Policy { model, credentials, warnings, .. } =
                        self.load_by(reading, catalogs)?;
                    (Snapshot::build(&model, revision)?, credentials, warnings)
                }
            };
        let compared = self_check(&snapshot, SELF_CHECK_IDENTITIES, now)
            .context("the index fails its self-check, so it will not serve")?;
        Ok(Built { snapshot, credentials, compared, warnings })
    }
}

/// Length and time of the last modification of a regular file. `None` for a pipe, which can be read once.
fn state(file: &File) -> io::Result<Option<(u64, Option<SystemTime>)>> {
    let found = file.metadata()?;
    Ok(found.is_file().then(|| (found.len(), found.modified().ok())))
}

/// A snapshot that has passed its self-check.
#[derive(Debug)]
pub struct Built {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The credentials of the same policy.
    pub credentials: Credentials,
    /// The number of decisions that were compared with the rules.
    pub compared: usize,
    /// Statements that are valid and most likely a mistake.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a whole document. A document that is read while it is being written could be only its
/// first half, where a binding may lack its expiry.
///
/// # Errors
///
/// The file cannot be read, or changed while it was read (both are an [`io::Error`]), or it has
/// more than `bytes_max` bytes.
pub fn read(path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    Reading::First.document(path, bytes_max)
}

/// What may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Any file. A pipe is read to its end, such as that of a process substitution.
    First,
    /// A regular file, or a link to one. A pipe has been read, and nobody may ever write to it again.
    Again,
}

impl Reading {
    /// Reads a whole document, as [`read`] does.
    pub(crate) fn document(self, path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
        let cannot_read = || format!("cannot read {}", path.display());
        let file = match self {
            Self::First => File::open(path).with_context(cannot_read)?,
            Self::Again => open_regular(path).with_context(cannot_read)?.with_context(|| {
                let name = path.display();
                format!("{name} is no regular file: a pipe is read once, at the start")
            })?,
        };
        read_file(&file, path, bytes_max)
    }
}

/// Opens a regular file, or what a link to one leads to, without waiting for a writer. `None` if it is a
/// pipe, a device or a folder. Such a file is not opened, because whoever writes to a pipe would see that it is
/// closed; should it replace a regular file just now, opening it does not wait.
fn open_regular(path: &Path) -> io::Result<Option<File>> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if !std::fs::metadata(path)?.is_file() {
        return Ok(None);
    }
    let at_once = OFlags::NONBLOCK.bits().try_into().unwrap_or_default();
    let file = File::options().read(true).custom_flags(at_once).open(path)?;
    let is_regular = file.metadata()?.is_file();
    Ok(is_regular.then_some(file))
}

fn read_file(file: &File, path: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let name = path.display();
    let state = || state(file).with_context(|| format!("cannot read {name}"));
    let before = state()?;
    let mut document = Vec::new();
    // One byte above the limit shows that the document is too long. This works for pipes too.
    file.take(bytes_max.saturating_add(1))
        .read_to_end(&mut document)
        .with_context(|| format!("cannot read {name}"))?;
    if state()? != before {
        let text = "it was written while it was read: rename a new file over the old one instead";
        let changed = io::Error::new(io::ErrorKind::ResourceBusy, text);
        return Err(changed).with_context(|| format!("cannot read {name}"));
    }
    if document.len() as u64 > bytes_max {
        bail!("{name} has more than {bytes_max} bytes (--max-document-bytes allows more)");
    }
    Ok(document)
}

/// Loads the operator's `--catalog` values: names of built-in catalogs, or files.
///
/// # Errors
///
/// A value is neither a name nor a file, or every problem of a catalog document.
pub fn load_catalogs(names_or_files: &[String]) -> anyhow::Result<Catalogs> {
    let mut catalogs = Catalogs::default();
    for name_or_file in names_or_files {
        load_catalog(&mut catalogs, name_or_file)?;
    }
    Ok(catalogs)
}

/// Loads one catalog, by the name of a built-in one or from a file.
///
/// # Errors
///
/// As [`load_catalogs`].
pub fn load_catalog(catalogs: &mut Catalogs, name_or_file: &str) -> anyhow::Result<Arc<Catalog>> {
    let document = |path: &Path| read(path, DOCUMENT_BYTES_MAX);
    let (catalog, warnings) = load_catalog_by(catalogs, name_or_file, document)?;
    for warning in warnings {
        tracing::warn!("{name_or_file}:{warning}");
    }
    Ok(catalog)
}

/// The same. Returns the warnings of the document, which `read` reads.
pub(super) fn load_catalog_by(
    catalogs: &mut Catalogs,
    name_or_file: &str,
    read: impl FnOnce(&Path) -> anyhow::Result<Vec<u8>>,
) -> anyhow::Result<(Arc<Catalog>, Vec<Diagnostic>)> {
    if let Some(catalog) = catalogs.get(name_or_file) {
        return Ok((catalog, vec![]));
    }
    let path = Path::new(name_or_file);
    if !path.exists() {
        let known: Vec<_> = catalogs.names().collect();
        let known = known.join(", ");
        return Err(anyhow!(
            "no catalog and no file is named `{name_or_file}` (built in: {known})"
        ));
    }
    catalogs.load(&read(path)?).map_err(|found| in_file(path, &found))
}

/// Diagnostics as an error, one `file:line:column: problem` a line, which editors can follow.
#[must_use]
pub fn in_file(path: &Path, found: &Diagnostics) -> anyhow::Error {
    let path = path.display();
    let mut lines: Vec<_> = found.iter().map(|one| format!("{path}:{one}")).collect();
    let more = found.total() - lines.len();
    if more > 0 {
        lines.push(format!("and {more} more, {} in all", found.total()));
    }
    anyhow!("{}", lines.join("\n"))
}
