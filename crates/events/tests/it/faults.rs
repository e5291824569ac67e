//! W4, and sinks that are not who they should be: each ends in time, holds little, and is no delivery.

use std::net::Ipv4Addr;
use std::time::Duration;

use capstan_events::limits::{
    BODY_BYTES_MAX, BODY_TIME_MAX, CA_FILE_BYTES_MAX, CONNECTION_AGE_MAX, HEAD_BYTES_MAX,
    HEADERS_MAX,
};
use capstan_events::{FailureKind, Outcome, Roots, RootsError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::{Answers, Sender, event};
use capstan_testkit::https::{Authority, Reply, Server};

fn kind(outcome: &Outcome) -> FailureKind {
    match outcome {
        Outcome::Failed(failure) => {
            assert!(!failure.detail.is_empty());
            assert_eq!(failure.status, None);
            failure.kind
        }
        other => panic!("{other:?}"),
    }
}

/// Delivers to a server that answers so, waits until the connection is closed, and returns the outcome.
async fn against(reply: fn() -> Reply) -> Outcome {
    let authority = Authority::generate();
    let server = Server::start(&authority, move |_| reply()).await;
    let sender = Sender::new(&authority, Answers::loopback());
    let outcome = sender.deliver(&sender.sink(&server.url()), &event("01")).await;
    server.closed().await;
    assert_eq!(server.connections(), 1, "nothing is tried twice");
    outcome
}

/// At the same time, because each takes ten seconds.
#[tokio::test]
async fn sinks_that_keep_us_waiting_time_out() {
    let hang = || Reply::raw("").hang();
    let drip = || Reply::raw("HTTP/1.1 200 OK\r\nx: ").repeat(b"y", Duration::from_millis(200));
    let interim =
        || Reply::raw("").repeat(b"HTTP/1.1 103 Early\r\n\r\n", Duration::from_millis(20));
    let no_tls = async {
        let authority = Authority::generate();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let sender = Sender::new(&authority, Answers::loopback());
        let port = listener.local_addr().unwrap().port();
        let sink = sender.sink(&format!("https://sink.test:{port}/"));
        sender.deliver(&sink, &event("01")).await
    };
    let outcomes = tokio::join!(against(hang), against(drip), against(interim), no_tls);
    for outcome in <[_; 4]>::from(outcomes) {
        assert_eq!(kind(&outcome), FailureKind::Timeout);
    }
}

/// The status is known, so the event is delivered; the body is cut off.
#[tokio::test]
async fn a_body_without_end_is_cut_off() {
    let endless = || {
        let chunk = [b"1000\r\n", &[b'x'; BODY_BYTES_MAX][..], b"\r\n"].concat();
        Reply::raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            .repeat(&chunk, Duration::ZERO)
    };
    assert_eq!(against(endless).await, Outcome::Delivered);
}

#[tokio::test]
async fn a_body_that_drips_is_cut_off() {
    let drip = || {
        Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 4096\r\n\r\n")
            .repeat(b"x", BODY_TIME_MAX / 10)
    };
    // The connection ends by itself after its age: the delivery must not wait for that.
    let outcome = timeout(CONNECTION_AGE_MAX, against(drip)).await;
    assert_eq!(outcome, Ok(Outcome::Delivered));
}

#[tokio::test]
async fn a_body_of_the_limit_is_read_and_one_byte_more_is_not() {
    let authority = Authority::generate();
    let server = Server::start(&authority, |request| {
        let length = if request.number <= 2 { BODY_BYTES_MAX } else { BODY_BYTES_MAX + 1 };
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
        Reply::raw([head.as_bytes(), &vec![b'x'; length]].concat())
    })
    .await;
    let sender = Sender::new(&authority, Answers::loopback());
    let sink = sender.sink(&server.url());
    for _ in 0..4 {
        assert_eq!(sender.deliver(&sink, &event("01")).await, Outcome::Delivered);
    }
    let connections: Vec<_> = server.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 1, 1, 2]);
}

#[tokio::test]
async fn a_head_larger_than_the_limit_is_refused() {
    let endless = || {
        let line = format!("x: {}\r\n", "y".repeat(1_000));
        Reply::raw("HTTP/1.1 200 OK\r\n").repeat(line.as_bytes(), Duration::ZERO)
    };
    assert_eq!(kind(&against(endless).await), FailureKind::Protocol);
    let one = || Reply::status(200, &format!("x: {}\r\n", "y".repeat(HEAD_BYTES_MAX)));
    assert_eq!(kind(&against(one).await), FailureKind::Protocol);
    let many = || Reply::status(200, &"x: y\r\n".repeat(HEADERS_MAX));
    assert_eq!(kind(&against(many).await), FailureKind::Protocol);
    let fewer = || Reply::status(200, &"x: y\r\n".repeat(HEADERS_MAX - 1)).close();
    assert_eq!(against(fewer).await, Outcome::Delivered);
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    for reply in [
        || Reply::raw("SSH-2.0-OpenSSH_9.2\r\n").hang(),
        || Reply::raw("HTTP/1.1 two hundred\r\n\r\n").hang(),
        || Reply::raw("<html></html>").hang(),
        || Reply::raw("HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n").hang(),
    ] {
        assert_eq!(kind(&against(reply).await), FailureKind::Protocol);
    }
    // A new connection that ends without an answer: nothing is tried twice.
    assert_eq!(kind(&against(|| Reply::raw("").close()).await), FailureKind::Protocol);
    assert_eq!(kind(&against(|| Reply::raw("HTTP/1.1 20").close()).await), FailureKind::Protocol);
}

#[tokio::test]
async fn certificates_are_verified() {
    let (authority, stranger) = (Authority::generate(), Authority::generate());
    for (what, config) in [
        ("another name", authority.server_config(&["other.test"], false)),
        ("expired", authority.server_config(&["sink.test"], true)),
        ("another authority", stranger.server_config(&["sink.test"], false)),
    ] {
        let server = Server::listen(Ipv4Addr::LOCALHOST, config, |_| Reply::status(200, "")).await;
        let sender = Sender::new(&authority, Answers::loopback());
        let outcome = sender.deliver(&sender.sink(&server.url()), &event("01")).await;
        assert_eq!(kind(&outcome), FailureKind::Tls, "{what}");
        assert_eq!(server.requests().len(), 0, "{what}: nothing was sent");
    }
}

#[tokio::test]
async fn plain_http_is_refused() {
    let authority = Authority::generate();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let sender = Sender::new(&authority, Answers::loopback());
    let port = listener.local_addr().unwrap().port();
    let sink = sender.sink(&format!("https://sink.test:{port}/"));
    let plain = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let mut sent = Vec::new();
        stream.read_to_end(&mut sent).await.unwrap();
        sent
    };
    let event = event("01");
    let (outcome, sent) = tokio::join!(sender.deliver(&sink, &event), plain);
    assert_eq!(kind(&outcome), FailureKind::Tls);
    assert!(!String::from_utf8_lossy(&sent).contains("HTTP"), "nothing is sent in the clear");
}

/// A sink whose host is an address has a certificate for this address.
#[tokio::test]
async fn a_certificate_may_name_an_address() {
    let authority = Authority::generate();
    for (name, expected) in [("127.0.0.1", true), ("127.0.0.2", false)] {
        let config = authority.server_config(&[name], false);
        let server = Server::listen(Ipv4Addr::LOCALHOST, config, |_| Reply::status(200, "")).await;
        let sender = Sender::new(&authority, Answers::new(vec![Vec::new()]));
        let sink = sender.sink(&format!("https://127.0.0.1:{}/", server.address.port()));
        let outcome = sender.deliver(&sink, &event("01")).await;
        assert_eq!(outcome == Outcome::Delivered, expected, "{outcome:?}");
    }
}

#[tokio::test]
async fn a_port_without_a_server_is_a_failed_connection() {
    let authority = Authority::generate();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let sender = Sender::new(&authority, Answers::loopback());
    let sink = sender.sink(&format!("https://sink.test:{port}/"));
    assert_eq!(kind(&sender.deliver(&sink, &event("01")).await), FailureKind::Connect);
}

#[test]
fn authorities_are_certificates() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    let load = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        Roots::load(Some(&path))
    };
    let good = Authority::generate().pem();
    assert!(load(good.as_bytes()).is_ok());
    assert!(load((good.clone() + &Authority::generate().pem()).as_bytes()).is_ok());
    for (content, what) in [
        ("", "empty"),
        ("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "no certificate"),
        ("-----BEGIN CERTIFICATE-----\n", "cut"),
    ] {
        assert!(matches!(load(content.as_bytes()), Err(RootsError::Format(_))), "{what}");
    }
    let half = good.clone() + "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    assert!(matches!(load(half.as_bytes()), Err(RootsError::Format(_))));
    let long = good + &"#".repeat(usize::try_from(CA_FILE_BYTES_MAX).unwrap());
    assert!(matches!(load(long.as_bytes()), Err(RootsError::TooLong(_))));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(Roots::load(Some(&path)), Err(RootsError::File { .. })));
}
