//! Who may ask for decisions, what, and about which part of the tree.
//!
//! ```text
//! connection: this machine, or a client certificate ─▶ everybody, a caller of the document, or nobody
//!      └ neither ─▶ token or secret of the call ─▶ identity ─▶ a caller of the document, or nobody
//! caller ─▶ may use the method? ─▶ Right: the subtree that every question is held to
//! ```
//!
//! Without a document whoever is on this machine or has a client certificate may ask everything, and nobody else anything.
//!
//! **Invariants**: what is not said is refused. Two proofs are refused. A caller that is taken out of the document is refused from its next
//! call or batch on, also on a connection or stream that is open; so is one whose certificate is revoked, and its open stream ends.

mod document;

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use arc_swap::ArcSwap;
use capstan_engine::{Path, PathBuf};
use capstan_http2::Head;
use capstan_policy::{Asks, Caller, Proves};
use tonic::codegen::http::Extensions;
use tonic::codegen::http::header::{AUTHORIZATION, HeaderMap};

use crate::RequestError;
use crate::ask::{self, hold};
use crate::authn::caller::{CallerKind, Claim, by_authorization};
use crate::callers::{Callers, logged};
use crate::feed::{Freshness, Published};
use crate::limits::{ASKERS_LOOKED_UP_MAX, PEER_ASKERS_LOOKED_UP_MAX};
use crate::methods::Rpc;
use crate::places::Places;
use crate::telemetry::metrics::{AskerRefusal, Metrics};
use crate::transport::connection::Remote;
use crate::transport::peers::Peer;
use crate::transport::tls::{ClientCertificate, Names};

pub(crate) use document::AskersFile;
pub use document::{load, unproved};

/// Knows who may ask. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Askers(Arc<Shared>);

#[derive(Clone, Debug)]
struct Shared {
    rule: Rule,
    callers: Callers,
    published: Arc<Published>,
    metrics: Arc<Metrics>,
    /// Places to look up what a credential proves. They are not those of calls: strangers take none of these.
    lookups: Places<Peer>,
}

#[derive(Clone, Debug)]
pub(crate) enum Rule {
    /// Everybody, from everywhere.
    Open,
    /// Everybody of this machine, and whoever has a client certificate.
    Proved,
    /// Whoever the document says.
    Named(Arc<ArcSwap<Named>>),
}

/// A document, by what callers prove.
#[derive(Debug)]
pub(crate) struct Named {
    names_this_machine: bool,
    by_spiffe_id: HashMap<Box<str>, Arc<Caller>>,
    by_dns_name: HashMap<Box<str>, Arc<Caller>>,
    by_identity: HashMap<PathBuf, Arc<Caller>>,
}

impl Default for Named {
    /// Nobody: no document is loaded.
    fn default() -> Self {
        let (by_spiffe_id, by_dns_name) = <(HashMap<_, _>, HashMap<_, _>)>::default();
        let by_identity = HashMap::default();
        Self { names_this_machine: true, by_spiffe_id, by_dns_name, by_identity }
    }
}

impl From<capstan_policy::Callers> for Named {
    fn from(all: capstan_policy::Callers) -> Self {
        let mut named = Self { names_this_machine: all.names_this_machine, ..Self::default() };
        for caller in all.callers {
            let caller = Arc::new(caller);
            match &caller.proves {
                Proves::SpiffeId(id) => {
                    named.by_spiffe_id.insert(id.as_str().into(), caller);
                }
                Proves::DnsName(name) => {
                    named.by_dns_name.insert(name.as_str().into(), caller);
                }
                Proves::Identity(path) => {
                    named.by_identity.insert(path.clone(), caller);
                }
            }
        }
        named
    }
}

/// How a call came.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    remote: Option<Remote>,
    certificate: Option<ClientCertificate>,
}

impl Entry {
    /// Where it came from; `None` if that is not known.
    pub(crate) const fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    pub(crate) const fn new(
        remote: Option<Remote>,
        certificate: Option<ClientCertificate>,
    ) -> Self {
        Self { remote, certificate }
    }

    fn is_of_this_machine(&self) -> bool {
        self.remote.is_some_and(Remote::is_of_this_machine)
    }

    /// Whether the certificate of the client counts no more.
    fn is_revoked(&self) -> bool {
        self.certificate.as_ref().is_some_and(|certificate| !certificate.counts())
    }

    fn is_operator(&self) -> bool {
        matches!(self.remote, Some(Remote::Operator(_)))
    }
}

/// A plain check, before its body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking<'c> {
    /// Of the connection.
    pub(crate) entry: &'c Entry,
    pub(crate) head: &'c Arc<Head>,
    /// Of the connection, too.
    pub(crate) proved: &'c ProvedHead,
}

/// The last head of a connection that has proved an identity, and what it has proved. A client sends the same head again and again.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProvedHead(RefCell<Option<(Weak<Head>, CallerKind)>>);

/// Who asks, by the connection alone.
enum Seen<'n> {
    Everybody,
    Caller(&'n Arc<Caller>),
    /// A certificate that could be of more than one caller.
    Several,
    Nobody,
    /// The call must say it.
    Unsaid,
}

impl Named {
    fn seen(&self, entry: &Entry) -> Seen<'_> {
        if entry.is_operator() || (!self.names_this_machine && entry.is_of_this_machine()) {
            return Seen::Everybody;
        }
        let Some(certificate) = &entry.certificate else { return Seen::Unsaid };
        self.seen_by(certificate.names())
    }

    fn seen_by(&self, names: &Names) -> Seen<'_> {
        match names {
            Names::Nobody => Seen::Nobody,
            Names::SpiffeId(id) => self.by_spiffe_id.get(id).map_or(Seen::Nobody, Seen::Caller),
            Names::Dns(names) => {
                let mut callers = names.iter().filter_map(|name| self.by_dns_name.get(name));
                match (callers.next(), callers.next()) {
                    (None, _) => Seen::Nobody,
                    (Some(caller), None) => Seen::Caller(caller),
                    // Each name is there once, and a caller has one: these are two, of whom neither counts more.
                    (Some(_), Some(_)) => Seen::Several,
                }
            }
        }
    }
}

/// What a call may do.
#[derive(Clone, Debug)]
pub(crate) enum Right {
    /// Ask everything.
    Everything,
    /// What the document says of this caller.
    Of(Arc<Caller>),
}

impl Right {
    /// The path that every resource must be at or below.
    pub(crate) fn within(&self) -> Option<Path<'_>> {
        match self {
            Self::Everything => None,
            Self::Of(caller) => caller.subtree.as_ref().map(PathBuf::as_path),
        }
    }

    /// Whether the `resource` of a request may be asked about.
    ///
    /// # Errors
    ///
    /// It may not, or it is no path. A caller that may ask about everything has its fields looked at in their order, later.
    pub(crate) fn hold(&self, resource: &str) -> Result<(), RequestError> {
        match self.within() {
            None => Ok(()),
            within => hold(within, ask::path("resource", resource)?),
        }
    }
}

impl Askers {
    pub(crate) fn new(
        rule: Rule,
        callers: Callers,
        published: Arc<Published>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let lookups = Places::new(ASKERS_LOOKED_UP_MAX, PEER_ASKERS_LOOKED_UP_MAX);
        Self(Arc::new(Shared { rule, callers, published, metrics, lookups }))
    }

    /// The same for the calls of one worker, so that cores share no count of references.
    pub(crate) fn of_worker(&self) -> Self {
        Self(Arc::new(Shared::clone(&self.0)))
    }

    /// Answers a plain check with the subtree that its question is held to; `None`, and nothing is called, if it is not known without a
    /// wait that it may be asked.
    pub(crate) fn plain<R>(
        &self,
        asking: Asking<'_>,
        answer: impl FnOnce(Option<Path<'_>>) -> Option<R>,
    ) -> Option<R> {
        let Asking { entry, head, .. } = asking;
        if entry.is_revoked() {
            return None;
        }
        let shows = || head.parts.headers.keys().any(|name| name == AUTHORIZATION);
        if entry.certificate.is_some() && shows() {
            return None; // Two proofs.
        }
        let named = match &self.0.rule {
            Rule::Open => return answer(None),
            Rule::Proved => return if is_proved(entry) { answer(None) } else { None },
            Rule::Named(named) => named.load(),
        };
        match named.seen(entry) {
            Seen::Everybody => answer(None),
            Seen::Caller(caller) => check_of(caller, answer),
            Seen::Several | Seen::Nobody => None,
            Seen::Unsaid if shows() => {
                self.proved(asking, |identity| check_of(named.by_identity.get(identity)?, answer))
            }
            Seen::Unsaid => None,
        }
    }

    /// Answers with the identity that a head proves, if that is known without a wait.
    fn proved<R>(
        &self,
        Asking { entry, head, proved: ProvedHead(last) }: Asking<'_>,
        answer: impl FnOnce(&PathBuf) -> Option<R>,
    ) -> Option<R> {
        let Shared { callers, published, .. } = &*self.0;
        let current = published.load();
        let current = current.as_deref()?;
        let mut last = last.borrow_mut();
        let is_known = last.as_ref().is_some_and(|(of, kind)| {
            of.as_ptr() == Arc::as_ptr(head) && callers.still(kind, current)
        });
        if !is_known {
            let claim = by_authorization(entry.remote(), &head.parts.headers).ok()?;
            let known = callers.known(&claim).filter(|kind| !kind.is_narrowed())?;
            *last = Some((Arc::downgrade(head), known));
        }
        let Some((_, CallerKind::Identity { path, .. })) = &*last else { return None };
        let state = current.snapshot.identity_state(path.as_path())?;
        if state.registered && !state.disabled { answer(path) } else { None }
    }

    /// Who asks in a call. The extensions are those of the transport.
    pub(crate) fn asker(&self, extensions: &Extensions, headers: &HeaderMap) -> Asker {
        let (remote, certificate) = (extensions.get::<Remote>(), extensions.get());
        let entry = Entry::new(remote.copied(), certificate.cloned());
        let shown = headers.contains_key(AUTHORIZATION);
        let shown = shown.then(|| by_authorization(entry.remote(), headers));
        Asker { askers: self.clone(), entry, shown, proved: None }
    }

    fn refused(&self, by: AskerRefusal, error: RequestError) -> RequestError {
        self.0.metrics.asker_refused(by);
        error
    }

    /// Whoever has proved nothing. The log says what would help, once a second at most.
    fn unknown(&self, reason: &str) -> RequestError {
        static LOGGED: Mutex<Option<Instant>> = Mutex::new(None);
        let error = logged(&LOGGED, "somebody asks who may not", reason);
        self.refused(AskerRefusal::Unknown, error)
    }
}

/// Answers a check of a caller, if it may check.
fn check_of<R>(caller: &Caller, answer: impl FnOnce(Option<Path<'_>>) -> Option<R>) -> Option<R> {
    let within = caller.subtree.as_ref().map(PathBuf::as_path);
    if caller.methods.contains(&Asks::Check) { answer(within) } else { None }
}

/// Whether whoever asks may, where no document says it.
fn is_proved(entry: &Entry) -> bool {
    entry.is_of_this_machine() || entry.certificate.is_some()
}

/// Who asks in a call.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    askers: Askers,
    entry: Entry,
    /// What the call shows in its `Authorization`.
    shown: Option<Result<Claim, RequestError>>,
    /// Whom that has proved.
    proved: Option<CallerKind>,
}

/// Who asks, by the head of a call.
enum ByHead {
    Everybody,
    Caller(Arc<Caller>),
    /// Whom the credential proves.
    Shown,
}

impl Asker {
    /// The asker of a call that was let in.
    ///
    /// # Errors
    ///
    /// [`RequestError::AuthnFailed`]: nobody has looked who asks.
    pub(crate) fn of_call(extensions: &Extensions) -> Result<Self, RequestError> {
        extensions.get().cloned().ok_or(RequestError::AuthnFailed)
    }

    /// Looks at the head of the call alone.
    ///
    /// # Errors
    ///
    /// [`RequestError::AuthnFailed`]: nobody who may ask, whatever the body is.
    pub(crate) fn let_in(&self) -> Result<(), RequestError> {
        self.by_head().map(drop)
    }

    /// Where the call came from; `None` if that is not known.
    pub(crate) const fn remote(&self) -> Option<&Remote> {
        self.entry.remote()
    }

    /// Waits until the certificate of the client counts no more. Who has none is not refused.
    pub(crate) async fn refused(&self) -> RequestError {
        match &self.entry.certificate {
            Some(certificate) => certificate.refused().await,
            None => std::future::pending().await,
        }
        self.askers.unknown(REVOKED)
    }

    fn by_head(&self) -> Result<ByHead, RequestError> {
        let Self { askers, entry, shown, .. } = self;
        if entry.is_revoked() {
            return Err(askers.unknown(REVOKED));
        }
        if entry.certificate.is_some() && shown.is_some() {
            return Err(askers.unknown("a client certificate and an authorization: two proofs"));
        }
        match &askers.0.rule {
            Rule::Open => Ok(ByHead::Everybody),
            Rule::Proved if is_proved(entry) => Ok(ByHead::Everybody),
            Rule::Proved => Err(askers.unknown(NOT_NAMED)),
            Rule::Named(named) => match (named.load().seen(entry), shown) {
                (Seen::Everybody, _) => Ok(ByHead::Everybody),
                (Seen::Caller(caller), _) => Ok(ByHead::Caller(Arc::clone(caller))),
                (Seen::Unsaid, Some(Ok(_))) => Ok(ByHead::Shown),
                (Seen::Several, _) => {
                    Err(askers.unknown("a certificate with the DNS names of several callers"))
                }
                (Seen::Nobody, _) => Err(askers.unknown("a certificate of no caller")),
                (Seen::Unsaid, Some(Err(_))) => Err(askers.unknown("a malformed credential")),
                (Seen::Unsaid, None) => {
                    Err(askers.unknown("a call shows neither a certificate nor a token"))
                }
            },
        }
    }

    /// What this asker may do with a method, now. Asked again, what was proved is compared with what is served now.
    ///
    /// # Errors
    ///
    /// [`RequestError::AuthnFailed`]: nobody who may ask. [`RequestError::CallerNotAllowed`]: somebody who may not ask this.
    /// [`RequestError::CredentialsWait`]: too many credentials are looked up. Or the store cannot be read.
    pub(crate) async fn may(&mut self, rpc: Rpc) -> Result<Right, RequestError> {
        let caller = match self.by_head()? {
            ByHead::Everybody => return Ok(Right::Everything),
            ByHead::Caller(caller) => Some(caller),
            ByHead::Shown => self.named().await?,
        };
        let askers = &self.askers;
        let Some(caller) = caller else {
            return Err(askers.unknown("an identity that is no caller"));
        };
        if rpc.asks().is_none_or(|asks| !caller.methods.contains(&asks)) {
            let problem = format!("{} is not among its methods", rpc.name());
            let error = RequestError::CallerNotAllowed { problem };
            return Err(askers.refused(AskerRefusal::Method, error));
        }
        Ok(Right::Of(caller))
    }

    /// The caller whose identity the call proves.
    async fn named(&mut self) -> Result<Option<Arc<Caller>>, RequestError> {
        let proved = self.prove().await;
        let counted = |error| match error {
            RequestError::AuthnFailed => self.askers.refused(AskerRefusal::Unknown, error),
            error => error,
        };
        let kind = proved.map_err(counted)?;
        // It is for what it says, and asking about others is not among it.
        if kind.is_narrowed() {
            return Err(self.askers.unknown("a narrowed token"));
        }
        let Rule::Named(named) = &self.askers.0.rule else { return Ok(None) };
        let CallerKind::Identity { path, .. } = &kind else { return Ok(None) };
        let current = self.askers.0.published.read(Freshness::Any).await?;
        let state = current.snapshot.identity_state(path.as_path());
        if state.is_none_or(|state| !state.registered || state.disabled) {
            return Err(self.askers.unknown("an identity that is not registered, or disabled"));
        }
        let caller = named.load().by_identity.get(path).cloned();
        self.proved = Some(kind);
        Ok(caller)
    }

    async fn prove(&mut self) -> Result<CallerKind, RequestError> {
        let Shared { callers, lookups, .. } = &*self.askers.0;
        if let Some(proved) = self.proved.take() {
            return callers.prove_again(proved).await;
        }
        let Some(Ok(claim)) = &self.shown else { return Err(RequestError::AuthnFailed) };
        if let Some(known) = callers.known(claim) {
            return Ok(known);
        }
        // Anybody can show a token that nobody has seen. One that counted before is judged again after each change.
        let _place = if callers.is_remembered(claim) {
            None
        } else {
            let peer = Peer::of(self.entry.remote.as_ref());
            Some(lookups.take(peer).ok_or(RequestError::CredentialsWait)?)
        };
        callers.prove(claim.clone()).await
    }
}

const REVOKED: &str = "a certificate that is revoked, or that no authority is trusted for any more";
const NOT_NAMED: &str = "another machine asks, and no caller is named: give --callers, --client-ca or --insecure-open-decisions";

#[cfg(test)]
mod tests;
