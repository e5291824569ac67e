//! Policy documents (section 3 of the contract): which documents load, and the diagnostics of
//! others.
//!
//! Each case is a document and its complete diagnostics: line, column, field, found, expected.

#[path = "../common/mod.rs"]
mod common;

mod conditions;
mod credentials;
mod details;
mod document;
mod rules;
mod values;
