//! Traces: the spans that a collector receives. Calls never wait for the collector.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::secrets::{Channel, assert_tells_no_secret};
use capstan_proto::v1::{self, decision_service_client::DecisionServiceClient};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

use crate::common::{Serving, capstan, command, stderr};

const FREE: [&str; 4] = ["--listen", "127.0.0.1:0", "--http", "none"];
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector that forwards the spans it receives to the test.
struct Collector(mpsc::UnboundedSender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn collector() -> (SocketAddr, mpsc::UnboundedReceiver<ExportTraceServiceRequest>, JoinSet<()>)
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (send, received) = mpsc::unbounded_channel();
    let serving = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Collector(send)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let mut tasks = JoinSet::new();
    tasks.spawn(async { serving.await.unwrap() });
    (address, received, tasks)
}

async fn serve(
    collector: SocketAddr,
    ratio: &str,
    name: Option<&str>,
) -> (Serving, DecisionServiceClient<Channel>) {
    let endpoint = format!("http://{collector}");
    let traces =
        ["--otlp-endpoint", &endpoint, "--otlp-sample-ratio", ratio, "--otlp-parent-based"];
    let policy = ["serve", "--policy", "deploy/quickstart/policy.yaml"];
    let mut command = command(&[&policy, &traces[..], &FREE[..]].concat());
    command.env_remove("OTEL_SERVICE_NAME");
    command.envs(name.map(|name| ("OTEL_SERVICE_NAME", name)));
    let server = Serving::spawn(&mut command, 1);
    let url = format!("http://{}", server.address("grpc"));
    (server, DecisionServiceClient::new(Channel::to(url).await))
}

fn within<T>(message: T, flags: &str) -> Request<T> {
    let mut request = Request::new(message);
    let parent = format!("00-{TRACE}-{PARENT}-{flags}");
    request.metadata_mut().insert("traceparent", parent.parse().unwrap());
    request
}

fn check(identity: &str, resource: &str) -> v1::CheckRequest {
    v1::CheckRequest {
        identity: identity.into(),
        capability: "repo.list".into(),
        resource: resource.into(),
        ..Default::default()
    }
}

fn attributes(all: &[KeyValue]) -> BTreeMap<&str, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::BoolValue(value) => value.to_string(),
        Value::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    };
    all.iter().map(|pair| (&*pair.key, text(pair))).collect()
}

/// The received spans. All must have this service name.
fn spans(
    received: &mut mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
    service: &str,
) -> Vec<Span> {
    let mut all = Vec::new();
    while let Ok(request) = received.try_recv() {
        assert_tells_no_secret(request.encode_to_vec());
        for resource in request.resource_spans {
            let about = resource.resource.unwrap();
            assert_eq!(attributes(&about.attributes)["service.name"], service);
            all.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
    }
    all
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_with_a_sampled_parent_is_a_span_of_its_trace() {
    let (address, mut received, _tasks) = collector().await;
    let (server, mut decisions) = serve(address, "0", None).await;
    let v1::CheckRequest { identity, capability, resource, .. } = check("zoe", "acme");
    let explain = v1::ExplainRequest { identity, capability, resource, ..Default::default() };
    decisions.check(within(check("alice", "acme/platform"), "01")).await.unwrap();
    decisions.explain(within(explain, "01")).await.unwrap();
    decisions.check(within(check("alice", "acme//platform"), "01")).await.unwrap_err();
    let mut late = check("alice", "acme");
    late.consistency = Some(v1::Consistency { mode: Some(v1::consistency::Mode::AtLeast(9)) });
    let status = decisions.check(within(late, "01")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let batches = tokio_stream::iter([v1::BatchCheckRequest::default()]);
    let mut answers = decisions.stream_check(within(batches, "01")).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    // None of these calls gives a span.
    decisions.check(within(check("alice", "acme"), "00")).await.unwrap();
    decisions.check(check("alice", "acme")).await.unwrap();
    let url = format!("http://{}", server.address("grpc"));
    let mut grpc = tonic::client::Grpc::new(Channel::to(url).await);
    grpc.ready().await.unwrap();
    let codec = capstan_proto::codec::Codec::<v1::CheckRequest, v1::CheckResponse>::default();
    let path = "/capstan.v1.DecisionService/alice".try_into().unwrap();
    grpc.unary(within(check("alice", "acme"), "01"), path, codec).await.unwrap_err();
    drop((decisions, grpc));
    // The server exports queued spans before it exits.
    assert_eq!(server.stop("-TERM").0, Some(0));

    let found = spans(&mut received, "capstan");
    let told: Vec<_> = found
        .iter()
        .map(|span| {
            assert_eq!(
                (hex(&span.trace_id), hex(&span.parent_span_id)),
                (TRACE.into(), PARENT.into())
            );
            assert_eq!((span.span_id.len(), span.kind()), (8, SpanKind::Server));
            assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
            let text = format!("{span:?}");
            assert!(!["alice", "zoe", "acme", "repo"].iter().any(|word| text.contains(word)));
            let mut attributes = attributes(&span.attributes);
            let mut take = |key: &str| attributes.remove(key);
            assert_eq!(take("rpc.system").unwrap(), "grpc");
            let name = format!("{}/{}", take("rpc.service").unwrap(), take("rpc.method").unwrap());
            assert_eq!(name, span.name);
            let failed = span.status.as_ref().is_some_and(|status| status.code == 2);
            let code = take("rpc.grpc.status_code").unwrap();
            let rest: Vec<_> = attributes.into_iter().map(|(k, v)| format!("{k}={v}")).collect();
            (name.rsplit_once('/').unwrap().1.to_owned(), code, failed, rest.join(" "))
        })
        .collect();
    let denied = "capstan.allowed=false capstan.reason=UNKNOWN_IDENTITY capstan.revision=1";
    let granted = "capstan.allowed=true capstan.reason=GRANTED capstan.revision=1";
    let expected = [
        ("Check", "0", false, granted),
        ("Explain", "0", false, denied),
        ("Check", "3", false, ""),
        ("Check", "14", true, ""),
        ("StreamCheck", "0", false, ""),
    ];
    let expected = expected.map(|(rpc, code, failed, rest)| {
        (rpc.to_owned(), code.to_owned(), failed, rest.to_owned())
    });
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn calls_without_a_trace_are_sampled_by_the_ratio() {
    let (address, mut received, _tasks) = collector().await;
    let (server, mut decisions) = serve(address, "1", Some("pdp")).await;
    for _ in 0..3 {
        decisions.check(check("alice", "acme")).await.unwrap();
    }
    drop(decisions);
    assert_eq!(server.stop("-TERM").0, Some(0));
    let found = spans(&mut received, "pdp");
    let traces: std::collections::BTreeSet<_> = found.iter().map(|span| &span.trace_id).collect();
    assert_eq!((found.len(), traces.len()), (3, 3));
    assert!(found.iter().all(|span| span.parent_span_id.is_empty()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_unreachable_collector_does_not_affect_calls() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (mut server, mut decisions) = serve(gone, "1", None).await;
    // More spans than an export batch, so an export begins at once.
    for _ in 0..600 {
        assert!(decisions.check(check("alice", "acme")).await.unwrap().get_ref().allowed);
    }
    server.wait_for_log("spans are lost, they cannot be exported");
    assert!(decisions.check(check("alice", "acme")).await.unwrap().get_ref().allowed);
    drop(decisions);
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert_eq!(log.matches("spans are lost").count(), 1, "not logged once: {log}");
    assert!(!log.contains("cutting off"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_silent_collector_does_not_block_the_shutdown() {
    // The listener never accepts a connection from its backlog.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (server, mut decisions) = serve(silent.local_addr().unwrap(), "1", None).await;
    assert!(decisions.check(check("alice", "acme")).await.unwrap().get_ref().allowed);
    drop(decisions);
    let (code, log) = server.stop("-TERM");
    assert_eq!(code, Some(0));
    assert!(log.contains("the last spans were not exported"), "{log}");
}

#[test]
fn invalid_trace_options_stop_the_start() {
    let refused = |arguments: &[&str]| {
        let output = capstan(&[&["serve", "--demo"], &FREE[..], arguments].concat());
        assert_eq!(output.status.code(), Some(2));
        stderr(&output)
    };
    for endpoint in ["127.0.0.1:4317", "https://127.0.0.1:4317", "unix:/collector", ""] {
        let told = refused(&["--otlp-endpoint", endpoint]);
        assert!(told.contains("expected http://HOST:PORT"), "{told}");
    }
    for ratio in ["-0.1", "1.1", "NaN", "all"] {
        let told = refused(&[&format!("--otlp-sample-ratio={ratio}")]);
        assert!(told.contains("expected a number from 0 to 1"), "{told}");
    }
}
