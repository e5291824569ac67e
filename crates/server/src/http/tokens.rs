//! Access tokens over HTTP: the token endpoint (RFC 8693, OAuth 2.0 Token Exchange), and the documents by which others find the
//! keys (RFC 8414; OpenID Connect Discovery 1.0).
//!
//! ```text
//! POST form ─▶ deadline, length ─▶ parameters, each once ─▶ place of the peer ─▶ exchange ─▶ JSON, never kept
//! ```
//!
//! **Invariants**: parameters that nobody knows are ignored (RFC 6749, section 3.2), and the answer says what the token is held to. What is
//! wrong with a token is not told. Every answer says `no-store`. No client is authenticated: the token that is exchanged is the proof, so that
//! a credential beside it is refused.

mod parameters;

use std::panic::AssertUnwindSafe;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, PRAGMA, RETRY_AFTER,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use capstan_events::PublicUrl;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::RequestError;
use crate::authn::issued::{IssueError, scope_of};
use crate::callers::{Callers, ExchangeError, Exchanged};
use crate::limits::{
    EXCHANGE_TIME_MAX, EXCHANGES_MAX, PEER_EXCHANGES_MAX, TOKEN_REQUEST_BYTES_MAX,
};
use crate::places::Places;
use crate::signing::Signing;
use crate::telemetry::metrics::WorkerMetrics;
use crate::transport::http::Client;
use crate::transport::peers::Peer;
use parameters::{ACCESS_TOKEN, EXCHANGE, Parameters};

/// The token endpoint, below the public URL.
const TOKEN: &str = "/oauth2/token";
const JWKS: &str = "/.well-known/jwks.json";
const OPENID: &str = "/.well-known/openid-configuration";
const OAUTH: &str = "/.well-known/oauth-authorization-server";

/// What makes access tokens.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    callers: Callers,
    signing: Signing,
    places: Places<Peer>,
    metrics: WorkerMetrics,
}

impl Tokens {
    pub(crate) fn new(callers: Callers, signing: Signing, metrics: WorkerMetrics) -> Self {
        let places = Places::new(EXCHANGES_MAX, PEER_EXCHANGES_MAX);
        Self { callers, signing, places, metrics }
    }
}

/// The endpoint and the keys, at the root and at the path of the public URL, and what they are found by.
pub(super) fn router(tokens: &Tokens, url: &PublicUrl) -> Router {
    let endpoint = Router::new().route(TOKEN, post(exchange)).with_state(tokens.clone());
    let document = metadata(url);
    let answer = move || {
        let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "public, max-age=300")];
        std::future::ready((headers, document.clone()))
    };
    // RFC 8414 puts the well-known path before that of the URL, OpenID Connect behind it.
    let oauth = format!("{OAUTH}{}", url.path());
    let signing = tokens.signing.clone();
    let keys = get(async move || jwks_of(&signing));
    let both = endpoint.route(JWKS, keys).route(OPENID, get(answer.clone()));
    match url.path() {
        "" => both.route(&oauth, get(answer)),
        path => both.clone().merge(Router::new().nest(path, both)).route(&oauth, get(answer)),
    }
}

/// Receivers may keep the keys for five minutes: a key that signs no more stays published for longer.
fn jwks_of(signing: &Signing) -> impl IntoResponse + use<> {
    let kind = (CONTENT_TYPE, "application/jwk-set+json");
    ([kind, (CACHE_CONTROL, "public, max-age=300")], signing.load().jwks.clone())
}

/// One document for both standards: the keys, and the token endpoint. There is no page to log in at, so no response type works.
fn metadata(url: &PublicUrl) -> String {
    let at = |path: &str| format!("{}{path}", url.as_str());
    json!({
        "issuer": url.as_str(),
        "jwks_uri": at(JWKS),
        "token_endpoint": at(TOKEN),
        "token_endpoint_auth_methods_supported": ["none"],
        "grant_types_supported": [EXCHANGE],
        "response_types_supported": ["none"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["EdDSA", "ES256"],
    })
    .to_string()
}

/// Why there is no token: what RFC 6749, section 5.2, and RFC 8693, section 2.2.2, call it, and a sentence.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    error: &'static str,
    description: String,
}

impl Refusal {
    fn new(error: &'static str, description: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, error, description: description.into() }
    }

    fn unavailable(description: &str) -> Self {
        let (status, error) = (StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable");
        Self { status, error, description: description.to_owned() }
    }
}

impl From<ExchangeError> for Refusal {
    fn from(error: ExchangeError) -> Self {
        match error {
            // One text for all of them.
            ExchangeError::Request(RequestError::AuthnFailed) => Self::new(
                "invalid_request",
                "the subject_token proves nobody here, or not who is named; the server's log says why",
            ),
            ExchangeError::Request(error) => Self::unavailable(&error.to_string()),
            ExchangeError::Wider => Self::new(
                "invalid_scope",
                "the subject_token is narrowed: ask for nothing outside its subtree and capabilities",
            ),
            ExchangeError::Audience => {
                Self::new("invalid_target", "expected an audience of this server, or none")
            }
            ExchangeError::Issue(error @ IssueError::TooLong) => {
                Self::new("invalid_request", error.to_string())
            }
            ExchangeError::Issue(IssueError::Random) => {
                Self::unavailable(&IssueError::Random.to_string())
            }
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self { status, error, description } = self;
        let body = json!({ "error": error, "error_description": description });
        let mut response = (status, json_of(&body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

async fn exchange(
    State(tokens): State<Tokens>,
    ConnectInfo(client): ConnectInfo<Client>,
    request: Request,
) -> Response {
    let answered = timeout(EXCHANGE_TIME_MAX, tokens.answer(&client, request));
    let answered = match AssertUnwindSafe(answered).catch_unwind().await {
        Ok(Ok(answered)) => answered,
        Ok(Err(_)) => Err(Refusal::unavailable("it took too long")),
        Err(_) => {
            tokens.metrics.panicked();
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            let (error, description) = ("server_error", "an error of the server".to_owned());
            Err(Refusal { status, error, description })
        }
    };
    let mut response = match answered {
        Ok(token) => json_of(&token).into_response(),
        Err(refusal) => refusal.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

impl Tokens {
    async fn answer(&self, client: &Client, request: Request) -> Result<Value, Refusal> {
        let (head, body) = request.into_parts();
        if head.headers.contains_key(AUTHORIZATION) {
            let problem = "send the token as subject_token only, without an Authorization header";
            return Err(Refusal::new("invalid_request", problem));
        }
        let parameters = Parameters::read(&read(&head.headers, body).await?)?;
        // Behind the body: connections are limited, and whoever sends slowly holds nothing else.
        let place = self.places.take(client.peer());
        let _place =
            place.ok_or_else(|| Refusal::unavailable("too many tokens are being exchanged"))?;
        let Parameters { subject_token, named, narrowing, audience } = parameters;
        let exchanged =
            self.callers.exchange(&subject_token, named, narrowing, audience.as_deref());
        let Exchanged { token, narrowing, now } = exchanged.await?;
        let mut answer = json!({
            "access_token": token.text,
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": token.ends.seconds().saturating_sub(now.seconds()),
        });
        // What it is held to is said, also where it is what was asked for.
        if let (Some(narrowing), Some(answer)) = (narrowing, answer.as_object_mut()) {
            if let Some(scope) = scope_of(&narrowing) {
                answer.insert("scope".to_owned(), scope.into());
            }
            if let Some(subtree) = &narrowing.subtree {
                answer.insert("subtree".to_owned(), subtree.as_str().into());
            }
        }
        Ok(answer)
    }
}

fn json_of(value: &Value) -> impl IntoResponse + use<> {
    ([(CONTENT_TYPE, "application/json")], value.to_string())
}

/// Reads a form.
async fn read(headers: &HeaderMap, body: Body) -> Result<Vec<u8>, Refusal> {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let problem = "expected the content type application/x-www-form-urlencoded";
        return Err(Refusal::new("invalid_request", problem));
    }
    let read = to_bytes(body, TOKEN_REQUEST_BYTES_MAX).await;
    let problem =
        || format!("the body breaks off, or has more than {TOKEN_REQUEST_BYTES_MAX} bytes");
    read.map(Into::into).map_err(|_| Refusal::new("invalid_request", problem()))
}
