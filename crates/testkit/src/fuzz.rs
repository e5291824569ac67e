//! What must hold of any bytes at all: the bodies of the fuzz targets.
//!
//! Each body takes bytes, asks the product about them and panics if a rule is broken. The targets
//! in `fuzz/` only call them, with bytes that libFuzzer chooses by the code that they reach;
//! property tests call the same bodies, with bytes that are nearly right by design. So whatever a
//! long run finds becomes a test by handing its bytes to the body again.
//!
//! The bodies of `request` and `envoy` stand with the tests of the server, which this crate may not
//! know.

mod documents;
mod texts;
mod world;

pub use documents::{catalog, policy, policy_tests, routes};
pub use texts::path;
pub use world::world;
