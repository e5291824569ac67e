//! What is there, by id: reads for who manages objects. None of them decides anything.

use crate::index::read::{is_disabled, is_registered};
use crate::{Path, Snapshot};

/// What a snapshot knows of an identity, apart from its bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdentityState {
    /// Whether it is registered. One that is not is bound, see [`is_derived_identity`](crate::is_derived_identity).
    pub registered: bool,
    /// Whether it is disabled, so that no binding of it counts.
    pub disabled: bool,
    /// Whether it has a binding, which may not count.
    pub bound: bool,
}

impl Snapshot {
    /// The state of an identity; `None` if it is neither registered nor bound anywhere. Costs one look-up.
    #[must_use]
    pub fn identity_state(&self, identity: Path<'_>) -> Option<IdentityState> {
        let entry = self.index().identities().get(identity.as_str())?;
        Some(IdentityState {
            registered: is_registered(entry),
            disabled: is_disabled(entry),
            bound: self.index().stored_bindings_of(entry).next().is_some(),
        })
    }

    /// Whether an identity is registered. Costs one look-up.
    #[must_use]
    pub fn is_registered(&self, identity: Path<'_>) -> bool {
        self.identity_state(identity).is_some_and(|state| state.registered)
    }

    /// Whether an identity is registered and disabled. Costs one look-up.
    #[must_use]
    pub fn is_disabled(&self, identity: Path<'_>) -> bool {
        self.identity_state(identity).is_some_and(|state| state.disabled)
    }
}
