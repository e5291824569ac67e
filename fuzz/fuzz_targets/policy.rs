//! Policies and policy tests: every text is read as both.
#![no_main]

use capstan_testkit::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = (fuzz::policy(bytes), fuzz::policy_tests(bytes));
});
