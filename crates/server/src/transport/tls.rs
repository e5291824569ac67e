//! TLS: certificates from files, which are loaded again when they change, and handshakes with a deadline.
//!
//! ```text
//! files ─▶ load: both agree? ─┬─▶ the configuration of the next handshake
//!   │                         └─▶ what certificates of open connections are held against (`clients`)
//!   └ every TLS_LOOK: changed? ─▶ load again; on an error the one before serves on
//! ```
//!
//! **Invariants**: TLS 1.3 and nothing below. A file that others may read or that does not fit is refused, and nothing is half
//! loaded: certificate, key, authorities and lists are replaced together. Where clients have certificates no session is resumed, because a
//! resumed one shows none.

mod clients;
mod names;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, IoSlice, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use anyhow::{Context as _, ensure};
use arc_swap::ArcSwap;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, version};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, interval_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::parse_x509_crl;

use crate::limits::{
    TLS_BUFFER_MAX, TLS_FILE_BYTES_MAX, TLS_HANDSHAKE_BYTES_MAX, TLS_LIST_BYTES_MAX, TLS_LOOK,
    TLS_RETRY,
};
use crate::telemetry::metrics::{LoadOutcome, Metrics};
use crate::transport::linger::linger;
pub(crate) use clients::{ClientCertificate, Watch};
use clients::{Trust, Verifier};
pub(crate) use names::Names;

/// The files of TLS.
#[derive(Clone, Debug)]
pub struct Options {
    /// PEM of the certificate, followed by those between it and an authority.
    pub certificate: PathBuf,
    /// PEM of its private key, which others may not read.
    pub key: PathBuf,
    /// PEM of the authorities whose certificates clients must present; `None` if clients need none.
    pub client_authorities: Option<PathBuf>,
    /// PEM of lists of revoked certificates, one of each authority of clients; none if nothing is revoked.
    pub revocations: Vec<PathBuf>,
}

/// What the next handshakes do. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Tls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    options: Options,
    /// What the files were when they were loaded first.
    first: String,
    current: ArcSwap<Acceptors>,
    trust: Arc<Trust>,
}

/// An acceptor for each protocol: they differ in the ALPN names that they know.
struct Acceptors {
    grpc: TlsAcceptor,
    http: TlsAcceptor,
    /// Of what they hold certificates of clients against.
    generation: u64,
}

impl std::fmt::Debug for Acceptors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Acceptors")
    }
}

/// Makes a handshake.
pub(crate) struct Acceptor {
    acceptor: TlsAcceptor,
    generation: u64,
    trust: Arc<Trust>,
}

impl Acceptor {
    /// The connection, and the certificate that its client has proved. `ended` is told that the handshake is over, whether it was made or not.
    ///
    /// # Errors
    ///
    /// There is no handshake.
    pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        stream: S,
        ended: impl FnOnce(&mut S),
    ) -> io::Result<(TlsStream<S>, Option<ClientCertificate>)> {
        let made = self.acceptor.accept(stream).into_fallible().await;
        let mut stream = match made {
            Ok(stream) => stream,
            Err((error, mut stream)) => {
                ended(&mut stream);
                // The peer is to read why, and not that it was cut off.
                linger(&mut stream).await;
                return Err(error);
            }
        };
        ended(stream.get_mut().0);
        // Bounds what the connection holds of answers that its peer does not read.
        stream.get_mut().1.set_buffer_limit(Some(TLS_BUFFER_MAX));
        let certificate = ClientCertificate::of(&stream, &self.trust, self.generation);
        Ok((stream, certificate))
    }
}

impl Tls {
    /// Loads the files.
    ///
    /// # Errors
    ///
    /// A file cannot be read, is too long or has nothing of its kind; others may read the key; or key and certificate do not
    /// belong together.
    pub(crate) fn open(options: Options) -> anyhow::Result<Self> {
        // Before the files are read: what changes meanwhile is loaded again.
        let first = stamps(&options);
        let trust = Arc::<Trust>::default();
        let (acceptors, verifier) = load(&options, trust.next())?;
        trust.replace(verifier);
        let current = ArcSwap::from_pointee(acceptors);
        Ok(Self(Arc::new(Shared { options, first, current, trust })))
    }

    /// Whether clients must have certificates.
    pub(crate) fn wants_certificates(&self) -> bool {
        self.0.options.client_authorities.is_some()
    }

    /// Accepts connections of gRPC.
    pub(crate) fn grpc(&self) -> Acceptor {
        self.acceptor(|all| &all.grpc)
    }

    /// Accepts connections of HTTP/1.1.
    pub(crate) fn http(&self) -> Acceptor {
        self.acceptor(|all| &all.http)
    }

    fn acceptor(&self, of: impl FnOnce(&Acceptors) -> &TlsAcceptor) -> Acceptor {
        let current = self.0.current.load();
        let (acceptor, trust) = (of(&current).clone(), Arc::clone(&self.0.trust));
        Acceptor { acceptor, generation: current.generation, trust }
    }

    /// Loads the files again whenever one has changed. Never returns.
    pub(crate) async fn follow(self, metrics: Arc<Metrics>) {
        let Shared { options, first, current, trust } = &*self.0;
        let (mut seen, mut loaded) = (first.clone(), first.clone());
        let mut failed = None::<(String, Instant)>;
        let mut ticks = interval_at(Instant::now() + TLS_LOOK, TLS_LOOK);
        loop {
            ticks.tick().await;
            let now = stamps(options);
            // Files that are replaced one after another are loaded when they rest.
            let rests = now == seen;
            seen = now;
            let is_done = match &failed {
                None => seen == loaded,
                // What has failed may not be the fault of the files.
                Some((of, at)) => *of == seen && at.elapsed() < TLS_RETRY,
            };
            if !rests || is_done {
                continue;
            }
            match load(options, trust.next()) {
                Ok((new, verifier)) => {
                    // First: no handshake is of a generation that has not begun.
                    trust.replace(verifier);
                    current.store(Arc::new(new));
                    loaded.clone_from(&seen);
                    failed = None;
                    metrics.tls_loaded(LoadOutcome::Applied);
                    tracing::info!("certificates loaded");
                }
                Err(error) => {
                    failed = Some((seen.clone(), Instant::now()));
                    metrics.tls_loaded(LoadOutcome::Rejected);
                    tracing::warn!(
                        "the certificates are not loaded again, the ones before serve on: {error:#}"
                    );
                }
            }
        }
    }
}

/// What changes when a file does; empty for one that cannot be read.
fn stamps(options: &Options) -> String {
    let Options { certificate, key, client_authorities, revocations } = options;
    let files = [certificate, key].into_iter().chain(client_authorities).chain(revocations);
    let mut stamps = String::new();
    for file in files {
        if let Ok(found) = fs::metadata(file) {
            let (dev, inode, len) = (found.dev(), found.ino(), found.len());
            let times = (found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec());
            let _ = write!(stamps, "{dev} {inode} {len} {times:?} {:o}", found.mode());
        }
        stamps.push('\n');
    }
    stamps
}

/// The acceptors of a generation, and what they hold certificates of clients against.
fn load(options: &Options, generation: u64) -> anyhow::Result<(Acceptors, Option<Verifier>)> {
    let chain = certificates(&options.certificate)?;
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13])?;
    let verifier = match &options.client_authorities {
        None => None,
        Some(file) => {
            let roots = authorities(file)?;
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            // Of each certificate it must be known that it is not revoked: a list that is missing or too old lets in nobody.
            let (lists, ends) = revocations(&options.revocations)?;
            let verifier = verifier.with_crls(lists).enforce_revocation_expiration().build();
            let verifier = verifier.context("lists of revoked certificates")?;
            Some(Verifier { verifier, ends })
        }
    };
    let builder = match &verifier {
        None => builder.with_no_client_auth(),
        Some(held) => builder.with_client_cert_verifier(Arc::clone(&held.verifier)),
    };
    let resumes = verifier.is_none();
    let names = || format!("{} and {}", options.certificate.display(), options.key.display());
    let mut config = builder.with_single_cert(chain, key(&options.key)?).with_context(names)?;
    if !resumes {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
    }
    config.alpn_protocols = vec![b"h2".to_vec()];
    let grpc = Arc::new(config.clone());
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let acceptors = Acceptors { grpc: grpc.into(), http: Arc::new(config).into(), generation };
    Ok((acceptors, verifier))
}

/// Reads the files as a start does, and says what is wrong with each; if nothing is, whether they fit together. Each problem has the option
/// of `capstan serve` that names the file.
pub(crate) fn look(options: &Options) -> Vec<(&'static str, anyhow::Error)> {
    let Options { certificate, key: of, client_authorities, revocations: lists } = options;
    let mut all = vec![];
    all.extend(certificates(certificate).err().map(|error| ("tls-cert", error)));
    all.extend(key(of).err().map(|error| ("tls-key", error)));
    let authorities = client_authorities.as_deref().map(authorities);
    all.extend(authorities.and_then(Result::err).map(|error| ("client-ca", error)));
    let each = lists.iter().map(std::slice::from_ref).map(revocations);
    all.extend(each.filter_map(Result::err).map(|error| ("client-crl", error)));
    if all.is_empty() {
        all.extend(revocations(lists).err().map(|error| ("client-crl", error)));
    }
    if all.is_empty() {
        all.extend(load(options, 0).err().map(|error| ("tls-cert", error)));
    }
    all
}

fn authorities(file: &Path) -> anyhow::Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).with_context(|| file.display().to_string())?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let name = || file.display().to_string();
    let text = read(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.with_context(name)?;
    ensure!(!found.is_empty(), "{}: no certificate in PEM", file.display());
    Ok(found)
}

/// All lists of some files, and the seconds from which they are too old.
fn revocations(
    files: &[PathBuf],
) -> anyhow::Result<(Vec<CertificateRevocationListDer<'static>>, Vec<u64>)> {
    let (mut all, mut issuers, mut ends) = (vec![], HashSet::new(), vec![]);
    for file in files {
        let text = read_within(file, TLS_LIST_BYTES_MAX)?;
        let found: Result<Vec<_>, _> =
            CertificateRevocationListDer::pem_slice_iter(&text).collect();
        let found = found.with_context(|| file.display().to_string())?;
        ensure!(!found.is_empty(), "{}: no list of revoked certificates in PEM", file.display());
        for list in found {
            let (_, read) = parse_x509_crl(&list).with_context(|| file.display().to_string())?;
            // Only the first one of an authority would be looked at, and what the others revoke would be let in.
            let issuer = read.issuer().as_raw().to_vec();
            ensure!(
                issuers.insert(issuer),
                "{}: a second list of {}: give the newest one only",
                file.display(),
                read.issuer()
            );
            let next = read.next_update();
            ends.extend(next.and_then(|next| u64::try_from(next.timestamp()).ok()));
            all.push(list);
        }
    }
    Ok((all, ends))
}

/// Refuses a file with a private key that others than its owner and group may open.
///
/// # Errors
///
/// They may, or there is no such file.
pub fn ensure_private_key(file: &Path) -> anyhow::Result<()> {
    let mode = fs::metadata(file).with_context(|| file.display().to_string())?.mode() & 0o777;
    let name = file.display();
    ensure!(
        mode & 0o007 == 0,
        "{name}: everybody may read the private key (mode {mode:o}): chmod o= {name}"
    );
    Ok(())
}

fn key(file: &Path) -> anyhow::Result<PrivateKeyDer<'static>> {
    ensure_private_key(file)?;
    let text = read(file)?;
    PrivateKeyDer::from_pem_slice(&text)
        .with_context(|| format!("{}: no private key in PEM that is not encrypted", file.display()))
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    read_within(file, TLS_FILE_BYTES_MAX)
}

fn read_within(file: &Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let name = || file.display().to_string();
    let mut bytes = Vec::new();
    let opened = fs::File::open(file).with_context(name)?;
    opened.take(bytes_max + 1).read_to_end(&mut bytes).with_context(name)?;
    let is_short = bytes.len() as u64 <= bytes_max;
    ensure!(is_short, "{}: longer than {bytes_max} bytes", file.display());
    Ok(bytes)
}

/// A socket from which a handshake reads a limited number of bytes: before it is known who is there, nobody may make the server
/// hold more.
///
/// A client's first call may arrive with the last bytes of its handshake, and rustls reads on until it has a whole record. So bytes
/// that are missing are no error yet: a handshake that is over does not ask again, and one that does has read too much.
#[derive(Debug)]
pub(crate) struct HandshakeLimited<S> {
    stream: S,
    /// `None` after the handshake.
    left: Option<usize>,
    /// A read has found nothing left.
    is_used_up: bool,
}

impl<S> HandshakeLimited<S> {
    pub(crate) const fn new(stream: S) -> Self {
        Self { stream, left: Some(TLS_HANDSHAKE_BYTES_MAX), is_used_up: false }
    }

    /// The handshake is over.
    pub(crate) const fn end(&mut self) {
        self.left = None;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HandshakeLimited<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(left) = self.left else {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        };
        if left == 0 {
            if self.is_used_up {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            self.is_used_up = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut part = buffer.take(left);
        let read = Pin::new(&mut self.stream).poll_read(cx, &mut part);
        let bytes = part.filled().len();
        // The bytes are initialized: they were read.
        buffer.initialize_unfilled_to(bytes);
        buffer.advance(bytes);
        self.left = Some(left - bytes);
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HandshakeLimited<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
