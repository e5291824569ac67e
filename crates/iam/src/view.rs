//! Reads of the state before an operation that the rules share.

use capstan_engine::{Path, PathBuf, Snapshot};

use crate::{
    AccountAssociation, Group, GroupInvite, GroupRoleMapping, Identity, IdentityProvider, Kind,
    Object, ObjectsError, Resource, Role, State, Subscription,
};

/// A state, with the reads that the rules share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'s>(pub(crate) State<'s>);

impl<'s> View<'s> {
    pub(crate) const fn snapshot(&self) -> &'s Snapshot {
        self.0.snapshot
    }

    pub(crate) fn get(&self, kind: Kind, id: Path<'_>) -> Result<Option<Object>, ObjectsError> {
        self.0.objects.get(kind, id)
    }

    pub(crate) fn group(&self, id: Path<'_>) -> Result<Option<Group>, ObjectsError> {
        match self.get(Kind::Group, id)? {
            Some(Object::Group(found)) => Ok(Some(found)),
            Some(_) => Err(other_kind(id)),
            None => Ok(None),
        }
    }

    pub(crate) fn role(&self, id: Path<'_>) -> Result<Option<Role>, ObjectsError> {
        match self.get(Kind::Role, id)? {
            Some(Object::Role(found)) => Ok(Some(found)),
            Some(_) => Err(other_kind(id)),
            None => Ok(None),
        }
    }

    pub(crate) fn binding(&self, id: Path<'_>) -> Result<Option<crate::RoleBinding>, ObjectsError> {
        match self.get(Kind::RoleBinding, id)? {
            Some(Object::RoleBinding(found)) => Ok(Some(found)),
            Some(_) => Err(other_kind(id)),
            None => Ok(None),
        }
    }

    pub(crate) fn identity(&self, id: Path<'_>) -> Result<Option<Identity>, ObjectsError> {
        match self.get(Kind::Identity, id)? {
            Some(Object::Identity(found)) => Ok(Some(found)),
            Some(_) => Err(other_kind(id)),
            None => Ok(None),
        }
    }

    pub(crate) fn resource(&self, id: Path<'_>) -> Result<Option<Resource>, ObjectsError> {
        match self.get(Kind::Resource, id)? {
            Some(Object::Resource(found)) => Ok(Some(found)),
            Some(_) => Err(other_kind(id)),
            None => Ok(None),
        }
    }

    pub(crate) fn invite(&self, id: Path<'_>) -> Result<Option<GroupInvite>, ObjectsError> {
        match self.get(Kind::GroupInvite, id)? {
            Some(Object::GroupInvite(found)) => Ok(Some(found)),
            Some(_) => Err(other_kind(id)),
            None => Ok(None),
        }
    }

    pub(crate) fn subscription(&self, id: Path<'_>) -> Result<Option<Subscription>, ObjectsError> {
        match self.get(Kind::Subscription, id)? {
            Some(Object::Subscription(found)) => Ok(Some(found)),
            Some(_) => Err(other_kind(id)),
            None => Ok(None),
        }
    }

    pub(crate) fn provider(&self, id: Path<'_>) -> Result<Option<IdentityProvider>, ObjectsError> {
        match self.get(Kind::IdentityProvider, id)? {
            Some(Object::IdentityProvider(found)) => Ok(Some(found)),
            Some(_) => Err(other_kind(id)),
            None => Ok(None),
        }
    }

    pub(crate) fn mapping(&self, id: Path<'_>) -> Result<Option<GroupRoleMapping>, ObjectsError> {
        match self.get(Kind::GroupRoleMapping, id)? {
            Some(Object::GroupRoleMapping(found)) => Ok(Some(found)),
            Some(_) => Err(other_kind(id)),
            None => Ok(None),
        }
    }

    pub(crate) fn association(
        &self,
        id: Path<'_>,
    ) -> Result<Option<AccountAssociation>, ObjectsError> {
        match self.get(Kind::AccountAssociation, id)? {
            Some(Object::AccountAssociation(found)) => Ok(Some(found)),
            Some(_) => Err(other_kind(id)),
            None => Ok(None),
        }
    }

    pub(crate) fn is_group(&self, id: Path<'_>) -> bool {
        self.snapshot().is_group(id)
    }

    /// Whether a binding can be at the path: it is a group or a registered resource.
    pub(crate) fn is_scope(&self, id: Path<'_>) -> bool {
        self.snapshot().scope_state(id).is_some()
    }

    /// Whether the path names anything. An identity that is bound and not registered is there for everything but
    /// its own registration.
    pub(crate) fn is_taken(&self, id: Path<'_>, by: Kind) -> Result<bool, ObjectsError> {
        let is_its_own = || {
            let state = self.snapshot().identity_state(id);
            state.is_some_and(|state| !state.registered)
        };
        if self.snapshot().is_taken(id) {
            return Ok(!(by == Kind::Identity && is_its_own()));
        }
        self.0.objects.is_taken_beside(id)
    }

    /// The first kind of object below a group that keeps it from being deleted.
    pub(crate) fn contents(&self, group: Path<'_>) -> Result<Option<Kind>, ObjectsError> {
        let has = |kind| {
            let mut found = false;
            self.0.objects.below(kind, Some(group), &mut |object| {
                found = object.id().as_path() != group;
                !found
            })?;
            Ok::<_, ObjectsError>(found)
        };
        if self.snapshot().scope_state(group).is_none_or(|state| state.children == 0) {
            // The index does not know providers, which only organizations have.
            let is_root = group.parent().is_none();
            let has_provider = is_root && has(Kind::IdentityProvider)?;
            return Ok(has_provider.then_some(Kind::IdentityProvider));
        }
        for kind in [Kind::Group, Kind::Role, Kind::Identity, Kind::Resource] {
            if has(kind)? {
                return Ok(Some(kind));
            }
        }
        Err(ObjectsError(format!("what is below `{group}` in the index is not in the store")))
    }

    /// The whole object of a binding that the engine found. Its absence means that the two disagree.
    pub(crate) fn whole(&self, id: Option<&PathBuf>) -> Result<crate::RoleBinding, ObjectsError> {
        let missing = || ObjectsError("a role binding of the index is not in the store".to_owned());
        let id = id.ok_or_else(missing)?;
        self.binding(id.as_path())?.ok_or_else(missing)
    }
}

fn other_kind(id: Path<'_>) -> ObjectsError {
    ObjectsError(format!("the record of `{id}` is of another kind"))
}
