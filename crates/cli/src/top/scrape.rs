//! Asking a server for its metrics over HTTP/1.1.
//!
//! **Invariant**: a scrape ends within [`SCRAPE_TIME_MAX`] and reads at most [`SCRAPE_BYTES_MAX`],
//! whatever answers. Each has a connection of its own, so that none outlives a server that goes.

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, HOST};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::sample::Sample;
use capstan_server::limits::{SCRAPE_BYTES_MAX, SCRAPE_TIME_MAX};
use capstan_server::telemetry::metrics::CONTENT_TYPE;

/// Where a server's metrics are.
#[derive(Clone, Debug)]
pub(super) struct Metrics {
    /// As people write it.
    pub(super) url: String,
    /// HOST:PORT.
    address: String,
    path: String,
}

impl Metrics {
    /// The metrics at http://HOST:PORT, or at a path there if it names one.
    pub(super) fn at(text: &str) -> anyhow::Result<Self> {
        let expected = || format!("`{text}` is no address of metrics: http://HOST:PORT");
        let url = if text.contains("://") { text.into() } else { format!("http://{text}") };
        let uri: Uri = url.parse().with_context(expected)?;
        let (host, port) = (uri.host().unwrap_or_default(), uri.port_u16());
        let address = format!("{host}:{}", port.unwrap_or(80));
        let named = uri.authority().map(|authority| authority.as_str());
        // A user, or a port that is none, is in the authority and not in the address.
        let is_whole = named == Some(if port.is_some() { &address } else { host });
        if !is_whole || host.is_empty() || uri.scheme_str() != Some("http") {
            bail!(expected());
        }
        let path = match uri.path_and_query().map_or("/", |path| path.as_str()) {
            "/" => "/metrics".into(),
            path => path.into(),
        };
        Ok(Self { url, address, path })
    }

    /// What the server has counted until now.
    pub(super) async fn sample(&self) -> anyhow::Result<Sample> {
        let answered = tokio::time::timeout(SCRAPE_TIME_MAX, self.text()).await;
        let answered = answered.with_context(|| format!("no answer in {SCRAPE_TIME_MAX:?}"));
        let unreachable =
            || format!("cannot reach {} (start a server: capstan serve --demo)", self.url);
        let text = answered.and_then(|text| text).with_context(unreachable)?;
        Sample::parse(&text).with_context(|| format!("{} does not tell what it does", self.url))
    }

    async fn text(&self) -> anyhow::Result<String> {
        let stream = TcpStream::connect(&self.address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::get(&self.path)
            .header(HOST, &self.address)
            .header(ACCEPT, CONTENT_TYPE)
            .body(Empty::<Bytes>::new())?;
        // Ends the connection too: nobody can send on it any more.
        let answer = async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            if !status.is_success() {
                bail!("it answers {status}");
            }
            let body = Limited::new(response.into_body(), SCRAPE_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!(error))?;
            String::from_utf8(body.to_bytes().into()).context("its metrics are not text")
        };
        // What goes wrong with the connection is told by the answer.
        let (_, answer) = tokio::join!(connection, answer);
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_named_by_a_servers_address() {
        for (text, url, address, path) in [
            ("http://127.0.0.1:4481", "http://127.0.0.1:4481", "127.0.0.1:4481", "/metrics"),
            ("pdp:9/", "http://pdp:9/", "pdp:9", "/metrics"),
            ("http://[::1]:1/a?b=c", "http://[::1]:1/a?b=c", "[::1]:1", "/a?b=c"),
            ("http://pdp", "http://pdp", "pdp:80", "/metrics"),
        ] {
            let metrics = Metrics::at(text).unwrap();
            let found = (&*metrics.url, &*metrics.address, &*metrics.path);
            assert_eq!(found, (url, address, path), "{text}");
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
