//! The naive model of route tables and canonical requests.
//!
//! It shares no code with the product. A route is matched segment by segment, with all ways to split a path.
//! A path is canonical if normalization does not change it.

mod draw;

use std::collections::BTreeMap;

pub use draw::{near_target, request, routes};

/// A route of a document.
#[derive(Clone, Debug)]
pub struct Route {
    /// The name.
    pub name: String,
    /// The hosts; an empty list is every host.
    pub hosts: Vec<&'static str>,
    /// The methods.
    pub methods: Vec<&'static str>,
    /// The parts of the path.
    pub path: Vec<Part>,
    /// The query parameters: the name, and for a required one the name of its parameter.
    pub query: Vec<(&'static str, Option<String>)>,
    /// Whether the route accepts forms.
    pub form: bool,
}

/// One or several segments of a route's path.
#[derive(Clone, Debug)]
pub enum Part {
    /// This text.
    Literal(&'static str),
    /// A parameter: its name, and its required form.
    One(String, Option<&'static str>),
    /// A parameter of several segments.
    Many(String),
    /// A parameter of several segments, which may be joined by encoded slashes.
    Joined(String),
}

/// A request.
#[derive(Clone, Debug)]
pub struct Request<'r> {
    /// The method.
    pub method: &'r str,
    /// The host without a port.
    pub host: &'r str,
    /// The segments of the path; an empty last segment is a trailing slash. `|` in a segment stands
    /// for an encoded slash.
    pub path: Vec<&'r str>,
    /// The query.
    pub query: Vec<(&'r str, &'r str)>,
    /// The content type.
    pub content_type: &'r str,
}

/// The values of a route's parameters.
pub type Values = BTreeMap<String, String>;

impl Route {
    /// The values of the parameters, if the request matches this route.
    #[must_use]
    pub fn takes(&self, request: &Request<'_>) -> Option<Values> {
        let reads = ["GET", "HEAD", "OPTIONS"];
        let is_listed = |name: &str| self.query.iter().any(|(listed, _)| *listed == name);
        let strict = self.methods.iter().any(|method| !reads.contains(method));
        let hosts = self.hosts.is_empty() || self.hosts.contains(&request.host);
        if !hosts || !self.methods.contains(&request.method) {
            return None;
        }
        if strict && request.query.iter().any(|(name, _)| !is_listed(name)) {
            return None;
        }
        let mut values = walk(&self.path, &request.path)?;
        for (name, bound) in &self.query {
            if let Some(bound) = bound {
                let (_, value) = request.query.iter().find(|(there, _)| there == name)?;
                values.insert(bound.clone(), (*value).to_owned());
            }
        }
        Some(values)
    }
}

/// Tries every assignment of the path's segments to the parts.
fn walk(parts: &[Part], path: &[&str]) -> Option<Values> {
    let Some((part, parts)) = parts.split_first() else {
        return path.is_empty().then(Values::new);
    };
    let (first, rest) = path.split_first()?;
    match part {
        Part::Literal(text) => (text == first).then(|| walk(parts, rest))?,
        Part::One(name, form) => {
            if first.is_empty() || first.contains('|') || !has_form(first, *form) {
                return None;
            }
            let mut values = walk(parts, rest)?;
            values.insert(name.clone(), (*first).to_owned());
            Some(values)
        }
        Part::Many(name) | Part::Joined(name) => (1..=path.len()).find_map(|taken| {
            let (several, rest) = path.split_at_checked(taken)?;
            let joined = several.join("/");
            let fits = !joined.contains('|') || matches!(part, Part::Joined(_));
            let mut values = walk(parts, rest).filter(|_| fits && !several.contains(&""))?;
            values.insert(name.clone(), joined.replace('|', "/"));
            Some(values)
        }),
    }
}

/// Whether a generated segment has the form.
fn has_form(segment: &str, form: Option<&str>) -> bool {
    let is_digest = segment.starts_with("sha256:") && segment.len() > 7;
    match form {
        None => true,
        Some("digest") => is_digest,
        Some("not_digest") => !is_digest,
        Some("tag") => !segment.contains([':', '+', '@']),
        Some(_) => false,
    }
}

impl<'r> Request<'r> {
    /// Parses `METHOD URL`. The default host is `example`.
    #[must_use]
    pub fn written(text: &'r str) -> Option<Self> {
        let (method, url) = text.split_once(' ')?;
        let (host, target) = match url.strip_prefix("http://") {
            Some(rest) => rest.split_at(rest.find('/')?),
            None => ("example", url),
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = path.strip_prefix('/')?.split('/').collect();
        let query = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        Some(Self { method, host, path, query, content_type: "" })
    }

    /// The path and query, as in a request line.
    #[must_use]
    pub fn target(&self) -> String {
        let query: Vec<_> =
            self.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("/{}{mark}{}", self.path.join("/"), query.join("&"))
    }
}

/// The document of these routes. Each requires `r.get` at a resource made of its parameters.
#[must_use]
pub fn document(routes: &[Route]) -> String {
    let mut text = String::from("version: 1\nroutes:\n");
    for route in routes {
        let Route { name, hosts, methods, path, query, form } = route;
        let (mut parts, mut forms, mut resource) = (vec![], vec![], String::from("root"));
        for part in path {
            match part {
                Part::Literal(literal) => parts.push((*literal).to_owned()),
                Part::One(name, form) => {
                    parts.push(format!("{{{name}}}"));
                    forms.extend(form.map(|form| format!("{name}: {form}")));
                    resource += &format!("/{{{name}}}");
                }
                Part::Many(name) | Part::Joined(name) => {
                    if matches!(part, Part::Joined(_)) {
                        forms.push(format!("{name}: encoded_slash"));
                    }
                    parts.push(format!("{{{name}...}}"));
                    resource += &format!("/{{{name}}}");
                }
            }
        }
        let query: Vec<_> = query
            .iter()
            .map(|(name, bound)| match bound {
                None => format!("\"{name}\""),
                Some(bound) => format!("{{name: \"{name}\", as: {bound}}}"),
            })
            .collect();
        let methods = methods.join(", ");
        text +=
            &format!("- name: {name}\n  methods: [{methods}]\n  path: \"/{}\"\n", parts.join("/"));
        if !hosts.is_empty() {
            text += &format!("  hosts: [{}]\n", hosts.join(", "));
        }
        if !forms.is_empty() {
            text += &format!("  where: {{{}}}\n", forms.join(", "));
        }
        text += &format!("  query: [{}]\n  form: {form}\n", query.join(", "));
        text += &format!("  require: [{{capability: r.get, resource: \"{resource}\"}}]\n");
    }
    text
}

/// The path that a path stands for: one round of decoding, with the dot and everything special left
/// alone. `None` if that leaves an ambiguous path. Encoded slashes become slashes.
#[must_use]
pub fn canonical_form(path: &str) -> Option<String> {
    let mut plain = String::new();
    let mut left = path.chars();
    while let Some(c) = left.next() {
        if c != '%' {
            plain.push(c);
            continue;
        }
        let [high, low] = [left.next()?.to_digit(16)?, left.next()?.to_digit(16)?];
        let decoded = char::from_u32(high * 16 + low)?;
        let known = matches!(decoded, 'A'..='Z' | 'a'..='z' | '0'..='9' | '-' | '_' | '~')
            || matches!(decoded, '+' | '!' | '@' | ':' | '=' | '/');
        plain.push(known.then_some(decoded)?);
    }
    let lower = path.to_lowercase();
    let ends = lower.starts_with("%2f") || lower.ends_with("%2f");
    (!ends && is_canonical_path(&plain)).then_some(plain)
}

/// Whether a path is canonical: no normalization of servers changes it.
#[must_use]
pub fn is_canonical_path(path: &str) -> bool {
    const PUNCTUATION: &str = "/-._~!$&'()*+,=:@";
    let plain = path.chars().all(|c| c.is_ascii_alphanumeric() || PUNCTUATION.contains(c));
    // Without empty and dot segments, as after RFC 3986 and merging of slashes.
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            _ => kept.push(segment),
        }
    }
    let last = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    let normal = format!("/{}{last}", kept.join("/"));
    plain && normal == path
}
