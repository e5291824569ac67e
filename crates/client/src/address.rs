//! Addresses of servers: one parser for the client, the command line and the load generator.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use thiserror::Error;
use tonic::codegen::http::uri::{Authority, Uri};
use tonic::transport::{Channel, Endpoint};

use crate::limits::{CONNECT_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};

/// The address of a server to connect to, over HTTP/2 without TLS.
///
/// Parsed from text with [`FromStr`], in one of these forms:
///
/// - `http://HOST:PORT` or `HOST:PORT`: TCP. HOST is a name, an IPv4 address, or an IPv6 address in
///   brackets. PORT is required. A single `/` may follow.
/// - `unix:PATH`: a Unix domain socket.
///
/// [`Display`](fmt::Display) prints the first or the last form.
///
/// ```
/// use capstan_client::ServerAddress;
///
/// let address: ServerAddress = "localhost:4480".parse()?;
/// assert_eq!(address.to_string(), "http://localhost:4480");
/// assert!("https://localhost:4480".parse::<ServerAddress>().is_err());
/// # Ok::<(), capstan_client::ParseAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddress(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// `HOST:PORT`; always a valid [`Authority`].
    Tcp(String),
    /// The path of the socket; never empty.
    Unix(String),
}

/// The text is not a [`ServerAddress`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no address: {advice}http://HOST:PORT or unix:PATH", advice = advice(.0))]
pub struct ParseAddressError(
    /// The text.
    pub String,
);

/// What is wrong with the scheme of a text that is no address; empty if the scheme is not the problem.
fn advice(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("http") => String::new(),
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
            "TLS is not supported yet, and nothing is sent in plain text instead. Give ".into()
        }
        Some((scheme, _)) => format!("the scheme `{scheme}` is not supported. Give "),
        None => String::new(),
    }
}

/// The text after `http://`, in any case (RFC 3986, section 3.1); the whole text if it has no scheme.
fn without_scheme(text: &str) -> &str {
    match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
        _ => text,
    }
}

impl FromStr for ServerAddress {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let invalid = || ParseAddressError(text.into());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(invalid())
            } else {
                Ok(Self(Kind::Unix(path.into())))
            };
        }
        let rest = without_scheme(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let authority: Authority = rest.parse().map_err(|_| invalid())?;
        let has_host = !authority.host().is_empty() && !rest.contains('@');
        if has_host && authority.port_u16().is_some() {
            Ok(Self(Kind::Tcp(rest.into())))
        } else {
            Err(invalid())
        }
    }
}

impl ServerAddress {
    /// The value of `:authority` in requests to this server: `HOST:PORT`, or `localhost` for a Unix
    /// domain socket.
    #[must_use]
    pub fn authority(&self) -> &str {
        match &self.0 {
            Kind::Tcp(authority) => authority,
            Kind::Unix(_) => "localhost",
        }
    }

    /// The path of the Unix domain socket; `None` for TCP.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Tcp(_) => None,
            Kind::Unix(path) => Some(Path::new(path)),
        }
    }

    /// A tonic endpoint for this address, with tonic's default options.
    ///
    /// # Errors
    ///
    /// tonic does not accept the address. No text that this type parses is known to cause that.
    pub fn endpoint(&self) -> Result<Endpoint, ParseAddressError> {
        let url = self.to_string();
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|_| ParseAddressError(url))?;
        Ok(match self.0 {
            Kind::Tcp(_) => endpoint,
            // tonic would send a name of its own as `:authority`.
            Kind::Unix(_) => endpoint.origin(Uri::from_static("http://localhost")),
        })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Tcp(authority) => write!(f, "http://{authority}"),
            Kind::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// The endpoint of the client's own connections, with its timeouts and keepalive.
pub(crate) fn client_endpoint(address: &ServerAddress) -> Result<Endpoint, ParseAddressError> {
    Ok(address
        .endpoint()?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// Opens a connection. The error is a text for [`Error::DeadlineExceeded`](crate::Error).
pub(crate) async fn connect(endpoint: &Endpoint) -> Result<Channel, String> {
    endpoint.connect().await.map_err(|error| format!("cannot connect: {}", chain(&error)))
}

/// The messages of an error and of its sources, joined by `: `. tonic's outer messages alone do not
/// name the cause.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let message = error.to_string();
        // Some wrappers already end with the message of their source.
        if !text.ends_with(&message) {
            text = format!("{text}: {message}");
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_form_is_parsed_and_printed() {
        for (text, printed, authority) in [
            ("http://127.0.0.1:4480", "http://127.0.0.1:4480", "127.0.0.1:4480"),
            ("http://[::1]:4480/", "http://[::1]:4480", "[::1]:4480"),
            ("127.0.0.1:4480", "http://127.0.0.1:4480", "127.0.0.1:4480"),
            ("HTTP://localhost:1", "http://localhost:1", "localhost:1"),
            ("localhost:1", "http://localhost:1", "localhost:1"),
            ("unix:/run/c.sock", "unix:/run/c.sock", "localhost"),
            ("unix:c.sock", "unix:c.sock", "localhost"),
        ] {
            let address: ServerAddress = text.parse().unwrap();
            assert_eq!((&*address.to_string(), address.authority()), (printed, authority));
            assert!(client_endpoint(&address).is_ok(), "{text}");
            let path = text.strip_prefix("unix:").map(Path::new);
            assert_eq!(address.unix_path(), path, "{text}");
        }
    }

    #[test]
    fn every_other_text_is_an_error_that_says_what_to_give() {
        for text in [
            "",
            "unix:",
            "https://a:1",
            "HTTPS://a:1",
            "grpc://a:1",
            "https://unix:a",
            "://a:1",
            "ftp://a:1",
            "http://",
            "http://a b",
            "http://a b:1",
            "http://a",
            "http://a/b:1",
            "http://user@a:1",
            "a:99999",
            "a",
            ":1",
            "::",
            "/run/c",
        ] {
            let error = text.parse::<ServerAddress>().unwrap_err();
            assert_eq!(error, ParseAddressError(text.into()));
            assert!(error.to_string().ends_with("http://HOST:PORT or unix:PATH"), "{error}");
        }
        let error = |text: &str| text.parse::<ServerAddress>().unwrap_err().to_string();
        assert!(error("HttpS://a:1").contains("TLS is not supported"), "{}", error("HttpS://a:1"));
        assert!(error("ftp://a:1").contains("the scheme `ftp` is not supported"));
    }
}
