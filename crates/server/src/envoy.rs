//! Envoy's external authorization (`envoy.service.auth.v3`), and the route table that says what a
//! request requires.
//!
//! ```text
//! CheckRequest ─▶ request: canonical or malformed ─▶ authn: identity ─▶ routes: requirements
//!     ─▶ ask: decisions ─▶ answer: CheckResponse
//! ```
//!
//! **Invariants**: only this room uses Envoy's messages. A request passes only if one identity is
//! proved and every requirement is granted.
//!
//! Read `ext_authz`, `request`, `routes` with `routes/canonical` and `routes/table`, then `answer`.

pub(crate) mod answer;
pub mod ext_authz;
mod request;
pub mod routes;
