//! What a peer says of itself changes nothing: a peer is the address that it connects from, whatever proxies would have its headers say,
//! and what it says has limits.

use std::time::Instant;

use capstan_proto::iam::v1 as iam;
use capstan_proto::iam::v1::group_service_client::GroupServiceClient;
use capstan_server::limits::{DECISION_LOG_FIELD_BYTES_MAX, HEADER_BYTES_MAX, Limits};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Request};

use super::{BATCH, CHECK, STREAM};
use crate::common::{PATIENCE, Serving, capstan, folder, stderr, stdout};
use crate::metrics::{of, sum};
use crate::over::{Over, Place, over_both};
use crate::raw::{
    self, Body, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PREFACE, SETTINGS, batch, check,
    frame, framed, literal,
};

over_both!(headers_of_proxies_make_no_other_peer, preambles_of_proxies_are_refused);

/// Headers in which proxies say for whom they ask. The address is one that the documents of the Internet keep for examples.
const OF_PROXIES: [(&str, &str); 6] = [
    ("x-forwarded-for", "203.0.113.7, 127.0.0.2"),
    ("forwarded", "for=203.0.113.7;proto=https;by=127.0.0.2"),
    ("x-real-ip", "203.0.113.7"),
    ("x-envoy-external-address", "203.0.113.7"),
    ("true-client-ip", "203.0.113.7"),
    ("cf-connecting-ip", "203.0.113.7"),
];

/// Another address would have permits left.
async fn headers_of_proxies_make_no_other_peer(over: Over) {
    let limits = Limits { in_flight_max: 8, peer_in_flight_max: 1, ..Limits::default() };
    let server = over.start(limits).await;
    let mut holder = Frames::connect(&server).await;
    let headers = OF_PROXIES.iter().flat_map(|(name, value)| literal(0, name, value));
    let block: Vec<u8> = raw::header_block(STREAM).into_iter().chain(headers).collect();
    holder.send(HEADERS, END_HEADERS, 1, &block).await;
    let began = Instant::now();
    while of(&server, "capstan_in_flight").await < 1.0 {
        assert!(began.elapsed() < PATIENCE, "the stream takes no permit");
    }
    let call = async |headers: &[(&str, &str)]| {
        let sent = (framed(&batch(1)), Body::Whole);
        raw::call(&server, BATCH, headers, sent).await.unwrap()
    };
    for header in OF_PROXIES {
        let refused = call(&[header]).await;
        assert_eq!(refused.code(), Code::ResourceExhausted, "{header:?}");
        assert_eq!(refused.reason(), "OVERLOADED", "{header:?}");
    }
    assert_eq!(call(&OF_PROXIES).await.reason(), "OVERLOADED");
    let shed = of(&server, "capstan_shed_total{scope=\"peer\"}").await;
    assert_eq!(shed, f64::from(u8::try_from(OF_PROXIES.len()).unwrap()) + 1.0);
    // Who does come from another address has permits of its own.
    let other = Place::from(&server).channel_of_another_peer().await;
    let mut other = capstan_proto::v1::decision_service_client::DecisionServiceClient::new(other);
    other.batch_check(batch(1)).await.unwrap();
}

/// The PROXY protocol, in both of its versions, is none that is spoken here: no call behind it is answered.
async fn preambles_of_proxies_are_refused(over: Over) {
    const OTHER_VERSION: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x7f\0\0\x01\x04\xd2\x11\x80";
    let server = over.start(Limits::default()).await;
    let call = [
        PREFACE.to_vec(),
        frame(SETTINGS, 0, 0, &[]),
        frame(HEADERS, END_HEADERS, 1, &raw::header_block(CHECK)),
        frame(DATA, END_STREAM, 1, &framed(&check())),
    ];
    let place = Place::from(&server);
    for preamble in [&b"PROXY TCP4 203.0.113.7 127.0.0.1 1234 4480\r\n"[..], OTHER_VERSION] {
        let bytes = [preamble, &call.concat()].concat();
        // Before the handshake of TLS, and behind it.
        let outside = TcpStream::connect(server.grpc).await.unwrap();
        let outside: Box<dyn raw::Socket> = Box::new(outside);
        for mut socket in [outside, place.open().await.unwrap()] {
            // The server may have closed the connection before the end.
            let _ = socket.write_all(&bytes).await;
            let mut answer = Vec::new();
            let ended = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await;
            assert!(ended.is_ok(), "the connection stays open");
            let says = |text: &[u8]| answer.windows(text.len()).any(|some| some == text);
            assert!(!says(b"grpc-status"), "{answer:?}");
        }
    }
    assert_eq!(sum(&server, "capstan_requests_total").await, 0.0);
    // And that of HTTP.
    let mut http = TcpStream::connect(server.http).await.unwrap();
    let request = "PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\nGET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
    http.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(PATIENCE, http.read_to_string(&mut answer)).await;
    read.expect("the connection stays open").unwrap();
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

/// The logs have the address of the connection, and nothing of what headers say, however much that is.
#[tokio::test]
async fn logs_say_where_a_call_came_from_and_nothing_of_its_headers() {
    let (data, log) = (folder("claims").join("store"), folder("claims-log").join("decisions"));
    let (data, log) = (data.to_str().unwrap(), log.to_str().unwrap());
    let made = ["init", "--data", data, "--org", "acme", "--owner", "alice"];
    assert!(capstan(&made).status.success());
    let fixed = ["--data", data, "--listen", "127.0.0.1:0", "--http", "none"];
    let more = ["--insecure-trust-caller-header", "--decision-log", log];
    let server = Serving::start(&[&fixed[..], &more].concat(), 2);
    let place = Over::Plain.of(&server);
    // The list of headers counts 32 bytes for each field, and has others.
    let most = usize::try_from(HEADER_BYTES_MAX).unwrap();
    let (near, beyond) = ("y".repeat(most - 2_000), "y".repeat(most));
    let sent = || (framed(&check()), Body::Whole);
    let headers = [&OF_PROXIES[..], &[("user-agent", &*near)]].concat();
    let near_answer = raw::call(place, CHECK, &headers, sent()).await.unwrap();
    assert_eq!(near_answer.code(), Code::Ok);
    let refused = raw::call(place, CHECK, &[("user-agent", &beyond)], sent()).await.unwrap();
    assert_eq!(refused.http_status, 431);

    let group = iam::Group { name: "web".into(), ..Default::default() };
    let create = |caller: &str| {
        let message = iam::CreateGroupRequest {
            parent: "acme".into(),
            group: Some(group.clone()),
            ..Default::default()
        };
        let mut request = Request::new(message);
        for (name, value) in OF_PROXIES.iter().chain(&[("x-capstan-caller", caller)]) {
            request.metadata_mut().insert(*name, value.parse().unwrap());
        }
        request
    };
    // The library has a user agent of its own, to which it adds this.
    let endpoint = place.endpoint().user_agent(&*near).unwrap();
    let mut groups = GroupServiceClient::new(endpoint.connect().await.unwrap());
    groups.create_group(create("alice")).await.unwrap();
    groups.create_group(create("nobody")).await.unwrap_err();

    let operator = server.address("management");
    let records =
        capstan(&["audit", "list", "--parent", "acme", "--output", "json", "--addr", &operator]);
    let records = stdout(&records) + &stderr(&records);
    assert!(records.contains("GroupService/CreateGroup"), "{records}");
    assert!(
        records.contains(r#""source": "127.0.0.1""#) || records.contains(r#""source":"127.0.0.1""#),
        "{records}"
    );
    let (code, said) = server.stop("-TERM");
    assert_eq!(code, Some(0), "{said}");
    let decisions = std::fs::read_to_string(log).unwrap();
    assert_eq!(decisions.lines().count(), 1, "{decisions}");
    for text in [records, said, decisions] {
        assert!(!text.contains("203.0.113.7") && !text.contains("yyyy"), "{text}");
        let longest = text.lines().map(str::len).max().unwrap_or_default();
        assert!(longest < 4 * DECISION_LOG_FIELD_BYTES_MAX, "{longest}");
    }
}
