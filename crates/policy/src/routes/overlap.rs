//! Whether two routes take a request in common: then nobody could say what it requires.
//!
//! **Invariant**: the proof is exact. Where it says that there is such a request it makes one, and
//! where it says that there is none there is none (by test, against the naive model).

use super::template::{Form, Segment, Template};
use super::{QueryParameter, Route};

/// A request that both routes take, as people write it, if there is one.
pub(super) fn common_request(one: &Route, other: &Route) -> Option<String> {
    let method = one.methods.iter().find(|method| other.methods.contains(method))?;
    let host = common_host(&one.hosts, &other.hosts)?;
    if excludes(one, other) || excludes(other, one) {
        return None;
    }
    let path = common_path(&one.path, &other.path)?;
    let mut query: Vec<&str> = required(&one.query).chain(required(&other.query)).collect();
    query.sort_unstable();
    query.dedup();
    let query: Vec<_> = query.into_iter().map(|name| format!("{name}=x")).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    let path = format!("/{}{mark}{}", path.join("/"), query.join("&"));
    Some(match host {
        Some(host) => format!("{method} http://{host}{path}"),
        None => format!("{method} {path}"),
    })
}

/// Whether one needs a query parameter that the other does not let in.
fn excludes(one: &Route, other: &Route) -> bool {
    let lets_in = |name: &str| other.query.iter().any(|listed| *listed.name == *name);
    other.is_strict() && required(&one.query).any(|name| !lets_in(name))
}

fn required(query: &[QueryParameter]) -> impl Iterator<Item = &str> {
    query.iter().filter(|parameter| parameter.bound.is_some()).map(|parameter| &*parameter.name)
}

/// A host that both take, nothing if it can be any; nothing at all if there is none.
#[expect(clippy::option_option, reason = "whether there is one, and which")]
fn common_host<'r>(one: &'r [String], other: &'r [String]) -> Option<Option<&'r str>> {
    match (one, other) {
        ([], []) => Some(None),
        ([host, ..], []) | ([], [host, ..]) => Some(Some(host)),
        _ => one.iter().find(|host| other.contains(host)).map(|host| Some(host.as_str())),
    }
}

/// What a segment at some place must be.
#[derive(Clone, Copy)]
enum Wanted<'r> {
    Literal(&'r str),
    Form(Form),
}

fn common_path<'r>(one: &'r Template, other: &'r Template) -> Option<Vec<&'r str>> {
    let count = match (&one.rest, &other.rest) {
        (None, _) => one.before.len(),
        (_, None) => other.before.len(),
        (Some((_, after)), Some((_, others))) => {
            // Long enough that what is fixed in one meets the many segments of the other wherever
            // that is possible.
            one.before.len().max(other.before.len()) + 1 + after.len().max(others.len())
        }
    };
    let common = |at| match (wanted(one, at, count)?, wanted(other, at, count)?) {
        (Wanted::Literal(one), Wanted::Literal(other)) => (one == other).then_some(one),
        (Wanted::Literal(text), Wanted::Form(form))
        | (Wanted::Form(form), Wanted::Literal(text)) => {
            (!text.is_empty() && form.accepts(text)).then_some(text)
        }
        (Wanted::Form(one), Wanted::Form(other)) => one.common(other),
    };
    (admits(one, count) && admits(other, count)).then(|| (0..count).map(common).collect())?
}

/// Whether a path of so many segments can match.
fn admits(template: &Template, count: usize) -> bool {
    match &template.rest {
        None => template.before.len() == count,
        Some((_, after)) => template.before.len() + 1 + after.len() <= count,
    }
}

/// What the segment at this place of a path of so many segments must be.
fn wanted(template: &Template, at: usize, count: usize) -> Option<Wanted<'_>> {
    let segment = template.before.get(at).or_else(|| {
        let (_, after) = template.rest.as_ref()?;
        after.get((at + after.len()).checked_sub(count)?)
    });
    Some(match segment {
        Some(Segment::Literal(text)) => Wanted::Literal(text),
        Some(Segment::Parameter { form, .. }) => Wanted::Form(*form),
        None => Wanted::Form(Form::Any),
    })
}
