//! Plain values in the words of the documents: facts, catalogs, paths, names, conditions, times.
//!
//! **Invariant**: nothing here is indexed and nothing here decides. What a value promises (a path is
//! well formed, a catalog's roles hold only its capabilities) is checked when it is made.

pub(crate) mod capabilities;
pub(crate) mod catalog;
pub(crate) mod condition;
pub(crate) mod facts;
pub(crate) mod name;
pub(crate) mod path;
pub(crate) mod timestamp;
pub(crate) mod violation;
