//! Certificates of clients, and whether they still count.
//!
//! ```text
//! handshake ─▶ ClientCertificate: SPIFFE ID, chain, the generation that it was verified at
//! files are loaded again ─▶ Trust: the next generation ─┬─▶ each call and batch: the same generation? else the chain is verified again
//!                                                       └─▶ each connection and stream wakes, by and by ─▶ refused: it ends
//! ```
//!
//! **Invariants**: what a certificate proves counts only while the authorities and lists that are loaded now accept it. A call whose
//! certificate is of the current generation compares one number. A chain is verified once in a generation, whatever its client asks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;
use tokio::time::sleep;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::limits::TLS_SPREAD_MAX;

/// Generations are even. In what a certificate notes, the lowest bit says that it was refused.
const NEXT: u64 = 2;
const REFUSED: u64 = 1;

/// The authorities and lists that certificates of clients are held against.
pub(super) struct Trust {
    /// `None` before the files are loaded, and if clients need no certificates.
    verifier: ArcSwapOption<Arc<dyn ClientCertVerifier>>,
    generation: AtomicU64,
    /// Changes behind each generation.
    changes: watch::Sender<()>,
}

impl Default for Trust {
    fn default() -> Self {
        let generation = AtomicU64::new(0);
        Self { verifier: ArcSwapOption::empty(), generation, changes: watch::Sender::new(()) }
    }
}

impl Trust {
    /// The generation that [`Trust::replace`] begins.
    pub(super) fn next(&self) -> u64 {
        self.generation.load(Ordering::Acquire) + NEXT
    }

    /// Holds certificates against this from now on, those of open connections included. Only the task that loads the files calls this.
    pub(super) fn replace(&self, verifier: Option<Arc<dyn ClientCertVerifier>>) {
        // Whoever sees the generation sees its verifier, or a later one.
        self.verifier.store(verifier.map(Arc::new));
        self.generation.fetch_add(NEXT, Ordering::Release);
        self.changes.send_replace(());
    }

    fn accepts(&self, chain: &[CertificateDer<'_>]) -> bool {
        let Some(verifier) = self.verifier.load_full() else { return false };
        let Some((first, others)) = chain.split_first() else { return false };
        verifier.verify_client_cert(first, others, UnixTime::now()).is_ok()
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// The certificate that a client has proved in the handshake: its SPIFFE ID (X.509-SVID, section 2). One that has not exactly one URI,
/// or another than a SPIFFE ID, has none, and is nobody's. Clones share what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct ClientCertificate(Arc<Proved>);

struct Proved {
    spiffe_id: Option<Box<str>>,
    /// It, and those between it and an authority, as the client has shown them.
    chain: Vec<CertificateDer<'static>>,
    trust: Arc<Trust>,
    /// The generation that it was verified at last, and [`REFUSED`].
    seen: AtomicU64,
}

impl fmt::Debug for Proved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proved").field("spiffe_id", &self.spiffe_id).finish_non_exhaustive()
    }
}

impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.spiffe_id == other.0.spiffe_id && self.0.chain == other.0.chain
    }
}

impl Eq for ClientCertificate {}

impl ClientCertificate {
    /// That of a connection whose handshake was made at this generation; `None` without a certificate.
    pub(super) fn of<S>(
        stream: &tokio_rustls::server::TlsStream<S>,
        trust: &Arc<Trust>,
        generation: u64,
    ) -> Option<Self> {
        let chain = stream.get_ref().1.peer_certificates()?;
        let spiffe_id = read(chain.first()?);
        let chain = chain.iter().map(|one| one.clone().into_owned()).collect();
        let (trust, seen) = (Arc::clone(trust), AtomicU64::new(generation));
        Some(Self(Arc::new(Proved { spiffe_id, chain, trust, seen })))
    }

    pub(crate) fn spiffe_id(&self) -> Option<&str> {
        self.0.spiffe_id.as_deref()
    }

    /// Whether what it proves still counts. One that was verified before a change of authorities or lists is verified again.
    #[inline]
    pub(crate) fn counts(&self) -> bool {
        let Proved { trust, seen, .. } = &*self.0;
        let now = trust.generation.load(Ordering::Acquire);
        seen.load(Ordering::Relaxed) == now || self.counts_at(now)
    }

    #[cold]
    fn counts_at(&self, now: u64) -> bool {
        let Proved { chain, trust, seen, .. } = &*self.0;
        if seen.load(Ordering::Relaxed) == now | REFUSED {
            return false;
        }
        let counts = trust.accepts(chain);
        seen.store(if counts { now } else { now | REFUSED }, Ordering::Relaxed);
        counts
    }

    /// Waits until it counts no more.
    pub(crate) async fn refused(&self) {
        let mut changes = self.0.trust.changes.subscribe();
        while self.counts() {
            changed(&mut changes).await;
        }
    }

    #[cfg(test)]
    pub(crate) fn named(spiffe_id: Option<&str>) -> Self {
        let (spiffe_id, trust) = (spiffe_id.map(Into::into), Arc::default());
        Self(Arc::new(Proved { spiffe_id, chain: vec![], trust, seen: AtomicU64::new(0) }))
    }

    /// Has the lists changed so that it counts no more.
    #[cfg(test)]
    pub(crate) fn revoke(&self) {
        self.0.trust.replace(None);
    }
}

/// Waits until the files have changed, and then for a time of its own: not all certificates are verified at once.
async fn changed(changes: &mut watch::Receiver<()>) {
    if changes.changed().await.is_err() {
        std::future::pending().await
    }
    sleep(TLS_SPREAD_MAX.mul_f64(fastrand::f64())).await;
}

fn read(certificate: &CertificateDer<'_>) -> Option<Box<str>> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    let names = certificate.subject_alternative_name().ok()??;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else { return None };
    uri.starts_with("spiffe://").then(|| uri.into())
}

/// Has the task of a connection look again at its client's certificate when the files have changed.
pub(crate) struct Watch {
    certificate: ClientCertificate,
    changes: watch::Receiver<()>,
    wake: BoxFuture<'static, ()>,
}

impl Watch {
    pub(crate) fn new(certificate: ClientCertificate) -> Self {
        let mut changes = certificate.0.trust.changes.subscribe();
        // They may have changed since the handshake.
        changes.mark_changed();
        Self { certificate, changes, wake: Box::pin(std::future::ready(())) }
    }

    /// Whether the certificate was looked at now, and counts no more. The task wakes for the next change. Costs a comparison where nothing
    /// has changed.
    #[inline]
    pub(crate) fn is_refused(&mut self, cx: &mut Context<'_>) -> bool {
        self.changes.has_changed().unwrap_or(false) && self.looks(cx)
    }

    #[cold]
    fn looks(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            self.changes.mark_unchanged();
            let mut changes = self.changes.clone();
            self.wake = Box::pin(async move { changed(&mut changes).await });
            if self.wake.as_mut().poll(cx).is_pending() {
                return !self.certificate.counts();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_certificate_is_held_against_what_is_loaded_now() {
        let certificate = ClientCertificate::named(None);
        let of_call = certificate.clone();
        let mut watch = Watch::new(certificate.clone());
        let mut cx = Context::from_waker(Waker::noop());
        assert!(of_call.counts() && !watch.is_refused(&mut cx));
        let mut refused = Box::pin(of_call.refused());
        assert!(refused.as_mut().poll(&mut cx).is_pending());
        certificate.revoke();
        assert!(!of_call.counts() && watch.is_refused(&mut cx));
        // Said once: the connection takes no more calls then.
        assert!(!watch.is_refused(&mut cx));
        assert_eq!(certificate.0.seen.load(Ordering::Relaxed), NEXT | REFUSED);
        let begun = tokio::time::Instant::now();
        refused.await;
        assert!(begun.elapsed() <= TLS_SPREAD_MAX);
    }

    /// A handshake that began before a change of the files ends behind it.
    #[test]
    fn what_has_changed_since_the_handshake_is_seen() {
        let certificate = ClientCertificate::named(None);
        certificate.revoke();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Watch::new(certificate).is_refused(&mut cx));
    }
}
