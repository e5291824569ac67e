//! Delivers one CloudEvent to one webhook, signed, and only to addresses that may be connected to. Documents of others, such
//! as the keys of an issuer, are read under the same rules ([`Client::fetch`]).
//!
//! ```text
//! URL ───────▶ Sink ──────────────┐           ┌ lookup ─ guard ─ TCP ─ TLS ┐
//! fields ────▶ Event ─┬───────────┼─▶ Client ─┴────────────────────────────┴─▶ sink
//! keys ──────▶ Signer ┴▶ Token ───┘     │
//!                                       ▼
//!                    Outcome ─▶ Circuit: when to try again, or to give up
//! ```
//!
//! Events are bytes here, and clocks, random numbers, keys and URLs arguments: this crate knows nothing of what the events
//! are about, who may see them, or where they come from. Whoever calls it keeps the events until they are delivered, in
//! order, and asks for consent ([`Client::ask_consent`], [`Challenges`]) before the first one.
//!
//! - **At least once**: a delivery may be repeated. Receivers drop repeated `ce-id`s.
//! - **Addresses**: every address that a name has is judged, and only a judged one is connected to ([`guard`]).
//! - **Bounds**: what a sink can hold is ten seconds, one connection and 16 KiB ([`limits`]).
//!
//! ```no_run
//! use capstan_events::*;
//!
//! # async fn example(key: &std::path::Path) -> Result<(), Box<dyn std::error::Error>> {
//! let url = PublicUrl::parse("https://iam.example.com")?;
//! let client = Client::new(&url, ClientOptions::new(Policy::default(), Roots::load(None)?))?;
//! let signer = Signer::new(url, SigningKey::load(key)?, Vec::new())?;
//!
//! let sink = Sink::parse("https://hooks.example.com/iam", client.policy())?;
//! let now = UnixMillis::now();
//! let event = Event::new(EventFields {
//!     id: "7f01",
//!     source: signer.issuer().as_str(),
//!     kind: "dev.capstan.iam.group.created.v1",
//!     subject: "acme/platform",
//!     group: "acme",
//!     time: now,
//!     data: r#"{"actor": {"subject": "alice"}, "body": {"id": "acme/platform"}}"#.into(),
//! })?;
//! let token = signer.sign(&sink, "acme", &event, now)?;
//! match client.deliver(&sink, &event, &token, now).await {
//!     Outcome::Delivered => {}
//!     other => println!("{other:?}"),
//! }
//! # Ok(())
//! # }
//! ```

mod client;
mod clock;
mod event;
pub mod guard;
mod handshake;
pub mod limits;
mod outcome;
mod pool;
mod public_url;
mod resolve;
mod roots;
mod schedule;
mod signer;
mod sink;

pub use client::{Client, ClientError, ClientOptions};
pub use clock::UnixMillis;
pub use event::{Event, EventError, EventFields};
pub use guard::{AddressError, Policy, PolicyError};
pub use handshake::{
    CHALLENGE_EVENT_TYPE, CHALLENGE_PREFIX, ChallengeError, Challenged, Challenges, Consent,
};
pub use outcome::{Failure, FailureKind, Outcome};
pub use public_url::{PublicUrl, PublicUrlError};
pub use resolve::{Lookup, Resolve, SystemResolver};
pub use roots::{Roots, RootsError};
pub use schedule::{Circuit, Verdict};
pub use signer::{KeyError, SignError, Signer, SigningKey, TOKEN_TYPE, Token};
pub use sink::{Sink, SinkError, SinkHost};
