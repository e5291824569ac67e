//! Who calls, as far as the way in has proved it, and who proves an identity by a secret.
//!
//! **Invariant**: every way in makes one [`Caller`](caller::Caller) for a call, once, before anything is decided.

pub(crate) mod caller;
pub(crate) mod credential;
