//! An indexed route table.
//!
//! Routes whose literal segments are at the same positions have the same *shape*. For each shape,
//! the literals of a request are joined and looked up. So the cost of a look-up grows with the
//! number of shapes, which is small, and not with the number of routes.

use std::borrow::Cow;
use std::collections::HashMap;

use capstan_engine::{PATH_BYTES_MAX, PathBuf};
use capstan_policy::{Piece, ResourceTemplate, Route, Routes, Segment, Template};

use super::canonical::{CanonicalRequest, MalformedRequestError, value};

/// A route table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// The routes, as the document has them.
    pub routes: Routes,
    shapes: Vec<Shape>,
}

/// The positions of the literal segments of some routes.
#[derive(Clone, Debug)]
struct Shape {
    /// For each segment before the multi-segment parameter, whether it is a literal.
    before: Vec<bool>,
    /// The same for the segments after it; `None` if the routes have no such parameter.
    after: Option<Vec<bool>>,
    /// Indices of routes by their literals; a slash follows each literal.
    routes: HashMap<Box<str>, Vec<usize>>,
}

/// The route that a request matches.
#[derive(Debug)]
pub struct RouteMatch<'t, 'r> {
    pub route: &'t Route,
    /// The values of the route's parameters.
    pub values: Vec<(&'t str, Cow<'r, str>)>,
}

/// The request matches no route, or its route refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// No route matches.
    NoRoute,
    /// The route matches, but takes no forms.
    Form,
    /// The route shows that the request is not canonical.
    Malformed(MalformedRequestError),
}

/// A requirement of a request: a capability at a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Required<'t> {
    /// The capability's name.
    pub capability: &'t str,
    /// `None` if the parameters of the request make no valid path.
    pub resource: Option<PathBuf>,
}

impl Table {
    /// Indexes a table.
    pub fn new(routes: Routes) -> Self {
        let mut shapes: Vec<Shape> = Vec::new();
        for (at, route) in routes.routes.iter().enumerate() {
            let (before, after) = literal_positions(&route.path);
            let known = |shape: &&mut Shape| shape.before == before && shape.after == after;
            let shape = match shapes.iter_mut().find(known) {
                Some(shape) => shape,
                None => {
                    shapes.push(Shape { before, after, routes: HashMap::new() });
                    let Some(shape) = shapes.last_mut() else { continue };
                    shape
                }
            };
            let key = segments(&route.path).filter_map(literal).fold(String::new(), push_segment);
            shape.routes.entry(key.into()).or_default().push(at);
        }
        Self { routes, shapes }
    }

    /// The route that a request matches.
    ///
    /// # Errors
    ///
    /// No route matches, or the matching route refuses the request.
    pub fn find<'t, 'r>(
        &'t self,
        request: &'r CanonicalRequest<'_>,
    ) -> Result<RouteMatch<'t, 'r>, RouteError> {
        let mut key = String::new();
        for shape in self.shapes.iter().filter(|shape| shape.admits(request.len())) {
            key = shape.literals(request).fold(key, push_segment);
            let found = shape.routes.get(&*key).into_iter().flatten();
            let mut routes = found.filter_map(|at| self.routes.routes.get(*at));
            if let Some(route) = routes.find(|route| matches(route, request)) {
                return bind(route, request);
            }
            key.clear();
        }
        Err(RouteError::NoRoute)
    }
}

fn push_segment(mut all: String, segment: &str) -> String {
    all.push_str(segment);
    all.push('/');
    all
}

/// The segments of a template that match exactly one segment, in order.
fn segments(template: &Template) -> impl Iterator<Item = &Segment> {
    template.before.iter().chain(template.rest.iter().flat_map(|(_, after)| after))
}

fn literal(segment: &Segment) -> Option<&str> {
    match segment {
        Segment::Literal(text) => Some(text),
        Segment::Parameter { .. } => None,
    }
}

fn literal_positions(template: &Template) -> (Vec<bool>, Option<Vec<bool>>) {
    let positions =
        |all: &[Segment]| all.iter().map(|segment| literal(segment).is_some()).collect();
    (positions(&template.before), template.rest.as_ref().map(|(_, after)| positions(after)))
}

impl Shape {
    /// Whether a path with this number of segments can match.
    fn admits(&self, count: usize) -> bool {
        match &self.after {
            None => self.before.len() == count,
            Some(after) => self.before.len() + 1 + after.len() <= count,
        }
    }

    /// The segments of a request at the positions of the literals.
    fn literals<'r>(&self, request: &'r CanonicalRequest<'_>) -> impl Iterator<Item = &'r str> {
        let after = self.after.as_deref().unwrap_or_default();
        let (begin, end) = (self.before.iter().enumerate(), request.len() - after.len());
        let after = after.iter().enumerate().map(move |(at, is_literal)| (end + at, is_literal));
        let literals = begin.chain(after).filter(|(_, is_literal)| **is_literal);
        literals.map(|(at, _)| request.segment(at))
    }
}

/// The segments of a template that match exactly one segment. Each has its position in a path of
/// `count` segments.
fn positioned_segments(
    template: &Template,
    count: usize,
) -> impl Iterator<Item = (usize, &Segment)> {
    let after = template.rest.as_ref().map(|(_, after)| &**after).unwrap_or_default();
    let end = count - after.len();
    let after = after.iter().enumerate().map(move |(at, segment)| (end + at, segment));
    template.before.iter().enumerate().chain(after)
}

/// Whether a request with the literals of the route matches it.
fn matches(route: &Route, request: &CanonicalRequest<'_>) -> bool {
    let template = &route.path;
    let fits = |(at, segment): (usize, &Segment)| match segment {
        Segment::Literal(_) => true,
        Segment::Parameter { form, .. } => {
            let segment = request.segment(at);
            !segment.is_empty() && form.accepts(segment)
        }
    };
    // A multi-segment parameter at the end must not include the empty segment after a final slash.
    let is_open = template.rest.as_ref().is_some_and(|(_, after)| after.is_empty());
    let ends = !is_open || !request.segment(request.len() - 1).is_empty();
    route.methods.contains(&request.method)
        && (route.hosts.is_empty() || route.hosts.iter().any(|host| **host == *request.host))
        && (!route.is_grpc || request.is_grpc)
        && ends
        && positioned_segments(template, request.len()).all(fits)
        && query_fits(route, request)
}

/// Whether the request encodes a slash that the template does not accept encoded.
fn encodes_other_slash(template: &Template, request: &CanonicalRequest<'_>) -> bool {
    let (from, to) = match &template.rest {
        Some((_, after)) if template.takes_encoded_slashes => {
            (template.before.len(), request.len() - after.len())
        }
        _ => (0, 0),
    };
    request.encodes_slash_outside(from, to)
}

fn query_fits(route: &Route, request: &CanonicalRequest<'_>) -> bool {
    let is_listed = |name: &str| route.query.iter().any(|listed| *listed.name == *name);
    let is_there = |name: &str| request.query.iter().any(|(there, _)| there == name);
    let mut bound = route.query.iter().filter(|parameter| parameter.bound.is_some());
    bound.all(|parameter| is_there(&parameter.name))
        && (!route.is_strict() || request.query.iter().all(|(name, _)| is_listed(name)))
}

fn bind<'t, 'r>(
    route: &'t Route,
    request: &'r CanonicalRequest<'_>,
) -> Result<RouteMatch<'t, 'r>, RouteError> {
    if encodes_other_slash(&route.path, request) {
        return Err(RouteError::Malformed(MalformedRequestError::EncodedSlash));
    }
    if request.carries_form && !route.takes_forms {
        return Err(RouteError::Form);
    }
    let mut values = Vec::new();
    for (at, segment) in positioned_segments(&route.path, request.len()) {
        if let Segment::Parameter { name, .. } = segment {
            values.push((&**name, Cow::Borrowed(request.segment(at))));
        }
    }
    if let Some((name, after)) = &route.path.rest {
        let several = request.span(route.path.before.len(), request.len() - after.len());
        values.push((name, Cow::Borrowed(several)));
    }
    for parameter in &route.query {
        let mut there = request.query.iter().filter(|(name, _)| **name == *parameter.name);
        let first = there.next();
        if there.next().is_some() {
            return Err(RouteError::Malformed(MalformedRequestError::RepeatedParameter));
        }
        if let (Some(name), Some((_, raw))) = (&parameter.bound, first) {
            let value = value(raw).ok_or(RouteError::Malformed(MalformedRequestError::Query))?;
            values.push((name, value));
        }
    }
    Ok(RouteMatch { route, values })
}

impl<'t> RouteMatch<'t, '_> {
    /// The requirements of the request, in the order of the route.
    pub fn requires(&self) -> impl Iterator<Item = Required<'t>> {
        self.route.requires.iter().map(|requirement| Required {
            capability: &requirement.capability,
            resource: self.resource(&requirement.resource),
        })
    }

    /// The resource that a template and the values make; `None` if it is not a path.
    fn resource(&self, template: &ResourceTemplate) -> Option<PathBuf> {
        let mut resource = String::new();
        for (at, piece) in template.pieces.iter().enumerate() {
            let text = match piece {
                Piece::Literal(text) => text,
                Piece::Parameter(wanted) => {
                    let mut values = self.values.iter();
                    &**values.find(|(name, _)| *name == &**wanted).map(|(_, value)| value)?
                }
            };
            if resource.len() + text.len() > PATH_BYTES_MAX {
                return None;
            }
            if at > 0 {
                resource.push('/');
            }
            resource.push_str(text);
        }
        resource.parse().ok()
    }
}
