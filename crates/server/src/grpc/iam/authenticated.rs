//! The layer in front of the management services: it finds out who calls, once, has what proves it compared with the store, and
//! puts a [`Caller`](crate::authn::caller::Caller) into the request's extensions. Beside it is the digest of a write's request,
//! for the audit log.

use std::convert::Infallible;
use std::future::ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use capstan_iam::audit::Digest;
use capstan_proto::frame;
use futures_util::future::{BoxFuture, Either};
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tower::Service;

use crate::RequestError;
use crate::askers::{Askers, Right};
use crate::authn::caller::{Authentication, Caller, CallerKind, Claim};
use crate::callers::Callers;
use crate::methods::Rpc;
use crate::transport::connection::Remote;
use crate::transport::tls::ClientCertificate;

/// SHA-256 of the bytes of a request's message, as they arrive: all of them once the message is decoded.
#[derive(Clone, Debug)]
pub(crate) struct RequestDigest(Arc<Mutex<Hashed>>);

#[derive(Clone, Debug)]
struct Hashed {
    /// Bytes left of the header of the frame.
    header: usize,
    hash: Sha256,
}

impl RequestDigest {
    fn new() -> Self {
        let hashed = Hashed { header: frame::HEADER_BYTES, hash: Sha256::new() };
        Self(Arc::new(Mutex::new(hashed)))
    }

    /// Computes it while the body is read, and puts it into the extensions.
    fn compute(mut request: Request<Body>) -> Request<Body> {
        let digest = Self::new();
        request.extensions_mut().insert(digest.clone());
        request.map(|body| {
            Body::new(body.map_frame(move |frame| {
                if let Some(bytes) = frame.data_ref() {
                    digest.add(bytes);
                }
                frame
            }))
        })
    }

    fn add(&self, bytes: &[u8]) {
        let mut hashed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_header = hashed.header.min(bytes.len());
        hashed.header -= of_header;
        hashed.hash.update(bytes.get(of_header..).unwrap_or_default());
    }

    /// The digest of what has arrived.
    pub(crate) fn get(&self) -> Digest {
        let hashed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hashed.hash.clone().finalize().into()
    }
}

/// A service whose calls have a caller.
#[derive(Clone, Debug)]
pub(crate) struct Authenticated<S> {
    inner: S,
    authentication: Authentication,
    callers: Callers,
    readers: Readers,
}

/// Who may read without being known.
#[derive(Clone, Debug)]
pub(crate) enum Readers {
    /// Nobody.
    Known,
    /// Whoever is known, and callers of decisions that may read the policy.
    Open(Askers),
    /// The latter only: a policy file has no identities that call.
    OfFile(Askers),
}

impl Readers {
    /// What says whether such a caller may read; `None` if its identity does.
    const fn of(&self, kind: &CallerKind) -> Option<&Askers> {
        match (self, kind) {
            (_, CallerKind::Operator) | (Self::Known, _) => None,
            (Self::Open(_), CallerKind::Identity { .. }) => None,
            (Self::Open(askers) | Self::OfFile(askers), _) => Some(askers),
        }
    }
}

impl<S> Authenticated<S> {
    pub(crate) fn new(
        inner: S,
        authentication: Authentication,
        (callers, readers): (Callers, Readers),
    ) -> Self {
        Self { inner, authentication, callers, readers }
    }
}

impl<S: NamedService> NamedService for Authenticated<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Authenticated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let extensions = request.extensions();
        let remote = extensions.get::<Remote>();
        let source = remote.map(Remote::to_string).unwrap_or_default();
        let connection = (remote, extensions.get::<ClientCertificate>());
        let claim = self.authentication.caller(connection, request.uri(), request.headers());
        let refused = |error| Ok(Status::from(error).into_http());
        let claim = match claim {
            Ok(claim) => claim,
            Err(error) => return Either::Right(Box::pin(ready(refused(error)))),
        };
        let asker = match &self.readers {
            Readers::Known => None,
            Readers::Open(askers) | Readers::OfFile(askers) => {
                Some(askers.asker(request.extensions(), request.headers()))
            }
        };
        // Nothing behind this looks at a credential, so nothing there can tell it.
        request.headers_mut().remove(AUTHORIZATION);
        let rpc = Rpc::from_path(request.uri().path());
        if rpc.writes() && !rpc.streams() {
            request = RequestDigest::compute(request);
        }
        if let Claim::Settled(kind) = &claim
            && self.readers.of(kind).is_none()
        {
            let kind = kind.clone();
            request.extensions_mut().insert(Caller { kind, source });
            return Either::Left(self.inner.call(request));
        }
        let (mut inner, callers) = (self.inner.clone(), self.callers.clone());
        let readers = self.readers.clone();
        Either::Right(Box::pin(async move {
            match callers.resolve(claim).await {
                Ok(kind) => {
                    if let (Some(_), Some(mut asker)) = (readers.of(&kind), asker) {
                        match asker.may(rpc).await {
                            // It would go on when the caller is one no more.
                            Ok(Right::Of(_)) if rpc.streams() => {
                                let problem =
                                    format!("{} is for identities of a store", rpc.name());
                                return refused(RequestError::CallerNotAllowed { problem });
                            }
                            Ok(_) => {}
                            Err(error) => return refused(error),
                        }
                    }
                    request.extensions_mut().insert(Caller { kind, source });
                    inner.call(request).await
                }
                Err(error) => refused(error),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_message_in_whatever_parts_it_arrives() {
        let message = b"as the client sent it";
        let body = [&[0; frame::HEADER_BYTES][..], message].concat();
        for length in 1..=body.len() {
            let digest = RequestDigest::new();
            body.chunks(length).for_each(|part| digest.add(part));
            assert_eq!(digest.get(), <Digest>::from(Sha256::digest(message)), "{length}");
        }
    }
}
