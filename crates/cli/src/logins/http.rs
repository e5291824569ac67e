//! Requests to an issuer: each over a connection of its own.
//!
//! ```text
//! Endpoint ─▶ lookup ─▶ TCP ─▶ TLS, unless it is this machine ─▶ request ─▶ status and body: Answer
//!    └ LOGIN_REQUEST_TIME_MAX for all of it                                  └ at most LOGIN_BODY_BYTES_MAX
//! ```
//!
//! **Invariants**: certificates are always verified. Redirects are not followed, cookies are not kept, bodies not decompressed, and
//! no proxy is asked: a request goes to the host of its URL or fails. What is sent is in no error.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow, bail};
use capstan_client::TlsOptions;
use capstan_client::connector::{Protocol, TlsConnector};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, LOCATION, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::endpoint::Endpoint;
use crate::limits::{LOGIN_BODY_BYTES_MAX, LOGIN_REQUEST_TIME_MAX};
use crate::{http1, tls};

const AGENT: HeaderValue = HeaderValue::from_static(concat!("capstan/", env!("CARGO_PKG_VERSION")));
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Asks issuers.
pub(super) struct Http {
    /// The file of the authorities that are trusted instead of the system's.
    ca: Option<PathBuf>,
}

/// What an issuer answered.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

impl Http {
    pub(super) fn new(ca: Option<&Path>) -> Self {
        Self { ca: ca.map(Path::to_owned) }
    }

    /// # Errors
    ///
    /// There is no whole answer in time, or it is a redirect.
    pub(super) async fn get(&self, url: &Endpoint) -> anyhow::Result<Answer> {
        self.send(url, self.request(url, Method::GET, String::new())?).await
    }

    /// Sends a form, and an `Authorization`.
    ///
    /// # Errors
    ///
    /// As of [`Http::get`].
    pub(super) async fn post(
        &self,
        url: &Endpoint,
        form: String,
        authorization: Option<HeaderValue>,
    ) -> anyhow::Result<Answer> {
        let mut request = self.request(url, Method::POST, form)?;
        request.headers_mut().insert(CONTENT_TYPE, FORM);
        if let Some(value) = authorization {
            request.headers_mut().insert(AUTHORIZATION, value);
        }
        self.send(url, request).await
    }

    fn request(
        &self,
        url: &Endpoint,
        method: Method,
        body: String,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = method;
        *request.uri_mut() = url.target().parse().with_context(|| format!("{url}"))?;
        let headers = request.headers_mut();
        headers.insert(HOST, url.authority().parse().with_context(|| format!("{url}"))?);
        headers.insert(USER_AGENT, AGENT);
        headers.insert(ACCEPT, JSON);
        Ok(request)
    }

    async fn send(&self, url: &Endpoint, request: Request<Full<Bytes>>) -> anyhow::Result<Answer> {
        let exchanged = timeout(LOGIN_REQUEST_TIME_MAX, self.exchange(url, request)).await;
        exchanged
            .map_err(|_| anyhow!("no answer within {LOGIN_REQUEST_TIME_MAX:?}"))
            .flatten()
            .with_context(|| format!("cannot ask {url}"))
    }

    async fn exchange(
        &self,
        url: &Endpoint,
        request: Request<Full<Bytes>>,
    ) -> anyhow::Result<Answer> {
        let (host, port) = url.host_and_port()?;
        let stream = connect(&host, port, url.is_tls()).await?;
        if !url.is_tls() {
            return answer(stream, request).await;
        }
        let authorities = self.ca.as_deref().map(tls::read).transpose()?;
        let options = TlsOptions { authorities, ..TlsOptions::default() };
        let connector = TlsConnector::new(&options, &host, Protocol::Http1)?;
        let stream = connector.connect(stream).await.map_err(|error| {
            anyhow!("{error}: is its certificate of another authority? give --ca")
        })?;
        answer(stream, request).await
    }
}

/// A connection to the first address of the host that accepts one; in plain text only to this machine, whatever its name says.
async fn connect(host: &str, port: u16, is_tls: bool) -> anyhow::Result<TcpStream> {
    let mut last = anyhow!("{host} has no address{}", if is_tls { "" } else { " of this machine" });
    for address in lookup_host((host, port)).await? {
        if !is_tls && !address.ip().is_loopback() {
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = anyhow!("{address}: {error}"),
        }
    }
    Err(last)
}

async fn answer<S>(stream: S, request: Request<Full<Bytes>>) -> anyhow::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (head, body) = http1::send(stream, request, LOGIN_BODY_BYTES_MAX).await?.into_parts();
    if head.status.is_redirection() {
        let to = head.headers.get(LOCATION).and_then(|to| to.to_str().ok());
        let to = to.map_or("elsewhere", |to| to.split(['?', '#']).next().unwrap_or_default());
        bail!(
            "it redirects ({}) to {}, and redirects are not followed",
            head.status.as_u16(),
            capstan_engine::quote(to)
        );
    }
    Ok(Answer { status: head.status, body })
}
