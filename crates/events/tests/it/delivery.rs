//! What is sent, and what each answer of a sink means.

use std::io::Write as _;
use std::num::NonZeroU32;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use capstan_events::limits::{BODY_BYTES_MAX, EXCHANGES_MAX};
use capstan_events::{Challenged, Challenges, Consent, FailureKind, Outcome, UnixMillis};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::{Answers, Sender, event};
use capstan_testkit::https::{Authority, Received, Reply, Server};

fn ok(_: &Received) -> Reply {
    Reply::status(204, "")
}

fn failed(outcome: Outcome) -> (FailureKind, Option<u16>, Option<Duration>) {
    match outcome {
        Outcome::Failed(failure) => (failure.kind, failure.status, failure.retry_after),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn events_arrive_as_they_are_over_one_connection() {
    let authority = Authority::generate();
    let server = Server::start(&authority, ok).await;
    let resolver = Answers::loopback();
    let sender = Sender::new(&authority, Arc::clone(&resolver) as _);
    let sink = sender.sink(&server.url());
    for id in ["01", "02", "03"] {
        assert_eq!(sender.deliver(&sink, &event(id)).await, Outcome::Delivered);
    }
    assert_eq!((server.connections(), resolver.asked()), (1, 1));
    let requests = server.requests();
    let token = sender.sign(&sink, &event("01"));
    for (request, id) in requests.iter().zip(["01", "02", "03"]) {
        assert_eq!(request.line, "POST /hook?key=7 HTTP/1.1");
        let authorization = request.header("authorization").unwrap();
        let header = token.authorization().to_str().unwrap().split('.').next().unwrap();
        assert!(authorization.starts_with(header), "{authorization}");
        let mut rest: Vec<_> =
            request.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        rest.retain(|(name, _)| *name != "authorization");
        rest.sort_unstable();
        let data = event(id).data().clone();
        assert_eq!(request.body, data);
        assert_eq!(
            rest,
            [
                ("accept-encoding", "identity"),
                ("ce-group", "acme"),
                ("ce-id", id),
                ("ce-source", "https://iam.example.com"),
                ("ce-specversion", "1.0"),
                ("ce-subject", "acme/platform"),
                ("ce-time", "2026-11-30T00:53:20Z"),
                ("ce-type", "dev.capstan.iam.group.created.v1"),
                ("content-length", &*data.len().to_string()),
                ("content-type", "application/json"),
                ("host", &*format!("sink.test:{}", server.address.port())),
                ("user-agent", concat!("capstan/", env!("CARGO_PKG_VERSION"))),
                ("webhook-request-origin", "iam.example.com"),
            ]
        );
    }
    assert_eq!(requests.len(), 3);
}

#[tokio::test]
async fn every_2xx_is_delivered_and_410_is_gone() {
    let authority = Authority::generate();
    let statuses = [200, 201, 202, 204, 299];
    let server = Server::start(&authority, move |request| {
        Reply::status(*statuses.get(request.number - 1).unwrap_or(&410), "")
    })
    .await;
    let sender = Sender::new(&authority, Answers::loopback());
    let sink = sender.sink(&server.url());
    for _ in statuses {
        assert_eq!(sender.deliver(&sink, &event("01")).await, Outcome::Delivered);
    }
    assert_eq!(sender.deliver(&sink, &event("01")).await, Outcome::Gone);
}

/// W3. The target of the redirect is the server itself, which would see a second request.
#[tokio::test]
async fn redirects_are_failures() {
    let authority = Authority::generate();
    let statuses = [301, 302, 303, 307, 308, 300, 304];
    let server = Server::start(&authority, move |request| {
        Reply::status(statuses[request.number - 1], "location: /elsewhere\r\n")
    })
    .await;
    let sender = Sender::new(&authority, Answers::loopback());
    let sink = sender.sink(&server.url());
    for status in statuses {
        let outcome = sender.deliver(&sink, &event("01")).await;
        assert_eq!(failed(outcome), (FailureKind::Redirect, Some(status), None));
    }
    assert_eq!(server.requests().len(), statuses.len());
}

#[tokio::test]
async fn other_statuses_are_failures_and_some_say_when_to_return() {
    let authority = Authority::generate();
    let replies = [
        (500, ""),
        (404, ""),
        (401, "www-authenticate: Basic\r\n"),
        (429, "retry-after: 120\r\n"),
        (503, "retry-after: 7\r\n"),
        (500, "retry-after: 7\r\n"),
    ];
    let server = Server::start(&authority, move |request| {
        let (status, headers) = replies[request.number - 1];
        Reply::status(status, headers)
    })
    .await;
    let sender = Sender::new(&authority, Answers::loopback());
    let sink = sender.sink(&server.url());
    let waits = [None, None, None, Some(120), Some(7), None];
    for ((status, _), wait) in replies.into_iter().zip(waits) {
        let outcome = sender.deliver(&sink, &event("01")).await;
        let wait = wait.map(Duration::from_secs);
        assert_eq!(failed(outcome), (FailureKind::Status, Some(status), wait));
    }
}

#[tokio::test]
async fn cookies_are_not_kept() {
    let authority = Authority::generate();
    let server =
        Server::start(&authority, |_| Reply::status(200, "set-cookie: session=7; Path=/\r\n"))
            .await;
    let sender = Sender::new(&authority, Answers::loopback());
    let sink = sender.sink(&server.url());
    for _ in 0..2 {
        assert_eq!(sender.deliver(&sink, &event("01")).await, Outcome::Delivered);
    }
    assert!(server.requests().iter().all(|request| request.header("cookie").is_none()));
}

/// W4: a body that inflates to 64 MiB. It is neither asked for nor inflated: 4 KiB of it are read, as of any body.
#[tokio::test]
async fn bodies_are_not_decompressed() {
    let authority = Authority::generate();
    let mut zip = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..64 {
        zip.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let bomb = zip.finish().unwrap();
    let small = {
        let mut zip = GzEncoder::new(Vec::new(), Compression::best());
        zip.write_all(&vec![0; 1 << 20]).unwrap();
        zip.finish().unwrap()
    };
    assert!(small.len() < BODY_BYTES_MAX && bomb.len() > BODY_BYTES_MAX);
    let server = Server::start(&authority, move |request| {
        let body = if request.connection == 1 && request.number < 3 { &small } else { &bomb };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        Reply::raw([head.as_bytes(), body].concat())
    })
    .await;
    let sender = Sender::new(&authority, Answers::loopback());
    let sink = sender.sink(&server.url());
    for _ in 0..4 {
        assert_eq!(sender.deliver(&sink, &event("01")).await, Outcome::Delivered);
    }
    let connections: Vec<_> = server.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 1, 1, 2], "small as sent: the connection is used again");
}

/// A sink may close an idle connection at any time, also while the next request is on its way.
#[tokio::test]
async fn an_event_is_sent_again_when_an_idle_connection_was_closed() {
    let authority = Authority::generate();
    let server = Server::start(&authority, |request| match request.number {
        1 => Reply::status(204, ""),
        _ => Reply::raw("").close(),
    })
    .await;
    let sender = Sender::new(&authority, Answers::loopback());
    let sink = sender.sink(&server.url());
    for id in ["01", "02", "03"] {
        assert_eq!(sender.deliver(&sink, &event(id)).await, Outcome::Delivered);
    }
    let seen: Vec<_> = server
        .requests()
        .iter()
        .map(|request| (request.header("ce-id").unwrap().to_owned(), request.connection))
        .collect();
    let expected = [("01", 1), ("02", 1), ("02", 2), ("03", 2), ("03", 3)];
    assert_eq!(seen, expected.map(|(id, connection)| (id.to_owned(), connection)));
}

#[tokio::test]
async fn connections_that_the_sink_closes_are_not_used_again() {
    let authority = Authority::generate();
    let server =
        Server::start(&authority, |_| Reply::status(200, "connection: close\r\n").close()).await;
    let sender = Sender::new(&authority, Answers::loopback());
    let sink = sender.sink(&server.url());
    for _ in 0..3 {
        assert_eq!(sender.deliver(&sink, &event("01")).await, Outcome::Delivered);
    }
    assert_eq!((server.connections(), server.requests().len()), (3, 3));
}

/// An idle connection belongs to host and port, never to the address behind them.
#[tokio::test]
async fn sinks_with_one_address_do_not_share_connections() {
    let authority = Authority::generate();
    let config = authority.server_config(&["sink.test", "other.test"], false);
    let server = Server::listen(std::net::Ipv4Addr::LOCALHOST, config, ok).await;
    let sender = Sender::new(&authority, Answers::loopback());
    for name in ["sink", "other", "sink"] {
        let sink = sender.sink(&format!("https://{name}.test:{}/", server.address.port()));
        assert_eq!(sender.deliver(&sink, &event("01")).await, Outcome::Delivered);
    }
    let connections: Vec<_> = server.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 2, 1]);
}

/// W1: the variables that other clients take proxies from are not read. This test runs itself with them set.
#[test]
fn proxies_of_the_environment_are_not_used() {
    let refused = "http://127.0.0.1:9";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "delivery::events_arrive_as_they_are_over_one_connection"])
        .envs([("HTTPS_PROXY", refused), ("https_proxy", refused)])
        .envs([("ALL_PROXY", refused), ("all_proxy", refused)])
        .envs([("HTTP_PROXY", refused), ("http_proxy", refused)])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_at_once_are_bounded() {
    let authority = Authority::generate();
    let server = Server::start(&authority, |_| Reply::raw("").hang()).await;
    let sender = Arc::new(Sender::new(&authority, Answers::loopback()));
    let sink = sender.sink(&server.url());
    let mut deliveries = tokio::task::JoinSet::new();
    for _ in 0..EXCHANGES_MAX + 8 {
        let (sender, sink) = (Arc::clone(&sender), sink.clone());
        deliveries.spawn(async move { sender.deliver(&sink, &event("01")).await });
    }
    while server.requests().len() < EXCHANGES_MAX {
        tokio::task::yield_now().await;
    }
    // All have a connection, and the others have had their turn to open one.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.connections(), EXCHANGES_MAX);
    // Who gives up closes its connection.
    deliveries.shutdown().await;
    server.closed().await;
}

#[tokio::test]
async fn consent_is_asked_for_with_options() {
    let authority = Authority::generate();
    let server = Server::start(&authority, |request| match request.number {
        1 => Reply::status(200, "allow: OPTIONS, POST\r\n"), // Flask
        2 => Reply::status(405, "allow: POST\r\n"),          // aiohttp, Node
        3 => Reply::status(400, ""),                         // axum
        4 => Reply::status(302, "location: /\r\nwebhook-allowed-origin: *\r\n"),
        5 => Reply::status(
            200,
            "webhook-allowed-origin: iam.example.com\r\nwebhook-allowed-rate: 100\r\n",
        ),
        _ => Reply::status(204, "webhook-allowed-origin: *\r\nwebhook-allowed-rate: *\r\n"),
    })
    .await;
    let sender = Sender::new(&authority, Answers::loopback());
    let sink = sender.sink(&server.url());
    let rate = NonZeroU32::new(120);
    for expected in [
        Consent::Withheld,
        Consent::Withheld,
        Consent::Withheld,
        Consent::Withheld,
        Consent::Granted { rate: NonZeroU32::new(100) },
        Consent::Granted { rate: None },
    ] {
        assert_eq!(sender.client.ask_consent(&sink, rate).await, Ok(expected));
    }
    for request in server.requests() {
        assert_eq!(request.line, "OPTIONS /hook?key=7 HTTP/1.1");
        assert_eq!(request.header("webhook-request-origin"), Some("iam.example.com"));
        assert_eq!(request.header("webhook-request-rate"), Some("120"));
        assert_eq!(request.header("authorization"), None);
    }
}

#[tokio::test]
async fn a_challenge_that_was_posted_can_be_returned() {
    let authority = Authority::generate();
    let server = Server::start(&authority, ok).await;
    let sender = Sender::new(&authority, Answers::loopback());
    let sink = sender.sink(&server.url());
    let about = Challenged { subscription: "acme/5ub5", incarnation: 7, sink: &sink };
    let challenges = Challenges::new(&sender.signer).unwrap();
    let now = UnixMillis::now();
    let challenge = challenges.issue(about, now).unwrap();
    let posted = Challenges::event(&sender.signer, about, "acme", &challenge, now).unwrap();
    assert_eq!(sender.deliver(&sink, &posted).await, Outcome::Delivered);
    let body: serde_json::Value = serde_json::from_slice(&server.requests()[0].body).unwrap();
    let returned = body["challenge"].as_str().unwrap();
    assert_eq!(challenges.verify(returned, about, UnixMillis::now()), Ok(()));
}
