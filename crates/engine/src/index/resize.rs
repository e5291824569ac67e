//! Tables that have grown far beyond the size they were made for are copied into larger ones.

use std::sync::Arc;

use crate::Map;
use crate::index::Index;
use crate::index::binding::{BINDING_BYTES, Packed};
use crate::index::scope::ScopeRecord;
use crate::index::table::Table;

impl Index {
    /// Whether changes cost much more than they would with tables made for what is in them.
    pub(crate) fn is_crowded(&self) -> bool {
        self.identities.is_crowded()
            || self.scopes.is_crowded()
            || self.binding_ids.is_crowded()
            || self.roles.is_crowded()
    }

    /// The same with tables made for what is in them: everything gets another number. Nothing if
    /// something has no place in them.
    pub(crate) fn resized(&self) -> Option<Self> {
        let mut next = Self { roles: self.roles.resized()?, ..self.clone() };
        next.binding_ids = copied(&self.binding_ids)?.0;
        let (scopes, scope_numbers) = copied(&self.scopes)?;
        let (identities, identity_numbers) = copied(&self.identities)?;
        (next.scopes, next.identities) = (scopes, identities);
        for entry in self.scopes.iter() {
            let Some(record) = ScopeRecord::read(entry.payload()) else { continue };
            let bound: Option<Vec<u32>> =
                record.identities().map(|old| identity_numbers.get(&old).copied()).collect();
            let payload = ScopeRecord::write(record.kind, record.children, bound?.into_iter());
            next.scopes.put(entry.key(), &payload)?;
        }
        for entry in self.identities.iter() {
            let (bindings, _) = entry.payload().as_chunks::<BINDING_BYTES>();
            let mut payload = Vec::with_capacity(entry.payload().len());
            for packed in bindings.iter().map(|bytes| Packed::read(*bytes)) {
                let scope = *scope_numbers.get(&packed.scope)?;
                Packed { scope, ..packed }.write(&mut payload);
            }
            next.identities.put(entry.key(), &payload)?;
        }
        Some(next)
    }
}

/// A copy with shards made for what is in it, and which number became which.
pub(crate) fn copied<X>(from: &Table<X>) -> Option<(Table<X>, Map<u32, u32>)> {
    let entries = from.iter().map(|entry| (entry.key(), entry.payload().len()));
    let mut to = Table::with_room_for(from.seed().clone(), entries);
    let mut numbers = Map::with_capacity(from.len());
    for entry in from.iter() {
        let number = to.put(entry.key(), entry.payload())?;
        to.set_extra(number, entry.extra().map(Arc::clone));
        numbers.insert(entry.number(), number);
    }
    Some((to, numbers))
}
