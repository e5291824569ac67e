//! What is spoken at the ports.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use capstan_server::feed::reload;
use capstan_server::limits::{GREETING_MAX, Limits, TLS_BUFFER_MAX, TLS_HANDSHAKE_BYTES_MAX};
use capstan_server::server::{Address, Config, Server, TlsOptions};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Files;
use super::rotation::connect;
use crate::common::{PATIENCE, Serving, capstan, config_within, stderr};
use crate::raw::{
    ACK, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PREFACE, SETTINGS, batch, frame, framed,
    header_block,
};

const BATCH: &str = "/capstan.v1.DecisionService/BatchCheck";

/// A client that trusts the authority.
fn client(
    files: &Files,
    version: &'static SupportedProtocolVersion,
    protocols: &[&str],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(files.authority.der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A connection with TLS, after its handshake; or what went wrong.
fn handshake(
    files: &Files,
    address: &str,
    version: &'static SupportedProtocolVersion,
    protocols: &[&str],
) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(client(files, version, protocols), name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// A connection of HTTP/1.1, whose client shows this certificate.
pub(super) fn with_certificate(
    files: &Files,
    address: &str,
    name: &str,
) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(files.authority.der()).unwrap();
    let read = |kind: &str| std::fs::read(files.path(&format!("{name}.{kind}"))).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(&read("pem")).unwrap()],
            PrivateKeyDer::from_pem_slice(&read("key")).unwrap(),
        )
        .unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let session = ClientConnection::new(Arc::new(config), name).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    StreamOwned::new(session, socket)
}

#[test]
fn only_tls_1_3_and_the_protocol_of_the_port_are_spoken() {
    let files = Files::new("tls-versions");
    let server = files.serve(&[]);
    let (grpc, http) = (server.address("grpc"), server.address("http"));
    for (address, protocol, other) in [(&grpc, "h2", "http/1.1"), (&http, "http/1.1", "h2")] {
        let stream = handshake(&files, address, &TLS13, &[protocol]).unwrap();
        assert_eq!(stream.conn.alpn_protocol(), Some(protocol.as_bytes()));
        assert!(handshake(&files, address, &TLS12, &[protocol]).is_err());
        assert!(handshake(&files, address, &TLS13, &[other]).is_err());
        handshake(&files, address, &TLS13, &[]).unwrap();
    }
}

/// A client that speaks plain text to the gRPC port is not answered in it, and one that says nothing is cut off.
#[test]
fn plain_text_is_refused() {
    let files = Files::new("tls-plain");
    let server = files.serve(&[]);
    let grpc = server.address("grpc");
    for bytes in [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03"]
    {
        let mut stream = TcpStream::connect(&grpc).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(bytes).unwrap();
        let mut answer = Vec::new();
        // A connection that stays open ends in the time of the read, which is longer than that of a handshake.
        assert!(GREETING_MAX < PATIENCE);
        let ended = stream.read_to_end(&mut answer).map_err(|error| error.kind());
        assert!(matches!(ended, Ok(_) | Err(ErrorKind::ConnectionReset)), "{ended:?}");
        // At most an alert.
        assert!(answer.len() <= 7 && !answer.starts_with(b"HTTP"), "{answer:?}");
    }
}

/// The HTTP address of this machine speaks both; another one only TLS.
#[test]
fn http_is_plain_on_this_machine_only() {
    let files = Files::new("tls-http");
    let ask = |stream: &mut dyn Exchange| {
        stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap_or_default()
    };
    let near = files.serve(&[]);
    let http = near.address("http");
    let (cert, key) = (files.path("server.pem"), files.path("server.key"));
    let tls = ["--tls-cert", &cert, "--tls-key", &key, "--http", "0.0.0.0:0"];
    let far = Serving::start(&[&["--demo", "--listen", "127.0.0.1:0"], &tls[..]].concat(), 18);
    let far = format!("127.0.0.1:{}", far_port(&far.address("http")));
    for address in [&http, &far] {
        let mut stream = handshake(&files, address, &TLS13, &["http/1.1"]).unwrap();
        let answer = ask(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    for (address, is_plain) in [(&http, true), (&far, false)] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(ask(&mut stream).starts_with("HTTP/1.1 200"), is_plain, "{address}");
    }
}

fn far_port(address: &str) -> &str {
    address.rsplit_once(':').unwrap().1
}

trait Exchange: std::io::Read + std::io::Write {}
impl<T: std::io::Read + std::io::Write> Exchange for T {}

/// Where clients must have certificates, HTTP in plain text has no decision, on this machine either.
#[test]
fn http_in_plain_text_decides_nothing_beside_certificates() {
    let files = Files::new("tls-http-certificates");
    let server = files.serve(&["--client-ca", &files.path("ca.pem")]);
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(server.address("http")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        )
        .unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    assert!(ask("/access/v1/evaluation").starts_with("HTTP/1.1 404"));
    assert!(ask("/livez").starts_with("HTTP/1.1 405"));
}

/// A certificate is looked at in each handshake: no session goes on without it.
#[test]
fn sessions_with_certificates_are_not_resumed() {
    let files = Files::new("tls-resumption");
    let (certificate, key) = files.authority.workload(&["spiffe://acme.example/ci"]);
    for wants in [false, true] {
        let ca = files.path("ca.pem");
        let more = ["--client-ca", &*ca];
        let server = files.serve(if wants { &more } else { &[] });
        let mut roots = RootCertStore::empty();
        roots.add(files.authority.der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let own = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate.der().clone()], own)
            .unwrap();
        let config = Arc::new(config);
        let connect = || {
            let name = ServerName::try_from("localhost").unwrap();
            let session = ClientConnection::new(Arc::clone(&config), name).unwrap();
            let socket = TcpStream::connect(server.address("http")).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut stream = StreamOwned::new(session, socket);
            stream
                .write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(answer.starts_with(b"HTTP/1.1 200"));
            stream.conn.handshake_kind().unwrap()
        };
        assert_eq!(connect(), HandshakeKind::Full);
        assert_eq!(connect() == HandshakeKind::Full, wants);
    }
}

/// A handshake reads little.
#[test]
fn half_handshakes_hold_little() {
    let files = Files::new("tls-half");
    let server = files.serve(&[]);
    // A greeting that says it has 60,000 bytes more, in records of 16,000.
    let head = [1, 0, 0xea, 0x60];
    let record = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap().to_be_bytes();
        [&[22, 3, 1], &length[..], bytes].concat()
    };
    let sent = [record(&[&head[..], &[0; 12_000]].concat()), record(&[0; 12_000])].concat();
    assert!(sent.len() > TLS_HANDSHAKE_BYTES_MAX);
    let mut stream = TcpStream::connect(server.address("grpc")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let begun = Instant::now();
    let _ = stream.write_all(&sent);
    let _ = stream.read_to_end(&mut Vec::new());
    assert!(begun.elapsed() < GREETING_MAX, "it is read on");
}

/// A client's first call is no part of its handshake, however long it is, and although both arrive together.
#[test]
fn a_long_first_call_may_come_with_the_end_of_the_handshake() {
    let files = Files::new("tls-first-call");
    let server = files.serve(&[]);
    let mut bytes = [PREFACE, &frame(SETTINGS, 0, 0, &[])].concat();
    bytes.extend(frame(HEADERS, END_HEADERS, 1, &header_block(BATCH)));
    for part in framed(&batch(1_000)).chunks(16_000) {
        bytes.extend(frame(DATA, 0, 1, part));
    }
    bytes.extend(frame(DATA, END_STREAM, 1, &[]));
    bytes.extend(frame(PING, 0, 0, b"answered"));
    assert!(bytes.len() > TLS_HANDSHAKE_BYTES_MAX + 4_096);
    let config = client(&files, &TLS13, &["h2"]);
    let mut session =
        ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    // What is written before the handshake goes out with its end.
    session.writer().write_all(&bytes).unwrap();
    let socket = TcpStream::connect(server.address("grpc")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut stream = StreamOwned::new(session, socket);
    let (mut answer, mut part) = (Vec::new(), [0; 4_096]);
    let answered = frame(PING, ACK, 0, b"answered");
    while !answer.windows(answered.len()).any(|some| some == answered) {
        let read = stream.read(&mut part).expect("the connection is closed");
        assert_ne!(read, 0, "the connection is closed");
        answer.extend_from_slice(&part[..read]);
    }
}

/// Unix sockets, and the operator's, stay as they are.
#[test]
fn unix_sockets_have_no_tls() {
    let files = Files::new("tls-unix");
    let socket = format!("unix:{}", files.path("grpc.sock"));
    let (cert, key) = (files.path("server.pem"), files.path("server.key"));
    let server = Serving::start(
        &["--demo", "--http", "none", "--listen", &socket, "--tls-cert", &cert, "--tls-key", &key],
        18,
    );
    for addr in [socket.clone(), server.address("management")] {
        let output = capstan(&["check", "alice", "repo.list", "acme", "--addr", &addr]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    }
}

/// A client that asks and does not read: what is encrypted for it is bounded, and the connection is not read from any more.
#[test]
fn answers_that_are_not_read_are_bounded() {
    let files = Files::new("tls-unread");
    let server = files.serve(&[]);
    let mut stream = handshake(&files, &server.address("grpc"), &TLS13, &["h2"]).unwrap();
    stream.sock.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    stream.write_all(PREFACE).unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    let ping = frame(PING, 0, 0, &[7; 8]);
    let pings = ping.repeat(4_096);
    // The system has buffers of megabytes for each direction.
    let (mut sent, most) = (0, (64 << 20) + TLS_BUFFER_MAX);
    while sent < most && stream.write_all(&pings).is_ok() {
        sent += pings.len();
    }
    assert!(sent < most, "the server reads on");
    // Others are served.
    let ca = files.path("ca.pem");
    let addr = format!("https://{}", server.address("grpc"));
    let output = capstan(&["check", "alice", "repo.list", "acme", "--addr", &addr, "--ca", &ca]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// Handshakes that wait hold the places only until somebody else comes.
#[tokio::test(flavor = "multi_thread")]
async fn half_handshakes_yield_their_places() {
    let files = Files::new("tls-yield");
    let limits = Limits { connections_max: 2, yield_idle_min: Duration::ZERO, ..Limits::default() };
    let tls = TlsOptions {
        certificate: files.folder.join("server.pem"),
        key: files.folder.join("server.key"),
        client_authorities: None,
        revocations: vec![],
    };
    let config = Config { tls: Some(tls), ..config_within(limits) };
    let server = Server::bind(config).await.unwrap();
    let [Address::Tcp(grpc)] = server.grpc_addresses()[..] else { panic!("one address") };
    let (_stop, stopped) = oneshot::channel::<()>();
    let stopped = async { drop(stopped.await) };
    Handle::current().spawn(server.run(stopped, reload::channel(), || {}));
    let silent = [(); 2].map(|()| TcpStream::connect(grpc).unwrap());
    // So that both are accepted before.
    for _ in 0..3 {
        connect(&grpc.to_string(), &files.authority).await.unwrap();
    }
    drop(silent);
}
