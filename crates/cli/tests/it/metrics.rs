//! `/metrics`: correct counts, and a fixed set of series.

mod format;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use capstan_proto::iam::v1 as iam;
use capstan_proto::v1;
use capstan_server::clock::Clock;
use capstan_server::feed::source::{DEMO, Source};
use capstan_server::limits::Limits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic::codegen::http::uri::PathAndQuery;

use crate::common::{InProcess, PATIENCE, assert_tells_no_secret, folder};

/// The head and the body of an answer to a scrape with these lines in its head.
async fn raw(http: SocketAddr, lines: &str) -> (String, String) {
    let mut stream = TcpStream::connect(http).await.unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lines}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    (head.to_owned(), body.to_owned())
}

/// Every series with its value.
pub(crate) async fn scrape(server: &InProcess) -> BTreeMap<String, f64> {
    scrape_at(server.http).await
}

/// The same of the server with this HTTP address.
pub(crate) async fn scrape_at(http: SocketAddr) -> BTreeMap<String, f64> {
    let (_, body) = raw(http, "").await;
    assert_tells_no_secret(&body);
    let series = body.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    });
    series.collect()
}

/// The value of one series.
pub(crate) async fn of(server: &InProcess, series: &str) -> f64 {
    *scrape(server).await.get(series).unwrap_or_else(|| panic!("no series {series}"))
}

/// Waits until the server holds no bytes.
pub(crate) async fn wait_until_nothing_is_held(server: &InProcess) {
    let began = Instant::now();
    while of(server, "capstan_held_bytes").await > 0.0 {
        assert!(began.elapsed() < PATIENCE, "bytes are held for ever");
    }
}

/// The sum of a family's series.
pub(crate) async fn sum(server: &InProcess, family: &str) -> f64 {
    let all = scrape(server).await;
    let mut of_family = all.iter().filter(|(name, _)| name.split('{').next() == Some(family));
    of_family.by_ref().map(|(_, value)| value).sum()
}

fn check(identity: &str, capability: &str, resource: &str) -> v1::CheckRequest {
    v1::CheckRequest {
        identity: identity.into(),
        capability: capability.into(),
        resource: resource.into(),
        ..Default::default()
    }
}

fn batch(items: &[(&str, &str, &str)]) -> v1::BatchCheckRequest {
    let checks = items.iter().map(|(identity, capability, resource)| v1::CheckItem {
        identity: (*identity).into(),
        capability: (*capability).into(),
        resource: (*resource).into(),
        properties: None,
    });
    v1::BatchCheckRequest { checks: checks.collect(), consistency: None }
}

/// Calls a method that does not exist. Returns the code.
async fn unknown(server: &InProcess, path: &str) -> Code {
    let mut grpc = tonic::client::Grpc::new(server.channel.clone());
    grpc.ready().await.unwrap();
    let codec = capstan_proto::codec::Codec::<v1::CheckRequest, v1::CheckResponse>::default();
    let request = tonic::Request::new(check("alice", "repo.list", "acme"));
    grpc.unary(request, PathAndQuery::try_from(path).unwrap(), codec).await.unwrap_err().code()
}

#[tokio::test]
async fn every_call_and_decision_is_counted_once() {
    let server = InProcess::start(Source::Demo).await;
    let mut decisions = server.decisions();
    for _ in 0..3 {
        decisions.check(check("alice", "repo.list", "acme")).await.unwrap();
    }
    for _ in 0..2 {
        decisions.check(check("zoe", "repo.list", "acme")).await.unwrap();
    }
    decisions.check(check("alice", "repo.list", "acme//")).await.unwrap_err();
    let mixed = [
        ("alice", "repo.list", "acme"),
        ("alice", "repo.list", "acme"),
        ("zoe", "repo.list", "acme"),
        ("alice", "nope", "acme"),
    ];
    decisions.batch_check(batch(&mixed)).await.unwrap();
    let batches = tokio_stream::iter([batch(&mixed), batch(&mixed)]);
    let mut answers = decisions.stream_check(batches).await.unwrap().into_inner();
    while answers.message().await.unwrap().is_some() {}
    let explain = v1::ExplainRequest {
        identity: "zoe".into(),
        capability: "repo.list".into(),
        resource: "acme".into(),
        ..Default::default()
    };
    decisions.explain(explain).await.unwrap();
    server.roles().list_roles(iam::ListRolesRequest::default()).await.unwrap();
    assert_eq!(unknown(&server, "/capstan.v1.DecisionService/Nope").await, Code::Unimplemented);

    let all = scrape(&server).await;
    let nonzero = |family: &str| {
        let all = all.iter().filter(|(name, value)| name.starts_with(family) && **value != 0.0);
        all.map(|(name, value)| format!("{} {value}", &name[family.len()..])).collect::<Vec<_>>()
    };
    assert_eq!(
        nonzero("capstan_requests_total"),
        [
            r#"{rpc="BatchCheck",code="OK"} 1"#,
            r#"{rpc="Check",code="INVALID_ARGUMENT"} 1"#,
            r#"{rpc="Check",code="OK"} 5"#,
            r#"{rpc="Explain",code="OK"} 1"#,
            r#"{rpc="StreamCheck",code="OK"} 1"#,
            r#"{rpc="iam.ListRoles",code="OK"} 1"#,
            r#"{rpc="other",code="UNIMPLEMENTED"} 1"#,
        ]
    );
    assert_eq!(
        nonzero("capstan_decisions_total"),
        [
            r#"{rpc="BatchCheck",allowed="false"} 1"#,
            r#"{rpc="BatchCheck",allowed="true"} 2"#,
            r#"{rpc="Check",allowed="false"} 2"#,
            r#"{rpc="Check",allowed="true"} 3"#,
            r#"{rpc="Explain",allowed="false"} 1"#,
            r#"{rpc="StreamCheck",allowed="false"} 2"#,
            r#"{rpc="StreamCheck",allowed="true"} 4"#,
        ]
    );
    assert_eq!(
        nonzero("capstan_decision_reasons_total"),
        [
            r#"{rpc="BatchCheck",reason="GRANTED"} 2"#,
            r#"{rpc="BatchCheck",reason="UNKNOWN_IDENTITY"} 1"#,
            r#"{rpc="Check",reason="GRANTED"} 3"#,
            r#"{rpc="Check",reason="UNKNOWN_IDENTITY"} 2"#,
            r#"{rpc="Explain",reason="UNKNOWN_IDENTITY"} 1"#,
            r#"{rpc="StreamCheck",reason="GRANTED"} 4"#,
            r#"{rpc="StreamCheck",reason="UNKNOWN_IDENTITY"} 2"#,
        ]
    );
    assert_eq!(all[r#"capstan_request_duration_seconds_count{rpc="Check"}"#], 6.0);
    assert_eq!(all[r#"capstan_request_duration_seconds_bucket{le="+Inf",rpc="Check"}"#], 6.0);
    assert!(all[r#"capstan_request_duration_seconds_sum{rpc="Check"}"#] > 0.0);
    assert_eq!(all["capstan_in_flight"], 0.0);
    assert_eq!(all["capstan_panics_total"], 0.0);
    assert_eq!(all["capstan_snapshot_revision"], 1.0);
    assert_eq!(all["capstan_snapshot_identities"], 15.0);
    assert_eq!(all["capstan_snapshot_role_bindings"], 17.0);
    assert_eq!(all[r#"capstan_loads_total{outcome="applied"}"#], 1.0);
    assert_eq!(
        all[&format!(r#"capstan_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION"))],
        1.0
    );
}

#[tokio::test]
async fn the_time_of_the_last_load_is_exported() {
    let now = capstan_engine::Timestamp::new(1_795_000_000, 0);
    let server = InProcess::start_at(Source::Demo, Clock::Fixed(now)).await;
    let last = |outcome| format!("capstan_last_load_timestamp_seconds{{outcome=\"{outcome}\"}}");
    assert_eq!(of(&server, &last("applied")).await, 1_795_000_000.0);
    assert_eq!(of(&server, &last("rejected")).await, 0.0);
}

#[tokio::test]
async fn a_rejected_load_is_counted_with_its_time() {
    let path = folder("metrics-rejected").join("policy.yaml");
    std::fs::write(&path, DEMO).unwrap();
    let now = capstan_engine::Timestamp::new(1_795_000_000, 0);
    let server = InProcess::start_at(Source::file(&path), Clock::Fixed(now)).await;
    let rejected = r#"capstan_loads_total{outcome="rejected"}"#;
    assert_eq!(of(&server, rejected).await, 0.0);
    std::fs::write(path.with_extension("new"), "version: 1\ncatalog: nonsense\n").unwrap();
    std::fs::rename(path.with_extension("new"), &path).unwrap();
    let started = std::time::Instant::now();
    while of(&server, rejected).await == 0.0 {
        assert!(started.elapsed() < PATIENCE, "the load is never counted");
    }
    let last = r#"capstan_last_load_timestamp_seconds{outcome="rejected"}"#;
    assert_eq!(of(&server, last).await, 1_795_000_000.0);
    assert_eq!(of(&server, "capstan_snapshot_revision").await, 1.0);
}

#[tokio::test]
async fn callers_cannot_add_series() {
    let server = InProcess::start(Source::Demo).await;
    let before = scrape(&server).await;
    assert!(before.len() < 650, "{} series", before.len());
    let mut decisions = server.decisions();
    for at in 0..1_000 {
        let (identity, resource) = (format!("person-{at}"), format!("acme/place-{at}"));
        decisions.check(check(&identity, "repo.list", &resource)).await.unwrap();
        decisions.check(check(&identity, &format!("x{at}.y"), "acme")).await.unwrap_err();
        for path in ["capstan.v1.DecisionService/Method", "other.v1.Service/Check"] {
            let code = unknown(&server, &format!("/{path}{at}")).await;
            assert_eq!(code, Code::Unimplemented);
        }
    }
    let after = scrape(&server).await;
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    assert_eq!(after[r#"capstan_requests_total{rpc="other",code="UNIMPLEMENTED"}"#], 2_000.0);
    let text = after.keys().cloned().collect::<String>();
    for word in ["person", "place", "Method", "Service1"] {
        assert!(!text.contains(word), "{word}");
    }
}

#[tokio::test]
async fn shed_and_cancelled_calls_are_counted() {
    let limits = Limits { in_flight_max: 2, peer_in_flight_max: 1, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let mut decisions = server.decisions();
    let (requests, receive) = tokio::sync::mpsc::channel::<v1::BatchCheckRequest>(1);
    let mut answers = decisions.stream_check(ReceiverStream::new(receive)).await.unwrap();
    assert_eq!(of(&server, "capstan_in_flight").await, 1.0);
    let at_least = |revision| v1::CheckRequest {
        consistency: Some(v1::Consistency { mode: Some(v1::consistency::Mode::AtLeast(revision)) }),
        ..check("alice", "repo.list", "acme")
    };
    for _ in 0..5 {
        decisions.check(at_least(1)).await.unwrap_err();
    }
    assert_eq!(of(&server, r#"capstan_shed_total{scope="peer"}"#).await, 5.0);
    assert_eq!(of(&server, r#"capstan_shed_total{scope="global"}"#).await, 0.0);
    let exhausted = r#"capstan_requests_total{rpc="Check",code="RESOURCE_EXHAUSTED"}"#;
    assert_eq!(of(&server, exhausted).await, 5.0);

    drop(requests);
    assert!(answers.get_mut().message().await.unwrap().is_none());
    let waiting = decisions.check(at_least(2));
    let given_up = tokio::time::timeout(Duration::from_millis(20), waiting).await;
    assert!(given_up.is_err());
    let given_up = r#"capstan_requests_total{rpc="Check",code="CANCELLED"}"#;
    let waits = async { while of(&server, given_up).await < 1.0 {} };
    tokio::time::timeout(crate::common::PATIENCE, waits).await.unwrap();
    assert_eq!(of(&server, "capstan_in_flight").await, 0.0);
}
