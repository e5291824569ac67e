//! A fake server: a test scripts its reaction to each batch, and it records the batches.
//!
//! Its answers follow [`is_allowed`], unless the script says otherwise.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use capstan_client::{Client, Options};
use capstan_proto::v1;
use capstan_proto::v1::decision_service_server::{DecisionService, DecisionServiceServer};
use futures_util::{Stream, StreamExt as _, stream};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};

use super::PATIENCE;

/// The reaction to a batch.
pub(crate) enum Act {
    Answer,
    /// Answers by [`is_allowed`], at this revision.
    AnswerAt(u64),
    Reply(v1::BatchCheckResponse),
    Fail(Status),
    /// Never answers, and blocks the stream.
    Never,
    /// Ends the stream with the status OK.
    End,
    /// Answers once the gate is open.
    Gate,
}

/// The call that sent a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallId {
    /// The number of the stream, and of the batch on it; from 0.
    Stream(usize, usize),
    /// The number of a unary BatchCheck.
    Unary(usize),
}

/// A recorded batch.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) call: CallId,
    pub(crate) request: v1::BatchCheckRequest,
}

impl Asked {
    pub(crate) fn len(&self) -> usize {
        self.request.checks.len()
    }

    pub(crate) fn contains(&self, identity: &str) -> bool {
        self.request.checks.iter().any(|check| check.identity == identity)
    }

    pub(crate) fn is_unary(&self) -> bool {
        matches!(self.call, CallId::Unary(_))
    }

    pub(crate) fn at_least(&self) -> Option<u64> {
        match self.request.consistency.as_ref()?.mode.as_ref()? {
            v1::consistency::Mode::AtLeast(revision) => Some(*revision),
            v1::consistency::Mode::FullyConsistent(_) => None,
        }
    }
}

type Script = dyn Fn(&Asked) -> Act + Send + Sync;

/// A handle to the server, which ends with the test's runtime.
#[derive(Clone)]
pub(crate) struct Fake(Arc<Inner>);

struct Inner {
    address: SocketAddr,
    script: Box<Script>,
    asked: Mutex<Vec<Asked>>,
    count: watch::Sender<usize>,
    gate: watch::Sender<bool>,
    streams: AtomicUsize,
    /// Streams that the client has half-closed.
    ends: watch::Sender<usize>,
    unary: AtomicUsize,
}

/// The rule: allows half of all questions.
pub(crate) fn is_allowed(identity: &str, capability: &str, resource: &str) -> bool {
    let mut hasher = DefaultHasher::new();
    (identity, capability, resource).hash(&mut hasher);
    hasher.finish().is_multiple_of(2)
}

/// The answer to a batch by [`is_allowed`].
pub(crate) fn by_rule(request: &v1::BatchCheckRequest, revision: u64) -> v1::BatchCheckResponse {
    let result = |check: &v1::CheckItem| {
        let allowed = is_allowed(&check.identity, &check.capability, &check.resource);
        let reason = if allowed { v1::Reason::Granted } else { v1::Reason::NoBinding };
        v1::CheckResult { allowed, reason: reason.into(), ..Default::default() }
    };
    v1::BatchCheckResponse { results: request.checks.iter().map(result).collect(), revision }
}

impl Fake {
    /// Starts a server and a client.
    pub(crate) async fn start(
        script: impl Fn(&Asked) -> Act + Send + Sync + 'static,
        options: Options,
    ) -> (Self, Client) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self(Arc::new(Inner {
            address: listener.local_addr().unwrap(),
            script: Box::new(script),
            asked: Mutex::default(),
            count: watch::Sender::new(0),
            gate: watch::Sender::new(false),
            streams: AtomicUsize::new(0),
            ends: watch::Sender::new(0),
            unary: AtomicUsize::new(0),
        }));
        let service = DecisionServiceServer::new(fake.clone());
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let serving = Server::builder().add_service(service).serve_with_incoming(incoming);
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(serving);
        let client = fake.client(options);
        (fake, client)
    }

    pub(crate) fn client(&self, options: Options) -> Client {
        Client::connect_with(&format!("http://{}", self.0.address), options).unwrap()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.0.asked.lock().unwrap().clone()
    }

    /// The number of checks of each batch, in order of arrival.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.asked().iter().map(Asked::len).collect()
    }

    pub(crate) fn streams(&self) -> usize {
        self.0.streams.load(Ordering::SeqCst)
    }

    /// Waits for this number of batches.
    pub(crate) async fn wait_for(&self, batches: usize) {
        let mut count = self.0.count.subscribe();
        let came = count.wait_for(|count| *count >= batches);
        tokio::time::timeout(PATIENCE, came).await.expect("batches come").unwrap();
    }

    /// Waits until the client has half-closed this number of streams.
    pub(crate) async fn wait_for_ends(&self, streams: usize) {
        let mut ends = self.0.ends.subscribe();
        let ended = ends.wait_for(|ends| *ends >= streams);
        tokio::time::timeout(PATIENCE, ended).await.expect("streams end").unwrap();
    }

    pub(crate) fn open_gate(&self) {
        self.0.gate.send_replace(true);
    }

    async fn act(
        &self,
        call: CallId,
        request: v1::BatchCheckRequest,
    ) -> Option<Result<v1::BatchCheckResponse, Status>> {
        let asked = Asked { call, request };
        self.0.asked.lock().unwrap().push(asked.clone());
        self.0.count.send_modify(|count| *count += 1);
        match (self.0.script)(&asked) {
            Act::Answer => Some(Ok(by_rule(&asked.request, 1))),
            Act::AnswerAt(revision) => Some(Ok(by_rule(&asked.request, revision))),
            Act::Reply(reply) => Some(Ok(reply)),
            Act::Fail(status) => Some(Err(status)),
            Act::Never => std::future::pending().await,
            Act::End => None,
            Act::Gate => {
                let mut gate = self.0.gate.subscribe();
                gate.wait_for(|open| *open).await.unwrap();
                Some(Ok(by_rule(&asked.request, 1)))
            }
        }
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl DecisionService for Fake {
    type StreamCheckStream =
        Pin<Box<dyn Stream<Item = Result<v1::BatchCheckResponse, Status>> + Send>>;

    async fn stream_check(
        &self,
        request: Request<Streaming<v1::BatchCheckRequest>>,
    ) -> Answer<Self::StreamCheckStream> {
        let number = self.0.streams.fetch_add(1, Ordering::SeqCst);
        let open = Some((self.clone(), request.into_inner(), 0));
        let answers = stream::unfold(open, move |open| async move {
            let (fake, mut requests, at) = open?;
            let Some(request) = requests.next().await else {
                fake.0.ends.send_modify(|ends| *ends += 1);
                return None;
            };
            let answer = match request {
                Ok(request) => fake.act(CallId::Stream(number, at), request).await?,
                Err(status) => Err(status),
            };
            let open = answer.is_ok().then_some((fake, requests, at + 1));
            Some((answer, open))
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn batch_check(
        &self,
        request: Request<v1::BatchCheckRequest>,
    ) -> Answer<v1::BatchCheckResponse> {
        let number = self.0.unary.fetch_add(1, Ordering::SeqCst);
        let answer = self.act(CallId::Unary(number), request.into_inner()).await;
        answer.unwrap_or_else(|| Err(Status::unavailable("ended"))).map(Response::new)
    }

    async fn check(&self, _: Request<v1::CheckRequest>) -> Answer<v1::CheckResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_capabilities(
        &self,
        _: Request<v1::ListCapabilitiesRequest>,
    ) -> Answer<v1::ListCapabilitiesResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_identities(
        &self,
        _: Request<v1::ListIdentitiesRequest>,
    ) -> Answer<v1::ListIdentitiesResponse> {
        Err(Status::unimplemented(""))
    }

    async fn list_scopes(
        &self,
        _: Request<v1::ListScopesRequest>,
    ) -> Answer<v1::ListScopesResponse> {
        Err(Status::unimplemented(""))
    }

    async fn explain(&self, _: Request<v1::ExplainRequest>) -> Answer<v1::ExplainResponse> {
        Err(Status::unimplemented(""))
    }
}
