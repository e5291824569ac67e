//! Which route of a table a request takes, and what it requires.
//!
//! ```text
//! method, host, path?query ─▶ Asked, canonical or refused ─▶ Table: the one route ─▶ requirements
//! ```
//!
//! **Invariant**: a request that is not canonical takes no route, and no request takes two. What is
//! done for a request is linear in its length, whatever it holds.

mod http_request;
mod table;

use std::path::Path;

use capstan_policy::{DOCUMENT_BYTES_MAX, load_routes};

use crate::feed::source::{in_file, read};

pub use http_request::{Asked, Malformed};
pub use table::{NotTaken, Required, Table};

/// Loads a route table.
///
/// # Errors
///
/// The file cannot be read, or everything that is wrong with the document.
pub fn load(path: &Path) -> anyhow::Result<Table> {
    let document = read(path, DOCUMENT_BYTES_MAX)?;
    let routes = load_routes(&document).map_err(|found| in_file(path, &found))?;
    Ok(Table::new(routes))
}

#[cfg(test)]
mod tests;
