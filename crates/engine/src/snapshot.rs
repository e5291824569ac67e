//! The immutable index that every question is answered from.
//!
//! **Invariant**: a [`Snapshot`] never changes once built, and is the same for the same model:
//! identities, scopes and roles are numbered in order of their names, each identity's bindings lie
//! side by side, and so do the numbers of each scope's.

use std::{borrow::Cow, fmt, ops::Range, sync::Arc};

use crate::capabilities::{CapabilitySet, RoleMatrix};
use crate::model::{Model, binding_id};
use crate::{Catalog, Condition, Family, Map, Of, PathBuf, Properties, RoleBinding, Timestamp};

/// One revision of the policy, indexed.
pub struct Snapshot {
    pub(crate) revision: u64,
    pub(crate) catalog: Arc<Catalog>,
    /// Built-in roles in the catalog's order, then custom ones by id.
    roles: Vec<Role>,
    pub(crate) matrix: RoleMatrix,
    /// Registered identities; the bindings of each are `bindings[of_identity[number]]`.
    identities: Names,
    of_identity: Vec<Range<u32>>,
    /// Groups and registered resources; `at_scope[number]` of `by_scope` are the numbers of the
    /// bindings attached there.
    scopes: Names,
    at_scope: Vec<Range<u32>>,
    by_scope: Vec<u32>,
    /// By identity, then by scope, role and id: the order of a document means nothing.
    bindings: Vec<Binding>,
    /// The conditions of those bindings that have any.
    conditions: Vec<Box<[Condition]>>,
    /// Registered properties of identities that have any. Apart from those of resources: a path can
    /// be asked about as either.
    subjects: Map<Box<str>, Properties>,
    /// Registered properties of resources that have any.
    resources: Map<Box<str>, Properties>,
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
    identity: u32,
    pub(crate) role: u32,
    scope: u32,
    /// Place of its conditions; [`u32::MAX`] if it has none.
    when: u32,
    pub(crate) expires_at: Option<Timestamp>,
    id: BindingId,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum BindingId {
    Declared(Box<str>),
    Generated(u64),
}

/// Names in order, and their numbers.
struct Names {
    sorted: Vec<Arc<str>>,
    numbers: Map<Arc<str>, u32>,
}

impl Names {
    fn new<'n>(names: impl Iterator<Item = &'n PathBuf>) -> Self {
        let mut sorted: Vec<Arc<str>> = names.map(|name| name.as_str().into()).collect();
        sorted.sort_unstable();
        let numbers = sorted.iter().map(Arc::clone).zip(0..).collect();
        Self { sorted, numbers }
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.numbers.get(name).copied()
    }

    fn name(&self, number: u32) -> Option<&str> {
        self.sorted.get(number as usize).map(|name| &**name)
    }
}

impl Snapshot {
    /// Indexes a model. The revision is the caller's to give, and only grows.
    #[must_use]
    pub fn build(model: &Model, revision: u64) -> Self {
        let (catalog, facts) = (Arc::clone(model.catalog()), model.facts());
        let roles = roles(model);
        let mut matrix = RoleMatrix::new(catalog.capabilities().len());
        roles.iter().for_each(|role| matrix.push(&role.capabilities));
        let identities = Names::new(facts.identities.iter().map(|identity| &identity.id));
        let groups = facts.groups.iter().map(|group| &group.id);
        let scopes = Names::new(groups.chain(facts.resources.iter().map(|resource| &resource.id)));

        let (bindings, conditions) = bindings(model, &roles, &identities, &scopes);
        let of_identity = ranges(bindings.iter().map(|b| b.identity), identities.sorted.len());
        let mut by_scope: Vec<u32> = (0..number(bindings.len())).collect();
        let scope = |at: &u32| bindings.get(*at as usize).map_or(u32::MAX, |binding| binding.scope);
        by_scope.sort_by_key(scope);
        let at_scope = ranges(by_scope.iter().map(scope), scopes.sorted.len());

        Self {
            revision,
            catalog,
            roles,
            matrix,
            identities,
            of_identity,
            scopes,
            at_scope,
            by_scope,
            bindings,
            conditions,
            subjects: registered(facts.identities.iter().map(|one| (&one.id, &one.properties))),
            resources: registered(facts.resources.iter().map(|one| (&one.id, &one.properties))),
        }
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

    /// How many identities are registered.
    #[must_use]
    pub fn identities_len(&self) -> usize {
        self.identities.sorted.len()
    }

    /// How many role bindings there are, whether or not they count.
    #[must_use]
    pub fn bindings_len(&self) -> usize {
        self.bindings.len()
    }

    /// An identity's bindings, or nothing if it is not registered.
    pub(crate) fn bindings_of(&self, identity: &str) -> Option<&[Binding]> {
        let range = self.of_identity.get(self.identities.number(identity)? as usize)?;
        self.bindings.get(range.start as usize..range.end as usize)
    }

    /// The bindings attached to this very scope.
    pub(crate) fn bindings_at(&self, scope: &str) -> impl Iterator<Item = &Binding> {
        let range = self.scopes.number(scope).and_then(|at| self.at_scope.get(at as usize));
        let places = range.and_then(|at| self.by_scope.get(at.start as usize..at.end as usize));
        places.unwrap_or_default().iter().filter_map(|at| self.bindings.get(*at as usize))
    }

    /// A binding's scope; for a number that is not there, a text that is no path's ancestor.
    pub(crate) fn scope(&self, binding: &Binding) -> &str {
        self.scopes.name(binding.scope).unwrap_or("/")
    }

    pub(crate) fn role_id(&self, binding: &Binding) -> &str {
        self.roles.get(binding.role as usize).map_or("", |role| &role.id)
    }

    pub(crate) fn identity(&self, binding: &Binding) -> &str {
        self.identities.name(binding.identity).unwrap_or_default()
    }

    /// A binding's conditions. Conditions that are not where they should be hold for nobody, which
    /// is what nothing says.
    pub(crate) fn conditions(&self, binding: &Binding) -> Option<&[Condition]> {
        match binding.when {
            u32::MAX => Some(&[]),
            at => self.conditions.get(at as usize).map(|conditions| &**conditions),
        }
    }

    /// Whether a binding has a test on the resource.
    pub(crate) fn tests_resource(&self, binding: &Binding) -> bool {
        let conditions = self.conditions(binding).unwrap_or_default();
        conditions.iter().any(|condition| condition.of == Of::Resource)
    }

    /// The registered properties of the identity of this path.
    pub(crate) fn subject(&self, path: &str) -> Option<&Properties> {
        self.subjects.get(path)
    }

    /// The registered properties of the resource of this path.
    pub(crate) fn resource(&self, path: &str) -> Option<&Properties> {
        self.resources.get(path)
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
            .field("identities", &self.identities_len())
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

/// All bindings by number, in the index's order, and the conditions of those that have any.
fn bindings(
    model: &Model,
    roles: &[Role],
    identities: &Names,
    scopes: &Names,
) -> (Vec<Binding>, Vec<Box<[Condition]>>) {
    let roles: Map<&str, u32> = roles.iter().map(|role| &*role.id).zip(0..).collect();
    let mut conditions: Vec<Box<[Condition]>> = Vec::new();
    let mut bind = |(at, binding): (usize, &RoleBinding)| Binding {
        // What a model refers to is there; what is not there must give nothing.
        identity: identities.number(binding.identity.as_str()).unwrap_or(u32::MAX),
        role: roles.get(&*binding.role).copied().unwrap_or(u32::MAX),
        scope: scopes.number(binding.scope.as_str()).unwrap_or(u32::MAX),
        when: if binding.when.is_empty() {
            u32::MAX
        } else {
            conditions.push(binding.when.as_slice().into());
            number(conditions.len() - 1)
        },
        expires_at: binding.expires_at,
        id: match &binding.id {
            Some(id) => BindingId::Declared(id.as_str().into()),
            None => BindingId::Generated(model.generated_id(at)),
        },
    };
    let mut bindings: Vec<_> =
        model.facts().role_bindings.iter().enumerate().map(&mut bind).collect();
    bindings.sort_unstable_by(|a, b| {
        let key = |one: &Binding| (one.identity, one.scope, one.role);
        key(a).cmp(&key(b)).then_with(|| a.id.cmp(&b.id))
    });
    (bindings, conditions)
}

fn registered<'f>(
    all: impl Iterator<Item = (&'f PathBuf, &'f Properties)>,
) -> Map<Box<str>, Properties> {
    all.filter(|(_, properties)| !properties.is_empty())
        .map(|(id, properties)| (id.as_str().into(), properties.clone()))
        .collect()
}

/// Where each of `count` numbers stands in an ascending list of them.
fn ranges(ascending: impl Iterator<Item = u32>, count: usize) -> Vec<Range<u32>> {
    let mut ranges = vec![0..0; count];
    for (at, one) in (0u32..).zip(ascending) {
        if let Some(range) = ranges.get_mut(one as usize) {
            if range.start == range.end {
                *range = at..at;
            }
            range.end = at + 1;
        }
    }
    ranges
}

/// A place in a list. Documents are far smaller than 2^32 entries ([`u32::MAX`] points nowhere).
fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
