//! Every limit of objects and operations, and of objects in documents. Paths and conditions have theirs in the engine.

use std::time::Duration;

/// Most bytes of a name, description, purpose or type (contract, section 3).
pub const TEXT_BYTES_MAX: usize = 1_024;

/// Most bindings that one batch creates or deletes (contract, section 6).
pub const BATCH_BINDINGS_MAX: usize = 1_000;

/// Most properties of an identity or a resource: as many as a question may have (contract, section 7).
pub const PROPERTIES_MAX: usize = 256;

/// Most bytes of the name of a property, claim or member of a key, and of a property's value if that is a string.
pub const PROPERTY_BYTES_MAX: usize = 1_024;

/// Most bytes of an issuer, subject, audience, claim or SPIFFE ID: as many as a SPIFFE ID has (SPIFFE-ID, section 2.3),
/// which is the subject of some tokens.
pub const CLAIM_BYTES_MAX: usize = 2_048;

/// Most bytes of the trust domain of a SPIFFE ID (SPIFFE-ID, section 2.1).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;

/// Most bytes of a DNS name: 255 octets on the wire (RFC 1035, section 2.3.4), which are two more than its text.
pub const DNS_NAME_BYTES_MAX: usize = 253;

/// Most bytes of a label of a DNS name (RFC 1035, section 2.3.4).
pub const DNS_LABEL_BYTES_MAX: usize = 63;

/// Most claims, and most claim patterns, that one identity demands.
pub const CLAIMS_MAX: usize = 32;

/// Most bytes of a pattern with its anchors.
pub const PATTERN_BYTES_MAX: usize = 2_048;

/// Most bytes of all patterns of one identity, with their anchors: the writer compiles each of them while others wait.
pub const PATTERNS_BYTES_MAX: usize = 4 * 1_024;

/// How deep a pattern is nested at most, with its anchors, which take two levels.
pub const PATTERN_NESTING_MAX: u32 = 50;

/// Most bytes of a compiled pattern: what one pattern may cost in memory, and with it in time per byte of a claim.
pub const PATTERN_COMPILED_BYTES_MAX: usize = 256 * 1_024;

/// Most bytes of a set of keys.
pub const JWKS_BYTES_MAX: usize = 64 * 1_024;

/// Most keys in a set.
pub const JWKS_KEYS_MAX: usize = 100;

/// Most identities that the text of a refusal names as those who could do it.
pub const WHO_COULD_MAX: usize = 3;

/// Most bytes of the objects before and after a change that its audit record keeps. A batch of the largest requests
/// fits; of an import only the first objects are kept, and their number.
pub const AUDIT_CHANGES_BYTES_MAX: usize = 12 * 1_024 * 1_024;

/// How long a pull token lives if its maker names no time (contract, section 6).
pub const PULL_TOKEN_TTL: Duration = Duration::from_secs(30 * 24 * 3_600);

/// The longest time that a pull token lives (contract, section 6).
pub const PULL_TOKEN_TTL_MAX: Duration = Duration::from_secs(365 * 24 * 3_600);

/// How long an invite can be accepted if its creator names no time (privileges, R6).
pub const INVITE_TTL: Duration = Duration::from_secs(7 * 24 * 3_600);

/// The longest time for which an invite can be accepted (privileges, R6).
pub const INVITE_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Most bytes of the URL of a sink: as many as servers take.
pub const SINK_BYTES_MAX: usize = 2_048;

/// Most prefixes of types of one subscription.
pub const EVENT_TYPES_MAX: usize = 32;

/// Most bytes of a prefix of types.
pub const EVENT_TYPE_BYTES_MAX: usize = 128;

/// Bytes of an e-mail address of a caller (RFC 5321: a local part of 64, `@`, a domain of 255).
pub const EMAIL_BYTES_MAX: usize = 320;

/// Most bytes of the text of a refusal in the audit log.
pub const AUDIT_TEXT_BYTES_MAX: usize = 4 * 1_024;

/// Most bindings that are examined to name them.
pub const WHO_COULD_EXAMINED_MAX: usize = 1_000;

/// Most scopes for which what an actor holds is remembered, within one operation or one page of a list. Then it is computed
/// anew.
pub const HELD_SCOPES_MAX: usize = 1_000;

/// Most audiences of an identity provider.
pub const AUDIENCES_MAX: usize = 32;

/// Most algorithms of an identity provider, and of trusted issuers: as many as are taken.
pub const ALGORITHMS_MAX: usize = 9;

/// Most bytes of the name of a group of an identity provider. Distinguished names of directories are some hundreds long.
pub const EXTERNAL_GROUP_BYTES_MAX: usize = 1_024;

/// Most mappings of one identity provider: all of them are read when one is added, and when the provider changes.
pub const MAPPINGS_MAX: usize = 2_000;

/// Most subscriptions of one organization: a server delivers for a bounded number of them, and none may take the places of all
/// others.
pub const SUBSCRIPTIONS_MAX: usize = 256;

/// Most identities that are judged when an identity provider is made, changed or deleted: those of its organization that name
/// its issuer, and those that name issuers by a pattern. With more of them only the operator may.
pub const RESOLVED_MAX: usize = 100_000;

/// Most patterns of issuers that are compiled for that. Further ones count as if they matched.
pub const ISSUER_PATTERNS_MAX: usize = 64;

/// Most applications of an account association's Azure tenant.
pub const CLIENT_IDS_MAX: usize = 100;

/// Most installations at GitHub of an account association.
pub const INSTALLATIONS_MAX: usize = 100;

/// Most services of an account association.
pub const SERVICES_MAX: usize = 100;
