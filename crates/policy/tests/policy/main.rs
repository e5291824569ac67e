//! Policy documents (section 3 of the contract): what loads, and what is said about what does not.
//!
//! Every case is a document and all that is wrong with it: line, column, field, found, expected.

#[path = "../common/mod.rs"]
mod common;

mod conditions;
mod credentials;
mod document;
mod rules;
mod values;
