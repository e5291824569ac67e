//! `ext_authz` requests: which requests pass, and how others are denied. Ambiguous requests never pass.

pub(crate) mod body;
mod bytes;
pub(crate) mod envoy;
mod identity;
mod reload;
mod tricks;

use std::path::PathBuf;

use capstan_server::clock::Clock;
use capstan_server::feed::source::Source;
use capstan_server::server::Config;
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use sha2::{Digest as _, Sha256};

use crate::common::{InProcess, config, folder};
use crate::metrics::of;
use envoy::{Http, Outcome, send};

/// The SHA-256 of a secret in hexadecimal digits, as in a policy document.
fn sha256(secret: &str) -> String {
    Sha256::digest(secret).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A policy with this list of credentials. `acme/ci` can read at `acme/images`, `acme/dev` can read and
/// write at `acme/images/web`, and `x:y` has no role binding.
fn policy(credentials: &[(&str, &str, &str)]) -> String {
    let listed = credentials.iter().map(|(identity, secret, more)| {
        format!("- {{identity: '{identity}', sha256: {}{more}}}\n", sha256(secret))
    });
    format!(
        "version: 1
catalog:
  name: c
  resources: [{{name: repo, actions: [list, update]}}, {{name: tag, actions: [list]}}]
  roles:
  - {{name: reader, capabilities: [repo.list, tag.list]}}
  - {{name: writer, capabilities: [repo.list, repo.update, tag.list]}}
groups: [{{id: acme}}, {{id: acme/images}}, {{id: acme/images/web}}]
identities: [{{id: acme/ci}}, {{id: acme/dev}}, {{id: x}}, {{id: 'x:y'}}]
role_bindings:
- {{identity: acme/ci, role: reader, scope: acme/images}}
- {{identity: acme/dev, role: writer, scope: acme/images/web}}
credentials:
{}",
        listed.collect::<String>()
    )
}

fn usual_policy() -> String {
    policy(&[
        ("acme/ci", "ci-secret", ""),
        ("acme/dev", "dev-secret", ""),
        ("x:y", "xy-secret", ""),
    ])
}

const ROUTES: &str = "version: 1
challenge: 'Basic realm=\"test\"'
routes:
- {name: base, methods: [GET], path: /v2/, authenticated: true}
- {name: tags, methods: [GET, HEAD], path: '/v2/{r...}/tags', require: [
    {capability: repo.list, resource: 'acme/images/{r}'}, {capability: tag.list, resource: 'acme/images/{r}'}]}
- {name: push, methods: [PUT], path: '/v2/{r...}/push', query: [digest], require: [
    {capability: repo.list, resource: 'acme/images/{r}'}, {capability: repo.update, resource: 'acme/images/{r}'}]}
- {name: admin, hosts: [admin.example], methods: [GET], path: '/admin/{r...}', require: [
    {capability: repo.list, resource: 'acme/images/{r}'}]}
- {name: call, grpc: my.pkg.Service/Method, require: [{capability: repo.list, resource: acme/images}]}
- {name: form, methods: [POST], path: /form, form: true, require: [{capability: repo.list, resource: acme/images}]}
";

/// A route with a capability that no catalog has.
const MISSPELT: &str = "- {name: misspelt, methods: [GET], path: /misspelt, require: [
    {capability: repo.lsit, resource: acme/images}]}\n";

/// Writes a policy and a route table to a new folder.
fn files(name: &str, policy: &str, routes: &str) -> (PathBuf, PathBuf) {
    let folder = folder(name);
    let (policy_file, routes_file) = (folder.join("policy.yaml"), folder.join("routes.yaml"));
    std::fs::write(&policy_file, policy).unwrap();
    std::fs::write(&routes_file, routes).unwrap();
    (policy_file, routes_file)
}

fn configured(name: &str, policy: &str, routes: &str) -> Config {
    let (policy, routes) = files(name, policy, routes);
    Config { routes: Some(routes), ..config(Source::file(policy)) }
}

async fn start(name: &str, policy: &str, routes: &str) -> InProcess {
    InProcess::start_with(configured(name, policy, routes)).await
}

#[tokio::test]
async fn allowed_requests_pass_with_the_identity_header() {
    let server = start("envoy-passes", &usual_policy(), ROUTES).await;
    for raw in [false, true] {
        let mut http = Http::get("/v2/web/app/tags?n=5")
            .bearer("ci-secret")
            .header("x-capstan-identity", "acme/root")
            .header("x-capstan-identity", "acme/other")
            .header("X-Capstan-Revision", "99")
            .header("x-capstan-groups", "admins")
            .header("x-identity", "acme/root")
            .header("x-forwarded-client-cert", "URI=spiffe://acme/root")
            .header("x-envoy-original-path", "/v2/")
            .header("x-original-url", "/v2/")
            .header("x-rewrite-url", "/v2/")
            .header("X_Capstan_Identity", "acme/root")
            .header("x_capstan-revision", "99")
            .header("x_original_uri", "/v2/")
            .header("accept", "a, b");
        http.raw = raw;
        let outcome = send(&server, &http).await;
        assert_eq!(outcome.status(), 200, "{outcome:?}");
        assert_eq!(outcome.upstream_header("x-capstan-identity"), ["acme/ci"]);
        assert_eq!(outcome.upstream_header("x-capstan-revision"), ["1"]);
        assert_eq!(outcome.upstream_header("accept"), ["a, b"]);
        for gone in [
            "x-capstan-groups",
            "x-envoy-original-path",
            "x-original-url",
            "x-rewrite-url",
            "x_capstan_identity",
            "x_capstan-revision",
            "x_original_uri",
            "authorization",
        ] {
            assert_eq!(outcome.upstream_header(gone), Vec::<&str>::new(), "{gone}");
        }
        let Outcome::Passed { metadata, .. } = outcome else { panic!() };
        assert_eq!(metadata["identity"], "acme/ci");
        assert_eq!(metadata["route"], "tags");
        assert_eq!(metadata["allowed"], "BoolValue(true)");
        assert_eq!(metadata["revision"], "NumberValue(1.0)");
        assert!(!metadata.contains_key("reason"));
    }
}

#[tokio::test]
async fn each_requirement_must_hold() {
    let server = start("envoy-requirements", &usual_policy(), ROUTES).await;
    let push = |target: &str, secret: &str| Http::new("PUT", target).bearer(secret);
    for (http, status, reason) in [
        (push("/v2/web/push", "dev-secret"), 200, ""),
        (push("/v2/web/a/b/push?digest=x", "dev-secret"), 200, ""),
        (push("/v2/web/push", "ci-secret"), 403, "CAPABILITY_NOT_IN_ROLE"),
        (push("/v2/other/push", "dev-secret"), 403, "NO_BINDING"),
        (push("/v2/webb/push", "dev-secret"), 403, "NO_BINDING"),
        (Http::get("/v2/web/tags").bearer("xy-secret"), 403, "NO_BINDING"),
        // A route that requires any identity.
        (Http::get("/v2/").bearer("xy-secret"), 200, ""),
        (Http::get("/v2/"), 401, "AUTHN_FAILED"),
        // The path gives a malformed resource.
        (Http::get("/v2/a*b/tags").bearer("ci-secret"), 403, "MALFORMED_RESOURCE"),
    ] {
        let outcome = send(&server, &http).await;
        assert_eq!((outcome.status(), outcome.reason()), (status, reason), "{http:?}\n{outcome:?}");
    }
    let outcome = send(&server, &push("/v2/web/push", "ci-secret")).await;
    let Outcome::Refused { body, challenge, .. } = outcome else { panic!("{outcome:?}") };
    let message = "repo.update is required at acme/images/web: CAPABILITY_NOT_IN_ROLE";
    let expected = serde_json::json!({
        "error": message, "reason": "CAPABILITY_NOT_IN_ROLE", "message": message,
        "capability": "repo.update", "resource": "acme/images/web",
        "errors": [{"code": "DENIED", "message": message}],
    });
    assert_eq!((body, challenge), (expected, None));
}

/// Routes of a registry: a refused source of a mount leaves an ordinary upload.
const MOUNTS: &str = "version: 1
routes:
- {name: upload, methods: [POST], path: '/v2/{r...}/uploads/', query: [digest, ns, origin], require: [
    {capability: repo.update, resource: 'acme/images/{r}'}]}
- name: mount
  methods: [POST]
  path: '/v2/{r...}/uploads/'
  query: [{name: mount, as: blob}, {name: from, as: source}, ns, origin]
  if_denied_remove: [mount, from]
  require: [{capability: repo.update, resource: 'acme/images/{r}'}, {capability: repo.list, resource: 'acme/images/{source}'}]
- name: mount-anywhere
  methods: [POST]
  path: '/v2/{r...}/uploads/'
  query: [{name: mount, as: blob}, ns, origin]
  if_denied_remove: [mount]
  require: [{capability: repo.update, resource: 'acme/images/{r}'}, {capability: repo.list, resource: acme/images}]
- name: dead-end
  methods: [POST]
  path: '/v3/{r...}'
  query: [{name: from, as: source}]
  if_denied_remove: [from]
  require: [{capability: repo.list, resource: 'acme/images/{source}'}]
";

/// Only the query parameters that may pass reach the service. What is left is decided as if the client
/// had sent it.
#[tokio::test]
async fn a_refused_source_of_a_mount_leaves_an_ordinary_upload() {
    let server = start("envoy-mounts", &usual_policy(), MOUNTS).await;
    let post = |target: &str| Http::new("POST", target).bearer("dev-secret");
    let none: &[&str] = &[];
    for (target, route, removed) in [
        ("/v2/web/uploads/", "upload", none),
        ("/v2/web/uploads/?ns=docker.io&origin=x", "upload", none),
        ("/v2/web/uploads/?mount=d&from=web/a", "mount", none),
        ("/v2/web/uploads/?mount=d&from=web%2Fa&origin=x", "mount", none),
        ("/v2/web/uploads/?mount=d&from=other", "upload", &["mount", "from"]),
        ("/v2/web/uploads/?from=other&ns=n&mount=d", "upload", &["mount", "from"]),
        ("/v2/web/uploads/?mount=d&from=web%2F..%2Fother", "upload", &["mount", "from"]),
        ("/v2/web/uploads/?mount=d&from=", "upload", &["mount", "from"]),
        ("/v2/web/uploads/?mount=d", "upload", &["mount"]),
    ] {
        let answer = envoy::client(&server).check(post(target).check_request()).await.unwrap();
        let answer = answer.into_inner();
        let Some(HttpResponse::OkResponse(ok)) = &answer.http_response else { panic!("{target}") };
        assert_eq!(ok.query_parameters_to_remove, removed, "{target}");
        let Outcome::Passed { metadata, .. } = envoy::outcome(answer, &post(target)) else {
            panic!("{target}")
        };
        assert_eq!(metadata["route"], route, "{target}");
    }
    for (target, reason) in [
        // The target is refused, with the reason for the whole request.
        ("/v2/other/uploads/", "NO_BINDING"),
        ("/v2/other/uploads/?mount=d&from=web", "NO_BINDING"),
        ("/v2/other/uploads/?mount=d&from=other", "NO_BINDING"),
        ("/v2/other/uploads/?mount=d", "NO_BINDING"),
        // Other parameters have no route, and a rest without a route is denied as before.
        ("/v2/web/uploads/?from=other", "NO_ROUTE"),
        ("/v2/web/uploads/?mount=d&from=other&x=1", "NO_ROUTE"),
        ("/v3/web?from=other", "NO_BINDING"),
    ] {
        let outcome = send(&server, &post(target)).await;
        assert_eq!((outcome.status(), outcome.reason()), (403, reason), "{target}");
    }
    for repeated in
        ["mount=d&from=other&from=web", "mount=d&mount=e&from=other", "mount=d&%66rom=x"]
    {
        let outcome = send(&server, &post(&format!("/v2/web/uploads/?{repeated}"))).await;
        assert_eq!(outcome.status(), 400, "{repeated}");
    }
}

#[tokio::test]
async fn requests_without_a_route_are_denied() {
    let server = start("envoy-no-route", &usual_policy(), ROUTES).await;
    let ci = |method: &str, target: &str| Http::new(method, target).bearer("ci-secret");
    let grpc = ci("POST", "/my.pkg.Service/Method");
    let form = "application/x-www-form-urlencoded";
    for (http, status, reason) in [
        (ci("GET", "/"), 403, "NO_ROUTE"),
        (ci("GET", "/v2"), 403, "NO_ROUTE"),
        (ci("GET", "/v2/web/Tags"), 403, "NO_ROUTE"),
        (ci("GET", "/v2/web/tags/"), 403, "NO_ROUTE"),
        (ci("GET", "/v2/tags"), 403, "NO_ROUTE"),
        (ci("POST", "/v2/web/tags"), 403, "NO_ROUTE"),
        (ci("DELETE", "/v2/web/tags"), 403, "NO_ROUTE"),
        (ci("HEAD", "/v2/web/tags"), 200, ""),
        // Hosts are exact.
        (ci("GET", "/admin/web").host("admin.example:8443"), 200, ""),
        (ci("GET", "/admin/web").host("Admin.Example"), 200, ""),
        (ci("GET", "/admin/web"), 403, "NO_ROUTE"),
        (ci("GET", "/admin/web").host("admin.example."), 403, "NO_ROUTE"),
        (ci("GET", "/admin/web").host("x.admin.example"), 403, "NO_ROUTE"),
        // A query parameter that a writing route does not list.
        (ci("PUT", "/v2/web/push?force=1"), 403, "NO_ROUTE"),
        (ci("GET", "/v2/web/tags?force=1"), 200, ""),
        // The content type distinguishes gRPC requests.
        (grpc.clone().header("content-type", "application/grpc"), 200, ""),
        (grpc.clone().header("content-type", "application/grpc-web"), 403, "NO_ROUTE"),
        (grpc, 403, "NO_ROUTE"),
        // A form can contain query parameters that Capstan does not see.
        (ci("PUT", "/v2/web/push").header("content-type", form), 403, "FORM_BODY"),
        (
            ci("GET", "/v2/").header("content-type", "Multipart/Form-Data; boundary=x"),
            403,
            "FORM_BODY",
        ),
        (ci("POST", "/form").header("content-type", form), 200, ""),
    ] {
        let outcome = send(&server, &http).await;
        assert_eq!((outcome.status(), outcome.reason()), (status, reason), "{http:?}\n{outcome:?}");
    }
}

/// Without a route table, or with an empty one, only context extensions can give requirements.
#[tokio::test]
async fn without_routes_only_context_extensions_let_requests_pass() {
    let (policy, _) = files("envoy-no-table", &usual_policy(), "");
    let server = InProcess::start(Source::file(policy)).await;
    let empty = start("envoy-empty-table", &usual_policy(), "version: 1\nroutes: []\n").await;
    for server in [&server, &empty] {
        let http = Http::get("/v2/").bearer("ci-secret");
        assert_eq!(send(server, &http).await.reason(), "NO_ROUTE");
        let http = http.extension("capability", "repo.list").extension("resource", "acme/images");
        assert_eq!(send(server, &http).await.status(), 200);
        let outcome = send(server, &Http::get("/v2/")).await;
        let Outcome::Refused { status: 401, challenge, .. } = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(challenge.as_deref(), Some("Basic realm=\"capstan\""));
    }
}

#[tokio::test]
async fn context_extensions_override_the_route_table() {
    let server = start("envoy-extensions", &usual_policy(), ROUTES).await;
    let get = |more: &[(&str, &str)]| {
        let http = Http::get("/v2/web/tags").bearer("ci-secret").extension("virtual_host", "any");
        more.iter().fold(http, |http, (key, value)| http.extension(key, value))
    };
    let web = ("resource", "acme/images/web");
    for (http, status, reason) in [
        (get(&[]), 200, ""),
        (get(&[("capability", "repo.list"), web]), 200, ""),
        (get(&[("capability", "repo.update"), web]), 403, "CAPABILITY_NOT_IN_ROLE"),
        (get(&[("capability", "repo.nope"), web]), 403, "UNKNOWN_CAPABILITY"),
        (get(&[("capability", "repo.list"), ("resource", "a//b")]), 403, "MALFORMED_RESOURCE"),
        (get(&[("capability", ""), ("resource", "")]), 403, "MALFORMED_RESOURCE"),
        // An incomplete pair, a gap in the numbers, or an invalid number denies the request.
        (get(&[("capability", "repo.list")]), 403, "NO_ROUTE"),
        (get(&[web]), 403, "NO_ROUTE"),
        (get(&[("capability", "repo.list"), web, ("capability_2", "tag.list")]), 403, "NO_ROUTE"),
        (
            get(&[
                ("capability", "repo.list"),
                web,
                ("capability_3", "tag.list"),
                ("resource_3", "a"),
            ]),
            403,
            "NO_ROUTE",
        ),
        (
            get(&[("capability", "repo.list"), web, ("resource_x", "a"), ("capability_x", "a")]),
            403,
            "NO_ROUTE",
        ),
        (
            get(&[
                ("capability", "repo.list"),
                web,
                ("capability_2", "tag.list"),
                ("resource_2", "acme/images"),
            ]),
            200,
            "",
        ),
        (
            get(&[
                ("capability", "repo.list"),
                web,
                ("capability_2", "tag.list"),
                ("resource_2", "acme"),
            ]),
            403,
            "NO_BINDING",
        ),
        // Context extensions do not lift the rule that a request must be canonical.
        (
            Http { target: "/v2/../tags".into(), ..get(&[("capability", "repo.list"), web]) },
            400,
            "MALFORMED_REQUEST",
        ),
    ] {
        let outcome = send(&server, &http).await;
        assert_eq!((outcome.status(), outcome.reason()), (status, reason), "{http:?}\n{outcome:?}");
    }
    // The highest number of requirements, and one more.
    let many = |count: usize| {
        (2..=count).fold(get(&[("capability", "repo.list"), web]), |http, at| {
            http.extension(&format!("capability_{at}"), "repo.list")
                .extension(&format!("resource_{at}"), web.1)
        })
    };
    let most = capstan_policy::REQUIREMENTS_MAX;
    assert_eq!(send(&server, &many(most)).await.status(), 200);
    assert_eq!(send(&server, &many(most + 1)).await.reason(), "NO_ROUTE");
}

#[tokio::test]
async fn requests_and_decisions_are_counted_and_logged() {
    let log = folder("envoy-log").join("decisions.ndjson");
    let decision_log = Some(capstan_server::telemetry::decision_log::Target::File(log.clone()));
    let clock = Clock::Fixed(capstan_engine::Timestamp::new(1_800_000_000, 0));
    let config = configured("envoy-counted", &usual_policy(), ROUTES);
    let server = InProcess::start_with(Config { decision_log, clock, ..config }).await;
    for (http, times) in [
        (Http::get("/v2/web/tags").bearer("ci-secret"), 3),
        (Http::new("PUT", "/v2/web/push").bearer("ci-secret"), 2),
        (Http::get("/nowhere").bearer("ci-secret"), 4),
        (Http::get("/v2/web/tags").bearer("what"), 5),
        (Http::get("//").bearer("ci-secret"), 6),
    ] {
        for _ in 0..times {
            send(&server, &http).await;
        }
    }
    for (outcome, count) in [
        ("allowed", 3.0),
        ("denied", 2.0),
        ("no_route", 4.0),
        ("unauthenticated", 5.0),
        ("malformed", 6.0),
        ("unavailable", 0.0),
    ] {
        let series = format!("capstan_ext_authz_answers_total{{outcome=\"{outcome}\"}}");
        assert_eq!(of(&server, &series).await, count, "{outcome}");
    }
    let decided =
        |allowed| format!("capstan_decisions_total{{rpc=\"ExtAuthz\",allowed=\"{allowed}\"}}");
    // Each requirement is one decision, up to the first denial.
    assert_eq!(of(&server, &decided(true)).await, 8.0);
    assert_eq!(of(&server, &decided(false)).await, 2.0);
    let calls = "capstan_requests_total{rpc=\"ExtAuthz\",code=\"OK\"}";
    assert_eq!(of(&server, calls).await, 20.0);
    let written = "capstan_decision_log_lines_total{outcome=\"written\"}";
    let started = std::time::Instant::now();
    while of(&server, written).await < 10.0 {
        assert!(started.elapsed() < crate::common::PATIENCE);
    }
    let text = crate::secrets::decision_log(&log);
    let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
    let expected = serde_json::json!({
        "time": "2027-01-15T08:00:00Z", "rpc": "ExtAuthz", "identity": "acme/ci",
        "capability": "repo.list", "resource": "acme/images/web", "allowed": true,
        "reason": "GRANTED", "revision": 1,
    });
    assert_eq!(first, expected);
    for secret in ["ci-secret", "what", &sha256("ci-secret")] {
        assert!(!text.contains(secret));
    }
}
