//! Limits of the endpoints: sizes, counts, time, and places.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Instant;

use capstan_proto::v1;
use capstan_server::limits::{
    BATCH_CHECKS_MAX, Limits, PROPERTIES_MAX, REQUEST_BYTES_MAX, SHORT_BODY_MAX, UNARY_TIME_MAX,
};
use serde_json::{Value, json};
use tokio_stream::wrappers::ReceiverStream;

use super::{ACTIONS, EVALUATION, EVALUATIONS, Point, RESOURCES, SUBJECTS, asked, post_to, user};
use crate::common::{InProcess, PATIENCE};

#[test]
fn sizes_and_counts_are_bounded() {
    let point = Point::start("authzen-limits", &[]);
    let mut read = asked("alice", "read", "record-1");
    let members = |count: usize| -> Value {
        (0..count)
            .map(|at| (format!("p{at}"), json!([at])))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    read["context"] = members(PROPERTIES_MAX);
    assert!(point.decision(&read));
    read["context"] = members(PROPERTIES_MAX + 1);
    let refused = point.post(EVALUATION, &read);
    assert!(refused.status == 400 && refused.body.starts_with("properties: 257"), "{refused:?}");
    // A long body is answered, too, in its turn.
    read["context"] = json!({"long": "x".repeat(SHORT_BODY_MAX)});
    assert!(point.decision(&read));
    for path in [EVALUATION, SUBJECTS, RESOURCES, ACTIONS] {
        let body = " ".repeat(REQUEST_BYTES_MAX + 1);
        assert_eq!(
            point.post_as(path, "content-type: application/json\r\n", &body).status,
            413,
            "{path}"
        );
    }
    let many = |count: usize| {
        let mut body = asked("alice", "read", "record-1");
        body["evaluations"] = vec![json!({}); count].into();
        body["context"] = json!({"long": "x".repeat(REQUEST_BYTES_MAX)});
        body
    };
    let all = point.post(EVALUATIONS, &many(BATCH_CHECKS_MAX)).json();
    assert_eq!(all["evaluations"].as_array().unwrap().len(), BATCH_CHECKS_MAX);
    let refused = point.post(EVALUATIONS, &many(BATCH_CHECKS_MAX + 1));
    assert!(refused.status == 400 && refused.body.starts_with("evaluations: 1001"), "{refused:?}");
    // Nesting that would need a deep stack is malformed.
    let deep = format!(r#"{{"context": {{"a": {}{}}}}}"#, "[".repeat(10_000), "]".repeat(10_000));
    assert_eq!(point.post_as(EVALUATION, "content-type: application/json\r\n", &deep).status, 400);
}

#[test]
fn a_body_that_does_not_come_ends_with_the_deadline() {
    let point = Point::start("authzen-deadline", &[]);
    let begun = Instant::now();
    let mut stream = TcpStream::connect(&point.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "POST {EVALUATION} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 10\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 503");
    assert!(begun.elapsed() >= UNARY_TIME_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_a_permit_is_told_so() {
    let limits = Limits { in_flight_max: 1, peer_in_flight_max: 1, ..Limits::default() };
    let server = InProcess::start_within(limits).await;
    let address = server.http.to_string();
    let post = async || {
        let address = address.clone();
        let body = asked("alice", "list", "acme").to_string();
        let json = "content-type: application/json\r\n";
        let post = move || post_to(&address, EVALUATION, json, &body);
        tokio::task::spawn_blocking(post).await.unwrap()
    };
    assert_eq!(post().await.status, 200);
    // A stream holds the only permit.
    let (requests, receive) = tokio::sync::mpsc::channel::<v1::BatchCheckRequest>(1);
    let stream = ReceiverStream::new(receive);
    let mut answers = server.decisions().stream_check(stream).await.unwrap().into_inner();
    let shed = post().await;
    assert_eq!((shed.status, shed.header("retry-after").as_deref()), (503, Some("1")), "{shed:?}");
    assert!(shed.body.contains("too many calls are in flight"), "{shed:?}");
    drop(requests);
    assert!(answers.message().await.unwrap().is_none());
    let begun = Instant::now();
    while post().await.status != 200 {
        assert!(begun.elapsed() < PATIENCE, "the permit is never released");
    }
}

/// A search over more than one page, whatever the order of the index.
#[test]
fn pages_have_every_result_once() {
    let mut policy = String::from(
        "version: 1\ncatalog: {name: c, resources: [{name: repo, actions: [pull]}], roles: [{name: puller, \
         capabilities: [repo.pull]}]}\ngroups: [{id: acme}, {id: other}]\nidentities:\n",
    );
    for at in 0..40 {
        let kind = if at % 3 == 0 { "service" } else { "user" };
        policy += &format!("  - {{id: i{at:02}, type: {kind}}}\n");
    }
    policy += "resources:\n";
    for at in 0..60 {
        let (group, kind) = (
            if at % 5 == 0 { "other" } else { "acme" },
            if at % 2 == 0 { "repo" } else { "image" },
        );
        policy += &format!("  - {{id: {group}/r{at:02}, type: {kind}}}\n");
    }
    policy += "role_bindings:\n";
    for at in 0..40 {
        policy += &format!("  - {{identity: i{at:02}, role: puller, scope: acme}}\n");
    }
    let point = Point::of("authzen-pages", &policy, &[]);
    let all = |path: &str, mut body: Value| {
        let mut found = vec![];
        body["page"] = json!({"limit": 7});
        loop {
            let (some, token) = point.found(path, &body);
            found.extend(some);
            if token.is_empty() {
                return found;
            }
            body["page"]["token"] = token.into();
        }
    };
    let subjects = json!({"subject": {"type": "user"}, "action": {"name": "pull"}, "resource": {"type": "repo", "id": "acme/r02"}});
    let expected: Vec<_> = (0..40).filter(|at| at % 3 != 0).map(|at| format!("i{at:02}")).collect();
    assert_eq!(all(SUBJECTS, subjects), expected);
    let resources =
        json!({"subject": user("i01"), "action": {"name": "pull"}, "resource": {"type": "repo"}});
    let expected: Vec<_> = (0..60)
        .filter(|at| at % 5 != 0 && at % 2 == 0)
        .map(|at| format!("acme/r{at:02}"))
        .collect();
    assert_eq!(all(RESOURCES, resources), expected);
}
