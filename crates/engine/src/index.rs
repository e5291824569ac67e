//! The index that every question is answered from, how it is built and how it changes.

pub(crate) mod binding;
pub(crate) mod build;
pub(crate) mod hash;
pub(crate) mod matrix;
mod prefetch;
pub(crate) mod roles;
pub(crate) mod snapshot;
pub(crate) mod table;
pub(crate) mod writer;
