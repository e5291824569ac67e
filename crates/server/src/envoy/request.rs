//! Envoy's message about a request, read or refused.
//!
//! **Invariant**: a header that the decision uses counts only if it appears once. Envoy joins
//! repeated headers with commas, or lists them (`encode_raw_headers`); both forms are detected.

use std::borrow::Cow;
use std::collections::HashMap;

use capstan_policy::JwtSource;
use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::google::protobuf::{Struct, value::Kind};

use super::answer::{IDENTITY, REVISION};
use crate::authn::credential::PresentedCredentials;
use crate::authn::issued::SUBJECT_TOKEN;
use crate::envoy::routes::{CanonicalRequest, MalformedRequestError};
use crate::limits::HTTP_HEADERS_MAX;

/// The filter that verifies tokens.
const JWT_FILTER: &str = "envoy.filters.http.jwt_authn";
/// Headers by which a client asks a server to use another method than the one in the request.
const METHOD_OVERRIDES: [&str; 3] =
    ["x-http-method", "x-http-method-override", "x-method-override"];
/// Headers by which a server may get another path than the one that was decided on. Envoy
/// itself sets the last one, later, when it rewrites a path.
const PATH_OVERRIDES: [&str; 4] =
    ["x-original-uri", "x-original-url", "x-rewrite-url", "x-envoy-original-path"];

/// The parts of Envoy's message that the decision uses.
#[derive(Debug)]
pub(super) struct EnvoyRequest<'r> {
    pub(super) canonical: CanonicalRequest<'r>,
    pub(super) presented: PresentedCredentials<'r>,
    /// The context extensions of the route in Envoy's configuration.
    pub(super) context_extensions: &'r HashMap<String, String>,
    /// Client headers that imitate Capstan's, or that name another path.
    pub(super) headers_to_remove: Vec<String>,
}

impl<'r> EnvoyRequest<'r> {
    /// Reads a request. `jwt` names the token and the claim that hold an identity.
    ///
    /// # Errors
    ///
    /// The message is not about an HTTP request, contradicts itself, or the request is not
    /// canonical.
    pub(super) fn read(
        request: &'r CheckRequest,
        jwt: Option<&JwtSource>,
    ) -> Result<Self, MalformedRequestError> {
        let attributes = request.attributes.as_ref().ok_or(MalformedRequestError::NotHttp)?;
        let http = attributes.request.as_ref().and_then(|request| request.http.as_ref());
        let http = http.ok_or(MalformedRequestError::NotHttp)?;
        if !http.query.is_empty() || !http.fragment.is_empty() {
            return Err(MalformedRequestError::Disagreement); // Envoy leaves both empty.
        }
        let headers = DecisiveHeaders::read(http)?;
        for (header, field) in [
            (headers.path, &http.path),
            (headers.method, &http.method),
            (headers.authority, &http.host),
            (headers.host, &http.host),
        ] {
            if header.is_some_and(|header| header != field.as_str()) {
                return Err(MalformedRequestError::Disagreement);
            }
        }
        let content_type = headers.content_type.unwrap_or_default();
        let canonical =
            CanonicalRequest::parse(&http.method, &http.host, &http.path, content_type)?;
        let metadata = attributes.metadata_context.as_ref();
        let presented = PresentedCredentials {
            authorization: headers.authorization,
            token: metadata
                .and_then(|metadata| metadata.filter_metadata.get(JWT_FILTER))
                .and_then(|verified| claim(jwt?, verified)),
            principal: attributes.source.as_ref().map_or("", |source| &source.principal),
        };
        let (context_extensions, headers_to_remove) =
            (&attributes.context_extensions, headers.headers_to_remove);
        Ok(Self { canonical, presented, context_extensions, headers_to_remove })
    }
}

/// The claim of the token that Envoy has verified. `Some(None)` if the token has no text there.
fn claim<'r>(source: &JwtSource, verified: &'r Struct) -> Option<Option<&'r str>> {
    let payload = verified.fields.get(&source.payload)?;
    let Some(Kind::StructValue(claims)) = &payload.kind else { return Some(None) };
    // An access token of Capstan may be held to less than its identity can, and is judged by `credential` alone.
    if claims.fields.contains_key(SUBJECT_TOKEN) {
        return Some(None);
    }
    let claim = claims.fields.get(&source.claim).and_then(|claim| claim.kind.as_ref());
    Some(match claim {
        Some(Kind::StringValue(text)) => Some(text),
        _ => None,
    })
}

/// The headers that the decision uses.
#[derive(Debug, Default)]
struct DecisiveHeaders<'r> {
    authorization: Option<Option<&'r str>>,
    content_type: Option<&'r str>,
    host: Option<&'r str>,
    authority: Option<&'r str>,
    path: Option<&'r str>,
    method: Option<&'r str>,
    headers_to_remove: Vec<String>,
}

impl<'r> DecisiveHeaders<'r> {
    fn read(http: &'r HttpRequest) -> Result<Self, MalformedRequestError> {
        let raw = http.header_map.as_ref().map(|map| &*map.headers).unwrap_or_default();
        if http.headers.len() + raw.len() > HTTP_HEADERS_MAX {
            return Err(MalformedRequestError::ManyHeaders);
        }
        if !raw.is_empty() && !http.headers.is_empty() {
            return Err(MalformedRequestError::Disagreement); // Envoy sends one or the other.
        }
        let mut headers = Self::default();
        for (name, value) in &http.headers {
            headers.add(name, Some(value))?;
        }
        for header in raw {
            headers.add(&header.key, raw_value(header))?;
        }
        Ok(headers)
    }

    /// Adds a header; the value is `None` if it is not text.
    fn add(&mut self, name: &str, value: Option<&'r str>) -> Result<(), MalformedRequestError> {
        let name = match name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            true => Cow::Owned(name.to_ascii_lowercase()),
            false => Cow::Borrowed(name),
        };
        // Many services treat `_` in a header name as `-`.
        let dashed = match name.contains('_') {
            true => Cow::Owned(name.replace('_', "-")),
            false => Cow::Borrowed(&*name),
        };
        if METHOD_OVERRIDES.contains(&&*dashed) {
            return Err(MalformedRequestError::MethodOverride);
        }
        if dashed.starts_with("x-capstan-") || PATH_OVERRIDES.contains(&&*dashed) {
            // Envoy overwrites a header with exactly our name; the others must be removed.
            if *name != *IDENTITY && *name != *REVISION {
                self.headers_to_remove.push(name.into_owned());
            }
            return Ok(());
        }
        let slot = match &*name {
            "authorization" => {
                let first = self.authorization.is_none();
                let once = value.filter(|value| first && !value.contains(','));
                self.authorization = Some(once);
                return Ok(());
            }
            "upgrade" => return Err(MalformedRequestError::Upgrade),
            "content-type" => &mut self.content_type,
            "host" => &mut self.host,
            ":authority" => &mut self.authority,
            ":path" => &mut self.path,
            ":method" => &mut self.method,
            _ => return Ok(()),
        };
        let value = value.ok_or(MalformedRequestError::Header)?;
        let is_joined = *name == *"content-type" && value.contains(',');
        if slot.replace(value).is_some() || is_joined {
            return Err(MalformedRequestError::Header);
        }
        Ok(())
    }
}

/// The value of a header, if it is text.
fn raw_value(header: &HeaderValue) -> Option<&str> {
    match (&*header.value, &*header.raw_value) {
        (text, []) => Some(text),
        ("", bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}
