//! The gRPC services: their words, and how requests become answers.

pub mod answer;
mod batch;
pub(crate) mod convert;
pub(crate) mod decision;
pub(crate) mod fast_check;
mod page;
mod status;
