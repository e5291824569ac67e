//! Certificates of clients that are revoked: lists of them, which are replaced while the server runs.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use capstan_client::TlsOptions;
use capstan_client::connector::{Protocol, TlsConnector};
use capstan_proto::v1;
use capstan_proto::v1::decision_service_client::DecisionServiceClient;
use capstan_server::limits::{HTTP_IDLE_MAX, TLS_LIST_BYTES_MAX, TLS_LOOK, TLS_SPREAD_MAX};
use capstan_testkit::https::Authority;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status, Streaming};

use super::Files;
use crate::common::{PATIENCE, Serving, capstan, stderr};
use crate::raw::{
    self, ACK, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, batch, frame, framed,
};

/// A client with a certificate of this number, and one of the next.
fn files(name: &str) -> Files {
    let files = Files::new(name);
    for (name, serial) in [("seven", 7), ("eight", 8)] {
        let uri = format!("spiffe://acme.example/{name}");
        let (certificate, key) = files.authority.numbered(&[&uri], Some(serial));
        files.write(&format!("{name}.pem"), &certificate.pem());
        files.write(&format!("{name}.key"), &key.serialize_pem());
    }
    files
}

/// Whether a client is let in.
fn asks(files: &Files, address: &str, name: &str) -> bool {
    let (addr, ca) = (format!("https://{address}"), files.path("ca.pem"));
    let (cert, key) = (files.path(&format!("{name}.pem")), files.path(&format!("{name}.key")));
    let tls = ["--addr", &addr, "--ca", &ca, "--cert", &cert, "--key", &key];
    let output = capstan(&[&["check", "alice", "repo.list", "acme"][..], &tls].concat());
    let code = output.status.code();
    assert!([Some(0), Some(2)].contains(&code), "{}", stderr(&output));
    code == Some(0)
}

fn wait_for(files: &Files, address: &str, name: &str, wanted: bool) {
    let begun = Instant::now();
    while asks(files, address, name) != wanted {
        assert!(begun.elapsed() < PATIENCE, "{name} is not {wanted}");
    }
}

#[test]
fn revoked_certificates_are_refused_from_the_next_connection_on() {
    let files = files("tls-revoked");
    let (ca, list) = (files.path("ca.pem"), files.path("revoked.pem"));
    files.write("revoked.pem", &files.authority.revoking(&[], false));
    let mut server = files.serve(&["--client-ca", &ca, "--client-crl", &list]);
    let grpc = server.address("grpc");
    assert!(asks(&files, &grpc, "seven") && asks(&files, &grpc, "eight"));
    files.write("revoked.pem", &files.authority.revoking(&[7, 9], false));
    wait_for(&files, &grpc, "seven", false);
    assert!(asks(&files, &grpc, "eight"));
    // A list that is no list is not loaded, and the one before counts on.
    files.write("revoked.pem", "nothing");
    server.wait_for_log("no list of revoked certificates");
    assert!(!asks(&files, &grpc, "seven") && asks(&files, &grpc, "eight"));
    files.write("revoked.pem", &files.authority.revoking(&[], false));
    wait_for(&files, &grpc, "seven", true);
}

/// What is not known to be in order is not let in: a list that is over, and one of another authority.
#[test]
fn without_a_list_that_counts_nobody_is_let_in() {
    for (name, list) in [
        ("over", |files: &Files| files.authority.revoking(&[], true)),
        ("foreign", |_: &Files| Authority::generate().revoking(&[], false)),
    ] as [(&str, fn(&Files) -> String); 2]
    {
        let files = files(&format!("tls-revoked-{name}"));
        files.write("revoked.pem", &list(&files));
        let (ca, list) = (files.path("ca.pem"), files.path("revoked.pem"));
        let server = files.serve(&["--client-ca", &ca, "--client-crl", &list]);
        assert!(!asks(&files, &server.address("grpc"), "seven"), "{name}");
    }
}

/// Of two lists of one authority only the first would count.
#[test]
fn an_authority_has_one_list() {
    let files = files("tls-revoked-twice");
    let (first, second) =
        (files.authority.revoking(&[7], false), files.authority.revoking(&[8], false));
    files.write("first.pem", &first);
    files.write("second.pem", &second);
    files.write("both.pem", &(first + &second));
    files.write("foreign.pem", &Authority::generate().revoking(&[], false));
    let (cert, key, ca) =
        (files.path("server.pem"), files.path("server.key"), files.path("ca.pem"));
    let serve = |lists: &[&str]| {
        let mut arguments = vec![
            "serve",
            "--demo",
            "--listen",
            "127.0.0.1:0",
            "--http",
            "none",
            "--tls-cert",
            &cert,
        ];
        arguments.extend(["--tls-key", &key, "--client-ca", &ca]);
        let lists: Vec<_> = lists.iter().map(|name| files.path(name)).collect();
        arguments.extend(lists.iter().flat_map(|list| ["--client-crl", list]));
        let output = capstan(&arguments);
        assert_eq!(output.status.code(), Some(2));
        stderr(&output)
    };
    for lists in [&["first.pem", "second.pem"][..], &["both.pem"]] {
        let said = serve(lists);
        assert!(said.contains("a second list of CN=Throw-away authority"), "{said}");
    }
    assert_eq!(TLS_LIST_BYTES_MAX, 16 << 20);
    files.write("long.pem", &"x".repeat((16 << 20) + 1));
    let said = serve(&["long.pem"]);
    assert!(said.contains("longer than 16777216 bytes"), "{said}");
}

#[test]
fn lists_are_for_certificates_of_clients() {
    let output = capstan(&["serve", "--demo", "--client-crl", "revoked.pem"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--client-ca"), "{}", stderr(&output));
}

const CHECK: &str = "/capstan.v1.DecisionService/Check";

/// A server whose clients' authority and list are in files of their own.
fn serve(files: &Files) -> Serving {
    files.write("clients.pem", &files.authority.pem());
    files.write("revoked.pem", &files.authority.revoking(&[], false));
    let (clients, list) = (files.path("clients.pem"), files.path("revoked.pem"));
    files.serve(&["--client-ca", &clients, "--client-crl", &list])
}

/// An open StreamCheck, which has answered once.
struct Asking {
    batches: mpsc::Sender<v1::BatchCheckRequest>,
    answers: Streaming<v1::BatchCheckResponse>,
}

impl Asking {
    async fn open(files: &Files, address: &str, name: &str) -> Self {
        let read = |kind: &str| std::fs::read(files.path(&format!("{name}.{kind}"))).unwrap();
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(files.authority.pem()))
            .identity(Identity::from_pem(read("pem"), read("key")));
        let endpoint = Endpoint::from_shared(format!("https://{address}")).unwrap();
        let channel = endpoint.tls_config(tls).unwrap().connect().await.unwrap();
        let (batches, sent) = mpsc::channel(1);
        let mut client = DecisionServiceClient::new(channel);
        batches.send(batch(2)).await.unwrap();
        let answers = client.stream_check(ReceiverStream::new(sent)).await.unwrap().into_inner();
        let mut asking = Self { batches, answers };
        asking.answer().await.unwrap();
        asking
    }

    async fn answer(&mut self) -> Result<(), Status> {
        let answer = timeout(PATIENCE, self.answers.message()).await.expect("the stream goes on");
        answer.map(|answer| assert_eq!(answer.unwrap().results.len(), 2))
    }

    async fn ask(&mut self) -> Result<(), Status> {
        // The receiver of a stream that has ended is gone.
        let _ = self.batches.send(batch(2)).await;
        self.answer().await
    }

    /// Asks without a pause.
    async fn asks_until_refused(&mut self) {
        let begun = Instant::now();
        let ended = loop {
            if let Err(status) = self.ask().await {
                break status;
            }
            assert!(begun.elapsed() < PATIENCE, "it goes on");
        };
        assert_refused(&ended);
    }
}

#[track_caller]
fn assert_refused(ended: &Status) {
    assert_eq!((ended.code(), &*raw::reason(ended)), (Code::Unauthenticated, "AUTHN_FAILED"));
}

/// A stream that asks nothing ends by itself, one that asks without a pause with one of its next batches, and others go on.
#[tokio::test(flavor = "multi_thread")]
async fn open_streams_end_when_their_certificate_is_revoked() {
    let files = files("tls-revoked-stream");
    let server = serve(&files);
    let grpc = server.address("grpc");
    let mut idle = Asking::open(&files, &grpc, "seven").await;
    let mut busy = Asking::open(&files, &grpc, "seven").await;
    let mut other = Asking::open(&files, &grpc, "eight").await;
    files.write("revoked.pem", &files.authority.revoking(&[7], false));
    busy.asks_until_refused().await;
    assert_refused(&idle.answer().await.unwrap_err());
    // It was verified again, and once more by the next list.
    other.ask().await.unwrap();
    // An authority that is taken away, as all its certificates.
    files.write("clients.pem", &Authority::generate().pem());
    assert_refused(&other.answer().await.unwrap_err());
}

/// A certificate, or a list, that is good when the stream begins, and soon no more.
#[tokio::test(flavor = "multi_thread")]
async fn open_streams_end_when_something_is_over() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let end = now + 4;
    for of in ["certificate", "list"] {
        let files = files(&format!("tls-over-{of}"));
        let mut server = serve(&files);
        let grpc = server.address("grpc");
        match of {
            "certificate" => {
                let uri = ["spiffe://acme.example/seven"];
                let (certificate, key) = files.authority.ending(&uri, Some(7), Some(end));
                files.write("seven.pem", &certificate.pem());
                files.write("seven.key", &key.serialize_pem());
            }
            _ => {
                let end = now + 2 * TLS_LOOK.as_secs() + 8;
                // One that is over already says nothing of the other.
                let over = Authority::generate().below().revoking(&[], true);
                files.write("revoked.pem", &(over + &files.authority.revoking_until(&[9], end)));
                let loaded = "certificates loaded";
                tokio::task::block_in_place(|| server.wait_for_log(loaded));
            }
        }
        let mut idle = Asking::open(&files, &grpc, "seven").await;
        let mut busy = Asking::open(&files, &grpc, "seven").await;
        busy.asks_until_refused().await;
        assert_refused(&idle.answer().await.unwrap_err());
        assert!(SystemTime::now() >= UNIX_EPOCH + Duration::from_secs(end), "too early");
    }
}

/// A connection that is idle is told to leave. What its client asks until then is refused, by the fast way and by the other.
#[tokio::test]
async fn idle_connections_end_when_their_certificate_is_revoked() {
    let files = files("tls-revoked-idle");
    let server = serve(&files);
    let grpc = server.address("grpc");
    let read = |name: &str| std::fs::read(files.path(name)).unwrap();
    let tls = TlsOptions {
        authorities: Some(read("ca.pem")),
        identity: Some((read("seven.pem"), read("seven.key"))),
        server_name: None,
    };
    let connector = TlsConnector::new(&tls, "127.0.0.1", Protocol::Http2).unwrap();
    let stream = connector.connect(TcpStream::connect(&grpc).await.unwrap()).await.unwrap();
    let mut peer = Frames::connect_over(stream).await;
    let ask = |stream: u32| {
        let head = frame(HEADERS, END_HEADERS, stream, &raw::header_block(CHECK));
        [head, frame(DATA, END_STREAM, stream, &framed(&raw::check()))].concat()
    };
    peer.send_bytes(&ask(1)).await;
    assert!(peer.answer(1).await.is_some());
    files.write("revoked.pem", &files.authority.revoking(&[7], false));
    // It is told by itself, within some seconds.
    let mut told = false;
    let ping = timeout(TLS_LOOK * 5 + TLS_SPREAD_MAX, async {
        loop {
            let (kind, flags, _, payload) = peer.next().await;
            told |= kind == GOAWAY;
            if kind == PING && flags == 0 {
                return payload;
            }
        }
    });
    let ping = ping.await.expect("the connection stays");
    assert!(told);
    // A client that does not know yet.
    peer.send_bytes(&ask(3)).await;
    assert_eq!(peer.answer(3).await, None, "it is answered");
    peer.send(PING, ACK, 0, &ping).await;
    while peer.next_or_end().await.is_some() {}
}

/// The same over HTTP: a connection that is kept is closed.
#[test]
fn kept_connections_of_http_end_when_their_certificate_is_revoked() {
    use std::io::{Read as _, Write as _};
    let files = files("tls-revoked-http");
    let server = serve(&files);
    let mut stream = super::wire::with_certificate(&files, &server.address("http"), "seven");
    write!(stream, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    files.write("revoked.pem", &files.authority.revoking(&[7], false));
    let begun = Instant::now();
    let _ = stream.read_to_end(&mut Vec::new());
    // Before it would end for being idle.
    assert!(begun.elapsed() < HTTP_IDLE_MAX / 2, "{:?}", begun.elapsed());
}
