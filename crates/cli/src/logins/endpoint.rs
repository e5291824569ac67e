//! The URLs of an issuer: https, or http where only this machine is asked.

use anyhow::{Context as _, anyhow, bail, ensure};
use capstan_engine::quote;
use url::{Host, Position, Url};

/// A URL that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint(Url);

/// Whether http is allowed, at this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Loopback,
    Never,
}

impl Endpoint {
    /// # Errors
    ///
    /// No URL, one with a user name or a fragment, or one that is asked in plain text.
    pub(super) fn parse(text: &str, plain: Plain) -> anyhow::Result<Self> {
        let what = || format!("{} is no URL to ask", quote(text));
        let url = Url::parse(text).with_context(what)?;
        // Not shown: it may be a secret.
        ensure!(
            url.username().is_empty() && url.password().is_none(),
            "a user name or a password does not belong in a URL"
        );
        ensure!(url.fragment().is_none(), "{}: a `#` does not belong here", what());
        let host = url.host().with_context(what)?;
        match url.scheme() {
            "https" => {}
            "http" if plain == Plain::Loopback && is_loopback(&host) => {}
            "http" => bail!("{}: expected https://; http:// is for this machine only", what()),
            _ => bail!("{}: expected https://", what()),
        }
        Ok(Self(url))
    }

    /// The URL of an issuer, and what its other URLs may be. A query is refused (OpenID Connect Discovery 1.0, section 3).
    ///
    /// # Errors
    ///
    /// As of [`Endpoint::parse`].
    pub(super) fn issuer(text: &str) -> anyhow::Result<(Self, Plain)> {
        let found = Self::parse(text, Plain::Loopback).context("--issuer")?;
        ensure!(found.0.query().is_none(), "--issuer {}: a `?` does not belong here", quote(text));
        let plain = if found.is_tls() { Plain::Never } else { Plain::Loopback };
        Ok((found, plain))
    }

    /// Where an issuer has its discovery document: what follows is added to the text, less a slash at its end (section 4.1).
    ///
    /// # Errors
    ///
    /// As of [`Endpoint::parse`].
    pub(super) fn discovery(issuer: &str, plain: Plain) -> anyhow::Result<Self> {
        let base = issuer.strip_suffix('/').unwrap_or(issuer);
        Self::parse(&format!("{base}/.well-known/openid-configuration"), plain)
    }

    pub(super) fn is_tls(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The host without brackets, and the port.
    ///
    /// # Errors
    ///
    /// There is none, which [`Endpoint::parse`] refuses.
    pub(super) fn host_and_port(&self) -> anyhow::Result<(String, u16)> {
        let host = match self.0.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
            None => return Err(anyhow!("{self} has no host")),
        };
        Ok((host, self.0.port_or_known_default().with_context(|| format!("{self} has no port"))?))
    }

    /// The header `Host`.
    pub(super) fn authority(&self) -> &str {
        &self.0[Position::BeforeHost..Position::AfterPort]
    }

    /// The target of a request: the path and the query.
    pub(super) fn target(&self) -> &str {
        &self.0[Position::BeforePath..Position::AfterQuery]
    }

    /// The URL with these parameters added to its query.
    pub(super) fn with(&self, parameters: &[(&str, &str)]) -> String {
        let mut url = self.0.clone();
        url.query_pairs_mut().extend_pairs(parameters);
        url.into()
    }
}

/// Without the query.
impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0[..Position::AfterPath])
    }
}

/// Whether a host is this machine. Of `localhost` only loopback addresses are connected to.
fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_this_machine() {
        let parse = |text: &str| Endpoint::parse(text, Plain::Loopback);
        for text in
            ["https://a.example/x?y=1", "http://127.0.0.1:9", "http://[::1]:9", "http://LOCALHOST"]
        {
            assert!(parse(text).is_ok(), "{text}");
        }
        for text in [
            "http://a.example",
            "http://127.0.0.1.example",
            "http://10.0.0.1",
            "http://localhost.example",
            "https://a:b@c.example",
            "https://a@c.example",
            "https://a.example/#x",
            "ftp://a.example",
            "file:///etc/passwd",
            "https://",
            "a.example",
            "",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(Endpoint::parse("http://127.0.0.1:9", Plain::Never).is_err());
        assert_eq!(Endpoint::issuer("http://[::1]:9/").unwrap().1, Plain::Loopback);
        assert_eq!(Endpoint::issuer("https://a.example").unwrap().1, Plain::Never);
        assert!(Endpoint::issuer("https://a.example/?b").is_err());
    }

    #[test]
    fn parts_of_a_url_are_those_of_the_request() {
        let url = Endpoint::parse("https://[::1]:8443/a/b?c=d", Plain::Never).unwrap();
        assert_eq!(url.host_and_port().unwrap(), ("::1".into(), 8443));
        assert_eq!((url.authority(), url.target()), ("[::1]:8443", "/a/b?c=d"));
        assert_eq!(url.with(&[("e", "f g&")]), "https://[::1]:8443/a/b?c=d&e=f+g%26");
        let url = Endpoint::parse("https://a.example", Plain::Never).unwrap();
        assert_eq!(url.host_and_port().unwrap(), ("a.example".into(), 443));
        assert_eq!((url.authority(), url.target()), ("a.example", "/"));
        for (issuer, found) in [
            ("https://a.example", "https://a.example/.well-known/openid-configuration"),
            ("https://a.example/", "https://a.example/.well-known/openid-configuration"),
            ("https://a.example/b/", "https://a.example/b/.well-known/openid-configuration"),
        ] {
            assert_eq!(Endpoint::discovery(issuer, Plain::Never).unwrap().to_string(), found);
        }
    }
}
