//! Limits of changes of a store.

use std::time::Duration;

/// Changes that wait for the writer. It makes some thousand a second, so they wait for less than a second. With those of
/// one commit they are as many as the permits of management calls, of which none would be left for reads on a slow disk
/// otherwise.
pub const WRITES_QUEUED_MAX: usize = 256;
/// The same of one caller, the operator included: half of all, so that nobody takes all places.
pub const CALLER_WRITES_QUEUED_MAX: usize = WRITES_QUEUED_MAX / 2;
/// Changes of one commit.
pub const WRITE_GROUP_MAX: usize = 128;
/// Bytes of keys and values of one commit; then no further change joins it.
pub const WRITE_GROUP_BYTES: u64 = 8 * 1024 * 1024;
/// Time after a failure of the store until it is asked again which state it has, if nobody writes meanwhile. A store in a
/// file is opened again at most once a second.
pub const SETTLE_PAUSE: Duration = Duration::from_secs(1);
/// Time for which the answer to a change with a request id is kept for a retry (contract, section 6).
pub const REQUEST_KEPT: Duration = Duration::from_secs(600);
/// Secrets that are remembered for a retry of the request that has made them, for as long as its answer is kept. Of more, the
/// oldest of the caller who has most are forgotten.
pub const SHOWN_SECRETS_MAX: usize = 4_096;
/// Those of one caller. Of more, its oldest are forgotten.
pub const SHOWN_SECRETS_OF_CALLER_MAX: usize = 512;
/// Callers that are remembered as noted in this hour, so that each is noted once an hour.
pub const SEEN_CALLERS_MAX: usize = 65_536;
/// Records of refusals of one caller in a minute. Further ones are counted, and the next record has their number.
pub const REFUSALS_PER_MINUTE: u32 = 60;
/// Callers whose refusals are counted.
pub const REFUSED_CALLERS_MAX: usize = 4_096;
/// Audit records that are kept. The oldest are deleted, and the head of the log keeps the digest of the last one.
pub const AUDIT_RECORDS_MAX: u64 = 10_000_000;
/// Audit records beyond that number that one commit deletes.
pub const AUDIT_PRUNED_MAX: usize = 1_024;
