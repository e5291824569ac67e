//! What a peer sends on a connection.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    capstan_testkit::fuzz::connection(bytes);
});
