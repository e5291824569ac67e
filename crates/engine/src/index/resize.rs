//! Resizing: tables that have grown far beyond their first size are copied into larger ones.

use std::sync::Arc;

use crate::Map;
use crate::index::Index;
use crate::index::binding::IdentityPayload;
use crate::index::read::{is_disabled, stored_payload};
use crate::index::scope::ScopeRecord;
use crate::index::table::Table;

impl Index {
    /// Whether a table has so many more entries than it was made for that changes cost much more than in a
    /// larger one.
    pub(crate) fn is_crowded(&self) -> bool {
        self.identities.is_crowded()
            || self.scopes.is_crowded()
            || self.binding_ids.is_crowded()
            || self.roles.is_crowded()
    }

    /// A copy with tables of the right size, in which everything has other numbers. `None` if an entry does
    /// not fit.
    pub(crate) fn resized(&self) -> Option<Self> {
        let mut next = Self { roles: self.roles.resized()?, ..self.clone() };
        next.binding_ids = copied(&self.binding_ids)?.0;
        let (scopes, scope_numbers) = copied(&self.scopes)?;
        let (identities, identity_numbers) = copied(&self.identities)?;
        (next.scopes, next.identities) = (scopes, identities);
        for entry in self.scopes.iter() {
            let Some(record) = ScopeRecord::read(entry) else { continue };
            let mut payload = record.to_payload();
            for identity in &mut payload.identities {
                *identity = *identity_numbers.get(identity)?;
            }
            next.put_scope(entry.key(), payload.stored()).ok()?;
        }
        for entry in self.identities.iter() {
            let mut payload = IdentityPayload::read(stored_payload(entry));
            for binding in &mut payload.bindings {
                binding.scope = *scope_numbers.get(&binding.scope)?;
            }
            let mut payload = payload.bytes();
            if is_disabled(entry) {
                let mut extra = entry.extra().map(|extra| (**extra).clone()).unwrap_or_default();
                extra.take_payload(&mut payload);
                let number = *identity_numbers.get(&entry.number())?;
                next.identities.set_extra(number, Some(Arc::new(extra)));
            }
            next.identities.put(entry.key(), &payload)?;
        }
        for entry in self.binding_ids.iter() {
            let identity = u32::from_le_bytes(*entry.payload().first_chunk()?);
            let identity = identity_numbers.get(&identity)?;
            next.binding_ids.put(entry.key(), &identity.to_le_bytes())?;
        }
        Some(next)
    }
}

/// A copy of a table with shards of the right size, and the new number of each old one.
pub(crate) fn copied<X>(from: &Table<X>) -> Option<(Table<X>, Map<u32, u32>)> {
    let entries = from.iter().map(|entry| (entry.key(), entry.payload().len()));
    let mut to = Table::with_capacity(from.seed().clone(), entries);
    let mut numbers = Map::with_capacity(from.len());
    for entry in from.iter() {
        let number = to.put(entry.key(), entry.payload())?;
        to.set_extra(number, entry.extra().map(Arc::clone));
        numbers.insert(entry.number(), number);
    }
    Some((to, numbers))
}
