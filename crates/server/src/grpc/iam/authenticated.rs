//! The layer in front of the management services: it finds out who calls, once, and puts a
//! [`Caller`](crate::authn::caller::Caller) into the request's extensions.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};

use futures_util::future::Either;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::server::NamedService;
use tower::Service;

use crate::authn::caller::Authentication;
use crate::transport::connection::Remote;

/// A service whose calls have a caller.
#[derive(Clone, Debug)]
pub(crate) struct Authenticated<S> {
    inner: S,
    authentication: Authentication,
}

impl<S> Authenticated<S> {
    pub(crate) const fn new(inner: S, authentication: Authentication) -> Self {
        Self { inner, authentication }
    }
}

impl<S: NamedService> NamedService for Authenticated<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Authenticated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let remote = request.extensions().get::<Remote>();
        match self.authentication.caller(remote, request.uri(), request.headers()) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Left(self.inner.call(request))
            }
            Err(error) => Either::Right(ready(Ok(Status::from(error).into_http()))),
        }
    }
}
