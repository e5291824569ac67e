//! Answers that are kept for retries, by request id.
//!
//! ```text
//! key `q` `i` hash of caller, method and request id, 32 bytes ─▶ answer
//! key `q` `t` seconds, 8 bytes, big-endian | the same hash    ─▶ nothing: the order in which answers are forgotten
//! ```
//!
//! An answer is kept in the transaction that it answers, so a retry after a crash finds both or neither.

use std::ops::Bound;

use bytes::Bytes;
use capstan_engine::Timestamp;
use capstan_iam::record::{self, prefix};
use capstan_iam::{
    AcceptGroupInvite, Kind, Object, Operation, PullToken, Response, SecretHash, State,
};
use capstan_store::{Op, StoreError};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use super::overlay::Overlay;
use crate::RequestError;
use crate::feed::management::{Write, Written};
use crate::limits::REQUEST_KEPT;

/// The hash that a request id is kept under: of caller, method and id.
type Hash = [u8; 32];

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    /// SHA-256 of the operation.
    #[prost(bytes = "vec", tag = "1")]
    operation: Vec<u8>,
    #[prost(uint64, tag = "2")]
    revision: u64,
    #[prost(int64, tag = "3")]
    seconds: i64,
    /// 0 nothing, 1 one object, 2 any number of objects, 3 a pull token: its identity and its binding, 4 a new invite.
    #[prost(uint32, tag = "4")]
    shape: u32,
    #[prost(message, repeated, tag = "5")]
    objects: Vec<Answered>,
    /// The hash of the secret of a pull token, or of the code of an invite.
    #[prost(bytes = "vec", tag = "6")]
    secret: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answered {
    #[prost(bytes = "vec", tag = "1")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// An answer that is kept.
pub(super) struct Kept(Answer);

/// The request id of a write, if it has one.
pub(super) struct RequestId {
    hash: Hash,
    operation: Hash,
}

impl RequestId {
    /// The request id of a write that is to be remembered.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub(super) fn of(write: &Write, state: &State<'_>) -> Result<Option<Self>, RequestError> {
        let id = write.request_id.as_deref().filter(|id| !id.is_empty() && !write.validate_only);
        let Some(id) = id else { return Ok(None) };
        let caller = write.actor.id().map(ToString::to_string).unwrap_or_default();
        let mut hash = Sha256::new();
        // Another identity may get the path of one that was deleted, and is not answered in its place. Root identities are of
        // one person for ever, and the first request of one may register it.
        if let Some(caller) = write.actor.id().filter(|id| id.as_path().parent().is_some())
            && let Some(found) = state.objects.get(Kind::Identity, caller.as_path())?
        {
            hash.update(found.meta().created.to_be_bytes());
        }
        // What was answered to all that an identity can is not answered to less: it may have a secret.
        if let Some(narrowing) = write.actor.narrowing() {
            hash.update(format!("{narrowing:?}"));
        }
        for part in [&caller, write.operation.method(), id] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        // The text of an operation has all of its fields, in order.
        let mut operation = Sha256::new_with_prefix(format!("{:?}", write.operation));
        // But for secrets: those that are made are no part of a request, the code of an invite is.
        if let Operation::AcceptGroupInvite(AcceptGroupInvite { code: Some(code) }) =
            &write.operation
        {
            operation.update(code.bytes());
        }
        Ok(Some(Self { hash: hash.finalize().into(), operation: operation.finalize().into() }))
    }

    fn key(&self) -> Vec<u8> {
        [&[prefix::REQUEST, b'i'][..], &self.hash].concat()
    }

    /// The answer that is kept for it.
    ///
    /// # Errors
    ///
    /// The store cannot be read.
    pub(super) fn find(
        &self,
        state: &Overlay,
        now: Timestamp,
    ) -> Result<Option<Kept>, RequestError> {
        let Some(value) = state.value(&self.key()).map_err(unreadable)? else { return Ok(None) };
        let answer = Answer::decode(value).map_err(|error| corrupt(&error.to_string()))?;
        let end = answer.seconds.saturating_add_unsigned(REQUEST_KEPT.as_secs());
        Ok((now.seconds() < end).then_some(Kept(answer)))
    }

    /// The answer again.
    ///
    /// # Errors
    ///
    /// The id was used for another operation, or the answer is corrupt.
    pub(super) fn again(&self, Kept(answer): Kept) -> Result<Written, RequestError> {
        if answer.operation != self.operation {
            let problem = "it was used for another request within 10 minutes: make a new one";
            return Err(RequestError::field("request_id", problem));
        }
        let objects = answer.objects.iter().map(|one| record::decode(&one.key, &one.value));
        let objects: Vec<_> =
            objects.collect::<Result<_, _>>().map_err(|error| corrupt(&error.to_string()))?;
        let response = response(answer.shape, objects, &answer.secret);
        let response = response.ok_or_else(|| corrupt("its shape"))?;
        Ok(Written { response, revision: answer.revision })
    }

    /// Operations that keep an answer.
    pub(super) fn keep(&self, written: &Written, now: Timestamp) -> [Op; 2] {
        let (shape, objects, secret) = parts(&written.response);
        let objects = objects.into_iter().map(|object| Answered {
            key: record::key(object.kind(), object.id().as_path()),
            value: record::encode(&object),
        });
        let answer = Answer {
            operation: self.operation.into(),
            revision: written.revision,
            seconds: now.seconds(),
            shape,
            objects: objects.collect(),
            secret,
        };
        let time = now.seconds().max(0).to_be_bytes();
        let order = [&[prefix::REQUEST, b't'][..], &time, &self.hash].concat();
        [
            Op::Put { key: self.key().into(), value: answer.encode_to_vec().into() },
            Op::Put { key: order.into(), value: Bytes::new() },
        ]
    }
}

/// Operations that forget answers whose time is over, up to so many of them.
///
/// # Errors
///
/// The store cannot be read.
pub(super) fn forget(state: &Overlay, now: Timestamp, most: usize) -> Result<Vec<Op>, StoreError> {
    let before = now.seconds().saturating_sub_unsigned(REQUEST_KEPT.as_secs()).max(0);
    let start = [prefix::REQUEST, b't'];
    let end = [&start[..], &before.to_be_bytes()].concat();
    let mut found: Vec<Vec<u8>> = vec![];
    state.scan((Bound::Included(&start), Bound::Excluded(&end)), &mut |key, _| {
        found.push(key.to_vec());
        found.len() < most
    })?;
    let mut ops = vec![];
    for key in found {
        if let Some(hash) = key.last_chunk::<32>() {
            let answer = [&[prefix::REQUEST, b'i'][..], hash].concat();
            // The id may have been used again since.
            let value = state.value(&answer)?;
            let kept = value.and_then(|value| Answer::decode(value).ok());
            if kept.is_some_and(|kept| kept.seconds < before) {
                ops.push(Op::Delete { key: answer.into() });
            }
        }
        ops.push(Op::Delete { key: key.into() });
    }
    Ok(ops)
}

/// A response as a shape, objects, and the hash of a secret.
fn parts(response: &Response) -> (u32, Vec<Object>, Vec<u8>) {
    let (shape, objects) = match response.clone() {
        Response::Deleted => (0, vec![]),
        Response::Group(one) => (1, vec![Object::Group(one)]),
        Response::Role(one) => (1, vec![Object::Role(one)]),
        Response::RoleBinding(one) => (1, vec![Object::RoleBinding(one)]),
        Response::Identity(one) => (1, vec![Object::Identity(one)]),
        Response::Resource(one) => (1, vec![Object::Resource(one)]),
        Response::GroupInvite(one) => (1, vec![Object::GroupInvite(one)]),
        Response::Subscription(one) => (1, vec![Object::Subscription(one)]),
        Response::NewGroupInvite(one, code) => {
            return (4, vec![Object::GroupInvite(*one)], code.bytes().to_vec());
        }
        Response::IdentityProvider(one) => (1, vec![Object::IdentityProvider(one)]),
        Response::GroupRoleMapping(one) => (1, vec![Object::GroupRoleMapping(one)]),
        Response::AccountAssociation(one) => (1, vec![Object::AccountAssociation(one)]),
        Response::RoleBindings(all) => (2, all.into_iter().map(Object::RoleBinding).collect()),
        Response::PullToken(token, secret) => {
            let PullToken { identity, binding } = *token;
            let objects = vec![Object::Identity(identity), Object::RoleBinding(binding)];
            return (3, objects, secret.bytes().to_vec());
        }
    };
    (shape, objects, vec![])
}

fn response(shape: u32, mut objects: Vec<Object>, secret: &[u8]) -> Option<Response> {
    Some(match (shape, objects.len()) {
        (0, 0) => Response::Deleted,
        (1, 1) => match objects.pop()? {
            Object::Group(one) => Response::Group(one),
            Object::Role(one) => Response::Role(one),
            Object::RoleBinding(one) => Response::RoleBinding(one),
            Object::Identity(one) => Response::Identity(one),
            Object::Resource(one) => Response::Resource(one),
            Object::GroupInvite(one) => Response::GroupInvite(one),
            Object::Subscription(one) => Response::Subscription(one),
            Object::IdentityProvider(one) => Response::IdentityProvider(one),
            Object::GroupRoleMapping(one) => Response::GroupRoleMapping(one),
            Object::AccountAssociation(one) => Response::AccountAssociation(one),
        },
        (2, _) => {
            let bindings = objects.into_iter().map(|object| match object {
                Object::RoleBinding(one) => Some(one),
                _ => None,
            });
            Response::RoleBindings(bindings.collect::<Option<_>>()?)
        }
        (3, 2) => match (objects.pop()?, objects.pop()?) {
            (Object::RoleBinding(binding), Object::Identity(identity)) => {
                let secret = SecretHash::from_bytes(secret.try_into().ok()?);
                Response::PullToken(PullToken { identity, binding }.into(), secret)
            }
            _ => return None,
        },
        (4, 1) => match objects.pop()? {
            Object::GroupInvite(invite) => {
                let code = SecretHash::from_bytes(secret.try_into().ok()?);
                Response::NewGroupInvite(invite.into(), code)
            }
            _ => return None,
        },
        _ => return None,
    })
}

#[expect(clippy::needless_pass_by_value, reason = "an argument of map_err")]
fn unreadable(error: StoreError) -> RequestError {
    tracing::error!(%error, "the answers to earlier requests cannot be read");
    RequestError::Unreadable
}

fn corrupt(problem: &str) -> RequestError {
    unreadable(StoreError::Corrupt(format!("an answer that is kept for a retry: {problem}")))
}
