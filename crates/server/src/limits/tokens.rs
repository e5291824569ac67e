//! Of tokens that prove who calls, and of the keys of their issuers.

use std::time::Duration;

/// Bytes of a token; a longer one proves nothing.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Bytes of the id of a key.
pub const KEY_ID_BYTES_MAX: usize = 128;
/// Audiences of a token.
pub const AUDIENCES_MAX: usize = 32;
/// Seconds that the clock of an issuer may differ.
pub const TOKEN_LEEWAY: i64 = 60;
/// Seconds for which a token counts, from when it was made.
pub const TOKEN_LIFETIME_MAX: i64 = 24 * 60 * 60;
/// Tokens that are remembered once they were verified. Each takes up to twice [`TOKEN_BYTES_MAX`]. For a further one another is
/// forgotten.
pub const TOKENS_REMEMBERED_MAX: usize = 4_096;
/// Callers at a time whose identity is read from the store. Others wait: a token that proves nothing takes a read, too.
pub const TOKEN_READS_MAX: usize = 2;
/// Time between two lines of the log about credentials that prove nothing.
pub const REFUSAL_LOGGED: Duration = Duration::from_secs(1);
/// Groups that a token lists; of more none counts.
pub const TOKEN_GROUPS_MAX: usize = 500;
/// Roles that a token carries by its groups, and as default roles. The others of a token with more do not count.
pub const SESSION_ROLES_MAX: usize = 256;
/// Identity providers that are looked at for the roles of a person, who may have some in every organization.
pub const PROVIDERS_LOOKED_AT_MAX: usize = 1_024;
/// Issuers that `--trust-issuer` names.
pub const TRUSTED_ISSUERS_MAX: usize = 64;
/// Time after which the keys of an issuer are read again, while those that are known go on to count.
pub const KEYS_FRESH: Duration = Duration::from_secs(5 * 60);
/// Time for which they count if the issuer does not answer any more.
pub const KEYS_KEPT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Time between two readings of the keys of one issuer, however many tokens name keys that are not known: two a minute.
pub const KEYS_PAUSE: Duration = Duration::from_secs(30);
/// Time after which an issuer is asked where its keys are.
pub const KEYS_URL_KEPT: Duration = Duration::from_secs(60 * 60);
/// Issuers whose keys are kept. For a further one those are forgotten that were read first.
pub const ISSUERS_MAX: usize = 1_024;
