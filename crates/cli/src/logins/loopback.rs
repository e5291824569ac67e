//! Waits for the browser to come back from an issuer, at a port of this machine (RFC 8252, section 7.3).
//!
//! ```text
//! browser ─▶ GET /callback?code=…&state=… ─▶ this host? this path? this state? ─▶ Callback ─▶ page: "return to the terminal"
//!                                                 └ no: 404 or 400, and the wait goes on
//! ```
//!
//! **Invariants**: only 127.0.0.1 is listened at, for one login. Only an answer with the login's own state ends the wait, so that
//! no page and no program that does not know it can end or replace a login. Pages show nothing of the request.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, bail};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, HeaderValue, REFERRER_POLICY,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use url::form_urlencoded;

use super::secret::Secret;
use crate::limits::{
    BROWSER_CONNECTION_TIME_MAX, BROWSER_CONNECTIONS_MAX, BROWSER_HEAD_BYTES_MAX, BROWSER_TIME_MAX,
};
use crate::output;

const PATH: &str = "/callback";

const DONE: &str = "The login goes on in the terminal. This window can be closed.";
const OTHER: &str = "This is not the answer that the login in the terminal waits for.";

/// Where the browser comes back to.
pub(super) struct Loopback {
    listener: TcpListener,
    address: SocketAddr,
}

/// With what it comes back: not judged yet, but for its state.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Callback {
    pub(super) code: Option<Secret>,
    pub(super) error: Option<String>,
    pub(super) error_description: Option<String>,
    /// The issuer that sent it (RFC 9207).
    pub(super) issuer: Option<String>,
}

/// Why a request is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unfit {
    NotFound,
    /// Of another login, or ambiguous.
    Other,
}

impl Loopback {
    /// Listens at a port; 0 for any.
    ///
    /// # Errors
    ///
    /// The port is taken.
    pub(super) async fn bind(port: u16) -> anyhow::Result<Self> {
        let what = || format!("cannot listen at 127.0.0.1:{port} for the browser");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(what)?;
        let address = listener.local_addr().with_context(what)?;
        Ok(Self { listener, address })
    }

    /// The URL that the browser is sent back to.
    pub(super) fn redirect_uri(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// Waits for the answer with this state.
    ///
    /// # Errors
    ///
    /// It does not come within [`BROWSER_TIME_MAX`].
    pub(super) async fn wait(self, state: &Secret) -> anyhow::Result<Callback> {
        match timeout(BROWSER_TIME_MAX, self.answered(state)).await {
            Ok(found) => found,
            Err(_) => bail!("the browser did not come back within {BROWSER_TIME_MAX:?}"),
        }
    }

    async fn answered(&self, state: &Secret) -> anyhow::Result<Callback> {
        let mut connections = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(found) = connections.next() => if let Some(found) = found { return Ok(found) },
                accepted = self.listener.accept(), if connections.len() < BROWSER_CONNECTIONS_MAX => {
                    let (stream, _) = accepted.context("cannot accept the browser")?;
                    connections.push(self.serve(stream, state));
                }
            }
        }
    }

    /// One connection, to its end; with the answer if it brought that.
    async fn serve(&self, stream: TcpStream, state: &Secret) -> Option<Callback> {
        let found = Arc::new(Mutex::new(None));
        let (keep, authority) = (Arc::clone(&found), self.address.to_string());
        let service = service_fn(move |request: Request<Incoming>| {
            let (status, text) = match judge(&request, &authority, state) {
                Ok(callback) => {
                    *keep.lock().unwrap_or_else(PoisonError::into_inner) = Some(callback);
                    (StatusCode::OK, DONE)
                }
                Err(Unfit::NotFound) => (StatusCode::NOT_FOUND, OTHER),
                Err(Unfit::Other) => {
                    // Standard error may be closed.
                    let _ = output::note("an answer that is not of this login was refused");
                    (StatusCode::BAD_REQUEST, OTHER)
                }
            };
            std::future::ready(Ok::<_, std::convert::Infallible>(page(status, text)))
        });
        // One request a connection: it ends once its page is sent.
        let mut http = http1::Builder::new();
        let http = http.keep_alive(false).max_buf_size(BROWSER_HEAD_BYTES_MAX);
        let http = http.timer(TokioTimer::new()).header_read_timeout(BROWSER_CONNECTION_TIME_MAX);
        let connection = http.serve_connection(TokioIo::new(stream), service);
        // What a connection breaks by is the browser's.
        let _ = timeout(BROWSER_CONNECTION_TIME_MAX, connection).await;
        found.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

fn judge<B>(request: &Request<B>, authority: &str, state: &Secret) -> Result<Callback, Unfit> {
    if request.uri().path() != PATH || request.method() != Method::GET {
        return Err(Unfit::NotFound);
    }
    // A page of another site that had its name point here would have that name (DNS rebinding).
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    if host != Some(authority) {
        return Err(Unfit::Other);
    }
    let (mut callback, mut found_state) = (Callback::default(), None);
    for (name, value) in form_urlencoded::parse(request.uri().query().unwrap_or("").as_bytes()) {
        let value = value.into_owned();
        // A parameter is there once (RFC 6749, section 3.1).
        let before = match &*name {
            "state" => found_state.replace(value),
            "code" => callback.code.replace(Secret::new(value)).map(|_| String::new()),
            "error" => callback.error.replace(value),
            "error_description" => callback.error_description.replace(value),
            "iss" => callback.issuer.replace(value),
            _ => None,
        };
        if before.is_some() {
            return Err(Unfit::Other);
        }
    }
    if found_state.as_deref() == Some(state.expose()) { Ok(callback) } else { Err(Unfit::Other) }
}

fn page(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let html = format!("<!doctype html><meta charset=utf-8><title>capstan</title><p>{text}</p>\n");
    let mut page = Response::new(Full::new(Bytes::from(html)));
    *page.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        page.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    page
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn judged(method: &str, target: &str, host: &str) -> Result<Callback, Unfit> {
        let request = Request::builder().method(method).uri(target).header(HOST, host);
        judge(&request.body(()).unwrap(), "127.0.0.1:9", &Secret::new("s+t"))
    }

    #[test]
    fn only_the_answer_with_the_state_counts() {
        let found = judged("GET", "/callback?code=c%2B1&state=s%2Bt&iss=i", "127.0.0.1:9").unwrap();
        assert_eq!(found.code, Some(Secret::new("c+1")));
        assert_eq!(found.issuer.as_deref(), Some("i"));
        let found = judged("GET", "/callback?error=access_denied&state=s%2Bt", "127.0.0.1:9");
        assert_eq!(found.unwrap().error.as_deref(), Some("access_denied"));
        for (method, target, host, unfit) in [
            ("GET", "/favicon.ico", "127.0.0.1:9", Unfit::NotFound),
            ("POST", "/callback?code=c&state=s%2Bt", "127.0.0.1:9", Unfit::NotFound),
            ("GET", "/callback?code=c&state=s%2Bt", "evil.example:9", Unfit::Other),
            ("GET", "/callback?code=c&state=s", "127.0.0.1:9", Unfit::Other),
            ("GET", "/callback?code=c&state=", "127.0.0.1:9", Unfit::Other),
            ("GET", "/callback?code=c", "127.0.0.1:9", Unfit::Other),
            ("GET", "/callback", "127.0.0.1:9", Unfit::Other),
            ("GET", "/callback?code=c&code=d&state=s%2Bt", "127.0.0.1:9", Unfit::Other),
            ("GET", "/callback?code=c&state=s%2Bt&state=x", "127.0.0.1:9", Unfit::Other),
        ] {
            assert_eq!(judged(method, target, host), Err(unfit), "{method} {target} {host}");
        }
    }

    /// Browsers open connections that they do not use.
    #[tokio::test]
    async fn idle_connections_and_wrong_answers_do_not_end_the_wait() {
        let loopback = Loopback::bind(0).await.unwrap();
        let address = loopback.address;
        assert_eq!(loopback.redirect_uri(), format!("http://{address}/callback"));
        let state = Secret::random().unwrap();
        let ask = async |target: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let request = format!("GET {target} HTTP/1.1\r\nhost: {address}\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut text = String::new();
            // Closed early, if the request is not read to its end.
            let _ = stream.read_to_string(&mut text).await;
            text
        };
        let browser = async {
            let mut idle = Vec::new();
            for _ in 1..BROWSER_CONNECTIONS_MAX {
                idle.push(TcpStream::connect(address).await.unwrap());
            }
            assert!(ask("/callback?code=c&state=guess").await.starts_with("HTTP/1.1 400 "));
            let long = format!("/callback?code={}", "x".repeat(BROWSER_HEAD_BYTES_MAX * 2));
            let refused = ask(&long).await;
            assert!(refused.is_empty() || refused.starts_with("HTTP/1.1 4"), "{refused}");
            let right = format!("/callback?code=c&state={}", state.expose());
            let page = ask(&right).await;
            assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("terminal"), "{page}");
        };
        let (found, ()) = tokio::join!(loopback.wait(&state), browser);
        assert_eq!(found.unwrap().code, Some(Secret::new("c")));
    }
}
