//! The URL under which the service is known: issuer of tokens, source of events, origin of requests.
//!
//! **Invariants**: https, without user, query, fragment and slash at the end. `URL/.well-known/jwks.json` has the keys.

use http::HeaderValue;

use crate::sink::{SinkError, parse_https};

/// The URL under which the service is known (`--public-url`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    text: Box<str>,
    origin: HeaderValue,
}

/// Why a public URL is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("public URL `{0}`: expected https://HOST[:PORT][/PATH], without user, query and fragment")]
pub struct PublicUrlError(pub String);

impl PublicUrl {
    /// Reads a URL. A slash at the end is left out.
    ///
    /// # Errors
    ///
    /// If it is not https, or has a user, a query or a fragment.
    pub fn parse(text: &str) -> Result<Self, PublicUrlError> {
        let error = || PublicUrlError(text.to_owned());
        let url = parse_https(text).map_err(|_: SinkError| error())?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(error());
        }
        let origin = HeaderValue::from_str(url.host_str().ok_or_else(error)?);
        Ok(Self { text: text.trim_end_matches('/').into(), origin: origin.map_err(|_| error())? })
    }

    /// The URL: `iss` of tokens and `source` of events.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.text
    }

    /// Its path, without a slash at the end; empty if it has none.
    #[must_use]
    pub fn path(&self) -> &str {
        let rest = self.text.get("https://".len()..).unwrap_or_default();
        rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default()
    }

    /// The host: what a receiver allows in `WebHook-Allowed-Origin`.
    pub(crate) const fn origin(&self) -> &HeaderValue {
        &self.origin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_an_issuer() {
        let url = PublicUrl::parse("https://IAM.example.com:8443/base/").unwrap();
        assert_eq!(url.as_str(), "https://IAM.example.com:8443/base");
        assert_eq!((url.origin().as_bytes(), url.path()), (&b"iam.example.com"[..], "/base"));
        assert_eq!(PublicUrl::parse("https://iam.example.com/").unwrap().path(), "");
        for text in [
            "http://iam.example.com",
            "https://",
            "https://u@iam.example.com",
            "https://iam.example.com?",
            "https://iam.example.com/#",
            "iam.example.com",
            "https://iam.example.com/\u{fc}",
        ] {
            assert_eq!(PublicUrl::parse(text), Err(PublicUrlError(text.into())), "{text}");
        }
    }
}
