//! Reads: what a caller may see (R18), in one place for Get, List and Export.
//!
//! A Get needs the `.list` capability and is refused as a write would be. A List shows what the caller may see and
//! refuses nothing.

use std::collections::BTreeMap;

use capstan_engine::{Path, PathBuf, Timestamp};

use crate::judge::resource_capability;
use crate::object::parent_or_self;
use crate::rights::names;
use crate::rules::access::Access;
use crate::{Actor, Identity, JudgeError, Kind, Object, ObjectsError, Refusal, Rule};
use crate::{RuleSet, State};

/// An object as a caller sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// The object. Of one that is shown in part, the other fields are empty.
    pub object: Object,
    /// Only id, name and type are shown: no etag and no times either.
    pub in_part: bool,
}

/// A caller that reads one state.
#[derive(Debug)]
pub struct Reader<'s> {
    access: Access<'s>,
}

impl<'s> Reader<'s> {
    /// A caller that is registered and enabled, or the operator.
    ///
    /// # Errors
    ///
    /// The caller is neither: `AUTHN_FAILED`.
    pub fn new(
        rules: &RuleSet,
        state: &State<'s>,
        actor: &'s Actor,
        now: Timestamp,
    ) -> Result<Self, JudgeError> {
        Ok(Self { access: Access::new(*rules, *state, actor, now)? })
    }

    /// Whether the caller holds a capability at a scope, by bindings without conditions.
    #[must_use]
    pub fn holds(&self, capability: &str, scope: Path<'_>) -> bool {
        self.access.rights.holds(capability, scope)
    }

    /// The capabilities that a method needs at a scope.
    ///
    /// # Errors
    ///
    /// The caller lacks one: the refusal of a Get or of any other method that changes nothing.
    pub fn require(&self, method: &[&str], scope: Path<'_>) -> Result<(), JudgeError> {
        self.access.require(method, scope)
    }

    /// An object for a Get.
    ///
    /// # Errors
    ///
    /// It is not there, or the caller may not see it, or the state cannot be read.
    pub fn get(&self, kind: Kind, id: Path<'_>) -> Result<Shown, JudgeError> {
        let found = self.access.view.get(kind, id)?;
        if let Some(object) = &found
            && let Some(shown) = self.show(object)?
        {
            return Ok(shown);
        }
        // Otherwise the refusal says no more than the path does.
        let scope = match (&found, kind) {
            (_, Kind::Group | Kind::AccountAssociation) => id,
            (Some(Object::RoleBinding(binding)), _) => binding.scope.as_path(),
            _ => parent_or_self(id),
        };
        match (&found, kind) {
            (Some(Object::Resource(resource)), _) => {
                let catalog = self.access.view.snapshot().catalog();
                let capability = resource_capability(catalog, &resource.kind, "list");
                self.access.require(&[&capability], scope)?;
            }
            (_, Kind::Identity) if id.parent().is_none() => {}
            (None, Kind::Resource) => {}
            _ => self.access.require(&[list_capability(kind)], scope)?,
        }
        Err(Refusal::not_found().into())
    }

    /// An object as the caller sees it; `None` if it does not.
    ///
    /// # Errors
    ///
    /// The state cannot be read.
    pub fn show(&self, object: &Object) -> Result<Option<Shown>, ObjectsError> {
        let access = &self.access;
        let shown = |in_part, object| Ok(Some(Shown { object, in_part }));
        if access.rights.is_operator() || !access.rules.keeps(Rule::Visibility) {
            return shown(false, object.clone());
        }
        let holds = |capability: &str, scope: Path<'_>| access.rights.holds(capability, scope);
        let is_seen = match object {
            Object::Group(group) => holds("groups.list", group.id.as_path()),
            Object::Role(role) => holds("roles.list", role.home()),
            Object::RoleBinding(binding) => {
                access.is_shown_itself(binding.identity.as_path())
                    || holds("role_bindings.list", binding.scope.as_path())
            }
            Object::Identity(identity) => {
                let id = identity.id.as_path();
                match id.parent() {
                    _ if access.is_shown_itself(id) => true,
                    Some(parent) => holds("identity.list", parent),
                    None if self.sees_root(id) => {
                        return shown(true, Object::Identity(in_part(identity)));
                    }
                    None => false,
                }
            }
            Object::Resource(resource) => {
                let catalog = access.view.snapshot().catalog();
                let capability = resource_capability(catalog, &resource.kind, "list");
                holds(&capability, parent_or_self(resource.id.as_path()))
            }
            Object::GroupInvite(invite) => holds("group_invites.list", invite.group()),
            Object::Subscription(one) => holds("subscriptions.list", one.group()),
            Object::IdentityProvider(provider) => {
                holds("identity_providers.list", provider.organization())
            }
            Object::GroupRoleMapping(mapping) => {
                holds("identity_providers.list", mapping.provider())
            }
            Object::AccountAssociation(association) => {
                holds("account_associations.list", association.id.as_path())
            }
        };
        if is_seen { shown(false, object.clone()) } else { Ok(None) }
    }

    /// Whether the caller holds the `.list` capability of an object where that is needed. Unlike [`Self::show`], an identity
    /// that is the caller's own needs it, too, and a root identity is the operator's.
    #[must_use]
    pub fn lists(&self, object: &Object) -> bool {
        let scope = match object {
            Object::Group(group) => group.id.as_path(),
            Object::RoleBinding(binding) => binding.scope.as_path(),
            Object::AccountAssociation(association) => association.id.as_path(),
            other => match other.id().as_path().parent() {
                Some(parent) => parent,
                None => return self.access.rights.is_operator(),
            },
        };
        match object {
            Object::Resource(resource) => {
                let catalog = self.access.view.snapshot().catalog();
                self.holds(&resource_capability(catalog, &resource.kind, "list"), scope)
            }
            other => self.holds(list_capability(other.kind()), scope),
        }
    }

    /// A root identity is seen by who holds `role_bindings.list` where it is bound.
    fn sees_root(&self, id: Path<'_>) -> bool {
        let mut scopes = self.access.view.snapshot().bound_scopes(id);
        scopes.any(|scope| self.holds("role_bindings.list", scope))
    }

    /// The topmost scopes at which the caller holds one of these capabilities, sorted: what it may list lies there and
    /// below. Empty for the operator, who is bound nowhere.
    #[must_use]
    pub fn topmost(&self, capabilities: &[&str]) -> Vec<PathBuf> {
        let catalog = self.access.view.snapshot().catalog();
        let wanted: Vec<_> =
            capabilities.iter().filter_map(|name| catalog.capability(name)).collect();
        let scopes = self.access.rights.scopes_with(&wanted);
        let given = scopes.iter().filter_map(|scope| Path::parse(scope).ok());
        let is_topmost = |scope: &Path<'_>| {
            !scope.ancestors().skip(1).any(|above| scopes.contains(above.as_str()))
        };
        given.filter(is_topmost).map(PathBuf::from).collect()
    }

    /// What the caller's bindings give, by scope: those without conditions that are in time. What a scope inherits is
    /// not repeated there. Empty for the operator.
    #[must_use]
    pub fn given(&self) -> Vec<(PathBuf, Vec<String>)> {
        let catalog = self.access.view.snapshot().catalog();
        let named = |(scope, given): (PathBuf, _)| (scope, names(catalog, &given));
        self.access.rights.by_scope().into_iter().map(named).collect()
    }
}

/// What a Get or List of a kind needs. Resources have theirs by type.
const fn list_capability(kind: Kind) -> &'static str {
    match kind {
        Kind::Group | Kind::Resource => "groups.list",
        Kind::Role => "roles.list",
        Kind::RoleBinding => "role_bindings.list",
        Kind::Identity => "identity.list",
        Kind::GroupInvite => "group_invites.list",
        Kind::Subscription => "subscriptions.list",
        Kind::IdentityProvider | Kind::GroupRoleMapping => "identity_providers.list",
        Kind::AccountAssociation => "account_associations.list",
    }
}

/// Id, name and type.
fn in_part(identity: &Identity) -> Identity {
    Identity {
        id: identity.id.clone(),
        name: identity.name.clone(),
        kind: identity.kind.clone(),
        description: String::new(),
        properties: BTreeMap::new(),
        disabled: false,
        authentication: None,
        meta: identity.meta,
    }
}
