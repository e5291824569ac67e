//! Of tokens that prove who calls, and of the keys of their issuers.

use std::time::Duration;

/// Bytes of a token; a longer one proves nothing.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Bytes of the id of a key.
pub const KEY_ID_BYTES_MAX: usize = 128;
/// Values in the header or the claims of a token. Each takes up to a hundred bytes in memory while it is read.
pub const TOKEN_VALUES_MAX: usize = 1_024;
/// Audiences of a token.
pub const AUDIENCES_MAX: usize = 32;
/// Seconds that the clock of an issuer may differ.
pub const TOKEN_LEEWAY: i64 = 60;
/// Seconds for which a token counts, from when it was made.
pub const TOKEN_LIFETIME_MAX: i64 = 24 * 60 * 60;
/// Tokens that are remembered once they were verified. Each is kept as its claims, in at most [`TOKEN_BYTES_MAX`], and the roles
/// that it carries. For a further one another is forgotten.
pub const TOKENS_REMEMBERED_MAX: usize = 4_096;
/// Callers at a time whose identity is read from the store. Others wait: a token that proves nothing takes a read, too.
pub const TOKEN_READS_MAX: usize = 2;
/// Callers of decisions at a time whose credential is looked up, because it is not known: no more of them hold a place of those that are.
pub const ASKERS_LOOKED_UP_MAX: usize = 64;
/// The same of one peer.
pub const PEER_ASKERS_LOOKED_UP_MAX: usize = ASKERS_LOOKED_UP_MAX / 2;
/// Secrets from one address, or one /48 network of IPv6, that prove nothing, at once. With more, only those are looked at that have
/// proved somebody from there before.
pub const GUESSES_AT_ONCE_MAX: u32 = 100;
/// Time after which an address may guess once more.
pub const GUESS_EVERY: Duration = Duration::from_secs(1);
/// Last guesses of an address that are counted once, however often they are shown again.
pub const GUESSES_REMEMBERED: usize = 8;
/// Addresses whose guesses are counted. Others share one count.
pub const GUESSERS_MAX: usize = 16_384;
/// Secrets that have proved somebody, of which it is known from where. For a further one another is forgotten.
pub const SECRETS_REMEMBERED_MAX: usize = 16_384;
/// Time between two lines of the log about credentials that prove nothing.
pub const REFUSAL_LOGGED: Duration = Duration::from_secs(1);
/// Groups that a token lists; of more none counts.
pub const TOKEN_GROUPS_MAX: usize = 500;
/// Roles that a token carries of one organization, by its groups. The others of a token with more do not count.
pub const SESSION_ROLES_MAX: usize = 256;
/// Organizations with identity providers that are looked at for the roles of a person, who may have some in each.
pub const ORGANIZATIONS_LOOKED_AT_MAX: usize = 1_024;
/// Issuers that `--trust-issuer` names.
pub const TRUSTED_ISSUERS_MAX: usize = 64;
/// Bytes of a file with the keys of a trusted issuer.
pub const KEY_FILE_BYTES_MAX: u64 = 256 * 1024;
/// Time after which the keys of an issuer are read again, while those that are known go on to count.
pub const KEYS_FRESH: Duration = Duration::from_secs(5 * 60);
/// Time after which a reading is waited for, because keys may have been withdrawn while nobody called.
pub const KEYS_STALE: Duration = Duration::from_secs(15 * 60);
/// Time for which they count if the issuer does not answer any more.
pub const KEYS_KEPT_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Time between two readings of the keys of one issuer, however many tokens name keys that are not known: two a minute.
pub const KEYS_PAUSE: Duration = Duration::from_secs(30);
/// Time after which an issuer is asked where its keys are.
pub const KEYS_URL_KEPT: Duration = Duration::from_secs(60 * 60);
/// Issuers whose keys are kept, beside those that the operator trusts. For a further one another is forgotten: one without keys, else
/// the one that was used first.
pub const ISSUERS_MAX: usize = 1_024;
/// Seconds for which an access token counts that the server signs.
pub const ACCESS_TOKEN_LIFETIME: i64 = 60 * 60;
/// Tokens that are exchanged at a time.
pub const EXCHANGES_MAX: usize = 64;
/// The same of one peer: a quarter of all.
pub const PEER_EXCHANGES_MAX: usize = 16;
/// Time of a request for an access token, its body included. An issuer that has to be asked for its keys has three seconds of it.
pub const EXCHANGE_TIME_MAX: Duration = Duration::from_secs(4);
/// Bytes of a request for an access token: two tokens of the longest kind, and what it is to be narrowed to.
pub const TOKEN_REQUEST_BYTES_MAX: usize = 32 * 1024;
/// Capabilities that an access token is narrowed to.
pub const TOKEN_CAPABILITIES_MAX: usize = 100;
/// Time for which the next signing key is published before it signs. Receivers keep the published keys for five minutes.
pub const KEY_PUBLISHED_AHEAD: Duration = Duration::from_secs(15 * 60);
/// Time for which a signing key is published after it signs no more: an access token lives for an hour, and clocks differ.
pub const KEY_PUBLISHED_AFTER: Duration = Duration::from_secs(90 * 60);
/// Files of the folder of signing keys that are looked at.
pub const KEY_FILES_READ_MAX: usize = 64;
/// Signing keys that are published: the one that signs, the next one, former ones, and what an operator has put there.
pub const KEY_FILES_MAX: usize = 4;
