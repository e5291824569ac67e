//! Suggestions for a role name that does not exist.

use capstan_engine::similar;

/// Maximum number of names that are listed.
const LISTED_MAX: usize = 12;

/// The second half of an error message: similar names; without any, all names if they are few.
pub(super) fn hint<'n>(typed: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    let similar: Vec<_> =
        similar(typed, known.clone()).iter().map(|name| format!("`{name}`")).collect();
    let count = known.clone().count();
    match similar.as_slice() {
        [] if count <= LISTED_MAX => format!("there are {}", known.collect::<Vec<_>>().join(", ")),
        [] => format!("`capstan roles list` shows all {count}"),
        similar => format!("did you mean {}?", similar.join(" or ")),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_most_similar_name_comes_first() {
        let names = ["owner", "editor", "viewer", "registry.pull", "apk.pull"];
        let hint = |typed| super::hint(typed, names.into_iter());
        assert_eq!(hint("edtor"), "did you mean `editor`?");
        assert_eq!(hint("Viewer"), "did you mean `viewer`?");
        assert_eq!(hint("pull"), "did you mean `apk.pull` or `registry.pull`?");
        assert_eq!(hint("admin"), "there are owner, editor, viewer, registry.pull, apk.pull");
        assert_eq!(hint(""), "there are owner, editor, viewer, registry.pull, apk.pull");
        assert_eq!(hint(&"x".repeat(100_000)), hint("admin"));
        let many: Vec<_> = (0..100).map(|number| format!("role{number:03}")).collect();
        let many = || many.iter().map(String::as_str);
        assert_eq!(super::hint("zzz", many()), "`capstan roles list` shows all 100");
        assert_eq!(
            super::hint("role", many()),
            "did you mean `role000` or `role001` or `role002`?"
        );
    }
}
