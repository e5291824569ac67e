//! Authentication: the caller of a call, and the identity that a credential proves.
//!
//! **Invariant**: each way into the server makes one [`Caller`](caller::Caller) for a call, once,
//! before anything is decided.
//!
//! Read `caller`, then `credential`, `secrets` and `guesses`; of tokens `token`, `keys`, `matching`, `issuers` and `remembered`; of those that
//! the server signs itself `issued` and `clouds`.

pub(crate) mod caller;
pub(crate) mod clouds;
pub(crate) mod credential;
pub(crate) mod guesses;
pub(crate) mod issued;
pub(crate) mod issuers;
pub(crate) mod keys;
pub(crate) mod matching;
pub(crate) mod remembered;
pub(crate) mod secrets;
mod strict_json;
pub(crate) mod token;
