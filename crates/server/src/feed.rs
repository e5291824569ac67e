//! What is served, and what feeds it: a policy file today, a journal later.
//!
//! ```text
//! source: a policy file or the demo ─▶ file: loads it again when it changes ─▶ published ─▶ calls
//! ```

pub mod file;
pub mod published;
pub mod source;
