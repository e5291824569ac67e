//! What the credential of a call gives beside role bindings: the default role of an identity provider, and the roles that
//! groups of it are mapped to.
//!
//! **Invariants** (R9 of the privilege rules): such a role counts for the call whose credential carried it, and for no other. It
//! counts only if what promised it is still there in the state that the call is judged on, and ends with the credential. It is
//! never part of what others are compared with.

use capstan_engine::{Path, PathBuf, Timestamp};

use crate::rights::Counting;
use crate::view::View;
use crate::{Actor, Kind, Object, ObjectsError, SessionGrant};

/// The roles of an actor's session that count in a state.
pub(crate) fn counting<'s>(
    view: &View<'s>,
    actor: &'s Actor,
    now: Timestamp,
) -> Result<Vec<Counting<'s>>, ObjectsError> {
    let Some(session) = actor.session().filter(|session| now < session.ends) else {
        return Ok(vec![]);
    };
    let mut all = vec![];
    for grant in &session.grants {
        if !is_promised(view, grant)? {
            continue;
        }
        let Some(role) = view.snapshot().role(&grant.role) else { continue };
        let (scope, capabilities) = (grant.scope.as_path(), role.capabilities.clone());
        all.push(Counting { scope, capabilities, ends: session.ends });
    }
    Ok(all)
}

/// Whether what gives a role is there as it was, and the role is the one that was promised.
fn is_promised(view: &View<'_>, grant: &SessionGrant) -> Result<bool, ObjectsError> {
    let id = grant.source.id.as_path();
    let of = |created: u64, role: &str, scope: Path<'_>, role_created: Option<u64>| {
        let is_same = created == grant.source.created
            && *role == *grant.role
            && scope == grant.scope.as_path();
        is_same.then_some(role_created)
    };
    let promised = match view.get(Kind::GroupRoleMapping, id)? {
        Some(Object::GroupRoleMapping(one)) => {
            of(one.meta.created, &one.role, one.scope.as_path(), one.role_created)
        }
        _ => match view.get(Kind::IdentityProvider, id)? {
            Some(Object::IdentityProvider(one)) => one
                .default_role
                .as_deref()
                .and_then(|role| of(one.meta.created, role, one.organization(), one.role_created)),
            _ => None,
        },
    };
    match (promised, grant.role.parse::<PathBuf>()) {
        (None, _) => Ok(false),
        (Some(None), _) => Ok(true),
        (Some(created), Ok(role)) => {
            Ok(view.role(role.as_path())?.map(|role| role.meta.created) == created)
        }
        (Some(Some(_)), Err(_)) => Ok(false),
    }
}
