//! Account associations (R9): whoever makes or changes one covers every identity that it names.

use std::collections::BTreeMap;

use capstan_engine::{Path, PathBuf};

use super::Effects;
use super::fields::{check_etag, check_texts, in_field};
use crate::object::{check_services, parent_or_self, root_of};
use crate::rights::set;
use crate::rules::access::Access;
use crate::rules::control::Control;
use crate::{
    AccountAssociation, Accounts, Cause, Context, CreateAccountAssociation, Delete, Incarnation,
    JudgeError, Meta, Object, Outcome, Refusal, Response, Rule, UpdateAccountAssociation,
};

const CREATE: &str = "account_associations.create";
const UPDATE: &str = "account_associations.update";
const DELETE: &str = "account_associations.delete";

type Services = BTreeMap<String, Incarnation>;

pub(super) fn create(
    access: &Access<'_>,
    new: &CreateAccountAssociation,
    context: &Context<'_>,
) -> Result<Outcome, JudgeError> {
    check_texts("account_association", Some(&new.name), Some(&new.description))?;
    check_accounts(&new.accounts)?;
    in_field("account_association.services", check_services(new.services.keys()))?;
    let group = new.parent.as_path();
    access.require(&[CREATE], group)?;
    if !access.view.is_group(group) {
        return Err(Refusal::not_found().into());
    }
    if access.view.association(group)?.is_some() {
        let cause = Cause::Duplicate { id: new.parent.clone(), what: "an account association" };
        return Err(Refusal::open(None, cause).into());
    }
    let association = AccountAssociation {
        id: new.parent.clone(),
        name: new.name.clone(),
        description: new.description.clone(),
        accounts: new.accounts.clone(),
        services: named(access, group, &new.services)?,
        meta: Meta::new(context.revision, context.now),
    };
    control(access, &association.services, Control::Resolve)?;
    lasting(access, CREATE, group)?;
    let mut effects = Effects::default();
    effects.create(Object::AccountAssociation(association.clone()));
    Ok(effects.answer(Response::AccountAssociation(association)))
}

fn check_accounts(accounts: &Accounts) -> Result<(), Box<Refusal>> {
    accounts.check().map_err(|(field, problem)| {
        Refusal::invalid(format!("account_association.{field}"), problem)
    })
}

/// Identities of the group's organization, as they are now. One that is absent and one that is foreign are told alike.
fn named(
    access: &Access<'_>,
    group: Path<'_>,
    services: &BTreeMap<String, PathBuf>,
) -> Result<Services, JudgeError> {
    let organization = root_of(group);
    let mut named = Services::new();
    for (name, id) in services {
        let refuse = |rule| {
            let field = format!("account_association.services[{name}]");
            let problem = format!("no identity `{id}` in `{organization}`");
            Refusal::open(rule, Cause::InvalidField { field, problem })
        };
        let is_inside = organization.contains(id.as_path());
        if !is_inside && access.rules.keeps(Rule::AcrossOrganizations) {
            return Err(refuse(Some(Rule::AcrossOrganizations)).into());
        }
        let found = access.view.identity(id.as_path())?.ok_or_else(|| refuse(None))?;
        if found.is_pull_token() {
            return Err(Refusal::open(None, Cause::PullToken { id: id.clone() }).into());
        }
        named.insert(name.clone(), Incarnation { id: found.id, created: found.meta.created });
    }
    Ok(named)
}

/// R9 for every identity that is named and is still the one that was named.
fn control(access: &Access<'_>, services: &Services, how: Control) -> Result<(), JudgeError> {
    for one in services.values() {
        let id = one.id.as_path();
        let is_same =
            access.view.identity(id)?.is_some_and(|found| found.meta.created == one.created);
        if is_same {
            access.control(id, parent_or_self(id), how)?;
        }
    }
    Ok(())
}

/// R14: what is associated is so without end.
fn lasting(access: &Access<'_>, method: &str, group: Path<'_>) -> Result<(), JudgeError> {
    if access.rights.is_operator() {
        return Ok(());
    }
    access.within(&set(access.view.snapshot().catalog(), &[method]), group, None)
}

pub(super) fn update(
    access: &Access<'_>,
    update: &UpdateAccountAssociation,
    context: &Context<'_>,
) -> Result<Outcome, JudgeError> {
    let (field, fields) = ("account_association", &update.update);
    check_texts(field, fields.name.as_deref(), fields.description.as_deref())?;
    if let Some(services) = &fields.services {
        in_field("account_association.services", check_services(services.keys()))?;
    }
    let group = update.id.as_path();
    access.require(&[UPDATE], group)?;
    let before = access.view.association(group)?.ok_or_else(Refusal::not_found)?;
    check_etag(update.etag.as_ref(), &before.meta, &before.id)?;
    let mut after = before.clone();
    after.name = fields.name.clone().unwrap_or(after.name);
    after.description = fields.description.clone().unwrap_or(after.description);
    let accounts = &mut after.accounts;
    accounts.aws = fields.aws.clone().unwrap_or_else(|| accounts.aws.take());
    accounts.google = fields.google.clone().unwrap_or_else(|| accounts.google.take());
    accounts.azure = fields.azure.clone().unwrap_or_else(|| accounts.azure.take());
    accounts.github = fields.github.clone().unwrap_or_else(|| accounts.github.take());
    check_accounts(accounts)?;
    if let Some(services) = &fields.services {
        after.services = named(access, group, services)?;
    }
    let mut effects = Effects::default();
    if after != before {
        if (&after.accounts, &after.services) != (&before.accounts, &before.services) {
            control(access, &after.services, Control::Resolve)?;
            control(access, &before.services, Control::Unresolve)?;
            lasting(access, UPDATE, group)?;
        }
        after.meta = before.meta.changed(context.revision, context.now);
        let (old, new) = (before, after.clone());
        effects.update(Object::AccountAssociation(old), Object::AccountAssociation(new));
    }
    Ok(effects.answer(Response::AccountAssociation(after)))
}

pub(super) fn delete(access: &Access<'_>, delete: &Delete) -> Result<Outcome, JudgeError> {
    let group = delete.id.as_path();
    access.require(&[DELETE], group)?;
    let association = access.view.association(group)?.ok_or_else(Refusal::not_found)?;
    check_etag(delete.etag.as_ref(), &association.meta, &association.id)?;
    control(access, &association.services, Control::Unresolve)?;
    let mut effects = Effects::default();
    effects.delete(Object::AccountAssociation(association));
    Ok(effects.answer(Response::Deleted))
}

/// Deletes the association of a group that is deleted, judged as its own delete.
pub(super) fn delete_of(
    access: &Access<'_>,
    group: Path<'_>,
    effects: &mut Effects,
) -> Result<(), JudgeError> {
    let Some(association) = access.view.association(group)? else { return Ok(()) };
    access.require(&[DELETE], group)?;
    control(access, &association.services, Control::Unresolve)?;
    effects.delete(Object::AccountAssociation(association));
    Ok(())
}
