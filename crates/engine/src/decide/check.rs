//! The evaluator: one walk over the bindings on a path, from which every answer is made.
//!
//! **Invariant**: a binding *counts* for a question if its scope is the resource or an ancestor of
//! it, `now < expires_at` and all its conditions hold. Every question asks [`Circumstances`] about that.

use std::{borrow::Cow, fmt, ops::ControlFlow, sync::Arc};

use thiserror::Error;

use crate::index::binding::Beside;
use crate::index::snapshot::Binding;
use crate::index::table::Entry;
use crate::model::capabilities::CapabilitySet;
use crate::model::path::contains;
use crate::{Attributes, CapabilityIx, Condition, Of, Path, Role, Snapshot, Timestamp};

/// May this identity do this here?
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    /// Who.
    pub identity: Path<'q>,
    /// What: the name of a capability.
    pub capability: &'q str,
    /// Where: need not be registered.
    pub resource: Path<'q>,
    /// What the request supplies for conditions.
    pub attributes: &'q Attributes,
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

    pub(crate) const fn deny(reason: Reason) -> Self {
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
    /// Every binding that counts here and whose role has a capability, from the topmost scope down;
    /// at one scope built-in roles in the catalog's order, then custom ones by id.
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

/// Why a decision is what it is, to someone who wants to change it.
#[derive(Clone, Debug)]
pub struct Explanation<'s> {
    /// The decision.
    pub decision: Decision,
    /// On an allow, the granting binding that lasts longest; of several, the topmost.
    pub witness: Option<Grant<'s>>,
    /// On a deny, the roles that would give the capability: all built-in ones that have it, and
    /// custom ones whose group is at or above the resource; fewest capabilities first, then by
    /// name.
    pub roles: Vec<&'s str>,
}

/// What decides whether a binding counts, beside its scope.
#[derive(Clone, Copy)]
pub(crate) struct Circumstances<'c> {
    pub(crate) snapshot: &'c Snapshot,
    pub(crate) identity: Entry<'c, Beside>,
    /// None leaves tests on the resource open: they count as if they held.
    pub(crate) resource: Option<&'c str>,
    pub(crate) supplied: &'c Attributes,
    pub(crate) now: Timestamp,
}

impl Circumstances<'_> {
    pub(crate) fn in_time(&self, binding: &Binding<'_>) -> bool {
        !binding.is_broken() && binding.expires_at().is_none_or(|expires_at| self.now < expires_at)
    }

    pub(crate) fn satisfied(&self, binding: &Binding<'_>) -> bool {
        let holds = |condition: &Condition| {
            let registered = match condition.of {
                Of::Subject => self.identity.extra().map(|beside| &beside.properties),
                Of::Resource => match self.resource {
                    Some(resource) => self.snapshot.resource(resource),
                    None => return true,
                },
                Of::Action | Of::Context => None,
            };
            condition.holds(registered, self.supplied)
        };
        !binding.is_broken() && binding.conditions().iter().all(holds)
    }

    pub(crate) fn counts(&self, binding: &Binding<'_>) -> bool {
        self.in_time(binding) && self.satisfied(binding)
    }
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
        let Some(identity) = self.identities.get(question.identity.as_str()) else {
            return Ok(Decision::deny(Reason::UnknownIdentity));
        };
        Ok(self.decide(identity, capability, question, now))
    }

    /// The decision about a known identity.
    pub(crate) fn decide(
        &self,
        identity: Entry<'_, Beside>,
        capability: CapabilityIx,
        question: &Question<'_>,
        now: Timestamp,
    ) -> Decision {
        let Question { resource, attributes, .. } = *question;
        let circumstances = self.circumstances(identity, resource, attributes, now);
        let (mut granted, mut expired, mut not_met, mut counts) = (None, false, false, false);
        self.on_path(identity, resource, |binding| {
            let has = self.roles.matrix().has(binding.packed.role, capability);
            if !binding.packed.special {
                // Most bindings: they count, and for ever. No other can change a grant without end.
                counts = true;
                if has {
                    granted = Some(None);
                    return ControlFlow::Break(());
                }
                return ControlFlow::Continue(());
            }
            match (circumstances.in_time(&binding), circumstances.satisfied(&binding)) {
                (true, true) if has => granted = Some(later(granted, binding.expires_at())),
                (true, true) => counts = true,
                (false, true) => expired |= has,
                (true, false) => not_met |= has,
                (false, false) => {}
            }
            ControlFlow::Continue(())
        });
        match granted {
            Some(valid_until) => Decision { reason: Reason::Granted, valid_until },
            None if expired => Decision::deny(Reason::Expired),
            None if not_met => Decision::deny(Reason::ConditionNotMet),
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
        attributes: &Attributes,
        now: Timestamp,
    ) -> Capabilities<'_> {
        let mut capabilities = CapabilitySet::empty(self.catalog.capabilities().len());
        let counting = self.counting(identity, resource, attributes, now, |_| true);
        for binding in &counting {
            capabilities.extend(self.roles.matrix().row(binding.packed.role));
        }
        let gives = |binding: &&Binding<'_>| {
            self.roles.matrix().row(binding.packed.role).iter().any(|word| *word != 0)
        };
        let grants = counting.iter().filter(gives);
        let grants = grants.map(|binding| self.grant(identity.as_str(), binding)).collect();
        Capabilities { capabilities, grants }
    }

    /// Why may this identity do this here, or what would let it?
    ///
    /// # Errors
    ///
    /// The catalog has no such capability.
    pub fn explain(
        &self,
        question: &Question<'_>,
        now: Timestamp,
    ) -> Result<Explanation<'_>, UnknownCapability> {
        let decision = self.check(question, now)?;
        let capability = self.catalog.capability(question.capability).ok_or(UnknownCapability)?;
        let Question { identity, resource, attributes, .. } = *question;
        if !decision.allowed() {
            let roles = self.roles_that_give(capability, resource);
            return Ok(Explanation { decision, witness: None, roles });
        }
        let witnesses = self.counting(identity, resource, attributes, now, |binding| {
            self.roles.matrix().has(binding.packed.role, capability)
                && binding.expires_at() == decision.valid_until
        });
        let witness = witnesses.first().map(|binding| self.grant(identity.as_str(), binding));
        Ok(Explanation { decision, witness, roles: vec![] })
    }

    fn roles_that_give(&self, capability: CapabilityIx, resource: Path<'_>) -> Vec<&str> {
        let usable = |role: &&Arc<Role>| match role.id.rsplit_once('/') {
            Some((home, _)) => contains(home, resource.as_str()),
            None => true,
        };
        let roles = self.roles().iter().filter(|role| role.capabilities.contains(capability));
        let mut roles: Vec<_> = roles.filter(usable).collect();
        roles.sort_by_key(|role| (role.capabilities.len(), &role.id));
        roles.into_iter().map(|role| &*role.id).collect()
    }

    pub(crate) fn circumstances<'c>(
        &'c self,
        identity: Entry<'c, Beside>,
        resource: Path<'c>,
        supplied: &'c Attributes,
        now: Timestamp,
    ) -> Circumstances<'c> {
        let resource = Some(resource.as_str());
        Circumstances { snapshot: self, identity, resource, supplied, now }
    }

    /// The bindings of an identity that count here and are wanted, from the topmost scope down; at
    /// one scope built-in roles in the catalog's order, then custom ones by id.
    fn counting(
        &self,
        identity: Path<'_>,
        resource: Path<'_>,
        attributes: &Attributes,
        now: Timestamp,
        wanted: impl Fn(&Binding<'_>) -> bool,
    ) -> Vec<Binding<'_>> {
        let Some(entry) = self.identities.get(identity.as_str()) else {
            return vec![];
        };
        let circumstances = self.circumstances(entry, resource, attributes, now);
        let mut found = vec![];
        self.on_path(entry, resource, |binding| {
            if wanted(&binding) && circumstances.counts(&binding) {
                found.push(binding);
            }
            ControlFlow::Continue(())
        });
        found.sort_by_cached_key(|binding| {
            let role = self.role_id(binding);
            let custom = role.contains('/').then_some(role);
            let built_in = if custom.is_some() { u32::MAX } else { binding.packed.role };
            let id = self.binding_id(identity.as_str(), binding);
            (binding.packed.length, built_in, custom, id)
        });
        found
    }

    fn grant<'s>(&'s self, identity: &str, binding: &Binding<'s>) -> Grant<'s> {
        Grant {
            binding: self.binding_id(identity, binding),
            role: self.role_id(binding),
            scope: self.scope_of(binding),
            expires_at: binding.expires_at(),
        }
    }
}

/// The later expiry of what was granted so far and one more grant; none is later than any.
fn later(granted: Option<Option<Timestamp>>, expires_at: Option<Timestamp>) -> Option<Timestamp> {
    match granted {
        None => expires_at,
        Some(so_far) => Some(so_far?.max(expires_at?)),
    }
}
