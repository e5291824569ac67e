//! A client of Capstan: `client.check(…)` looks like a call of its own, and is not.
//!
//! ```text
//! check ─┐                               ┌─▶ session ─ StreamCheck ─▶ server
//! check ─┼─▶ queue: batches being filled ┤     (one a connection)
//! check ─┘    ▲                          └─▶ alone ─── BatchCheck ──▶ server
//!             └── sweep: deadlines, stalls      (what could harm others)
//! ```
//!
//! Concurrent calls share one stream. A connection that has room takes all that waits, up to 1,000
//! checks, as one batch; so a call on an idle client goes out at once and alone, and batches grow
//! by themselves when there is more to ask.
//!
//! - **Fail closed**: [`Error`] is never an allow, and an answer that cannot be one is an error.
//! - Every call has a **deadline**, kept here whatever the server does. A check changes nothing, so
//!   until then it is sent again when a connection breaks or a server is not ready.
//! - **Bounded**: beyond [`Options::pending_max`] calls wait outside, until their deadline.
//! - One caller's mistake is one caller's error: what is malformed comes back to whoever asked, and
//!   a batch that a server refuses as a whole is taken apart.
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
//! [`Client::revision`] is the highest revision that any answer had. With [`Options::monotonic`] no
//! call is answered at an older one, whichever server answers. A server that holds an *older epoch*
//! than was seen (somebody rolled its store back) then answers nothing: calls fail with
//! `STORE_EPOCH` until [`Client::forget_revision`] accepts that. The revisions of a policy file
//! (epoch 0) mean nothing to another process, so they are never asked for behind a caller's back,
//! and are forgotten with the connection.

mod address;
mod alone;
mod asking;
mod backoff;
mod check;
mod client;
mod error;
pub mod limits;
mod properties;
mod queue;
mod session;
mod shared;
mod verdict;
mod wire;

pub use address::{ParseAddressError, ServerAddress};
pub use capstan_proto::v1::Reason;
pub use check::{Check, Decision};
pub use client::Client;
pub use error::{ConnectError, Error, Refusal};
pub use limits::Options;
pub use properties::{Properties, Value};
pub use tonic::Code;
