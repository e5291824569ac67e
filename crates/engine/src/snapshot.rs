//! The immutable index that every question is answered from.
//!
//! **Invariant**: a [`Snapshot`] never changes once built, and is the same for the same model:
//! identities, scopes and roles are numbered, each identity's bindings lie side by side.

use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

use crate::capabilities::{CapabilitySet, RoleMatrix};
use crate::model::{Model, binding_id};
use crate::{Catalog, Family, Map, PathBuf, RoleBinding, Timestamp};

/// One revision of the policy, indexed.
pub struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) catalog: Arc<Catalog>,
    /// Built-in roles in the catalog's order, then custom ones by id.
    roles: Vec<Role>,
    pub(crate) matrix: RoleMatrix,
    scopes: Vec<Box<str>>,
    /// Registered identities, each with the place of its bindings.
    identities: Map<Box<str>, Range<u32>>,
    bindings: Vec<Binding>,
}

/// A role that the policy knows.
#[derive(Clone, Debug)]
pub struct Role {
    /// A built-in role's name, or a custom role's path.
    pub id: Box<str>,
    /// What it is for, may be empty.
    pub description: Box<str>,
    /// Which part of the platform it is for.
    pub family: Family,
    /// What it gives.
    pub capabilities: CapabilitySet,
}

/// A role binding, by number.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) role: u32,
    scope: u32,
    pub(crate) expires_at: Option<Timestamp>,
    id: BindingId,
}

#[derive(Debug)]
enum BindingId {
    Declared(Box<str>),
    Generated(u64),
}

impl Snapshot {
    /// Indexes a model. The revision is the caller's to give, and only grows.
    #[must_use]
    pub fn build(model: &Model, revision: u64) -> Self {
        let roles = roles(model);
        let mut matrix = RoleMatrix::new(model.catalog().capabilities().len());
        roles.iter().for_each(|role| matrix.push(&role.capabilities));
        let scopes = scopes(model);

        let (identities, bindings) = bindings(model, &roles, &scopes);
        let catalog = Arc::clone(model.catalog());
        Self { revision, catalog, roles, matrix, scopes, identities, bindings }
    }

    /// Which revision this is.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The catalog that capabilities and built-in roles come from.
    #[must_use]
    pub const fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// Built-in roles in the catalog's order, then custom ones by id.
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.roles
    }

    /// How many identities are registered or bound.
    #[must_use]
    pub fn identities_len(&self) -> usize {
        self.identities.len()
    }

    /// How many role bindings there are, whether or not they count.
    #[must_use]
    pub fn bindings_len(&self) -> usize {
        self.bindings.len()
    }

    /// An identity's bindings, or nothing if it is neither registered nor bound.
    pub(crate) fn bindings(&self, identity: &str) -> Option<&[Binding]> {
        let range = self.identities.get(identity)?;
        self.bindings.get(range.start as usize..range.end as usize)
    }

    /// A binding's scope; for a number that is not there, a text that is no path's ancestor.
    pub(crate) fn scope(&self, binding: &Binding) -> &str {
        self.scopes.get(binding.scope as usize).map_or("/", |scope| scope)
    }

    pub(crate) fn role_id(&self, binding: &Binding) -> &str {
        self.roles.get(binding.role as usize).map_or("", |role| &role.id)
    }

    pub(crate) fn binding_id<'s>(&'s self, binding: &'s Binding) -> Cow<'s, str> {
        match &binding.id {
            BindingId::Declared(id) => Cow::Borrowed(id),
            BindingId::Generated(id) => Cow::Owned(binding_id(self.scope(binding), *id)),
        }
    }
}

impl fmt::Debug for Snapshot {
    /// Sizes only: a policy can have millions of bindings.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("revision", &self.revision)
            .field("catalog", &self.catalog.name())
            .field("identities", &self.identities.len())
            .field("bindings", &self.bindings.len())
            .finish_non_exhaustive()
    }
}

fn roles(model: &Model) -> Vec<Role> {
    let catalog = model.catalog();
    let built_in = catalog.roles().iter().map(|role| Role {
        id: (*role.name).into(),
        description: (*role.description).into(),
        family: role.family,
        capabilities: catalog.capability_set(&role.capabilities),
    });
    let mut custom: Vec<_> = model.facts().roles.iter().collect();
    custom.sort_unstable_by_key(|role| &role.id);
    let custom = custom.into_iter().map(|role| Role {
        id: role.id.as_str().into(),
        description: (*role.description).into(),
        family: Family::Custom,
        capabilities: catalog.capability_set(&role.capabilities),
    });
    built_in.chain(custom).collect()
}

/// Each identity's bindings side by side, sorted by scope and then by role, and their places.
fn bindings(
    model: &Model,
    roles: &[Role],
    scopes: &[Box<str>],
) -> (Map<Box<str>, Range<u32>>, Vec<Binding>) {
    let mut order: Vec<_> = model.facts().role_bindings.iter().enumerate().collect();
    order.sort_unstable_by_key(|(at, binding)| {
        (binding.identity.as_str(), binding.scope.as_str(), &*binding.role, *at)
    });

    let role_numbers: Map<&str, u32> = numbered(roles.iter().map(|role| &*role.id));
    let scope_numbers: Map<&str, u32> = numbered(scopes.iter().map(|scope| &**scope));
    let bind = |(at, binding): &(usize, &RoleBinding)| Binding {
        // What a model refers to is there; what is not there must give nothing.
        role: role_numbers.get(&*binding.role).copied().unwrap_or(u32::MAX),
        scope: scope_numbers.get(binding.scope.as_str()).copied().unwrap_or(u32::MAX),
        expires_at: binding.expires_at,
        id: match &binding.id {
            Some(id) => BindingId::Declared(id.as_str().into()),
            None => BindingId::Generated(model.generated_id(*at)),
        },
    };
    let registered = model.facts().identities.iter().map(|identity| identity.id.as_str());
    let mut identities: Map<Box<str>, Range<u32>> =
        registered.map(|id| (id.into(), 0..0)).collect();
    let mut bindings = Vec::with_capacity(order.len());
    for bound in order.chunk_by(|(_, a), (_, b)| a.identity == b.identity) {
        let start = bindings.len();
        bindings.extend(bound.iter().map(bind));
        if let Some((_, first)) = bound.first() {
            identities
                .insert(first.identity.as_str().into(), number(start)..number(bindings.len()));
        }
    }
    (identities, bindings)
}

/// Every path that can be bound at, sorted.
fn scopes(model: &Model) -> Vec<Box<str>> {
    let groups = model.facts().groups.iter().map(|group| &group.id);
    let resources = model.facts().resources.iter().map(|resource| &resource.id);
    let mut scopes: Vec<&PathBuf> = groups.chain(resources).collect();
    scopes.sort_unstable();
    scopes.into_iter().map(|scope| scope.as_str().into()).collect()
}

fn numbered<'n>(names: impl Iterator<Item = &'n str>) -> Map<&'n str, u32> {
    names.zip(0..).collect()
}

/// A place in a list. Documents are far smaller than 2^32 entries ([`u32::MAX`] points nowhere).
fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
