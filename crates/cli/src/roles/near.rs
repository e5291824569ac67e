//! Which names somebody may have meant who typed one that there is not.

/// Most names that are shown.
const SHOWN_MAX: usize = 12;

/// The second half of an error's sentence: the names that are like this one, or all if few.
pub(super) fn hint<'n>(typed: &str, known: impl Iterator<Item = &'n str> + Clone) -> String {
    let mut near: Vec<_> =
        known.clone().filter_map(|name| Some((distance(typed, name)?, name))).collect();
    near.sort();
    let near: Vec<_> = near.iter().take(3).map(|(_, name)| format!("`{name}`")).collect();
    let count = known.clone().count();
    match near.as_slice() {
        [] if count <= SHOWN_MAX => format!("there are {}", known.collect::<Vec<_>>().join(", ")),
        [] => format!("`capstan roles list` shows all {count}"),
        near => format!("did you mean {}?", near.join(" or ")),
    }
}

/// How far a name is from what was typed; nothing if nobody could have meant it.
fn distance(typed: &str, name: &str) -> Option<usize> {
    let (left, right): (Vec<_>, Vec<_>) = (typed.chars().collect(), name.chars().collect());
    let far = left.len().min(right.len()) / 3 + 1;
    // What was typed may be a part: `pull_token_creator`, or `pull` for `registry.pull`.
    if left.len() > 2 && name.contains(typed) {
        return Some(far + right.len() - left.len());
    }
    // Before the work: names can be long, and what was typed longer.
    if left.len().abs_diff(right.len()) > far {
        return None;
    }
    let found = edits(&left, &right);
    (found <= far).then_some(found)
}

/// Letters to insert, remove or replace to make one word of the other.
fn edits(left: &[char], right: &[char]) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (at, from) in left.iter().enumerate() {
        let (mut corner, mut last) = (at, at + 1);
        let mut next = vec![last];
        for (to, above) in right.iter().zip(row.iter().skip(1)) {
            let replaced = corner + usize::from(from != to);
            last = replaced.min(above + 1).min(last + 1);
            next.push(last);
            corner = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        let count = |left: &str, right: &str| {
            let letters = |word: &str| word.chars().collect::<Vec<_>>();
            assert_eq!(
                edits(&letters(left), &letters(right)),
                edits(&letters(right), &letters(left))
            );
            edits(&letters(left), &letters(right))
        };
        assert_eq!(count("", ""), 0);
        assert_eq!(count("", "abc"), 3);
        assert_eq!(count("editor", "editor"), 0);
        assert_eq!(count("edtor", "editor"), 1);
        assert_eq!(count("kitten", "sitting"), 3);
        assert_eq!(count("ab", "ba"), 2);
    }

    #[test]
    fn what_may_have_been_meant_comes_first() {
        let names = ["owner", "editor", "viewer", "registry.pull", "apk.pull"];
        let hint = |typed| hint(typed, names.into_iter());
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
