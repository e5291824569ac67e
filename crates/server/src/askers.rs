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
//! call or batch on, also on a connection or stream that is open.

mod document;

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use capstan_engine::{Path, PathBuf};
use capstan_policy::{Asks, Caller, Proves};
use tonic::codegen::http::Extensions;
use tonic::codegen::http::header::{AUTHORIZATION, HeaderMap};

use crate::RequestError;
use crate::authn::caller::{CallerKind, Claim, by_authorization};
use crate::callers::{Callers, logged};
use crate::feed::{Freshness, Published};
use crate::methods::Rpc;
use crate::telemetry::metrics::{AskerRefusal, Metrics};
use crate::transport::connection::Remote;
use crate::transport::tls::ClientCertificate;

pub(crate) use document::AskersFile;
pub use document::load;

/// Knows who may ask. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Askers(Arc<Shared>);

#[derive(Clone, Debug)]
struct Shared {
    rule: Rule,
    callers: Callers,
    published: Arc<Published>,
    metrics: Arc<Metrics>,
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
#[derive(Debug, Default)]
pub(crate) struct Named {
    names_this_machine: bool,
    by_spiffe_id: HashMap<Box<str>, Arc<Caller>>,
    by_identity: HashMap<PathBuf, Arc<Caller>>,
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
    pub(crate) const fn new(
        remote: Option<Remote>,
        certificate: Option<ClientCertificate>,
    ) -> Self {
        Self { remote, certificate }
    }

    fn is_of_this_machine(&self) -> bool {
        self.remote.is_some_and(Remote::is_of_this_machine)
    }

    fn is_operator(&self) -> bool {
        matches!(self.remote, Some(Remote::Operator(_)))
    }
}

/// Who asks, by the connection alone.
enum Seen<'n> {
    Everybody,
    Caller(&'n Arc<Caller>),
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
        let caller = certificate.spiffe_id().and_then(|id| self.by_spiffe_id.get(id));
        caller.map_or(Seen::Nobody, Seen::Caller)
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
}

impl Askers {
    pub(crate) fn new(
        rule: Rule,
        callers: Callers,
        published: Arc<Published>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self(Arc::new(Shared { rule, callers, published, metrics }))
    }

    /// The same for the calls of one worker, so that cores share no count of references.
    pub(crate) fn of_worker(&self) -> Self {
        Self(Arc::new(Shared::clone(&self.0)))
    }

    /// Answers a plain check with the subtree that its question is held to; `None`, and nothing is called, if the connection alone
    /// does not say that it may be asked.
    pub(crate) fn plain<R>(
        &self,
        entry: &Entry,
        answer: impl FnOnce(Option<Path<'_>>) -> Option<R>,
    ) -> Option<R> {
        match &self.0.rule {
            Rule::Open => answer(None),
            Rule::Proved if is_proved(entry) => answer(None),
            Rule::Proved => None,
            Rule::Named(named) => {
                let named = named.load();
                match named.seen(entry) {
                    Seen::Everybody => answer(None),
                    Seen::Caller(caller) if caller.methods.contains(&Asks::Check) => {
                        answer(caller.subtree.as_ref().map(PathBuf::as_path))
                    }
                    _ => None,
                }
            }
        }
    }

    /// Whether plain checks of a connection may be answered by [`Self::plain`]: what proves a caller is not in the call.
    pub(crate) fn may_be_plain(&self, headers: &HeaderMap) -> bool {
        match self.0.rule {
            Rule::Open | Rule::Proved => true,
            Rule::Named(_) => !headers.contains_key(AUTHORIZATION),
        }
    }

    /// Who asks in a call. The extensions are those of the transport.
    pub(crate) fn asker(&self, extensions: &Extensions, headers: &HeaderMap) -> Asker {
        let (remote, certificate) = (extensions.get::<Remote>(), extensions.get());
        let entry = Entry::new(remote.copied(), certificate.cloned());
        let shown = headers.contains_key(AUTHORIZATION).then(|| by_authorization(headers));
        Asker { askers: self.clone(), entry, shown, proved: None }
    }

    fn refused(&self, by: AskerRefusal, error: RequestError) -> RequestError {
        self.0.metrics.asker_refused(by);
        error
    }

    /// Whoever has proved nothing. The log says what would help, once a second at most.
    fn unknown(&self, reason: &str) -> RequestError {
        self.refused(AskerRefusal::Unknown, logged("somebody who may not ask", reason))
    }
}

/// Of whom is no document.
fn is_proved(entry: &Entry) -> bool {
    entry.is_of_this_machine() || entry.certificate.is_some()
}

/// Who asks in a call.
#[derive(Debug)]
pub(crate) struct Asker {
    askers: Askers,
    entry: Entry,
    /// What the call shows in its `Authorization`.
    shown: Option<Result<Claim, RequestError>>,
    /// Whom that has proved.
    proved: Option<CallerKind>,
}

impl Asker {
    /// What this asker may do with a method, now. Asked again, what was proved is compared with what is served now.
    ///
    /// # Errors
    ///
    /// [`RequestError::AuthnFailed`]: nobody who may ask. [`RequestError::CallerNotAllowed`]: somebody who may not ask this. Or the store cannot be
    /// read.
    pub(crate) async fn may(&mut self, rpc: Rpc) -> Result<Right, RequestError> {
        let askers = self.askers.clone();
        let named = match &askers.0.rule {
            Rule::Open => return Ok(Right::Everything),
            Rule::Proved if is_proved(&self.entry) => return Ok(Right::Everything),
            Rule::Proved => return Err(askers.unknown(NOT_NAMED)),
            Rule::Named(named) => named,
        };
        let by_connection = match named.load().seen(&self.entry) {
            Seen::Everybody => return Ok(Right::Everything),
            Seen::Caller(_) if self.shown.is_some() => {
                return Err(askers.unknown("a client certificate and an authorization"));
            }
            Seen::Caller(caller) => Some(Some(Arc::clone(caller))),
            Seen::Nobody => Some(None),
            Seen::Unsaid => None,
        };
        let caller = match by_connection {
            Some(caller) => caller,
            None => {
                let identity = self.identity().await?;
                named.load().by_identity.get(&identity).cloned()
            }
        };
        let Some(caller) = caller else {
            return Err(askers.unknown("it is no caller of --callers"));
        };
        if rpc.asks().is_none_or(|asks| !caller.methods.contains(&asks)) {
            let problem = format!("{} is not among its methods", rpc.name());
            let error = RequestError::CallerNotAllowed { problem };
            return Err(askers.refused(AskerRefusal::Method, error));
        }
        Ok(Right::Of(caller))
    }

    /// The identity that the call proves, if it is registered and enabled.
    async fn identity(&mut self) -> Result<PathBuf, RequestError> {
        let Shared { callers, published, .. } = &*self.askers.0;
        let kind = match (self.proved.take(), &self.shown) {
            (Some(proved), _) => callers.prove_again(proved).await?,
            (None, Some(Ok(claim))) => callers.prove(claim.clone()).await?,
            (None, Some(Err(error))) => return Err(error.clone()),
            (None, None) => {
                return Err(self.askers.unknown("a call shows neither a certificate nor a token"));
            }
        };
        let CallerKind::Identity { path, .. } = &kind else {
            return Err(self.askers.unknown("a credential of no identity"));
        };
        let path = path.clone();
        let current = published.read(Freshness::Any).await?;
        let state = current.snapshot.identity_state(path.as_path());
        if state.is_none_or(|state| !state.registered || state.disabled) {
            return Err(self.askers.unknown("an identity that is not registered, or disabled"));
        }
        self.proved = Some(kind);
        Ok(path)
    }
}

const NOT_NAMED: &str = "another machine asks, and no caller is named: give --callers, --client-ca or --insecure-open-decisions";

#[cfg(test)]
mod tests;
