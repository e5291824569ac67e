//! Every limit of delivery. Sizes are in bytes unless the name says otherwise.

use std::time::Duration;

/// Most bytes of a sink's URL, and of `--public-url`.
pub const URL_BYTES_MAX: usize = 2_048;

/// The port of https. Beside it only ports from [`SINK_PORT_MIN`] up may be used.
pub const HTTPS_PORT: u16 = 443;

/// Lowest port of a sink beside 443. The ports below belong to other protocols (22 is SSH, 25 is SMTP), which must not
/// receive bytes that a stranger chose.
pub const SINK_PORT_MIN: u16 = 1_024;

/// Most networks that an operator allows beside the public addresses.
pub const ALLOWED_NETWORKS_MAX: usize = 64;

/// Most addresses of one name. A name with more is refused: every address is judged.
pub const ADDRESSES_MAX: usize = 32;

/// Most lookups of names under way at once. A lookup blocks a thread, also after its caller has given up.
pub const LOOKUPS_MAX: usize = 16;

/// Longest wait for a lookup, with its wait for a place among [`LOOKUPS_MAX`].
pub const LOOKUP_TIME_MAX: Duration = Duration::from_secs(3);

/// Longest wait for a TCP connection to one address. Then the next address is tried.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(3);

/// Longest exchange: lookup, connection, TLS, request and the head of the response together.
pub const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(10);

/// Most exchanges of one client at once. Further ones wait, and their time does not yet run.
pub const EXCHANGES_MAX: usize = 64;

/// How long a connection is used again. A later delivery looks the name up, judges its addresses and connects anew.
pub const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);

/// Most idle connections of one client, to all sinks together.
pub const IDLE_CONNECTIONS_MAX: usize = 256;

/// Most bytes of the head of a response, and of the read buffer of a connection.
pub const HEAD_BYTES_MAX: usize = 16 * 1_024;

/// Most header fields of a response.
pub const HEADERS_MAX: usize = 64;

/// Most bytes of a response's body that are read. A longer body ends the connection, and changes nothing else.
pub const BODY_BYTES_MAX: usize = 4 * 1_024;

/// Most bytes of a document that is read ([`Client::fetch`](crate::Client::fetch)). A longer one is an error.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1_024;

/// Longest wait for the body of a response. A later body ends the connection, and changes nothing else.
pub const BODY_TIME_MAX: Duration = Duration::from_secs(1);

/// Longest `Retry-After` that is honoured. A longer one is cut to this.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Most bytes of the text that explains a failure.
pub const DETAIL_BYTES_MAX: usize = 256;

/// Most bytes of the data of an event: a batch of 4 MiB (contract, section 7) as JSON.
pub const EVENT_DATA_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// Most bytes of each attribute of an event, before percent-encoding.
pub const EVENT_ATTRIBUTE_BYTES_MAX: usize = 2_048;

/// Most hexadecimal digits of an event's id.
pub const EVENT_ID_DIGITS_MAX: usize = 64;

/// How long the token of a delivery is valid.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(5 * 60);

/// Most bytes of a file with a private key.
pub const KEY_FILE_BYTES_MAX: u64 = 16 * 1_024;

/// Most keys that are published: the one that signs, and earlier or later ones.
pub const KEYS_MAX: usize = 4;

/// Most bytes of `--webhook-ca`.
pub const CA_FILE_BYTES_MAX: u64 = 1_024 * 1_024;

/// How long a challenge can be returned: a person may have to read a log first.
pub const CHALLENGE_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);

/// Upper bound of the wait before the first retry. It doubles with each failure.
pub const RETRY_WAIT_FIRST: Duration = Duration::from_secs(1);

/// Upper bound of the wait before any retry, apart from a longer `Retry-After`.
pub const RETRY_WAIT_MAX: Duration = Duration::from_secs(60 * 60);

/// Lower bound of the wait before any retry.
pub const RETRY_WAIT_MIN: Duration = Duration::from_millis(250);

/// How long after the first failure in a row the last attempt is made.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(3 * 24 * 60 * 60);
