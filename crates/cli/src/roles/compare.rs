//! `capstan roles compare`: what each role is good for, side by side.
//!
//! **Invariant**: a mark is computed from what a role gives by the rules below; no table is stored,
//! so custom roles and catalogs of the user's own are compared by the same rules.

use comfy_table::{Attribute, Cell, CellAlignment, Color, ColumnConstraint, Width};
use serde::{Serialize, Serializer};

use super::super::output::{self, Format};
use super::{Listing, Role};

/// Something that people want a role for.
struct Ability {
    name: &'static str,
    /// Of each of these lists a role needs one capability.
    needs: &'static [&'static [&'static str]],
}

/// In the order and the words of the reference's table.
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

/// Characters of a name that stay on one line; custom roles' names can be long.
const NAME_WIDTH_MAX: usize = 40;
/// A blank on either side.
const PADDING: usize = 2;

impl Ability {
    fn of(&self, role: &Role) -> bool {
        let gives = |name: &&str| role.capabilities.iter().any(|given| given == name);
        self.needs.iter().all(|one_of| one_of.iter().any(gives))
    }

    /// A few alternatives to a line.
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
    /// By column.
    #[serde(serialize_with = "as_mapping")]
    marks: [bool; ABILITIES.len()],
}

pub(super) fn show(listing: &Listing, format: Format) -> anyhow::Result<()> {
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

/// Every rule, for the help.
pub(super) fn rules() -> String {
    ABILITIES.each_ref().map(Ability::rule).join("\n")
}

impl Comparison<'_> {
    fn print(&self) -> anyhow::Result<()> {
        output::line(format!("catalog {}", self.catalog))?;
        let [a, b, c, d, e, f] = self.columns;
        let mut table = output::table(["role", a, b, c, d, e, f]);
        for Row { name, marks } in &self.roles {
            table.add_row(std::iter::once(Cell::new(name)).chain(marks.map(mark)));
        }
        // On a narrow terminal the header is broken, not the names: they are what is looked for.
        let widest = self.roles.iter().map(|role| role.name.chars().count()).max().unwrap_or(0);
        let width = u16::try_from(widest.min(NAME_WIDTH_MAX) + PADDING).unwrap_or(u16::MAX);
        if let Some(names) = table.column_mut(0) {
            names.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
        }
        output::line(table)
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

/// A mapping in the order of the columns.
fn as_mapping<S: Serializer>(
    marks: &[bool; ABILITIES.len()],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(ABILITIES.iter().map(|ability| ability.name).zip(marks))
}
