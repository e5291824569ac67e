//! Paths, names, attributes and times, one a line.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    capstan_testkit::fuzz::path(bytes);
});
