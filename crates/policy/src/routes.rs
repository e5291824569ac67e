//! Route tables: which capabilities, at which resources, a request to a service behind Envoy needs.

mod overlap;
mod read;
mod template;

use std::fmt;

use capstan_engine::quote;

use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::policy::decode;
use crate::reader::{Mark, Reader};

pub use template::{Form, Piece, ResourceTemplate, Segment, Template, is_canonical_segment};

/// Most routes of a table: every two are compared when it is loaded.
pub const ROUTES_MAX: usize = 1_000;
/// Most bytes of a route's path.
pub const ROUTE_PATH_BYTES_MAX: usize = 1_024;
/// Most segments of it.
pub const ROUTE_SEGMENTS_MAX: usize = 32;
/// Most parameters in it.
pub const ROUTE_PARAMETERS_MAX: usize = 16;
/// Most query parameters that a route lists.
pub const ROUTE_QUERY_MAX: usize = 32;
/// Most hosts that a route lists.
pub const ROUTE_HOSTS_MAX: usize = 64;
/// Most capabilities that a route, or a request, requires.
pub const REQUIREMENTS_MAX: usize = 16;
/// Most bytes of what a 401 asks for.
pub const CHALLENGE_BYTES_MAX: usize = 256;

/// A route table that loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    /// Where identities come from.
    pub identity: IdentitySources,
    /// `WWW-Authenticate` of a 401.
    pub challenge: String,
    /// The routes. No request takes two.
    pub routes: Vec<Route>,
}

impl Default for Routes {
    /// No routes, and credentials alone: what holds without a table.
    fn default() -> Self {
        let identity = IdentitySources::default();
        Self { identity, challenge: r#"Basic realm="capstan""#.into(), routes: Vec::new() }
    }
}

/// Where the identity of a request comes from: never from what a client alone says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentitySources {
    /// Whether a credential of the policy counts.
    pub credential: bool,
    /// Whether a token counts that Envoy has verified, and where its identity stands.
    pub jwt: Option<JwtSource>,
    /// Whether the certificate of Envoy's peer counts: what stands in its principal before the
    /// identity's path.
    pub peer: Option<String>,
}

impl Default for IdentitySources {
    fn default() -> Self {
        Self { credential: true, jwt: None, peer: None }
    }
}

/// Where in the metadata of `envoy.filters.http.jwt_authn` an identity stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSource {
    /// The filter's `payload_in_metadata`.
    pub payload: String,
    /// The claim.
    pub claim: String,
    /// What stands in it before the identity's path.
    pub prefix: String,
}

/// One route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its name, which no other route has.
    pub name: String,
    /// The hosts that it is for, in lower case and without port; empty for all of them.
    pub hosts: Vec<String>,
    /// Its methods.
    pub methods: Vec<Method>,
    /// Its paths.
    pub path: Template,
    /// Whether requests must be gRPC.
    pub is_grpc: bool,
    /// The query parameters that it knows.
    pub query: Vec<QueryParameter>,
    /// Whether a request may carry a form, whose fields many services read as if they stood in the
    /// query.
    pub takes_forms: bool,
    /// What a request requires, all of it; nothing means any identity.
    pub requires: Vec<Requirement>,
}

impl Route {
    /// Whether requests with query parameters that are not listed do not take it: they may change
    /// what a request that writes does.
    #[must_use]
    pub fn is_strict(&self) -> bool {
        self.methods.iter().any(|method| method.writes())
    }
}

/// A query parameter that a route knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryParameter {
    /// Its name.
    pub name: Box<str>,
    /// What its value is called in resources. One with such a name must be there.
    pub bound: Option<Box<str>>,
}

/// A capability at a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The capability's name.
    pub capability: String,
    /// The resource.
    pub resource: ResourceTemplate,
}

/// The methods that requests may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
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
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Get, Self::Head, Self::Post, Self::Put, Self::Patch, Self::Delete, Self::Options];

    /// The method of this name, byte for byte.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.as_str() == name)
    }

    /// Its name.
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

    /// Whether it may change something.
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
/// Everything that is wrong with it: the first 100 in the order of the text, then the count.
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

/// Each pair once, at the later one.
fn report_overlaps(routes: &[(Route, Mark)], diagnostics: &mut Diagnostics) {
    for (at, (route, mark)) in routes.iter().enumerate() {
        for (earlier, _) in routes.iter().take(at) {
            let Some(request) = overlap::common_request(earlier, route) else { continue };
            let (line, column) = *mark;
            diagnostics.push(Diagnostic {
                line,
                column,
                field: format!("routes[{at}]"),
                found: format!("route `{}`, which takes {}", route.name, quote(&request)),
                expected: format!("no request that route `{}` takes, too", earlier.name),
            });
        }
    }
}

/// Whether a text is a host without a port: a name, or an address, of IPv6 in brackets.
#[must_use]
pub fn is_host(text: &str) -> bool {
    let may_stand = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_v6 =
        text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).is_some_and(|text| {
            text.bytes().all(|byte| byte.is_ascii_hexdigit() || b":.".contains(&byte))
        });
    !text.is_empty() && text.len() <= 255 && (is_v6 || text.bytes().all(may_stand))
}
