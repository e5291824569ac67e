//! Scrapes a server's metrics over HTTP/1.1, with TLS where the URL says `https`.
//!
//! **Invariants**: a scrape takes at most [`SCRAPE_TIME_MAX`] and reads at most [`SCRAPE_BYTES_MAX`] of the
//! body, whatever the server does. Each scrape opens a connection of its own: a kept one might belong to a server that has been
//! replaced. An `https` URL is never asked in plain text.

use anyhow::{Context as _, bail, ensure};
use capstan_client::connector::{Protocol, TlsConnector};
use http_body_util::Full;
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, Uri};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::sample::Sample;
use crate::limits::{SCRAPE_BYTES_MAX, SCRAPE_TIME_MAX};
use crate::tls::TlsFiles;
use crate::{channel, http1};
use capstan_server::telemetry::metrics::Format;

/// The metrics of a server.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    /// The URL as it was given, with its scheme.
    pub(super) url: String,
    uri: Uri,
    /// `None` for a URL without TLS.
    tls: Option<TlsConnector>,
}

impl Metrics {
    /// The metrics at `http://HOST:PORT`, or at `http://HOST:PORT/PATH`, and the same with `https`. `http://` may be omitted; the
    /// default port is 80 or 443, and the default path `/metrics`.
    ///
    /// # Errors
    ///
    /// The text is not of this form, or these files of TLS cannot be used for it.
    pub(super) fn at(text: &str, files: &TlsFiles) -> anyhow::Result<Self> {
        let expected =
            || format!("`{text}` is no address of metrics: http://HOST:PORT or https://HOST:PORT");
        let url = if text.contains("://") { text.into() } else { format!("http://{text}") };
        let uri: Uri = url.parse().with_context(expected)?;
        let host = uri.host().unwrap_or_default();
        let authority = uri.port_u16().map_or_else(|| host.into(), |port| format!("{host}:{port}"));
        // The authority may also hold a user, or a port that is not a 16-bit number.
        let is_host_and_port = uri.authority().is_some_and(|found| *found == *authority);
        let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme));
        let Some(scheme) = scheme.filter(|_| is_host_and_port && !host.is_empty()) else {
            bail!(expected());
        };
        let is_tls = scheme == "https";
        ensure!(
            is_tls || files.is_empty(),
            "{url} has no TLS: --ca, --cert, --key and --server-name are for https://HOST:PORT"
        );
        let connector = || anyhow::Ok(TlsConnector::new(&files.load()?, host, Protocol::Http1)?);
        let tls = is_tls.then(connector).transpose()?;
        let uri = match uri.path_and_query().map_or("/", |path| path.as_str()) {
            "/" => format!("{scheme}://{authority}/metrics").parse().with_context(expected)?,
            _ => uri,
        };
        Ok(Self { url, uri, tls })
    }

    /// One scrape.
    ///
    /// # Errors
    ///
    /// There is no answer in time, or it is not the text of a Capstan server's metrics.
    pub(super) async fn sample(&self) -> anyhow::Result<Sample> {
        let answered = tokio::time::timeout(SCRAPE_TIME_MAX, self.text()).await;
        let answered = answered.with_context(|| format!("no answer in {SCRAPE_TIME_MAX:?}"));
        let text = answered.and_then(|text| text).map_err(|error| {
            let advice = channel::tls_advice(&error, self.tls.is_some());
            let advice = advice.unwrap_or("start a server: capstan serve --demo");
            error.context(format!("cannot reach {} ({advice})", self.url))
        })?;
        Sample::parse(&text).with_context(|| format!("cannot read the metrics of {}", self.url))
    }

    async fn text(&self) -> anyhow::Result<String> {
        let host = self.uri.host().unwrap_or_default();
        let default = if self.tls.is_some() { 443 } else { 80 };
        let port = self.uri.port_u16().unwrap_or(default);
        let stream = TcpStream::connect(format!("{host}:{port}")).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            Some(tls) => self.text_over(tls.connect(stream).await?).await,
            None => self.text_over(stream).await,
        }
    }

    async fn text_over(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> anyhow::Result<String> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self.uri.authority().map_or("", |authority| authority.as_str());
        let request = Request::get(path)
            .header(HOST, host)
            .header(ACCEPT, Format::OpenMetrics.content_type())
            .body(Full::default())?;
        let answer = http1::send(stream, request, SCRAPE_BYTES_MAX).await?;
        let status = answer.status();
        ensure!(status.is_success(), "it answers {status}");
        String::from_utf8(answer.into_body().into()).context("its metrics are not text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_metrics_have_defaults() {
        for (text, url, uri) in [
            ("http://127.0.0.1:4481", "http://127.0.0.1:4481", "http://127.0.0.1:4481/metrics"),
            ("pdp:9/", "http://pdp:9/", "http://pdp:9/metrics"),
            ("http://[::1]:1/a?b=c", "http://[::1]:1/a?b=c", "http://[::1]:1/a?b=c"),
            ("http://pdp", "http://pdp", "http://pdp/metrics"),
            ("HTTPS://pdp:9", "HTTPS://pdp:9", "https://pdp:9/metrics"),
            ("https://pdp/a", "https://pdp/a", "https://pdp/a"),
        ] {
            let metrics = Metrics::at(text, &TlsFiles::default()).unwrap();
            assert_eq!((&*metrics.url, &*metrics.uri.to_string()), (url, uri), "{text}");
        }
        for wrong in [
            "",
            "ftp://pdp:9",
            "grpc://pdp:9",
            "unix:/run/capstan.sock",
            "http://",
            "http://a b",
            "a:b@c:1",
            "pdp:99999",
        ] {
            let error = Metrics::at(wrong, &TlsFiles::default()).unwrap_err().to_string();
            assert!(error.contains("is no address of metrics: http://HOST:PORT"), "{error}");
        }
        let named = TlsFiles { server_name: Some("pdp".into()), ..TlsFiles::default() };
        assert!(Metrics::at("https://10.0.0.1:9", &named).is_ok());
        let error = Metrics::at("10.0.0.1:9", &named).unwrap_err().to_string();
        assert!(error.starts_with("http://10.0.0.1:9 has no TLS"), "{error}");
    }
}
