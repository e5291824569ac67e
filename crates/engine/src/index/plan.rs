//! What the builder reads: facts that keep the rules, by their positions.
//!
//! **Invariant**: positions of scopes are those of groups followed by resources, and roles have the numbers of a
//! new index.

use std::sync::Arc;

use crate::index::binding::{BindingId, Restrictions};
use crate::index::hash::Seed;
use crate::rules::{BindingKey, References};
use crate::{Catalog, CustomRole, Map, Model, Properties, USER};

/// Facts for [`Index::build`](crate::index::Index::build).
pub(crate) trait Plan {
    /// The seed of the index.
    fn seed(&self) -> Seed;
    fn catalog(&self) -> &Arc<Catalog>;
    fn roles(&self) -> &[CustomRole];
    fn groups_len(&self) -> usize;
    fn resources_len(&self) -> usize;
    /// The number of identities. Those that are bound and not registered are the last.
    fn identities_len(&self) -> usize;
    /// The number of registered identities.
    fn registered_len(&self) -> usize;
    /// What each binding refers to.
    fn references(&self) -> &[References];
    /// The path of the scope at a position. The buffer may be used for it.
    fn scope<'b>(&'b self, at: usize, buffer: &'b mut String) -> &'b str;
    /// The path of the identity at a position. The buffer may be used for it.
    fn identity<'b>(&'b self, at: usize, buffer: &'b mut String) -> &'b str;
    /// For each scope, how many groups, roles, identities and resources have it as their parent.
    fn children(&self) -> Vec<u32>;
    /// The type of the resource at a position among resources.
    fn resource_kind(&self, at: usize) -> &str;
    fn identity_kind(&self, at: usize) -> &str;
    /// The properties of the resource at a position among resources.
    fn resource_properties(&self, at: usize) -> Option<&Properties>;
    fn identity_properties(&self, at: usize) -> Option<&Properties>;
    /// Whether the identity at a position is registered and disabled.
    fn is_disabled(&self, at: usize) -> bool;
    fn restrictions(&self, binding: u32) -> Restrictions;
    fn id(&self, binding: u32) -> BindingId;
    /// The number of the id that the binding has if it declares none.
    fn derived_number(&self, binding: u32) -> u64;

    /// No path and no derived number is asked for any more.
    fn forget_paths(&mut self) {}
    /// No reference is asked for any more.
    fn forget_references(&mut self) {}

    /// The number of groups and resources.
    fn scopes_len(&self) -> usize {
        self.groups_len() + self.resources_len()
    }
}

impl Plan for &Model {
    fn seed(&self) -> Seed {
        Seed::random()
    }

    fn catalog(&self) -> &Arc<Catalog> {
        Model::catalog(self)
    }

    fn roles(&self) -> &[CustomRole] {
        &self.facts().roles
    }

    fn groups_len(&self) -> usize {
        self.facts().groups.len()
    }

    fn resources_len(&self) -> usize {
        self.facts().resources.len()
    }

    fn identities_len(&self) -> usize {
        self.registered_len() + self.unregistered().len()
    }

    fn registered_len(&self) -> usize {
        self.facts().identities.len()
    }

    fn references(&self) -> &[References] {
        Model::references(self)
    }

    fn scope<'b>(&'b self, at: usize, _: &'b mut String) -> &'b str {
        let facts = self.facts();
        let resource = || facts.resources.get(at.checked_sub(facts.groups.len())?);
        let id = match facts.groups.get(at) {
            Some(group) => Some(&group.id),
            None => resource().map(|resource| &resource.id),
        };
        id.map_or("", |id| id.as_str())
    }

    fn identity<'b>(&'b self, at: usize, _: &'b mut String) -> &'b str {
        let unregistered = || self.unregistered().get(at.checked_sub(self.registered_len())?);
        let id = match self.facts().identities.get(at) {
            Some(identity) => Some(&identity.id),
            None => unregistered(),
        };
        id.map_or("", |id| id.as_str())
    }

    fn children(&self) -> Vec<u32> {
        let facts = self.facts();
        let groups = facts.groups.iter().map(|group| &group.id);
        let scopes = groups.chain(facts.resources.iter().map(|resource| &resource.id));
        let positions: Map<&str, usize> =
            scopes.clone().enumerate().map(|(at, id)| (id.as_str(), at)).collect();
        let mut children = vec![0; positions.len()];
        let roles = facts.roles.iter().map(|role| &role.id);
        let identities = facts.identities.iter().map(|identity| &identity.id);
        for id in scopes.chain(roles).chain(identities) {
            let parent = id.as_path().parent().and_then(|parent| positions.get(parent.as_str()));
            if let Some(children) = parent.and_then(|parent| children.get_mut(*parent)) {
                *children += 1;
            }
        }
        children
    }

    fn resource_kind(&self, at: usize) -> &str {
        self.facts().resources.get(at).map_or("", |resource| &resource.kind)
    }

    fn identity_kind(&self, at: usize) -> &str {
        self.facts().identities.get(at).map_or(USER, |identity| &identity.kind)
    }

    fn resource_properties(&self, at: usize) -> Option<&Properties> {
        self.facts().resources.get(at).map(|resource| &resource.properties)
    }

    fn identity_properties(&self, at: usize) -> Option<&Properties> {
        self.facts().identities.get(at).map(|identity| &identity.properties)
    }

    fn is_disabled(&self, at: usize) -> bool {
        self.facts().identities.get(at).is_some_and(|identity| identity.disabled)
    }

    fn restrictions(&self, binding: u32) -> Restrictions {
        let binding = self.facts().role_bindings.get(binding as usize);
        binding.map_or_else(Restrictions::default, |binding| Restrictions {
            expires_at: binding.expires_at,
            conditions: binding.when.clone().into(),
        })
    }

    fn id(&self, binding: u32) -> BindingId {
        let Some(declared) = self.facts().role_bindings.get(binding as usize) else {
            return BindingId::Derived;
        };
        match (&declared.id, self.moved_number(binding as usize)) {
            (None, Some(moved)) => BindingId::Number(moved),
            (id, _) => {
                let derived = || BindingKey::of(declared).derived_number();
                BindingId::of(id.as_ref(), declared.scope.as_str(), derived)
            }
        }
    }

    fn derived_number(&self, binding: u32) -> u64 {
        let binding = self.facts().role_bindings.get(binding as usize);
        binding.map_or(0, |binding| BindingKey::of(binding).derived_number())
    }
}
