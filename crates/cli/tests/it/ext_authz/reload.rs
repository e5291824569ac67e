//! Reloads of policies, credentials and routes under `ext_authz`, and servers that cannot decide.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use capstan_server::feed::source::Source;
use capstan_server::limits::Limits;
use capstan_server::server::{Config, Feed};
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::envoy::{Http, Outcome, outcome, send};
use super::{MISSPELT, ROUTES, configured, files, policy, start, usual_policy};
use crate::common::{InProcess, PATIENCE, Serving, capstan, stderr};
use crate::metrics::of;
use crate::raw::{Body, call, framed};

/// Replaces a file atomically, by a rename.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(&new, path).unwrap();
}

async fn until(server: &InProcess, http: &Http, status: i32) -> Outcome {
    let started = Instant::now();
    loop {
        let outcome = send(server, http).await;
        if outcome.status() == status {
            return outcome;
        }
        assert!(started.elapsed() < PATIENCE, "still {outcome:?}");
    }
}

#[tokio::test]
async fn a_reload_revokes_credentials_and_bindings() {
    let config = configured("envoy-revoke", &usual_policy(), ROUTES);
    let Feed::Document(Source::File { path, .. }) = config.feed.clone() else { panic!() };
    let server = InProcess::start_with(config).await;
    let ci = Http::get("/v2/web/tags").bearer("ci-secret");
    let dev = Http::get("/v2/web/tags").bearer("dev-secret");
    assert_eq!(send(&server, &ci).await.status(), 200);
    // The secret is replaced by another one.
    replace(&path, &policy(&[("acme/ci", "new-secret", ""), ("acme/dev", "dev-secret", "")]));
    until(&server, &ci, 401).await;
    let outcome = send(&server, &Http::get("/v2/web/tags").bearer("new-secret")).await;
    assert_eq!(outcome.upstream_header("x-capstan-revision"), ["2"]);
    assert_eq!(send(&server, &dev).await.status(), 200);
    // The binding is removed.
    let without = usual_policy().replace("- {identity: acme/dev, role: writer", "# ");
    replace(&path, &without);
    let outcome = until(&server, &dev, 403).await;
    assert_eq!(outcome.reason(), "NO_BINDING");
    // The secret belongs to another identity from the same revision on.
    replace(&path, &policy(&[("x:y", "dev-secret", "")]));
    until(&server, &Http::get("/v2/").bearer("dev-secret"), 200).await;
    // An invalid policy does not change the credentials.
    replace(&path, &policy(&[("nobody", "other-secret", "")]));
    let rejected = "capstan_loads_total{outcome=\"rejected\"}";
    let started = Instant::now();
    while of(&server, rejected).await < 1.0 {
        assert!(started.elapsed() < PATIENCE, "the load is never rejected");
    }
    let other = Http::get("/v2/").bearer("other-secret");
    for _ in 0..20 {
        assert_eq!(send(&server, &other).await.status(), 401);
    }
}

#[test]
fn a_route_table_is_reloaded_completely_or_not_at_all() {
    let (policy, routes) = files("envoy-reroute", &usual_policy(), ROUTES);
    let mut server = Serving::start(
        &[
            "--policy",
            policy.to_str().unwrap(),
            "--routes",
            routes.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
            "--http",
            "none",
        ],
        1,
    );
    server.wait_for_log("routes loaded and proved");
    // A route that can never allow a request gives one warning, because the policy may follow.
    replace(&routes, &format!("{ROUTES}{MISSPELT}"));
    server.wait_for_log("the policy's catalog has no such capability");
    let overlapping =
        format!("{ROUTES}- {{name: twin, methods: [GET], path: '/{{a}}/', authenticated: true}}\n");
    replace(&routes, &overlapping);
    server.wait_for_log("the routes are not reloaded, the old ones serve on");
    server.wait_for_log(
        "route `twin`, which matches `GET /v2/`; expected no request that route `base` also \
         matches",
    );
    replace(&routes, "version: 1\nroutes: []\n");
    server.wait_for_log("\"routes\":0");
    // SIGHUP reloads both files.
    replace(&routes, ROUTES);
    server.wait_for_log("\"routes\":6");
    server.signal("-HUP");
    server.wait_for_log("\"revision\":2");
    assert_eq!(server.stop("-TERM").0, Some(0));
}

#[tokio::test]
async fn a_new_route_table_applies_at_once() {
    let config = configured("envoy-retable", &usual_policy(), ROUTES);
    let routes = config.routes.clone().unwrap();
    let server = InProcess::start_with(config).await;
    let http = Http::get("/v2/").bearer("ci-secret");
    assert_eq!(send(&server, &http).await.status(), 200);
    replace(&routes, "version: 1\nidentity: [jwt]\nchallenge: Bearer\nroutes: []\n");
    let Outcome::Refused { challenge, .. } = until(&server, &http, 401).await else { panic!() };
    assert_eq!(challenge.as_deref(), Some("Bearer"));
    replace(&routes, &format!("{ROUTES}{MISSPELT}"));
    until(&server, &http, 200).await;
    // An unknown capability denies every identity.
    let misspelt = until(&server, &Http::get("/misspelt").bearer("ci-secret"), 403).await;
    assert_eq!(misspelt.reason(), "UNKNOWN_CAPABILITY");
    replace(&routes, "version: 1\nroutes: [{}]\n");
    let rejected = "capstan_route_loads_total{outcome=\"rejected\"}";
    let started = Instant::now();
    while of(&server, rejected).await < 1.0 {
        assert!(started.elapsed() < PATIENCE);
    }
    assert_eq!(of(&server, "capstan_route_loads_total{outcome=\"applied\"}").await, 3.0);
    assert_eq!(send(&server, &http).await.status(), 200);
    // If the file is deleted, the old routes stay in use.
    std::fs::remove_file(&routes).unwrap();
    for _ in 0..20 {
        assert_eq!(send(&server, &http).await.status(), 200);
    }
}

#[test]
fn invalid_routes_stop_the_start() {
    let (policy, file) = files("envoy-badroutes", &usual_policy(), "");
    let [policy, routes] = [&policy, &file].map(|path| path.to_str().unwrap());
    let free = ["--listen", "127.0.0.1:0", "--http", "none"];
    let with =
        |routes| capstan(&[&["serve", "--policy", policy, "--routes", routes], &free[..]].concat());
    for (document, expected) in [
        (
            "version: 1\nroutes: [{name: a}]\n".to_owned(),
            "routes.yaml:2:10: routes[0]: found neither `path` nor `grpc`; expected one of them",
        ),
        (
            format!("{ROUTES}{MISSPELT}"),
            "routes.yaml:14:18: routes[6].require[0].capability: found `repo.lsit`; expected a capability of catalog \
             `c`; did you mean `repo.list`?",
        ),
    ] {
        std::fs::write(&file, document).unwrap();
        let output = with(routes);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    let missing = with("/nonexistent/routes.yaml");
    assert_eq!(missing.status.code(), Some(2));
    assert!(stderr(&missing).contains("cannot read /nonexistent/routes.yaml"));
}

/// No request passes before the policy is loaded, and the client receives 503.
#[test]
fn a_starting_server_answers_with_an_error() {
    let (policy, routes) = files("envoy-starting", "", ROUTES);
    std::fs::remove_file(&policy).unwrap();
    // Reading the policy from an empty pipe blocks, so the server stays in its start.
    assert!(Command::new("mkfifo").arg(&policy).status().unwrap().success());
    let _pipe = std::fs::File::options().read(true).write(true).open(&policy).unwrap();
    let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = free().to_string();
    let [policy, routes] = [&policy, &routes].map(|path| path.to_str().unwrap());
    let arguments =
        ["--policy", policy, "--routes", routes, "--listen", &address, "--http", "none"];
    let mut server = Serving::start(&arguments, 0);
    server.wait_for_log("routes loaded and proved");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let url = format!("http://{address}");
        let mut envoy = AuthorizationClient::new(crate::secrets::Channel::to(url).await);
        let http = Http::get("/v2/").bearer("ci-secret");
        let answer = envoy.check(http.check_request()).await.unwrap().into_inner();
        let Outcome::Failed { status, body } = outcome(answer, &http) else {
            panic!("not an error")
        };
        assert_eq!(status, 503);
        assert_eq!(body["message"], "not ready: the policy is being loaded");
    });
}

/// A server without a free permit answers with an error, and tells the client to retry.
#[tokio::test]
async fn an_overloaded_server_answers_with_an_error() {
    let limits = Limits { in_flight_max: 1, peer_in_flight_max: 1, ..Limits::default() };
    let config = configured("envoy-overload", &usual_policy(), ROUTES);
    let server = InProcess::start_with(Config { limits, ..config }).await;
    let (_held, batches) = tokio::sync::mpsc::channel(1);
    let stream = server.decisions().stream_check(ReceiverStream::new(batches)).await.unwrap();
    let http = Http::get("/v2/").bearer("ci-secret");
    let Outcome::Failed { status, body } = send(&server, &http).await else {
        panic!("not an error")
    };
    assert_eq!(
        (status, body["error"].as_str()),
        (503, Some("too many calls are in flight: ask again in a moment"))
    );
    assert_eq!(body["message"], "too many calls are in flight: ask again in a moment");
    let counted = "capstan_requests_total{rpc=\"ExtAuthz\",code=\"RESOURCE_EXHAUSTED\"}";
    assert_eq!(of(&server, counted).await, 1.0);
    drop((stream, _held));
    until(&server, &http, 200).await;
}

#[tokio::test]
async fn an_expired_deadline_is_answered_with_an_error() {
    const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";
    let server = start("envoy-deadline", &usual_policy(), ROUTES).await;
    let http = Http::get("/v2/").bearer("ci-secret");
    let request = || (framed(&http.check_request()), Body::Whole);
    let late = call(server.grpc, CHECK, &[("grpc-timeout", "0n")], request()).await.unwrap();
    assert_eq!(late.code(), Code::Ok, "an error is a response with code OK");
    let counted = |code| format!("capstan_requests_total{{rpc=\"ExtAuthz\",code=\"{code}\"}}");
    assert_eq!(of(&server, &counted("DEADLINE_EXCEEDED")).await, 1.0);
    assert_eq!(of(&server, &counted("OK")).await, 0.0);
    let soon = call(server.grpc, CHECK, &[("grpc-timeout", "5S")], request()).await.unwrap();
    assert_eq!((soon.code(), of(&server, &counted("OK")).await), (Code::Ok, 1.0));
}
