//! Names that are similar to one that does not exist: "did you mean". The work is bounded, whatever was typed.

/// Most names that are suggested.
pub const SIMILAR_MAX: usize = 3;
/// Most mistakes of a document that get suggestions. Each may take two milliseconds.
pub const SUGGESTIONS_MAX: usize = 20;

/// Pairs of bytes that are compared for one typed name, about two milliseconds of work. Names beyond it are not looked
/// at: a caller may ask for a name of a thousand bytes among thousands of the same length.
const WORK_MAX: usize = 1 << 20;

/// The names that are most similar to what was typed, at most [`SIMILAR_MAX`], the most similar first.
#[must_use]
pub fn similar<'n>(typed: &str, known: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut found: Vec<(usize, &str)> = Vec::new();
    let mut work = 0;
    for name in known {
        if work > WORK_MAX {
            break;
        }
        work += (typed.len() + 1) * (name.len() + 1);
        let Some(distance) = distance(typed, name) else { continue };
        found.push((distance, name));
        if found.len() > SIMILAR_MAX {
            found.sort_unstable();
            found.dedup();
            found.truncate(SIMILAR_MAX);
        }
    }
    found.sort_unstable();
    found.dedup();
    found.into_iter().map(|(_, name)| name).collect()
}

/// `; did you mean ...?` behind an error message; empty if no name is similar. A text with control characters is no
/// name, although a document may declare it, and is not suggested.
#[must_use]
pub fn did_you_mean<'n>(typed: &str, known: impl Iterator<Item = &'n str>) -> String {
    let known = known.filter(|name| !name.contains(char::is_control));
    match similar(typed, known).as_slice() {
        [] => String::new(),
        names => {
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            format!("; did you mean {}?", names.join(" or "))
        }
    }
}

/// The edit distance of a name from what was typed; `None` if the name is not similar.
fn distance(typed: &str, name: &str) -> Option<usize> {
    // Bytes first: counting characters of every known name would take longer than comparing a few.
    if typed.len().abs_diff(name.len()) > 512 || typed == name {
        return None;
    }
    let (typed_chars, name_chars) = (typed.chars().count(), name.chars().count());
    if typed.eq_ignore_ascii_case(name) {
        return Some(0);
    }
    let max = typed_chars.min(name_chars) / 3 + 1;
    // A part of the name: `pull` for `registry.pull`. Names that are similar as a whole come first, and so does a name
    // of which only a few letters are missing: `repo.delet`.
    if typed_chars > 2 && name.contains(typed) {
        let missing = name_chars - typed_chars;
        return Some(if missing <= max { missing } else { max + missing });
    }
    // The distance is at least the difference in length.
    if typed_chars.abs_diff(name_chars) > max {
        return None;
    }
    let found = edits(typed, name, max)?;
    (found <= max && found < name_chars).then_some(found)
}

/// The Levenshtein distance; `None` as soon as it is certainly more than `max`.
fn edits(typed: &str, name: &str, max: usize) -> Option<usize> {
    let name: Vec<char> = name.chars().collect();
    let mut row: Vec<usize> = (0..=name.len()).collect();
    for (at, typed) in typed.chars().enumerate() {
        let mut diagonal = at;
        let mut left = at + 1;
        let mut least = left;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (cell, name) in row.iter_mut().skip(1).zip(&name) {
            let substituted = diagonal + usize::from(typed != *name);
            diagonal = *cell;
            left = substituted.min(left + 1).min(*cell + 1);
            *cell = left;
            least = least.min(left);
        }
        if least > max {
            return None;
        }
    }
    row.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However many names there are, and however long they are.
    #[test]
    fn the_work_is_bounded() {
        let names: Vec<String> = (0..5_000).map(|at| format!("{at:01000}")).collect();
        let mut compared = 0;
        let found = similar(
            &"1".repeat(1_000),
            names.iter().map(|name| {
                compared += 1;
                &**name
            }),
        );
        assert!(found.is_empty());
        assert!(compared <= WORK_MAX / 1_000_000 + 2, "{compared} names are compared");
    }

    #[test]
    fn the_most_similar_names_come_first() {
        let names = ["owner", "editor", "viewer", "registry.pull", "apk.pull"];
        let similar = |typed| super::similar(typed, names.into_iter());
        assert_eq!(similar("edtor"), ["editor"]);
        assert_eq!(similar("Viewer"), ["viewer"]);
        assert_eq!(similar("OWNER"), ["owner"], "only the case differs");
        assert_eq!(similar("pull"), ["apk.pull", "registry.pull"]);
        let actions = ["apk.delete", "repo.list", "repo.create", "repo.delete"];
        assert_eq!(super::similar("repo.delet", actions.into_iter())[0], "repo.delete");
        assert_eq!(super::similar("epo.delete", actions.into_iter())[0], "repo.delete");
        assert!(similar("admin").is_empty());
        assert!(similar("").is_empty());
        assert!(similar("owner").is_empty(), "the name itself is no suggestion");
        assert!(similar(&"x".repeat(100_000)).is_empty());
        let many: Vec<_> = (0..100).map(|number| format!("role{number:03}")).collect();
        let found = super::similar("role", many.iter().map(String::as_str));
        assert_eq!((found.len(), &*found), (SIMILAR_MAX, &["role000", "role001", "role002"][..]));
        assert_eq!(did_you_mean("edtor", names.into_iter()), "; did you mean `editor`?");
        assert_eq!(did_you_mean("x", names.into_iter()), "");
        let declared = ["record.re\u{85}ad", "record.reed"];
        let expected = "; did you mean `record.reed`?";
        assert_eq!(did_you_mean("record.read", declared.into_iter()), expected);
    }

    #[test]
    fn edits_are_counted() {
        assert_eq!(edits("kitten", "sitting", 9), Some(3));
        assert_eq!(edits("", "abc", 9), Some(3));
        assert_eq!(edits("abc", "", 9), Some(3));
        assert_eq!(edits("äö", "äü", 9), Some(1));
        assert_eq!(edits("aaaaaaaa", "bbbbbbbb", 2), None);
    }
}
