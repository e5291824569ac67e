//! The mutex and the atomic of the shared state: std's, and in unit tests those of `shuttle`, which run the
//! tests in `shared/tests.rs` under many thread schedules.

#[cfg(test)]
pub(crate) use shuttle::sync::atomic::{AtomicU64, Ordering};
#[cfg(test)]
pub(crate) use shuttle::sync::{Mutex, MutexGuard};
#[cfg(not(test))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(test))]
pub(crate) use std::sync::{Mutex, MutexGuard};
