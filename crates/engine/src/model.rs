//! Plain values with the names of the documents: facts, catalogs, paths, names, conditions, times.
//!
//! **Invariant**: nothing here is indexed and nothing here decides. What a type guarantees (a path is
//! well formed, a catalog's roles hold only its capabilities) is checked by its constructor.

pub(crate) mod capabilities;
pub(crate) mod catalog;
pub(crate) mod condition;
pub(crate) mod facts;
pub(crate) mod name;
pub(crate) mod path;
pub(crate) mod similar;
pub(crate) mod timestamp;
pub(crate) mod violation;
