//! A fake of Envoy's ext_authz filter: it makes requests, and applies responses to the HTTP request.

use std::collections::{BTreeMap, HashMap};

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::socket_address::PortSpecifier;
use envoy_types::pb::envoy::config::core::v3::{
    Address, HeaderMap, HeaderValue, HeaderValueOption, Metadata, SocketAddress, address,
};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use envoy_types::pb::google::protobuf::{Struct, Value, value::Kind};
use serde_json::Value as Json;

use crate::common::InProcess;
use crate::secrets::Channel;

/// An HTTP request at Envoy, with Envoy's data about it.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub(crate) method: String,
    pub(crate) host: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
    /// Whether Envoy sends repeated headers separately instead of joined (`encode_raw_headers`).
    pub(crate) raw: bool,
    pub(crate) principal: String,
    /// The address of the client, as Envoy sees it; none if it is empty.
    pub(crate) client: String,
    /// The payload of a verified token, under the key `jwt_payload`.
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
            client: String::new(),
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

    pub(crate) fn client(mut self, address: &str) -> Self {
        self.client = address.into();
        self
    }

    pub(crate) fn token(mut self, payload: Json) -> Self {
        self.token = Some(payload);
        self
    }

    /// Adds a context extension of Envoy's route.
    pub(crate) fn extension(mut self, key: &str, value: &str) -> Self {
        self.extensions.insert(key.into(), value.into());
        self
    }

    /// The request of the filter to Capstan.
    pub(crate) fn check_request(&self) -> CheckRequest {
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
            source: Some(Peer {
                principal: self.principal.clone(),
                address: (!self.client.is_empty()).then(|| socket_address(&self.client)),
                ..Peer::default()
            }),
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

fn socket_address(ip: &str) -> Address {
    let port_specifier = Some(PortSpecifier::PortValue(1));
    let socket = SocketAddress { address: ip.into(), port_specifier, ..SocketAddress::default() };
    Address { address: Some(address::Address::SocketAddress(socket)) }
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

/// The outcome of an HTTP request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The upstream service receives the request with these headers.
    Passed { headers: Vec<(String, String)>, metadata: BTreeMap<String, String> },
    /// The client receives this denial.
    Refused { status: i32, body: Json, challenge: Option<String> },
    /// The client receives this error. With `failure_mode_allow`, the request passes.
    Failed { status: i32, body: Json },
}

impl Outcome {
    /// The HTTP status that the client receives; 200 if the request passes.
    pub(crate) fn status(&self) -> i32 {
        match self {
            Self::Passed { .. } => 200,
            Self::Refused { status, .. } | Self::Failed { status, .. } => *status,
        }
    }

    /// The `reason` in the body; empty if the request passes.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Passed { .. } => "",
            Self::Refused { body, .. } | Self::Failed { body, .. } => {
                body["reason"].as_str().unwrap()
            }
        }
    }

    /// The values of a header at the upstream service.
    pub(crate) fn upstream_header(&self, name: &str) -> Vec<&str> {
        let Self::Passed { headers, .. } = self else { panic!("{self:?}") };
        let values = headers.iter().filter(|(there, _)| there.eq_ignore_ascii_case(name));
        values.map(|(_, value)| &**value).collect()
    }
}

/// Sends the request of the filter, and applies the response as Envoy does.
pub(crate) async fn send(server: &InProcess, http: &Http) -> Outcome {
    let answer = client(server).check(http.check_request()).await.unwrap().into_inner();
    outcome(answer, http)
}

pub(crate) fn client(server: &InProcess) -> AuthorizationClient<Channel> {
    AuthorizationClient::new(server.channel.clone())
}

/// Applies a response as `ext_authz_grpc_impl.cc` and `ext_authz.cc` do: only the status determines
/// whether the request passes, and headers are set before others are removed.
pub(crate) fn outcome(answer: CheckResponse, http: &Http) -> Outcome {
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
            Outcome::Passed { headers, metadata }
        }
        None if code == 0 => panic!("an empty response lets every request pass"),
        Some(HttpResponse::DeniedResponse(denied)) if code != 0 => {
            let headers: BTreeMap<_, _> = denied.headers.into_iter().map(set).collect();
            assert_eq!(headers["content-type"], "application/json");
            let body: Json = serde_json::from_str(&denied.body).unwrap();
            // Clients print one of these. A response to HEAD has the header only.
            let sentence = headers["x-capstan-reason"].as_str();
            assert_eq!([&body["error"], &body["message"]], [sentence; 2]);
            assert_eq!(body["errors"][0]["message"], sentence);
            let challenge = headers.get("www-authenticate").cloned();
            Outcome::Refused { status: denied.status.unwrap().code, body, challenge }
        }
        Some(HttpResponse::ErrorResponse(error)) if code != 0 => {
            let body: Json = serde_json::from_str(&error.body).unwrap();
            assert_eq!(body["error"], body["message"]);
            Outcome::Failed { status: error.status.unwrap().code, body }
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

/// The HTTP attributes of a request of the filter.
pub(crate) fn http_attributes(asked: &mut CheckRequest) -> &mut HttpRequest {
    asked.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap()
}
