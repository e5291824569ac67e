//! Worlds to measure, the same for the same sizes.

use std::fmt::Write as _;

/// A policy document: groups five deep, identities bound to built-in roles three times each.
///
/// Shapes follow workload W of the project's figures: 10 identities and 30 bindings a group.
#[must_use]
pub fn document(groups: usize) -> String {
    let group = |at: usize| {
        let mut path = String::from("organization-of-some-length");
        for level in [1_000, 100, 10, 1] {
            let _ = write!(path, "/folder-{:06}", at / level);
        }
        path
    };
    let mut text = String::from("version: 1\ncatalog: chainguard-2025-08-14\ngroups:\n");
    let mut declared = std::collections::BTreeSet::new();
    for at in 0..groups {
        let path = group(at);
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        declared.extend(ends.filter_map(|end| path.get(..end)).map(str::to_owned));
    }
    for path in &declared {
        let _ = writeln!(text, "  - {{id: {path}}}");
    }
    text.push_str("identities:\n");
    for at in 0..groups * 10 {
        let _ = writeln!(text, "  - {{id: {}}}", identity(&group(at / 10), at));
    }
    text.push_str("role_bindings:\n");
    for at in 0..groups * 10 {
        let id = identity(&group(at / 10), at);
        for (role, other) in [("viewer", 0), ("registry.pull", 7), ("apk.pull", 13)] {
            let scope = group((at / 10 + other) % groups);
            let _ = writeln!(text, "  - {{identity: {id}, role: {role}, scope: {scope}}}");
        }
    }
    text
}

/// The path of an identity of [`document`].
#[must_use]
pub fn identity(group: &str, at: usize) -> String {
    format!("{group}/identity-{at:08}")
}
