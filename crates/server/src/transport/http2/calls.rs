//! What the transport asks of the services behind it.

use std::sync::Arc;
use std::time::Duration;

use capstan_http2::Head;
use http_body::Body as HttpBody;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::request::Parts;
use tonic::codegen::http::{Extensions, HeaderMap, Request, Response};

use crate::transport::connection::Remote;
use crate::transport::listen::Serves;
use crate::transport::tls::ClientCertificate;

/// What answers the calls of connections.
pub(crate) trait Calls: Clone + Send + 'static {
    /// The body of a response.
    type Body: HttpBody<Data = Bytes, Error = Status> + Send + 'static;
    /// A call.
    type Future: Future<Output = Response<Self::Body>> + Send + 'static;

    /// Keeps to the calls that a listener serves.
    fn only(&mut self, serves: Serves);

    /// Begins with the calls of one connection: where they come from, and what its client has proved.
    fn connected(&mut self, remote: Remote, certificate: Option<&ClientCertificate>);

    /// What is done with a call, by its head. The same head gets the same.
    fn intake(&self, head: &Parts) -> Intake;

    /// Draws whether this plain call is traced, and must go to [`Calls::call`] for that. Adds what was drawn.
    fn is_sampled(&self, head: &Parts, extensions: &mut Extensions) -> bool;

    /// Appends the framed message of an OK response to a plain call with this head and body. False, and nothing
    /// counts of what was appended, if the call must go to [`Calls::call`].
    fn answer(&self, head: &Arc<Head>, body: &[u8], to: &mut Vec<u8>) -> bool;

    /// Counts plain calls that were answered in this time each.
    fn answered(&self, calls: u64, took: Duration);

    /// The fields that are the whole answer to a unary call for which there is no room; the call is counted. `None` if it must go to
    /// [`Calls::call`]. Adds to its extensions what was drawn.
    fn shed(&self, head: &Arc<Head>, extensions: &mut Extensions) -> Option<&HeaderMap>;

    /// Starts any other call. The request has a [`Remote`] among its extensions, and the [`ClientCertificate`] if the client has
    /// proved one.
    fn call(&mut self, request: Request<Body>) -> Self::Future;
}

/// What is done with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Intake {
    pub(crate) kind: Kind,
    /// Bytes of one message of its request.
    pub(crate) message_bytes_max: usize,
    /// Whether a long message takes so long to decode that others must be served in between.
    pub(crate) decodes_in_turn: bool,
    /// Whether messages of its request may be compressed with gzip. The call gets them decompressed, and a head that
    /// does not name gzip.
    pub(crate) inflates: bool,
    /// Whether long messages of its answer are compressed with gzip.
    pub(crate) deflates: bool,
}

/// When a call starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its body is read, and [`Calls::answer`] may answer it.
    Plain,
    /// Its body is read, and it starts with the whole body.
    Unary,
    /// It starts at once: its body is a stream of messages.
    Stream,
}
