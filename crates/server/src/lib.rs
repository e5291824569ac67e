//! Capstan, a policy decision point: may this identity do this here?
//!
//! This crate is the rim of the house: it joins the schema (`capstan-proto`), the engine
//! (`capstan-engine`) and the documents (`capstan-policy`), which do not know one another's words.
//!
//! ```text
//! gRPC ──▶ service ──▶ answer ──▶ engine            a question: no await, no lock, no log line
//!                        ▲
//! command line, --policy ┘                          the same answers, without a server
//!
//! policy file ──▶ source ──▶ self-check ──▶ Published ──▶ service      a revision
//! ```
//!
//! **Invariant**: only `convert` knows both the words of the schema and those of the engine, and only
//! `status` makes a gRPC status of our errors.

mod admission;
pub mod ask;
mod authn;
pub mod clock;
pub mod envoy;
mod error;
pub mod feed;
pub mod grpc;
mod http;
mod interleave;
mod jitter;
pub mod limits;
pub mod methods;
pub mod server;
pub mod telemetry;
mod transport;

pub use error::RequestError;
