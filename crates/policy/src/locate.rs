//! Finds where fields stand in a text, once rules have named them by their path.
//!
//! Places are not kept while reading: a policy that loads, which is nearly every one, should not
//! pay for the positions of a million fields.

use std::collections::{HashMap, HashSet};

use capstan_engine::FactsError;

use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::reader::{Kind, Mark, Next, Reader};

/// Most bytes in a key of ours.
const KEY_BYTES_MAX: usize = 32;

/// What could not be read, and so is not among the facts, by its path in the document.
#[derive(Debug, Default)]
pub(crate) struct Unread {
    fields: HashSet<String>,
    /// For each list the places of its items, in order.
    items: HashMap<String, Vec<usize>>,
}

impl Unread {
    pub(crate) fn add_field(&mut self, path: String) {
        self.fields.insert(path);
    }

    pub(crate) fn add_item(&mut self, list: String, place: usize) {
        self.items.entry(list).or_default().push(place);
    }

    /// Whether this field could not be read.
    pub(crate) fn has(&self, field: &str) -> bool {
        self.fields.contains(field)
    }

    /// The fields that could not be read.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(String::as_str)
    }

    /// A path in the document from one in the facts, whose numbers leave out what is not there.
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

    /// The places of the items of a list that could not be read.
    pub(crate) fn items(&self, list: &str) -> &[usize] {
        self.items.get(list).map_or(&[], Vec::as_slice)
    }
}

/// Adds violations to what is wrong, each with its place in the text. `prefix` is the path of the
/// mapping that the facts were read from, with a dot, or nothing.
pub(crate) fn report_violations(
    text: &str,
    prefix: &str,
    violations: &FactsError,
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

/// The path of what a field stands in.
fn outer(path: &str) -> Option<&str> {
    path.rfind(['.', '[']).and_then(|at| path.get(..at))
}

enum Open {
    Mapping,
    Sequence(usize),
}

/// Fills in where each wanted path stands: a value, or an entry of a list.
fn locate(text: &str, marks: &mut HashMap<&str, Option<Mark>>) {
    let mut reader = Reader::new(text);
    let mut open: Vec<(Open, usize)> = Vec::new();
    let mut path = String::new();
    // A list that is there again goes on where the first ended.
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
            // Inside a mapping the path ends with the current key.
            key_is_next = false;
            path.truncate(open.last().map_or(0, |(_, length)| *length));
            if let Kind::Scalar { text, .. } = &node.kind {
                if !path.is_empty() {
                    path.push('.');
                }
                // What is no key of ours must not look like a path, or make long ones.
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
