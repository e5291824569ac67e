//! Documents that are read from others, such as the keys of an issuer.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use bytes::Bytes;
use capstan_events::limits::DOCUMENT_BYTES_MAX;
use capstan_events::{FailureKind, Outcome};
use capstan_testkit::https::{Authority, Received, Reply, Server};

use crate::{Answers, Sender};

fn document(body: &[u8]) -> Reply {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    Reply::raw([head.as_bytes(), body].concat())
}

async fn fetched(
    script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
) -> (Result<Bytes, Outcome>, Vec<Received>) {
    let authority = Authority::generate();
    let server = Server::start(&authority, script).await;
    let sender = Sender::new(&authority, Answers::loopback());
    let fetched = sender.client.fetch(&sender.sink(&server.url())).await;
    (fetched, server.requests())
}

fn failure(fetched: Result<Bytes, Outcome>) -> (FailureKind, Option<u16>) {
    match fetched.unwrap_err() {
        Outcome::Failed(failure) => (failure.kind, failure.status),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_document_is_read_whole_and_says_nothing_of_webhooks() {
    let longest = vec![b' '; DOCUMENT_BYTES_MAX];
    let expected = longest.clone();
    let (body, requests) = fetched(move |_| document(&longest)).await;
    assert_eq!(body.unwrap(), expected);
    let [request] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(request.line, "GET /hook?key=7 HTTP/1.1");
    let mut names: Vec<_> = request.headers.iter().map(|(name, _)| &**name).collect();
    names.sort_unstable();
    assert_eq!(names, ["accept", "accept-encoding", "host", "user-agent"]);
}

#[tokio::test]
async fn only_200_has_a_document_and_a_long_one_is_an_error() {
    for status in [204, 206, 301, 404, 500] {
        let (body, _) = fetched(move |_| Reply::status(status, "location: /other\r\n")).await;
        let kind = if status == 301 { FailureKind::Redirect } else { FailureKind::Status };
        assert_eq!(failure(body), (kind, Some(status)));
    }
    let (gone, _) = fetched(|_| Reply::status(410, "")).await;
    assert_eq!(gone, Err(Outcome::Gone));
    let (long, _) = fetched(|_| document(&vec![b' '; DOCUMENT_BYTES_MAX + 1])).await;
    assert_eq!(failure(long).0, FailureKind::Protocol);
    let chunk = [b"ffff\r\n", &[b' '; 0xffff][..], b"\r\n"].concat();
    let (endless, _) = fetched(move |_| {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        Reply::raw(head).repeat(&chunk, Duration::ZERO)
    })
    .await;
    assert_eq!(failure(endless).0, FailureKind::Protocol);
}

#[tokio::test]
async fn an_address_that_is_not_public_is_not_asked() {
    let authority = Authority::generate();
    let server = Server::start(&authority, |_| Reply::status(200, "")).await;
    let inside = Answers::new(vec![vec![IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1))]]);
    let sender = Sender::new(&authority, inside);
    let refused = sender.client.fetch(&sender.sink(&server.url())).await.unwrap_err();
    assert!(matches!(refused, Outcome::Refused(_)), "{refused:?}");
    assert_eq!(server.connections(), 0);
}
