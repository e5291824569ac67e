//! Finds the positions of fields that rule violations name by path, in a second pass over the text.
//!
//! The first pass keeps no positions: most policies load, and should not pay for the positions of a
//! million fields.

use std::collections::{HashMap, HashSet};

use capstan_engine::Violations;

use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::reader::{Kind, Mark, Next, Reader};

/// Upper bound for the length of a known key, in bytes.
const KEY_BYTES_MAX: usize = 32;

/// The fields and list items that could not be read, and so are not in the facts. Keyed by path in
/// the document.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    fields: HashSet<String>,
    /// For each list, the indexes of its unreadable items, ascending.
    items: HashMap<String, Vec<usize>>,
}

impl Unread {
    pub(crate) fn add_field(&mut self, path: String) {
        self.fields.insert(path);
    }

    pub(crate) fn add_item(&mut self, list: String, place: usize) {
        self.items.entry(list).or_default().push(place);
    }

    /// Whether this field is unreadable.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.fields.contains(field)
    }

    /// The unreadable fields.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(String::as_str)
    }

    /// The path in the document for a path in the facts. Indexes in the facts do not count
    /// unreadable items.
    fn path(&self, facts: &str) -> String {
        let mut parts = facts.split('[');
        let mut path: String = parts.next().unwrap_or_default().into();
        for part in parts {
            let (index, rest) = part.split_once(']').unwrap_or((part, ""));
            let place = self.place(&path, index.parse().unwrap_or_default());
            path.push_str(&format!("[{place}]{rest}"));
        }
        path
    }

    fn place(&self, list: &str, index: usize) -> usize {
        let unread = self.items(list).iter();
        unread.fold(index, |place, unread| place + usize::from(*unread <= place))
    }

    /// The indexes of a list's unreadable items, ascending.
    pub(crate) fn items(&self, list: &str) -> &[usize] {
        self.items.get(list).map_or(&[], Vec::as_slice)
    }
}

/// Adds a diagnostic for each violation, with its position in the text. `prefix` is the path of the
/// mapping that the facts were read from, such as `catalog.`, or empty for the whole document.
pub(crate) fn report_violations(
    text: &str,
    prefix: &str,
    violations: &Violations,
    unread: &Unread,
    diagnostics: &mut Diagnostics,
) {
    if violations.is_empty() {
        return;
    }
    let mut kept = 0;
    let mut located = Vec::new();
    for violation in violations.iter() {
        kept += 1;
        located.push((unread.path(&format!("{prefix}{}", violation.path())), violation));
    }
    let mut marks: HashMap<&str, Option<Mark>> = HashMap::new();
    for (path, _) in &located {
        std::iter::successors(Some(path.as_str()), |path| outer(path)).for_each(|path| {
            marks.insert(path, None);
        });
    }
    locate(text, &mut marks);
    for (field, violation) in &located {
        let nearest = std::iter::successors(Some(field.as_str()), |path| outer(path));
        let mark = nearest.filter_map(|path| marks.get(path).copied().flatten()).next();
        let (line, column) = mark.unwrap_or((1, 1));
        let mut found = violation.found.clone();
        if let Some((list, place)) = violation.other {
            found = format!("{found} {}", unread.path(&format!("{prefix}{list}[{place}]")));
        }
        let (field, expected) = (field.clone(), violation.expected.clone());
        diagnostics.push(Diagnostic { line, column, field, found, expected });
    }
    diagnostics.count_more(violations.total() - kept);
}

/// The path of the enclosing field: `a.b[0]` to `a.b` to `a`.
fn outer(path: &str) -> Option<&str> {
    path.rfind(['.', '[']).and_then(|at| path.get(..at))
}

/// An open collection.
enum Open {
    Mapping,
    /// With the index of its next item.
    Sequence(usize),
}

/// Sets the position of each path in `marks`: that of its value, or of its list item. If a key is
/// repeated, the first value counts.
fn locate(text: &str, marks: &mut HashMap<&str, Option<Mark>>) {
    let mut reader = Reader::new(text);
    // Each with the length of its own path.
    let mut open: Vec<(Open, usize)> = Vec::new();
    let mut path = String::new();
    // The indexes of a list under a repeated key continue those of the first one.
    let mut lengths: HashMap<String, usize> = HashMap::new();
    let mut key_is_next = false;
    loop {
        let node = match reader.next() {
            Next::Node(node) => node,
            Next::Close => {
                if let Some((closed, length)) = open.pop() {
                    path.truncate(length);
                    if let Open::Sequence(length) = closed
                        && marks.contains_key(path.as_str())
                    {
                        lengths.insert(path.clone(), length);
                    }
                }
                key_is_next = matches!(open.last(), Some((Open::Mapping, _)));
                continue;
            }
            Next::End => return,
        };
        if key_is_next {
            // Inside a mapping, `path` ends with the current key.
            key_is_next = false;
            path.truncate(open.last().map_or(0, |(_, length)| *length));
            if let Kind::Scalar { text, .. } = &node.kind {
                if !path.is_empty() {
                    path.push('.');
                }
                // An unknown key must not look like a path, and must not make a path long.
                let is_word = text.len() <= KEY_BYTES_MAX && !text.contains(['.', '[']);
                path.push_str(if is_word { text } else { "?" });
            } else {
                reader.skip(&node);
                path.push('?');
            }
            continue;
        }
        if let Some((Open::Sequence(at), start)) = open.last_mut() {
            path.truncate(*start);
            path.push_str(&format!("[{at}]"));
            *at += 1;
        }
        if let Some(mark @ None) = marks.get_mut(path.as_str()) {
            *mark = Some(node.mark);
        }
        match node.kind {
            Kind::Mapping => {
                open.push((Open::Mapping, path.len()));
                key_is_next = true;
            }
            Kind::Sequence => {
                let start = lengths.get(&path).copied().unwrap_or_default();
                open.push((Open::Sequence(start), path.len()));
            }
            _ => key_is_next = matches!(open.last(), Some((Open::Mapping, _))),
        }
    }
}
