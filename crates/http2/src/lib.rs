//! The server side of HTTP/2 (RFC 9113) with HPACK (RFC 7541), as far as gRPC needs it.
//!
//! ```text
//! bytes ─▶ Connection::next ─▶ Event: a request's head, a part of its body, its end
//! response ─▶ Connection::respond, data, trailers ─▶ Connection::pending ─▶ bytes
//! ```
//!
//! A [`Connection`] does no input and no output, knows no clock and starts no task. Its owner passes in what
//! has arrived, and writes what is pending. So it can be tested byte by byte, and it fits any socket.
//!
//! **Limits**: a connection holds one header block of at most twice [`Config::header_bytes_max`], a header table
//! of 4 KiB, and [`Config::streams_max`] streams. It holds no bodies. What it has to write grows by about as much as
//! is passed in, and by the responses. Its owner passes in nothing while the peer does not read.
//!
//! **Left out**, as a gRPC server needs none of it: server push, priorities (they are read and ignored, RFC 9113
//! section 5.3.2), upgrades from HTTP/1.1, extended CONNECT.
//!
//! Read `connection`, then `connection/receive` and `connection/send`; `head` makes a request of header fields, and
//! `hpack` reads them.

mod connection;
mod frame;
mod head;
mod hpack;

pub use connection::{Closed, Config, Connection, Event};
pub use frame::Reason;
pub use head::Head;
