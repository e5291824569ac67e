//! What an import changes: a document compared with the state, object by object.
//!
//! ```text
//! document ─▶ each object: new, changed or the same? ─┬▶ operations of the store, in any order
//! state, with `prune` ─▶ each object: in the document? ┘▶ changes of the index, in an order that applies
//! ```
//!
//! What a document declares outside of `parent` are references: they have to be there, and are not changed. A root
//! identity is made if it is not there.
//!
//! **Invariant**: a pull token and its binding are never changed or deleted.

mod beside;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

use capstan_engine::{self as engine, Change, Path, PathBuf, Snapshot, Timestamp};
use capstan_iam::audit::AuditChange;
use capstan_iam::limits::AUDIT_CHANGES_BYTES_MAX;
use capstan_iam::{
    Group, Identity, Kind, Meta, Object, Objects as _, Resource, Role, RoleBinding,
    derived_identity_id, record,
};
use capstan_policy::{Details, ListDetails, Policy};
use capstan_store::Op;

use super::{Concerned, unreadable};
use crate::RequestError;
use crate::feed::journal::documents::authentication;
use crate::feed::journal::overlay::Overlay;
use crate::feed::management::{Action, ChangedObject};

/// What an import changes.
pub(super) struct Plan {
    pub(super) changes: Vec<ChangedObject>,
    pub(super) ops: Vec<Op>,
    pub(super) engine: EngineChanges,
    /// The first objects before and after, for the audit log.
    pub(super) audited: Vec<AuditChange>,
    pub(super) concerned: Concerned,
    pub(super) resources: BTreeSet<PathBuf>,
}

/// Changes of the index, by the order in which they apply: nothing refers to what is deleted, and what refers to others
/// comes after them. A binding that changes is deleted and created anew, because others may take its place.
#[derive(Default)]
pub(super) struct EngineChanges {
    unbound: Vec<Change>,
    deleted: Vec<Change>,
    deleted_groups: Vec<PathBuf>,
    groups: Vec<(bool, engine::Group)>,
    others: Vec<Change>,
    bound: Vec<Change>,
}

impl EngineChanges {
    pub(super) fn into_changes(mut self) -> impl Iterator<Item = Change> {
        let depth = |id: &PathBuf| id.as_path().ancestors().count();
        self.deleted_groups.sort_by_key(|id| Reverse(depth(id)));
        self.groups.sort_by_key(|(_, group)| depth(&group.id));
        let groups = self.groups.into_iter().map(|(is_new, group)| match is_new {
            true => Change::CreateGroup(group),
            false => Change::UpdateGroup(group),
        });
        let deleted_groups = self.deleted_groups.into_iter().map(Change::DeleteGroup);
        let deleted = self.unbound.into_iter().chain(self.deleted).chain(deleted_groups);
        deleted.chain(groups).chain(self.others).chain(self.bound)
    }

    fn add(&mut self, before: Option<&Object>, after: Option<&Object>) {
        match (before, after) {
            (Some(old @ Object::RoleBinding(_)), None) => self.unbound.extend(old.deleted()),
            (Some(Object::Group(old)), None) => self.deleted_groups.push(old.id.clone()),
            (Some(old), None) => self.deleted.extend(old.deleted()),
            (_, Some(Object::Group(group))) => self.groups.push((before.is_none(), group.fact())),
            (old, Some(new @ Object::RoleBinding(_))) => {
                self.unbound.extend(old.and_then(Object::deleted));
                self.bound.extend(new.created());
            }
            (None, Some(new)) => self.others.extend(new.created()),
            (Some(_), Some(new)) => self.others.extend(new.updated()),
            (None, None) => {}
        }
    }
}

type Found<T = ()> = Result<T, RequestError>;

/// A comparison that is under way.
struct Comparison<'p> {
    policy: &'p Policy,
    /// Issuers that no identity may have keys of its own for.
    reserved_issuers: &'p [String],
    snapshot: &'p Snapshot,
    state: &'p Overlay,
    parent: Option<&'p PathBuf>,
    at: (u64, Timestamp),
    /// Bindings, and objects that no document has, that are gone already.
    gone: HashSet<(Kind, PathBuf)>,
    plan: Plan,
    audited_bytes: usize,
    concerned: BTreeSet<PathBuf>,
    concerns_all: bool,
}

impl Plan {
    /// Compares a document with a state. `about` is the group that the document is about, and whether what the document
    /// lacks there is deleted.
    ///
    /// # Errors
    ///
    /// The document is not about that group, or has what no import changes, or the state cannot be read.
    pub(super) fn of(
        (policy, reserved_issuers): (&Policy, &[String]),
        (snapshot, state): (&Snapshot, &Overlay),
        about: Option<(&PathBuf, bool)>,
        at: (u64, Timestamp),
    ) -> Found<Self> {
        let parent = about.map(|(parent, _)| parent);
        let plan = Self {
            changes: vec![],
            ops: vec![],
            engine: EngineChanges::default(),
            audited: vec![],
            concerned: Concerned::All,
            resources: BTreeSet::new(),
        };
        let mut comparison = Comparison {
            policy,
            reserved_issuers,
            snapshot,
            state,
            parent,
            at,
            gone: HashSet::new(),
            plan,
            audited_bytes: 0,
            concerned: BTreeSet::new(),
            concerns_all: false,
        };
        comparison.check()?;
        let bindings = comparison.binding_ids()?;
        comparison.objects()?;
        comparison.bindings(&bindings)?;
        if let Some((parent, true)) = about {
            comparison.prune(parent, &bindings)?;
        }
        Ok(comparison.finish())
    }
}

fn refused<T>(problem: String) -> Found<T> {
    Err(RequestError::field("chunk", problem))
}

/// The details of the fact at a position.
fn details(list: &ListDetails, at: usize) -> Details {
    list.get(at).cloned().unwrap_or_default()
}

impl Comparison<'_> {
    fn finish(mut self) -> Plan {
        if !self.concerns_all {
            self.plan.concerned = Concerned::These(self.concerned);
        }
        self.plan.changes.sort_by(|a, b| (a.kind, &a.id).cmp(&(b.kind, &b.id)));
        self.plan
    }

    /// Whether the document may change what is at this path.
    fn is_inside(&self, path: Path<'_>) -> bool {
        self.parent.is_none_or(|parent| parent.as_path().contains(path))
    }

    /// What a document as a whole may not have.
    fn check(&self) -> Found {
        let facts = self.policy.model.facts();
        if !self.policy.credentials.is_empty() {
            return refused("`credentials` are of policy files: a store holds none".into());
        }
        if let Some(parent) = self.parent
            && !facts.groups.iter().any(|group| group.id == *parent)
        {
            return refused(format!(
                "the document does not declare `{parent}`, which it is to be about"
            ));
        }
        for (at, identity) in facts.identities.iter().enumerate() {
            let id = &identity.id;
            if identity.kind == capstan_iam::PULL_TOKEN {
                return refused(format!(
                    "`{id}` is a pull token, which no document makes or changes"
                ));
            }
            // Otherwise somebody who is bound by the derived id is another identity than who logs in.
            let details = self.policy.details.identities.get(at);
            let stored = details.and_then(|details| details.authentication.as_ref());
            if id.as_path().parent().is_none()
                && let Some((issuer, subject)) = stored.and_then(|stored| stored.literal())
                && let Ok(derived) = derived_identity_id(issuer, subject)
                && derived != id.as_str()
            {
                return refused(format!(
                    "a root identity with the issuer and subject of `{id}` has the id `{derived}`"
                ));
            }
        }
        Ok(())
    }

    fn get(&self, kind: Kind, id: &PathBuf) -> Found<Option<Object>> {
        Ok(self.state.get(kind, id.as_path())?)
    }

    /// The times of an object: another type makes it another object.
    fn meta(&self, before: Option<&Meta>, is_another: bool) -> Meta {
        let (revision, now) = self.at;
        match before {
            Some(before) if !is_another => before.changed(revision, now),
            _ => Meta::new(revision, now),
        }
    }

    // === Groups, roles, identities and resources ===

    fn objects(&mut self) -> Found {
        let (facts, all) = (self.policy.model.facts(), &self.policy.details);
        for (at, fact) in facts.groups.iter().enumerate() {
            let description = details(&all.groups, at).description;
            self.object(Kind::Group, &fact.id, |_, meta| {
                let (id, name) = (fact.id.clone(), fact.name.clone());
                Object::Group(Group { id, name, description, meta })
            })?;
        }
        for fact in &facts.roles {
            self.object(Kind::Role, &fact.id, |_, meta| {
                let engine::CustomRole { id, name, description, mut capabilities } = fact.clone();
                capabilities.sort();
                capabilities.dedup();
                Object::Role(Role { id, name, description, capabilities, meta })
            })?;
        }
        for (at, fact) in facts.identities.iter().enumerate() {
            let Details { description, authentication } = details(&all.identities, at);
            self.object(Kind::Identity, &fact.id, |before, meta| {
                let old = before.and_then(|object| match object {
                    Object::Identity(old) => old.authentication.as_ref(),
                    _ => None,
                });
                let engine::Identity { id, name, kind, properties, disabled } = fact.clone();
                let authentication = authentication::kept(old, authentication.as_ref());
                let new = Identity {
                    id,
                    name,
                    description,
                    kind,
                    properties,
                    disabled,
                    authentication,
                    meta,
                };
                Object::Identity(match before {
                    Some(Object::Identity(old)) => of_root(old, new),
                    _ => new,
                })
            })?;
        }
        for (at, fact) in facts.resources.iter().enumerate() {
            let description = details(&all.resources, at).description;
            self.object(Kind::Resource, &fact.id, |_, meta| {
                let engine::RegisteredResource { id, name, kind, properties } = fact.clone();
                Object::Resource(Resource { id, name, description, kind, properties, meta })
            })?;
        }
        Ok(())
    }

    /// Compares one object. `make` makes it as it is to be.
    fn object(
        &mut self,
        kind: Kind,
        id: &PathBuf,
        make: impl FnOnce(Option<&Object>, Meta) -> Object,
    ) -> Found {
        let before = self.get(kind, id)?;
        let is_inside = self.is_inside(id.as_path());
        if !is_inside && before.is_some() {
            return Ok(());
        }
        let is_root_identity = kind == Kind::Identity && id.as_path().parent().is_none();
        if !is_inside && !is_root_identity {
            let parent = self.parent.map(ToString::to_string).unwrap_or_default();
            return refused(format!(
                "`{id}` is outside of `{parent}`, which the document is to be about, and is not there"
            ));
        }
        if let Some(Object::Identity(token)) = &before
            && token.is_pull_token()
        {
            return refused(format!("`{id}` is a pull token, which no document changes"));
        }
        if before.is_none() {
            self.free_beside(id)?;
        }
        let meta = before.as_ref().map(Object::meta).copied();
        let after = make(before.as_ref(), meta.unwrap_or_else(|| self.meta(None, false)));
        self.keys_beside(&after)?;
        self.compare(before.as_ref(), after)
    }

    /// Takes up an object if it is another one. It has the times of the one before.
    fn compare(&mut self, before: Option<&Object>, mut after: Object) -> Found {
        if before == Some(&after) {
            return Ok(());
        }
        let is_another = match (before, &after) {
            (Some(Object::Identity(old)), Object::Identity(new)) => old.kind != new.kind,
            (Some(Object::Resource(old)), Object::Resource(new)) => old.kind != new.kind,
            _ => false,
        };
        let meta = self.meta(before.map(Object::meta), is_another);
        *after.meta_mut() = meta;
        self.change(before, Some(&after))
    }

    fn change(&mut self, before: Option<&Object>, after: Option<&Object>) -> Found {
        let Some(object) = after.or(before) else { return Ok(()) };
        let (kind, id) = (object.kind(), object.id().clone());
        let key = record::key(kind, id.as_path());
        let [old, new] = [before, after].map(|object| object.map(record::encode));
        if let Some(left) = AUDIT_CHANGES_BYTES_MAX.checked_sub(self.audited_bytes) {
            let bytes = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len);
            let bytes = key.len() + bytes(&old) + bytes(&new);
            self.audited_bytes += bytes;
            // Once one does not fit, no other one is taken.
            if bytes <= left {
                let (before, after) = (old, new.clone());
                self.plan.audited.push(AuditChange { key: key.clone(), before, after });
            }
        }
        self.plan.ops.push(match new {
            Some(value) => Op::Put { key: key.into(), value: value.into() },
            None => Op::Delete { key: key.into() },
        });
        let beside = crate::feed::journal::beside::ops(self.state, (before, after), 0);
        self.plan.ops.extend(beside.map_err(unreadable)?);
        for object in [before, after].into_iter().flatten() {
            match object {
                Object::RoleBinding(binding) => {
                    self.concerned.insert(binding.identity.clone());
                }
                Object::Identity(identity) => {
                    self.concerned.insert(identity.id.clone());
                }
                Object::Resource(resource) => {
                    self.concerns_all |= before.is_some() || !resource.properties.is_empty();
                    self.plan.resources.insert(resource.id.clone());
                }
                // A role that is new or deleted is bound by bindings that are, too.
                Object::Role(_) => self.concerns_all |= before.is_some() && after.is_some(),
                Object::Group(_)
                | Object::GroupInvite(_)
                | Object::Subscription(_)
                | Object::IdentityProvider(_)
                | Object::GroupRoleMapping(_)
                | Object::AccountAssociation(_) => {}
            }
        }
        self.plan.engine.add(before, after);
        let action = match (before, after) {
            (None, _) => Action::Created,
            (_, None) => Action::Deleted,
            _ => Action::Updated,
        };
        self.plan.changes.push(ChangedObject { action, kind, id });
        Ok(())
    }

    // === Role bindings ===

    /// The ids of the document's bindings, in their order: the declared one, that of the same binding that is there,
    /// or a new one.
    fn binding_ids(&self) -> Found<HashMap<PathBuf, usize>> {
        let facts = self.policy.model.facts();
        let mut ids = HashMap::with_capacity(facts.role_bindings.len());
        for (at, fact) in facts.role_bindings.iter().enumerate() {
            let engine::RoleBinding { identity, role, scope, .. } = fact;
            if !self.is_inside(scope.as_path()) {
                let parent = self.parent.map(ToString::to_string).unwrap_or_default();
                return refused(format!(
                    "a role binding of `{identity}` at `{scope}`, which is outside of `{parent}`"
                ));
            }
            let there = || self.snapshot.same_binding(fact).and_then(|same| same.id);
            let id = fact.id.clone().or_else(there);
            let is_free = |id: &PathBuf| !self.snapshot.is_taken(id.as_path());
            let id = id.or_else(|| fact.derived_id().filter(is_free));
            let id = id.or_else(|| self.snapshot.free_binding_id(fact));
            let Some(id) = id else {
                return refused(format!(
                    "the role binding of `{identity}` to `{role}` at `{scope}` cannot be stored: no id fits below a \
                     scope that is as deep or as long as a path can be"
                ));
            };
            if ids.insert(id.clone(), at).is_some() {
                return refused(format!(
                    "two role bindings have the id `{id}`: give one another id"
                ));
            }
        }
        Ok(ids)
    }

    fn bindings(&mut self, ids: &HashMap<PathBuf, usize>) -> Found {
        let mut sorted: Vec<_> = ids.iter().map(|(id, at)| (*at, id)).collect();
        sorted.sort_unstable();
        let facts = self.policy.model.facts();
        for ((at, id), fact) in sorted.into_iter().zip(&facts.role_bindings) {
            let before = match self.get(Kind::RoleBinding, id)? {
                Some(Object::RoleBinding(before)) => Some(before),
                _ => None,
            };
            if fact.id.is_some()
                && before.is_none()
                && let Some(same) = self.snapshot.same_binding(fact).and_then(|same| same.id)
                && !ids.contains_key(&same)
            {
                self.unbind(&same)?;
            }
            if before.is_none() {
                self.free_beside(id)?;
            }
            if let Some(before) = &before
                && self.is_token(&before.identity)?
            {
                return refused(format!("`{id}` is the role binding of a pull token"));
            }
            let engine::RoleBinding { identity, role, scope, expires_at, when, .. } = fact.clone();
            let after = RoleBinding {
                id: id.clone(),
                // No document has it.
                name: before.as_ref().map(|before| before.name.clone()).unwrap_or_default(),
                description: details(&self.policy.details.role_bindings, at).description,
                identity,
                role,
                scope,
                expires_at,
                when,
                meta: before.as_ref().map_or_else(|| self.meta(None, false), |one| one.meta),
            };
            let before = before.map(Object::RoleBinding);
            self.compare(before.as_ref(), Object::RoleBinding(after))?;
        }
        Ok(())
    }

    fn unbind(&mut self, id: &PathBuf) -> Found {
        if self.gone.insert((Kind::RoleBinding, id.clone()))
            && let Some(binding) = self.get(Kind::RoleBinding, id)?
        {
            self.change(Some(&binding), None)?;
        }
        Ok(())
    }

    fn is_token(&self, identity: &PathBuf) -> Found<bool> {
        // Tokens are below groups.
        if identity.as_path().parent().is_none() {
            return Ok(false);
        }
        let found = self.get(Kind::Identity, identity)?;
        Ok(matches!(found, Some(Object::Identity(found)) if found.is_pull_token()))
    }

    // === What the document lacks ===

    /// Deletes at and below the group what the document lacks.
    fn prune(&mut self, parent: &PathBuf, bindings: &HashMap<PathBuf, usize>) -> Found {
        let policy = self.policy;
        let facts = policy.model.facts();
        // Bindings first: those of what is deleted are then gone.
        for kind in [Kind::RoleBinding, Kind::Identity, Kind::Role, Kind::Resource, Kind::Group] {
            let declared: HashSet<&PathBuf> = match kind {
                Kind::RoleBinding => bindings.keys().collect(),
                Kind::Identity => facts.identities.iter().map(|one| &one.id).collect(),
                Kind::Role => facts.roles.iter().map(|one| &one.id).collect(),
                Kind::Resource => facts.resources.iter().map(|one| &one.id).collect(),
                Kind::Group => facts.groups.iter().map(|one| &one.id).collect(),
                Kind::GroupInvite
                | Kind::Subscription
                | Kind::IdentityProvider
                | Kind::GroupRoleMapping
                | Kind::AccountAssociation => continue,
            };
            for object in self.lacking(kind, parent, &declared)? {
                match &object {
                    Object::RoleBinding(binding) => {
                        let is_inside = self.is_inside(binding.scope.as_path());
                        if is_inside && !self.is_token(&binding.identity)? {
                            self.unbind(&binding.id)?;
                        }
                    }
                    Object::Identity(identity) if identity.is_pull_token() => {}
                    Object::Identity(identity) => {
                        // Also those elsewhere. One that the document declares is another's now.
                        let theirs = self.snapshot.role_bindings(identity.id.as_path());
                        let ids = theirs.into_iter().filter_map(|binding| binding.id);
                        for id in ids.filter(|id| !bindings.contains_key(id)) {
                            self.unbind(&id)?;
                        }
                        self.change(Some(&object), None)?;
                    }
                    Object::Group(group) => {
                        self.empty(&group.id)?;
                        self.change(Some(&object), None)?;
                    }
                    Object::Role(role) => {
                        self.break_promises(role.id.as_str())?;
                        self.change(Some(&object), None)?;
                    }
                    Object::Resource(_) => self.change(Some(&object), None)?,
                    // No document has them.
                    Object::GroupInvite(_)
                    | Object::Subscription(_)
                    | Object::IdentityProvider(_)
                    | Object::GroupRoleMapping(_)
                    | Object::AccountAssociation(_) => {}
                }
            }
        }
        Ok(())
    }

    /// Objects of a kind at and below the group that the document does not declare.
    fn lacking(
        &self,
        kind: Kind,
        parent: &PathBuf,
        declared: &HashSet<&PathBuf>,
    ) -> Found<Vec<Object>> {
        let mut lacking = vec![];
        self.state.below(kind, Some(parent.as_path()), &mut |object| {
            if !declared.contains(object.id()) {
                lacking.push(object);
            }
            true
        })?;
        Ok(lacking)
    }
}

/// A root identity of which the document says only id, name and type keeps everything else: that is all that the
/// document of an organization says of it.
fn of_root(old: &Identity, new: Identity) -> Identity {
    let says_more = !new.description.is_empty()
        || !new.properties.is_empty()
        || new.disabled
        || new.authentication.is_some();
    if !new.is_root() || says_more {
        return new;
    }
    Identity {
        description: old.description.clone(),
        properties: old.properties.clone(),
        disabled: old.disabled,
        authentication: old.authentication.clone(),
        ..new
    }
}
