//! Worlds and questions, made of the bytes: the engine against the naive model.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| capstan_testkit::fuzz::world(bytes));
