//! The URL that events are sent to.
//!
//! ```text
//! text ─▶ visible ASCII? ─▶ WHATWG URL ─▶ https, no user, no fragment, port ─▶ host: a name, or an address ─▶ guard
//! ```
//!
//! **Invariants**: a [`Sink`] is https; its host is a name of DNS or an address that the policy allows, in any notation
//! (`https://0x7f.1` is judged as 127.0.0.1); its text is what is connected to. A name is judged when it is connected to.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use http::HeaderValue;
use http::uri::PathAndQuery;
use rustls::pki_types::ServerName;
use url::{Host, Url};

use crate::guard::{AddressError, Policy};
use crate::limits::{HTTPS_PORT, SINK_PORT_MIN, URL_BYTES_MAX};

/// The URL that events are sent to.
#[derive(Clone)]
pub struct Sink {
    url: Box<str>,
    origin: Box<str>,
    host: SinkHost,
    port: u16,
    authority: HeaderValue,
    target: PathAndQuery,
    server_name: ServerName<'static>,
}

/// The host of a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkHost {
    /// A name of DNS in lower case, without a dot at the end. International names are in their ASCII form.
    Name(Box<str>),
    /// An address that the policy allows.
    Address(IpAddr),
}

/// Why a URL is no sink.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// Longer than [`URL_BYTES_MAX`].
    #[error("sink: longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// Spaces, control characters, backslashes, or anything beyond ASCII.
    #[error(
        "sink: only visible ASCII characters without `\\` are allowed, write names in their `xn--` form and others as `%..`"
    )]
    Characters,
    /// Not an https URL.
    #[error("sink: must begin with https://")]
    NotHttps,
    /// A user or password before the host.
    #[error("sink: must not contain a user or a password")]
    UserInfo,
    /// A fragment.
    #[error("sink: must not contain `#`")]
    Fragment,
    /// Not a URL, or its host is neither a name nor an address.
    #[error("sink: not a URL: {0}")]
    NotUrl(String),
    /// A port that is not allowed.
    #[error("sink: port {0} is not allowed, use {HTTPS_PORT} or {SINK_PORT_MIN} and above")]
    Port(u16),
    /// A host name that DNS cannot have.
    #[error("sink: `{0}` is not a host name, or it ends in a dot")]
    HostName(String),
    /// The host is an address that may not be connected to, or is `localhost`.
    #[error("sink: {0}")]
    Address(#[from] AddressError),
}

impl Sink {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// If the URL is not one that events may be sent to. The text is for the owner of the subscription: an address in it
    /// is one that the URL has.
    pub fn parse(text: &str, policy: &Policy) -> Result<Self, SinkError> {
        let url = parse_https(text)?;
        if url.fragment().is_some() {
            return Err(SinkError::Fragment);
        }
        let port = url.port_or_known_default().unwrap_or(HTTPS_PORT);
        if port != HTTPS_PORT && port < SINK_PORT_MIN {
            return Err(SinkError::Port(port));
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => SinkHost::Name(judged_name(name, policy)?.into()),
            Some(Host::Ipv4(v4)) => SinkHost::Address(v4.into()),
            Some(Host::Ipv6(v6)) => SinkHost::Address(v6.into()),
            None => return Err(SinkError::NotUrl("no host".into())),
        };
        let server_name = match &host {
            SinkHost::Name(name) => ServerName::try_from(name.to_string())
                .map_err(|_| SinkError::HostName(name.to_string()))?,
            SinkHost::Address(address) => {
                policy.judge(*address)?;
                ServerName::from(address.to_canonical())
            }
        };
        let origin = url.origin().ascii_serialization();
        let not_url = |error: &dyn fmt::Display| SinkError::NotUrl(error.to_string());
        let authority = origin.strip_prefix("https://").unwrap_or_default();
        let authority = HeaderValue::from_str(authority).map_err(|error| not_url(&error))?;
        let target = url[url::Position::BeforePath..].parse().map_err(|error| not_url(&error))?;
        Ok(Self {
            url: String::from(url).into(),
            origin: origin.into(),
            host,
            port,
            authority,
            target,
            server_name,
        })
    }

    /// The URL in its normal form.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.url
    }

    /// Scheme, host and port: the audience of tokens. The port 443 is left out.
    #[must_use]
    pub const fn origin(&self) -> &str {
        &self.origin
    }

    /// The host.
    #[must_use]
    pub const fn host(&self) -> &SinkHost {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The value of the header `Host`.
    pub(crate) const fn authority(&self) -> &HeaderValue {
        &self.authority
    }

    /// Path and query.
    pub(crate) const fn target(&self) -> &PathAndQuery {
        &self.target
    }

    /// The name that the certificate must have.
    pub(crate) const fn server_name(&self) -> &ServerName<'static> {
        &self.server_name
    }
}

impl PartialEq for Sink {
    fn eq(&self, other: &Self) -> bool {
        self.url == other.url
    }
}

impl Eq for Sink {}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sink").field(&self.url).finish()
    }
}

impl fmt::Display for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// An https URL without a user. The URL parser repairs a lot (`https:\host`, tabs inside); this takes nothing that needs
/// repair, so that no other reader of the text sees another host.
pub(crate) fn parse_https(text: &str) -> Result<Url, SinkError> {
    if text.len() > URL_BYTES_MAX {
        return Err(SinkError::TooLong);
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return Err(SinkError::Characters);
    }
    let scheme = text.get(..8).filter(|scheme| scheme.eq_ignore_ascii_case("https://"));
    let rest = text.get(8..).filter(|_| scheme.is_some()).ok_or(SinkError::NotHttps)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(SinkError::UserInfo);
    }
    if authority.is_empty() {
        return Err(SinkError::NotUrl("no host".into()));
    }
    Url::parse(text).map_err(|error| SinkError::NotUrl(error.to_string()))
}

/// A name that DNS can have. `localhost` and all below it are loopback by definition (RFC 6761, section 6.3).
fn judged_name<'a>(name: &'a str, policy: &Policy) -> Result<&'a str, SinkError> {
    if name.ends_with('.') {
        return Err(SinkError::HostName(name.to_owned()));
    }
    if name == "localhost" || name.ends_with(".localhost") {
        policy.judge(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    }
    Ok(name)
}
