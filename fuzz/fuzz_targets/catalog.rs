//! Catalogs, in documents of their own and inside policies.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = capstan_testkit::fuzz::catalog(bytes);
});
