//! The limits of the command line. Each has a test, or a reason in `tests/it/coverage.rs` why not.

use std::time::Duration;

/// Maximum time for connecting to a server.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time to find out, after a failed call, whether a server speaks HTTP/1.1.
pub(crate) const PROBE_TIME_MAX: Duration = Duration::from_secs(1);
/// Maximum time for a call to a server.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum size of a message from a server, in bytes (contract, section 7).
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Size, in bytes, beyond which no further check is added to a message of `check --file`: well below
/// [`MESSAGE_BYTES_MAX`], so that its answer fits too.
pub(crate) const MESSAGE_BYTES: usize = 1024 * 1024;
/// Maximum length of a query line, in bytes. A longer line does not fit into a message.
pub(crate) const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Maximum time for one scrape of a server's metrics by `capstan top`.
pub(crate) const SCRAPE_TIME_MAX: Duration = Duration::from_secs(2);
/// Maximum size of the scraped text, in bytes. A server sends about 25 KiB.
pub(crate) const SCRAPE_BYTES_MAX: usize = 1024 * 1024;
/// Minimum interval between two scrapes.
pub(crate) const TOP_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Maximum interval between two scrapes.
pub(crate) const TOP_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// The time that the curves of `capstan top` cover.
pub(crate) const TOP_HISTORY: Duration = Duration::from_secs(5 * 60);
/// Wait between two looks at the files of `policy test --watch`, and how long they must be the same after a change.
pub(crate) const WATCH_PERIOD: Duration = Duration::from_millis(200);
/// Maximum time for the candidates of a shell's completion. Later ones are not offered, and nothing is said.
pub(crate) const COMPLETION_TIME_MAX: Duration = Duration::from_millis(500);
/// Maximum number of candidates. Bash asks before it lists 100. A path continues with one of 71 characters or ends,
/// so that one more character always tells apart what does not fit.
pub(crate) const COMPLETION_CANDIDATES_MAX: usize = 80;
/// Maximum number of capabilities whose scopes are asked for one completion.
pub(crate) const COMPLETION_CALLS_MAX: usize = 4;
