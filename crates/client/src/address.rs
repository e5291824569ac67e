//! Addresses of servers: one parser for the client, the command line and the load generator.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::str::FromStr;

use thiserror::Error;
use tonic::codegen::http::uri::{Authority, Uri};
use tonic::transport::{Channel, Endpoint};

use crate::error::ConnectError;
use crate::limits::{CONNECT_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};
use crate::tls::TlsOptions;

/// The address of a server to connect to, over HTTP/2.
///
/// Parsed from text with [`FromStr`], in one of these forms:
///
/// - `http://HOST:PORT` or `HOST:PORT`: TCP without TLS. HOST is a name, an IPv4 address, or an IPv6 address in
///   brackets. PORT is required. A single `/` may follow.
/// - `https://HOST:PORT`: the same with TLS. Nothing is ever sent in plain text instead.
/// - `unix:PATH`: a Unix domain socket.
///
/// [`Display`](fmt::Display) prints the first, the third or the last form.
///
/// ```
/// use capstan_client::ServerAddress;
///
/// let address: ServerAddress = "localhost:4480".parse()?;
/// assert_eq!(address.to_string(), "http://localhost:4480");
/// assert!("https://localhost:4480".parse::<ServerAddress>()?.is_tls());
/// # Ok::<(), capstan_client::ParseAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerAddress(Kind);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// `HOST:PORT`; always a valid [`Authority`].
    Tcp(String),
    /// The same with TLS.
    Tls(String),
    /// The path of the socket; never empty.
    Unix(String),
}

/// The text is not a [`ServerAddress`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no address: {advice}http://HOST:PORT, https://HOST:PORT or unix:PATH", advice = advice(.0))]
pub struct ParseAddressError(
    /// The text.
    pub String,
);

/// What is wrong with the scheme of a text that is no address; empty if the scheme is not the problem.
fn advice(text: &str) -> String {
    match text.split_once("://") {
        Some((scheme, _)) if is_http(scheme).is_none() => {
            format!("the scheme `{scheme}` is not supported. Give ")
        }
        _ => String::new(),
    }
}

/// Whether a scheme, in any case (RFC 3986, section 3.1), is `https`; `None` if it is neither that nor `http`.
fn is_http(scheme: &str) -> Option<bool> {
    [("http", false), ("https", true)]
        .into_iter()
        .find_map(|(known, is_tls)| scheme.eq_ignore_ascii_case(known).then_some(is_tls))
}

/// The text after the scheme, and whether that is `https`; the whole text if it has no scheme.
fn without_scheme(text: &str) -> (&str, bool) {
    match text.split_once("://").map(|(scheme, rest)| (is_http(scheme), rest)) {
        Some((Some(is_tls), rest)) => (rest, is_tls),
        _ => (text, false),
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
        let (rest, is_tls) = without_scheme(text);
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let authority: Authority = rest.parse().map_err(|_| invalid())?;
        let has_host = !authority.host().is_empty() && !rest.contains('@');
        if has_host && authority.port_u16().is_some() {
            Ok(Self(if is_tls { Kind::Tls(rest.into()) } else { Kind::Tcp(rest.into()) }))
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
            Kind::Tcp(authority) | Kind::Tls(authority) => authority,
            Kind::Unix(_) => "localhost",
        }
    }

    /// The host of [`Self::authority`]: a name, an IPv4 address, or an IPv6 address in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        // Every address of TCP has a port.
        let authority = self.authority();
        authority.rsplit_once(':').map_or(authority, |(host, _)| host)
    }

    /// Whether the server is asked with TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.0, Kind::Tls(_))
    }

    /// The path of the Unix domain socket; `None` for TCP.
    #[must_use]
    pub fn unix_path(&self) -> Option<&Path> {
        match &self.0 {
            Kind::Tcp(_) | Kind::Tls(_) => None,
            Kind::Unix(path) => Some(Path::new(path)),
        }
    }

    /// Whether nobody else sees a token that is sent there: it is encrypted, or stays on this machine.
    ///
    /// # Errors
    ///
    /// [`ConnectError::PlainToken`]: other machines would, on its way.
    pub fn ensure_hides_tokens(&self) -> Result<(), ConnectError> {
        let is_local = self.unix_path().is_some() || is_of_this_machine(self.host());
        if self.is_tls() || is_local {
            return Ok(());
        }
        Err(ConnectError::PlainToken { to: self.clone() })
    }

    /// A tonic endpoint for this address, with tonic's default options. TLS trusts the authorities of the platform.
    ///
    /// # Errors
    ///
    /// tonic does not accept the address. No text that this type parses is known to cause that.
    pub fn endpoint(&self) -> Result<Endpoint, ConnectError> {
        self.endpoint_with(&TlsOptions::default())
    }

    /// As [`Self::endpoint`], with these options of TLS.
    ///
    /// # Errors
    ///
    /// As of [`Self::endpoint`]; or options of TLS are given and the address is not `https`, or they are not PEM.
    pub fn endpoint_with(&self, tls: &TlsOptions) -> Result<Endpoint, ConnectError> {
        let url = self.to_string();
        let endpoint = Endpoint::from_shared(url.clone()).map_err(|_| ParseAddressError(url))?;
        if !self.is_tls() && !tls.is_default() {
            return Err(ConnectError::NoTls(self.clone()));
        }
        Ok(match self.0 {
            Kind::Tcp(_) => endpoint,
            Kind::Tls(_) => {
                let refused = |error: tonic::transport::Error| ConnectError::Tls(chain(&error));
                endpoint.tls_config(tls.config()).map_err(refused)?
            }
            // tonic would send a name of its own as `:authority`.
            Kind::Unix(_) => endpoint.origin(Uri::from_static("http://localhost")),
        })
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Tcp(authority) => write!(f, "http://{authority}"),
            Kind::Tls(authority) => write!(f, "https://{authority}"),
            Kind::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

/// Whether a host is this machine by its name: an IPv6 address is in brackets.
fn is_of_this_machine(host: &str) -> bool {
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let address: Result<IpAddr, _> = host.parse();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

/// The endpoint of the client's own connections, with its timeouts and keepalive.
pub(crate) fn client_endpoint(
    address: &ServerAddress,
    tls: &TlsOptions,
) -> Result<Endpoint, ConnectError> {
    Ok(address
        .endpoint_with(tls)?
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
            ("https://capstan.example:1", "https://capstan.example:1", "capstan.example:1"),
            ("HttpS://[::1]:4480/", "https://[::1]:4480", "[::1]:4480"),
            ("unix:/run/c.sock", "unix:/run/c.sock", "localhost"),
            ("unix:c.sock", "unix:c.sock", "localhost"),
        ] {
            let address: ServerAddress = text.parse().unwrap();
            assert_eq!((&*address.to_string(), address.authority()), (printed, authority));
            assert!(client_endpoint(&address, &TlsOptions::default()).is_ok(), "{text}");
            assert_eq!(address.is_tls(), printed.starts_with("https:"));
            let named = TlsOptions { server_name: Some("x".into()), ..TlsOptions::default() };
            assert_eq!(address.endpoint_with(&named).is_ok(), address.is_tls(), "{text}");
            let path = text.strip_prefix("unix:").map(Path::new);
            assert_eq!(address.unix_path(), path, "{text}");
            assert!(
                ["127.0.0.1", "[::1]", "localhost", "capstan.example"].contains(&address.host())
            );
        }
    }

    #[test]
    fn every_other_text_is_an_error_that_says_what_to_give() {
        for text in [
            "",
            "unix:",
            "https://a",
            "HTTPS://",
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
            let forms = "http://HOST:PORT, https://HOST:PORT or unix:PATH";
            assert!(error.to_string().ends_with(forms), "{error}");
        }
        let error = |text: &str| text.parse::<ServerAddress>().unwrap_err().to_string();
        assert!(error("ftp://a:1").contains("the scheme `ftp` is not supported"));
    }
}
