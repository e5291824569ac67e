//! Finds where fields stand in a text, once rules have named them by their path.
//!
//! Places are not kept while reading: a policy that loads, which is nearly every one, should not
//! pay for the positions of a million fields.

use std::collections::HashMap;

use capstan_engine::Violations;

use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::reader::{Kind, Mark, Next, Reader};

/// The place in the document of each entry that was read, by list: entries that could not be read
/// are not among the facts, so numbers differ.
#[derive(Debug, Default)]
pub(crate) struct Places(HashMap<&'static str, Vec<usize>>);

impl Places {
    pub(crate) fn push(&mut self, list: &'static str, place: usize) {
        self.0.entry(list).or_default().push(place);
    }

    fn of(&self, list: &str, index: usize) -> usize {
        self.0.get(list).and_then(|places| places.get(index)).copied().unwrap_or(index)
    }
}

/// Adds violations to what is wrong, each with its place in the text. `prefix` is the path of the
/// mapping that the facts were read from, with a dot, or nothing.
pub(crate) fn report_violations(
    text: &str,
    prefix: &str,
    violations: &Violations,
    places: &Places,
    diagnostics: &mut Diagnostics,
) {
    if violations.is_empty() {
        return;
    }
    let mut kept = 0;
    let mut located = Vec::new();
    for violation in violations.iter() {
        kept += 1;
        let index = places.of(violation.kind, violation.index);
        let violation = capstan_engine::Violation { index, ..violation.clone() };
        located.push((format!("{prefix}{}", violation.path()), violation));
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
        diagnostics.push(Diagnostic {
            line,
            column,
            field: field.clone(),
            found: violation.found.clone(),
            expected: violation.expected.clone(),
        });
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
    let mut key_is_next = false;
    loop {
        let node = match reader.next() {
            Next::Node(node) => node,
            Next::Close => {
                if let Some((_, length)) = open.pop() {
                    path.truncate(length);
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
                path.push_str(text);
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
            Kind::Sequence => open.push((Open::Sequence(0), path.len())),
            _ => key_is_next = matches!(open.last(), Some((Open::Mapping, _))),
        }
    }
}
