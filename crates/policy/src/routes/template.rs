//! Templates: of the paths that a route takes, and of the resources that it asks about.
//!
//! **Invariant**: a template of paths consists of canonical segments, so it matches no other path
//! than a canonical one, and the values of its parameters are canonical, too.

use capstan_engine::Path;

use super::{ROUTE_PARAMETERS_MAX, ROUTE_PATH_BYTES_MAX, ROUTE_SEGMENTS_MAX};

/// Whether a text is a segment of a path as this product takes it: one or more of the characters
/// that RFC 3986 has for segments, without `;` and percent-encoding, and neither `.` nor `..`. So
/// there is one way to write each.
#[must_use]
pub fn is_canonical_segment(text: &str) -> bool {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@".contains(&byte);
    !text.is_empty() && text.bytes().all(may_stand) && text != "." && text != ".."
}

/// What a parameter may be held to. A closed list, so that it can be proved which routes exclude one
/// another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Form {
    /// Any segment.
    #[default]
    Any,
    /// A content digest of the OCI image specification: `sha256:...`.
    Digest,
    /// A tag of the OCI distribution specification; never a digest, since it has no colon.
    Tag,
    /// Whatever is no digest.
    NotDigest,
}

impl Form {
    /// Those that a document can name.
    pub(crate) const NAMED: [(&'static str, Self); 3] =
        [("digest", Self::Digest), ("tag", Self::Tag), ("not_digest", Self::NotDigest)];

    /// For any two forms that have a segment in common, one of these is in both.
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

    /// A segment that has both forms, if there is any.
    pub(crate) fn common(self, other: Self) -> Option<&'static str> {
        Self::SAMPLES.into_iter().find(|sample| self.accepts(sample) && other.accepts(sample))
    }
}

/// `algorithm ":" encoded`, as the OCI image specification has it.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, encoded)) = text.split_once(':') else { return false };
    let is_component = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    algorithm.split(['+', '.', '_', '-']).all(is_component)
        && !encoded.is_empty()
        && encoded.bytes().all(|b| b.is_ascii_alphanumeric() || b"=_-".contains(&b))
}

/// `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`, as the OCI distribution specification has it.
fn is_tag(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    text.len() <= 128
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|byte| is_word(byte) || b".-".contains(&byte))
}

/// One segment of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// This text; empty only after a final slash.
    Literal(Box<str>),
    /// Any segment of this form, which is the value of the parameter.
    Parameter {
        /// Its name.
        name: Box<str>,
        /// What it is held to.
        form: Form,
    },
}

/// A template of paths: `/v2/{repository...}/manifests/{tag}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The segments before the parameter of several segments; all of them if there is none.
    pub before: Vec<Segment>,
    /// The parameter of one or more segments, and the segments after it.
    pub rest: Option<(Box<str>, Vec<Segment>)>,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > ROUTE_PATH_BYTES_MAX {
            return Err(format!("at most {ROUTE_PATH_BYTES_MAX} bytes"));
        }
        let path = text.strip_prefix('/').ok_or("it begins with `/`")?;
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
        let template = Self { before, rest };
        let mut names: Vec<_> = template.parameters().collect();
        names.sort_unstable();
        if names.len() > ROUTE_PARAMETERS_MAX {
            return Err(format!("at most {ROUTE_PARAMETERS_MAX} parameters"));
        }
        let again = names.windows(2).find(|pair| pair.first() == pair.last());
        match again.and_then(|pair| pair.first()) {
            Some(name) => Err(format!("parameter `{name}` once")),
            None => Ok(template),
        }
    }

    /// The names of its parameters.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        let after = self.rest.iter().flat_map(|(name, after)| {
            std::iter::once(&**name).chain(after.iter().filter_map(Segment::parameter))
        });
        self.before.iter().filter_map(Segment::parameter).chain(after)
    }

    /// Holds a parameter of one segment to a form. Whether there is such a parameter.
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

/// A template of resources: `acme/images/{repository}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceTemplate {
    /// Its segments, in order.
    pub pieces: Vec<Piece>,
}

/// One segment of a resource, or several that a parameter stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// This segment.
    Literal(Box<str>),
    /// The value of the parameter of this name.
    Parameter(Box<str>),
}

impl ResourceTemplate {
    /// Parses a template.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let piece = |part: &str| match placeholder(part) {
            Some(name) => parameter(name).map(|name| Piece::Parameter(name.into())),
            None => Ok(Piece::Literal(part.into())),
        };
        let pieces = text.split('/').map(piece).collect::<Result<Vec<_>, _>>()?;
        let one_each = pieces.iter().map(|piece| match piece {
            Piece::Literal(text) => text,
            Piece::Parameter(_) => "x",
        });
        let shortest: Vec<&str> = one_each.collect();
        Path::parse(&shortest.join("/")).map_err(|error| error.to_string())?;
        Ok(Self { pieces })
    }

    /// The names of its parameters.
    pub fn parameters(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Literal(_) => None,
            Piece::Parameter(name) => Some(&**name),
        })
    }
}

/// What stands between braces, if a segment is a placeholder.
fn placeholder(segment: &str) -> Option<&str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

/// A parameter's name.
pub(crate) fn parameter(name: &str) -> Result<&str, String> {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(may_stand) {
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
