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

    /// Checks rule by rule, byte by byte, to say which rule is broken. The tests compare [`is_path`] with it.
    #[cold]
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
/// looks at single segments only if the text is deep, if a segment may be long, or if a slash has a slash or
/// a dot beside it.
fn is_path(text: &[u8]) -> bool {
    let (Some((last, before)), Some((first, after))) = (text.split_last(), text.split_first())
    else {
        return false;
    };
    if text.len() > PATH_BYTES_MAX {
        return false;
    }
    let seen = Seen::of(before, after);
    if (seen.uncommon | !is_common(*last)) && !has_only_path_bytes(text) {
        return false;
    }
    let at_ends = matches!(first, b'/' | b'.') || *last == b'/';
    let is_plain = !at_ends && !seen.odd && !seen.long && seen.slashes < PATH_SEGMENTS_MAX;
    is_plain || segments_hold(text)
}

/// Whether every segment is valid, in a text of bytes that paths have.
#[inline(never)]
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

/// Bytes of a text that has more than [`SEGMENT_BYTES_MAX`] are read in blocks of this size. If each block
/// has a slash, no segment is longer than two blocks, less two bytes.
const BLOCK: usize = SEGMENT_BYTES_MAX / 2;

/// What was found in a text without its last byte.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// There is a byte that is not common: see [`is_common`].
    uncommon: bool,
    /// There may be a slash before a slash or a dot.
    odd: bool,
    /// There may be a segment of more than [`SEGMENT_BYTES_MAX`] bytes.
    long: bool,
    /// At least the number of slashes: some are counted twice.
    slashes: usize,
}

impl Seen {
    /// Of a text without its last byte, and without its first. Up to [`SEGMENT_BYTES_MAX`] bytes of text
    /// there is one branch, on the size class, and none on the exact length.
    fn of(before: &[u8], after: &[u8]) -> Self {
        match before.len() {
            0 => Self::default(),
            1..=2 => Self::halves::<1>(before, after),
            3..=4 => Self::halves::<2>(before, after),
            5..=8 => Self::halves::<4>(before, after),
            9..=16 => Self::halves::<8>(before, after),
            17..=32 => Self::halves::<16>(before, after),
            33..=64 => Self::halves::<32>(before, after),
            65..SEGMENT_BYTES_MAX => Self::halves::<BLOCK>(before, after),
            _ => Self::blocks(before, after),
        }
    }

    /// The first `HALF` bytes and the last, which meet or overlap. The loop has no branch, so that the
    /// compiler can use vector instructions.
    #[inline(always)]
    fn halves<const HALF: usize>(before: &[u8], after: &[u8]) -> Self {
        let first = before.first_chunk::<HALF>().zip(after.first_chunk::<HALF>());
        let last = before.last_chunk::<HALF>().zip(after.last_chunk::<HALF>());
        let (Some((first, first_next)), Some((last, last_next))) = (first, last) else {
            return Self { uncommon: true, odd: true, ..Self::default() };
        };
        let (mut uncommon, mut odd, mut slashes) = (false, false, 0u8);
        let pairs = first.iter().zip(first_next).zip(last.iter().zip(last_next));
        for ((a, a_next), (b, b_next)) in pairs {
            uncommon |= !is_common(*a) | !is_common(*b);
            odd |= is_odd(*a, *a_next) | is_odd(*b, *b_next);
            let is_slash = |byte: u8| u8::from(byte == b'/');
            // At most 128, so it does not wrap.
            slashes = slashes.wrapping_add(is_slash(*a)).wrapping_add(is_slash(*b));
        }
        Self { uncommon, odd, long: false, slashes: slashes.into() }
    }

    /// Block by block. The last block overlaps the one before it.
    fn blocks(before: &[u8], after: &[u8]) -> Self {
        let pairs = before.as_chunks::<BLOCK>().0.iter().zip(after.as_chunks::<BLOCK>().0);
        let last = before.last_chunk::<BLOCK>().zip(after.last_chunk::<BLOCK>());
        pairs.chain(last).fold(Self::default(), |seen, (bytes, next)| {
            let block = Self::halves::<{ BLOCK / 2 }>(bytes, next);
            Self {
                uncommon: seen.uncommon | block.uncommon,
                odd: seen.odd | block.odd,
                long: seen.long | (block.slashes == 0),
                slashes: seen.slashes + block.slashes,
            }
        })
    }
}

/// Whether a byte is common in paths: `- . / 0-9 :`, `@ A-Z`, `_` or `a-z`. The others are `+`, `=` and `~`, which
/// would cost every path three more comparisons.
const fn is_common(byte: u8) -> bool {
    /// Compares signed numbers: vector instructions of every x86-64 have no comparison of unsigned ones.
    const fn is_within(byte: u8, first: u8, last: u8) -> bool {
        const LEAST: u8 = i8::MIN.cast_unsigned();
        let from_least = byte.wrapping_sub(first).wrapping_add(LEAST).cast_signed();
        from_least <= (last - first).wrapping_add(LEAST).cast_signed()
    }
    is_within(byte, b'-', b':')
        | is_within(byte, b'@', b'Z')
        | is_within(byte, b'a', b'z')
        | (byte == b'_')
}

/// True for a slash before a slash or a dot. Also true for a few other pairs of `/ . - +`, because that is the
/// cheapest comparison: the bits of `.` are among those of `/`.
const fn is_odd(byte: u8, next: u8) -> bool {
    byte | next == b'/'
}

/// Whether every byte is a slash or one that segments have.
#[inline(never)]
fn has_only_path_bytes(text: &[u8]) -> bool {
    text.iter().fold(true, |all, byte| all & is_path_byte(*byte))
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

/// Takes the text over.
impl TryFrom<String> for PathBuf {
    type Error = ParsePathError;

    fn try_from(text: String) -> Result<Self, ParsePathError> {
        Path::parse(&text)?;
        Ok(Self(text.into()))
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

    /// [`is_path`] and the rules agree about a text, and so do result and error of [`Path::parse`].
    fn agree(text: &str) {
        let expected = Path::parse_slowly(text);
        assert_eq!(is_path(text.as_bytes()), expected.is_ok(), "{text:?}");
        assert_eq!(Path::parse(text), expected, "{text:?}");
    }

    /// A text of any length with segments of these lengths, repeated.
    fn text(length: usize, segments: &[usize]) -> Vec<u8> {
        let bytes = segments.iter().cycle().flat_map(|bytes| {
            let slash = std::iter::once(b'/');
            std::iter::repeat_n(b'x', *bytes).chain(slash)
        });
        let mut text: Vec<u8> = bytes.take(length).collect();
        if let Some(last) = text.last_mut() {
            *last = b'y';
        }
        text
    }

    /// Every byte at every position of short texts, and of chunks of every size class.
    #[test]
    fn fast_check_and_rules_agree_about_every_byte() {
        for length in 1..=70 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut text = text(length, &[40, 16]);
                    text[at] = byte;
                    match str::from_utf8(&text) {
                        Ok(text) => agree(text),
                        Err(_) => assert!(!is_path(&text), "{text:?}"),
                    }
                }
            }
        }
        for length in (71..=140).step_by(3).chain([127, 128, 129, 191, 193, 257, 1024, 1025]) {
            for at in 0..length {
                for byte in b"/.~_`[\0" {
                    let mut text = text(length, &[100, 16]);
                    text[at] = *byte;
                    agree(str::from_utf8(&text).unwrap());
                }
                let mut text = text(length, &[100, 16]);
                text[at] |= 0x80;
                assert!(!is_path(&text), "{text:?}");
            }
        }
    }

    /// Neighbouring slashes and dots at every position, also across chunks and at both ends.
    #[test]
    fn fast_check_and_rules_agree_about_slashes_and_dots() {
        let marks = [
            "/", "//", "/.", "./", "/./", "/..", "../", "/../", "/...", "/.a", "a/..b/", ".", "..",
        ];
        for length in (0..=70).chain(120..=135).chain([191, 192, 256, 300]) {
            for mark in marks.iter().filter(|mark| mark.len() <= length) {
                for at in 0..=length - mark.len() {
                    let mut text = text(length, &[128, 7]);
                    text[at..at + mark.len()].copy_from_slice(mark.as_bytes());
                    agree(str::from_utf8(&text).unwrap());
                }
            }
        }
    }

    /// Numbers and lengths of segments around every limit.
    #[test]
    fn fast_check_and_rules_agree_about_limits() {
        for segments in 1..=18 {
            for bytes in [1, 2, 3, 7, 8, 15, 16, 30, 62, 63, 64, 65, 127, 128, 129] {
                let path = vec!["s".repeat(bytes); segments].join("/");
                agree(&path);
                agree(&format!("{path}/"));
                agree(&format!("/{path}"));
                agree(&format!("{path}/x+~="));
            }
        }
        for before in (0..=260).step_by(5) {
            for bytes in 126..=130 {
                let (start, end) = (text(before, &[30, 60]), text(40, &[10, 9]));
                let start = str::from_utf8(&start).unwrap();
                let (long, end) = ("l".repeat(bytes), str::from_utf8(&end).unwrap());
                for path in [
                    format!("{start}/{long}/{end}"),
                    format!("{long}/{start}"),
                    format!("{start}/{long}"),
                ] {
                    agree(&path);
                }
            }
        }
        for length in [1023, 1024, 1025, 1026, 2000] {
            agree(str::from_utf8(&text(length, &[70])).unwrap());
            agree(str::from_utf8(&text(length, &[128, 3])).unwrap());
        }
    }

    /// Texts drawn at random from what paths have and what looks alike.
    #[test]
    fn fast_check_and_rules_agree_about_random_texts() {
        let parts = [
            "a",
            "Z9",
            "0123456789abcdef",
            "/",
            "/",
            "/",
            ".",
            "..",
            "-",
            "+",
            "=",
            "~",
            "_",
            "@",
            ":",
            " ",
            "\u{e9}",
        ];
        let mut state = 1u64;
        let mut draw = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 33) as usize % below
        };
        for _ in 0..20_000 {
            // Some draw only from the first parts, so that many are valid.
            let (count, kinds) = (draw(40), 4 + draw(parts.len() - 3));
            let text: String = (0..count).map(|_| parts[draw(kinds)]).collect();
            agree(&text);
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
