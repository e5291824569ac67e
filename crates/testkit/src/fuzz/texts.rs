//! Parsers of short texts: paths, names, attributes, times.

use capstan_engine::{
    PATH_SEGMENTS_MAX, ParsePathError, Path, PathBuf, parse_attribute, parse_name, quote,
};
use capstan_policy::{format_timestamp, parse_timestamp};

use crate::naive::{is_at_or_above, is_path};

/// The highest number of texts that are compared with each other.
const TEXTS_MAX: usize = 8;
/// The highest length of an error message, for a text of any length.
const MESSAGE_BYTES_MAX: usize = 200;

/// The product parses each line as a path, name, attribute and time exactly if the contract allows it. A
/// parsed value formats as the same text. Returns whether one of the lines is a path.
///
/// # Panics
///
/// If a rule does not hold.
pub fn path(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let texts: Vec<_> = text.split('\n').take(TEXTS_MAX).collect();
    for text in &texts {
        path_alone(text);
        name(text);
        attribute(text);
        time(text);
    }
    let paths: Vec<_> = texts.iter().filter_map(|text| Path::parse(text).ok()).collect();
    for (above, below) in paths.iter().flat_map(|a| paths.iter().map(move |b| (*a, *b))) {
        let contains = above.contains(below);
        assert_eq!(contains, is_at_or_above(above.as_str(), below.as_str()), "{above} {below}");
        assert_eq!(contains, below.ancestors().any(|path| path == above), "{above} {below}");
        assert!(above == below || !contains || !below.contains(above), "{above} {below}");
    }
    !paths.is_empty()
}

fn path_alone(text: &str) {
    let owned = text.parse::<PathBuf>();
    let path = match Path::parse(text) {
        Ok(path) => path,
        Err(error) => {
            assert!(!is_path(text), "{text:?}: {error}");
            assert_eq!(owned, Err(error.clone()));
            return refused(text, &error);
        }
    };
    assert!(is_path(text), "{text:?}");
    assert_eq!((path.as_str(), &*path.to_string()), (text, text));
    let owned = owned.map(|owned| (owned.to_string(), owned.as_path() == path));
    assert_eq!(owned, Ok((text.to_owned(), true)));
    let ancestors: Vec<_> = path.ancestors().collect();
    assert_eq!(ancestors.len(), text.split('/').count());
    for ancestor in ancestors {
        assert!(is_path(ancestor.as_str()) && ancestor.contains(path), "{ancestor} {path}");
        let below = format!("{ancestor}x");
        let is_beside = Path::parse(&below).is_ok_and(|below| !ancestor.contains(below));
        assert!(is_beside || !is_path(&below), "{below}");
    }
}

/// An error of a path names the segment, is short, and has no control characters.
fn refused(text: &str, error: &ParsePathError) {
    harmless(&error.to_string());
    let (segment, bytes) = match *error {
        ParsePathError::EmptySegment { segment } | ParsePathError::DotSegment { segment } => {
            (segment, None)
        }
        ParsePathError::LongSegment { segment, bytes } => (segment, Some(bytes)),
        ParsePathError::Character { segment, found } => {
            let it = text.split('/').nth(segment.wrapping_sub(1));
            assert!(it.is_some_and(|it| it.contains(found)), "{text:?}: {error}");
            return;
        }
        ParsePathError::Empty | ParsePathError::TooLong { .. } | ParsePathError::TooDeep => return,
    };
    assert!((1..=PATH_SEGMENTS_MAX).contains(&segment), "{text:?}: {error}");
    let it = text.split('/').nth(segment - 1).unwrap_or("?");
    assert!(bytes.is_none_or(|bytes| it.len() == bytes), "{text:?}: {error}");
    assert!(bytes.is_some() || ["", ".", ".."].contains(&it), "{text:?}: {error}");
}

/// Section 4: 1 to 128 of some characters, without a leading, trailing or double dot.
fn name(text: &str) {
    let good = |c: char| c.is_ascii_alphanumeric() || "_-.+".contains(c);
    let dots = text.starts_with('.') || text.ends_with('.') || text.contains("..");
    let is_name = (1..=128).contains(&text.len()) && text.chars().all(good) && !dots;
    let parsed = parse_name(text);
    assert_eq!(parsed.is_ok(), is_name, "{text:?}: {parsed:?}");
    if let Err(error) = parsed {
        harmless(&error.to_string());
    }
    let quoted = quote(text);
    assert!(quoted.len() >= 2 && quoted.starts_with('`') && quoted.ends_with('`'), "{quoted:?}");
    assert!(!quoted.contains(char::is_control), "{quoted:?}");
    assert!(!is_name || text.len() > 80 || quoted == format!("`{text}`"), "{quoted:?}");
}

/// Section 3: the name is the text after the first dot.
fn attribute(text: &str) {
    let words = ["subject", "resource", "action", "context"];
    let rest = words.iter().find_map(|word| text.strip_prefix(word)?.strip_prefix('.'));
    let found = parse_attribute(text).map(|(_, name)| name);
    assert_eq!(found, rest.filter(|rest| !rest.is_empty()), "{text:?}");
}

/// A parsed time formats as a text of the same time.
fn time(text: &str) {
    let Ok(time) = parse_timestamp(text) else { return };
    let written = format_timestamp(time);
    let again = written.as_deref().map(parse_timestamp);
    assert_eq!(again, Some(Ok(time)), "{text:?} {written:?}");
}

fn harmless(message: &str) {
    assert!(message.len() <= MESSAGE_BYTES_MAX, "{} bytes: {message:.200}", message.len());
    assert!(!message.contains(char::is_control), "{message:?}");
}
