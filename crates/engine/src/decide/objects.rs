//! What is there, by id: reads for whoever manages objects.
//!
//! **Invariant**: none of these is a decision. They tell what is stored, whether or not it counts.

use std::sync::Arc;

use crate::index::read::{Binding, is_disabled, is_registered, kind_of_identity};
use crate::index::scope::{ScopeKind, ScopeRecord};
use crate::rules::BindingKey;
use crate::{AttributeCategory, Path, PathBuf, Properties, Role, RoleBinding, Snapshot};

/// What a snapshot knows of an identity, apart from its properties and its bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityState {
    /// Whether it is registered. One that is not is bound, see [`is_derived_identity`](crate::is_derived_identity).
    pub registered: bool,
    /// Whether it is disabled, so that no binding of it counts.
    pub disabled: bool,
}

/// What a snapshot knows of a group or a registered resource, apart from its properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScopeState {
    /// Whether it is a group, and otherwise a registered resource.
    pub group: bool,
    /// The number of groups, custom roles, identities and resources whose parent it is.
    pub children: usize,
}

impl Snapshot {
    /// The state of an identity; `None` if it is neither registered nor bound anywhere. Costs one look-up.
    #[must_use]
    pub fn identity_state(&self, identity: Path<'_>) -> Option<IdentityState> {
        let entry = self.index().identities().get(identity.as_str())?;
        Some(IdentityState { registered: is_registered(entry), disabled: is_disabled(entry) })
    }

    /// Whether an identity is registered. Costs one look-up.
    #[must_use]
    pub fn is_registered(&self, identity: Path<'_>) -> bool {
        self.identity_state(identity).is_some_and(|state| state.registered)
    }

    /// Whether an identity is registered and disabled. Costs one look-up.
    #[must_use]
    pub fn is_disabled(&self, identity: Path<'_>) -> bool {
        self.identity_state(identity).is_some_and(|state| state.disabled)
    }

    /// The state of a group or a registered resource; `None` if the path names neither. Costs one look-up.
    #[must_use]
    pub fn scope_state(&self, scope: Path<'_>) -> Option<ScopeState> {
        let (_, record) = self.index().scope(scope.as_str())?;
        Some(ScopeState {
            group: record.kind == ScopeKind::Group,
            children: record.children as usize,
        })
    }

    /// Whether the path names a group. Costs one look-up.
    #[must_use]
    pub fn is_group(&self, path: Path<'_>) -> bool {
        self.scope_state(path).is_some_and(|state| state.group)
    }

    /// Whether the path names a registered resource. Costs one look-up.
    #[must_use]
    pub fn is_resource(&self, path: Path<'_>) -> bool {
        self.scope_state(path).is_some_and(|state| !state.group)
    }

    /// Whether the path names anything: a group, a resource, a custom role, a role binding, or an identity that is
    /// registered or bound.
    ///
    /// Costs a look-up each. If nothing but a role binding can have the path, it costs as [`Self::role_binding`] does.
    #[must_use]
    pub fn is_taken(&self, path: Path<'_>) -> bool {
        self.index().is_taken(path.as_str())
    }

    /// The type of an identity; `None` if it is neither registered nor bound anywhere. One that is not registered is a
    /// [`USER`](crate::USER). Costs one look-up.
    #[must_use]
    pub fn identity_kind(&self, identity: Path<'_>) -> Option<&str> {
        self.index().identities().get(identity.as_str()).map(kind_of_identity)
    }

    /// The type of a registered resource; `None` for any other path. Costs one look-up.
    #[must_use]
    pub fn resource_kind(&self, resource: Path<'_>) -> Option<&str> {
        self.index().resource_kind(resource.as_str())
    }

    /// The registered properties of an identity; `None` if it has none. Costs one look-up.
    #[must_use]
    pub fn identity_properties(&self, identity: Path<'_>) -> Option<&Properties> {
        let properties = self.index().identity_properties(identity.as_str());
        properties.filter(|properties| !properties.is_empty())
    }

    /// The registered properties of a registered resource; `None` if it has none. Costs one look-up.
    #[must_use]
    pub fn resource_properties(&self, resource: Path<'_>) -> Option<&Properties> {
        let properties = self.index().resource_properties(resource.as_str());
        properties.filter(|properties| !properties.is_empty())
    }

    /// The role of this id: a built-in role's name, or a custom role's path. Costs one look-up.
    #[must_use]
    pub fn role(&self, id: &str) -> Option<&Arc<Role>> {
        let roles = self.index().roles();
        roles.shared(roles.find(id)?.number)
    }

    /// The number of role bindings of a role, whether or not they count; `None` if there is no such role. Costs one
    /// look-up.
    #[must_use]
    pub fn role_bindings_len(&self, id: &str) -> Option<usize> {
        Some(self.index().roles().find(id)?.bindings as usize)
    }

    /// The role bindings at exactly this scope, whether or not they count, in the order of their identities; those of one
    /// identity in an order that may differ between snapshots. None if the path names no scope.
    ///
    /// Costs a search among the bindings of each identity, and a hash for each id that is derived.
    pub fn bindings_at(&self, scope: Path<'_>) -> impl Iterator<Item = RoleBinding> + use<'_> {
        let index = self.index();
        let scope = index.scope(scope.as_str());
        scope.into_iter().flat_map(move |(scope, record)| {
            let identities = distinct(&record).filter_map(|one| index.identities().entry(one));
            identities.flat_map(move |identity| {
                let here = index.stored_at_scope(identity, scope);
                here.filter_map(move |binding| index.role_binding(identity, &binding))
            })
        })
    }

    /// Those of [`Self::bindings_at`] that have a condition on this category of attributes.
    ///
    /// Costs a look at each identity that is bound there, and nothing for the bindings without conditions.
    pub fn conditional_bindings_at(
        &self,
        scope: Path<'_>,
        category: AttributeCategory,
    ) -> impl Iterator<Item = RoleBinding> + use<'_> {
        let index = self.index();
        let scope = index.scope(scope.as_str());
        scope.into_iter().flat_map(move |(scope, record)| {
            let identities = distinct(&record).filter_map(|one| index.identities().entry(one));
            identities.flat_map(move |identity| {
                let conditional = index.stored_conditional(identity, category);
                let here = conditional.filter(move |one| one.packed.scope == scope.number());
                here.filter_map(move |binding| index.role_binding(identity, &binding))
            })
        })
    }

    /// The role bindings of an identity at exactly this scope, whether or not they count, in an order that may differ
    /// between snapshots. None if the identity is not known or the path names no scope.
    ///
    /// Costs a search among the bindings of the identity, and a hash for each id that is derived.
    pub fn role_bindings_at(
        &self,
        identity: Path<'_>,
        scope: Path<'_>,
    ) -> impl Iterator<Item = RoleBinding> + use<'_> {
        let index = self.index();
        let identity = index.identities().get(identity.as_str());
        let both = identity.zip(index.scope(scope.as_str()));
        both.into_iter().flat_map(move |(identity, (scope, _))| {
            let here = index.stored_at_scope(identity, scope);
            here.filter_map(move |binding| index.role_binding(identity, &binding))
        })
    }

    /// The role binding with this identity, role and scope and this set of conditions, whatever its id and expiry.
    ///
    /// Costs a search among the bindings of the identity.
    #[must_use]
    pub fn same_binding(&self, binding: &RoleBinding) -> Option<RoleBinding> {
        let index = self.index();
        let identity = index.identities().get(binding.identity.as_str())?;
        let (scope, _) = index.scope(binding.scope.as_str())?;
        let key = BindingKey::of(binding);
        let mut here = index.stored_at_scope(identity, scope);
        let is_same = |one: &Binding<'_>| {
            index.role_id(one) == &*binding.role && key.has_conditions(one.conditions())
        };
        index.role_binding(identity, &here.find(is_same)?)
    }

    /// The id that this role binding gets if it is created now: the declared one, the derived one, or the next that is
    /// free. `None` if the declared one is taken, or an id below the scope would not be a path.
    ///
    /// Costs as [`Self::role_binding`] does, for each id that is taken.
    #[must_use]
    pub fn free_binding_id(&self, binding: &RoleBinding) -> Option<PathBuf> {
        self.index().free_binding_id(binding)
    }
}

/// The identities that a scope lists, each once. They are in the order of their ids.
fn distinct<'s>(record: &ScopeRecord<'s>) -> impl Iterator<Item = u32> + use<'s> {
    let mut last = None;
    record.bound.identities().filter(move |one| last.replace(*one) != Some(*one))
}
