//! Suggestions for a role name that does not exist.

use strsim::levenshtein;

/// Maximum number of names that are listed.
const LISTED_MAX: usize = 12;
/// Maximum number of suggestions.
const SUGGESTIONS_MAX: usize = 3;

/// The second half of an error message: similar names; without any, all names if they are few.
pub(super) fn hint<'n>(typed: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    let mut similar: Vec<_> =
        known.clone().filter_map(|name| Some((distance(typed, name)?, name))).collect();
    similar.sort();
    let similar: Vec<_> =
        similar.iter().take(SUGGESTIONS_MAX).map(|(_, name)| format!("`{name}`")).collect();
    let count = known.clone().count();
    match similar.as_slice() {
        [] if count <= LISTED_MAX => format!("there are {}", known.collect::<Vec<_>>().join(", ")),
        [] => format!("`capstan roles list` shows all {count}"),
        similar => format!("did you mean {}?", similar.join(" or ")),
    }
}

/// The edit distance of a name from what was typed; `None` if the name is not similar.
fn distance(typed: &str, name: &str) -> Option<usize> {
    let (typed_chars, name_chars) = (typed.chars().count(), name.chars().count());
    let max = typed_chars.min(name_chars) / 3 + 1;
    // A part of the name: `pull` for `registry.pull`. Names that are similar as a whole come first.
    if typed_chars > 2 && name.contains(typed) {
        return Some(max + name_chars - typed_chars);
    }
    // The distance is at least the difference in length. What was typed may be very long.
    if typed_chars.abs_diff(name_chars) > max {
        return None;
    }
    let found = levenshtein(typed, name);
    (found <= max).then_some(found)
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
