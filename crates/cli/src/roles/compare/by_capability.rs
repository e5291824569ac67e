//! The comparison by capabilities, for any catalog: a row for actions that the same roles give, a column for each role.

use std::collections::{BTreeSet, HashMap};

use comfy_table::{Cell, ColumnConstraint, Width};

use super::{Comparison, EDGE, Marks, PADDING, Row, letters, mark};
use crate::answers::{Role, RoleList};
use crate::capabilities::by_resource;
use crate::output::{self, Format};

/// Characters of a line where there is no terminal.
const LINE_WIDTH: usize = 80;
/// Characters of a resource's name, and of the actions, that are not wrapped.
const RESOURCE_WIDTH_MAX: usize = 24;
const ACTIONS_WIDTH_MIN: usize = 16;

pub(super) fn show(listing: &RoleList, format: Format) -> anyhow::Result<()> {
    let columns: BTreeSet<&str> =
        listing.roles.iter().flat_map(|role| &role.capabilities).map(String::as_str).collect();
    let columns: Vec<_> = columns.into_iter().collect();
    let roles = listing.roles.iter().map(|role| {
        let gives: BTreeSet<&str> = role.capabilities.iter().map(String::as_str).collect();
        let marks = columns.iter().map(|name| gives.contains(name)).collect();
        Row { name: &role.name, marks: Marks { columns: &columns, marks } }
    });
    match format {
        Format::Json => {
            let (catalog, roles) = (&*listing.catalog, roles.collect());
            output::json(&Comparison { catalog, columns: &columns, roles })
        }
        Format::Table => {
            output::line(format!("catalog {}", listing.catalog))?;
            print(&listing.roles, output::width().unwrap_or(LINE_WIDTH))
        }
    }
}

/// Prints tables of at most this width, of as many roles each as fit.
fn print(roles: &[Role], width: usize) -> anyhow::Result<()> {
    let Layout { named, per_table, resource } = Layout::of(roles, width);
    for (at, some) in roles.chunks(per_table).enumerate() {
        let first = at * per_table;
        let mut heads: Vec<_> = some.iter().map(|role| role.name.clone()).collect();
        if !named {
            heads = (first..first + some.len()).map(letters).collect();
            for (letter, role) in heads.iter().zip(some) {
                output::line(format!("{letter}: {}", role.name))?;
            }
        }
        let header = ["resource", "actions"].into_iter().chain(heads.iter().map(String::as_str));
        let mut table = output::table(header);
        table.set_width(u16::try_from(width).unwrap_or(u16::MAX));
        for (kind, actions, marks) in rows(some) {
            let names = [Cell::new(kind), Cell::new(actions.join(" "))];
            table.add_row(names.into_iter().chain(marks.into_iter().map(mark)));
        }
        let unwrapped = u16::try_from(resource + PADDING).unwrap_or(u16::MAX);
        if let Some(names) = table.column_mut(0) {
            names.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(unwrapped)));
        }
        output::line(table)?;
    }
    Ok(())
}

/// How the roles are laid out.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    /// Whether columns have the names of the roles, not letters.
    named: bool,
    /// Roles in one table.
    per_table: usize,
    /// Characters of the resources' names that are not wrapped.
    resource: usize,
}

impl Layout {
    fn of(roles: &[Role], width: usize) -> Self {
        let cell = |characters: usize| characters + PADDING + EDGE;
        let characters = |text: &str| text.chars().count();
        let kinds = roles.iter().flat_map(|role| by_resource(&role.capabilities).into_keys());
        let resource = kinds.map(characters).max().unwrap_or(0);
        let resource = resource.clamp("resource".len(), RESOURCE_WIDTH_MAX);
        let room = width.saturating_sub(EDGE + cell(resource) + cell(ACTIONS_WIDTH_MIN));
        let names: usize = roles.iter().map(|role| cell(characters(&role.name))).sum();
        if names <= room {
            return Self { named: true, per_table: roles.len().max(1), resource };
        }
        let letter = cell(letters(roles.len().saturating_sub(1)).len());
        let tables = roles.len().div_ceil((room / letter).max(1));
        Self { named: false, per_table: roles.len().div_ceil(tables).max(1), resource }
    }
}

/// Resource, actions, and a mark for each role. The actions of one row are given by the same roles. Without what none of
/// these roles gives.
fn rows(roles: &[Role]) -> Vec<(&str, Vec<&str>, Vec<bool>)> {
    let gives: Vec<BTreeSet<&str>> =
        roles.iter().map(|role| role.capabilities.iter().map(String::as_str).collect()).collect();
    let names: BTreeSet<&str> = gives.iter().flatten().copied().collect();
    let mut rows: Vec<(&str, Vec<&str>, Vec<bool>)> = Vec::new();
    let mut row_of: HashMap<(&str, Vec<bool>), usize> = HashMap::new();
    for name in names {
        let (kind, action) = name.rsplit_once('.').unwrap_or((name, ""));
        let marks: Vec<bool> = gives.iter().map(|gives| gives.contains(name)).collect();
        let row = *row_of.entry((kind, marks.clone())).or_insert(rows.len());
        match rows.get_mut(row) {
            Some((_, actions, _)) => actions.push(action),
            None => rows.push((kind, vec![action], marks)),
        }
    }
    rows.sort_by_key(|(kind, ..)| *kind);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, capabilities: &[&str]) -> Role {
        let capabilities = capabilities.iter().map(|name| (*name).to_owned()).collect();
        Role { name: name.into(), description: String::new(), family: String::new(), capabilities }
    }

    #[test]
    fn actions_of_the_same_roles_share_a_row() {
        let roles = [
            role("reader", &["record.read", "record.meta.read"]),
            role("writer", &["gulfstream", "record.read", "record.write", "record.delete"]),
        ];
        let rows = rows(&roles);
        let expected: [(&str, Vec<&str>, Vec<bool>); 4] = [
            ("gulfstream", vec![""], vec![false, true]),
            ("record", vec!["delete", "write"], vec![false, true]),
            ("record", vec!["read"], vec![true, true]),
            ("record.meta", vec!["read"], vec![true, false]),
        ];
        assert_eq!(rows, expected);
    }

    #[test]
    fn tables_are_as_wide_as_they_may_be() {
        let many = |count: usize, name: &str| -> Vec<Role> {
            (0..count).map(|at| role(&format!("{name}{at:02}"), &["record.read"])).collect()
        };
        let layout = |roles: &[Role], width| {
            let Layout { named, per_table, .. } = Layout::of(roles, width);
            (named, per_table)
        };
        // 1 + 11 + 19 characters beside the roles: the names of nine characters need 12 each.
        assert_eq!(layout(&many(4, "acme/rl"), 80), (true, 4));
        assert_eq!(layout(&many(4, "acme/rl"), 78), (false, 4));
        // Letters need 4 characters each: 12 roles fit. 13 roles are two tables, of about the same width.
        assert_eq!(layout(&many(12, "acme/role"), 80), (false, 12));
        assert_eq!(layout(&many(13, "acme/role"), 80), (false, 7));
        // Two letters need 5.
        assert_eq!(layout(&many(27, "acme/role"), 80), (false, 9));
        assert_eq!(layout(&many(3, "acme/role"), 10), (false, 1));
        assert_eq!(layout(&[], 80), (true, 1));
    }
}
