//! Paths: the names of groups, roles, identities, resources and bindings.
//!
//! **Invariant**: a [`Path`] holds text that satisfies section 2 of the contract, so ancestry is a
//! prefix test at a `/` and nothing past the edge handles a raw string.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// Most bytes in a path.
pub const PATH_BYTES_MAX: usize = 1024;
/// Most segments in a path.
pub const PATH_SEGMENTS_MAX: usize = 16;
/// Most bytes, all of them ASCII, in one segment.
pub const SEGMENT_BYTES_MAX: usize = 128;

/// A borrowed path: 1 to 16 segments joined by `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path<'a>(&'a str);

/// An owned path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathBuf(Box<str>);

/// Why a text is not a path. Segments are numbered from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ParsePathError {
    /// No text at all.
    #[error("the path is empty")]
    Empty,
    /// More than [`PATH_BYTES_MAX`] bytes.
    #[error("the path has {bytes} bytes, more than {PATH_BYTES_MAX}")]
    TooLong {
        /// Bytes in the text.
        bytes: usize,
    },
    /// More than [`PATH_SEGMENTS_MAX`] segments.
    #[error("the path has more than {PATH_SEGMENTS_MAX} segments")]
    TooDeep,
    /// A leading, trailing or double slash.
    #[error("segment {segment} is empty: no leading, trailing or double slash")]
    EmptySegment {
        /// Which segment.
        segment: usize,
    },
    /// More than [`SEGMENT_BYTES_MAX`] bytes in one segment.
    #[error("segment {segment} has {bytes} bytes, more than {SEGMENT_BYTES_MAX}")]
    LongSegment {
        /// Which segment.
        segment: usize,
        /// Bytes in it.
        bytes: usize,
    },
    /// A segment that is `.` or `..`.
    #[error("segment {segment} is `.` or `..`")]
    DotSegment {
        /// Which segment.
        segment: usize,
    },
    /// A character that paths do not have.
    #[error("character {found:?} in segment {segment}: only A-Z a-z 0-9 - . _ ~ @ : + =")]
    Character {
        /// Which segment.
        segment: usize,
        /// The first such character.
        found: char,
    },
}

const fn allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'@' | b':' | b'+' | b'=')
}

// === impl Path ===

impl<'a> Path<'a> {
    /// Parses a path, byte for byte: nothing is decoded, folded or normalized.
    ///
    /// # Errors
    ///
    /// The first rule of section 2 of the contract that the text breaks.
    pub fn parse(text: &'a str) -> Result<Self, ParsePathError> {
        if is_path(text.as_bytes()) { Ok(Self(text)) } else { Self::parse_slowly(text) }
    }

    /// Checks rule by rule, to say which one is broken.
    fn parse_slowly(text: &'a str) -> Result<Self, ParsePathError> {
        if text.is_empty() {
            return Err(ParsePathError::Empty);
        }
        if text.len() > PATH_BYTES_MAX {
            return Err(ParsePathError::TooLong { bytes: text.len() });
        }
        let mut segment = 0;
        for part in text.split('/') {
            segment += 1;
            if segment > PATH_SEGMENTS_MAX {
                return Err(ParsePathError::TooDeep);
            }
            parse_segment(part, segment)?;
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The path without its last segment; `None` for a root.
    #[must_use]
    pub fn parent(self) -> Option<Self> {
        self.0.rfind('/').and_then(|at| self.0.get(..at)).map(Self)
    }

    /// The path itself, then its parent, up to the root: at most 16.
    pub fn ancestors(self) -> impl Iterator<Item = Self> {
        std::iter::successors(Some(self), |path| path.parent())
    }

    /// Whether this is an ancestor of `other`, or `other` itself: by whole segments, so `a/b`
    /// contains `a/b/c` and not `a/bc`.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        contains(self.0, other.0)
    }
}

/// [`Path::contains`] for texts that are paths.
pub(crate) fn contains(ancestor: &str, path: &str) -> bool {
    path.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Whether the text is a path. Fast, because every question names two: compares 16 bytes at a time, and
/// looks at single segments only if the text is long or deep, or has a slash before a dot.
fn is_path(text: &[u8]) -> bool {
    let (Some((last, before)), Some((first, after))) = (text.split_last(), text.split_first())
    else {
        return false;
    };
    if text.len() > PATH_BYTES_MAX || !is_path_byte(*last) {
        return false;
    }
    let seen = Seen::of(before, after);
    if seen.bad != [false; PAIRS] {
        return false;
    }
    let at_ends = matches!(first, b'/' | b'.') || *last == b'/';
    let is_plain = !at_ends && seen.odd == [false; PAIRS] && text.len() <= SEGMENT_BYTES_MAX;
    let slashes: u32 = seen.slashes.iter().copied().map(u32::from).sum();
    (is_plain && (slashes as usize) < PATH_SEGMENTS_MAX) || segments_hold(text)
}

/// Whether every segment is valid, in a text of bytes that paths have.
fn segments_hold(text: &[u8]) -> bool {
    let (words, rest) = text.as_chunks::<8>();
    let mut segments = Segments { start: 0, ended: 0, sound: true };
    for (at, word) in words.iter().enumerate() {
        segments.end_at_slashes(slashes_of(u64::from_le_bytes(*word)), at << 3, text);
    }
    segments.end_at_slashes(slashes_of(word_of(rest)), words.len() << 3, text);
    segments.end(text.len(), text);
    segments.sound && segments.ended <= PATH_SEGMENTS_MAX
}

/// Pairs of neighbouring bytes that are compared at a time.
const PAIRS: usize = 16;

/// What was found in a text, by lane, so that the compiler can use vector instructions.
struct Seen {
    /// A byte that no path has. The last byte of the text is not looked at.
    bad: [bool; PAIRS],
    /// A slash before a slash or a dot.
    odd: [bool; PAIRS],
    /// The number of slashes: some are counted twice, and a last one is not.
    slashes: [u8; PAIRS],
}

impl Seen {
    /// Of a text without its last byte, and without its first.
    fn of(before: &[u8], after: &[u8]) -> Self {
        let mut seen = Self { bad: [false; _], odd: [false; _], slashes: [0; _] };
        let pairs = before.as_chunks().0.iter().zip(after.as_chunks().0);
        pairs.for_each(|(bytes, next)| seen.look(bytes, next));
        match (before.last_chunk(), after.last_chunk()) {
            _ if before.len().is_multiple_of(PAIRS) => {}
            // Overlaps the chunk before.
            (Some(bytes), Some(next)) => seen.look(bytes, next),
            _ => seen.look(&padded(before), &padded(after)),
        }
        seen
    }

    fn look(&mut self, bytes: &[u8; PAIRS], next: &[u8; PAIRS]) {
        let lanes = self.bad.iter_mut().zip(&mut self.odd).zip(&mut self.slashes);
        for (((bad, odd), slashes), (byte, next)) in lanes.zip(bytes.iter().zip(next)) {
            let slash = *byte == b'/';
            *bad |= !is_path_byte(*byte);
            *odd |= slash & ((*next == b'/') | (*next == b'.'));
            // At most 65 chunks, so it does not wrap.
            *slashes = slashes.wrapping_add(u8::from(slash));
        }
    }
}

/// Fewer than 16 bytes, padded with a byte that is always valid.
fn padded(bytes: &[u8]) -> [u8; PAIRS] {
    let mut padded = [b'a'; PAIRS];
    padded.iter_mut().zip(bytes).for_each(|(padded, byte)| *padded = *byte);
    padded
}

/// Checks the segments of a text one after another.
struct Segments {
    start: usize,
    ended: usize,
    sound: bool,
}

impl Segments {
    /// Ends a segment at each slash of a word that starts at the byte `at`.
    fn end_at_slashes(&mut self, mut slashes: u64, at: usize, text: &[u8]) {
        while slashes != 0 {
            self.end(at + (slashes.trailing_zeros() >> 3) as usize, text);
            slashes &= slashes - 1;
        }
    }

    fn end(&mut self, end: usize, text: &[u8]) {
        let length = end - self.start;
        self.sound &= length.wrapping_sub(1) < SEGMENT_BYTES_MAX;
        if length <= 2 && matches!(text.get(self.start..end), Some([b'.'] | [b'.', b'.'])) {
            self.sound = false;
        }
        self.start = end + 1;
        self.ended += 1;
    }
}

/// A slash or a byte that segments have. Without a branch, so that the compiler can use vector instructions.
const fn is_path_byte(byte: u8) -> bool {
    // `- . / 0-9 :`, `@ A-Z`, `a-z`.
    (byte.wrapping_sub(b'-') <= b':' - b'-')
        | (byte.wrapping_sub(b'@') <= b'Z' - b'@')
        | (byte.wrapping_sub(b'a') <= b'z' - b'a')
        | (byte == b'+')
        | (byte == b'=')
        | (byte == b'_')
        | (byte == b'~')
}

/// The high bit of each byte of a word that is a slash, if all its bytes are ASCII.
pub(crate) const fn slashes_of(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    const SLASHES: u64 = 0x2f2f_2f2f_2f2f_2f2f;
    !(word ^ SLASHES).wrapping_add(LOW) & !LOW
}

/// Up to seven bytes as a word, the rest of it zero.
pub(crate) fn word_of(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}

fn parse_segment(part: &str, segment: usize) -> Result<(), ParsePathError> {
    if part.is_empty() {
        return Err(ParsePathError::EmptySegment { segment });
    }
    if !part.bytes().all(allowed) {
        let found = part.chars().find(|c| !u8::try_from(*c).is_ok_and(allowed));
        return Err(ParsePathError::Character { segment, found: found.unwrap_or_default() });
    }
    if part.len() > SEGMENT_BYTES_MAX {
        return Err(ParsePathError::LongSegment { segment, bytes: part.len() });
    }
    if part == "." || part == ".." {
        return Err(ParsePathError::DotSegment { segment });
    }
    Ok(())
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

// === impl PathBuf ===

impl PathBuf {
    /// The path, borrowed.
    #[must_use]
    pub const fn as_path(&self) -> Path<'_> {
        Path(&self.0)
    }

    /// The text.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Path<'_>> for PathBuf {
    fn from(path: Path<'_>) -> Self {
        Self(path.0.into())
    }
}

impl FromStr for PathBuf {
    type Err = ParsePathError;

    fn from_str(text: &str) -> Result<Self, ParsePathError> {
        Path::parse(text).map(Self::from)
    }
}

impl fmt::Display for PathBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuses(text: &str, error: ParsePathError) {
        assert_eq!(Path::parse(text), Err(error), "{text:?}");
    }

    /// The fast check and the rules agree, whatever the position in a chunk.
    #[test]
    fn fast_check_and_rules_agree() {
        let starts = (0..40).map(|length| "x".repeat(length));
        let long =
            [100, 117, 125, 140].map(|length| "ab/cd.e/fghijk~/l/".repeat(8)[..length].to_owned());
        for start in starts.chain(long) {
            for byte in 0..=255u8 {
                let text: String = start.chars().chain([char::from(byte), 'y']).collect();
                assert_eq!(is_path(text.as_bytes()), Path::parse_slowly(&text).is_ok(), "{text:?}");
            }
            for end in ["/", "//a", "/.", "/..", "/...", "/a/./b", "/.a", "/a/..", "/b/c/d/e/f/g"] {
                let text = format!("{start}{end}");
                assert_eq!(is_path(text.as_bytes()), Path::parse_slowly(&text).is_ok(), "{text:?}");
            }
        }
        for (segments, bytes) in [(16, 1), (17, 1), (1, 128), (1, 129), (8, 127), (8, 128)] {
            let text = vec!["s".repeat(bytes); segments].join("/");
            assert_eq!(is_path(text.as_bytes()), Path::parse_slowly(&text).is_ok(), "{text:?}");
        }
    }

    #[test]
    fn accepts_what_the_contract_names() {
        let deep = vec!["s"; 16].join("/");
        let long = "x".repeat(128);
        let full = vec!["y".repeat(63); 16].join("/");
        assert_eq!(full.len(), 1023);
        for text in
            ["a", "acme/ci", "A-Z.a_z~0@9:+=", "...", ".a", "a..", &deep, &long, &full, "-", "~"]
        {
            assert_eq!(Path::parse(text).map(Path::as_str), Ok(text));
        }
        let exact = format!("{}/{}", vec!["y".repeat(127); 7].join("/"), "z".repeat(128));
        assert_eq!(exact.len(), 1024);
        assert!(Path::parse(&exact).is_ok());
    }

    #[test]
    fn refuses_everything_else() {
        refuses("", ParsePathError::Empty);
        refuses("/", ParsePathError::EmptySegment { segment: 1 });
        refuses("/a", ParsePathError::EmptySegment { segment: 1 });
        refuses("a/", ParsePathError::EmptySegment { segment: 2 });
        refuses("a//b", ParsePathError::EmptySegment { segment: 2 });
        refuses(".", ParsePathError::DotSegment { segment: 1 });
        refuses("a/../b", ParsePathError::DotSegment { segment: 2 });
        refuses("a/b/.", ParsePathError::DotSegment { segment: 3 });
        refuses(&vec!["s"; 17].join("/"), ParsePathError::TooDeep);
        refuses(&"x".repeat(129), ParsePathError::LongSegment { segment: 1, bytes: 129 });
        refuses(&"x".repeat(1025), ParsePathError::TooLong { bytes: 1025 });
        refuses(&"/".repeat(10_000), ParsePathError::TooLong { bytes: 10_000 });
        for bad in ['\n', '\0', ' ', '%', '*', '\\', '\u{e9}', '\u{202e}', ',', '?', '#', '\t'] {
            let text = format!("a/b{bad}");
            refuses(&text, ParsePathError::Character { segment: 2, found: bad });
        }
    }

    #[test]
    fn ancestry_is_by_whole_segments() {
        let path = |text| Path::parse(text).unwrap();
        assert!(path("a/b").contains(path("a/b")));
        assert!(path("a/b").contains(path("a/b/c")));
        assert!(path("a").contains(path("a/b/c")));
        assert!(!path("a/b").contains(path("a/bc")));
        assert!(!path("a/b").contains(path("a")));
        assert!(!path("org1").contains(path("org10")));
        assert!(!path("org10").contains(path("org1")));
        let ancestors: Vec<_> = path("a/b/c").ancestors().map(Path::as_str).collect();
        assert_eq!(ancestors, ["a/b/c", "a/b", "a"]);
        assert_eq!(path("a").parent(), None);
    }
}
