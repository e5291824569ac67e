//! The rules of RFC 9113, one by one: what is sent, and how the connection answers.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "all of this is test code, not only the test functions"
)]

mod faults;
mod peer;
mod streams;
