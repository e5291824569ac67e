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
use crate::limits::{REQUEST_KEPT, SHOWN_SECRETS_MAX};

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
    /// In the order in which they were made.
    order: VecDeque<(Timestamp, [u8; 32])>,
}

impl Shown {
    /// Remembers a secret, before the request is made that shows it.
    pub(super) fn keep(&self, secret: &Secret, now: Timestamp) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let end = |made: &Timestamp| made.seconds().saturating_add_unsigned(REQUEST_KEPT.as_secs());
        while let Some((made, hash)) = kept.order.front().copied()
            && (end(&made) < now.seconds() || kept.order.len() >= SHOWN_SECRETS_MAX)
        {
            kept.order.pop_front();
            kept.secrets.remove(&hash);
        }
        let hash = *secret.hash().bytes();
        kept.order.push_back((now, hash));
        kept.secrets.insert(hash, secret.clone());
    }

    /// Forgets a secret that was not shown.
    pub(super) fn forget(&self, secret: &Secret) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = *secret.hash().bytes();
        kept.secrets.remove(&hash);
        kept.order.retain(|(_, other)| *other != hash);
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

    #[test]
    fn secrets_are_remembered_for_retries_and_not_longer() {
        let (shown, at) = (Shown::default(), |second| Timestamp::new(second, 0));
        let is_kept = |one: &Secret| shown.find(&one.hash()) == Some(one.clone());
        shown.keep(&secret(0), at(0));
        shown.keep(&secret(1), at(600));
        assert!(is_kept(&secret(0)) && is_kept(&secret(1)));
        shown.keep(&secret(2), at(601));
        assert!(!is_kept(&secret(0)) && is_kept(&secret(1)) && is_kept(&secret(2)));
        shown.forget(&secret(2));
        assert!(is_kept(&secret(1)) && !is_kept(&secret(2)));
    }

    #[test]
    fn of_too_many_secrets_the_oldest_are_forgotten() {
        let shown = Shown::default();
        for at in 0..=SHOWN_SECRETS_MAX {
            shown.keep(&secret(at), Timestamp::UNIX_EPOCH);
        }
        let kept = shown.0.lock().unwrap();
        assert_eq!((kept.secrets.len(), kept.order.len()), (SHOWN_SECRETS_MAX, SHOWN_SECRETS_MAX));
        assert!(!kept.secrets.contains_key(secret(0).hash().bytes()));
    }
}
