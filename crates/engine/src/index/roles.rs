//! The roles of a snapshot: by name, by number, and as rows of the capability matrix.
//!
//! **Invariant**: a role's number is the index of its matrix row, and does not change while the role exists.
//! Built-in roles have the first numbers, in the catalog's order. A change of a role copies the matrix
//! and the lists of pointers, whatever the number of bindings.

use std::sync::Arc;

use crate::index::hash::{Fingerprint, Seed};
use crate::index::matrix::RoleMatrix;
use crate::index::resize::copied;
use crate::index::table::Table;
use crate::rules::ROLES_MAX;
use crate::{CapabilitySet, Catalog, Family};

/// A role of the policy, built in or custom.
#[derive(Clone, Debug)]
pub struct Role {
    /// A built-in role's name, or a custom role's path.
    pub id: Box<str>,
    /// Display name, may be empty; empty for built-in roles.
    pub name: Box<str>,
    /// What it is for, may be empty.
    pub description: Box<str>,
    /// Which part of the platform it is for.
    pub family: Family,
    /// What it gives.
    pub capabilities: CapabilitySet,
}

#[derive(Clone, Debug)]
pub(crate) struct Roles {
    rows: Arc<Rows>,
    /// By id, a [`RoleUse`].
    by_name: Table<()>,
}

/// Copied when a role changes.
#[derive(Clone, Debug)]
struct Rows {
    matrix: RoleMatrix,
    /// By number; `None` where a role was deleted.
    by_number: Vec<Option<Arc<Role>>>,
    /// Built-in roles in the catalog's order, then custom ones by id.
    ordered: Vec<Arc<Role>>,
    built_in: usize,
}

/// A role's number, and how many bindings are of the role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RoleUse {
    pub(crate) number: u32,
    pub(crate) bindings: u32,
}

impl RoleUse {
    fn bytes(self) -> [u8; 8] {
        (u64::from(self.bindings) << 32 | u64::from(self.number)).to_le_bytes()
    }

    #[expect(clippy::cast_possible_truncation, reason = "both halves are wanted")]
    fn read(payload: &[u8]) -> Option<Self> {
        let both = u64::from_le_bytes(payload.try_into().ok()?);
        Some(Self { number: both as u32, bindings: (both >> 32) as u32 })
    }
}

impl Roles {
    /// The roles of the catalog, with capacity for `custom` more.
    pub(crate) fn new(seed: Seed, catalog: &Catalog, custom: usize) -> Self {
        let rows = Rows {
            matrix: RoleMatrix::new(catalog.capabilities().len()),
            by_number: vec![],
            ordered: vec![],
            built_in: catalog.roles().len(),
        };
        let by_name = Table::new(seed, catalog.roles().len() + custom);
        let mut roles = Self { rows: Arc::new(rows), by_name };
        for role in catalog.roles() {
            roles.put(Role {
                id: (*role.name).into(),
                name: "".into(),
                description: (*role.description).into(),
                family: role.family,
                capabilities: catalog.capability_set(&role.capabilities),
            });
        }
        roles
    }

    /// Built-in roles in the catalog's order, then custom ones by id.
    pub(crate) fn ordered(&self) -> &[Arc<Role>] {
        &self.rows.ordered
    }

    /// The part of [`Self::ordered`] behind the role of this id, or behind where it would be.
    pub(crate) fn after(&self, id: &str) -> &[Arc<Role>] {
        let first = match self.rows.place(id) {
            Ok(place) => place + 1,
            Err(place) => place,
        };
        self.ordered().get(first..).unwrap_or_default()
    }

    pub(crate) fn matrix(&self) -> &RoleMatrix {
        &self.rows.matrix
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Role> {
        self.rows.by_number.get(number as usize)?.as_deref()
    }

    /// [`Self::get`] without a copy of what it shares.
    pub(crate) fn shared(&self, number: u32) -> Option<&Arc<Role>> {
        self.rows.by_number.get(number as usize)?.as_ref()
    }

    /// One more than the highest number that a role has or had.
    pub(crate) fn numbers(&self) -> usize {
        self.rows.by_number.len()
    }

    /// Custom roles with their numbers.
    pub(crate) fn custom(&self) -> impl Iterator<Item = (u32, &Role)> {
        let custom = self.ordered().iter().skip(self.rows.built_in);
        custom.filter_map(|role| Some((self.find(&role.id)?.number, &**role)))
    }

    pub(crate) fn find(&self, id: &str) -> Option<RoleUse> {
        RoleUse::read(self.by_name.get(id)?.payload())
    }

    /// Whether there is a role whose id has this fingerprint.
    pub(crate) fn contains(&self, fingerprint: Fingerprint) -> bool {
        self.by_name.contains(fingerprint)
    }

    /// Inserts or replaces a role. Returns its number; `None` if all numbers are taken.
    pub(crate) fn put(&mut self, role: Role) -> Option<u32> {
        let known = self.find(&role.id);
        let number = match known {
            Some(known) => known.number,
            None => self.free_number()?,
        };
        if known.is_none() {
            self.by_name.put(&role.id, &RoleUse { number, bindings: 0 }.bytes())?;
        }
        Arc::make_mut(&mut self.rows).put(number, Arc::new(role));
        Some(number)
    }

    fn free_number(&self) -> Option<u32> {
        let Rows { by_number, .. } = &*self.rows;
        let free = if by_number.len() > self.by_name.len() {
            by_number.iter().position(Option::is_none)
        } else {
            None
        };
        let number = u32::try_from(free.unwrap_or(by_number.len())).ok()?;
        (number < ROLES_MAX).then_some(number)
    }

    /// See [`Table::is_crowded`].
    pub(crate) fn is_crowded(&self) -> bool {
        self.by_name.is_crowded()
    }

    /// A copy with a table of the right size; `None` if an entry does not fit.
    pub(crate) fn resized(&self) -> Option<Self> {
        Some(Self { rows: Arc::clone(&self.rows), by_name: copied(&self.by_name)?.0 })
    }

    /// Removes a role, if it is there.
    pub(crate) fn remove(&mut self, id: &str) {
        if let Some(known) = self.find(id) {
            self.by_name.remove(id);
            Arc::make_mut(&mut self.rows).remove(known.number, id);
        }
    }

    /// Replaces a role's matrix row only.
    #[cfg(test)]
    pub(crate) fn set_row(&mut self, id: &str, set: &CapabilitySet) {
        let number = self.find(id).unwrap().number;
        Arc::make_mut(&mut self.rows).matrix.set(number, set);
    }

    /// Adds to the number of bindings of a role, which may be negative.
    pub(crate) fn count(&mut self, role: u32, more: i32) {
        let Some(entry) = self.get(role).and_then(|role| self.by_name.get(&role.id)) else {
            return;
        };
        let Some(found) = RoleUse::read(entry.payload()) else { return };
        let bindings = found.bindings.saturating_add_signed(more);
        self.by_name.write_at(entry.number(), 0, &RoleUse { bindings, ..found }.bytes());
    }
}

impl Rows {
    fn put(&mut self, number: u32, role: Arc<Role>) {
        self.matrix.set(number, &role.capabilities);
        match self.by_number.get_mut(number as usize) {
            Some(slot) => *slot = Some(Arc::clone(&role)),
            None => self.by_number.push(Some(Arc::clone(&role))),
        }
        match self.place(&role.id) {
            Ok(place) => {
                if let Some(slot) = self.ordered.get_mut(place) {
                    *slot = role;
                }
            }
            Err(place) => self.ordered.insert(place, role),
        }
    }

    fn remove(&mut self, number: u32, id: &str) {
        self.matrix.clear(number);
        if let Some(slot) = self.by_number.get_mut(number as usize) {
            *slot = None;
        }
        if let Ok(place) = self.place(id) {
            self.ordered.remove(place);
        }
    }

    /// The position of a role in [`Self::ordered`], or where it would be inserted.
    fn place(&self, id: &str) -> Result<usize, usize> {
        let ordered = &self.ordered;
        let (first, rest) = ordered.split_at_checked(self.built_in).unwrap_or((ordered, &[]));
        if let Some(place) = first.iter().position(|role| *role.id == *id) {
            return Ok(place);
        }
        if first.len() < self.built_in {
            return Err(first.len());
        }
        let place = rest.binary_search_by(|role| (*role.id).cmp(id));
        place.map(|at| at + self.built_in).map_err(|at| at + self.built_in)
    }
}
