//! The head of a request: its header fields, proved (RFC 9113, sections 8.1 to 8.3).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};

use crate::hpack::{Field, Name};

/// The head of a request.
#[derive(Clone, Debug)]
pub struct Head {
    /// Method, target and header fields.
    pub parts: Parts,
    /// The bytes of the body, if the head says so.
    pub(crate) content_length: Option<u64>,
}

impl From<Parts> for Head {
    /// A head that says nothing of its body.
    fn from(parts: Parts) -> Self {
        Self { parts, content_length: None }
    }
}

/// What is wrong with a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A rule of the protocol is broken.
    Malformed,
    /// More bytes of header fields than the limit.
    TooLarge,
}

/// The fields so far.
#[derive(Debug)]
pub(crate) struct Draft {
    method: Option<Method>,
    scheme: Option<HeaderValue>,
    authority: Option<HeaderValue>,
    path: Option<HeaderValue>,
    headers: HeaderMap,
    content_length: Option<u64>,
    size: usize,
    size_max: usize,
    fault: Option<Fault>,
}

/// Fields that a request with its headers has most of the time.
const USUAL_HEADERS: usize = 8;

impl Draft {
    pub(crate) fn new(size_max: usize) -> Self {
        Self {
            method: None,
            scheme: None,
            authority: None,
            path: None,
            headers: HeaderMap::with_capacity(USUAL_HEADERS),
            content_length: None,
            size: 0,
            size_max,
            fault: None,
        }
    }

    /// Adds a field. After a fault the rest is not kept.
    pub(crate) fn add(&mut self, field: &Field) {
        self.size = self.size.saturating_add(field.size);
        if self.size > self.size_max {
            self.fault.get_or_insert(Fault::TooLarge);
        }
        if self.fault.is_none() && self.keep(field).is_none() {
            self.fault = Some(Fault::Malformed);
        }
    }

    fn keep(&mut self, field: &Field) -> Option<()> {
        let value = field.value.clone();
        let slot = match &field.name {
            Name::Header(name) => return self.keep_header(name, value),
            Name::Malformed => return None,
            // Behind a header these are malformed (section 8.3).
            _ if !self.headers.is_empty() => return None,
            Name::Method => {
                let method = Method::from_bytes(value.as_bytes()).ok()?;
                return self.method.replace(method).is_none().then_some(());
            }
            Name::Scheme => &mut self.scheme,
            Name::Authority => &mut self.authority,
            Name::Path => &mut self.path,
        };
        slot.replace(value).is_none().then_some(())
    }

    fn keep_header(&mut self, name: &HeaderName, value: HeaderValue) -> Option<()> {
        const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
        const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
        // Of a connection, which HTTP/2 has not (section 8.2.2).
        let is_of_connection = [header::CONNECTION, PROXY_CONNECTION, KEEP_ALIVE, header::UPGRADE]
            .contains(name)
            || *name == header::TRANSFER_ENCODING
            || *name == header::TE && value != "trailers";
        if is_of_connection {
            return None;
        }
        if *name == header::CONTENT_LENGTH {
            let text = value.to_str().ok()?;
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let length = text.parse().ok().filter(|_| digits)?;
            if self.content_length.replace(length).is_some_and(|other| other != length) {
                return None;
            }
        }
        self.headers.append(name, value);
        Some(())
    }

    /// The head, once all fields were added.
    pub(crate) fn head(self) -> Result<Head, Fault> {
        let content_length = self.content_length;
        match self.fault {
            Some(fault) => Err(fault),
            None => {
                let parts = self.parts().ok_or(Fault::Malformed)?;
                Ok(Head { parts, content_length })
            }
        }
    }

    fn parts(self) -> Option<Parts> {
        let method = self.method?;
        let mut uri = http::uri::Parts::default();
        if let Some(authority) = &self.authority
            && !authority.is_empty()
        {
            uri.authority = match Authority::try_from(authority.as_bytes()) {
                Ok(authority) => Some(authority),
                // Over a unix socket some clients send its path, with percent signs.
                Err(_) if is_name(authority) && method != Method::CONNECT => None,
                Err(_) => return None,
            };
        }
        // CONNECT has an authority only (section 8.5).
        if method == Method::CONNECT {
            if self.scheme.is_some() || self.path.is_some() {
                return None;
            }
        } else {
            let scheme = Scheme::try_from(self.scheme?.as_bytes()).ok()?;
            let path = self.path?;
            if !path.as_bytes().starts_with(b"/") && path != "*" {
                return None;
            }
            // A URI has a scheme only with an authority.
            uri.scheme = uri.authority.is_some().then_some(scheme);
            uri.path_and_query = Some(PathAndQuery::try_from(path.as_bytes()).ok()?);
        }
        let (mut parts, ()) = Request::new(()).into_parts();
        parts.method = method;
        parts.uri = Uri::from_parts(uri).ok()?;
        parts.version = Version::HTTP_2;
        parts.headers = self.headers;
        Some(parts)
    }
}

/// Whether a text can stand for an authority that no URI can hold: visible ASCII, without spaces.
fn is_name(authority: &HeaderValue) -> bool {
    authority.as_bytes().iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(fields: &[(&str, &str)]) -> Result<Head, Fault> {
        let mut draft = Draft::new(1_000);
        for (name, value) in fields {
            draft.add(&Field::named(name.as_bytes()).with((*value).into()));
        }
        draft.head()
    }

    const METHOD: (&str, &str) = (":method", "POST");
    const SCHEME: (&str, &str) = (":scheme", "http");
    const PATH: (&str, &str) = (":path", "/a/b?c");
    const AUTHORITY: (&str, &str) = (":authority", "localhost:1");

    #[test]
    fn a_request_has_its_method_target_and_headers() {
        let te = ("te", "trailers");
        let head = head(&[METHOD, SCHEME, PATH, AUTHORITY, te, ("a", "1"), ("a", "2")]).unwrap();
        assert_eq!(head.parts.method, Method::POST);
        assert_eq!(head.parts.uri, "http://localhost:1/a/b?c");
        assert_eq!(head.parts.version, Version::HTTP_2);
        let all: Vec<_> = head.parts.headers.get_all("a").iter().collect();
        assert_eq!(all, ["1", "2"]);
    }

    #[test]
    fn an_authority_may_be_absent() {
        assert_eq!(head(&[METHOD, SCHEME, PATH]).unwrap().parts.uri.path(), "/a/b");
        assert_eq!(head(&[METHOD, SCHEME, (":path", "*")]).unwrap().parts.uri.path(), "*");
        let connect = head(&[(":method", "CONNECT"), AUTHORITY]).unwrap();
        assert_eq!(connect.parts.uri.authority().unwrap(), "localhost:1");
    }

    #[test]
    fn an_authority_that_no_uri_can_hold_is_none() {
        let paths = ["%2Frun%2Fcapstan.sock", "/run/capstan.sock", "a%zz", "[::1", "a:b:c", "a\\b"];
        for authority in paths {
            let request = [METHOD, SCHEME, PATH, (":authority", authority)];
            let head = head(&request).unwrap();
            assert_eq!(head.parts.uri, "/a/b?c", "{authority}");
            assert!(head.parts.uri.authority().is_none() && head.parts.headers.is_empty());
        }
        for authority in ["%2Frun%2Fcap stan.sock", "%2F\t", " ", "%2F\u{e4}", "%2F\u{7f}"] {
            let request = [METHOD, SCHEME, PATH, (":authority", authority)];
            assert_eq!(head(&request).unwrap_err(), Fault::Malformed, "{authority:?}");
        }
        let connect = [(":method", "CONNECT"), (":authority", "%2Frun%2Fcapstan.sock")];
        assert_eq!(head(&connect).unwrap_err(), Fault::Malformed);
    }

    #[test]
    fn malformed_heads_are_refused() {
        let good = [METHOD, SCHEME, PATH];
        let long = "x".repeat(70_000);
        let wrong: &[&[(&str, &str)]] = &[
            &[SCHEME, PATH],
            &[METHOD, PATH],
            &[METHOD, SCHEME],
            &[METHOD, SCHEME, (":path", "")],
            &[METHOD, SCHEME, (":path", "a")],
            &[METHOD, SCHEME, (":path", "/a b")],
            &[METHOD, (":scheme", "h ttp"), PATH],
            &[(":method", "PO ST"), SCHEME, PATH],
            &[METHOD, SCHEME, PATH, PATH],
            &[METHOD, METHOD, SCHEME, PATH],
            &[METHOD, SCHEME, PATH, (":authority", "a b")],
            &[METHOD, SCHEME, PATH, (":status", "200")],
            &[METHOD, SCHEME, PATH, (":protocol", "x")],
            &[METHOD, SCHEME, ("a", "1"), PATH],
            &[METHOD, SCHEME, PATH, ("A", "1")],
            &[METHOD, SCHEME, PATH, ("", "1")],
            &[METHOD, SCHEME, PATH, ("a b", "1")],
            &[METHOD, SCHEME, PATH, ("a", "1\n2")],
            &[METHOD, SCHEME, PATH, ("a", "1\0")],
            &[METHOD, SCHEME, PATH, ("connection", "close")],
            &[METHOD, SCHEME, PATH, ("proxy-connection", "x")],
            &[METHOD, SCHEME, PATH, ("keep-alive", "x")],
            &[METHOD, SCHEME, PATH, ("transfer-encoding", "chunked")],
            &[METHOD, SCHEME, PATH, ("upgrade", "x")],
            &[METHOD, SCHEME, PATH, ("te", "gzip")],
            &[METHOD, SCHEME, PATH, ("content-length", "-1")],
            &[METHOD, SCHEME, PATH, ("content-length", "+1")],
            &[METHOD, SCHEME, PATH, ("content-length", "")],
            &[METHOD, SCHEME, PATH, ("content-length", "1"), ("content-length", "2")],
            &[(":method", "CONNECT"), AUTHORITY, PATH],
        ];
        assert!(head(&good).is_ok());
        for fields in wrong {
            assert_eq!(head(fields).unwrap_err(), Fault::Malformed, "{fields:?}");
        }
        assert_eq!(head(&[METHOD, SCHEME, PATH, ("a", &long)]).unwrap_err(), Fault::TooLarge);
    }

    /// The bytes of names and values, and 32 for each field (RFC 9113, section 6.5.2).
    #[test]
    fn the_limit_of_the_list_is_exact() {
        let usual = [METHOD, SCHEME, PATH];
        let bytes = |(name, value): (&str, &str)| name.len() + value.len() + 32;
        let rest = 1_000 - usual.into_iter().map(bytes).sum::<usize>() - 33;
        for (more, is_good) in [(0, true), (1, false)] {
            let value = "x".repeat(rest + more);
            assert_eq!(head(&[METHOD, SCHEME, PATH, ("a", &value)]).is_ok(), is_good);
        }
    }
}
