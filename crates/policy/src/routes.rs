//! Route tables: the capabilities, and the resources, that a request to a service behind Envoy
//! requires.

mod overlap;
mod read;
mod template;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use capstan_engine::{Catalog, SUGGESTIONS_MAX, did_you_mean, quote};

use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::policy::decode;
use crate::reader::{Mark, Reader};

pub(crate) use read::ENCODED_SLASH;
pub use template::{Form, Piece, ResourceTemplate, Segment, Template, is_canonical_segment};

/// Most routes in a table. Loading compares each pair of routes.
pub const ROUTES_MAX: usize = 1_000;
/// Largest size of a route's path template, in bytes.
pub const ROUTE_PATH_BYTES_MAX: usize = 1_024;
/// Most segments in a path template.
pub const ROUTE_SEGMENTS_MAX: usize = 32;
/// Most parameters in a path template.
pub const ROUTE_PARAMETERS_MAX: usize = 16;
/// Most query parameters that a route lists.
pub const ROUTE_QUERY_MAX: usize = 32;
/// Most hosts that a route lists.
pub const ROUTE_HOSTS_MAX: usize = 64;
/// Most requirements of a route or a request.
pub const REQUIREMENTS_MAX: usize = 16;
/// Largest size of a challenge (`WWW-Authenticate` of a 401), in bytes.
pub const CHALLENGE_BYTES_MAX: usize = 256;

/// A loaded route table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// The sources of a request's identity.
    pub identity: IdentitySources,
    /// `WWW-Authenticate` of a 401, if the document has one: visible ASCII and blanks.
    pub challenge: Option<String>,
    /// The routes, in order of the document. No request matches two of them.
    pub routes: Vec<Route>,
}

impl Routes {
    /// `WWW-Authenticate` of a 401. Without one in the document, it is the scheme that the identity
    /// sources accept; `None` if they accept certificates only.
    #[must_use]
    pub fn challenge(&self) -> Option<&str> {
        let fitting = match &self.identity {
            IdentitySources { credential: true, .. } => Some(r#"Basic realm="capstan""#),
            IdentitySources { jwt: Some(_), .. } => Some(r#"Bearer realm="capstan""#),
            _ => None,
        };
        self.challenge.as_deref().or(fitting)
    }

    /// Whether each required capability is in at least one of these catalogs. A route with any other lets nothing pass.
    ///
    /// # Errors
    ///
    /// A diagnostic for each capability that is in none.
    pub fn check_capabilities(&self, catalogs: &[Arc<Catalog>]) -> Result<(), Diagnostics> {
        let is_known = |name: &str| catalogs.iter().any(|one| one.capability(name).is_some());
        let mut diagnostics = Diagnostics::default();
        for (at, route) in self.routes.iter().enumerate() {
            for (number, Requirement { capability, position, .. }) in
                route.requires.iter().enumerate()
            {
                if is_known(capability) {
                    continue;
                }
                let near = || {
                    let names = catalogs.iter().flat_map(|one| one.capabilities());
                    did_you_mean(capability, names.collect::<BTreeSet<_>>().into_iter())
                };
                let may_suggest = diagnostics.total() < SUGGESTIONS_MAX;
                let near = may_suggest.then(near).unwrap_or_default();
                let expected = match catalogs {
                    [one] => format!("a capability of catalog `{}`{near}", one.name()),
                    _ => format!("a capability of a catalog{near}"),
                };
                let (line, column) = *position;
                let field = format!("routes[{at}].require[{number}].capability");
                diagnostics.push(Diagnostic {
                    line,
                    column,
                    field,
                    found: quote(capability),
                    expected,
                });
            }
        }
        if diagnostics.is_empty() { Ok(()) } else { Err(diagnostics) }
    }
}

/// The accepted sources of a request's identity. Each source needs proof; no source is an
/// unverified claim of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySources {
    /// Whether a credential of the policy is accepted.
    pub credential: bool,
    /// If set, a token that Envoy has verified is accepted.
    pub jwt: Option<JwtSource>,
    /// If set, the certificate of Envoy's peer is accepted. The value is the prefix of its
    /// principal before the identity's path.
    pub peer: Option<String>,
}

impl Default for IdentitySources {
    fn default() -> Self {
        Self { credential: true, jwt: None, peer: None }
    }
}

/// The place of an identity in the metadata of `envoy.filters.http.jwt_authn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSource {
    /// The filter's `payload_in_metadata`, such as `jwt_payload`.
    pub payload: String,
    /// The claim with the identity, such as `sub`.
    pub claim: String,
    /// The prefix of the claim's value before the identity's path; may be empty.
    pub prefix: String,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The name, unique in the table.
    pub name: String,
    /// The hosts, in lower case and without port. Empty means every host.
    pub hosts: Vec<String>,
    /// The methods; POST alone for gRPC.
    pub methods: Vec<Method>,
    /// The template of its paths.
    pub path: Template,
    /// Whether the route matches gRPC requests only: content type `application/grpc`, optionally
    /// with a suffix such as `+proto`.
    pub is_grpc: bool,
    /// The listed query parameters.
    pub query: Vec<QueryParameter>,
    /// Whether the body may be a form. Many services treat form fields as query parameters.
    pub takes_forms: bool,
    /// The requirements, all of which must hold. Empty means that any proved identity may pass.
    pub requires: Vec<Requirement>,
    /// Names of listed query parameters. If a requirement is not met, the request is decided anew
    /// without them, and Envoy removes them.
    pub if_denied_remove: Vec<Box<str>>,
}

impl Route {
    /// Whether an unlisted query parameter keeps a request from matching. True if a method of the
    /// route writes, because such a parameter may change the effect of a write.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.methods.iter().any(|method| method.writes())
    }
}

/// A query parameter that a route lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryParameter {
    /// The name in the query: 1 to 128 bytes of visible ASCII without `% + & = ; #`.
    pub name: Box<str>,
    /// The parameter that its value binds in resource templates. If set, the query parameter is
    /// required, otherwise optional.
    pub bound: Option<Box<str>>,
}

/// A capability that a request requires at a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The capability's name.
    pub capability: String,
    /// The template of the resource's path.
    pub resource: ResourceTemplate,
    /// Line and column of the capability in the document, from 1.
    pub position: (usize, usize),
}

/// The accepted HTTP methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the methods' names")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl Method {
    /// All methods.
    pub const ALL: [Self; 7] =
        [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options];

    /// The method of this name; names are case-sensitive (RFC 9110).
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }

    /// The method's name, in upper case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
        }
    }

    /// Whether the method may change state: all but GET, HEAD and OPTIONS.
    #[must_use]
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Get | Self::Head | Self::Options)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Loads a route table.
///
/// # Errors
///
/// All diagnostics of the document: the first 100 by position, and the number of all. Two routes
/// that match the same request are an error, checked once the rest of the document has none.
pub fn load_routes(document: &[u8]) -> Result<Routes, Diagnostics> {
    let text = decode(document)?;
    let mut reader = Reader::new(text);
    let draft = reader.document(read::read_table);
    let (mut diagnostics, ..) = reader.finish();
    match draft {
        Some(draft) if diagnostics.is_empty() => {
            report_overlaps(&draft.routes, &mut diagnostics);
            if !diagnostics.is_empty() {
                return Err(diagnostics);
            }
            let routes = draft.routes.into_iter().map(|(route, _)| route).collect();
            Ok(Routes { routes, ..draft.rest })
        }
        _ => Err(diagnostics),
    }
}

/// Reports each overlapping pair once, at the later route.
fn report_overlaps(routes: &[(Route, Mark)], diagnostics: &mut Diagnostics) {
    for (at, (route, mark)) in routes.iter().enumerate() {
        for (earlier, _) in routes.iter().take(at) {
            let Some(request) = overlap::common_request(earlier, route) else { continue };
            let (line, column) = *mark;
            diagnostics.push(Diagnostic {
                line,
                column,
                field: format!("routes[{at}]"),
                found: format!("route `{}`, which matches {}", route.name, quote(&request)),
                expected: format!("no request that route `{}` also matches", earlier.name),
            });
        }
    }
}

/// Whether a text is a host without a port, of 1 to 255 bytes: a name, an IPv4 address, or an IPv6
/// address in brackets.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_v6 =
        text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).is_some_and(|text| {
            text.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte))
        });
    !text.is_empty() && text.len() <= 255 && (is_v6 || text.bytes().all(is_allowed))
}
