//! `capstan roles compare`: what each role allows, side by side.
//!
//! **Invariant**: each mark is computed from the role's capabilities by the rules below, so that custom roles
//! and catalogs of users are compared by the same rules as built-in ones.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, Width};
use serde::{Serialize, Serializer};

use crate::answers::{Role, RoleList};
use crate::output::{self, Format};

/// A task that needs a role.
struct Ability {
    name: &'static str,
    /// A role needs at least one capability of each of these lists.
    needs: &'static [&'static [&'static str]],
}

/// In the order and with the names of the table in the reference documentation.
const ABILITIES: [Ability; 6] = [
    Ability { name: "Pull Images", needs: &[&["manifest.list"], &["repo.list"], &["tag.list"]] },
    Ability { name: "List Tags/Repos", needs: &[&["tag.list"], &["repo.list"]] },
    Ability { name: "View SBOMs/Diffs", needs: &[&["sboms.list"]] },
    Ability {
        name: "Create IAM Resources",
        needs: &[&[
            "groups.create",
            "group_invites.create",
            "identity.create",
            "identity_providers.create",
            "role_bindings.create",
            "roles.create",
            "account_associations.create",
        ]],
    },
    Ability {
        name: "Create Pull Tokens",
        needs: &[&["identity.create"], &["role_bindings.create"]],
    },
    Ability {
        name: "Libraries Access",
        needs: &[&["libraries.java.list", "libraries.python.list", "libraries.javascript.list"]],
    },
];

/// Characters of a role's name that are not wrapped.
const NAME_WIDTH_MAX: usize = 40;
/// Blanks on both sides of a cell.
const PADDING: usize = 2;
/// A line beside a cell.
const EDGE: usize = 1;
/// The columns on a terminal that is too narrow for their names.
const LETTERS: [&str; ABILITIES.len()] = ["A", "B", "C", "D", "E", "F"];

impl Ability {
    fn of(&self, role: &Role) -> bool {
        let gives = |name: &&str| role.capabilities.iter().any(|given| given == name);
        self.needs.iter().all(|one_of| one_of.iter().any(gives))
    }

    /// The rule as text, at most three alternatives per line.
    fn rule(&self) -> String {
        let lines = |one_of: &&[&str]| {
            let lines = one_of.chunks(3).map(|some| some.join(" or "));
            lines.collect::<Vec<_>>().join(&format!(" or\n{:24}", ""))
        };
        let needs: Vec<_> = self.needs.iter().map(lines).collect();
        format!("  {:22}{}", self.name, needs.join(" and "))
    }
}

#[derive(Debug, Serialize)]
struct Comparison<'l> {
    catalog: &'l str,
    columns: [&'static str; ABILITIES.len()],
    roles: Vec<Row<'l>>,
}

#[derive(Debug, Serialize)]
struct Row<'l> {
    name: &'l str,
    /// In the order of the columns.
    #[serde(serialize_with = "as_mapping")]
    marks: [bool; ABILITIES.len()],
}

pub(super) fn show(listing: &RoleList, format: Format) -> anyhow::Result<()> {
    let roles = listing.roles.iter().map(|role| Row {
        name: &role.name,
        marks: ABILITIES.each_ref().map(|ability| ability.of(role)),
    });
    let comparison = Comparison {
        catalog: &listing.catalog,
        columns: ABILITIES.each_ref().map(|ability| ability.name),
        roles: roles.collect(),
    };
    match format {
        Format::Json => output::json(&comparison),
        Format::Table => comparison.print(),
    }
}

/// All rules, for `--help`.
pub(super) fn rules() -> String {
    ABILITIES.each_ref().map(Ability::rule).join("\n")
}

impl Comparison<'_> {
    fn print(&self) -> anyhow::Result<()> {
        output::line(format!("catalog {}", self.catalog))?;
        let widest = self.roles.iter().map(|role| role.name.chars().count()).max().unwrap_or(0);
        let mut columns = self.columns;
        if output::table([""]).width().is_some_and(|width| usize::from(width) < needed(widest)) {
            // Words in columns of three letters would be hard to read.
            for (letter, column) in LETTERS.iter().zip(columns) {
                output::line(format!("{letter}: {column}"))?;
            }
            columns = LETTERS;
        }
        let [a, b, c, d, e, f] = columns;
        let mut table = output::table(["role", a, b, c, d, e, f]);
        for Row { name, marks } in &self.roles {
            table.add_row(std::iter::once(Cell::new(name)).chain(marks.map(mark)));
        }
        // On a narrow terminal the names are wrapped last.
        let width = u16::try_from(widest.min(NAME_WIDTH_MAX) + PADDING).unwrap_or(u16::MAX);
        if let Some(names) = table.column_mut(0) {
            names.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        }
        output::line(table)
    }
}

/// Characters of a line with the names of all columns, and of roles of up to this length.
fn needed(role: usize) -> usize {
    let columns = ABILITIES.iter().map(|ability| ability.name.len() + PADDING + EDGE);
    EDGE + role.max("role".len()) + PADDING + EDGE + columns.sum::<usize>()
}

fn mark(has: bool) -> Cell {
    let cell = if has {
        Cell::new('✔').fg(Color::Green)
    } else {
        Cell::new('·').add_attribute(Attribute::Dim)
    };
    cell.set_alignment(CellAlignment::Center)
}

/// A JSON object with a member for each column, in their order.
fn as_mapping<S: Serializer>(
    marks: &[bool; ABILITIES.len()],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(ABILITIES.iter().map(|ability| ability.name).zip(marks))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_names_of_all_columns_need_a_wide_terminal() {
        // The table with roles of 39 characters, as printed.
        let names = "│ Pull Images │ List Tags/Repos │ View SBOMs/Diffs │ Create IAM Resources │ Create Pull Tokens \
                     │ Libraries Access │";
        assert_eq!(super::needed(39), 1 + 41 + names.chars().count());
    }
}
