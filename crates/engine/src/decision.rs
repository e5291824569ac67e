//! The evaluator: one walk over the bindings on a path, from which every answer is made.
//!
//! **Invariant**: a binding *counts* for a question if its scope is the resource or an ancestor of
//! it and `now < expires_at`. Check and ListCapabilities both ask this one function.

use std::{borrow::Cow, fmt};

use thiserror::Error;

use crate::capabilities::CapabilitySet;
use crate::path::contains;
use crate::snapshot::Binding;
use crate::{CapabilityIx, Path, Snapshot, Timestamp};

/// May this identity do this here?
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    /// Who.
    pub identity: Path<'q>,
    /// What: the name of a capability.
    pub capability: &'q str,
    /// Where: need not be registered.
    pub resource: Path<'q>,
}

/// The answer, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// The first reason that holds, in the order of [`Reason`].
    pub reason: Reason,
    /// On an allow, the latest expiry among the granting bindings; none if one of them has none.
    pub valid_until: Option<Timestamp>,
}

impl Decision {
    /// Whether the identity may.
    #[must_use]
    pub const fn allowed(self) -> bool {
        matches!(self.reason, Reason::Granted)
    }

    const fn deny(reason: Reason) -> Self {
        Self { reason, valid_until: None }
    }
}

/// Why a decision is what it is: the first that holds, in this order (section 5 of the contract).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// A binding that counts has the capability.
    Granted,
    /// The identity is neither registered nor bound anywhere.
    UnknownIdentity,
    /// A binding on the path has the capability, but its time is over.
    Expired,
    /// A binding in time on the path has the capability, but its conditions fail.
    ConditionNotMet,
    /// Some binding on the path counts, and none that counts has the capability.
    CapabilityNotInRole,
    /// Nothing on the path counts.
    NoBinding,
}

impl Reason {
    /// Every reason, in order of precedence.
    pub const ALL: [Self; 6] = [
        Self::Granted,
        Self::UnknownIdentity,
        Self::Expired,
        Self::ConditionNotMet,
        Self::CapabilityNotInRole,
        Self::NoBinding,
    ];

    /// The word for it in JSON and documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "GRANTED",
            Self::UnknownIdentity => "UNKNOWN_IDENTITY",
            Self::Expired => "EXPIRED",
            Self::ConditionNotMet => "CONDITION_NOT_MET",
            Self::CapabilityNotInRole => "CAPABILITY_NOT_IN_ROLE",
            Self::NoBinding => "NO_BINDING",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The catalog has no such capability: a mistake of the asker, so not a denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the catalog has no such capability")]
pub struct UnknownCapability;

/// What an identity can do at a resource.
#[derive(Clone, Debug)]
pub struct Capabilities<'s> {
    /// The union of what the grants give.
    pub capabilities: CapabilitySet,
    /// Every binding that counts here and whose role has a capability, by scope, then by role.
    pub grants: Vec<Grant<'s>>,
}

/// A binding that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant<'s> {
    /// The binding's path.
    pub binding: Cow<'s, str>,
    /// A built-in role's name, or a custom role's path.
    pub role: &'s str,
    /// Path of the group or registered resource that the binding is attached to.
    pub scope: &'s str,
    /// When it stops counting, if ever.
    pub expires_at: Option<Timestamp>,
}

impl Snapshot {
    /// May this identity do this here, at this time?
    ///
    /// # Errors
    ///
    /// The catalog has no such capability.
    pub fn check(
        &self,
        question: &Question<'_>,
        now: Timestamp,
    ) -> Result<Decision, UnknownCapability> {
        let capability = self.catalog.capability(question.capability).ok_or(UnknownCapability)?;
        Ok(self.decide(question.identity, capability, question.resource, now))
    }

    fn decide(
        &self,
        identity: Path<'_>,
        capability: CapabilityIx,
        resource: Path<'_>,
        now: Timestamp,
    ) -> Decision {
        let Some(bindings) = self.bindings(identity.as_str()) else {
            return Decision::deny(Reason::UnknownIdentity);
        };
        let (mut granted, mut expired, mut counts) = (None, false, false);
        for binding in self.on_path(bindings, resource) {
            let has = self.matrix.has(binding.role, capability);
            let in_time = binding.in_time(now);
            counts |= in_time;
            expired |= has && !in_time;
            if has && in_time {
                granted = Some(later(granted, binding.expires_at));
            }
        }
        match granted {
            Some(valid_until) => Decision { reason: Reason::Granted, valid_until },
            None if expired => Decision::deny(Reason::Expired),
            None if counts => Decision::deny(Reason::CapabilityNotInRole),
            None => Decision::deny(Reason::NoBinding),
        }
    }

    /// What can this identity do here, at this time? An unknown identity can do nothing.
    #[must_use]
    pub fn list_capabilities(
        &self,
        identity: Path<'_>,
        resource: Path<'_>,
        now: Timestamp,
    ) -> Capabilities<'_> {
        let mut capabilities = CapabilitySet::empty(self.catalog.capabilities().len());
        let mut grants = Vec::new();
        let bindings = self.bindings(identity.as_str()).unwrap_or_default();
        for binding in self.on_path(bindings, resource).filter(|binding| binding.in_time(now)) {
            let row = self.matrix.row(binding.role);
            capabilities.extend(row);
            if row.iter().any(|word| *word != 0) {
                grants.push(Grant {
                    binding: self.binding_id(binding),
                    role: self.role_id(binding),
                    scope: self.scope(binding),
                    expires_at: binding.expires_at,
                });
            }
        }
        Capabilities { capabilities, grants }
    }

    /// The bindings whose scope is the resource or above it.
    fn on_path<'s>(
        &'s self,
        bindings: &'s [Binding],
        resource: Path<'_>,
    ) -> impl Iterator<Item = &'s Binding> {
        bindings.iter().filter(move |binding| contains(self.scope(binding), resource.as_str()))
    }
}

impl Binding {
    fn in_time(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}

/// The later expiry of what was granted so far and one more grant; none is later than any.
fn later(granted: Option<Option<Timestamp>>, expires_at: Option<Timestamp>) -> Option<Timestamp> {
    match granted {
        None => expires_at,
        Some(so_far) => Some(so_far?.max(expires_at?)),
    }
}
