//! Sockets: what is listened on, which connections are taken, and who serves them.
//!
//! **Invariant**: nothing here knows a method, a service or a policy.

pub(crate) mod connection;
pub(crate) mod http;
pub(crate) mod listen;
pub(crate) mod peers;
pub(crate) mod workers;
