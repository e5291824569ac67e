//! A client of Capstan that combines concurrent checks into batches.
//!
//! ```text
//! check ─┐                        ┌─▶ session ─ StreamCheck ─▶ server
//! check ─┼─▶ queue: open batches ─┤     (one per connection)
//! check ─┘    ▲                   └─▶ unary ─── BatchCheck ──▶ server
//!             └── sweep: deadlines, stalls
//! ```
//!
//! Concurrent calls share one stream per connection. When a stream can send, it takes all waiting checks, up
//! to 1,000, as one batch. A call on an idle client is sent at once in a batch of its own; batches grow with
//! the load. A batch that may block at the server is sent in a unary call instead.
//!
//! - **Fail closed**: an [`Error`] is never an allow, and an inconsistent answer is an error.
//! - **Deadlines**: every call has one, which the client keeps independently of the server. Checks have no side
//!   effects, so until the deadline they are retried when a connection breaks or a server is not ready.
//! - **Bounded memory**: calls beyond [`Options::pending_max`] wait for a permit, until their deadline.
//! - **Isolation**: an invalid check fails alone. A batch that the server rejects as a whole is split and
//!   retried until the invalid check is alone.
//!
//! ```no_run
//! use capstan_client::{Check, Client};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("http://127.0.0.1:4480")?;
//! let check = Check::new("bob", "repo.list", "acme/platform/images/nginx");
//! let decision = client.check(check).await?;
//! assert!(decision.allowed, "{:?}", decision.reason);
//! # Ok(())
//! # }
//! ```
//!
//! # Revisions
//!
//! [`Client::revision`] is the highest revision of any answer. With [`Options::monotonic`], calls require at least
//! that revision, whichever server answers. If a server's store was rolled back, it has an older epoch than the
//! client has seen, and calls fail with `STORE_EPOCH` until [`Client::forget_revision`] is called. Revisions of a
//! policy file (epoch 0) are not comparable between server processes: the client never requires them by itself,
//! and forgets them when a connection ends.

mod address;
mod backoff;
mod check;
mod check_future;
mod client;
#[cfg(feature = "connector")]
pub mod connector;
mod credential;
mod error;
mod failure;
pub mod limits;
mod properties;
#[cfg(feature = "protect")]
pub mod protect;
mod queue;
mod session;
mod shared;
mod sync;
mod tls;
mod unary;
mod wire;

pub use address::{ParseAddressError, ServerAddress};
pub use capstan_proto::v1::Reason;
pub use check::{Check, Decision};
pub use client::Client;
pub use credential::Credential;
pub use error::{ConnectError, Error, Refusal};
pub use limits::Options;
pub use properties::{Properties, Value};
pub use tls::TlsOptions;
pub use tonic::Code;
