//! Role bindings: one, many, or all of a member.

use std::collections::BTreeSet;
use std::sync::Arc;

use capstan_engine::{self as engine, Condition, PathBuf, Role};

use super::Effects;
use super::fields::{check_conditions, check_etag, check_texts, free_binding_id, new_path};
use crate::limits::BATCH_BINDINGS_MAX;
use crate::object::parent_or_self;
use crate::rules::access::Access;
use crate::{
    BatchCreateRoleBindings, BatchDeleteRoleBindings, Cause, Context, CreateRoleBinding, Delete,
    JudgeError, Kind, Meta, NewRoleBinding, Object, Outcome, Refusal, RemoveMember, Response,
    RoleBinding, Rule, UpdateRoleBinding,
};

const CREATE: &str = "role_bindings.create";
const DELETE: &str = "role_bindings.delete";
const UPDATE: &str = "role_bindings.update";

// === Create ===

pub(super) fn create(
    access: &Access<'_>,
    create: &CreateRoleBinding,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    let (new, field) = (&create.binding, "role_binding");
    check(new, field)?;
    if new.scope != create.parent {
        let problem = format!("`{}`; expected the parent", new.scope);
        return Err(Refusal::invalid("role_binding.scope", problem).into());
    }
    access.require(&[CREATE], new.scope.as_path())?;
    let role = referenced(access, new, field)?;
    let mut made = Made::default();
    let binding = made.judge(access, new, &role, field, context)?;
    let mut effects = Effects::default();
    effects.create(Object::RoleBinding(binding.clone()));
    Ok(effects.answer(Response::RoleBinding(binding)))
}

/// All or none, judged on the state before the batch (R15).
pub(super) fn create_batch(
    access: &Access<'_>,
    batch: &BatchCreateRoleBindings,
    context: &mut Context<'_>,
) -> Result<Outcome, JudgeError> {
    check_count("role_bindings", batch.bindings.len())?;
    let field = |at: usize| format!("role_bindings[{at}]");
    for (at, new) in batch.bindings.iter().enumerate() {
        check(new, &field(at))?;
        if !batch.parent.as_path().contains(new.scope.as_path()) {
            let problem = format!("`{}`; expected `{}` or below it", new.scope, batch.parent);
            return Err(Refusal::invalid(field(at) + ".scope", problem).into());
        }
    }
    access.require(&[CREATE], batch.parent.as_path())?;
    let roles: Result<Vec<_>, _> = batch
        .bindings
        .iter()
        .enumerate()
        .map(|(at, new)| referenced(access, new, &field(at)))
        .collect();
    let roles = roles?;
    let (mut effects, mut made, mut bindings) = (Effects::default(), Made::default(), Vec::new());
    for ((at, new), role) in batch.bindings.iter().enumerate().zip(&roles) {
        let judged = made.judge(access, new, role, &field(at), context);
        let binding = judged.map_err(|error| error.of_item(|| field(at)))?;
        effects.create(Object::RoleBinding(binding.clone()));
        bindings.push(binding);
    }
    Ok(effects.answer(Response::RoleBindings(bindings)))
}

fn check_count(field: &str, count: usize) -> Result<(), Box<Refusal>> {
    if count == 0 || count > BATCH_BINDINGS_MAX {
        let problem = format!("{count}; expected 1 to {BATCH_BINDINGS_MAX}");
        return Err(Refusal::invalid(field, problem));
    }
    Ok(())
}

/// What can be checked of a new binding alone.
fn check(new: &NewRoleBinding, field: &str) -> Result<(), Box<Refusal>> {
    check_texts(field, Some(&new.name), Some(&new.description))?;
    check_conditions(&format!("{field}.when"), &new.when)
}

/// The scope, the role and the identity of a new binding are there and belong together.
fn referenced(
    access: &Access<'_>,
    new: &NewRoleBinding,
    field: &str,
) -> Result<Arc<Role>, JudgeError> {
    let scope = new.scope.as_path();
    if !access.view.is_scope(scope) {
        return Err(Refusal::not_found().into());
    }
    let role = access.bindable_role(&new.role, scope, &format!("{field}.role"))?;
    access.bindable_identity(new.identity.as_path(), scope, &format!("{field}.identity"))?;
    Ok(role)
}

/// Bindings that one operation makes: none of them twice.
#[derive(Debug, Default)]
struct Made {
    keys: BTreeSet<Key>,
    ids: BTreeSet<PathBuf>,
}

impl Made {
    /// R1 and R14 for a new binding, and its path.
    fn judge(
        &mut self,
        access: &Access<'_>,
        new: &NewRoleBinding,
        role: &Role,
        field: &str,
        context: &mut Context<'_>,
    ) -> Result<RoleBinding, JudgeError> {
        let scope = new.scope.as_path();
        access.grant(Rule::Grant, role, scope, new.expires_at, &[CREATE])?;
        let fact = engine::RoleBinding {
            id: None,
            identity: new.identity.clone(),
            role: new.role.clone(),
            scope: new.scope.clone(),
            expires_at: new.expires_at,
            when: new.when.clone(),
        };
        if exists(access, &fact, None) || !self.keys.insert(Key::of(&fact)) {
            return Err(same(&new.scope).into());
        }
        let id = match &new.id {
            Some(id) if id.as_path().parent() != Some(scope) => {
                let expected = format!("expected a path below `{scope}` with one segment more");
                return Err(
                    Refusal::invalid(format!("{field}.id"), format!("`{id}`; {expected}")).into()
                );
            }
            Some(_) => new_path(access, Kind::RoleBinding, Some(scope), new.id.as_ref(), context)?,
            None => free_binding_id(access, &fact, "parent", context)?,
        };
        if !self.ids.insert(id.clone()) {
            let cause = Cause::AlreadyExists { id, same_binding: false };
            return Err(Refusal::open(None, cause).into());
        }
        Ok(RoleBinding {
            id,
            name: new.name.clone(),
            description: new.description.clone(),
            identity: fact.identity,
            role: fact.role,
            scope: fact.scope,
            expires_at: fact.expires_at,
            when: fact.when,
            meta: Meta::new(context.revision, context.now),
        })
    }
}

/// What makes two bindings the same: all but id and expiry. Conditions are a set.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    identity: PathBuf,
    role: Box<str>,
    scope: PathBuf,
    when: BTreeSet<Condition>,
}

impl Key {
    fn of(binding: &engine::RoleBinding) -> Self {
        Self {
            identity: binding.identity.clone(),
            role: binding.role.clone(),
            scope: binding.scope.clone(),
            when: binding.when.iter().cloned().collect(),
        }
    }
}

/// Whether there is the same binding, apart from the one with this id.
fn exists(access: &Access<'_>, binding: &engine::RoleBinding, but: Option<&PathBuf>) -> bool {
    let same = access.view.snapshot().same_binding(binding);
    same.is_some_and(|same| but.is_none() || same.id.as_ref() != but)
}

fn same(scope: &PathBuf) -> Box<Refusal> {
    Refusal::open(None, Cause::AlreadyExists { id: scope.clone(), same_binding: true })
}

// === Update ===

/// R5: judged as a create of the new binding and a delete of the old one.
pub(super) fn update(
    access: &Access<'_>,
    update: &UpdateRoleBinding,
    context: &Context<'_>,
) -> Result<Outcome, JudgeError> {
    let field = "role_binding";
    check_texts(field, update.name.as_deref(), update.description.as_deref())?;
    check_conditions("role_binding.when", update.when.as_deref().unwrap_or_default())?;
    let method = [CREATE, DELETE, UPDATE];
    let Some(before) = access.view.binding(update.id.as_path())? else {
        access.require(&method, parent_or_self(update.id.as_path()))?;
        return Err(Refusal::not_found().into());
    };
    let scope = before.scope.as_path();
    access.require(&method, scope)?;
    check_etag(update.etag.as_ref(), &before.meta, &before.id)?;
    if update.scope.as_ref().is_some_and(|new| *new != before.scope) {
        let problem = "it cannot change; create another binding and delete this one";
        return Err(Refusal::invalid("role_binding.scope", problem).into());
    }
    let mut after = before.clone();
    after.name = update.name.clone().unwrap_or(after.name);
    after.description = update.description.clone().unwrap_or(after.description);
    after.identity = update.identity.clone().unwrap_or(after.identity);
    after.role = update.role.clone().unwrap_or(after.role);
    after.expires_at = update.expires_at.unwrap_or(after.expires_at);
    after.when = update.when.clone().unwrap_or(after.when);
    if access.view.identity(before.identity.as_path())?.is_some_and(|one| one.is_pull_token()) {
        return Err(Refusal::open(None, Cause::PullToken { id: before.identity }).into());
    }
    let role = access.bindable_role(&after.role, scope, "role_binding.role")?;
    access.bindable_identity(after.identity.as_path(), scope, "role_binding.identity")?;
    if access.rules.keeps(Rule::BindingUpdate) {
        access.grant(Rule::Grant, &role, scope, after.expires_at, &method)?;
        access.take(before.identity.as_path(), &before.role, scope)?;
    }
    if exists(access, &after.fact(), Some(&before.id)) {
        return Err(same(&before.scope).into());
    }
    let mut effects = Effects::default();
    if after != before {
        after.meta = before.meta.changed(context.revision, context.now);
        effects.update(Object::RoleBinding(before), Object::RoleBinding(after.clone()));
    }
    Ok(effects.answer(Response::RoleBinding(after)))
}

// === Delete ===

pub(super) fn delete(access: &Access<'_>, delete: &Delete) -> Result<Outcome, JudgeError> {
    let binding = taken(access, &delete.id)?;
    check_etag(delete.etag.as_ref(), &binding.meta, &binding.id)?;
    let mut effects = Effects::default();
    effects.delete(Object::RoleBinding(binding));
    Ok(effects.answer(Response::Deleted))
}

/// A binding that the actor may delete (R16, R17).
fn taken(access: &Access<'_>, id: &PathBuf) -> Result<RoleBinding, JudgeError> {
    let Some(binding) = access.view.binding(id.as_path())? else {
        access.require(&[DELETE], parent_or_self(id.as_path()))?;
        return Err(Refusal::not_found().into());
    };
    access.take(binding.identity.as_path(), &binding.role, binding.scope.as_path())?;
    Ok(binding)
}

/// All or none.
pub(super) fn delete_batch(
    access: &Access<'_>,
    batch: &BatchDeleteRoleBindings,
) -> Result<Outcome, JudgeError> {
    check_count("ids", batch.ids.len())?;
    let (parent, mut seen) = (batch.parent.as_path(), BTreeSet::new());
    for (at, id) in batch.ids.iter().enumerate() {
        let problem = if !seen.insert(id) {
            format!("`{id}` again")
        } else if *id == batch.parent || !parent.contains(id.as_path()) {
            format!("`{id}`; expected a path below `{parent}`")
        } else {
            continue;
        };
        return Err(Refusal::invalid(format!("ids[{at}]"), problem).into());
    }
    let bindings: Result<Vec<_>, _> =
        batch.ids.iter().map(|id| access.view.binding(id.as_path())).collect();
    let own = |one: &Option<RoleBinding>| {
        one.as_ref().is_some_and(|one| access.is(one.identity.as_path()))
    };
    if !bindings?.iter().all(own) {
        access.require(&[DELETE], parent)?;
    }
    let mut effects = Effects::default();
    for (at, id) in batch.ids.iter().enumerate() {
        let taken = taken(access, id).map_err(|error| error.of_item(|| format!("ids[{at}]")))?;
        effects.delete(Object::RoleBinding(taken));
    }
    Ok(effects.answer(Response::Deleted))
}

/// Every binding of an identity in an organization, whether or not it counts.
pub(super) fn remove_member(
    access: &Access<'_>,
    remove: &RemoveMember,
) -> Result<Outcome, JudgeError> {
    let organization = remove.organization.as_path();
    if organization.parent().is_some() {
        let problem = format!("`{organization}`; expected an organization, not a folder");
        return Err(Refusal::invalid("organization", problem).into());
    }
    let mut bindings = access.view.snapshot().role_bindings(remove.identity.as_path());
    bindings.retain(|one| organization.contains(one.scope.as_path()));
    if bindings.is_empty() || !access.is(remove.identity.as_path()) {
        access.require(&[DELETE], organization)?;
        if !access.view.is_group(organization) {
            return Err(Refusal::not_found().into());
        }
    }
    let mut effects = Effects::default();
    for binding in &bindings {
        access.take(binding.identity.as_path(), &binding.role, binding.scope.as_path())?;
        effects.delete(Object::RoleBinding(access.view.whole(binding.id.as_ref())?));
    }
    Ok(effects.answer(Response::Deleted))
}
