//! The loader: an index from facts that come one by one, without keeping their texts.
//!
//! ```text
//! group, role, identity, resource ─▶ paths: a tree of segments ─┐
//! role_binding ─▶ rules ─▶ three numbers ───────────────────────┴─▶ finish: build ─▶ Snapshot
//! ```
//!
//! Facts come in any order. A binding that refers to what is not declared yet is kept whole until the end.
//!
//! **Invariant**: what the loader accepts, [`Model::new`](crate::Model::new) accepts, and both give the same
//! index. The loader refuses more, and does not say all that is wrong: then the facts are to be judged as a whole.

mod kinds;
mod paths;

use std::fmt;
use std::sync::Arc;

use thiserror::Error;

use crate::index::Index;
use crate::index::binding::{BindingId, Restrictions};
use crate::index::build::TooLargeError;
use crate::index::hash::Seed;
use crate::index::plan::Plan;
use crate::rules::{self, BindingKey, References, View, split_binding_id};
use crate::{
    Catalog, ChangeError, CustomRole, FactSink, Group, Identity, Map, PathBuf, Properties,
    RegisteredResource, RoleBinding, Snapshot,
};
use kinds::Kinds;
use paths::{Named, Paths};

/// Bindings that are looked at together.
const PENDING_MAX: usize = 64;

/// Why a loader refuses facts.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LoadError {
    /// A fact breaks a rule.
    #[error(transparent)]
    Rule(#[from] ChangeError),
    /// Two bindings are the same, or a declared path may be the derived id of a binding: only all facts together
    /// tell.
    #[error("the ids of the role bindings depend on one another")]
    BindingIds,
    /// The facts are larger than an index can be.
    #[error(transparent)]
    TooLarge(#[from] TooLargeError),
}

type Loaded = Result<(), LoadError>;

/// Collects facts, and indexes them. After an error it is to be dropped.
pub struct Loader {
    catalog: Arc<Catalog>,
    /// By name, the number in the catalog.
    built_in_roles: Map<Box<str>, u32>,
    paths: Paths,
    /// Nodes of the paths, by position.
    groups: Vec<u32>,
    resources: Vec<u32>,
    identities: Vec<u32>,
    roles: Vec<CustomRole>,
    role_nodes: Vec<u32>,
    kinds: Kinds,
    /// Of the few that have any, by position, ascending.
    resource_properties: Vec<(u32, Properties)>,
    identity_properties: Vec<(u32, Properties)>,
    /// Positions of the identities that are disabled, ascending.
    disabled: Vec<u32>,
    /// The number of identities that are declared, once all are. Those behind them are bound only.
    declared: Option<usize>,
    /// Until the end, scopes are [`scope_of`].
    references: Vec<References>,
    /// Of the bindings that have any, by position, ascending.
    restrictions: Vec<(u32, Restrictions)>,
    /// Declared ids of bindings, by position, ascending: those that are a number, and the others.
    numbers: Vec<(u32, u64)>,
    texts: Vec<(u32, Box<str>)>,
    derived: DerivedNumbers,
    /// Paths whose parent is not declared yet.
    orphans: Vec<PathBuf>,
    /// The last bindings, fewer than [`PENDING_MAX`].
    pending: Vec<RoleBinding>,
    /// Bindings that refer to what is not declared yet.
    early: Vec<RoleBinding>,
    /// The identity of the last binding, and its position.
    last: (String, usize),
    /// The scope of the last binding, and its [`scope_of`]: a store has the bindings of a scope next to each other.
    last_scope: (String, u32),
}

/// Numbers of ids of bindings, to see whether any two are equal.
#[derive(Default)]
struct DerivedNumbers {
    /// Of bindings that declare no id.
    unnamed: Vec<u64>,
    /// Of bindings that declare one.
    named: Vec<u64>,
    /// The numbers of declared paths that have the form of a derived id.
    declared: Vec<u64>,
}

impl Loader {
    /// A loader of facts under this catalog.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>) -> Self {
        let names = catalog.roles().iter().map(|role| Box::from(&*role.name));
        Self {
            built_in_roles: names.zip(0..).collect(),
            catalog,
            paths: Paths::new(Seed::random()),
            groups: vec![],
            resources: vec![],
            identities: vec![],
            roles: vec![],
            role_nodes: vec![],
            kinds: Kinds::default(),
            resource_properties: vec![],
            identity_properties: vec![],
            disabled: vec![],
            declared: None,
            references: vec![],
            restrictions: vec![],
            numbers: vec![],
            texts: vec![],
            derived: DerivedNumbers::default(),
            orphans: vec![],
            pending: vec![],
            early: vec![],
            last: (String::new(), 0),
            last_scope: (String::new(), 0),
        }
    }

    /// Indexes the facts. The caller chooses the revision; revisions only grow.
    ///
    /// # Errors
    ///
    /// A fact breaks a rule, the ids of bindings depend on one another, or a part of the index is full.
    pub fn finish(mut self, revision: u64) -> Result<Snapshot, LoadError> {
        self.add_pending()?;
        for orphan in std::mem::take(&mut self.orphans) {
            rules::check_parent(&&self, orphan.as_path()).map_err(ChangeError::from)?;
        }
        self.declared = Some(self.identities.len());
        for binding in std::mem::take(&mut self.early) {
            let mut first = None;
            let found = rules::check_binding(&&self, &binding, |broken| {
                first.get_or_insert(broken);
            });
            first.map_or(Ok(()), Err).map_err(ChangeError::from)?;
            let (identity, Some(role), Some(scope)) = (found.identity, found.role, found.scope)
            else {
                let id = binding.identity.as_str();
                return Err(ChangeError::not_found("role binding", id).into());
            };
            let identity = match identity {
                Some(identity) => identity,
                None => self.add_unregistered(&binding.identity)?,
            };
            let number = BindingKey::of(&binding).derived_number();
            self.add(binding, number, References { identity, role, scope })?;
        }
        let derived = std::mem::take(&mut self.derived);
        std::thread::scope(|scope| {
            // Beside the building, which another processor can do.
            let depend = scope.spawn(|| derived.depend_on_one_another());
            let index = self.build();
            match depend.join() {
                Ok(false) => Ok(Snapshot::new(revision, index?)),
                Ok(true) => Err(LoadError::BindingIds),
                Err(panicked) => std::panic::resume_unwind(panicked),
            }
        })
    }

    fn build(mut self) -> Result<Index, TooLargeError> {
        self.paths.forget_table();
        let groups = position(self.groups.len());
        for references in &mut self.references {
            let (kind, position) = (references.scope & 1, references.scope >> 1);
            references.scope = if kind == 0 { position } else { position.saturating_add(groups) };
        }
        Index::build(self)
    }

    /// Adds an identity that is bound and not declared. Returns its position.
    fn add_unregistered(&mut self, id: &PathBuf) -> Result<u32, LoadError> {
        let at = self.identities.len();
        let node = self.take(id, Named::Identity, at)?;
        self.identities.push(node);
        Ok(position(at))
    }

    /// Makes a path name something new.
    fn claim(&mut self, id: PathBuf, named: Named, at: usize) -> Result<u32, LoadError> {
        let node = self.take(&id, named, at)?;
        let parent = self.paths.parent(node).map(|parent| self.paths.named(parent).0);
        if parent != Some(Named::Group) && rules::check_parent(&&*self, id.as_path()).is_err() {
            self.orphans.push(id);
        }
        Ok(node)
    }

    fn take(&mut self, id: &PathBuf, named: Named, at: usize) -> Result<u32, LoadError> {
        let full = || TooLargeError(id.to_string());
        let node = self.paths.insert(id.as_str()).ok_or_else(full)?;
        let is_taken = self.paths.named(node).0 != Named::Nothing;
        rules::check_id(id.as_str(), is_taken).map_err(ChangeError::from)?;
        self.paths.name(node, named, u32::try_from(at).map_err(|_| full())?);
        if let Some((_, number)) = split_binding_id(id.as_str()) {
            self.derived.declared.push(number);
        }
        Ok(node)
    }

    /// Adds the bindings that wait, or keeps those that refer to what is not declared yet.
    fn add_pending(&mut self) -> Loaded {
        let mut pending = std::mem::take(&mut self.pending);
        let identities = self.positions(&pending);
        for (mut binding, identity) in pending.drain(..).zip(identities) {
            if let Some(identity) = identity
                && self.last.0 != binding.identity.as_str()
            {
                self.last.0.clear();
                self.last.0.push_str(binding.identity.as_str());
                self.last.1 = identity;
            }
            let number = BindingKey::of(&binding).derived_number();
            if binding.has_id_of(number) {
                // Then the index need not keep it.
                binding.id = None;
            }
            let mut broken = false;
            let found = rules::check_binding(&&*self, &binding, |_| broken = true);
            match (found.identity, found.role, found.scope) {
                (Some(identity), Some(role), Some(scope)) if !broken => {
                    if self.last_scope.0 != binding.scope.as_str() {
                        self.last_scope.0.clear();
                        self.last_scope.0.push_str(binding.scope.as_str());
                        self.last_scope.1 = scope;
                    }
                    self.add(binding, number, References { identity, role, scope })?;
                }
                _ => self.early.push(binding),
            }
        }
        self.pending = pending;
        Ok(())
    }

    /// The positions of the identities of bindings that come next.
    ///
    /// A loop of its own: in a large policy each look-up waits for memory, and none of them for the one before.
    fn positions(&self, bindings: &[RoleBinding]) -> Vec<Option<usize>> {
        let (mut last, mut at) = (&*self.last.0, self.last.1);
        // A document may list bindings in the order of their identities, a store does not.
        let mut in_order = true;
        let mut positions = Vec::with_capacity(bindings.len());
        for binding in bindings {
            let id = binding.identity.as_str();
            if last != id {
                let next = self.identities.get(at + 1).filter(|_| in_order);
                let is_next = next.is_some_and(|next| self.paths.is(*next, id));
                let found = if is_next { Some(position(at + 1)) } else { self.registered(id) };
                let Some(found) = found.map(|found| found as usize) else {
                    positions.push(None);
                    continue;
                };
                in_order = found == at + 1;
                (last, at) = (id, found);
            }
            positions.push(Some(at));
        }
        positions
    }

    /// The position of an identity that was declared.
    fn registered(&self, id: &str) -> Option<u32> {
        match self.paths.named(self.paths.find(id)?) {
            (Named::Identity, position) => Some(position),
            _ => None,
        }
    }

    /// Adds a binding that keeps the rules which compare it with no other. `number`: that of its derived id.
    fn add(&mut self, binding: RoleBinding, number: u64, references: References) -> Loaded {
        let at = self.references.len();
        let position = u32::try_from(at).map_err(|_| TooLargeError(binding.scope.to_string()))?;
        match &binding.id {
            None => self.derived.unnamed.push(number),
            Some(id) => {
                self.derived.named.push(number);
                self.take(id, Named::Binding, at)?;
                match BindingId::of(Some(id), binding.scope.as_str(), || number) {
                    BindingId::Number(number) => self.numbers.push((position, number)),
                    BindingId::Text(id) => self.texts.push((position, id)),
                    BindingId::Derived => {}
                }
            }
        }
        let (expires_at, conditions) = (binding.expires_at, binding.when.into());
        let restrictions = Restrictions { expires_at, conditions };
        if !restrictions.is_empty() {
            self.restrictions.push((position, restrictions));
        }
        self.references.push(references);
        Ok(())
    }

    fn role_id(&self, number: u32) -> &str {
        let number = number as usize;
        let custom = || self.roles.get(number.checked_sub(self.catalog.roles().len())?);
        match self.catalog.roles().get(number) {
            Some(role) => &role.name,
            None => custom().map_or("", |role| role.id.as_str()),
        }
    }
}

/// Names of groups, identities and resources are not kept. A role binding that breaks a rule
/// may be refused at the end only.
impl FactSink for Loader {
    type Error = LoadError;

    fn group(&mut self, group: Group) -> Loaded {
        let node = self.claim(group.id, Named::Group, self.groups.len())?;
        self.groups.push(node);
        Ok(())
    }

    fn role(&mut self, role: CustomRole) -> Loaded {
        rules::check_role_place(&role).map_err(ChangeError::from)?;
        rules::check_role_count(self.catalog.roles().len(), self.roles.len() + 1)
            .map_err(ChangeError::from)?;
        let mut first = None;
        rules::check_role_capabilities(&&*self, &role, |broken| {
            first.get_or_insert(broken);
        });
        first.map_or(Ok(()), Err).map_err(ChangeError::from)?;
        let node = self.claim(role.id.clone(), Named::Role, self.roles.len())?;
        self.role_nodes.push(node);
        self.roles.push(role);
        Ok(())
    }

    fn identity(&mut self, identity: Identity) -> Loaded {
        let at = self.identities.len();
        let node = self.claim(identity.id, Named::Identity, at)?;
        self.identities.push(node);
        self.kinds.push_identity(position(at), &identity.kind);
        if !identity.properties.is_empty() {
            self.identity_properties.push((position(at), identity.properties));
        }
        if identity.disabled {
            self.disabled.push(position(at));
        }
        Ok(())
    }

    fn resource(&mut self, resource: RegisteredResource) -> Loaded {
        let at = self.resources.len();
        let node = self.claim(resource.id, Named::Resource, at)?;
        self.resources.push(node);
        self.kinds.push_resource(&resource.kind);
        if !resource.properties.is_empty() {
            self.resource_properties.push((position(at), resource.properties));
        }
        Ok(())
    }

    fn role_binding(&mut self, binding: RoleBinding) -> Loaded {
        self.pending.push(binding);
        if self.pending.len() < PENDING_MAX { Ok(()) } else { self.add_pending() }
    }

    fn has_identities<'i>(&self, mut ids: impl Iterator<Item = &'i str>) -> bool {
        ids.all(|id| View::identity(&self, id).is_some())
    }
}

impl DerivedNumbers {
    /// Whether two bindings are the same or have one derived number, or a binding without an id may have to leave
    /// its derived id to another path. Two bindings that are the same have one number.
    fn depend_on_one_another(mut self) -> bool {
        let Self { unnamed, named, declared } = &mut self;
        unnamed.sort_unstable();
        named.sort_unstable();
        declared.sort_unstable();
        let is_twice = |all: &[u64]| all.array_windows().any(|[a, b]| a == b);
        is_twice(unnamed)
            || is_twice(named)
            || have_one_in_common(unnamed, named)
            || have_one_in_common(unnamed, declared)
    }
}

/// Whether two ascending lists have a number in common.
fn have_one_in_common(ones: &[u64], others: &[u64]) -> bool {
    let mut others = others.iter().peekable();
    ones.iter().any(|one| {
        while others.next_if(|other| *other < one).is_some() {}
        others.peek() == Some(&one)
    })
}

/// A scope until the number of groups is known: its position among groups or among resources, and which of the two.
/// `None` if the position is too large.
fn scope_of(named: Named, position: u32) -> Option<u32> {
    let kind = match named {
        Named::Group => 0,
        Named::Resource => 1,
        Named::Nothing | Named::Identity | Named::Role | Named::Binding => return None,
    };
    Some(position.checked_mul(2)? | kind)
}

impl View for &Loader {
    /// Its position.
    type Identity = u32;
    /// Its number.
    type Role = u32;
    /// [`scope_of`].
    type Scope = u32;

    fn is_group(&self, id: &str) -> bool {
        self.paths.find(id).is_some_and(|node| self.paths.named(node).0 == Named::Group)
    }

    fn identity(&self, id: &str) -> Option<u32> {
        let (last, at) = &self.last;
        if last == id { Some(position(*at)) } else { self.registered(id) }
    }

    fn scope(&self, id: &str) -> Option<u32> {
        let (last, scope) = &self.last_scope;
        if last == id {
            return Some(*scope);
        }
        let (named, position) = self.paths.named(self.paths.find(id)?);
        scope_of(named, position)
    }

    fn custom_role(&self, id: &str) -> Option<u32> {
        match self.paths.named(self.paths.find(id)?) {
            (Named::Role, at) => Some(at.saturating_add(position(self.catalog.roles().len()))),
            _ => None,
        }
    }

    fn built_in_role(&self, name: &str) -> Option<u32> {
        self.built_in_roles.get(name).copied()
    }

    fn has_capability(&self, name: &str) -> bool {
        self.catalog.capability(name).is_some()
    }
}

impl Plan for Loader {
    fn seed(&self) -> Seed {
        self.paths.seed().clone()
    }

    fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    fn roles(&self) -> &[CustomRole] {
        &self.roles
    }

    fn groups_len(&self) -> usize {
        self.groups.len()
    }

    fn resources_len(&self) -> usize {
        self.resources.len()
    }

    fn identities_len(&self) -> usize {
        self.identities.len()
    }

    fn registered_len(&self) -> usize {
        self.declared.unwrap_or(self.identities.len())
    }

    fn references(&self) -> &[References] {
        &self.references
    }

    fn scope<'b>(&'b self, at: usize, buffer: &'b mut String) -> &'b str {
        let resource = || self.resources.get(at.checked_sub(self.groups.len())?);
        let node = self.groups.get(at).or_else(resource);
        self.paths.write(node.copied().unwrap_or(u32::MAX), buffer);
        buffer
    }

    fn identity<'b>(&'b self, at: usize, buffer: &'b mut String) -> &'b str {
        self.paths.write(self.identities.get(at).copied().unwrap_or(u32::MAX), buffer);
        buffer
    }

    fn children(&self) -> Vec<u32> {
        let mut children = vec![0; self.scopes_len()];
        let nodes = self.groups.iter().chain(&self.resources).chain(&self.identities);
        for node in nodes.chain(&self.role_nodes) {
            let parent = self.paths.parent(*node).map(|parent| self.paths.named(parent));
            if let Some((Named::Group, position)) = parent
                && let Some(children) = children.get_mut(position as usize)
            {
                *children += 1;
            }
        }
        children
    }

    fn resource_kind(&self, at: usize) -> &str {
        self.kinds.of_resource(at)
    }

    fn identity_kind(&self, at: usize) -> &str {
        self.kinds.of_identity(position(at))
    }

    fn resource_properties(&self, at: usize) -> Option<&Properties> {
        of_position(&self.resource_properties, position(at))
    }

    fn identity_properties(&self, at: usize) -> Option<&Properties> {
        of_position(&self.identity_properties, position(at))
    }

    fn is_disabled(&self, at: usize) -> bool {
        self.disabled.binary_search(&position(at)).is_ok()
    }

    fn restrictions(&self, binding: u32) -> Restrictions {
        of_position(&self.restrictions, binding).cloned().unwrap_or_default()
    }

    fn id(&self, binding: u32) -> BindingId {
        if let Some(number) = of_position(&self.numbers, binding) {
            return BindingId::Number(*number);
        }
        let text = of_position(&self.texts, binding);
        text.map_or(BindingId::Derived, |text| BindingId::Text(text.clone()))
    }

    fn forget_paths(&mut self) {
        self.paths = Paths::new(self.paths.seed().clone());
        (self.groups, self.resources, self.identities) = (vec![], vec![], vec![]);
    }

    fn forget_references(&mut self) {
        self.references = vec![];
    }

    fn derived_number(&self, binding: u32) -> u64 {
        let Some(References { identity, role, scope }) = self.references.get(binding as usize)
        else {
            return 0;
        };
        let (mut of_identity, mut of_scope) = (String::new(), String::new());
        let identity = Plan::identity(self, *identity as usize, &mut of_identity);
        let scope = Plan::scope(self, *scope as usize, &mut of_scope);
        let conditions = of_position(&self.restrictions, binding);
        let conditions = conditions.map_or(&[][..], |restrictions| &restrictions.conditions);
        BindingKey::new(identity, self.role_id(*role), scope, conditions).derived_number()
    }
}

impl fmt::Debug for Loader {
    /// Sizes only: there can be millions of facts.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("catalog", &self.catalog.name())
            .field("identities", &self.identities.len())
            .field("bindings", &(self.references.len() + self.pending.len() + self.early.len()))
            .finish_non_exhaustive()
    }
}

/// The value of a position among values in the order of their positions.
fn of_position<T>(values: &[(u32, T)], position: u32) -> Option<&T> {
    let at = values.binary_search_by_key(&position, |(at, _)| *at).ok()?;
    values.get(at).map(|(_, value)| value)
}

/// A position or number as the index has it. Those that do not fit are refused before.
fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
