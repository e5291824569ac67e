//! Every limit of the server, in one place: what it bounds, its unit, and why it has this value.
//!
//! Limits of documents and of paths are constants of `capstan-policy` and `capstan-engine`.
//!
//! **Invariant**: every limit has a test, or a named exemption in `crates/cli/tests/it/coverage.rs`.

mod store;
mod tokens;

use std::num::NonZero;
use std::time::Duration;

pub use store::*;
pub use tokens::*;

// === Messages and headers ===

/// Bytes of one gRPC message, request or response (contract, section 7). A batch of
/// [`BATCH_CHECKS_MAX`] checks fits.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a request that is neither a batch nor Envoy's (contract, section 7).
pub const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a request for health (contract, section 7).
pub const HEALTH_BYTES_MAX: usize = 4 * 1024;
/// Bytes by which a message that is compressed with gzip may be longer than the limit of plain ones. What
/// does not compress becomes longer: 4 MiB by 1,300 bytes. After decompression the limit is that of plain messages.
pub const GZIP_OVERHEAD_MAX: usize = 8 * 1024;
/// Bytes of a compressed message that are decompressed in one poll. A block that holds nothing has 11 bytes
/// and costs as much as a long one, so what is read is limited, too.
pub const GZIP_INPUT_PIECE: usize = 512;
/// Bytes of plain message that one poll compresses, or begins to decompress into; it may add 32 KiB to these.
pub const GZIP_PIECE: usize = 16 * 1024;
/// Bytes of a message of an answer above which it is compressed, if the client takes gzip (contract, section 7).
pub const COMPRESSED_ANSWER_MIN: usize = 1024;
/// Checks in one batch (contract, section 7).
pub const BATCH_CHECKS_MAX: usize = capstan_proto::contract::BATCH_CHECKS_MAX;
/// Properties of one question, of subject, resource, action and context together (contract, section 7).
pub const PROPERTIES_MAX: usize = 256;
/// Concurrent streams on one HTTP/2 connection (contract, section 7). The default of tonic is no
/// limit.
pub const CONNECTION_STREAMS_MAX: u32 = 256;
/// Bytes of a request's header list (contract, section 7).
pub const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Flow control window of a stream (RFC 9113, section 6.9): bytes that a peer may send of one body
/// before the server reads them. A quarter of the longest message, so that a batch needs few rounds.
pub const STREAM_WINDOW: u32 = 1024 * 1024;
/// Flow control window of a connection: bytes of all its bodies that the server has not read.
pub const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// Bytes of answers of one connection that are ready to be written before further ones wait. Enough to
/// fill a socket's buffer.
pub const UNSENT_MAX: usize = 256 * 1024;
/// Bytes of a connection, beside bodies of calls, that are held without a charge to its budget. Most of the time
/// a connection holds less: the start of a frame.
pub const UNCHARGED_MAX: usize = 4 * 1024;
/// Bytes that are read from a socket at a time. The buffer is the thread's. It holds at least one frame, which
/// has at most 16 KiB.
pub const READ_BYTES: usize = 64 * 1024;
/// Streams of one connection on which the peer may break a rule of HTTP/2, or that it may open above
/// [`CONNECTION_STREAMS_MAX`]; then the connection ends.
pub const FAULTS_MAX: u32 = 1_024;
/// Wait for a peer to close a connection that has ended after a GOAWAY, or whose handshake has failed. It reads its last answers meanwhile.
pub const LINGER_MAX: Duration = Duration::from_millis(500);
/// Bytes that are read and dropped meanwhile: the peer's bodies on their way, and as many bytes of frames beside them.
pub const LINGER_BYTES_MAX: usize = 2 * CONNECTION_WINDOW as usize;
/// Bytes held for all peers: of bodies that are not complete or not decoded, and of answers that are
/// not read. Sixteen of the longest messages.
pub const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The same for one peer: half of all, so that no single peer can hold all of them.
pub const PEER_HELD_BYTES_MAX: usize = HELD_BYTES_MAX / 2;
/// The same for one connection: four of the longest messages.
pub const CONNECTION_HELD_BYTES_MAX: usize = 4 * MESSAGE_BYTES_MAX;
/// Time for which a peer may leave an answer unread before its stream is reset.
pub const STALLED_STREAM_MAX: Duration = Duration::from_secs(30);
/// Time for which a peer may read nothing before its connection is closed.
pub const STALLED_CONNECTION_MAX: Duration = Duration::from_secs(60);

// === New calls ===

/// Bytes of the body of a call that are read before it starts. The longest valid plain check has less
/// than 3 KiB.
pub const SHORT_BODY_MAX: usize = 16 * 1024;
/// Wait of a new call for its body; then it starts without it, with a permit and a deadline. Clients
/// send head and body at once, so a longer wait is a slow or hostile client.
pub const SHORT_WAIT_MAX: Duration = Duration::from_millis(5);
/// Frames that the task of a connection takes in one wake; then other tasks run. As many as 256 calls need, and as many again. The
/// smallest ones are 70 microseconds of work, and [`READ_BYTES`] of them half a millisecond.
pub const FRAMES_MAX: usize = 1_024;
/// Times that the task of a connection looks for more in one wake; then other tasks run. So they do after half of
/// [`READ_BYTES`].
pub const ROUNDS_MAX: usize = 2;
/// Polls of tasks of one worker between two looks at its sockets. Calls with a task of their own may take a tenth of a
/// millisecond a poll. The default of tokio is 61.
pub const POLLS_MAX: u32 = 16;
/// Calls other than plain checks that a connection starts in one wake; further ones wait until others had their turn, and
/// meanwhile the connection reads nothing. A batch of 100 checks takes 30 microseconds.
pub const STARTED_CALLS_MAX: usize = 4;
/// Time for which a connection reads nothing after a call of it was shed, because its peer has no permit left. Then it sheds many at once: one
/// by one, reading and answering them would take a third of a core at ten times what it can do. Not if
/// plain checks were answered in the same wake.
pub const SHED_REST: Duration = Duration::from_millis(5);
/// Calls that learn at once that their connection has ended. Those that are left learn it after other connections had
/// their turn: each runs to be dropped, and a connection has up to [`CONNECTION_STREAMS_MAX`].
pub const ENDED_CALLS_MAX: usize = 8;

// === Lists and revisions ===

/// Entries in a page whose request has `page_size` 0 (contract, section 7).
pub const PAGE_DEFAULT: usize = 100;
/// Entries in a page; a larger `page_size` is served as this one (contract, section 7).
pub const PAGE_MAX: usize = 1_000;
/// Bytes of conditional entries after which a page ends. An entry has less than 1 MiB: 20 bindings of 16 tests, with
/// paths, names and values of 1 KiB. So a page fits into a message, with [`PAGE_MAX`] paths beside them.
pub const PAGE_CONDITIONS_BYTES: usize = 1024 * 1024;
/// Wait of a call for a revision that this server does not have yet. A quarter of
/// [`UNARY_TIME_MAX`], so that the call still ends within its deadline. Also the retry delay that
/// clients get when the revision does not arrive.
pub const REVISION_WAIT_MAX: Duration = Duration::from_millis(250);
/// Time for which a replaced revision is kept of which a page of a list was given, so that the list can be finished on the revision
/// on which it began. A client has one minute from the replacement for the remaining pages.
pub const KEPT_TIME: Duration = Duration::from_secs(60);
/// Bytes of index of all kept revisions together; the served revision does not count. Beyond it,
/// the oldest is freed first. It bounds the memory that frequent writes beside lists can take.
pub const KEPT_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Bytes of index from which on a replaced revision is freed at the next tick, by a thread of its own: to free a large index takes a tenth of a
/// second, in which the writer would write nothing.
pub const FREED_LATER_BYTES: usize = 16 * 1024 * 1024;
/// Earlier revisions that keep their view of the store's objects for a paged list. Each holds the old pages of the
/// file that later writes replaced; the oldest one holds most of them, so a further one costs little. Beyond it the
/// oldest list has to begin anew.
pub const PINNED_VIEWS_MAX: usize = 1_024;
/// Identities whose decisions are compared with the rules before a snapshot may serve. It bounds
/// the time that the self-check adds to a load.
pub const SELF_CHECK_IDENTITIES: usize = 256;

// === Watched files ===

/// Time for which a replaced file must not change before it is loaded: its writer may not be done.
/// Short, because a file that is renamed into place is complete.
pub const SETTLE: Duration = Duration::from_millis(50);
/// The same for a file that is written in place. Longer, because the first half of a document can
/// be a valid policy.
pub const SETTLE_IN_PLACE: Duration = Duration::from_millis(250);
/// Wait for a changing file to settle. A file that is still being written in place after this time
/// is not loaded; the next tick tries again. Four times [`SETTLE_IN_PLACE`].
pub const SETTLE_MAX: Duration = Duration::from_secs(1);
/// Interval between checks of every file without a file event. The target of a symbolic link
/// changes without an event, and an unreadable file may become readable. A check is one `stat`.
pub const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Time after which a file that could not be read may be read again, whatever happens in its folder. Less than
/// [`LOOK_AGAIN`], so that the next check reads it.
pub const READ_AGAIN: Duration = Duration::from_secs(1);

// === The clock ===

/// Time between two looks at the wall clock. A step of it is followed after this time.
pub const CLOCK_LOOK: Duration = Duration::from_millis(1);
/// The least change of the wall clock that counts as a step, which is logged. NTP daemons step only by more
/// than this; less is slewed, in both clocks alike.
pub const CLOCK_STEP_MIN: Duration = Duration::from_millis(100);
/// Time after which a step forward is right: a later step back does not undo it. A wrong clock is
/// noticed within a day, and afterwards nobody can turn back the time that has passed since.
pub const CLOCK_STEP_TRUSTED: Duration = Duration::from_secs(24 * 60 * 60);

// === Calls ===

/// Server-side deadline of a call that is not a stream. The longest wait inside a call is
/// [`REVISION_WAIT_MAX`]; the rest of the time is for a request that arrives slowly.
pub const UNARY_TIME_MAX: Duration = Duration::from_secs(1);
/// Server-side deadline of a call that changes the policy. It may wait for the writer's queue and for a slow disk: fsync
/// of a busy disk takes seconds.
pub const WRITE_TIME_MAX: Duration = Duration::from_secs(10);
/// A `grpc-timeout` below this has passed when the request arrives: the call is refused at once.
pub const TIMEOUT_MIN: Duration = Duration::from_micros(1);
/// Checks of a batch that is answered without a turn to compute. Such a batch takes about 20 µs,
/// which delays no other call noticeably.
pub const SHORT_BATCH_MAX: usize = 64;
/// Calls in flight in the whole server. A call that waits for nothing ends in microseconds, so
/// these are slow requests, waits for a revision and open streams: eight connections of
/// [`CONNECTION_STREAMS_MAX`] streams.
pub const IN_FLIGHT_MAX: usize = 2_048;
/// Calls in flight from one peer: half of all, so that no single peer can hold every permit.
pub const PEER_IN_FLIGHT_MAX: usize = IN_FLIGHT_MAX / 2;
/// Management calls in flight, in the whole server. They have permits of their own: writes that wait for a slow disk
/// must not take those of decisions.
pub const MANAGEMENT_MAX: usize = 512;
/// The same from one peer: half of all.
pub const PEER_MANAGEMENT_MAX: usize = MANAGEMENT_MAX / 2;
/// Calls of health and reflection in flight, in the whole server. A gRPC client that watches health
/// holds one for each connection.
pub const PROBES_MAX: usize = CONNECTIONS_MAX;
/// The same from one peer: half of all.
pub const PEER_PROBES_MAX: usize = PROBES_MAX / 2;
/// Mean retry push-back of a shed call. Each call gets a random value from half of it to one and a
/// half times it, so that clients do not all return at once.
pub const RETRY_PUSHBACK: Duration = Duration::from_millis(100);

// === Connections ===

/// Age at which a connection gets a GOAWAY; it closes when its calls are over. Clients behind a
/// balancer then also reach servers that started later. Ten minutes make the cost of the handshake
/// negligible.
pub const CONNECTION_AGE: Duration = Duration::from_secs(10 * 60);
/// Jitter of [`CONNECTION_AGE`], as a divisor: 10 means up to a tenth below or above. Each connection
/// draws its own, so clients that connected together do not leave together.
pub const CONNECTION_AGE_JITTER_PART: u32 = 10;
/// Time that a peer has to leave a connection at its age. One that does not answer can open no more streams then.
pub const LEAVING_MAX: Duration = Duration::from_secs(10);
/// Idle time of a connection after which the server sends a ping. A peer that vanished would
/// otherwise hold streams, tasks and the drain. Also the idle time before TCP keepalive probes.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Wait for the answer to that ping; after it, the connection closes.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Wait for the HTTP/2 connection preface of a new connection. Age and keepalive start only after it,
/// so nothing else ends a silent connection.
pub const GREETING_MAX: Duration = Duration::from_secs(5);
/// Open gRPC connections. For a further one the connection yields that has been idle longest; if none is
/// idle, the further one is closed as soon as it is accepted. Each takes a file
/// descriptor and about 30 KiB, so all take about 300 MiB.
pub const CONNECTIONS_MAX: usize = 10_240;
/// Open gRPC connections from one peer: half of all, so that no single peer can hold all of them.
pub const PEER_CONNECTIONS_MAX: usize = CONNECTIONS_MAX / 2;
/// Idle time after which a connection yields to a new one that has no place. Clients that call again and
/// again are never idle for that long.
pub const YIELD_IDLE_MIN: Duration = Duration::from_secs(1);
/// File descriptors that the server requests where the hard limit is unlimited: twice what
/// connections take, so that files, sockets and HTTP connections have enough.
pub const FILES_WANTED: u64 = 2 * CONNECTIONS_MAX as u64;
/// Accepted connections that wait in the queue of one worker. A worker takes a connection in
/// microseconds; when the queue is full, further connections wait in the kernel.
pub const ACCEPTED_MAX: usize = 256;
/// Pause after a failed accept. The likely cause is a lack of file descriptors, and another
/// connection may free one soon. Without the pause the acceptor would spin.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Wait after the end of a connection, until its worker gives back the memory that was freed. One time for all that end meanwhile.
pub const GIVE_BACK_WAIT: Duration = Duration::from_secs(1);

// === TLS ===

/// Time between two looks whether a file of TLS has changed. One that has is loaded when it has rested for as long.
pub const TLS_LOOK: Duration = Duration::from_secs(1);
/// Time over which certificates of open connections are verified again behind a change, so that checks do not wait for thousands of them.
pub const TLS_SPREAD_MAX: Duration = Duration::from_secs(2);
/// Time after which a certificate of an open connection is looked at again at the latest: whoever sets a clock, or suspends a machine, wakes no task.
pub const TLS_DOUBT_MAX: Duration = Duration::from_secs(60);
/// Time after which files of TLS that did not load are tried again although they are the same: there may be a descriptor again.
pub const TLS_RETRY: Duration = Duration::from_secs(30);
/// Bytes that a handshake reads, of gRPC: a greeting has 2 KB, and a client's chain of certificates up to 10.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 16 << 10;
/// DNS names that are read of a client's certificate: each call looks for a caller of each. Whoever has more is nobody.
pub const TLS_DNS_NAMES_MAX: usize = 32;
/// Bytes of a file of TLS. A hundred certificates take 200 KiB.
pub const TLS_FILE_BYTES_MAX: u64 = 1 << 20;
/// Bytes of a file with lists of revoked certificates.
pub const TLS_LIST_BYTES_MAX: u64 = 16 << 20;
/// Bytes of answers that a connection holds encrypted, until its peer reads them: one record of TLS.
pub const TLS_BUFFER_MAX: usize = 16 << 10;

// === Drain ===

/// Time from the stop signal to the end of the drain; then open connections are cut off. The final
/// flushes of the decision log and of spans follow, at once. Together that is 9.5 s, less than the 10 s
/// after which Docker kills a process.
pub const DRAIN_MAX: Duration = Duration::from_secs(9);
/// Time for which a stream whose batches never pause is still answered during a drain. A third of
/// [`DRAIN_MAX`], so that its client has time to reconnect elsewhere.
pub const STREAM_DRAIN_MAX: Duration = Duration::from_secs(3);

// === HTTP ===

/// Open HTTP connections. For a further one, the oldest that is not being answered yields. Probes and
/// scrapers need few, and file descriptors must be left for gRPC.
pub const HTTP_CONNECTIONS_MAX: usize = 256;
/// The same from one peer: a quarter of all. Further ones are closed.
pub const HTTP_PEER_CONNECTIONS_MAX: usize = HTTP_CONNECTIONS_MAX / 4;
/// Time for the head of an HTTP request, from its first byte to the answer.
pub const HTTP_HEAD_MAX: Duration = Duration::from_secs(5);
/// Time for which an HTTP connection may wait for its first request, and time for an answer and the
/// wait for the next request together.
pub const HTTP_IDLE_MAX: Duration = Duration::from_secs(30);
/// Open streams of an HTTP/2 connection to the address for probes. A prober has one.
pub const PROBE_STREAMS_MAX: u32 = 4;
/// Time for which an answer with the metrics at that address is given to others, too. Peers that do not read theirs then hold ten of
/// them a second, of 45 KB each, and not one for each request.
pub const PROBE_METRICS_SHARED: Duration = Duration::from_millis(100);
/// Bytes that a stream of such a connection may send before they are read: a few requests of health, each of at
/// most [`HEALTH_BYTES_MAX`].
pub const PROBE_STREAM_WINDOW: u32 = 16 << 10;
/// The same of a whole such connection, the one that HTTP/2 begins with. What all [`HTTP_CONNECTIONS_MAX`] of them send
/// takes at most 16 MiB.
pub const PROBE_CONNECTION_WINDOW: u32 = 65_535;
/// Bytes of the headers of a request on such a connection.
pub const PROBE_HEADER_LIST_MAX: u32 = 16 << 10;
/// Wait for HTTP connections to close in a drain. Short, because every HTTP response is quick.
pub const HTTP_DRAIN_MAX: Duration = Duration::from_millis(500);

// === Decision log ===

/// Lines in the queue of the decision log. Far more than are decided in one [`DECISION_LOG_TICK`].
/// Beyond it lines are lost, and counted.
pub const DECISION_LOG_LINES_MAX: usize = 65_536;
/// Bytes of memory of those lines: 256 bytes a line when the queue is full.
pub const DECISION_LOG_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of one field of a line. No valid path or capability is longer; a longer text is malformed,
/// and is cut.
pub const DECISION_LOG_FIELD_BYTES_MAX: usize = 1_024;
/// Interval at which the writer polls its queue, so that a check never has to wake it.
pub const DECISION_LOG_TICK: Duration = Duration::from_millis(50);
/// Bytes that the writer gathers for one `write`, so that a system call is paid for many lines.
pub const DECISION_LOG_WRITE_BYTES: usize = 64 * 1024;
/// Shortest time between two lines in the log that report lost lines.
pub const DECISION_LOG_LOST_PAUSE: Duration = Duration::from_secs(1);
/// Wait for the writer at the end of a drain. The reader of a pipe may have stopped reading.
pub const DECISION_LOG_FLUSH_MAX: Duration = Duration::from_millis(500);

// === Traces ===

/// Spans in the queue of the exporter; beyond it spans are lost.
pub const SPANS_MAX: usize = 2_048;
/// Wait for a connection to the collector.
pub const EXPORT_CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time to export one batch of spans.
pub const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// Wait for the last spans at the end of a drain. The collector may be gone.
pub const SPANS_FLUSH_MAX: Duration = Duration::from_millis(500);
/// Bytes of a trace context header; a longer one is ignored. A `traceparent` of today has 55 bytes.
pub const TRACE_HEADER_BYTES_MAX: usize = 1_024;

// === Management ===

/// Bytes of a `request_id`. A UUID has 36.
pub const REQUEST_ID_BYTES_MAX: usize = 128;
/// Bytes of the filter of a list.
pub const FILTER_BYTES_MAX: usize = 4_096;
/// Terms of the filter of a list. No object has more scalar fields.
pub const FILTER_TERMS_MAX: usize = 16;
/// Objects that one page of a management list looks at. It bounds the time of a page that finds little.
pub const SCANNED_MAX: usize = 10_000;
/// Bytes of objects or audit records that one page looks at. It bounds the same if they are long: 32 MiB take some 100 ms
/// to read and decode.
pub const SCANNED_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of the objects before and after a change that an audit record in a list has: with the largest request before and
/// after it fits into a page of 4 MiB, whose record in the store may have 12 MiB.
pub const AUDIT_OBJECTS_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 2;
/// Bytes in one message of an export or a backup.
pub const EXPORT_CHUNK_BYTES: usize = 64 * 1024;
/// Parts of an export or a backup that wait for a slow client.
pub const EXPORT_PARTS_MAX: usize = 4;
/// Time that a part of an export or a backup waits for its client. Each of them keeps a revision of the store, whose old pages cannot
/// be used again meanwhile.
pub const EXPORT_STALL_MAX: Duration = Duration::from_secs(30);
/// Time of an export or a backup, however fast its client reads. A document of 256 MiB needs 430 KiB a second, a backup of
/// 5 GiB 9 MiB.
pub const EXPORT_TIME_MAX: Duration = Duration::from_secs(10 * 60);
/// Bytes of a document of callers.
pub const CALLERS_BYTES_MAX: u64 = 1024 * 1024;
/// Time after which an export judges its caller again if no other revision is published: a role binding may have ended.
pub const EXPORT_JUDGED_TIME: Duration = Duration::from_secs(1);
/// Watches at a time. Each reads the change log when something changes.
pub const WATCHES_MAX: usize = 256;
/// The same of one caller: a sixteenth of all.
pub const CALLER_WATCHES_MAX: usize = 16;
/// Time after which a watch without changes says how far it is (contract, section 6).
pub const WATCH_CHECKPOINT: Duration = Duration::from_secs(10);
/// Revisions that a watch reads at a time.
pub const WATCH_READ_REVISIONS: usize = 256;
/// Bytes of changes after which it reads no further revision before they are sent.
pub const WATCH_READ_BYTES: usize = 1024 * 1024;
/// Subscriptions that are delivered at a time. More are told nothing, and the log says which.
pub const SUBSCRIPTIONS_SERVED_MAX: usize = 4_096;
/// Attempts at a time at sinks that failed last or have not consented: a quarter of all attempts.
pub const SUSPECTS_MAX: usize = 16;
/// The longest that a call is expected to wait for its turn to compute, from how long turns take: half of the time that a call has.
/// One that would wait for longer is refused at once.
pub const TURN_WAIT_MAX: Duration = Duration::from_millis(500);
/// Identities that one page of a subject search evaluates: a page with fewer results has a token as well.
pub const SEARCH_EVALUATED_MAX: usize = 100_000;
/// Time to ask an issuer for its discovery document and its keys, when a provider without keys of its own is saved.
pub const DISCOVERY_TIME_MAX: Duration = Duration::from_secs(3);
/// Issuers that are asked at a time. Of more, a provider is saved with a warning.
pub const DISCOVERIES_MAX: usize = 16;
/// The same of one caller: an eighth of all.
pub const CALLER_DISCOVERIES_MAX: usize = 2;
/// Keys that an issuer publishes.
pub const DISCOVERED_KEYS_MAX: usize = 100;
/// Threads that deliver events, if the machine has as many cores. They give way to those that decide.
pub const EVENT_THREADS_MAX: usize = 4;
/// Last revisions of the change log that deliveries share.
pub const RECENT_REVISIONS_MAX: usize = 1_024;
/// Bytes of their records. As objects they take a few times as many.
pub const RECENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Time after which a delivery that has nothing to do passes over what does not concern it.
pub const DELIVERY_PASSES_OVER: Duration = Duration::from_secs(10);
/// Revisions of the change log that a delivery reads at a time.
pub const DELIVERY_READ_REVISIONS: usize = 64;
/// Objects that changed after which it reads no further revision.
pub const DELIVERY_READ_CHANGES: usize = 256;
/// Time after which what a creator may list is judged again between two events of one revision: a binding may have ended.
pub const DELIVERY_JUDGED_FOR: Duration = Duration::from_secs(10);
/// Time of an attempt after which its revision is let go, and another one is looked at for the next event.
pub const REVISION_HELD: Duration = Duration::from_millis(100);
/// Time between two saves of how far deliveries are. After a crash so much is delivered again.
pub const POSITIONS_SAVED: Duration = Duration::from_millis(200);
/// Wait of a delivery after the store could not be read or written.
pub const DELIVERY_PAUSE: Duration = Duration::from_secs(1);
/// Time after which a challenge is posted again to a sink that has not consented: half of its life.
pub const CHALLENGE_PAUSE: Duration = Duration::from_secs(12 * 60 * 60);
/// Exports at a time. Each has a thread.
pub const EXPORTS_MAX: usize = 8;
/// The same of one caller: a quarter of all.
pub const CALLER_EXPORTS_MAX: usize = 2;
/// Backups at a time. Each has a thread, reads the whole store, and keeps a revision of it.
pub const BACKUPS_MAX: usize = 2;
/// Time that an import waits for the next part of its document. Other imports wait meanwhile.
pub const IMPORT_STALL_MAX: Duration = Duration::from_secs(30);
/// Imports and changes of the catalog at a time; further ones wait. An import needs memory for its whole document, its
/// objects and the next index, many times the bytes of the document.
pub const IMPORTS_MAX: usize = 1;
/// Bytes of the answer that says who gains or loses what: what fits into one message.
pub const ACCESS_CHANGES_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// Time to find out who gains or loses what. Then the answer is cut: the change is made, and its caller waits.
pub const ACCESS_TIME_MAX: Duration = Duration::from_secs(4);
/// Problems of a document that the answer to an import names.
pub const PROBLEMS_MAX: usize = 10;
/// Bytes of a page of a management list beside its objects: the token, the catalog's name, the revision.
pub const PAGE_REST_BYTES: usize = 4_096;
/// Bytes of a page token of a management list. The longest id, with nonce, revision and authentication tag, takes 1,430.
pub const PAGE_TOKEN_BYTES_MAX: usize = 2_048;

// === Requests of Envoy ===

/// Bytes of the path and query of a request that Envoy asks about: what common servers take.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;
/// Segments of its path. It bounds the work to find a route.
pub const TARGET_SEGMENTS_MAX: usize = 64;
/// Parameters of its query. It bounds the work to find a route.
pub const QUERY_PARAMETERS_MAX: usize = 64;
/// Headers of the request. Envoy's own default is 100.
pub const HTTP_HEADERS_MAX: usize = 256;
/// Bytes of an `Authorization` header; a longer one proves no identity. A token as the password of `Basic` takes a third more.
pub const AUTHORIZATION_BYTES_MAX: usize = 12 * 1024;
/// Colons in the user and password of `Basic`; with more, they prove no identity. The password is
/// hashed once for each.
pub const BASIC_COLONS_MAX: usize = 32;
/// Bytes of the header with the reason of a refusal. A longer reason is cut.
pub const REASON_HEADER_BYTES_MAX: usize = 1024;

/// References that a start writes at once into a store of an earlier version.
pub(crate) const REFERENCES_AT_ONCE: usize = 100_000;

/// Quotas of organizations and of callers. The operator has none but that of objects of an organization.
#[derive(Clone, Copy, Debug)]
pub struct Quotas {
    /// Objects of an organization.
    pub organization_objects: u64,
    /// Objects that one caller has made and that are still there.
    pub creator_objects: u64,
    /// Changes in an organization in a minute.
    pub organization_changes: u32,
    /// Changes that one caller asks for in a minute, also those that are refused or only validated.
    pub creator_changes: u32,
}

/// [`Quotas`], unless the operator sets others: what one server holds in a few gigabytes, and what its disk takes.
pub const QUOTAS: Quotas = Quotas {
    organization_objects: 10_000_000,
    creator_objects: 1_000_000,
    organization_changes: 60_000,
    creator_changes: 6_000,
};

/// Limits that can differ between servers, such as those of tests. All other limits are constants.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// See [`QUOTAS`].
    pub quotas: Quotas,
    /// See [`AUDIT_RECORDS_MAX`].
    pub audit_records_max: u64,
    /// See [`MESSAGE_BYTES_MAX`].
    pub message_bytes_max: usize,
    /// See [`IN_FLIGHT_MAX`].
    pub in_flight_max: usize,
    /// See [`PEER_IN_FLIGHT_MAX`].
    pub peer_in_flight_max: usize,
    /// Turns to compute: calls that compute at once, in the whole server. Check and batches of up
    /// to [`SHORT_BATCH_MAX`] checks need none, because they take microseconds. The default is the
    /// number of processors: further calls then wait for their turn, where they are counted as in
    /// flight, and not in the runtime's queue. With `Runtime::PerCore`
    /// each worker has one turn, or none if this is 0.
    pub computing_max: usize,
    /// See [`MANAGEMENT_MAX`].
    pub management_max: usize,
    /// See [`PEER_MANAGEMENT_MAX`].
    pub peer_management_max: usize,
    /// See [`PROBES_MAX`].
    pub probes_max: usize,
    /// See [`PEER_PROBES_MAX`].
    pub peer_probes_max: usize,
    /// See [`UNARY_TIME_MAX`].
    pub unary_time_max: Duration,
    /// See [`WRITE_TIME_MAX`].
    pub write_time_max: Duration,
    /// See [`CONNECTIONS_MAX`].
    pub connections_max: usize,
    /// See [`PEER_CONNECTIONS_MAX`].
    pub peer_connections_max: usize,
    /// See [`YIELD_IDLE_MIN`].
    pub yield_idle_min: Duration,
    /// See [`GREETING_MAX`].
    pub greeting_max: Duration,
    /// See [`HELD_BYTES_MAX`].
    pub held_bytes_max: usize,
    /// See [`PEER_HELD_BYTES_MAX`].
    pub peer_held_bytes_max: usize,
    /// See [`CONNECTION_HELD_BYTES_MAX`].
    pub connection_held_bytes_max: usize,
    /// See [`STALLED_STREAM_MAX`].
    pub stalled_stream_max: Duration,
    /// See [`STALLED_CONNECTION_MAX`].
    pub stalled_connection_max: Duration,
    /// See [`HTTP_CONNECTIONS_MAX`].
    pub http_connections_max: usize,
    /// See [`HTTP_PEER_CONNECTIONS_MAX`].
    pub http_peer_connections_max: usize,
    /// See [`HTTP_HEAD_MAX`].
    pub http_head_max: Duration,
    /// See [`HTTP_IDLE_MAX`].
    pub http_idle_max: Duration,
    /// See [`KEPT_TIME`].
    pub kept_time: Duration,
    /// See [`KEPT_BYTES_MAX`].
    pub kept_bytes_max: usize,
    /// See [`CONNECTION_AGE`].
    pub connection_age: Duration,
    /// [`LEAVING_MAX`].
    pub leaving_max: Duration,
    /// See [`KEEPALIVE_INTERVAL`].
    pub keepalive_interval: Duration,
    /// See [`KEEPALIVE_TIMEOUT`].
    pub keepalive_timeout: Duration,
    /// See [`DECISION_LOG_LINES_MAX`].
    pub decision_log_lines_max: usize,
    /// See [`DECISION_LOG_BYTES_MAX`].
    pub decision_log_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            quotas: QUOTAS,
            audit_records_max: AUDIT_RECORDS_MAX,
            message_bytes_max: MESSAGE_BYTES_MAX,
            in_flight_max: IN_FLIGHT_MAX,
            peer_in_flight_max: PEER_IN_FLIGHT_MAX,
            computing_max: std::thread::available_parallelism().map_or(1, NonZero::get),
            management_max: MANAGEMENT_MAX,
            peer_management_max: PEER_MANAGEMENT_MAX,
            probes_max: PROBES_MAX,
            peer_probes_max: PEER_PROBES_MAX,
            unary_time_max: UNARY_TIME_MAX,
            write_time_max: WRITE_TIME_MAX,
            connections_max: CONNECTIONS_MAX,
            peer_connections_max: PEER_CONNECTIONS_MAX,
            yield_idle_min: YIELD_IDLE_MIN,
            greeting_max: GREETING_MAX,
            held_bytes_max: HELD_BYTES_MAX,
            peer_held_bytes_max: PEER_HELD_BYTES_MAX,
            connection_held_bytes_max: CONNECTION_HELD_BYTES_MAX,
            stalled_stream_max: STALLED_STREAM_MAX,
            stalled_connection_max: STALLED_CONNECTION_MAX,
            http_connections_max: HTTP_CONNECTIONS_MAX,
            http_peer_connections_max: HTTP_PEER_CONNECTIONS_MAX,
            http_head_max: HTTP_HEAD_MAX,
            http_idle_max: HTTP_IDLE_MAX,
            kept_time: KEPT_TIME,
            kept_bytes_max: KEPT_BYTES_MAX,
            connection_age: CONNECTION_AGE,
            leaving_max: LEAVING_MAX,
            keepalive_interval: KEEPALIVE_INTERVAL,
            keepalive_timeout: KEEPALIVE_TIMEOUT,
            decision_log_lines_max: DECISION_LOG_LINES_MAX,
            decision_log_bytes_max: DECISION_LOG_BYTES_MAX,
        }
    }
}
