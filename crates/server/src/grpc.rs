//! The decision and management services: from requests of the schema to responses.
//!
//! ```text
//! admission ─▶ fast_check: plain checks ──────────────┐
//!                └─▶ raw_batches: batches             ├─▶ ask ─▶ convert: response
//!                      ├─▶ decision ─▶ answer, batch ─┘
//!                      └─▶ iam: management services
//! ```
//!
//! **Invariants**: only this room uses the schema's messages. `status` alone turns errors of this
//! crate into gRPC statuses. The fast paths give the same responses, limits and errors as the
//! generated services.
//!
//! Read `decision`, `answer`, `convert`, `status` and `page`, then `batch`, `raw_batches`, `raw_stream` and
//! `fast_check`. `iam` is a room of its own.

pub mod answer;
mod batch;
mod convert;
pub(crate) mod decision;
pub(crate) mod fast_check;
pub(crate) mod iam;
pub mod page;
pub(crate) mod raw_batches;
mod raw_stream;
mod status;
