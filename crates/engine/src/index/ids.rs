//! The id of a new binding.

use crate::index::Index;
use crate::index::binding::BindingId;
use crate::index::scope::ScopeRecord;
use crate::rules::{self, BindingKey, binding_id};
use crate::{ChangeError, PathBuf, RoleBinding};

impl Index {
    /// The id of a new binding at a scope, and its number, 0 if it has none: the declared id if the path is
    /// free, the derived one, or the next number that is free.
    ///
    /// A derived id takes no memory, declared or not: whoever names every binding by its derived id pays nothing for
    /// it.
    pub(super) fn free_id(
        &self,
        binding: &RoleBinding,
        key: &BindingKey<'_>,
        at: &ScopeRecord<'_>,
    ) -> Result<(BindingId, u64), ChangeError> {
        let scope = binding.scope.as_str();
        let derived = key.derived_number();
        if let Some(id) = &binding.id {
            let found = BindingId::of(Some(id), scope, || derived);
            let is_taken = match found {
                BindingId::Derived => self.is_derived_taken(scope, derived, at),
                _ => self.is_taken(id.as_str()),
            };
            rules::check_id(id.as_str(), is_taken)?;
            let number = match found {
                BindingId::Derived => derived,
                BindingId::Number(number) => number,
                BindingId::Text(_) => 0,
            };
            return Ok((found, number));
        }
        if !self.is_derived_taken(scope, derived, at) {
            return Ok((BindingId::Derived, derived));
        }
        let mut number = derived.wrapping_add(1);
        while self.is_taken(&binding_id(scope, number)) {
            number = number.wrapping_add(1);
        }
        Ok((BindingId::Number(number), number))
    }

    /// Whether something has the id that is derived for a new binding. A scope whose ids are all derived is not
    /// searched for an equal one, see `writer.rs`.
    fn is_derived_taken(&self, scope: &str, derived: u64, at: &ScopeRecord<'_>) -> bool {
        let id = binding_id(scope, derived);
        if at.numbered { self.is_taken(&id) } else { self.is_named(&id) }
    }

    /// See [`Snapshot::free_binding_id`](crate::Snapshot::free_binding_id).
    pub(crate) fn free_binding_id(&self, binding: &RoleBinding) -> Option<PathBuf> {
        let scope = binding.scope.as_str();
        let (_, record) = self.scope(scope)?;
        let (id, number) = self.free_id(binding, &BindingKey::of(binding), &record).ok()?;
        match id {
            BindingId::Text(text) => text.parse().ok(),
            BindingId::Derived | BindingId::Number(_) => binding_id(scope, number).parse().ok(),
        }
    }
}
