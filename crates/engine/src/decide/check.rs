//! Check: the decision about one identity, capability and resource.
//!
//! **Invariant**: a binding *counts* for a question if its scope is the resource or an ancestor of
//! it, `now < expires_at`, and all its conditions hold (section 5 of the contract). [`Evaluation`] is the only
//! place where expiries and conditions are evaluated. A binding of a disabled identity never counts: decisions find
//! none of them ([`Standing::Disabled`](crate::index::binding::Standing::Disabled)).

use std::fmt;
use std::ops::ControlFlow;

use thiserror::Error;

use crate::index::Index;
use crate::index::binding::IdentityExtra;
use crate::index::read::Binding;
use crate::index::table::{EMPTY, Entry};
use crate::{
    AttributeCategory, Attributes, CapabilityIx, Condition, Path, Snapshot, Timestamp, Value,
};

/// May this identity do this here?
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    /// The identity asked about.
    pub identity: Path<'q>,
    /// The name of a capability.
    pub capability: &'q str,
    /// The path of a resource, which need not be registered.
    pub resource: Path<'q>,
    /// What the request supplies for conditions.
    pub attributes: &'q Attributes,
}

/// The answer to a question, and its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// The first reason that holds, in the order of [`Reason`].
    pub reason: Reason,
    /// On an allow, the latest expiry among the granting bindings; none if one of them has none.
    pub valid_until: Option<Timestamp>,
}

impl Decision {
    /// Whether it is an allow.
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
    /// A binding on the path has the capability, but has expired.
    Expired,
    /// A binding in time on the path has the capability, but its conditions fail.
    ConditionNotMet,
    /// Some binding on the path counts, and none that counts has the capability.
    CapabilityNotInRole,
    /// Nothing on the path counts, or the identity is disabled.
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

    /// Its name in JSON and documents.
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

/// The catalog has no such capability: an error of the request, not a denial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the catalog has no such capability")]
pub struct UnknownCapabilityError;

/// What the expiry and the conditions of a binding are evaluated against.
#[derive(Clone, Copy)]
pub(crate) struct Evaluation<'c> {
    pub(crate) index: &'c Index,
    pub(crate) identity: Entry<'c, IdentityExtra>,
    /// `None` if the resource is not known: then conditions on it count as if they held.
    pub(crate) resource: Option<&'c str>,
    /// What the request supplies for conditions.
    pub(crate) supplied: &'c Attributes,
    pub(crate) now: Timestamp,
}

impl<'c> Evaluation<'c> {
    /// The value that a condition tests; `None` if the attribute is absent.
    pub(crate) fn seen(&self, condition: &Condition) -> Option<&'c Value> {
        let registered = match condition.category {
            AttributeCategory::Subject => self.identity.extra().map(|extra| &extra.properties),
            AttributeCategory::Resource => {
                self.resource.and_then(|resource| self.index.resource_properties(resource))
            }
            AttributeCategory::Action | AttributeCategory::Context => None,
        };
        condition.seen(registered, self.supplied)
    }

    /// Whether `now < expires_at`. A corrupt binding is never in time.
    pub(crate) fn in_time(&self, binding: &Binding<'_>) -> bool {
        !binding.is_broken() && binding.expires_at().is_none_or(|expires_at| self.now < expires_at)
    }

    /// Whether all conditions hold. Those of a corrupt binding never do.
    pub(crate) fn satisfied(&self, binding: &Binding<'_>) -> bool {
        let holds = |condition: &Condition| {
            let registered = match condition.category {
                AttributeCategory::Subject => self.identity.extra().map(|extra| &extra.properties),
                AttributeCategory::Resource => match self.resource {
                    Some(resource) => self.index.resource_properties(resource),
                    None => return true,
                },
                AttributeCategory::Action | AttributeCategory::Context => None,
            };
            condition.holds(registered, self.supplied)
        };
        !binding.is_broken() && binding.conditions().iter().all(holds)
    }

    pub(crate) fn counts(&self, binding: &Binding<'_>) -> bool {
        self.in_time(binding) && self.satisfied(binding)
    }

    /// The tests of a binding whose attributes are absent, so that further properties of a request may meet them;
    /// without a resource, also all tests on it. `None` if the binding does not count whatever is added: it is not
    /// in time, a test of a known attribute fails, or two tests contradict each other.
    pub(crate) fn open_tests<'s>(&self, binding: &Binding<'s>) -> Option<Vec<&'s Condition>> {
        if !self.in_time(binding) {
            return None;
        }
        let mut open: Vec<&Condition> = vec![];
        for condition in binding.conditions() {
            let is_known =
                self.resource.is_some() || condition.category != AttributeCategory::Resource;
            match self.seen(condition).filter(|_| is_known) {
                Some(seen) if !condition.accepts(Some(seen)) => return None,
                Some(_) => {}
                None if open.iter().any(|other| other.contradicts(condition)) => return None,
                None => open.push(condition),
            }
        }
        Some(open)
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
    ) -> Result<Decision, UnknownCapabilityError> {
        // The cache misses of the identity's record come first: the look-up of the capability takes about as long.
        let probe = self.index().identities().probe(question.identity.as_str());
        let offset = probe.as_ref().map_or(EMPTY, |probe| {
            let offset = probe.offset();
            probe.prefetch_record(offset);
            offset
        });
        self.finish((&probe, offset), question, now)
    }

    pub(crate) fn capability(&self, name: &str) -> Result<CapabilityIx, UnknownCapabilityError> {
        self.catalog().capability(name).ok_or(UnknownCapabilityError)
    }

    /// The decision about an identity that the index has.
    pub(crate) fn decide(
        &self,
        identity: Entry<'_, IdentityExtra>,
        capability: CapabilityIx,
        question: &Question<'_>,
        now: Timestamp,
    ) -> Decision {
        let Question { resource, attributes, .. } = *question;
        let index = self.index();
        let evaluation = self.evaluation(identity, resource, attributes, now);
        let (mut granted, mut expired, mut not_met, mut counts) = (None, false, false, false);
        index.on_path(identity, resource, |binding| {
            let has = index.roles().matrix().has(binding.packed.role, capability);
            if !binding.packed.restricted {
                // The common case: it counts and never ends. No other binding can change a grant without end.
                counts = true;
                if has {
                    granted = Some(None);
                    return ControlFlow::Break(());
                }
                return ControlFlow::Continue(());
            }
            match (evaluation.in_time(&binding), evaluation.satisfied(&binding)) {
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

    pub(crate) fn evaluation<'c>(
        &'c self,
        identity: Entry<'c, IdentityExtra>,
        resource: Path<'c>,
        supplied: &'c Attributes,
        now: Timestamp,
    ) -> Evaluation<'c> {
        let resource = Some(resource.as_str());
        Evaluation { index: self.index(), identity, resource, supplied, now }
    }
}

/// The later expiry of the grants so far and one more grant. `None` is later than any time.
fn later(granted: Option<Option<Timestamp>>, expires_at: Option<Timestamp>) -> Option<Timestamp> {
    match granted {
        None => expires_at,
        Some(so_far) => Some(so_far?.max(expires_at?)),
    }
}
