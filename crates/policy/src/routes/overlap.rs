//! Finds a request that two routes match. Such an overlap makes the request's requirements
//! ambiguous.
//!
//! **Invariant**: the result is exact. `Some` is a request that both routes match; `None` means that
//! no such request exists. A property test holds this against the naive model.

use super::template::{Form, Segment, Template};
use super::{QueryParameter, Route};

/// A request that both routes match, as `METHOD [http://HOST]/PATH[?QUERY]`, if one exists.
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

/// Whether `one` requires a query parameter that `other`, which is strict, does not list.
fn excludes(one: &Route, other: &Route) -> bool {
    let lists = |name: &str| other.query.iter().any(|listed| *listed.name == *name);
    other.is_strict() && required(&one.query).any(|name| !lists(name))
}

/// The names of the required query parameters.
fn required(query: &[QueryParameter]) -> impl Iterator<Item = &str> {
    query.iter().filter(|parameter| parameter.bound.is_some()).map(|parameter| &*parameter.name)
}

/// A host of both routes: `Some(None)` if both match every host, `None` if they share no host.
#[expect(clippy::option_option, reason = "whether a common host exists, and which")]
fn common_host<'r>(one: &'r [String], other: &'r [String]) -> Option<Option<&'r str>> {
    match (one, other) {
        ([], []) => Some(None),
        ([host, ..], []) | ([], [host, ..]) => Some(Some(host)),
        _ => one.iter().find(|host| other.contains(host)).map(|host| Some(host.as_str())),
    }
}

/// What a template demands of one segment.
#[derive(Clone, Copy)]
enum Wanted<'r> {
    Literal(&'r str),
    Form(Form),
}

/// The segments of a path that both templates match, if one exists.
fn common_path<'r>(one: &'r Template, other: &'r Template) -> Option<Vec<&'r str>> {
    let count = match (&one.rest, &other.rest) {
        (None, _) => one.before.len(),
        (_, None) => other.before.len(),
        (Some((_, after)), Some((_, others))) => {
            // With this length, each template's single segments lie opposite the other's parameter
            // of several segments wherever possible.
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

/// Whether a path of `count` segments can match.
fn admits(template: &Template, count: usize) -> bool {
    match &template.rest {
        None => template.before.len() == count,
        Some((_, after)) => template.before.len() + 1 + after.len() <= count,
    }
}

/// What the template demands of segment `at` in a path of `count` segments.
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
