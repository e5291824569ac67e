//! A person at a browser: follows redirects, keeps cookies, and sends every form, with a name and a password where it asks for them.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use capstan_testkit::https::Authority;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use regex::Regex;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

static ACTION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r#"<form[^>]* action="([^"]+)""#).unwrap());
static INPUT: LazyLock<Regex> = LazyLock::new(|| Regex::new("<input[^>]*>").unwrap());

pub(super) struct Browser {
    tls: TlsConnector,
    cookies: BTreeMap<String, String>,
    /// Who logs in.
    name: &'static str,
}

impl Browser {
    pub(super) fn of(name: &'static str, authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { tls: TlsConnector::from(Arc::new(config)), cookies: BTreeMap::new(), name }
    }

    /// Goes to a page, and on until there is nothing to send. Returns the last page.
    pub(super) async fn go(&mut self, url: &str) -> String {
        let (mut url, mut form) = (url.to_owned(), None);
        for _ in 0..20 {
            let uri: Uri = url.parse().unwrap();
            let response = self.send(&uri, form.take()).await;
            if response.status().is_redirection() {
                let to = response.headers()["location"].to_str().unwrap();
                url = absolute(&uri, to);
                continue;
            }
            let status = response.status();
            let page = response.into_body().collect().await.unwrap().to_bytes();
            let page = String::from_utf8(page.to_vec()).unwrap();
            let Some(action) = ACTION.captures(&page) else {
                assert_eq!(status, StatusCode::OK, "{url}: {page}");
                return page;
            };
            url = absolute(&uri, &action[1]);
            form = Some(self.filled(&page));
        }
        panic!("the pages do not end: {url}")
    }

    /// The fields of a form.
    fn filled(&self, page: &str) -> String {
        let attribute = |input: &str, name: &str| {
            let (_, rest) = input.split_once(&format!(r#" {name}=""#))?;
            Some(rest.split('"').next().unwrap().to_owned())
        };
        let fields = INPUT.find_iter(page).filter_map(|input| {
            let name = attribute(input.as_str(), "name")?;
            let value = match &*name {
                "login" | "password" => self.name.to_owned(),
                _ => attribute(input.as_str(), "value")?,
            };
            Some(format!("{name}={value}"))
        });
        fields.collect::<Vec<_>>().join("&")
    }

    async fn send(&mut self, uri: &Uri, form: Option<String>) -> Response<hyper::body::Incoming> {
        let authority = uri.authority().unwrap();
        let stream = TcpStream::connect(authority.as_str()).await.unwrap();
        let cookies: Vec<_> =
            self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::get(uri.path_and_query().unwrap().as_str())
            .header("host", authority.as_str())
            .header("cookie", cookies.join("; "));
        if form.is_some() {
            request =
                request.method("POST").header("content-type", "application/x-www-form-urlencoded");
        }
        let request = request.body(Full::new(Bytes::from(form.unwrap_or_default()))).unwrap();
        let response = if uri.scheme_str() == Some("https") {
            let name = ServerName::try_from(uri.host().unwrap().to_owned()).unwrap();
            exchange(self.tls.connect(name, stream).await.unwrap(), request).await
        } else {
            // Only the command line's own address is in plain text.
            assert_eq!(uri.host(), Some("127.0.0.1"), "{uri}");
            exchange(stream, request).await
        };
        for cookie in response.headers().get_all("set-cookie") {
            let (pair, _) = cookie.to_str().unwrap().split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            match value {
                "" => self.cookies.remove(name),
                value => self.cookies.insert(name.to_owned(), value.to_owned()),
            };
        }
        response
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Response<hyper::body::Incoming>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(connection);
    sender.send_request(request).await.unwrap()
}

fn absolute(from: &Uri, to: &str) -> String {
    if to.contains("://") {
        return to.to_owned();
    }
    format!("{}://{}{to}", from.scheme_str().unwrap(), from.authority().unwrap())
}
