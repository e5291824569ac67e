//! The catalog of a store: its name, and its document if it is not built in.
//!
//! The document is kept, because a file may be gone or changed when the store is opened again.

use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use capstan_engine::Catalog;
use capstan_policy::Catalogs;
use capstan_store::{Op, View};
use prost::Message as _;

/// The key of the catalog.
pub(super) const KEY: &[u8] = b"mcatalog";

#[derive(Clone, PartialEq, prost::Message)]
struct CatalogRecord {
    #[prost(string, tag = "1")]
    name: String,
    /// Absent for a built-in catalog.
    #[prost(bytes = "vec", optional, tag = "2")]
    document: Option<Vec<u8>>,
}

/// A catalog, and how a store keeps it.
#[derive(Clone, Debug)]
pub struct StoredCatalog {
    catalog: Arc<Catalog>,
    document: Option<Vec<u8>>,
}

impl StoredCatalog {
    /// A built-in catalog. `None` if no catalog has this name.
    #[must_use]
    pub fn built_in(name: &str) -> Option<Self> {
        let catalog = Catalogs::default().get(name)?;
        Some(Self { catalog, document: None })
    }

    /// The catalog of a document.
    ///
    /// # Errors
    ///
    /// Every problem of the document, one a line.
    pub fn of_document(document: Vec<u8>) -> anyhow::Result<Self> {
        let loaded = Catalogs::default().load(&document);
        let (catalog, _) = loaded.map_err(|found| anyhow!("{found}"))?;
        Ok(Self { catalog, document: Some(document) })
    }

    /// The catalog.
    #[must_use]
    pub const fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The operation that keeps it.
    pub(super) fn op(&self) -> Op {
        let (name, document) = (self.catalog.name().to_owned(), self.document.clone());
        let value = CatalogRecord { name, document }.encode_to_vec();
        Op::Put { key: KEY.into(), value: value.into() }
    }
}

/// The catalogs that a document for this state can name: built-in ones, and the state's.
///
/// # Errors
///
/// As [`of`].
pub(super) fn known(view: &dyn View) -> anyhow::Result<Catalogs> {
    let mut catalogs = Catalogs::default();
    let record = view.get(KEY)?.map(CatalogRecord::decode).transpose()?;
    if let Some(document) = record.and_then(|record| record.document) {
        catalogs.load(&document).map_err(|found| anyhow!("{found}"))?;
    }
    Ok(catalogs)
}

/// The catalog of a state.
///
/// # Errors
///
/// There is none, it is not known to this version, or the store cannot be read.
pub(super) fn of(view: &dyn View) -> anyhow::Result<Arc<Catalog>> {
    let Some(value) = view.get(KEY)? else {
        bail!("the store has no catalog: it was not made by `capstan init`");
    };
    let CatalogRecord { name, document } =
        CatalogRecord::decode(value).context("the catalog of the store is not valid")?;
    match document {
        Some(document) => {
            let stored = StoredCatalog::of_document(document);
            stored.map(|stored| stored.catalog).context("the catalog of the store is not valid")
        }
        None => StoredCatalog::built_in(&name).map(|stored| stored.catalog).with_context(|| {
            format!("this version has no catalog `{name}`, which the store was made with")
        }),
    }
}
