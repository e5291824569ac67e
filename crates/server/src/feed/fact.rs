//! One fact of any kind, on its way from the thread that reads it to the thread that indexes it.

use capstan_engine::{CustomRole, FactSink, Group, Identity, RegisteredResource, RoleBinding};
use capstan_iam::Object;

/// Facts that are handed over at a time.
pub(super) const PART_FACTS: usize = 512;
/// Parts that wait to be indexed. More would only need memory.
pub(super) const PARTS_MAX: usize = 4;

/// What the index keeps of an object.
pub(super) enum Fact {
    Group(Group),
    Role(CustomRole),
    Identity(Identity),
    Resource(RegisteredResource),
    RoleBinding(RoleBinding),
}

impl Fact {
    /// What the index keeps of an object; `None` if that is nothing.
    pub(super) fn of(object: Object) -> Option<Self> {
        Some(match object {
            Object::Group(one) => Self::Group(one.fact()),
            Object::Role(one) => Self::Role(one.fact()),
            Object::Identity(one) => Self::Identity(one.into()),
            Object::Resource(one) => Self::Resource(one.fact()),
            Object::RoleBinding(one) => Self::RoleBinding(one.into()),
            Object::GroupInvite(_)
            | Object::Subscription(_)
            | Object::IdentityProvider(_)
            | Object::GroupRoleMapping(_)
            | Object::AccountAssociation(_) => return None,
        })
    }

    /// Gives it to a sink.
    ///
    /// # Errors
    ///
    /// Those of the sink.
    pub(super) fn put<S: FactSink>(self, to: &mut S) -> Result<(), S::Error> {
        match self {
            Self::Group(one) => to.group(one),
            Self::Role(one) => to.role(one),
            Self::Identity(one) => to.identity(one),
            Self::Resource(one) => to.resource(one),
            Self::RoleBinding(one) => to.role_binding(one),
        }
    }

    /// The id of an identity.
    pub(super) fn identity(&self) -> Option<&str> {
        match self {
            Self::Identity(identity) => Some(identity.id.as_str()),
            _ => None,
        }
    }
}
