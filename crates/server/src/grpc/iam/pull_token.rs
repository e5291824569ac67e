//! Requests of `PullTokenService` to operations, and the secrets that it shows.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use capstan_engine::Timestamp;
use capstan_iam::{CreatePullToken, Delete, Operation, PullToken, Secret, SecretHash, SecretKind};
use capstan_proto::iam::v1;

use super::fields::{optional_path, path};
use super::objects;
use crate::RequestError;
use crate::grpc::convert::timestamp;
use crate::limits::{REQUEST_KEPT, SHOWN_SECRETS_MAX, SHOWN_SECRETS_OF_CALLER_MAX};

pub(super) fn create(
    request: &v1::CreatePullTokenRequest,
    secret: SecretHash,
) -> Result<Operation, RequestError> {
    let v1::CreatePullTokenRequest { group, role, name, ttl, .. } = request;
    let role = match optional_path("role", role)? {
        Some(role) => role.as_str().into(),
        None => return Err(RequestError::field("role", "missing")),
    };
    Ok(Operation::CreatePullToken(CreatePullToken {
        group: path("group", group)?,
        role,
        name: name.clone(),
        ttl: ttl.map(duration).transpose()?,
        secret,
    }))
}

fn duration(ttl: prost_types::Duration) -> Result<Duration, RequestError> {
    let (seconds, nanos) = (u64::try_from(ttl.seconds), u32::try_from(ttl.nanos));
    match (seconds, nanos) {
        (Ok(seconds), Ok(nanos)) if nanos < 1_000_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => Err(RequestError::field("ttl", "not a duration of 0 or more seconds")),
    }
}

pub(super) fn revoke(request: v1::RevokePullTokenRequest) -> Result<Operation, RequestError> {
    let v1::RevokePullTokenRequest { id, .. } = request;
    Ok(Operation::RevokePullToken(Delete { id: path("id", &id)?, etag: None }))
}

/// A secret that nobody has had.
///
/// # Errors
///
/// The system has no random bytes.
pub(super) fn secret() -> Result<Secret, RequestError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)
        .map_err(|error| RequestError::bug(&format!("no random bytes: {error}")))?;
    Ok(Secret::new(SecretKind::PullToken, random))
}

/// The message of a token that was made.
pub(super) fn made(token: PullToken) -> v1::PullToken {
    let PullToken { identity, binding } = token;
    v1::PullToken {
        role: binding.role.to_string(),
        scope: binding.scope.to_string(),
        expires_at: binding.expires_at.map(timestamp),
        ..objects::pull_token(identity)
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
    pub(super) fn keep(&self, caller: &str, secret: &Secret, now: Timestamp) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.callers.get(caller).is_some_and(|own| own.len() >= SHOWN_SECRETS_OF_CALLER_MAX) {
            kept.forget_oldest(caller);
        }
        if kept.secrets.len() >= SHOWN_SECRETS_MAX {
            kept.forget_ended(now);
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
    pub(super) fn forget(&self, caller: &str, secret: &Secret) {
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
    pub(super) fn find(&self, hash: &SecretHash) -> Option<Secret> {
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
