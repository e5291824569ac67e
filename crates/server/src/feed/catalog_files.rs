//! The operator's catalogs: names of built-in ones, and files, which are read again at every load.

use std::collections::BTreeMap;
use std::path::Path;

use capstan_policy::{Catalogs, DOCUMENT_BYTES_MAX};

use super::source::{Reading, load_catalog_by};

/// The values of `--catalog`.
#[derive(Clone, Debug, Default)]
pub(super) struct CatalogFiles {
    names_or_files: Vec<String>,
    /// The documents of files that are no regular ones, such as pipes. They are read once, at the start.
    read_once: BTreeMap<String, Vec<u8>>,
}

impl CatalogFiles {
    pub(super) const fn new(names_or_files: Vec<String>) -> Self {
        Self { names_or_files, read_once: BTreeMap::new() }
    }

    /// The files among them.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        let built_in = Catalogs::default();
        let files = self.names_or_files.iter().filter(move |name| built_in.get(name).is_none());
        files.map(Path::new)
    }

    /// The catalogs as they are now, and their warnings.
    ///
    /// # Errors
    ///
    /// A value is neither a name nor a file, or every problem of a catalog document.
    pub(super) fn load(&mut self, reading: Reading) -> anyhow::Result<(Catalogs, Vec<String>)> {
        let (mut catalogs, mut warnings) = (Catalogs::default(), Vec::new());
        for name in &self.names_or_files {
            let kept = &mut self.read_once;
            let (_, found) = load_catalog_by(&mut catalogs, name, |path| {
                if let Some(document) = kept.get(name) {
                    return Ok(document.clone());
                }
                let is_regular = std::fs::metadata(path).is_ok_and(|found| found.is_file());
                let document = reading.document(path, DOCUMENT_BYTES_MAX)?;
                if reading == Reading::First && !is_regular {
                    kept.insert(name.clone(), document.clone());
                }
                Ok(document)
            })?;
            warnings.extend(found.into_iter().map(|warning| format!("{name}:{warning}")));
        }
        Ok((catalogs, warnings))
    }
}
