//! The revision that is served, and the policy file that feeds it.
//!
//! ```text
//! watched: file events, ticks ─▶ reload ─▶ file: load ─▶ source, streamed: parse, index, self-check
//!                                             └─▶ published: serve ─▶ calls
//! ```
//!
//! **Invariants**: a document is applied whole or not at all. Snapshot and credentials are one
//! pointer. No call waits for a load.
//!
//! Read `published`, `source`, `catalog_files`, `fact`, `streamed`, `file`, `reload`, `watched`,
//! `management`, `change_log`, then `position`.

mod catalog_files;
pub(crate) mod change_log;
mod fact;
pub mod file;
pub mod journal;
pub mod management;
pub mod position;
pub mod published;
pub mod reload;
pub mod source;
mod streamed;
pub(crate) mod watched;

pub use published::{Current, Freshness, Published};

/// Frees the revisions that are no longer kept.
fn free_expired(published: &Published, give_back: fn()) {
    let expired = published.expire();
    if !expired.is_empty() {
        // Freeing a large index takes a tenth of a second. If no thread starts, it is freed here.
        let free = std::thread::Builder::new().name("free".into());
        let freed = free.spawn(move || {
            drop(expired);
            give_back();
        });
        drop(freed);
    }
}
