//! The documents of Capstan: policies, catalogs and policy tests, in YAML or JSON, read into the
//! engine's facts.
//!
//! ```text
//! bytes ──Reader──▶ facts, as far as they can be read ──engine rules──▶ Policy, Catalog
//!          │                                              │
//!          └── shape errors ──▶ Diagnostics ◀── rule violations, located in the text
//! ```
//!
//! The text is walked once, event by event: no tree of it is ever built, nothing recurses on input,
//! and everything wrong is reported at once with line and column (section 3 of the contract). Only
//! a document with violations is walked again, to find where they stand.
//!
//! **Invariant**: a document either loads whole or gives nothing but diagnostics.

mod built_in;
mod catalog;
mod diagnostics;
mod locate;
mod policy;
mod policy_test;
mod reader;
mod scalar;

pub use built_in::BUILT_IN;
pub use catalog::Catalogs;
pub use diagnostics::{DIAGNOSTICS_MAX, Diagnostic, Diagnostics};
pub use policy::{Policy, load_policy};
pub use policy_test::{Expectation, PolicyTest, PolicyTests, load_policy_tests};
pub use scalar::{format_timestamp, parse_timestamp, whole};

/// Most bytes in a document, unless the operator says otherwise.
pub const DOCUMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Most bytes in a name, description or purpose.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Most collections inside one another; ours need six.
pub const NESTING_MAX: usize = 32;
