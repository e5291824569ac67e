//! Writes the header blocks of responses.
//!
//! Two fields stand in every good response: they are sent once in full and stay in the peer's table, so that such
//! a response has three bytes of header fields. All other fields are sent in full.

use http::{HeaderMap, StatusCode};

/// The state of one connection's header blocks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Writer {
    table: PeerTable,
}

/// What the peer's table holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum PeerTable {
    #[default]
    Empty,
    /// `grpc-status: 0` as number 62, and `content-type: application/grpc` as number 63.
    Filled,
    /// The peer has made its table smaller, which the next block must confirm (section 4.2).
    Unconfirmed,
    /// It is not used any more.
    Unused,
}

/// The `:status: 200` of every peer's table.
const STATUS_OK: u8 = 0x80 | 8;
const STATUS_NAME: u8 = 8;
const CONTENT_TYPE_NAME: u8 = 31;
const KEPT: u8 = 0x40;

/// `content-type: application/grpc` and `grpc-status: 0` in the peer's table. The later one has the lower number.
const GRPC_KEPT: u8 = 0x80 | 63;
const OK_KEPT: u8 = 0x80 | 62;

const GRPC: &[u8] = b"application/grpc";
const GRPC_STATUS: &[u8] = b"grpc-status";

impl Writer {
    /// The peer keeps at most this many bytes of fields.
    pub(crate) fn set_table_bytes_max(&mut self, bytes: u32) {
        if (bytes as usize) < super::TABLE_BYTES_MAX && self.table != PeerTable::Unused {
            self.table = PeerTable::Unconfirmed;
        }
    }

    /// The head of a good response, and after it its trailers. Both must be sent, in this order.
    pub(crate) fn ok(&mut self, to: &mut Vec<u8>) {
        self.confirm(to);
        to.push(STATUS_OK);
        match self.table {
            PeerTable::Filled => to.push(GRPC_KEPT),
            PeerTable::Empty => {
                to.push(KEPT | CONTENT_TYPE_NAME);
                string(to, GRPC);
            }
            PeerTable::Unconfirmed | PeerTable::Unused => {
                number(to, 0, 4, CONTENT_TYPE_NAME.into());
                string(to, GRPC);
            }
        }
    }

    /// The trailers of a good response, after [`Writer::ok`].
    pub(crate) fn ok_trailers(&mut self, to: &mut Vec<u8>) {
        match self.table {
            PeerTable::Filled => to.push(OK_KEPT),
            PeerTable::Empty => {
                to.push(KEPT);
                string(to, GRPC_STATUS);
                string(to, b"0");
                self.table = PeerTable::Filled;
            }
            PeerTable::Unconfirmed | PeerTable::Unused => {
                to.push(0);
                string(to, GRPC_STATUS);
                string(to, b"0");
            }
        }
    }

    /// A block of these fields, behind the status if there is one.
    pub(crate) fn fields(
        &mut self,
        to: &mut Vec<u8>,
        status: Option<StatusCode>,
        fields: &HeaderMap,
    ) {
        self.confirm(to);
        match status {
            None => {}
            Some(StatusCode::OK) => to.push(STATUS_OK),
            Some(status) => {
                to.push(STATUS_NAME);
                string(to, status.as_str().as_bytes());
            }
        }
        for (name, value) in fields {
            // A field that is never to be kept says so (section 6.2.3).
            to.push(if value.is_sensitive() { 0x10 } else { 0 });
            string(to, name.as_str().as_bytes());
            string(to, value.as_bytes());
        }
    }

    fn confirm(&mut self, to: &mut Vec<u8>) {
        if self.table == PeerTable::Unconfirmed {
            to.push(0x20); // A table of 0 bytes.
            self.table = PeerTable::Unused;
        }
    }
}

/// Writes an integer into the last `prefix` bits of `first` and the bytes after it (section 5.1).
pub(super) fn number(to: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let most = (1_usize << prefix) - 1;
    let low = |value: usize| value.to_le_bytes().first().copied().unwrap_or_default();
    if value < most {
        to.push(first | low(value));
        return;
    }
    to.push(first | low(most));
    let mut rest = value - most;
    while rest >= 0x80 {
        to.push(low(rest) | 0x80);
        rest >>= 7;
    }
    to.push(low(rest));
}

fn string(to: &mut Vec<u8>, text: &[u8]) {
    number(to, 0, 7, text.len());
    to.extend_from_slice(text);
}
