//! `capstan roles compare`: what each role allows, side by side.
//!
//! **Invariant**: each mark is computed from the role's capabilities, so that custom roles and catalogs of users are
//! compared by the same rules as built-in ones.

mod by_capability;

use capstan_policy::Catalogs;
use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, Width};
use serde::{Serialize, Serializer};

use crate::answers::{Role, RoleList};
use crate::output::{self, Format};

/// What roles are compared by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum By {
    /// The tasks of the reference documentation of the built-in catalogs
    Tasks,
    /// Every capability that one of the roles gives
    Capabilities,
}

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
    columns: &'l [&'l str],
    roles: Vec<Row<'l>>,
}

#[derive(Debug, Serialize)]
struct Row<'l> {
    name: &'l str,
    marks: Marks<'l>,
}

/// A mark for each column, in their order.
#[derive(Debug)]
struct Marks<'l> {
    columns: &'l [&'l str],
    marks: Vec<bool>,
}

impl Serialize for Marks<'_> {
    /// A JSON object with a member for each column, in their order.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.columns.iter().zip(&self.marks))
    }
}

/// Compares all roles of the list, by default by tasks if the catalog is a built-in one, otherwise by capabilities.
pub(super) fn show(listing: &RoleList, by: Option<By>, format: Format) -> anyhow::Result<()> {
    let is_built_in = Catalogs::default().get(&listing.catalog).is_some();
    match by.unwrap_or(if is_built_in { By::Tasks } else { By::Capabilities }) {
        By::Tasks => by_tasks(listing, format),
        By::Capabilities => by_capability::show(listing, format),
    }
}

fn by_tasks(listing: &RoleList, format: Format) -> anyhow::Result<()> {
    let columns = ABILITIES.each_ref().map(|ability| ability.name);
    let roles = listing.roles.iter().map(|role| {
        let marks = ABILITIES.iter().map(|ability| ability.of(role)).collect();
        Row { name: &role.name, marks: Marks { columns: &columns, marks } }
    });
    let comparison =
        Comparison { catalog: &listing.catalog, columns: &columns, roles: roles.collect() };
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
        let mut columns: Vec<_> = self.columns.iter().map(|name| (*name).to_owned()).collect();
        if output::width().is_some_and(|width| width < needed(widest)) {
            // Words in columns of three letters would be hard to read.
            columns = (0..columns.len()).map(letters).collect();
            for (letter, column) in columns.iter().zip(self.columns) {
                output::line(format!("{letter}: {column}"))?;
            }
        }
        let header = std::iter::once("role").chain(columns.iter().map(String::as_str));
        let mut table = output::table(header);
        for Row { name, marks } in &self.roles {
            let marks = marks.marks.iter().copied().map(mark);
            table.add_row(std::iter::once(Cell::new(name)).chain(marks));
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

/// The letters that stand for a column: A to Z, then AA, AB and so on.
fn letters(column: usize) -> String {
    let last = ('A'..='Z').nth(column % 26).unwrap_or('A');
    match column / 26 {
        0 => last.to_string(),
        rest => format!("{}{last}", letters(rest - 1)),
    }
}

fn mark(has: bool) -> Cell {
    let cell = if has {
        Cell::new('✔').fg(Color::Green)
    } else {
        Cell::new('·').add_attribute(Attribute::Dim)
    };
    cell.set_alignment(CellAlignment::Center)
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

    #[test]
    fn letters_go_on_behind_z() {
        assert_eq!(
            [0, 5, 25, 26, 27, 51, 52, 701, 702].map(super::letters),
            ["A", "F", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"]
        );
    }
}
