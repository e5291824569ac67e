//! Paths by section 2 of the contract: texts that are split at slashes.

/// Section 2: whether the text is a path.
#[must_use]
pub fn is_path(text: &str) -> bool {
    const PUNCTUATION: &str = "-._~@:+=";
    let is_segment = |segment: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || PUNCTUATION.contains(c);
        (1..=128).contains(&segment.chars().count())
            && segment.chars().all(good)
            && segment != "."
            && segment != ".."
    };
    text.len() <= 1024 && text.split('/').count() <= 16 && text.split('/').all(is_segment)
}

/// Section 2: whether the first path is the second or an ancestor of it, segment by segment.
#[must_use]
pub fn is_at_or_above(above: &str, path: &str) -> bool {
    let mut segments = path.split('/');
    above.split('/').all(|segment| segments.next() == Some(segment))
}
