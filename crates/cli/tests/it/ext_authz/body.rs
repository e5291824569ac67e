//! The properties of any `ext_authz` request bytes. The fuzz target `envoy` includes this file, and the
//! property tests in `bytes.rs` use it.
//!
//! **Invariant**: a request that passes is canonical, has exactly one valid credential, and is allowed
//! by a second implementation of the rules in this file.

use std::sync::LazyLock;

use capstan_engine::Timestamp;
use capstan_server::envoy::ext_authz::Offline;
use capstan_testkit::naive::is_path;
use capstan_testkit::routing::canonical_form;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use prost::Message as _;

/// `ci` has the secret `s` and reads at `i`; `de` has the secret `t` and writes at `i/w`.
const POLICY: &str = "version: 1
catalog:
  name: c
  resources: [{name: r, actions: [get, put]}]
  roles: [{name: reader, capabilities: [r.get]}, {name: writer, capabilities: [r.get, r.put]}]
groups: [{id: i}, {id: i/w}]
identities: [{id: ci}, {id: de}]
role_bindings:
- {identity: ci, role: reader, scope: i}
- {identity: de, role: writer, scope: i/w}
credentials:
- {identity: ci, sha256: 043a718774c572bd8a25adbeb1bfcd5c0256ae11cecf9f9c3f925d0e52beaf89}
- {identity: de, sha256: e3b98a4da31a127d4bde6e43033f66ba274cab0eb7eb1c70ec41402bf6273dd8}
";
const ROUTES: &str = "version: 1
identity: [credential, jwt, peer]
peer: {prefix: 'p/'}
routes:
- {name: base, methods: [GET], path: /v/, authenticated: true}
- {name: get, methods: [GET, HEAD], path: '/v/{r...}/g', require: [{capability: r.get, resource: 'i/{r}'}]}
- {name: put, methods: [PUT], path: '/v/{r...}/g', query: [d], require: [{capability: r.put, resource: 'i/{r}'}]}
- {name: join, methods: [GET], path: '/w/{r...}', where: {r: encoded_slash},
   require: [{capability: r.get, resource: 'i/{r}'}]}
- {name: copy, methods: [PUT], path: '/v/{r...}/g', query: [{name: f, as: f}],
   require: [{capability: r.put, resource: 'i/{r}'}, {capability: r.get, resource: 'i/{f}'}]}
";

static ENVOY: LazyLock<Offline> =
    LazyLock::new(|| Offline::new(POLICY.as_bytes(), ROUTES.as_bytes()).unwrap());

/// Whether the request passes.
///
/// # Panics
///
/// If a property does not hold.
pub(crate) fn envoy(bytes: &[u8]) -> bool {
    let Ok(request) = CheckRequest::decode(bytes) else { return false };
    let now = Timestamp::new(1_800_000_000, 0);
    let [answer, again] = [(); 2].map(|()| ENVOY.check(&request, now));
    assert_eq!(answer, again, "two answers to one request");
    let CheckResponse { status, http_response, .. } = answer;
    let code = status.unwrap().code;
    match http_response.unwrap() {
        HttpResponse::OkResponse(ok) => {
            assert_eq!(code, 0);
            let header = |at: usize| ok.headers[at].header.clone().unwrap();
            let (identity, revision) = (header(0), header(1));
            assert_eq!(
                (&*identity.key, &*revision.key),
                ("x-capstan-identity", "x-capstan-revision")
            );
            assert_eq!((&*revision.value, ok.headers.len()), ("1", 2));
            assert!(is_path(&identity.value));
            assert_eq!(identity_of(&request).as_deref(), Some(&*identity.value), "{request:?}");
            assert!(is_allowed(&request, &identity.value), "{request:?}");
            true
        }
        HttpResponse::DeniedResponse(denied) => {
            assert!([3, 7, 16].contains(&code), "{code}");
            assert!([400, 401, 403].contains(&denied.status.unwrap().code));
            let body: serde_json::Value = serde_json::from_str(&denied.body).unwrap();
            assert!(body["reason"].is_string() && body["errors"][0]["code"].is_string());
            false
        }
        HttpResponse::ErrorResponse(error) => panic!("{error:?}"),
    }
}

fn http(request: &CheckRequest) -> Option<&HttpRequest> {
    request.attributes.as_ref()?.request.as_ref()?.http.as_ref()
}

/// The values of a header, in both encodings of Envoy.
fn headers(request: &CheckRequest, name: &str) -> Vec<String> {
    let Some(http) = http(request) else { return vec![] };
    let listed = http.header_map.iter().flat_map(|map| &map.headers).map(|header| {
        let raw = String::from_utf8_lossy(&header.raw_value);
        (&header.key, if raw.is_empty() { header.value.clone() } else { raw.into_owned() })
    });
    let joined = http.headers.iter().map(|(key, value)| (key, value.clone()));
    let all = listed.chain(joined).filter(|(key, _)| key.eq_ignore_ascii_case(name));
    all.map(|(_, value)| value).collect()
}

/// The identity of the request's only identity source. `None` without a source or with several.
fn identity_of(request: &CheckRequest) -> Option<String> {
    let attributes = request.attributes.as_ref()?;
    let mut all: Vec<Option<String>> = headers(request, "authorization")
        .into_iter()
        .map(|header| {
            let (scheme, rest) = header.split_once(' ')?;
            let known = match (&*scheme.to_lowercase(), rest.trim()) {
                ("bearer", "s") | ("basic", "Y2k6cw==") => "ci",
                ("bearer", "t") | ("basic", "ZGU6dA==") => "de",
                _ => return None,
            };
            Some(known.to_owned())
        })
        .collect();
    let metadata = attributes.metadata_context.iter().flat_map(|it| &it.filter_metadata);
    let payloads = metadata.filter(|(filter, _)| *filter == "envoy.filters.http.jwt_authn");
    for payload in payloads.filter_map(|(_, data)| data.fields.get("jwt_payload")) {
        use envoy_types::pb::google::protobuf::value::Kind::{StringValue, StructValue};
        all.push(match &payload.kind {
            Some(StructValue(claims)) => claims.fields.get("sub").and_then(|sub| match &sub.kind {
                Some(StringValue(sub)) => Some(sub.clone()),
                _ => None,
            }),
            _ => None,
        });
    }
    let principal = attributes.source.as_ref().map_or("", |source| &source.principal);
    if !principal.is_empty() {
        all.push(principal.strip_prefix("p/").map(str::to_owned));
    }
    match &*all {
        [one] => one.clone(),
        _ => None,
    }
}

/// A second implementation of the rules of the routes and the policy.
fn is_allowed(request: &CheckRequest, identity: &str) -> bool {
    let reads = |at: &str| match identity {
        "ci" => at.starts_with("i/"),
        "de" => at == "i/w" || at.starts_with("i/w/"),
        _ => false,
    };
    let writes = |at: &str| identity == "de" && reads(at);
    let http = http(request).unwrap();
    let (path, query) = http.path.split_once('?').unwrap_or((&http.path, ""));
    let raw = path;
    let path = &*canonical_form(path).unwrap_or_else(|| panic!("{raw}"));
    assert!(http.path.len() <= 8192, "{raw}");
    // An encoded slash passes only below `/w/`, whose route accepts it.
    let is_joined = raw.to_lowercase().contains("%2f");
    for odd in
        ["upgrade", "x_http_method", "x-http-method-override", "x-http-method", "x-method-override"]
    {
        assert!(headers(request, odd).is_empty(), "{odd}");
    }
    for form in headers(request, "content-type") {
        assert!(
            !form.to_lowercase().contains("form") || context_requirements(request).is_some(),
            "{form}"
        );
    }
    if let Some(said) = context_requirements(request) {
        assert!(!is_joined, "{raw}");
        return said.iter().all(|(capability, resource)| match &**capability {
            "r.get" => reads(resource) || resource == "i" && identity == "ci",
            "r.put" => writes(resource),
            _ => false,
        });
    }
    if let Some(place) = path.strip_prefix("/w/") {
        let first = raw.get(1..).and_then(|raw| raw.split('/').next()).unwrap_or_default();
        assert!(!first.to_lowercase().contains("%2f"), "{raw}");
        return http.method == "GET" && reads(&format!("i/{place}"));
    }
    assert!(!is_joined, "{raw}");
    let place = path.strip_prefix("/v/").and_then(|rest| rest.strip_suffix("/g"));
    let place = place.map(|place| format!("i/{place}"));
    let names: Vec<_> = query.split('&').filter(|pair| !pair.is_empty()).collect();
    match (&*http.method, place) {
        ("GET", None) => path == "/v/",
        ("GET" | "HEAD", Some(place)) => reads(&place),
        ("PUT", Some(place)) => match &*names {
            [] => writes(&place),
            [one] if *one == "d" || one.starts_with("d=") => writes(&place),
            [one] => {
                let from = one.strip_prefix("f=").unwrap_or_default().replace("%2F", "/");
                let from = from.replace("%2f", "/");
                writes(&place) && (from.contains('%') || reads(&format!("i/{from}")))
            }
            _ => false,
        },
        _ => false,
    }
}

/// The requirements in the context extensions, if there are any.
fn context_requirements(request: &CheckRequest) -> Option<Vec<(String, String)>> {
    let extensions = &request.attributes.as_ref()?.context_extensions;
    let mut pairs = Vec::new();
    for (key, capability) in extensions {
        if let Some(end) = key.strip_prefix("capability") {
            let resource = extensions.get(&format!("resource{end}"))?;
            pairs.push((capability.clone(), resource.clone()));
        }
    }
    (!pairs.is_empty()).then_some(pairs)
}
