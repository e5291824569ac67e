//! Templates of a route: for the paths that it matches, and for the resources that it requires
//! capabilities at.
//!
//! **Invariant**: a path template matches canonical paths only. Its literal segments are canonical,
//! and so are the values of its parameters.

use capstan_engine::Path;

use super::{ROUTE_PARAMETERS_MAX, ROUTE_PATH_BYTES_MAX, ROUTE_SEGMENTS_MAX};

/// Whether a text is a path segment in canonical form: one or more of the characters that RFC 3986
/// allows in a segment, except `;` and percent-encoding, and neither `.` nor `..`.
#[must_use]
pub fn is_canonical_segment(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed) && text != "." && text != ".."
}

/// The form that a path parameter's value must have. The list is closed, so that overlaps between
/// routes can be decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Any segment.
    #[default]
    Any,
    /// A content digest of the OCI image specification: `sha256:...`.
    Digest,
    /// A tag of the OCI distribution specification; never a digest, since it has no colon.
    Tag,
    /// Any segment but a digest.
    NotDigest,
}

impl Form {
    /// The forms that a document can name.
    pub(crate) const NAMED: [(&'static str, Self); 3] =
        [("digest", Self::Digest), ("tag", Self::Tag), ("not_digest", Self::NotDigest)];

    /// If two forms accept a common segment, both accept one of these.
    const SAMPLES: [&'static str; 2] = ["x", "sha256:00"];

    /// Whether a segment has this form.
    #[must_use]
    pub fn accepts(self, segment: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Digest => is_digest(segment),
            Self::NotDigest => !is_digest(segment),
            Self::Tag => is_tag(segment),
        }
    }

    /// A segment that both forms accept, if one exists.
    pub(crate) fn common(self, other: Self) -> Option<&'static str> {
        Self::SAMPLES.into_iter().find(|sample| self.accepts(sample) && other.accepts(sample))
    }
}

/// `algorithm ":" encoded`, by the OCI image specification.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, encoded)) = text.split_once(':') else { return false };
    let is_component = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    algorithm.split(['+', '.', '_', '-']).all(is_component)
        && !encoded.is_empty()
        && encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"=_-".contains(&b))
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`, by the OCI distribution specification.
fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || b".-".contains(&byte))
}

/// One segment of a path template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// A literal segment; empty only after a final slash.
    Literal(Box<str>),
    /// `{name}`: one segment of this form, which is the parameter's value.
    Parameter {
        /// The parameter's name.
        name: Box<str>,
        /// The form that its value must have.
        form: Form,
    },
}

/// A path template, such as `/v2/{repository...}/manifests/{tag}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The segments before `{name...}`; all segments if the template has no such parameter.
    pub before: Vec<Segment>,
    /// The name of the parameter `{name...}`, which matches one or more segments, and the segments
    /// after it.
    pub rest: Option<(Box<str>, Vec<Segment>)>,
    /// Whether `%2F` stands for a slash between two segments of `{name...}`.
    pub takes_encoded_slashes: bool,
}

impl Template {
    /// Parses a path template: `/`, then segments, at most one of them `{name...}`.
    ///
    /// # Errors
    ///
    /// The rule that the text breaks, for a diagnostic: a limit, a segment that is not canonical,
    /// or a repeated parameter.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > ROUTE_PATH_BYTES_MAX {
            return Err(format!("at most {ROUTE_PATH_BYTES_MAX} bytes"));
        }
        let path = text.strip_prefix('/').ok_or("it must begin with `/`")?;
        let count = path.split('/').count();
        if count > ROUTE_SEGMENTS_MAX {
            return Err(format!("at most {ROUTE_SEGMENTS_MAX} segments"));
        }
        let (mut before, mut rest) = (Vec::new(), None);
        for (at, part) in path.split('/').enumerate() {
            let name = placeholder(part);
            if let Some(name) = name.and_then(|name| name.strip_suffix("...")) {
                if rest.is_some() {
                    return Err("at most one `{name...}`".into());
                }
                rest = Some((parameter(name)?.into(), Vec::new()));
                continue;
            }
            let segment = match name {
                Some(name) => Segment::Parameter { name: parameter(name)?.into(), form: Form::Any },
                None if is_canonical_segment(part) || part.is_empty() && at + 1 == count => {
                    Segment::Literal(part.into())
                }
                None => return Err(bad_segment(part)),
            };
            rest.as_mut().map_or(&mut before, |(_, after)| after).push(segment);
        }
        let template = Self { before, rest, takes_encoded_slashes: false };
        let mut names: Vec<_> = template.parameters().collect();
        names.sort_unstable();
        if names.len() > ROUTE_PARAMETERS_MAX {
            return Err(format!("at most {ROUTE_PARAMETERS_MAX} parameters"));
        }
        let again = names.windows(2).find(|pair| pair.first() == pair.last());
        match again.and_then(|pair| pair.first()) {
            Some(name) => Err(format!("parameter `{name}` only once")),
            None => Ok(template),
        }
    }

    /// The names of the parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        let after = self.rest.iter().flat_map(|(name, after)| {
            std::iter::once(&**name).chain(after.iter().filter_map(Segment::parameter))
        });
        self.before.iter().filter_map(Segment::parameter).chain(after)
    }

    /// Lets `%2F` stand for a slash within this parameter. False if it is not `{name...}`.
    pub(crate) fn take_encoded_slashes(&mut self, parameter: &str) -> bool {
        let is_rest = self.rest.as_ref().is_some_and(|(name, _)| **name == *parameter);
        self.takes_encoded_slashes |= is_rest;
        is_rest
    }

    /// Sets the form of a parameter of one segment. False if there is no such parameter.
    pub(crate) fn restrict(&mut self, parameter: &str, wanted: Form) -> bool {
        let after = self.rest.iter_mut().flat_map(|(_, after)| after);
        for segment in self.before.iter_mut().chain(after) {
            if let Segment::Parameter { name, form } = segment
                && **name == *parameter
            {
                *form = wanted;
                return true;
            }
        }
        false
    }
}

impl Segment {
    fn parameter(&self) -> Option<&str> {
        match self {
            Self::Literal(_) => None,
            Self::Parameter { name, .. } => Some(name),
        }
    }
}

/// A template of a resource's path, such as `acme/images/{repository}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceTemplate {
    /// The pieces between slashes, in order.
    pub pieces: Vec<Piece>,
}

/// A piece of a resource template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A literal segment.
    Literal(Box<str>),
    /// The value of the parameter with this name: one or more segments.
    Parameter(Box<str>),
}

impl ResourceTemplate {
    /// Parses a resource template: literal segments and `{name}`, separated by `/`.
    ///
    /// # Errors
    ///
    /// The rule that the text breaks, for a diagnostic: the rules of a path and of parameter names.
    pub fn parse(text: &str) -> Result<Self, String> {
        let piece = |part: &str| match placeholder(part) {
            Some(name) => parameter(name).map(|name| Piece::Parameter(name.into())),
            None => Ok(Piece::Literal(part.into())),
        };
        let pieces = text.split('/').map(piece).collect::<Result<Vec<_>, _>>()?;
        // With one byte for each parameter: the shortest path that the template can give.
        let segments = pieces.iter().map(|piece| match piece {
            Piece::Literal(text) => text,
            Piece::Parameter(_) => "x",
        });
        let shortest: Vec<&str> = segments.collect();
        Path::parse(&shortest.join("/")).map_err(|error| error.to_string())?;
        Ok(Self { pieces })
    }

    /// Whether values exist with which the template is this path. A value has one or more segments; that a name repeats
    /// is not compared.
    #[must_use]
    pub fn can_be(&self, path: Path<'_>) -> bool {
        let segments: Vec<&str> = path.as_str().split('/').collect();
        // How many segments the pieces so far can take, in ascending order.
        let mut taken = vec![0];
        for piece in &self.pieces {
            taken = match piece {
                Piece::Literal(text) => {
                    let is_next = |at: &usize| segments.get(*at) == Some(&&**text);
                    taken.into_iter().filter(is_next).map(|at| at + 1).collect()
                }
                Piece::Parameter(_) => {
                    let least = taken.first().map_or(usize::MAX, |at| at.saturating_add(1));
                    (least..=segments.len()).collect()
                }
            };
        }
        taken.contains(&segments.len())
    }

    /// The names of the parameters, in order; a name may repeat.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Parameter(name) => Some(&**name),
        })
    }
}

/// The text between braces, if a segment is `{...}`.
fn placeholder(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// A valid parameter name: 1 to 64 of `A-Z a-z 0-9 _`.
pub(crate) fn parameter(name: &str) -> Result<&str, String> {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(is_allowed) {
        return Err("a parameter's name is 1 to 64 of A-Z a-z 0-9 _".into());
    }
    Ok(name)
}

fn bad_segment(segment: &str) -> String {
    if segment.is_empty() {
        "no double slash".into()
    } else if segment.contains(['{', '}']) {
        "a parameter is a whole segment: {name} or {name...}".into()
    } else {
        "canonical segments: no percent-encoding, no `;`, no `.` and `..`".into()
    }
}
