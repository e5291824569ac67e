//! Receives Capstan's events: verifies each, prints it as one line of JSON, and drops repetitions.
//!
//! ```text
//! cargo run -p capstan-events --example receiver -- --issuer https://iam.example.com \
//!     --audience https://hooks.example.com --group acme --cert cert.pem --key key.pem [--port 8443]
//! ```
//!
//! It uses nothing of Capstan. What to copy: `Keys`, `verify` and `receive`. See `deploy/examples/webhook/README.md`.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "an example: it prints, and owns its runtime"
)]

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use serde::Deserialize;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use url::Url;

type AnyError = Box<dyn Error + Send + Sync>;

const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
const KEYS_BYTES_MAX: usize = 64 * 1024;
const KEYS_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Strangers can name any key: unknown ones are not looked for more often.
const KEYS_AGE_MIN: Duration = Duration::from_secs(30);
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
const IDS_MAX: usize = 100_000;

/// The claims of a token. A claim that is absent, twice, or of another type is an error.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    sub: String,
    aud: String,
    jti: String,
    webhook: Webhook,
}

#[derive(Deserialize)]
struct Webhook {
    digest: String,
}

/// What to answer instead of 204.
struct Refused(StatusCode, String);

#[expect(clippy::needless_pass_by_value, reason = "`map_err` passes errors by value")]
fn unauthorized(why: impl ToString) -> Refused {
    Refused(StatusCode::UNAUTHORIZED, why.to_string())
}

struct Receiver {
    issuer: String,
    audience: String,
    subject: String,
    origin: String,
    keys: Keys,
    /// Keep the ids in your database, in one transaction with what you do with the events.
    seen: Mutex<HashSet<String>>,
}

impl Receiver {
    /// Verifies the token: signature, type, issuer, audience, subject, times, and the digest of the body.
    async fn verify(&self, headers: &HeaderMap, body: &[u8]) -> Result<Claims, Refused> {
        let authorization = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, token) = authorization
            .and_then(|value| value.split_once(' '))
            .ok_or_else(|| unauthorized("no bearer token"))?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(unauthorized("no bearer token"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(unauthorized)?;
        if header.typ.as_deref() != Some("capstan-webhook+jwt") {
            return Err(unauthorized("the token is of another type"));
        }
        let key = self.keys.get(&header.kid.unwrap_or_default()).await?;
        // The key decides the algorithm, not the token.
        let algorithm = match key.algorithm {
            AlgorithmParameters::OctetKeyPair(_) => Algorithm::EdDSA,
            _ => Algorithm::ES256,
        };
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[&self.audience]);
        let key = DecodingKey::from_jwk(&key).map_err(unauthorized)?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &validation);
        let claims = claims.map_err(unauthorized)?.claims;
        let expected = (&self.issuer, &self.audience, &self.subject);
        if (&claims.iss, &claims.aud, &claims.sub) != expected {
            return Err(unauthorized("the token is for others"));
        }
        let digest = HEXLOWER.encode(digest::digest(&digest::SHA256, body).as_ref());
        // Both are known to the sender: no secret to guess, so any comparison will do.
        if claims.webhook.digest != format!("sha256:{digest}") {
            return Err(unauthorized("the token is for another body"));
        }
        Ok(claims)
    }

    /// Verifies a delivery. Returns the event as a line, or `None` if it was here before.
    async fn receive(&self, request: Request<Incoming>) -> Result<Option<String>, Refused> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX).collect();
        let body = tokio::time::timeout(BODY_TIME_MAX, body).await;
        let body = body.map_err(|error| Refused(StatusCode::REQUEST_TIMEOUT, error.to_string()))?;
        let body =
            body.map_err(|error| Refused(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()))?;
        let body = body.to_bytes();
        let claims = self.verify(&head.headers, &body).await?;
        let attribute = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let malformed =
            |why: &str| Refused(StatusCode::BAD_REQUEST, format!("no CloudEvent: {why}"));
        if attribute("ce-specversion") != Some("1.0") {
            return Err(malformed("another version"));
        }
        if attribute(CONTENT_TYPE.as_str()) != Some("application/json") {
            return Err(malformed("not JSON"));
        }
        // The token is for one event: without this, the token of one proves another with an equal body.
        let (id, source) = (attribute("ce-id"), attribute("ce-source"));
        if id != Some(&claims.jti) || source != Some(&self.issuer) {
            return Err(unauthorized("the token is for another event"));
        }
        let data: Value =
            serde_json::from_slice(&body).map_err(|error| malformed(&error.to_string()))?;
        let line = serde_json::json!({
            "id": id,
            "type": attribute("ce-type").ok_or_else(|| malformed("no type"))?,
            "subject": attribute("ce-subject"),
            "group": attribute("ce-group"),
            "data": data,
        });
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= IDS_MAX {
            seen.clear();
        }
        Ok(seen.insert(claims.jti).then(|| line.to_string()))
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Empty<Bytes>> {
        let mut response = Response::new(Empty::new());
        *response.status_mut() = StatusCode::NO_CONTENT;
        if *request.method() == Method::OPTIONS {
            // Consents to deliveries from Capstan, and from nobody else.
            let asks = request.headers().get("webhook-request-origin").cloned();
            let headers = response.headers_mut();
            headers.insert(ALLOW, http::HeaderValue::from_static("OPTIONS, POST"));
            if let Some(us) =
                asks.filter(|asks| asks.as_bytes().eq_ignore_ascii_case(self.origin.as_bytes()))
            {
                headers.insert("webhook-allowed-origin", us);
                headers.insert("webhook-allowed-rate", http::HeaderValue::from_static("*"));
            }
        } else if *request.method() == Method::POST {
            match self.receive(request).await {
                Ok(Some(line)) => println!("{line}"),
                Ok(None) => {}
                Err(Refused(status, why)) => {
                    eprintln!("refused: {why}");
                    *response.status_mut() = status;
                }
            }
        } else {
            *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
        }
        response
    }
}

/// The keys that Capstan publishes, fetched when they are needed.
struct Keys {
    url: Url,
    tls: TlsConnector,
    held: tokio::sync::Mutex<Option<(Instant, HashMap<String, Jwk>)>>,
}

impl Keys {
    async fn get(&self, kid: &str) -> Result<Jwk, Refused> {
        let mut held = self.held.lock().await;
        let age = held.as_ref().map(|(fetched, _)| fetched.elapsed());
        let known = held.as_ref().and_then(|(_, keys)| keys.get(kid)).cloned();
        let least = if known.is_some() { KEYS_AGE_MAX } else { KEYS_AGE_MIN };
        if age.is_some_and(|age| age < least) {
            return known.ok_or_else(|| unauthorized("unknown key"));
        }
        let fetched = tokio::time::timeout(HANDSHAKE_TIME_MAX, self.fetch()).await;
        // Capstan tries again later.
        let unavailable =
            |error: AnyError| Refused(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
        let set = fetched.map_err(|error| unavailable(error.into()))?.map_err(unavailable)?;
        let by_kid = set.keys.into_iter().filter_map(|key| Some((key.common.key_id.clone()?, key)));
        let keys: HashMap<_, _> = by_kid.collect();
        let key = keys.get(kid).cloned();
        *held = Some((Instant::now(), keys));
        key.ok_or_else(|| unauthorized("unknown key"))
    }

    async fn fetch(&self) -> Result<JwkSet, AnyError> {
        let host = self.url.host_str().ok_or("no host")?.to_owned();
        let port = self.url.port_or_known_default().unwrap_or(443);
        let stream = TcpStream::connect((&*host, port)).await?;
        let stream = self.tls.connect(host.clone().try_into()?, stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = Request::get(self.url.path())
            .header(HOST, format!("{host}:{port}"))
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("the keys: status {}", response.status()).into());
        }
        let body = Limited::new(response.into_body(), KEYS_BYTES_MAX).collect().await?;
        Ok(serde_json::from_slice(&body.to_bytes())?)
    }
}

#[tokio::main]
async fn main() -> Result<(), AnyError> {
    let mut options: HashMap<String, String> = HashMap::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        options.insert(name, arguments.next().ok_or("an option without a value")?);
    }
    let option = |name: &str| options.get(name).cloned().ok_or(format!("{name} is missing"));

    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let certificates =
        CertificateDer::pem_file_iter(option("--cert")?)?.collect::<Result<Vec<_>, _>>()?;
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, PrivateKeyDer::from_pem_file(option("--key")?)?)?;

    let issuer = option("--issuer")?;
    let url = Url::parse(&format!("{issuer}/.well-known/jwks.json"))?;
    let receiver = Arc::new(Receiver {
        audience: option("--audience")?,
        subject: format!("webhook:{}", option("--group")?),
        origin: url.host_str().ok_or("the issuer has no host")?.to_owned(),
        keys: Keys { url, tls: TlsConnector::from(Arc::new(client)), held: None.into() },
        seen: Mutex::default(),
        issuer,
    });
    let port: u16 = option("--port").unwrap_or_else(|_| "8443".into()).parse()?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?;
    eprintln!("listening on port {}", listener.local_addr()?.port());
    let acceptor = TlsAcceptor::from(Arc::new(server));
    loop {
        let (stream, _) = listener.accept().await?;
        let (acceptor, receiver) = (acceptor.clone(), Arc::clone(&receiver));
        tokio::spawn(async move {
            let handshake = tokio::time::timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream)).await;
            let Ok(Ok(stream)) = handshake else { return };
            let answer = service_fn(|request| {
                let receiver = &receiver;
                async move { Ok::<_, std::convert::Infallible>(receiver.answer(request).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), answer)
                .await;
            if let Err(error) = served {
                eprintln!("connection: {error}");
            }
        });
    }
}
