//! Which of the names are offered: those that begin as typed, whole, up to their next slash, or up to where they differ.

use std::collections::BTreeSet;

use crate::limits::COMPLETION_CANDIDATES_MAX;

/// At most [`COMPLETION_CANDIDATES_MAX`] candidates, sorted, such that every name that begins as typed begins with one of
/// them: a shell that inserts what its candidates have in common never leaves a name behind.
pub(super) fn narrow(names: Vec<String>, typed: &str, are_paths: bool) -> Vec<String> {
    let mut found: BTreeSet<String> =
        names.into_iter().filter(|name| name.starts_with(typed)).collect();
    if found.len() > COMPLETION_CANDIDATES_MAX && are_paths {
        found = found.iter().map(|name| up_to_slash(name, typed.len()).to_owned()).collect();
    }
    if found.len() > COMPLETION_CANDIDATES_MAX {
        found = up_to_difference(&found, typed.len());
    }
    found.into_iter().collect()
}

/// The name up to its first slash behind `from`, with the slash.
fn up_to_slash(name: &str, from: usize) -> &str {
    let slash = name.bytes().skip(from).position(|byte| byte == b'/');
    slash.map_or(name, |at| &name[..=from + at])
}

/// The longest beginnings of one length of which there are not too many.
fn up_to_difference(names: &BTreeSet<String>, from: usize) -> BTreeSet<String> {
    let cut = |length: usize| -> BTreeSet<String> {
        names.iter().map(|name| name.chars().take(length).collect()).collect()
    };
    let fits = |cut: &BTreeSet<String>| cut.len() <= COMPLETION_CANDIDATES_MAX;
    let mut best = cut(from);
    for length in from + 1.. {
        let longer = cut(length);
        if !fits(&longer) {
            break;
        }
        best = longer;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(names: impl IntoIterator<Item = String>, typed: &str) -> Vec<String> {
        let names: Vec<String> = names.into_iter().collect();
        let found = narrow(names.clone(), typed, true);
        assert!(found.len() <= COMPLETION_CANDIDATES_MAX, "{}", found.len());
        for name in names.iter().filter(|name| name.starts_with(typed)) {
            assert!(found.iter().any(|one| name.starts_with(one)), "{name} is left behind");
        }
        found
    }

    #[test]
    fn few_names_are_whole_and_begin_as_typed() {
        let names = ["alice", "acme/a/b", "acme/a", "bob", "alice"].map(String::from);
        assert_eq!(offered(names.clone(), "a"), ["acme/a", "acme/a/b", "alice"]);
        assert_eq!(offered(names.clone(), "acme/a"), ["acme/a", "acme/a/b"]);
        assert_eq!(offered(names, "x"), [""; 0]);
    }

    #[test]
    fn many_paths_are_offered_up_to_the_next_slash() {
        let most = COMPLETION_CANDIDATES_MAX;
        let below = |group: &str, count| {
            (0..count).map(|at| format!("{group}/p{at:04}")).collect::<Vec<_>>()
        };
        assert_eq!(offered(below("acme", most), "").len(), most, "as many as fit are whole");
        assert_eq!(offered(below("acme", most + 1), ""), ["acme/"]);
        let many = [below("acme/a", most), below("acme/b", most), vec!["zoe".into()]].concat();
        assert_eq!(offered(many.clone(), ""), ["acme/", "zoe"]);
        assert_eq!(offered(many.clone(), "acme/"), ["acme/a/", "acme/b/"]);
        assert_eq!(offered(many, "acme/a/").len(), most);
    }

    #[test]
    fn many_names_are_offered_up_to_where_they_differ() {
        let names = || (0..1_000).map(|at| format!("user-{at:03}"));
        let tens: Vec<String> = (0..10).map(|at| format!("user-{at}")).collect();
        assert_eq!(offered(names(), ""), tens);
        assert_eq!(offered(names(), "user-1").len(), 10);
        // Every character of a path at once.
        let letters: String =
            ('!'..='~').filter(|c| c.is_ascii_alphanumeric() || "-._~@:+=/".contains(*c)).collect();
        assert_eq!(letters.len(), 71);
        let names = letters.chars().flat_map(|c| [format!("x{c}a"), format!("x{c}b")]);
        let narrowed = narrow(names.chain(["x".into()]).collect(), "x", false);
        assert_eq!(narrowed.len(), 72);
    }
}
