//! The program or person that makes a call.

use crate::transport::connection::Remote;
use crate::transport::peers::Peer;

/// Who makes a call. Limits go by its peer; capabilities of callers come with the management services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The other end of the connection.
    pub(crate) peer: Peer,
}

impl Caller {
    /// A caller that nothing is known of but its connection.
    pub(crate) fn of_connection(remote: Option<&Remote>) -> Self {
        Self { peer: Peer::of(remote) }
    }
}
