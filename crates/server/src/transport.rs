//! Sockets: listeners, accepted connections, the workers that serve them, and limits by peer.
//!
//! ```text
//! listen: bind ─▶ workers: accept, limit, dispatch ─▶ connection: a socket in its worker
//!                    └─ peers, seats: who is connected    └▶ http2: streams become calls
//!                                                            └─ budget: bytes held for peers
//! tls: certificates from files, for the handshakes of both ports
//! http: the listener of the HTTP port, with its own limits
//! foreign: what clients of other protocols are told
//! ```
//!
//! **Invariant**: this room knows no method, no service and no policy.
//!
//! Read `listen`, `connection`, `peers`, `seats`, `workers`, `budget`, `http2`, `foreign`, `linger`, `tls`, then `http`.

pub(crate) mod budget;
pub(crate) mod connection;
pub(crate) mod foreign;
pub(crate) mod http;
pub(crate) mod http2;
mod linger;
pub(crate) mod listen;
pub(crate) mod peers;
pub(crate) mod seats;
pub(crate) mod tls;
pub(crate) mod workers;
