//! Certificates of clients, and whether they still count.
//!
//! ```text
//! handshake ─▶ ClientCertificate: names, chain, the generation that it was verified at, and until when that holds
//! files are loaded again ─▶ Trust: the next generation ─┬─▶ each call and batch: the same generation? else the chain is verified again
//! a certificate or a list is too old ───────────────────┴─▶ each connection and stream wakes, by and by ─▶ refused: it ends
//! ```
//!
//! **Invariants**: what a certificate proves counts only while the authorities and lists that are loaded now accept it, now. A call whose
//! certificate is of the current generation compares that and the time. A chain is verified once in a generation, and when one of its
//! certificates or a list has become too old, whatever its client asks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Context;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::watch;
use tokio::time::sleep;
use x509_parser::parse_x509_certificate;

use super::names::Names;
use crate::limits::{TLS_DOUBT_MAX, TLS_SPREAD_MAX};

/// Generations are even. In what a certificate notes, the lowest bit says that it was refused.
const NEXT: u64 = 2;
const REFUSED: u64 = 1;

/// What certificates of clients are held against in a generation.
pub(super) struct Verifier {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// The seconds from which its lists are too old, each from one.
    pub(super) ends: Vec<u64>,
}

/// The authorities and lists that certificates of clients are held against.
pub(super) struct Trust {
    /// `None` before the files are loaded, and if clients need no certificates.
    verifier: ArcSwapOption<Verifier>,
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
    pub(super) fn replace(&self, verifier: Option<Verifier>) {
        // Whoever sees the generation sees its verifier, or a later one.
        self.verifier.store(verifier.map(Arc::new));
        self.generation.fetch_add(NEXT, Ordering::Release);
        self.changes.send_replace(());
    }

    fn accepts(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> bool {
        let Some(held) = self.verifier.load_full() else { return false };
        let Some((first, others)) = chain.split_first() else { return false };
        held.verifier.verify_client_cert(first, others, now).is_ok()
    }

    /// The second after this one from which what is known of a chain may hold no more, because a certificate or a list is too old.
    fn holds_until(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> u64 {
        let held = self.verifier.load();
        let lists = held.iter().flat_map(|held| held.ends.iter().copied());
        let ends = chain.iter().filter_map(end).chain(lists);
        ends.filter(|end| *end > now.as_secs()).min().unwrap_or(u64::MAX)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// The certificate that a client has proved in the handshake. Clones share what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct ClientCertificate(Arc<Proved>);

struct Proved {
    names: Names,
    /// It, and those between it and an authority, as the client has shown them.
    chain: Vec<CertificateDer<'static>>,
    trust: Arc<Trust>,
    /// The generation that it was verified at last, and [`REFUSED`].
    seen: AtomicU64,
    /// The second from which it is verified again.
    due: AtomicU64,
}

impl fmt::Debug for Proved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proved").field("names", &self.names).finish_non_exhaustive()
    }
}

impl PartialEq for ClientCertificate {
    fn eq(&self, other: &Self) -> bool {
        self.0.names == other.0.names && self.0.chain == other.0.chain
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
        let names = Names::of(chain.first()?);
        let chain: Vec<_> = chain.iter().map(|one| one.clone().into_owned()).collect();
        let (trust, seen) = (Arc::clone(trust), AtomicU64::new(generation));
        let due = AtomicU64::new(trust.holds_until(&chain, UnixTime::now()));
        Some(Self(Arc::new(Proved { names, chain, trust, seen, due })))
    }

    pub(crate) fn names(&self) -> &Names {
        &self.0.names
    }

    /// Whether what it proves still counts. One that was verified before a change of authorities or lists, or that may have become too old,
    /// is verified again.
    #[inline]
    pub(crate) fn counts(&self) -> bool {
        let Proved { trust, seen, .. } = &*self.0;
        let generation = trust.generation.load(Ordering::Acquire);
        let now = UnixTime::now();
        let is_known = seen.load(Ordering::Relaxed) == generation && !self.is_due(now);
        is_known || self.counts_at(generation, now)
    }

    #[inline]
    fn is_due(&self, now: UnixTime) -> bool {
        now.as_secs() >= self.0.due.load(Ordering::Relaxed)
    }

    #[cold]
    fn counts_at(&self, generation: u64, now: UnixTime) -> bool {
        let Proved { chain, trust, seen, due, .. } = &*self.0;
        // What was refused may be good later only by other files.
        if seen.load(Ordering::Relaxed) == generation | REFUSED {
            return false;
        }
        let counts = trust.accepts(chain, now);
        if counts {
            // First: whoever sees that it counts sees until when. For one that is refused others are still to look, too.
            due.store(trust.holds_until(chain, now), Ordering::Relaxed);
        }
        seen.store(if counts { generation } else { generation | REFUSED }, Ordering::Relaxed);
        counts
    }

    /// Waits until it counts no more.
    pub(crate) async fn refused(&self) {
        let mut changes = self.0.trust.changes.subscribe();
        while self.counts() {
            self.doubted(&mut changes).await;
        }
    }

    /// Waits until it must be verified again: the files have changed, or something is too old.
    async fn doubted(&self, changes: &mut watch::Receiver<()>) {
        let left = self.0.due.load(Ordering::Relaxed).saturating_sub(UnixTime::now().as_secs());
        // Its second has begun when it wakes.
        let left = Duration::from_secs(left.saturating_add(1)).min(TLS_DOUBT_MAX);
        tokio::select! {
            () = changed(changes) => {}
            () = sleep(left) => {}
        }
    }

    #[cfg(test)]
    pub(crate) fn named(spiffe_id: Option<&str>) -> Self {
        Self::with(spiffe_id.map_or(Names::Nobody, |id| Names::SpiffeId(id.into())))
    }

    /// With DNS names, in order.
    #[cfg(test)]
    pub(crate) fn of_hosts(names: &[&str]) -> Self {
        Self::with(Names::Dns(names.iter().map(|name| (*name).into()).collect()))
    }

    #[cfg(test)]
    fn with(names: Names) -> Self {
        let (trust, seen, due) = (Arc::default(), AtomicU64::new(0), AtomicU64::new(u64::MAX));
        Self(Arc::new(Proved { names, chain: vec![], trust, seen, due }))
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

/// The second from which a certificate is too old (RFC 5280, section 4.1.2.5: its last one is still good).
fn end(certificate: &CertificateDer<'_>) -> Option<u64> {
    let (_, certificate) = parse_x509_certificate(certificate).ok()?;
    Some(u64::try_from(certificate.validity().not_after.timestamp()).ok()?.saturating_add(1))
}

/// Has the task of a connection look again at its client's certificate when the files have changed, or it may be too old.
pub(crate) struct Watch {
    certificate: ClientCertificate,
    changes: watch::Receiver<()>,
    /// The second from which it looks again: another clone of the certificate may have been verified meanwhile.
    due: u64,
    wake: BoxFuture<'static, ()>,
}

impl Watch {
    pub(crate) fn new(certificate: ClientCertificate) -> Self {
        let mut changes = certificate.0.trust.changes.subscribe();
        // They may have changed since the handshake.
        changes.mark_changed();
        Self { certificate, changes, due: 0, wake: Box::pin(std::future::ready(())) }
    }

    /// Whether the certificate was looked at now, and counts no more. The task wakes for the next change. Costs a comparison where nothing
    /// has changed.
    #[inline]
    pub(crate) fn is_refused(&mut self, cx: &mut Context<'_>) -> bool {
        let is_doubted =
            self.changes.has_changed().unwrap_or(false) || UnixTime::now().as_secs() >= self.due;
        is_doubted && self.looks(cx)
    }

    #[cold]
    fn looks(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            self.changes.mark_unchanged();
            // First: it says until when it counts.
            let counts = self.certificate.counts();
            let most = UnixTime::now().as_secs().saturating_add(TLS_DOUBT_MAX.as_secs());
            self.due = self.certificate.0.due.load(Ordering::Relaxed).min(most);
            let (certificate, mut changes) = (self.certificate.clone(), self.changes.clone());
            self.wake = Box::pin(async move { certificate.doubted(&mut changes).await });
            if self.wake.as_mut().poll(cx).is_pending() {
                return !counts;
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
    #[tokio::test]
    async fn a_connection_looks_again_although_nothing_has_changed() {
        let mut watch = Watch::new(ClientCertificate::named(None));
        let before = UnixTime::now().as_secs();
        assert!(!watch.is_refused(&mut Context::from_waker(Waker::noop())));
        let after = UnixTime::now().as_secs();
        let most = TLS_DOUBT_MAX.as_secs();
        assert!((before + most..=after + most).contains(&watch.due), "{}", watch.due);
    }

    #[tokio::test]
    async fn what_has_changed_since_the_handshake_is_seen() {
        let certificate = ClientCertificate::named(None);
        certificate.revoke();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Watch::new(certificate).is_refused(&mut cx));
    }
}
