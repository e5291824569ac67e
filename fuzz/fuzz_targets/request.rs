//! Requests: bytes through the real decoder, and answers that agree with each other.
#![no_main]

#[path = "../../crates/cli/tests/it/requests/body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    body::request(bytes);
});
