//! Scrapes a server's metrics over HTTP/1.1.
//!
//! **Invariant**: a scrape takes at most [`SCRAPE_TIME_MAX`] and reads at most [`SCRAPE_BYTES_MAX`] of the
//! body, whatever the server does. Each scrape opens a connection of its own.

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::header::ACCEPT;
use hyper::{Request, Uri};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;

use super::sample::Sample;
use crate::limits::{SCRAPE_BYTES_MAX, SCRAPE_TIME_MAX};
use capstan_server::telemetry::metrics::Format;

/// The metrics of a server.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    /// The URL as it was given, with `http://`.
    pub(super) url: String,
    uri: Uri,
    client: Client<HttpConnector, Empty<Bytes>>,
}

impl Metrics {
    /// The metrics at `http://HOST:PORT`, or at `http://HOST:PORT/PATH`. `http://` may be omitted; the
    /// default port is 80, and the default path `/metrics`.
    ///
    /// # Errors
    ///
    /// The text is not of this form.
    pub(super) fn at(text: &str) -> anyhow::Result<Self> {
        let expected = || format!("`{text}` is no address of metrics: http://HOST:PORT");
        let url = if text.contains("://") { text.into() } else { format!("http://{text}") };
        let uri: Uri = url.parse().with_context(expected)?;
        let host = uri.host().unwrap_or_default();
        let authority = uri.port_u16().map_or_else(|| host.into(), |port| format!("{host}:{port}"));
        // The authority may also hold a user, or a port that is not a 16-bit number.
        let is_host_and_port = uri.authority().is_some_and(|found| *found == *authority);
        if !is_host_and_port || host.is_empty() || uri.scheme_str() != Some("http") {
            bail!(expected());
        }
        let uri = match uri.path_and_query().map_or("/", |path| path.as_str()) {
            "/" => format!("http://{authority}/metrics").parse().with_context(expected)?,
            _ => uri,
        };
        // No connection is kept: a kept one might belong to a server that has been replaced.
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
        Ok(Self { url, uri, client })
    }

    /// One scrape.
    ///
    /// # Errors
    ///
    /// There is no answer in time, or it is not the text of a Capstan server's metrics.
    pub(super) async fn sample(&self) -> anyhow::Result<Sample> {
        let answered = tokio::time::timeout(SCRAPE_TIME_MAX, self.text()).await;
        let answered = answered.with_context(|| format!("no answer in {SCRAPE_TIME_MAX:?}"));
        let unreachable =
            || format!("cannot reach {} (start a server: capstan serve --demo)", self.url);
        let text = answered.and_then(|text| text).with_context(unreachable)?;
        Sample::parse(&text).with_context(|| format!("cannot read the metrics of {}", self.url))
    }

    async fn text(&self) -> anyhow::Result<String> {
        let format = Format::OpenMetrics.content_type();
        let request = Request::get(&self.uri).header(ACCEPT, format).body(Empty::<Bytes>::new())?;
        let response = self.client.request(request).await?;
        let status = response.status();
        if !status.is_success() {
            bail!("it answers {status}");
        }
        let body = Limited::new(response.into_body(), SCRAPE_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!(error))?;
        String::from_utf8(body.to_bytes().into()).context("its metrics are not text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urls_of_metrics_have_defaults() {
        for (text, url, uri) in [
            ("http://127.0.0.1:4481", "http://127.0.0.1:4481", "http://127.0.0.1:4481/metrics"),
            ("pdp:9/", "http://pdp:9/", "http://pdp:9/metrics"),
            ("http://[::1]:1/a?b=c", "http://[::1]:1/a?b=c", "http://[::1]:1/a?b=c"),
            ("http://pdp", "http://pdp", "http://pdp/metrics"),
        ] {
            let metrics = Metrics::at(text).unwrap();
            assert_eq!((&*metrics.url, &*metrics.uri.to_string()), (url, uri), "{text}");
        }
        for wrong in [
            "",
            "https://pdp:9",
            "unix:/run/capstan.sock",
            "http://",
            "http://a b",
            "a:b@c:1",
            "pdp:99999",
        ] {
            let error = Metrics::at(wrong).unwrap_err().to_string();
            assert!(error.contains("is no address of metrics: http://HOST:PORT"), "{error}");
        }
    }
}
