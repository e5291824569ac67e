//! Authentication: the caller of a call, and the identity that a credential proves.
//!
//! **Invariant**: each way into the server makes one [`Caller`](caller::Caller) for a call, once,
//! before anything is decided.
//!
//! Read `caller`, then `credential` and `secrets`.

pub(crate) mod caller;
pub(crate) mod credential;
pub(crate) mod secrets;
