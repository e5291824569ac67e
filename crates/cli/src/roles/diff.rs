//! `capstan roles diff`: the capabilities that only one of two roles has.

use std::collections::BTreeSet;

use comfy_table::{Cell, Color};
use serde::Serialize;

use crate::answers::RoleList;
use crate::capabilities::by_resource;
use crate::output::{self, Format};

#[derive(Debug, Serialize)]
struct Difference<'l> {
    catalog: &'l str,
    a: &'l str,
    b: &'l str,
    only_a: Vec<String>,
    only_b: Vec<String>,
    both: Vec<String>,
}

pub(super) fn show(listing: &RoleList, a: &str, b: &str, format: Format) -> anyhow::Result<()> {
    let (a, b) = (listing.role(a)?, listing.role(b)?);
    // Sets, because a server of another version may send another order.
    let gives_a: BTreeSet<_> = a.capabilities.iter().collect();
    let gives_b: BTreeSet<_> = b.capabilities.iter().collect();
    let difference = Difference {
        catalog: &listing.catalog,
        a: &a.name,
        b: &b.name,
        only_a: gives_a.difference(&gives_b).copied().cloned().collect(),
        only_b: gives_b.difference(&gives_a).copied().cloned().collect(),
        both: gives_a.intersection(&gives_b).copied().cloned().collect(),
    };
    match format {
        Format::Json => output::json(&difference),
        Format::Table => difference.print(),
    }
}

impl Difference<'_> {
    /// `-` marks capabilities that only A has, `+` those that only B has.
    fn print(&self) -> anyhow::Result<()> {
        let Self { catalog, a, b, only_a, only_b, both } = self;
        output::line(format!("catalog {catalog}"))?;
        if only_a.is_empty() && only_b.is_empty() {
            return output::line(format!("{a} and {b} give the same: {}", count(both)));
        }
        let mut table = output::table(["", "resource", "actions"]);
        for (sign, colour, capabilities) in [('-', Color::Red, only_a), ('+', Color::Green, only_b)]
        {
            for (kind, actions) in by_resource(capabilities) {
                let cells = [sign.to_string(), kind.to_owned(), actions.join(" ")];
                table.add_row(cells.map(|text| Cell::new(text).fg(colour)));
            }
        }
        output::line(table)?;
        output::line(format!("- only {a}: {}", count(only_a)))?;
        output::line(format!("+ only {b}: {}", count(only_b)))?;
        output::line(format!("  both: {}", count(both)))
    }
}

fn count(capabilities: &[String]) -> String {
    match capabilities.len() {
        1 => "1 capability".into(),
        count => format!("{count} capabilities"),
    }
}
