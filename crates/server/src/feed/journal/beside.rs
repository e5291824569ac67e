//! Records that go with objects: each is made and deleted in the transaction of its object.
//!
//! ```text
//! invite ─▶ its code, both ways                      object that promises a role ─▶ promise of that role
//! subscription ─▶ where its delivery begins
//! identity, provider ─▶ reference to its issuer       mapping ─▶ reference to its scope
//! ```

use capstan_iam::{InviteCode, Object, SecretHash, record};
use capstan_store::{Op, StoreError};

use super::overlay::Overlay;
use crate::feed::position::Position;

/// Operations that go with the change of an object, whose audit record has this number.
///
/// # Errors
///
/// The store cannot be read.
pub(super) fn ops(
    state: &Overlay,
    (before, after): (Option<&Object>, Option<&Object>),
    record: u64,
) -> Result<Vec<Op>, StoreError> {
    let mut ops = vec![];
    for key_of in [promise, reference] {
        let [old, new] = [before, after].map(|object| object.and_then(key_of));
        if old != new {
            ops.extend(old.map(|key| Op::Delete { key: key.into() }));
            ops.extend(new.map(|key| Op::Put { key: key.into(), value: Default::default() }));
        }
    }
    if let (Some(Object::GroupInvite(gone)), None) = (before, after) {
        let key = InviteCode::key_of_invite(gone.id.as_path());
        let hash = state.value(&key)?.and_then(|hash| Some(*hash.first_chunk()?));
        let hash = hash.map(SecretHash::from_bytes);
        ops.extend(hash.map(|hash| Op::Delete { key: InviteCode::key(&hash).into() }));
        ops.push(Op::Delete { key: key.into() });
    }
    match (before, after) {
        (Some(Object::Subscription(gone)), None) => {
            ops.push(Op::Delete { key: Position::key(gone.id.as_path()).into() });
        }
        (old, Some(Object::Subscription(new))) => {
            let was_disabled = matches!(old, Some(Object::Subscription(old)) if old.disabled);
            // It is told what changes from now on.
            if old.is_none() || (was_disabled && !new.disabled) {
                let key = Position::key(new.id.as_path());
                let mut position = Position::beginning(new.meta.created, record);
                // The rate that its sink asked for.
                let kept = state.value(&key)?.and_then(|value| Position::decode(&value));
                let kept = kept.filter(|kept| kept.created == position.created);
                position.interval_millis = kept.map_or(0, |kept| kept.interval_millis);
                ops.push(Op::Put { key: key.into(), value: position.encode().into() });
            }
        }
        _ => {}
    }
    Ok(ops)
}

fn promise(object: &Object) -> Option<Vec<u8>> {
    let key = record::key(object.kind(), object.id().as_path());
    object.promises().map(|role| record::promise_key(role, &key))
}

/// The key by which an object is found from what it refers to.
pub(super) fn reference(object: &Object) -> Option<Vec<u8>> {
    let key = record::key(object.kind(), object.id().as_path());
    object.reference().map(|to| record::reference_key(&to, &key))
}

/// Operations that keep the code of a new invite.
pub(super) fn code_ops(invite: &capstan_iam::GroupInvite, code: &SecretHash) -> [Op; 2] {
    let found = InviteCode { invite: invite.id.clone(), created: invite.meta.created };
    let by_invite = InviteCode::key_of_invite(invite.id.as_path());
    [
        Op::Put { key: InviteCode::key(code).into(), value: found.encode().into() },
        Op::Put { key: by_invite.into(), value: code.bytes().to_vec().into() },
    ]
}
