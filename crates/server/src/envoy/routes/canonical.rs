//! A canonical request.
//!
//! **Invariant**: every server reads a canonical request the same way. What servers are known to
//! read differently is refused: percent-encoding in paths of anything but the characters of
//! [`DECODED`], letters and digits, `;`, empty and dot segments, backslashes, control characters,
//! needless percent-encoding of parameter names. An encoded slash is read as a slash, and the route
//! must accept it ([`CanonicalRequest::encodes_slash_outside`]).

use std::borrow::Cow;
use std::ops::Range;

use capstan_policy::{Method, is_canonical_segment, is_host};
use thiserror::Error;

use crate::limits::{
    HTTP_HEADERS_MAX, QUERY_PARAMETERS_MAX, TARGET_BYTES_MAX, TARGET_SEGMENTS_MAX,
};

/// The request is malformed: no route and no policy can allow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MalformedRequestError {
    /// Not an HTTP request.
    #[error("this is no HTTP request")]
    NotHttp,
    /// A method that is not supported.
    #[error("the method is none of GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")]
    Method,
    /// A missing or malformed host.
    #[error("a host is missing or malformed")]
    Host,
    /// More than [`TARGET_BYTES_MAX`] bytes of path and query.
    #[error("path and query have more than {TARGET_BYTES_MAX} bytes")]
    LongTarget,
    /// More than [`TARGET_SEGMENTS_MAX`] segments.
    #[error("the path has more than {TARGET_SEGMENTS_MAX} segments")]
    DeepPath,
    /// A path that is not canonical.
    #[error(
        "the path is not canonical: it begins with one slash, and has no `;`, no `\\`, no empty, `.` \
         or `..` segment, and no percent-encoding but of letters, digits and `-_~+!@:=`"
    )]
    Path,
    /// An encoded slash where the route does not accept one.
    #[error("the path has an encoded slash (%2F), which its route does not accept there")]
    EncodedSlash,
    /// A query that is not canonical.
    #[error("the query is not canonical")]
    Query,
    /// More than [`QUERY_PARAMETERS_MAX`] parameters.
    #[error("the query has more than {QUERY_PARAMETERS_MAX} parameters")]
    LongQuery,
    /// A parameter that appears more than once.
    #[error("a query parameter is there more than once")]
    RepeatedParameter,
    /// More than [`HTTP_HEADERS_MAX`] headers.
    #[error("there are more than {HTTP_HEADERS_MAX} headers")]
    ManyHeaders,
    /// A header that the decision uses appears more than once, or is not text.
    #[error("a header that decides is there more than once, or cannot be read")]
    Header,
    /// The request line and the headers contradict each other.
    #[error("the request line and the headers disagree")]
    Disagreement,
    /// A header that changes the method.
    #[error("headers that change the method are not taken")]
    MethodOverride,
    /// A request to upgrade the connection, such as to a WebSocket.
    #[error("connections are not upgraded")]
    Upgrade,
}

/// A canonical request.
#[derive(Clone, Debug)]
pub struct CanonicalRequest<'r> {
    /// The method.
    pub method: Method,
    /// The host name in lower case, without the port.
    pub host: Cow<'r, str>,
    /// The path, decoded.
    path: Cow<'r, str>,
    /// Start and end of each segment in `path`. Only the last segment can be empty, after a final
    /// slash.
    segments: Vec<(usize, usize)>,
    /// The positions in `path` of the slashes that were encoded, in order.
    encoded_slashes: Vec<usize>,
    /// Parameters: decoded names, raw values.
    pub(super) query: Vec<(Cow<'r, str>, &'r str)>,
    /// Whether the body is gRPC.
    pub is_grpc: bool,
    /// Whether the body is a form. Many services merge its fields into the query.
    pub carries_form: bool,
}

impl<'r> CanonicalRequest<'r> {
    /// Parses a request. `host` may have a port. `target` is the path and query of the request
    /// line. `content_type` is empty if the request has none.
    ///
    /// # Errors
    ///
    /// The part of the request that is not canonical.
    pub fn parse(
        method: &str,
        host: &'r str,
        target: &'r str,
        content_type: &str,
    ) -> Result<Self, MalformedRequestError> {
        let method = Method::parse(method).ok_or(MalformedRequestError::Method)?;
        let host = parse_host(host)?;
        if target.len() > TARGET_BYTES_MAX {
            return Err(MalformedRequestError::LongTarget);
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, parse_query(query)?),
            None => (target, Vec::new()),
        };
        let (path, encoded_slashes) = decode_path(path).ok_or(MalformedRequestError::Path)?;
        let segments = parse_path(&path, &encoded_slashes)?;
        let content_type = content_type.to_ascii_lowercase();
        let grpc = content_type.strip_prefix("application/grpc");
        let is_grpc = grpc.is_some_and(|rest| rest.is_empty() || rest.starts_with(['+', ';']));
        // Any type that resembles a form, because servers differ in how strictly they compare.
        let carries_form =
            content_type.contains("form-urlencoded") || content_type.contains("multipart");
        Ok(Self { method, host, path, segments, encoded_slashes, query, is_grpc, carries_form })
    }

    /// The request without the query parameters of these names.
    #[must_use]
    pub fn without(&self, names: &[Box<str>]) -> Self {
        let mut changed = self.clone();
        changed.query.retain(|(there, _)| !names.iter().any(|name| **name == **there));
        changed
    }

    /// The number of segments of the path; at least one.
    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(super) fn segment(&self, at: usize) -> &str {
        self.span(at, at + 1)
    }

    /// The segments `from..to`, with the slashes between them.
    pub(super) fn span(&self, from: usize, to: usize) -> &str {
        self.path.get(self.bounds(from, to)).unwrap_or_default()
    }

    /// The positions of the segments `from..to` in the path; empty if there are none.
    fn bounds(&self, from: usize, to: usize) -> Range<usize> {
        let begin = self.segments.get(from).map(|(begin, _)| *begin);
        let end = to.checked_sub(1).and_then(|at| self.segments.get(at)).map(|(_, end)| *end);
        begin.zip(end).map_or(0..0, |(begin, end)| begin..end)
    }

    /// Whether an encoded slash is anywhere but between two segments of `from..to`.
    pub(in crate::envoy) fn encodes_slash_outside(&self, from: usize, to: usize) -> bool {
        let bounds = self.bounds(from, to);
        self.encoded_slashes.iter().any(|at| !bounds.contains(at))
    }
}

fn parse_host(host: &str) -> Result<Cow<'_, str>, MalformedRequestError> {
    let is_port = |port: &str| {
        (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit())
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    if !is_host(name) {
        return Err(MalformedRequestError::Host);
    }
    Ok(match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(name.to_ascii_lowercase()),
        false => Cow::Borrowed(name),
    })
}

/// Punctuation whose percent-encoding is decoded: all unreserved characters of RFC 3986 but the dot,
/// and what package managers encode in names and versions.
const DECODED: &[u8] = b"-_~+!@:=";

/// A path, percent-decoded once, and the positions of the slashes that were encoded. `None` if
/// another character is encoded.
fn decode_path(path: &str) -> Option<(Cow<'_, str>, Vec<usize>)> {
    let mut parts = path.split('%');
    let first = parts.next().unwrap_or_default();
    if first.len() == path.len() {
        return Some((Cow::Borrowed(path), Vec::new()));
    }
    if !path.starts_with('/') {
        return None;
    }
    let (mut decoded, mut slashes) = (first.to_owned(), Vec::new());
    for (byte, part) in escapes(path).zip(parts) {
        let byte = byte?;
        if byte == b'/' {
            slashes.push(decoded.len());
        } else if !byte.is_ascii_alphanumeric() && !DECODED.contains(&byte) {
            return None;
        }
        decoded.push(char::from(byte));
        decoded.push_str(part.get(2..)?);
    }
    Some((Cow::Owned(decoded), slashes))
}

/// Start and end of each segment of a decoded path with these encoded slashes.
fn parse_path(
    path: &str,
    encoded_slashes: &[usize],
) -> Result<Vec<(usize, usize)>, MalformedRequestError> {
    let rest = path.strip_prefix('/').ok_or(MalformedRequestError::Path)?;
    let mut segments = Vec::new();
    let mut begin = 1;
    for part in rest.split('/') {
        if segments.len() == TARGET_SEGMENTS_MAX {
            return Err(MalformedRequestError::DeepPath);
        }
        let end = begin + part.len();
        let is_last = end == path.len();
        let is_final_slash =
            part.is_empty() && is_last && encoded_slashes.last() != Some(&(begin - 1));
        if !(is_canonical_segment(part) || is_final_slash) {
            return Err(MalformedRequestError::Path);
        }
        segments.push((begin, end));
        begin = end + 1;
    }
    Ok(segments)
}

fn parse_query(query: &str) -> Result<Vec<(Cow<'_, str>, &str)>, MalformedRequestError> {
    if !query.bytes().all(|byte| byte.is_ascii_graphic() && !b";#\\".contains(&byte)) {
        return Err(MalformedRequestError::Query);
    }
    let mut parameters = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if parameters.len() == QUERY_PARAMETERS_MAX {
            return Err(MalformedRequestError::LongQuery);
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        // Only one spelling of a name is accepted, so that a comparison with a list of names is
        // exact.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let decoded = decode(name).ok_or(MalformedRequestError::Query)?;
        let needless = escapes(name).any(|byte| byte.is_none_or(is_plain));
        if needless || name.contains('+') || escapes(value).any(|byte| byte.is_none()) {
            return Err(MalformedRequestError::Query);
        }
        parameters.push((decoded, value));
    }
    Ok(parameters)
}

/// The bytes of each percent-encoding in a text; `None` for an invalid one.
fn escapes(text: &str) -> impl Iterator<Item = Option<u8>> {
    text.split('%').skip(1).map(|rest| {
        let digits = rest.get(..2).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u8::from_str_radix(digits, 16).ok()
    })
}

/// A text of a query, percent-decoded; `None` if the result is not UTF-8.
fn decode(text: &str) -> Option<Cow<'_, str>> {
    percent_encoding::percent_decode_str(text).decode_utf8().ok()
}

/// The value of a query parameter that the decision uses; `None` if servers read it differently.
/// Some read `+` as a space.
pub(super) fn value(raw: &str) -> Option<Cow<'_, str>> {
    if raw.contains('+') { None } else { decode(raw) }
}
