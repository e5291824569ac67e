//! Secrets that an answer shows once: of a pull token, of an invite.
//!
//! ```text
//! secret ─▶ kept for retries ─▶ write ─┬▶ made: the secret is shown
//!                                      ├▶ made before, by the same request: the secret of then, if it is kept
//!                                      └▶ refused: forgotten
//! ```
//!
//! **Invariant**: a secret is in the memory of this process only. Once no retry may ask for it, it is forgotten when the next
//! one is made.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use capstan_engine::{PathBuf, Timestamp};
use capstan_iam::{Operation, Response, Secret, SecretHash, SecretKind};

use super::service::{Iam, Meta, Writer};
use crate::RequestError;
use crate::error::StoreFailure;
use crate::limits::{REQUEST_KEPT, SHOWN_SECRETS_MAX, SHOWN_SECRETS_OF_CALLER_MAX};

/// A secret that nobody has had.
///
/// # Errors
///
/// The system has no random bytes.
pub(super) fn new_secret(kind: SecretKind) -> Result<Secret, RequestError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| RequestError::bug(&format!("no random bytes: {error}")))?;
    Ok(Secret::new(kind, random))
}

/// What was made with a secret, and the hash of the secret.
fn made(response: &Response) -> Option<(&PathBuf, &SecretHash)> {
    match response {
        Response::PullToken(token, hash) => Some((&token.identity.id, hash)),
        Response::NewGroupInvite(invite, hash) => Some((&invite.id, hash)),
        _ => None,
    }
}

impl Iam {
    /// Makes a change that shows a secret. Gives the answer, the revision and the text of the secret, which is empty if
    /// nothing was made.
    ///
    /// # Errors
    ///
    /// The change is refused or not made, or was made by an earlier request whose secret is not known any more.
    pub(super) async fn write_and_show(
        &self,
        writer: Writer<'_>,
        operation: Operation,
        secret: &Secret,
        meta: Meta,
    ) -> Result<(Response, u64, String), RequestError> {
        let (caller, validate_only) = (writer.caller().to_owned(), meta.validate_only);
        if !meta.request_id.is_empty() && !validate_only {
            self.shown.keep(&caller, secret, self.clock.now());
        }
        let answered = writer.write(operation, meta).await;
        let unknown = RequestError::Store(StoreFailure::OutcomeUnknown);
        // After an unknown outcome it may be there, and the retry shows it.
        if matches!(&answered, Err(error) if *error != unknown) {
            self.shown.forget(&caller, secret);
        }
        let (answer, revision) = answered?;
        let (id, hash) = made(&answer).ok_or_else(|| RequestError::bug("no secret was made"))?;
        let text = if validate_only {
            String::new()
        } else if *hash == secret.hash() {
            secret.text()
        } else {
            self.shown.forget(&caller, secret);
            let earlier = self.shown.find(hash);
            earlier.ok_or_else(|| RequestError::TokenAlreadyIssued { id: id.clone() })?.text()
        };
        Ok((answer, revision, text))
    }
}

/// Secrets that were shown in answers to requests with an id, so that a retry has the same answer. They are in the memory
/// of this process only.
#[derive(Default)]
pub(crate) struct Shown(Mutex<Kept>);

#[derive(Default)]
struct Kept {
    secrets: HashMap<[u8; 32], Secret>,
    /// Of each caller, in the order in which they were made.
    callers: HashMap<String, VecDeque<(Timestamp, [u8; 32])>>,
}

impl Kept {
    /// Forgets the oldest secret of a caller.
    fn forget_oldest(&mut self, caller: &str) {
        let Some(own) = self.callers.get_mut(caller) else { return };
        if let Some((_, hash)) = own.pop_front() {
            self.secrets.remove(&hash);
        }
        if own.is_empty() {
            self.callers.remove(caller);
        }
    }

    /// Forgets what no retry asks for any more.
    fn forget_ended(&mut self, now: Timestamp) {
        let Self { secrets, callers } = self;
        let end = |made: &Timestamp| made.seconds().saturating_add_unsigned(REQUEST_KEPT.as_secs());
        callers.retain(|_, own| {
            while let Some((_, hash)) = own.pop_front_if(|(made, _)| end(made) < now.seconds()) {
                secrets.remove(&hash);
            }
            !own.is_empty()
        });
    }
}

impl Shown {
    /// Remembers a secret, before the request is made that shows it. Callers that make many forget their own.
    fn keep(&self, caller: &str, secret: &Secret, now: Timestamp) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget_ended(now);
        if kept.callers.get(caller).is_some_and(|own| own.len() >= SHOWN_SECRETS_OF_CALLER_MAX) {
            kept.forget_oldest(caller);
        }
        if kept.secrets.len() >= SHOWN_SECRETS_MAX {
            let most = kept.callers.iter().max_by_key(|(_, own)| own.len());
            if let Some(most) = most.map(|(caller, _)| caller.clone()) {
                kept.forget_oldest(&most);
            }
        }
        let hash = *secret.hash().bytes();
        kept.callers.entry(caller.to_owned()).or_default().push_back((now, hash));
        kept.secrets.insert(hash, secret.clone());
    }

    /// Forgets a secret that was not shown.
    fn forget(&self, caller: &str, secret: &Secret) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = *secret.hash().bytes();
        kept.secrets.remove(&hash);
        if let Some(own) = kept.callers.get_mut(caller) {
            own.retain(|(_, other)| *other != hash);
            if own.is_empty() {
                kept.callers.remove(caller);
            }
        }
    }

    /// The secret of a hash.
    fn find(&self, hash: &SecretHash) -> Option<Secret> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.secrets.get(hash.bytes()).cloned()
    }
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(at: usize) -> Secret {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&at.to_be_bytes());
        Secret::new(SecretKind::PullToken, bytes)
    }

    fn is_kept(shown: &Shown, at: usize) -> bool {
        shown.find(&secret(at).hash()) == Some(secret(at))
    }

    #[test]
    fn secrets_are_remembered_for_retries() {
        let (shown, now) = (Shown::default(), Timestamp::UNIX_EPOCH);
        shown.keep("alice", &secret(0), now);
        shown.keep("bob", &secret(1), now);
        assert!(is_kept(&shown, 0) && is_kept(&shown, 1) && !is_kept(&shown, 2));
        shown.forget("bob", &secret(1));
        assert!(is_kept(&shown, 0) && !is_kept(&shown, 1));
        assert_eq!(shown.0.lock().unwrap().callers.len(), 1);
    }

    #[test]
    fn what_no_retry_asks_for_is_forgotten_when_the_next_one_is_made() {
        let (shown, end) = (Shown::default(), REQUEST_KEPT.as_secs().try_into().unwrap());
        shown.keep("alice", &secret(0), Timestamp::UNIX_EPOCH);
        shown.keep("bob", &secret(1), Timestamp::new(end, 0));
        assert!(is_kept(&shown, 0));
        shown.keep("bob", &secret(2), Timestamp::new(end + 1, 0));
        assert!(!is_kept(&shown, 0) && is_kept(&shown, 1));
    }

    #[test]
    fn a_caller_who_makes_many_forgets_its_own() {
        let (shown, now) = (Shown::default(), Timestamp::UNIX_EPOCH);
        shown.keep("alice", &secret(0), now);
        for at in 1..=SHOWN_SECRETS_OF_CALLER_MAX + 1 {
            shown.keep("mallory", &secret(at), now);
        }
        assert!(is_kept(&shown, 0) && !is_kept(&shown, 1) && is_kept(&shown, 2));
    }

    #[test]
    fn of_too_many_secrets_those_of_the_callers_with_most_are_forgotten() {
        let (shown, at) = (Shown::default(), |second| Timestamp::new(second, 0));
        shown.keep("alice", &secret(0), at(0));
        shown.keep("alice", &secret(1), at(600));
        for number in 2..=SHOWN_SECRETS_MAX {
            let caller = format!("mallory-{}", number % 9);
            shown.keep(&caller, &secret(number), at(600));
        }
        assert!(is_kept(&shown, 0) && is_kept(&shown, 1));
        // First what no retry asks for any more, then another one of a caller with many.
        shown.keep("alice", &secret(1_000_000), at(601));
        assert!(!is_kept(&shown, 0) && is_kept(&shown, 1));
        shown.keep("alice", &secret(1_000_001), at(601));
        let kept = shown.0.lock().unwrap();
        assert_eq!(kept.secrets.len(), SHOWN_SECRETS_MAX);
        let all: usize = kept.callers.values().map(VecDeque::len).sum();
        assert_eq!((all, kept.callers["alice"].len()), (SHOWN_SECRETS_MAX, 3));
    }
}
