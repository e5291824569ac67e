//! ListCapabilities: what an identity can do at a resource, and the bindings that grant it.

use std::borrow::Cow;
use std::ops::ControlFlow;

use crate::index::read::Binding;
use crate::model::capabilities::CapabilitySet;
use crate::{Attributes, Path, Snapshot, Timestamp};

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

impl Snapshot {
    /// What can this identity do here, at this time? An unknown identity can do nothing.
    #[must_use]
    pub fn list_capabilities(
        &self,
        identity: Path<'_>,
        resource: Path<'_>,
        attributes: &Attributes,
        now: Timestamp,
    ) -> Capabilities<'_> {
        let matrix = self.index().roles().matrix();
        let mut capabilities = CapabilitySet::empty(self.catalog().capabilities().len());
        let counting = self.counting(identity, resource, attributes, now, |_| true);
        for binding in &counting {
            capabilities.extend(matrix.row(binding.packed.role));
        }
        let gives =
            |binding: &&Binding<'_>| matrix.row(binding.packed.role).iter().any(|word| *word != 0);
        let grants = counting.iter().filter(gives);
        let grants = grants.map(|binding| self.grant(identity.as_str(), binding)).collect();
        Capabilities { capabilities, grants }
    }

    /// The bindings of an identity that count here and are wanted, from the topmost scope down; at
    /// one scope built-in roles in the catalog's order, then custom ones by id.
    pub(super) fn counting(
        &self,
        identity: Path<'_>,
        resource: Path<'_>,
        attributes: &Attributes,
        now: Timestamp,
        wanted: impl Fn(&Binding<'_>) -> bool,
    ) -> Vec<Binding<'_>> {
        let index = self.index();
        let Some(entry) = index.identities().get(identity.as_str()) else {
            return vec![];
        };
        let evaluation = self.evaluation(entry, resource, attributes, now);
        let mut found = vec![];
        index.on_path(entry, resource, |binding| {
            if wanted(&binding) && evaluation.counts(&binding) {
                found.push(binding);
            }
            ControlFlow::Continue(())
        });
        found.sort_by_cached_key(|binding| {
            let role = index.role_id(binding);
            let custom = role.contains('/').then_some(role);
            let built_in = if custom.is_some() { u32::MAX } else { binding.packed.role };
            let id = index.binding_id(identity.as_str(), binding);
            (binding.packed.length, built_in, custom, id)
        });
        found
    }

    pub(super) fn grant<'s>(&'s self, identity: &str, binding: &Binding<'s>) -> Grant<'s> {
        let index = self.index();
        Grant {
            binding: index.binding_id(identity, binding),
            role: index.role_id(binding),
            scope: index.scope_of(binding),
            expires_at: binding.expires_at(),
        }
    }
}
