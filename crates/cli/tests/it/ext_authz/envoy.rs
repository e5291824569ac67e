//! An Envoy as far as its ext_authz filter goes: what it asks, and what it makes of the answer.

use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::envoy::config::core::v3::{
    HeaderMap, HeaderValue, HeaderValueOption, Metadata, header_value_option::HeaderAppendAction,
};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use serde_json::Value as Json;
use tonic::transport::Channel;

use crate::common::InProcess;

/// A request that reaches Envoy, and what Envoy knows of it.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// Whether Envoy lists the headers instead of joining repeated ones (`encode_raw_headers`).
    pub(crate) raw: bool,
    pub(crate) principal: String,
    /// The payload of a token that Envoy has verified, under the key `jwt_payload`.
    pub(crate) token: Option<Json>,
    pub(crate) extensions: HashMap<String, String>,
}

impl Http {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.into(),
            host: "registry.example".into(),
            target: target.into(),
            headers: vec![],
            raw: false,
            principal: String::new(),
            token: None,
            extensions: HashMap::new(),
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = host.into();
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().into()));
        self
    }

    pub(crate) fn bearer(self, secret: &str) -> Self {
        self.header("authorization", format!("Bearer {secret}"))
    }

    pub(crate) fn raw(mut self) -> Self {
        self.raw = true;
        self
    }

    pub(crate) fn peer(mut self, principal: &str) -> Self {
        self.principal = principal.into();
        self
    }

    pub(crate) fn token(mut self, payload: Json) -> Self {
        self.token = Some(payload);
        self
    }

    /// What Envoy's configuration says of its route.
    pub(crate) fn says(mut self, key: &str, value: &str) -> Self {
        self.extensions.insert(key.into(), value.into());
        self
    }

    /// What Envoy asks.
    pub(crate) fn asked(&self) -> CheckRequest {
        let pseudo =
            [(":method", &self.method), (":authority", &self.host), (":path", &self.target)];
        let pseudo = pseudo.map(|(name, value)| (name.to_owned(), value.clone().into_bytes()));
        let all = pseudo.iter().chain(&self.headers);
        let (mut headers, mut header_map) = (HashMap::<String, String>::new(), None);
        if self.raw {
            let raw = |(key, value): &(String, Vec<u8>)| HeaderValue {
                key: key.clone(),
                raw_value: value.clone(),
                ..HeaderValue::default()
            };
            header_map = Some(HeaderMap { headers: all.map(raw).collect() });
        } else {
            for (name, value) in all {
                let value = String::from_utf8_lossy(value).replace('\u{fffd}', "!");
                let joined = headers.entry(name.clone()).or_default();
                *joined = if joined.is_empty() { value } else { format!("{joined},{value}") };
            }
        }
        let http = HttpRequest {
            method: self.method.clone(),
            host: self.host.clone(),
            path: self.target.clone(),
            headers,
            header_map,
            protocol: "HTTP/1.1".into(),
            ..HttpRequest::default()
        };
        let payload = self.token.as_ref().map(|payload| {
            let payload = HashMap::from([("jwt_payload".to_owned(), value(payload))]);
            ("envoy.filters.http.jwt_authn".to_owned(), Struct { fields: payload })
        });
        let attributes = AttributeContext {
            source: Some(Peer { principal: self.principal.clone(), ..Peer::default() }),
            request: Some(Request { http: Some(http), ..Request::default() }),
            context_extensions: self.extensions.clone(),
            metadata_context: Some(Metadata {
                filter_metadata: payload.into_iter().collect(),
                ..Metadata::default()
            }),
            ..AttributeContext::default()
        };
        CheckRequest { attributes: Some(attributes) }
    }
}

fn value(json: &Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(it) => Kind::BoolValue(*it),
        Json::Number(it) => Kind::NumberValue(it.as_f64().unwrap()),
        Json::String(it) => Kind::StringValue(it.clone()),
        Json::Array(_) => Kind::ListValue(Default::default()),
        Json::Object(fields) => {
            let fields = fields.iter().map(|(name, it)| (name.clone(), value(it))).collect();
            Kind::StructValue(Struct { fields })
        }
    };
    Value { kind: Some(kind) }
}

/// What becomes of the request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Fate {
    /// It reaches the service, with these headers instead of the ones that it had.
    Passed { headers: Vec<(String, String)>, metadata: BTreeMap<String, String> },
    /// The client gets this.
    Refused { status: i32, body: Json, challenge: Option<String> },
    /// The client gets this, or the request passes where `failure_mode_allow` is set.
    Failed { status: i32, body: Json },
}

impl Fate {
    /// The status that the client gets; 200 if the request passes.
    pub(crate) fn status(&self) -> i32 {
        match self {
            Self::Passed { .. } => 200,
            Self::Refused { status, .. } | Self::Failed { status, .. } => *status,
        }
    }

    /// The `reason` of the body.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Passed { .. } => "",
            Self::Refused { body, .. } | Self::Failed { body, .. } => {
                body["reason"].as_str().unwrap()
            }
        }
    }

    /// The values of a header that the service sees.
    pub(crate) fn seen(&self, name: &str) -> Vec<&str> {
        let Self::Passed { headers, .. } = self else { panic!("{self:?}") };
        let values = headers.iter().filter(|(there, _)| there.eq_ignore_ascii_case(name));
        values.map(|(_, value)| &**value).collect()
    }
}

/// Asks, and does with the answer what Envoy does.
pub(crate) async fn send(server: &InProcess, http: &Http) -> Fate {
    let answer = client(server).check(http.asked()).await.unwrap().into_inner();
    fate(answer, http)
}

pub(crate) fn client(server: &InProcess) -> AuthorizationClient<Channel> {
    AuthorizationClient::new(server.channel.clone())
}

/// As `ext_authz_grpc_impl.cc` and `ext_authz.cc` read an answer: only the status says whether the
/// request passes, headers are set before others are removed.
pub(crate) fn fate(answer: CheckResponse, http: &Http) -> Fate {
    let code = answer.status.unwrap_or_default().code;
    let text = |value: Value| match value.kind.unwrap() {
        Kind::StringValue(text) => text,
        other => format!("{other:?}"),
    };
    let metadata = answer.dynamic_metadata.unwrap_or_default().fields;
    let metadata = metadata.into_iter().map(|(name, value)| (name, text(value))).collect();
    match answer.http_response {
        Some(HttpResponse::OkResponse(ok)) if code == 0 => {
            let lossy = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
            let had = http.headers.iter().map(|(name, value)| (name.clone(), lossy(value)));
            let mut headers: Vec<_> = had.collect();
            for set in ok.headers.into_iter().map(set) {
                headers.retain(|(name, _)| !name.eq_ignore_ascii_case(&set.0));
                headers.push(set);
            }
            let gone =
                |name: &str| ok.headers_to_remove.iter().any(|it| it.eq_ignore_ascii_case(name));
            headers.retain(|(name, _)| !gone(name));
            Fate::Passed { headers, metadata }
        }
        None if code == 0 => panic!("an empty answer lets everything pass"),
        Some(HttpResponse::DeniedResponse(denied)) if code != 0 => {
            let headers: BTreeMap<_, _> = denied.headers.into_iter().map(set).collect();
            assert_eq!(headers["content-type"], "application/json");
            let body = serde_json::from_str(&denied.body).unwrap();
            let challenge = headers.get("www-authenticate").cloned();
            Fate::Refused { status: denied.status.unwrap().code, body, challenge }
        }
        Some(HttpResponse::ErrorResponse(error)) if code != 0 => {
            let body = serde_json::from_str(&error.body).unwrap();
            Fate::Failed { status: error.status.unwrap().code, body }
        }
        other => panic!("{code} with {other:?}"),
    }
}

fn set(header: HeaderValueOption) -> (String, String) {
    assert_eq!(header.append_action(), HeaderAppendAction::OverwriteIfExistsOrAdd);
    let HeaderValue { key, value, .. } = header.header.unwrap();
    assert!(value.len() <= 1024 && value.bytes().all(|b| b == b' ' || b.is_ascii_graphic()));
    (key, value)
}

/// The HTTP request of what Envoy asks.
pub(crate) fn http_of(asked: &mut CheckRequest) -> &mut HttpRequest {
    asked.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap()
}
