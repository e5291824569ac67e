//! The gRPC services: their words, and how requests become answers.

pub mod answer;
mod batch;
mod convert;
pub(crate) mod decision;
pub(crate) mod fast_check;
pub mod page;
pub(crate) mod raw_batches;
mod status;
