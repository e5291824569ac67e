//! What is served, and what feeds it: a policy file today, a journal later.
//!
//! ```text
//! source ─▶ file: reads, proves and publishes, again when reload says so ─▶ published ─▶ calls
//! ```

pub mod file;
pub mod published;
pub mod reload;
pub mod source;
pub(crate) mod watched;

pub use published::{Current, Freshness, Published};
