//! Clients that speak gRPC-web, Connect or HTTP/1.1 get an HTTP error and a sentence, never a decision.

use std::net::SocketAddr;
use std::time::Duration;

use capstan_proto::v1;
use capstan_server::feed::source::Source;
use capstan_server::limits::{LINGER_BYTES_MAX, Limits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;

use crate::common::{InProcess, PATIENCE, assert_tells_no_secret};
use crate::metrics::{of, wait_until_nothing_is_held};
use crate::raw::{self, Body, framed};

/// The status, the content type and the body of an answer.
async fn post(server: &InProcess, path: &str, kind: &str, body: Vec<u8>) -> (u16, String, String) {
    let tcp = TcpStream::connect(server.grpc).await.unwrap();
    let (client, connection) = h2::client::handshake(tcp).await.unwrap();
    let exchange = async {
        let request = Request::post(format!("http://localhost{path}")).header("content-type", kind);
        let mut client = client.ready().await.unwrap();
        let (response, mut send) = client.send_request(request.body(()).unwrap(), false).unwrap();
        let _ = send.send_data(Bytes::from(body), true);
        let (head, mut body) = response.await.unwrap().into_parts();
        let mut text = Vec::new();
        while let Some(data) = body.data().await {
            text.extend_from_slice(&data.unwrap());
        }
        assert!(!head.headers.contains_key("grpc-status") || head.status == 200);
        assert_tells_no_secret(&text);
        let kind = head.headers["content-type"].to_str().unwrap().to_owned();
        (head.status.as_u16(), kind, String::from_utf8_lossy(&text).into_owned())
    };
    tokio::select! {
        answer = exchange => answer,
        _ = connection => panic!("the connection ended"),
    }
}

#[tokio::test]
async fn grpc_web_and_connect_get_415_and_a_sentence() {
    let server = InProcess::start(Source::Demo).await;
    let good = v1::CheckRequest {
        identity: "alice".into(),
        capability: "repo.list".into(),
        resource: "acme".into(),
        ..Default::default()
    };
    let check = "/capstan.v1.DecisionService/Check";
    let stream = "/capstan.v1.DecisionService/StreamCheck";
    for path in [check, stream, "/grpc.health.v1.Health/Check", "/nothing"] {
        for kind in ["application/grpc-web+proto", "application/connect+proto", "application/json"]
        {
            let (status, answer, text) = post(&server, path, kind, framed(&good)).await;
            assert_eq!((status, &*answer), (415, "text/plain; charset=utf-8"), "{path} {kind}");
            assert!(text.contains("neither gRPC-web nor Connect: use a gRPC client"), "{text}");
        }
    }
    let json = br#"{"identity": "alice", "capability": "repo.list", "resource": "acme"}"#;
    assert_eq!(post(&server, check, "application/json", json.to_vec()).await.0, 415);
    assert_eq!(post(&server, check, "application/grpc+proto", framed(&good)).await.0, 200);
    let counted = r#"capstan_requests_total{rpc="Check",code="UNKNOWN"}"#;
    assert_eq!(of(&server, counted).await, 4.0);
    assert_eq!(of(&server, r#"capstan_decisions_total{rpc="Check",allowed="true"}"#).await, 1.0);
}

// === HTTP/1.1 ===

/// The status and the text of the answer to these parts of a request, until the server closes the connection.
async fn http1(server: SocketAddr, parts: &[&[u8]]) -> (u16, String) {
    let mut socket = TcpStream::connect(server).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for part in parts {
        socket.write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut answer = Vec::new();
    let read = timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
    read.expect("the connection stays open").expect("the connection is reset");
    assert_tells_no_secret(&answer);
    let answer = String::from_utf8(answer).expect("frames of HTTP/2");
    let Some((head, text)) = answer.split_once("\r\n\r\n") else { return (0, answer) };
    assert!(head.contains("content-type: text/plain; charset=utf-8"), "{head}");
    assert!(head.contains("connection: close"), "{head}");
    let status = head.strip_prefix("HTTP/1.1 ").unwrap().get(..3).unwrap().parse().unwrap();
    (status, text.to_owned())
}

fn request(method: &str, path: &str, kind: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

const CHECK: &str = "/capstan.v1.DecisionService/Check";

#[tokio::test]
async fn the_grpc_port_answers_http1_in_http1() {
    let server = InProcess::start(Source::Demo).await;
    let says = |text: &str| {
        text.starts_with("this port speaks gRPC over HTTP/2, and neither HTTP/1.1 nor gRPC-web")
            && text.contains("/metrics are at the HTTP port (--http, 127.0.0.1:4481 by default)")
    };
    for kind in ["application/grpc-web+proto", "application/connect+json", "application/json"] {
        let post = request("POST", CHECK, kind, "{}");
        for parts in [&[&post[..]][..], &[&post[..1], &post[1..]], &[&post[..9], &post[9..]]] {
            let (status, text) = http1(server.grpc, parts).await;
            assert!(status == 415 && says(&text), "{status} {text}");
        }
    }
    for method in ["GET", "PUT", "OPTIONS", "PROPFIND"] {
        let (status, text) = http1(server.grpc, &[&request(method, "/livez", "x", "")]).await;
        assert!(status == 505 && says(&text), "{method}: {status} {text}");
    }
    // A long body is read to its end, so that the answer is not lost.
    let long = request("POST", CHECK, "application/json", &"x".repeat(LINGER_BYTES_MAX / 2));
    assert_eq!(http1(server.grpc, &[&long]).await.0, 415);
    assert_eq!(of(&server, r#"capstan_decisions_total{rpc="Check",allowed="true"}"#).await, 0.0);
    wait_until_nothing_is_held(&server).await;
}

/// The answer waits for nothing, and a connection that stays open after it is closed.
#[tokio::test]
async fn a_peer_of_http1_does_not_stay() {
    let limits = Limits { connections_max: 2, peer_connections_max: 2, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    // Its head does not end, and the client does not close the connection.
    let mut open = TcpStream::connect(server.grpc).await.unwrap();
    open.write_all(b"POST / HTTP/1.1\r\nhost: ").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, open.read_to_end(&mut answer)).await.expect("it stays open").unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 415 "));
    let good = framed(&v1::CheckRequest::default());
    let served = async {
        // There is a place again, soon after the answer.
        while raw::call(server.grpc, CHECK, &[], (good.clone(), Body::Whole)).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, served).await.expect("the connection keeps its place");
    drop(open);
    // Bytes that are neither: a TLS handshake gets no text.
    let server = InProcess::start(Source::Demo).await;
    let mut tls = TcpStream::connect(server.grpc).await.unwrap();
    tls.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, tls.read_to_end(&mut answer)).await.expect("it stays open");
    assert!(!answer.starts_with(b"HTTP"));
}

#[tokio::test]
async fn the_http_port_tells_calls_where_to_go() {
    let server = InProcess::start(Source::Demo).await;
    let stream = "/capstan.v1.DecisionService/StreamCheck";
    for (method, path, kind) in [
        ("POST", CHECK, "application/json"),
        ("POST", CHECK, "application/proto"),
        ("POST", stream, "application/connect+proto"),
        ("POST", CHECK, "application/grpc-web-text"),
        ("POST", CHECK, "application/grpc"),
        ("POST", "/capstan.iam.v1.RoleService/ListRoles", "application/json"),
        ("POST", "/grpc.health.v1.Health/Check", "application/json"),
        ("POST", "/elsewhere", "application/grpc-web+proto"),
        ("POST", "/elsewhere", "Application/Connect+json"),
        ("GET", CHECK, "text/plain"),
        ("OPTIONS", CHECK, "text/plain"),
    ] {
        let (status, text) = http1(server.http, &[&request(method, path, kind, "{}")]).await;
        assert_eq!(status, 415, "{method} {path} {kind}");
        assert!(text.starts_with("this port answers /livez, /readyz and /metrics only."), "{text}");
        assert!(text.contains("The gRPC port (--listen, 127.0.0.1:4480 by default)"), "{text}");
    }
    let ordinary = String::from_utf8(request("POST", "/x", "application/json", "{}")).unwrap();
    let mut socket = TcpStream::connect(server.http).await.unwrap();
    socket.write_all(ordinary.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
}
