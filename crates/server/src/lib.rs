//! The server of Capstan, a policy decision point: everything that answers a network.
//!
//! It joins three crates that do not know each other: the schema (`capstan-proto`), the engine
//! (`capstan-engine`) and the policy documents (`capstan-policy`).
//!
//! ```text
//! server                                     bind, load, serve, drain
//! events      http                           deliveries to webhooks; probes and AuthZEN
//! grpc        envoy                          services: request to question, decision to response
//! askers                                     who may ask
//! callers     webhooks                       who calls; what connects to others
//! signing                                    the keys of events and access tokens
//! admission   feed   ask                     permits, deadlines; revisions; decisions
//! authn       turns                          the identity that a credential proves; turns to compute
//! transport                                  sockets, connections, workers, peers
//! telemetry                                  metrics, traces, decision log
//! methods                                    the table of methods
//! discovery                                  what an issuer publishes
//! error  limits  clock  jitter  interleave   plain values and small helpers
//! ```
//!
//! A room is a file and the folder of the same name. It may use the rooms on lower
//! lines, and no others. A test reads the imports (`crates/cli/tests/it/layout/rooms.rs`).
//!
//! A call and a revision pass through the rooms like this:
//!
//! ```text
//! connection ─▶ admission ─▶ grpc or envoy ─▶ ask ─▶ engine: a decision
//!
//! policy file ─▶ feed: load, self-check, publish ─▶ the revision that calls read
//! ```
//!
//! **Invariants**:
//!
//! - A question that cannot be answered is an error, never an allow. A denial is an answer.
//! - One call is answered from one revision, at one time.
//! - Only `grpc` uses the schema's messages, and only `envoy` uses Envoy's; `server` mounts the
//!   generated services. Only `grpc/status.rs` turns an error into a gRPC status.
//!
//! Read `methods`, `ask`, `grpc` and `feed` first. Then read `admission` and `transport` for what
//! surrounds a call, and `server` for how the rooms are wired.

mod admission;
pub mod ask;
pub mod askers;
mod authn;
pub mod callers;
pub mod clock;
mod discovery;
pub mod envoy;
mod error;
mod events;
pub mod feed;
pub mod grpc;
mod http;
mod interleave;
mod jitter;
pub mod limits;
pub mod methods;
mod places;
pub mod server;
pub mod signing;
pub mod telemetry;
mod transport;
mod turns;
pub mod webhooks;

pub use error::{RequestError, StoreFailure};
