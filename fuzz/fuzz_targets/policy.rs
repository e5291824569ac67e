//! Policies, policy tests, route tables and callers: every text is read as all of them.
#![no_main]

use capstan_testkit::fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = (fuzz::policy(bytes), fuzz::policy_tests(bytes));
    let _ = (fuzz::routes(bytes), fuzz::callers(bytes));
});
