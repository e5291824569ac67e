//! The caller of a call.

use crate::transport::connection::Remote;
use crate::transport::peers::Peer;

/// The caller of a call. Limits apply to its peer. Capabilities of callers come with the management
/// services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The peer of the connection.
    pub(crate) peer: Peer,
}

impl Caller {
    /// A caller of which only the connection is known.
    pub(crate) fn of_connection(remote: Option<&Remote>) -> Self {
        Self { peer: Peer::of(remote) }
    }
}
