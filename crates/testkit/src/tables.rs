//! The reference's table of built-in roles, typed in independently of the built-in catalog.

const TABLE_2025: &str = include_str!("../tables/chainguard-2025-08-14.tsv");

/// Every capability of `chainguard-2025-08-14`, with every built-in role and whether it has the capability.
/// A cell other than `x` and `.` is omitted, so that the length of the row reveals the mistake.
#[must_use]
pub fn table_2025() -> Vec<(String, Vec<(String, bool)>)> {
    let mut lines = TABLE_2025.lines().map(|line| line.split('\t'));
    let roles: Vec<_> = lines.next().into_iter().flatten().skip(1).collect();
    let row = |mut cells: std::str::Split<'_, char>| {
        let capability = cells.next().unwrap_or_default().to_owned();
        let cells = roles.iter().zip(cells).filter_map(|(role, cell)| match cell {
            "x" => Some(((*role).to_owned(), true)),
            "." => Some(((*role).to_owned(), false)),
            _ => None,
        });
        (capability, cells.collect())
    };
    lines.map(row).collect()
}
