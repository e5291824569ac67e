//! Requests of Envoy: bytes through the real decoder, and nothing passes that should not.
#![no_main]

#[path = "../../crates/cli/tests/it/ext_authz/body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    body::envoy(bytes);
});
