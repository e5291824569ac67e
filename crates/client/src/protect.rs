//! A layer in front of the services of others: asks Capstan before a call reaches them.
//!
//! ```text
//! call ─▶ rule of its method ─▶ who calls? ─▶ resource: a field of the request ─▶ Client::check ─┬ allowed ─▶ service
//!           └ none: refused                                                                    └ refused
//! ```
//!
//! What a method needs is an option of the method, `capstan.v1.authorization` of `capstan/v1/options.proto`, which
//! [`Rules`] reads from the descriptors of the service. Who calls is for the service to say: [`Identify`].
//!
//! With the feature `axum`, `Routes` does the same for routes of axum.
//!
//! - **Fail closed**: a method without a rule is refused, and so is a call without a decision, whatever the reason.
//! - **Deadlines**: the caller's (`grpc-timeout`) ends the question, too.
//! - **Revisions**: the revision that decided is at hand in the service ([`decided_at`]). [`CarryRevision`] sends it to the next service,
//!   as the metadata `capstan-revision`, whose layer then takes no older decision.
//!
//! ```no_run
//! use capstan_client::Client;
//! use capstan_client::protect::{Caller, Protect, Rules};
//!
//! # fn example(descriptors: &[u8]) -> Result<(), Box<dyn std::error::Error>> {
//! let rules = Rules::of_services(descriptors, ["shop.v1.Orders"])?.open_service("grpc.health.v1.Health");
//! let client = Client::connect("http://127.0.0.1:4480")?;
//! let protect = Protect::new(client, rules, |head: &http::request::Parts| {
//!     Some(Caller::new(head.headers.get("x-forwarded-identity")?.to_str().ok()?))
//! });
//! let server = tonic::transport::Server::builder().layer(protect);
//! # Ok(())
//! # }
//! ```

mod layer;
mod message;
mod revision;
#[cfg(feature = "axum")]
mod routes;
mod rules;

pub use layer::{Caller, Identify, Protect, Protected};
pub use revision::{CarryRevision, REVISION_KEY, decided_at};
#[cfg(feature = "axum")]
pub use routes::{Needs, Routes};
pub use rules::{Rules, RulesError};
