//! The limits of the command line. Each has a test, or a reason in `tests/it/coverage.rs` why not.

use std::time::Duration;

/// Threads of a server beside those of the runtime and its workers: for files, the store, events and signatures.
pub(crate) const THREADS_SPARE: usize = 16;
/// Maximum time for connecting to a server.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time to find out, after a failed call, whether a server speaks HTTP/1.1.
pub(crate) const PROBE_TIME_MAX: Duration = Duration::from_secs(1);
/// Maximum time for a call to a server.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Maximum time for an export, a backup, an import or a change of the catalog: the largest takes minutes.
pub(crate) const TRANSFER_TIMEOUT: Duration = Duration::from_secs(600);
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
/// Maximum length of the name of a saved context, in bytes.
pub(crate) const CONTEXT_NAME_MAX: usize = 64;
/// Maximum size of the file of saved contexts, in bytes.
pub(crate) const CONTEXTS_BYTES_MAX: u64 = 1024 * 1024;
/// How often a management call that the server asks to repeat is repeated.
pub(crate) const RETRIES_MAX: u32 = 4;
/// Maximum wait before a management call is repeated. A server that asks for more is not asked again.
pub(crate) const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Wait before the first repetition, where the server names none. Each further wait is twice as long.
pub(crate) const RETRY_WAIT: Duration = Duration::from_millis(100);
/// Objects of a page of a management list (contract, section 7: a server sends no more).
pub(crate) const PAGE_OBJECTS: i32 = 1_000;
/// Maximum number of candidates in the error of an ambiguous name.
pub(crate) const CANDIDATES_SHOWN_MAX: usize = 10;
/// Maximum number of role bindings of one change (contract, section 6).
pub(crate) const BATCH_BINDINGS_MAX: usize = 1_000;
/// Maximum size of a key set of an identity, in bytes (`StaticKeys.jwks`).
pub(crate) const KEYS_BYTES_MAX: u64 = 64 * 1024;
/// Maximum number of root identities whose names `capstan iam tree` looks up, one call each.
pub(crate) const TREE_NAMES_MAX: usize = 100;
/// How often `capstan iam tree` lists anew because the policy changed between two lists.
pub(crate) const TREE_LISTINGS_MAX: usize = 3;
/// Size of the chunks of `capstan policy import`, in bytes: below [`MESSAGE_BYTES_MAX`].
pub(crate) const CHUNK_BYTES: usize = 1024 * 1024;
/// Chunks of `capstan backup` that wait to be verified.
pub(crate) const BACKUP_CHUNKS_MAX: usize = 16;
/// How many records `capstan audit list` shows unless `--limit` says another number.
pub(crate) const AUDIT_RECORDS_SHOWN: usize = 1_000;
/// Maximum length of a user name that apk takes in a URL, in bytes (`URL_USERLEN` of its libfetch).
pub(crate) const APK_USER_BYTES_MAX: usize = 256;
/// Maximum size of the code of an invite, or of the challenge of a sink, on standard input, in bytes: more than any has, with
/// white space around it.
pub(crate) const CODE_BYTES_MAX: usize = 1024;

/// Bytes of a configuration file.
pub(crate) const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Problems of a configuration file that are told.
pub(crate) const CONFIG_PROBLEMS_MAX: usize = 100;

/// Bytes of a file of TLS. A hundred certificates take 200 KiB.
pub(crate) const TLS_FILE_BYTES_MAX: u64 = 1 << 20;

/// Maximum time for one request to an issuer of a login.
pub(crate) const LOGIN_REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// Maximum size of an issuer's answer, in bytes. Discovery documents have about 5 KiB.
pub(crate) const LOGIN_BODY_BYTES_MAX: usize = 256 * 1024;
/// Maximum size of a token that is sent with calls, in bytes: a server takes no longer one.
pub(crate) const LOGIN_TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Maximum size of the file with a client's secret, in bytes.
pub(crate) const CLIENT_SECRET_BYTES_MAX: u64 = 4 * 1024;
/// How long `capstan auth login` waits for the browser.
pub(crate) const BROWSER_TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// Connections of the browser at a time: it opens some that it does not use.
pub(crate) const BROWSER_CONNECTIONS_MAX: usize = 16;
/// Maximum time for one connection of the browser.
pub(crate) const BROWSER_CONNECTION_TIME_MAX: Duration = Duration::from_secs(30);
/// Maximum size of the head of a browser's request, in bytes. A code has some hundred.
pub(crate) const BROWSER_HEAD_BYTES_MAX: usize = 32 * 1024;
/// How long `capstan auth login --device` waits at most, whatever the issuer says.
pub(crate) const DEVICE_TIME_MAX: Duration = Duration::from_secs(30 * 60);
/// How often an issuer is asked whether the person is done, if it does not say (RFC 8628, section 3.2).
pub(crate) const DEVICE_INTERVAL: Duration = Duration::from_secs(5);
/// The longest time between two such requests.
pub(crate) const DEVICE_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// How much longer that time is when the issuer asks for it (RFC 8628, section 3.5).
pub(crate) const DEVICE_SLOWER: Duration = Duration::from_secs(5);
/// How long before its end a kept token is refreshed.
pub(crate) const REFRESH_BEFORE: Duration = Duration::from_secs(30);
/// How far the clock of an issuer may be from this machine's.
pub(crate) const LOGIN_CLOCKS_APART: Duration = Duration::from_secs(60);
/// Maximum size of the file of the kept logins, in bytes.
pub(crate) const LOGINS_BYTES_MAX: u64 = 1024 * 1024;
/// How long a command waits for another one that changes the logins: longer than one refresh.
pub(crate) const LOGINS_LOCK_TIME_MAX: Duration = Duration::from_secs(30);
/// Wait between two looks whether it is done.
pub(crate) const LOGINS_LOCK_PAUSE: Duration = Duration::from_millis(50);
