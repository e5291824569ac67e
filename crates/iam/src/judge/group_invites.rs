//! Group invites (R6): a promise of a role, judged when it is made and again when it is accepted.
//!
//! ```text
//! create: creator's rights now ─▶ invite, hash of the code
//! accept: code ─▶ invite ─▶ creator's rights now ─▶ binding of the caller, and the invite is used up
//! ```
//!
//! **Invariant**: whoever accepts learns of a code that lets nobody join only that it does not.

use capstan_engine::{self as engine, Path, PathBuf, Properties, Role, is_derived_identity};

use super::Effects;
use super::fields::{after, check_etag, check_texts, free_binding_id, in_field, new_path};
use crate::limits::{INVITE_TTL, INVITE_TTL_MAX};
use crate::object::parent_or_self;
use crate::rules::access::Access;
use crate::view::View;
use crate::{
    AcceptGroupInvite, Actor, Cause, Context, CreateGroupInvite, Delete, GroupInvite, Identity,
    Incarnation, JudgeError, Kind, Meta, Object, Outcome, Refusal, Response, RoleBinding, Rule,
    RuleSet, SecretHash, State, USER, UpdateGroupInvite, check_email,
};

const CREATE: [&str; 2] = ["group_invites.create", "role_bindings.create"];
const DELETE: &str = "group_invites.delete";
const UPDATE: &str = "group_invites.update";

// === Create ===

pub(super) fn create(
    access: &Access<'_>,
    new: &CreateGroupInvite,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    check_texts("group_invite", Some(&new.name), Some(&new.description))?;
    if let Some(email) = &new.email {
        in_field("group_invite.email", check_email(email))?;
    }
    if new.ttl.is_some_and(|ttl| ttl.is_zero() || ttl > INVITE_TTL_MAX) {
        let most = INVITE_TTL_MAX.as_secs();
        return Err(
            Refusal::invalid("ttl", format!("expected more than 0 s, up to {most} s")).into()
        );
    }
    let group = new.parent.as_path();
    access.require(&CREATE, group)?;
    if !access.view.is_group(group) {
        return Err(Refusal::not_found().into());
    }
    let role = access.bindable_role(&new.role, group, "group_invite.role")?;
    promise(access, &role, group, new.email.as_deref())?;
    let invite = GroupInvite {
        id: new_path(access, Kind::GroupInvite, Some(group), new.id.as_ref(), context)?,
        name: new.name.clone(),
        description: new.description.clone(),
        role: new.role.clone(),
        role_created: role_created(&access.view, &new.role)?,
        email: new.email.clone(),
        single_use: new.single_use,
        expires_at: after(context.now, new.ttl.unwrap_or(INVITE_TTL)),
        creator: access.incarnation()?,
        meta: Meta::new(context.revision, context.now),
    };
    let mut effects = Effects::default();
    effects.create(Object::GroupInvite(invite.clone()));
    Ok(effects.answer(Response::NewGroupInvite(invite.into(), new.code)))
}

/// R6: what is promised can be given, for ever, and what manages access is promised to one address. It binds the operator,
/// too.
fn promise(
    access: &Access<'_>,
    role: &Role,
    group: Path<'_>,
    email: Option<&str>,
) -> Result<(), JudgeError> {
    // Who passes this holds all of the role, so that the next refusal says nothing of it that is hidden.
    access.grant(Rule::Invite, role, group, None, &CREATE)?;
    if email.is_none() && access.manages(role) && access.rules.keeps(Rule::Invite) {
        let field = "group_invite.email".to_owned();
        let problem =
            format!("missing: the role `{}` manages access, so say who is invited", role.id);
        let cause = Cause::InvalidField { field, problem };
        return Err(Refusal::open(Some(Rule::Invite), cause).into());
    }
    Ok(())
}

/// The create revision of a custom role.
pub(super) fn role_created(view: &View<'_>, role: &str) -> Result<Option<u64>, JudgeError> {
    let Some(path) = role.contains('/').then(|| Path::parse(role).ok()).flatten() else {
        return Ok(None);
    };
    Ok(view.role(path)?.map(|role| role.meta.created))
}

// === Accept ===

/// Any caller that is identified may ask. One that is not registered is registered with what it joins, if its id is a derived
/// one.
pub(super) fn accept(
    rules: RuleSet,
    state: &State<'_>,
    actor: &Actor,
    accept: &AcceptGroupInvite,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    let view = View(*state);
    let Actor::Identity { id, email, narrowing, .. } = actor else {
        let problem = "the operator is no identity that could join: accept it as one";
        return Err(Refusal::invalid("code", problem).into());
    };
    if narrowing.is_some() && rules.keeps(Rule::Narrowed) {
        let problem = "a narrowed token joins nothing: accept it with one that is not narrowed";
        return Err(Refusal::invalid("code", problem).into());
    }
    let registered = registered(&view, id)?;
    if registered.as_ref().is_some_and(Identity::is_pull_token) {
        return Err(Refusal::open(None, Cause::PullToken { id: id.clone() }).into());
    }
    let invite = invite(&view, accept.code.as_ref())?
        .filter(|one| context.now < one.expires_at && one.is_for(email.as_deref()))
        .ok_or_else(|| Refusal::open(None, Cause::InviteInvalid))?;
    let group = invite.group();
    let creator = still_there(&view, invite.creator.as_ref())?.ok_or_else(invalid)?;
    let access = Access::new(rules, *state, &creator, context.now).map_err(dead)?;
    still_promised(&access, &invite, group).map_err(dead)?;
    access.bindable_identity(id.as_path(), group, "code")?;
    let binding = engine::RoleBinding {
        id: None,
        identity: id.clone(),
        role: invite.role.clone(),
        scope: group.into(),
        expires_at: None,
        when: vec![],
    };
    if view.snapshot().same_binding(&binding).is_some() {
        let cause = Cause::AlreadyExists { id: group.into(), same_binding: true };
        return Err(Refusal::open(None, cause).into());
    }
    let meta = Meta::new(context.revision, context.now);
    let mut effects = Effects::default();
    if registered.is_none() {
        effects.create(Object::Identity(Identity {
            id: id.clone(),
            name: String::new(),
            description: String::new(),
            kind: USER.into(),
            properties: Properties::new(),
            disabled: false,
            authentication: None,
            meta,
        }));
    }
    let binding = RoleBinding {
        id: free_binding_id(&access, &binding, "code", context)?,
        name: String::new(),
        description: String::new(),
        identity: binding.identity,
        role: binding.role,
        scope: binding.scope,
        expires_at: None,
        when: vec![],
        meta,
    };
    effects.create(Object::RoleBinding(binding.clone()));
    if invite.single_use {
        effects.delete(Object::GroupInvite(invite));
    }
    Ok(effects.answer(Response::RoleBinding(binding)))
}

/// The caller, if it is registered and enabled; `None` if it can be registered.
fn registered(view: &View<'_>, id: &PathBuf) -> Result<Option<Identity>, JudgeError> {
    let unknown = || Refusal::open(None, Cause::AuthnFailed).into();
    match view.identity(id.as_path())? {
        Some(found) if found.disabled => Err(unknown()),
        Some(found) => Ok(Some(found)),
        None if is_derived_identity(id.as_path())
            && !view.is_taken(id.as_path(), Kind::Identity)? =>
        {
            Ok(None)
        }
        None => Err(unknown()),
    }
}

fn invite(view: &View<'_>, code: Option<&SecretHash>) -> Result<Option<GroupInvite>, JudgeError> {
    let found = code.map(|code| view.0.objects.invite(code)).transpose()?.flatten();
    let Some(found) = found else { return Ok(None) };
    let invite = view.invite(found.invite.as_path())?;
    Ok(invite.filter(|invite| invite.meta.created == found.created))
}

/// Who promised, if it is the one that did; whether it is enabled is asked with its rights.
fn still_there(
    view: &View<'_>,
    creator: Option<&Incarnation>,
) -> Result<Option<Actor>, JudgeError> {
    let Some(creator) = creator else { return Ok(Some(Actor::Operator)) };
    let found = view.identity(creator.id.as_path())?;
    let is_same = found.is_some_and(|found| found.meta.created == creator.created);
    Ok(is_same.then(|| Actor::identity(creator.id.clone())))
}

/// R6: the creator could make the same invite now.
fn still_promised(
    access: &Access<'_>,
    invite: &GroupInvite,
    group: Path<'_>,
) -> Result<(), JudgeError> {
    let role = access.bindable_role(&invite.role, group, "group_invite.role")?;
    if role_created(&access.view, &invite.role)? != invite.role_created {
        return Err(invalid().into());
    }
    if !access.rules.keeps(Rule::Invite) {
        return Ok(());
    }
    access.require(&CREATE, group)?;
    promise(access, &role, group, invite.email.as_deref())
}

fn invalid() -> Box<Refusal> {
    Refusal::open(None, Cause::InviteInvalid)
}

/// A refusal of the creator, who is not the one that asks: the audit has it.
fn dead(error: JudgeError) -> JudgeError {
    match error {
        JudgeError::Refused(refusal) => {
            let Refusal { real, rule, .. } = *refusal;
            let (told, who_could, item) = (Cause::InviteInvalid, vec![], None);
            Box::new(Refusal { told, real, rule, who_could, item }).into()
        }
        error @ JudgeError::Objects(_) => error,
    }
}

// === Update and delete ===

pub(super) fn update(
    access: &Access<'_>,
    update: &UpdateGroupInvite,
    context: &Context<'_>,
) -> Result<Outcome, JudgeError> {
    let field = "group_invite";
    check_texts(field, update.name.as_deref(), update.description.as_deref())?;
    access.require(&[UPDATE], parent_or_self(update.id.as_path()))?;
    let before = access.view.invite(update.id.as_path())?.ok_or_else(Refusal::not_found)?;
    check_etag(update.etag.as_ref(), &before.meta, &before.id)?;
    let email = before.email.as_deref().unwrap_or_default();
    let changes = [
        ("role", update.role.as_ref().is_some_and(|role| **role != *before.role)),
        ("email", update.email.as_ref().is_some_and(|new| new != email)),
        ("single_use", update.single_use.is_some_and(|new| new != before.single_use)),
    ];
    if let Some((name, _)) = changes.iter().find(|(_, changes)| *changes) {
        let problem = "it cannot change; create another invite and delete this one";
        return Err(Refusal::invalid(format!("{field}.{name}"), problem).into());
    }
    let mut after = before.clone();
    after.name = update.name.clone().unwrap_or(after.name);
    after.description = update.description.clone().unwrap_or(after.description);
    let mut effects = Effects::default();
    if after != before {
        after.meta = before.meta.changed(context.revision, context.now);
        effects.update(Object::GroupInvite(before), Object::GroupInvite(after.clone()));
    }
    Ok(effects.answer(Response::GroupInvite(after)))
}

pub(super) fn delete(access: &Access<'_>, delete: &Delete) -> Result<Outcome, JudgeError> {
    access.require(&[DELETE], parent_or_self(delete.id.as_path()))?;
    let invite = access.view.invite(delete.id.as_path())?.ok_or_else(Refusal::not_found)?;
    check_etag(delete.etag.as_ref(), &invite.meta, &invite.id)?;
    let mut effects = Effects::default();
    effects.delete(Object::GroupInvite(invite));
    Ok(effects.answer(Response::Deleted))
}
