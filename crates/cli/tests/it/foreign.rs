//! Clients that speak gRPC-web or Connect get HTTP 415 and a sentence, never a decision.

use capstan_proto::v1;
use capstan_server::feed::source::Source;
use tokio::net::TcpStream;
use tonic::codegen::Bytes;
use tonic::codegen::http::Request;

use crate::common::InProcess;
use crate::metrics::of;
use crate::raw::framed;

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
