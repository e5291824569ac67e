//! A scripted HTTPS server, and an authority that lasts as long as a test.
//!
//! ```text
//! connection ─▶ TLS ─▶ request, whole ─▶ script ─▶ Reply: bytes, then keep open, close, hang, repeat or drip
//! ```

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "for tests only")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa,
    KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

/// An authority of certificates.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new one.
    ///
    /// # Panics
    ///
    /// The system has no random numbers.
    #[must_use]
    pub fn generate() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(rcgen::DnType::CommonName, "Throw-away authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Its certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The same in DER.
    #[must_use]
    pub fn der(&self) -> rustls::pki_types::CertificateDer<'static> {
        self.0.der().clone()
    }

    /// A certificate and its key.
    ///
    /// # Panics
    ///
    /// A name is none.
    pub fn certificate(&self, names: &[&str], expired: bool) -> (rcgen::Certificate, KeyPair) {
        self.odd(names, |params| {
            if expired {
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2021, 1, 1);
            }
        })
    }

    /// A certificate that is changed before it is signed, and its key.
    ///
    /// # Panics
    ///
    /// A name is none.
    pub fn odd(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        // Python takes only certificates that name their authority's key.
        params.use_authority_key_identifier_extension = true;
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// An authority below this one.
    ///
    /// # Panics
    ///
    /// The system has no random numbers.
    #[must_use]
    pub fn below(&self) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(params, key, &self.0).unwrap())
    }

    /// A certificate with these URIs, as SPIFFE names workloads, and its key.
    ///
    /// # Panics
    ///
    /// A URI is none.
    pub fn workload(&self, uris: &[&str]) -> (rcgen::Certificate, KeyPair) {
        self.numbered(uris, None)
    }

    /// The same with a serial number, for [`Self::revoking`].
    ///
    /// # Panics
    ///
    /// A URI is none.
    pub fn numbered(&self, uris: &[&str], serial: Option<u64>) -> (rcgen::Certificate, KeyPair) {
        self.ending(uris, serial, None)
    }

    /// The same, good until so many seconds after 1970.
    ///
    /// # Panics
    ///
    /// A URI is none.
    pub fn ending(
        &self,
        uris: &[&str],
        serial: Option<u64>,
        end: Option<u64>,
    ) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        if let Some(end) = end {
            params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(end);
        }
        params.use_authority_key_identifier_extension = true;
        let names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names = names.collect();
        params.serial_number = serial.map(SerialNumber::from);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap(), key)
    }

    /// Its list of revoked certificates, in PEM, with these serial numbers.
    ///
    /// # Panics
    ///
    /// The list cannot be made.
    #[must_use]
    pub fn revoking(&self, serials: &[u64], expired: bool) -> String {
        // 2021 or 2120.
        self.revoking_until(serials, if expired { 1_609_459_200 } else { 4_733_510_400 })
    }

    /// The same, good until so many seconds after 1970.
    ///
    /// # Panics
    ///
    /// The list cannot be made.
    #[must_use]
    pub fn revoking_until(&self, serials: &[u64], end: u64) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 2, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(1970, 1, 1) + Duration::from_secs(end),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }

    /// What a server with a certificate of these names is made of.
    ///
    /// # Panics
    ///
    /// A name is none.
    pub fn server_config(&self, names: &[&str], expired: bool) -> ServerConfig {
        let (certificate, key) = self.certificate(names, expired);
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap()
    }
}

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct Received {
    /// The connection it came over, from 1 up.
    pub connection: usize,
    /// Its number on that connection, from 1 up.
    pub number: usize,
    /// The request line.
    pub line: String,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Received {
    /// The only value of a header.
    ///
    /// # Panics
    ///
    /// It is there twice.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(found, _)| found == name);
        let value = values.next();
        assert!(values.next().is_none(), "{name} twice");
        value.map(|(_, value)| &**value)
    }
}

/// What the server does with a request.
#[derive(Debug)]
pub struct Reply {
    bytes: Vec<u8>,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Keep,
    Close,
    Hang,
    /// Writes these bytes again and again, with this pause.
    Repeat(Vec<u8>, Duration),
}

impl Reply {
    /// A status without a body, and these further header lines.
    pub fn status(status: u16, headers: &str) -> Self {
        let head = format!("HTTP/1.1 {status} Any\r\ncontent-length: 0\r\n{headers}\r\n");
        Self { bytes: head.into(), then: Then::Keep }
    }

    /// These bytes.
    pub fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), then: Then::Keep }
    }

    /// Closes the connection then.
    pub fn close(self) -> Self {
        Self { then: Then::Close, ..self }
    }

    /// Says nothing then, until the peer closes.
    pub fn hang(self) -> Self {
        Self { then: Then::Hang, ..self }
    }

    /// Writes these bytes again and again then, with this pause.
    pub fn repeat(self, bytes: &[u8], pause: Duration) -> Self {
        Self { then: Then::Repeat(bytes.to_vec(), pause), ..self }
    }
}

type Script = dyn Fn(&Received) -> Reply + Send + Sync;

#[derive(Debug, Default)]
struct Seen {
    connections: usize,
    requests: Vec<Received>,
}

/// A server of one certificate. It ends with the runtime of its test.
#[derive(Debug)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    tasks: TaskTracker,
}

impl Server {
    /// Over TLS, with a certificate for `sink.test`, on 127.0.0.1.
    ///
    /// # Panics
    ///
    /// The address cannot be bound.
    pub async fn start(
        authority: &Authority,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let config = authority.server_config(&["sink.test"], false);
        Self::listen(Ipv4Addr::LOCALHOST, config, script).await
    }

    /// On this address, with a port that the system chooses.
    ///
    /// # Panics
    ///
    /// The address cannot be bound.
    pub async fn listen(
        ip: Ipv4Addr,
        config: ServerConfig,
        script: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let tasks = TaskTracker::new();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (accepted, script, inner): (_, Arc<Script>, _) =
            (Arc::clone(&seen), Arc::new(script), tasks.clone());
        tasks.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                let connection = {
                    let mut seen = accepted.lock().unwrap();
                    seen.connections += 1;
                    seen.connections
                };
                let (seen, script) = (Arc::clone(&accepted), Arc::clone(&script));
                let acceptor = acceptor.clone();
                inner.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, connection, &seen, &*script).await;
                    }
                });
            }
        });
        Self { address, seen, tasks }
    }

    /// A URL of this server by its name.
    pub fn url(&self) -> String {
        format!("https://sink.test:{}/hook?key=7", self.address.port())
    }

    /// The requests so far.
    ///
    /// # Panics
    ///
    /// The script has panicked.
    pub fn requests(&self) -> Vec<Received> {
        self.seen.lock().unwrap().requests.clone()
    }

    /// The number of connections so far.
    ///
    /// # Panics
    ///
    /// The script has panicked.
    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// Waits until no connection is open. The task that accepts remains.
    pub async fn closed(&self) {
        while self.tasks.len() > 1 {
            tokio::task::yield_now().await;
        }
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    connection: usize,
    seen: &Mutex<Seen>,
    script: &Script,
) {
    for number in 1.. {
        let Some(mut request) = read(&mut stream).await else { return };
        (request.connection, request.number) = (connection, number);
        seen.lock().unwrap().requests.push(request.clone());
        let reply = script(&request);
        if stream.write_all(&reply.bytes).await.is_err() || stream.flush().await.is_err() {
            return;
        }
        match reply.then {
            Then::Keep => {}
            Then::Close => {
                let _ = stream.shutdown().await;
                return;
            }
            // Until the peer closes.
            Then::Hang => {
                let _ = stream.read_to_end(&mut Vec::new()).await;
                return;
            }
            Then::Repeat(bytes, pause) => loop {
                let written =
                    stream.write_all(&bytes).await.is_ok() && stream.flush().await.is_ok();
                if !written {
                    return;
                }
                tokio::time::sleep(pause).await;
            },
        }
    }
}

async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Option<Received> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap().to_owned();
    let split = |line: &str| {
        let (name, value) = line.split_once(": ").unwrap();
        (name.to_ascii_lowercase(), value.to_owned())
    };
    let headers: Vec<_> = lines.map(split).collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = bytes.split_off(head + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    assert_eq!(body.len(), length, "bytes behind the request");
    Some(Received { connection: 0, number: 0, line, headers, body })
}
