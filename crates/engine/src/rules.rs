//! The rules between facts (section 3 of the contract), each stated once.
//!
//! ```text
//! a document   all declared facts ─▶ View ─┐                       ┌─▶ every Violation   (document.rs)
//!                                          ├─▶ rules ─▶ BrokenRule ┤
//! a change     the index before it ─▶ View ┘                       └─▶ ChangeError       (change.rs)
//! ```
//!
//! **Invariant**: no rule is stated anywhere else. A rule looks up each path once and returns what it found, so
//! that nobody looks it up again.

mod binding_key;
mod document;

pub(crate) use binding_key::{BindingKey, binding_id, split_binding_id};
pub(crate) use document::References;
pub use document::{Model, check_facts};

use crate::model::path::contains;
use crate::{CONDITIONS_MAX, CustomRole, Path, RoleBinding};

/// Most roles, built-in ones included: the index numbers them with 20 bits (`index/binding.rs`).
pub(crate) const ROLES_MAX: u32 = 1 << 20;

/// Hex digits of the id of a root identity that is derived from issuer and subject.
const DERIVED_IDENTITY_DIGITS: usize = 40;

/// What rules need to know of the facts.
pub(crate) trait View {
    /// A reference to an identity that is registered or, in an index, bound.
    type Identity;
    /// A reference to a role.
    type Role;
    /// A reference to a group or a registered resource.
    type Scope;

    fn is_group(&self, id: &str) -> bool;
    fn identity(&self, id: &str) -> Option<Self::Identity>;
    fn scope(&self, id: &str) -> Option<Self::Scope>;
    /// Whether the path certainly names a group or a registered resource.
    fn is_scope(&self, id: &str) -> bool {
        self.scope(id).is_some()
    }
    fn custom_role(&self, id: &str) -> Option<Self::Role>;
    fn built_in_role(&self, name: &str) -> Option<Self::Role>;
    fn has_capability(&self, name: &str) -> bool;
}

/// A rule that a fact breaks. Texts are those of the fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BrokenRule<'f> {
    /// An id names one thing.
    IdTaken(&'f str),
    /// The parent of a path is a group.
    ParentIsNoGroup(Path<'f>),
    /// A custom role is below a group.
    RoleAtRoot(&'f str),
    /// The index has numbers for [`ROLES_MAX`] roles, built-in ones included.
    TooManyRoles { custom: usize, custom_max: usize },
    /// A role holds capabilities of the catalog.
    UnknownCapability { position: usize, name: &'f str },
    /// A binding names a registered identity, or one that needs no registration.
    UnknownIdentity(&'f str),
    /// A binding names a role: one with a slash is a custom role, one without is built in.
    UnknownRole(&'f str),
    /// A custom role is bound at or below the group that owns it.
    RoleOutsideItsGroup { role: &'f str, group: &'f str, scope: &'f str },
    /// A binding's scope is a group or a registered resource.
    UnknownScope(&'f str),
    /// A binding's id is a path below its scope.
    IdOutsideScope { id: &'f str, scope: &'f str },
    /// A binding has at most [`CONDITIONS_MAX`] conditions.
    TooManyConditions(usize),
    /// No two bindings have the same [`BindingKey`].
    SameBinding { identity: &'f str, role: &'f str, scope: &'f str },
    /// A group or resource is deleted only without children and without bindings at it.
    NotEmpty(&'f str),
    /// A role or identity is deleted only without bindings of it.
    StillBound(&'f str),
}

/// An id names one thing, of whatever kind.
pub(crate) fn check_id(id: &str, is_taken: bool) -> Result<(), BrokenRule<'_>> {
    if is_taken { Err(BrokenRule::IdTaken(id)) } else { Ok(()) }
}

/// The parent of a path, if it has one, is a group.
pub(crate) fn check_parent<'f>(view: &impl View, id: Path<'f>) -> Result<(), BrokenRule<'f>> {
    match id.parent() {
        Some(parent) if !view.is_group(parent.as_str()) => Err(BrokenRule::ParentIsNoGroup(parent)),
        _ => Ok(()),
    }
}

/// There are numbers for all roles.
pub(crate) fn check_role_count(built_in: usize, custom: usize) -> Result<(), BrokenRule<'static>> {
    let custom_max = (ROLES_MAX as usize).saturating_sub(built_in);
    if custom > custom_max {
        return Err(BrokenRule::TooManyRoles { custom, custom_max });
    }
    Ok(())
}

/// A custom role is below a group.
pub(crate) fn check_role_place(role: &CustomRole) -> Result<(), BrokenRule<'_>> {
    match role.id.as_path().parent() {
        Some(_) => Ok(()),
        None => Err(BrokenRule::RoleAtRoot(role.id.as_str())),
    }
}

/// A role holds capabilities of the catalog. Reports each that is not one.
pub(crate) fn check_role_capabilities<'f>(
    view: &impl View,
    role: &'f CustomRole,
    mut report: impl FnMut(BrokenRule<'f>),
) {
    for (position, name) in role.capabilities.iter().enumerate() {
        if !view.has_capability(name) {
            report(BrokenRule::UnknownCapability { position, name });
        }
    }
}

/// What a binding refers to; `None` for what is not there, which is reported.
pub(crate) struct Referenced<V: View> {
    /// `None` without a report for an identity that needs no registration and is not known yet.
    pub(crate) identity: Option<V::Identity>,
    pub(crate) role: Option<V::Role>,
    pub(crate) scope: Option<V::Scope>,
}

/// The rules of one binding, apart from those that compare it with others. Reports each that it
/// breaks.
pub(crate) fn check_binding<'f, V: View>(
    view: &V,
    binding: &'f RoleBinding,
    mut report: impl FnMut(BrokenRule<'f>),
) -> Referenced<V> {
    let (identity_id, scope_id, role_id) =
        (binding.identity.as_str(), binding.scope.as_str(), &*binding.role);
    let identity = view.identity(identity_id);
    if identity.is_none() && !may_be_unregistered(view, binding.identity.as_path()) {
        report(BrokenRule::UnknownIdentity(identity_id));
    }
    let scope = view.scope(scope_id);
    // A built-in role's name has no slash, a custom role's path always has one.
    let role = match role_id.rsplit_once('/') {
        None => view.built_in_role(role_id),
        Some((group, _)) => {
            let role = view.custom_role(role_id);
            // A scope that is not there is reported as such only.
            if role.is_some() && scope.is_some() && !contains(group, scope_id) {
                report(BrokenRule::RoleOutsideItsGroup { role: role_id, group, scope: scope_id });
            }
            role
        }
    };
    if role.is_none() {
        report(BrokenRule::UnknownRole(role_id));
    }
    match (&scope, &binding.id) {
        (None, _) => report(BrokenRule::UnknownScope(scope_id)),
        (Some(_), Some(id))
            if binding.scope == *id || !binding.scope.as_path().contains(id.as_path()) =>
        {
            report(BrokenRule::IdOutsideScope { id: id.as_str(), scope: scope_id });
        }
        _ => {}
    }
    if binding.when.len() > CONDITIONS_MAX {
        report(BrokenRule::TooManyConditions(binding.when.len()));
    }
    Referenced { identity, role, scope }
}

/// Whether this is the form of the id that a person has before and after the first login: one segment of 40 lower-case
/// hex digits (section 6 of the contract). A role binding may name such an identity before it is registered.
#[must_use]
pub fn is_derived_identity(id: Path<'_>) -> bool {
    let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    id.as_str().len() == DERIVED_IDENTITY_DIGITS && id.as_str().bytes().all(is_digit)
}

/// Whether a binding may name this identity, which is not registered. A path names one thing, so it is no identity if
/// it names a group or a resource. Nothing else can have a path of one segment.
fn may_be_unregistered(view: &impl View, id: Path<'_>) -> bool {
    is_derived_identity(id) && !view.is_scope(id.as_str())
}

/// A group or resource is deleted only without children and without bindings at it.
pub(crate) fn check_scope_deletion(
    id: &str,
    children: u32,
    bindings: usize,
) -> Result<(), BrokenRule<'_>> {
    if children > 0 || bindings > 0 { Err(BrokenRule::NotEmpty(id)) } else { Ok(()) }
}

/// A role or identity is deleted only without bindings of it.
pub(crate) fn check_bound_deletion(id: &str, bindings: usize) -> Result<(), BrokenRule<'_>> {
    if bindings > 0 { Err(BrokenRule::StillBound(id)) } else { Ok(()) }
}
