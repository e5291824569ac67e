//! What a change of the whole policy changes, as a table: objects, and who gains or loses what where.

use capstan_proto::iam::v1::{AccessChange, Change, ChangeCounts};

use crate::output;

/// Prints the changes of objects.
///
/// # Errors
///
/// Standard output cannot be written.
pub(crate) fn print_changes(changes: &[Change], counts: ChangeCounts) -> anyhow::Result<()> {
    let ChangeCounts { created, updated, deleted } = counts;
    if created == 0 && updated == 0 && deleted == 0 {
        return output::line("no object changes");
    }
    output::line(format!("{created} created, {updated} updated, {deleted} deleted"))?;
    let mut table = output::table(["", "kind", "id"]);
    for Change { action, kind, id } in changes {
        let sign = match action.as_str() {
            "created" => output::verdict(true, "+ created"),
            "deleted" => output::verdict(false, "- deleted"),
            other => format!("~ {other}"),
        };
        table.add_row([&sign, &kind.replace('_', " "), id]);
    }
    output::line(table)?;
    let all = created.saturating_add(updated).saturating_add(deleted);
    match usize::try_from(all)?.saturating_sub(changes.len()) {
        0 => Ok(()),
        left => output::line(format!("and {left} more")),
    }
}

/// Prints who gains or loses what where.
///
/// # Errors
///
/// As of [`print_changes`].
pub(crate) fn print_access(changes: &[AccessChange], truncated: bool) -> anyhow::Result<()> {
    if changes.is_empty() {
        return output::line("nobody gains or loses anything");
    }
    let mut table = output::table(["identity", "scope", "gains", "loses"]);
    for AccessChange { identity, scope, gained, lost } in changes {
        let [gained, lost] = [gained, lost].map(|names| names.join("\n"));
        table.add_row([identity, scope, &gained, &lost]);
    }
    output::line(table)?;
    if truncated {
        output::line("and more: the server's answer was cut")?;
    }
    Ok(())
}
