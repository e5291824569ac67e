//! Routes of axum, each with what it needs.
//!
//! ```text
//! request ─▶ route ─▶ who calls? ─▶ resource: the route's parameters in a template ─▶ Client::check ─▶ handler, or 403
//! ```
//!
//! **Invariant**: there is no way to add a route that does not say what it needs.

use std::sync::Arc;

use axum::RequestExt as _;
use axum::Router;
use axum::extract::{RawPathParams, Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;
use tonic::Code;

use super::layer::{Identify, Question};
use super::revision::DECIDED_AT;
use super::rules::RulesError;
use crate::Client;

/// Routes that ask before a request reaches its handler.
///
/// ```no_run
/// use axum::routing::get;
/// use capstan_client::Client;
/// use capstan_client::protect::{Caller, Needs, Routes};
///
/// # fn example() -> Result<axum::Router, Box<dyn std::error::Error>> {
/// let client = Client::connect("http://127.0.0.1:4480")?;
/// let routes = Routes::new(client, |head: &http::request::Parts| {
///     Some(Caller::new(head.headers.get("x-identity")?.to_str().ok()?))
/// });
/// let router = routes
///     .route("/v1/{org}/{repo}", get(async || "a repository"), Needs::new("repo.list", "{org}/{repo}"))?
///     .open("/healthz", get(async || "ok"))
///     .into_router();
/// # Ok(router)
/// # }
/// ```
pub struct Routes<S = ()> {
    router: Router<S>,
    guard: Arc<Guard>,
}

struct Guard {
    client: Client,
    identify: Box<dyn Identify>,
}

/// What a route needs: a capability, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    capability: String,
    resource: String,
}

/// What a route needs, ready to be asked.
#[derive(Clone)]
struct Rule {
    guard: Arc<Guard>,
    capability: Arc<str>,
    parts: Arc<[Part]>,
}

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    /// A parameter of the route, and whether it may have slashes.
    Parameter(String, bool),
}

impl Needs {
    /// A capability, and the path of the resource: a text with the parameters of the route in braces, such as
    /// `acme/{repo}`.
    #[must_use]
    pub fn new(capability: impl Into<String>, resource: impl Into<String>) -> Self {
        Self { capability: capability.into(), resource: resource.into() }
    }
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    /// No routes. They ask with this client.
    #[must_use]
    pub fn new(client: Client, identify: impl Identify) -> Self {
        let guard = Arc::new(Guard { client, identify: Box::new(identify) });
        Self { router: Router::new(), guard }
    }

    /// Adds a route: all of its methods need the same.
    ///
    /// # Errors
    ///
    /// The template of the resource is malformed, empty, or has a parameter that the route does not have.
    pub fn route(
        mut self,
        path: &str,
        handlers: MethodRouter<S>,
        needs: Needs,
    ) -> Result<Self, RulesError> {
        let Needs { capability, resource } = needs;
        let invalid = |problem| RulesError::Invalid { method: path.to_owned(), problem };
        if capability.is_empty() {
            return Err(invalid("no capability".to_owned()));
        }
        let parts = parts(path, &resource).map_err(invalid)?.into();
        let rule = Rule { guard: Arc::clone(&self.guard), capability: capability.into(), parts };
        self.router = self.router.route(path, handlers.layer(from_fn_with_state(rule, ask)));
        Ok(self)
    }

    /// Adds a route that needs nothing.
    #[must_use]
    pub fn open(mut self, path: &str, handlers: MethodRouter<S>) -> Self {
        self.router = self.router.route(path, handlers);
        self
    }

    /// The routes.
    pub fn into_router(self) -> Router<S> {
        self.router
    }
}

impl<S> std::fmt::Debug for Routes<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Routes").finish_non_exhaustive()
    }
}

/// The parts of a template.
fn parts(route: &str, template: &str) -> Result<Vec<Part>, String> {
    let (mut parts, mut rest) = (vec![], template);
    while let Some((text, behind)) = rest.split_once('{') {
        let (name, behind) = behind.split_once('}').ok_or("a brace is not closed")?;
        let is_wild = route.contains(&format!("{{*{name}}}"));
        if !is_wild && !route.contains(&format!("{{{name}}}")) {
            return Err(format!("the route has no parameter `{name}`"));
        }
        parts.extend((!text.is_empty()).then(|| Part::Text(text.to_owned())));
        parts.push(Part::Parameter(name.to_owned(), is_wild));
        rest = behind;
    }
    if rest.contains('}') {
        return Err("a brace is not opened".to_owned());
    }
    parts.extend((!rest.is_empty()).then(|| Part::Text(rest.to_owned())));
    if parts.is_empty() { Err("no resource".to_owned()) } else { Ok(parts) }
}

/// The resource of a request.
///
/// # Errors
///
/// A parameter is missing, empty, or has a slash where the route has one segment: an encoded one, which the handler may read in
/// another way.
fn resource(parts: &[Part], parameters: &RawPathParams) -> Result<String, String> {
    let mut resource = String::new();
    for part in parts {
        match part {
            Part::Text(text) => resource.push_str(text),
            Part::Parameter(name, is_wild) => {
                let found = parameters.iter().find(|(found, _)| found == name);
                let (_, value) = found.ok_or_else(|| format!("{name}: missing"))?;
                if value.is_empty() || (!is_wild && value.contains('/')) {
                    return Err(format!("{name}: empty, or with a slash"));
                }
                resource.push_str(value);
            }
        }
    }
    Ok(resource)
}

async fn ask(State(rule): State<Rule>, mut request: Request, next: Next) -> Response {
    let parameters = request.extract_parts::<RawPathParams>().await;
    let resource = match parameters {
        Ok(parameters) => resource(&rule.parts, &parameters),
        Err(_) => Err("the path of the request is malformed".to_owned()),
    };
    let resource = match resource {
        Ok(resource) => resource,
        Err(problem) => return (StatusCode::BAD_REQUEST, problem).into_response(),
    };
    let (head, body) = request.into_parts();
    let question = Question { capability: &rule.capability, resource: &resource };
    let Guard { client, identify } = &*rule.guard;
    match question.ask(client, &**identify, &head).await {
        Ok(at) => DECIDED_AT.scope(at, next.run(Request::from_parts(head, body))).await,
        Err(status) => {
            let code = match status.code() {
                Code::PermissionDenied => StatusCode::FORBIDDEN,
                Code::Unauthenticated => StatusCode::UNAUTHORIZED,
                Code::InvalidArgument => StatusCode::BAD_REQUEST,
                Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            (code, status.message().to_owned()).into_response()
        }
    }
}
