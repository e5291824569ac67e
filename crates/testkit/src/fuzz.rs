//! The properties of any input bytes: the bodies of the fuzz targets.
//!
//! Each body passes bytes to the product and panics if a property does not hold. The targets in `fuzz/`
//! call the bodies with bytes from libFuzzer, which maximizes coverage. Property tests call the same bodies
//! with bytes that are nearly valid. So an input from a long run becomes a test if it is passed to the body.
//!
//! The bodies of `request` and `envoy` are with the tests of the server, because this crate must not depend
//! on the server.

mod connection;
mod documents;
mod texts;
mod world;

pub use connection::connection;
pub use documents::{callers, catalog, policy, policy_tests, routes, same_snapshots};
pub use texts::path;
pub use world::world;
