//! Routes of axum that ask before a request reaches its handler.

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use capstan_client::Options;
use capstan_client::protect::{Caller, Needs, Routes, decided_at};
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use crate::real::Real;

fn identify(head: &http::request::Parts) -> Option<Caller> {
    Some(Caller::new(head.headers.get("x-identity")?.to_str().ok()?))
}

async fn send(router: &Router, path: &str, identity: &str) -> (StatusCode, String) {
    let mut request = Request::get(path);
    if !identity.is_empty() {
        request = request.header("x-identity", identity);
    }
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_request_reaches_its_handler_if_it_is_allowed() {
    let capstan = Real::demo().await;
    let handler = async || format!("decided at {:?}", decided_at());
    let routes = Routes::new(capstan.client(Options::default()), identify);
    let list = |resource: &str| Needs::new("repo.list", resource);
    let router = routes
        .route("/{org}/{team}/r/{repo}", get(handler), list("{org}/{team}/images/{repo}"))
        .unwrap()
        .route("/all/{*path}", get(handler).post(handler), list("acme/{path}"))
        .unwrap()
        .open("/healthz", get(handler))
        .into_router();
    let decided = "decided at Some(1)".to_owned();
    for path in ["/acme/platform/r/nginx", "/all/platform/images/nginx", "/all/platform"] {
        assert_eq!(send(&router, path, "bob").await, (StatusCode::OK, decided.clone()), "{path}");
    }
    assert_eq!(send(&router, "/healthz", "").await, (StatusCode::OK, "decided at None".into()));
    for (path, identity, status, said) in [
        (
            "/acme/platform/r/nginx",
            "nobody",
            StatusCode::FORBIDDEN,
            "repo.list is required at acme/platform/images/nginx",
        ),
        ("/other/platform/r/nginx", "bob", StatusCode::FORBIDDEN, "at other/platform/images/nginx"),
        ("/acme/platform/r/nginx", "", StatusCode::UNAUTHORIZED, "nobody that is known"),
        // An encoded slash would be another resource for the handler.
        ("/acme/platform/r/a%2fb", "bob", StatusCode::BAD_REQUEST, "repo: empty, or with a slash"),
        ("/acme/platform/r/a%20b", "bob", StatusCode::BAD_REQUEST, "resource"),
        ("/acme/platform/r/%ff", "bob", StatusCode::BAD_REQUEST, "malformed"),
        ("/acme/platform/r/nginx", "b b", StatusCode::INTERNAL_SERVER_ERROR, "identity"),
        ("/none", "bob", StatusCode::NOT_FOUND, ""),
    ] {
        let (found, body) = send(&router, path, identity).await;
        assert_eq!(found, status, "{path} {identity}: {body}");
        assert!(body.contains(said), "{said}: {body}");
    }
    capstan.kill();
    let request =
        Request::get("/all/platform").header("x-identity", "bob").header("grpc-timeout", "200m");
    let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn a_route_says_what_it_needs() {
    let capstan = Real::demo().await;
    let client = capstan.client(Options::default());
    for (capability, resource, said) in [
        ("repo.list", "", "no resource"),
        ("", "acme", "no capability"),
        ("repo.list", "acme/{repo", "not closed"),
        ("repo.list", "acme/repo}", "not opened"),
        ("repo.list", "acme/{other}", "no parameter `other`"),
    ] {
        let routes = Routes::<()>::new(client.clone(), identify);
        let needs = Needs::new(capability, resource);
        let error = routes.route("/{repo}", get(async || ""), needs).unwrap_err().to_string();
        assert!(error.starts_with("/{repo}: ") && error.contains(said), "{error}");
    }
}
