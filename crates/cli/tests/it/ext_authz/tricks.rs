//! Ambiguous requests, which two servers can read differently. None of them passes.

use capstan_server::limits::{HTTP_HEADERS_MAX, TARGET_BYTES_MAX};

use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;

use super::envoy::{Http, Outcome, client, http_attributes, outcome, send};
use super::{policy, start};
use crate::common::InProcess;

/// A server that allows `acme/dev` every request, so only the form of a request can be refused.
async fn open_server(name: &str) -> InProcess {
    let routes = "version: 1
routes:
- {name: all, methods: [GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS], path: '/{all...}', query: [a], form: true,
   authenticated: true}
- {name: slash, methods: [GET], path: /v2/, authenticated: true}
";
    start(name, &policy(&[("acme/dev", "dev-secret", "")]), routes).await
}

fn dev(target: &str) -> Http {
    Http::get(target).bearer("dev-secret")
}

async fn assert_malformed(server: &InProcess, http: &Http) {
    let outcome = send(server, http).await;
    assert_eq!(
        (outcome.status(), outcome.reason()),
        (400, "MALFORMED_REQUEST"),
        "{http:?}\n{outcome:?}"
    );
    // A denial and not an error: `failure_mode_allow` lets errors pass.
    assert!(matches!(outcome, Outcome::Refused { .. }), "{outcome:?}");
}

#[tokio::test]
async fn only_the_canonical_path_passes() {
    let server = open_server("envoy-paths").await;
    for path in
        ["/a", "/a/b.c", "/v2/", "/a@1:2+3", "/...", "/a..", "/%61", "/a%2B1%21%40%3A%3D%2d%5f%7E"]
    {
        assert_eq!(send(&server, &dev(path)).await.status(), 200, "{path}");
    }
    let long = format!("/{}", "a".repeat(64 * 1024));
    let longest = format!("/{}", "a".repeat(TARGET_BYTES_MAX - 1));
    assert_eq!(send(&server, &dev(&longest)).await.status(), 200);
    let one_more = format!("{longest}a");
    let deep = "/a".repeat(65);
    for path in [
        "//",
        "//a",
        "/a//b",
        "/a//",
        "/./a",
        "/a/.",
        "/a/./b",
        "/..",
        "/../a",
        "/a/..",
        "/a/../b",
        "/%2e%2e/a",
        "/a/%2E%2e%2fb",
        "/a%2Fb",
        "/a%2fb",
        "/a%5cb",
        "/a%00b",
        "/a%2eb",
        "/a%2541",
        "/a%%32f",
        "/a%2ab",
        "/a%3bb",
        "/a%20b",
        "/a%c0%af",
        "/a%2f..",
        "/a%252fb",
        "/%",
        "/a%zz",
        "/a;b",
        "/a;v=1/b",
        "/..;/a",
        "/a/..;/b",
        "/a\\b",
        "/..\\a",
        "/a b",
        "/a\tb",
        "/a\0b",
        "/a\r\nX: y",
        "/a#b",
        "/a#",
        "/é",
        "/a\u{202e}b",
        "/a\u{ff0f}b",
        "/\u{fffd}",
        "a",
        "",
        "*",
        "a/b",
        "http://registry.example/a",
        "https://other.example/a",
        "registry.example:443",
        "/a|b",
        "/a\"b",
        "/<a>",
        "/a^b",
        "/a`b",
        "/{a}",
        "/[a]",
        "/a\u{7f}",
        &long,
        &one_more,
        &deep,
    ] {
        assert_malformed(&server, &dev(path)).await;
        assert_malformed(&server, &dev(path).raw()).await;
    }
}

#[tokio::test]
async fn only_the_canonical_query_passes() {
    let server = open_server("envoy-queries").await;
    for query in ["?", "?a", "?a=b", "?a=%2F%2e%2e", "?a=%61", "?a=b&"] {
        assert_eq!(send(&server, &dev(&format!("/x{query}"))).await.status(), 200, "{query}");
    }
    let wide = format!("?{}", "b=1&".repeat(65));
    for query in [
        "?a=1&a=2", "?a&a", "?%61=1", "?a=1;b=2", "?a;b", "?a=%", "?a=%4", "?a=%zz", "?a=b#c",
        "?a b", "?a=\\", "?a=é", "?a+b=1", "?a=\0", "?a=\r\n", "?%ff=1", &wide,
    ] {
        assert_malformed(&server, &dev(&format!("/x{query}"))).await;
    }
}

#[tokio::test]
async fn invalid_methods_and_hosts_are_refused() {
    let server = open_server("envoy-methods").await;
    let method = |method: &str| Http::new(method, "/a").bearer("dev-secret");
    for good in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        assert_eq!(send(&server, &method(good)).await.status(), 200, "{good}");
    }
    for odd in ["", "get", "Get", "CONNECT", "TRACE", "PRI", "PROPFIND", "GET /a", "GET\0", "GÉT"]
    {
        assert_malformed(&server, &method(odd)).await;
    }
    for host in ["a.example", "a.example:80", "127.0.0.1", "[::1]:8080"] {
        assert_eq!(send(&server, &dev("/a").host(host)).await.status(), 200, "{host}");
    }
    for host in [
        "",
        ":80",
        "a.example:port",
        "a.example:",
        "a@b",
        "user:pw@a.example",
        "a/b",
        "a b",
        "a,b",
        "é.example",
        "a\0",
        "[::1",
        "a.example:80:80",
        "a?b",
        "a#b",
    ] {
        assert_malformed(&server, &dev("/a").host(host)).await;
    }
}

#[tokio::test]
async fn ambiguous_headers_are_refused() {
    let server = open_server("envoy-headers").await;
    let plain = dev("/a").header("host", "registry.example").header("content-type", "text/plain");
    assert_eq!(send(&server, &plain).await.status(), 200);
    assert_eq!(send(&server, &plain.clone().raw()).await.status(), 200);
    for (name, value) in [
        ("host", "other.example"),
        (":path", "/b"),
        (":method", "DELETE"),
        (":authority", "other.example"),
        ("content-type", "application/grpc"),
        ("Content-Type", "text/plain"),
        ("x-http-method-override", "DELETE"),
        ("X-HTTP-Method", "GET"),
        ("x-method-override", ""),
        ("X_HTTP_Method_Override", "DELETE"),
        ("upgrade", "websocket"),
        ("Upgrade", "h2c"),
    ] {
        for raw in [false, true] {
            let http = Http { raw, ..plain.clone().header(name, value) };
            assert_malformed(&server, &http).await;
        }
    }
    // Envoy sends only one encoding of the headers, and leaves these fields empty.
    let change: [fn(&mut HttpRequest); 3] = [
        |http| drop(http.headers.insert("x".into(), "y".into())),
        |http| http.query = "a=1".into(),
        |http| http.fragment = "a".into(),
    ];
    for change in change {
        let mut asked = plain.clone().raw().check_request();
        change(http_attributes(&mut asked));
        let answer = client(&server).check(asked).await.unwrap().into_inner();
        assert_eq!(outcome(answer, &plain).status(), 400);
    }
    assert_malformed(&server, &dev("/a").header("content-type", b"text/\xff").raw()).await;
}

#[tokio::test]
async fn requests_with_too_many_headers_are_refused() {
    let server = open_server("envoy-many").await;
    // Three pseudo-headers and the credential count, too.
    let many =
        |count: usize| (4..count).fold(dev("/a"), |http, at| http.header(&format!("x-{at}"), "1"));
    for raw in [false, true] {
        let http = Http { raw, ..many(HTTP_HEADERS_MAX) };
        assert_eq!(send(&server, &http).await.status(), 200);
        assert_malformed(&server, &Http { raw, ..many(HTTP_HEADERS_MAX + 1) }).await;
    }
}

/// The name in the path decides after one round of decoding. An encoded slash is one only where the
/// route says so.
#[tokio::test]
async fn a_decoded_path_is_decided_as_its_canonical_form() {
    let routes = "version: 1
routes:
- {name: join, methods: [GET], path: '/npm/{p...}', where: {p: encoded_slash},
   require: [{capability: repo.list, resource: 'acme/images/{p}'}]}
- {name: file, methods: [GET], path: '/file/{p...}',
   require: [{capability: repo.list, resource: 'acme/images/{p}'}]}
";
    let server = start("envoy-decoded", &policy(&[("acme/dev", "dev-secret", "")]), routes).await;
    // `acme/dev` may read at `acme/images/web` only.
    for (path, status, reason) in [
        ("/npm/web%2fapp", 200, ""),
        ("/npm/%77eb%2Fapp", 200, ""),
        ("/npm/web%2Fapp/-/app-1%2B1.tgz", 200, ""),
        ("/npm/webb%2fapp", 403, "NO_BINDING"),
        ("/npm/other%2fweb", 403, "NO_BINDING"),
        ("/npm/web%2f..%2fother", 400, "MALFORMED_REQUEST"),
        ("/npm/web%2f%2e%2e%2fother", 400, "MALFORMED_REQUEST"),
        ("/npm/web%252fapp", 400, "MALFORMED_REQUEST"),
        ("/npm/web%5capp", 400, "MALFORMED_REQUEST"),
        ("/npm%2fweb", 400, "MALFORMED_REQUEST"),
        ("/file/web/app%2B1", 200, ""),
        ("/file/%77eb/app", 200, ""),
        ("/file/web%2fapp", 400, "MALFORMED_REQUEST"),
        ("/file/web/1%211.0", 403, "MALFORMED_RESOURCE"),
        ("/file/other/%77eb", 403, "NO_BINDING"),
    ] {
        for http in [dev(path), dev(path).raw()] {
            let outcome = send(&server, &http).await;
            assert_eq!((outcome.status(), outcome.reason()), (status, reason), "{path}");
        }
    }
    // Requirements in Envoy's route do not say that an encoded slash is one.
    let extended = |path: &str| {
        let http = dev(path).extension("capability", "repo.list");
        http.extension("resource", "acme/images/web")
    };
    assert_eq!(send(&server, &extended("/npm/%61")).await.status(), 200);
    assert_malformed(&server, &extended("/npm/a%2fb")).await;
}
