//! Reads of the state before an operation that the rules share.

use capstan_engine::{Path, PathBuf, RoleBinding, Snapshot};

use crate::{Group, Identity, Kind, Object, ObjectsError, Resource, Role, State};

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

    pub(crate) fn is_group(&self, id: Path<'_>) -> Result<bool, ObjectsError> {
        Ok(self.get(Kind::Group, id)?.is_some())
    }

    /// Whether a binding can be at the path: it is a group or a registered resource.
    pub(crate) fn is_scope(&self, id: Path<'_>) -> Result<bool, ObjectsError> {
        Ok(self.is_group(id)? || self.get(Kind::Resource, id)?.is_some())
    }

    /// Whether the path names anything. An identity that is bound and not registered is there for everything but
    /// its own registration.
    pub(crate) fn is_taken(&self, id: Path<'_>, by: Kind) -> Result<bool, ObjectsError> {
        for kind in Kind::ALL {
            if self.get(kind, id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(by != Kind::Identity && self.snapshot().identity_state(id).is_some())
    }

    /// Calls `each` with the bindings at exactly this scope, until it returns false.
    pub(crate) fn bindings_at(
        &self,
        scope: Path<'_>,
        each: &mut dyn FnMut(&RoleBinding) -> bool,
    ) -> Result<(), ObjectsError> {
        self.0.objects.below(Kind::RoleBinding, Some(scope), &mut |object| match object {
            Object::RoleBinding(one) if one.scope.as_path() == scope => each(&one.fact()),
            _ => true,
        })
    }

    /// The first kind of object below a group that keeps it from being deleted.
    pub(crate) fn contents(&self, group: Path<'_>) -> Result<Option<Kind>, ObjectsError> {
        for kind in [Kind::Group, Kind::Role, Kind::Identity, Kind::Resource] {
            let mut found = false;
            self.0.objects.below(kind, Some(group), &mut |object| {
                found = object.id().as_path() != group;
                !found
            })?;
            if found {
                return Ok(Some(kind));
            }
        }
        Ok(None)
    }

    /// Whether a custom role is bound. Only its home and what is below it can bind it.
    pub(crate) fn is_bound(&self, role: &Role) -> Result<bool, ObjectsError> {
        let mut bound = false;
        self.0.objects.below(Kind::RoleBinding, Some(role.home()), &mut |object| {
            bound = matches!(object, Object::RoleBinding(one) if *one.role == *role.id.as_str());
            !bound
        })?;
        Ok(bound)
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
