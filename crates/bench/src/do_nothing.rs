//! The yardstick: the same gRPC services on the same transport, with handlers that decode the request and
//! allow everything. It has no middleware, limits, metrics or policy; the difference to a server's cost
//! is the cost of Capstan itself.

use std::pin::Pin;
use std::thread;

use anyhow::Context as _;
use capstan_proto::v1::decision_service_server::{DecisionService, DecisionServiceServer};
use capstan_proto::v1::{self, BatchCheckRequest, BatchCheckResponse};
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{
    Authorization, AuthorizationServer,
};
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use futures_util::{Stream, StreamExt as _};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::runtime::Builder;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::{Server, server::TcpIncoming};
use tonic::{Request, Response, Status, Streaming};

use capstan_server::server::Address;

/// The length of the listen backlog, in connections.
const BACKLOG: u32 = 1024;

/// The threads that serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Runtime {
    /// tonic's default: a multi-thread runtime
    MultiThread,
    /// One thread
    CurrentThread,
    /// One thread per core, each with its own listener on the same port
    PerCore,
}

impl Runtime {
    /// The value of `--runtime`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MultiThread => "multi-thread",
            Self::CurrentThread => "current-thread",
            Self::PerCore => "per-core",
        }
    }
}

/// Serves until the process ends. Calls `ready` once with the bound address; port 0 is replaced by the
/// port that the system assigned.
///
/// # Errors
///
/// The address cannot be bound, `ready` fails, or a listener fails.
pub async fn serve(
    address: &Address,
    runtime: Runtime,
    ready: impl FnOnce(&Address) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let (listener, address) = Listener::bind(address)?;
    let threads = match runtime {
        Runtime::MultiThread => {
            ready(&address)?;
            return listener.serve().await;
        }
        Runtime::CurrentThread => 1,
        Runtime::PerCore => thread::available_parallelism()?.get(),
    };
    let mut listeners = vec![listener];
    while listeners.len() < threads {
        let (listener, _) = match listeners.first() {
            Some(Listener::Unix(shared)) => (Listener::Unix(shared.try_clone()?), ()),
            _ => (Listener::bind(&address)?.0, ()),
        };
        listeners.push(listener);
    }
    let (ended, mut ends) = tokio::sync::mpsc::channel(threads);
    for listener in listeners {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let ended = ended.clone();
        thread::Builder::new().name("do-nothing".into()).spawn(move || {
            let served = runtime.block_on(listener.serve());
            let _ = ended.blocking_send(served);
        })?;
    }
    ready(&address)?;
    ends.recv().await.unwrap_or(Ok(()))
}

/// A bound listener that is not yet registered with a runtime.
enum Listener {
    Tcp(std::net::TcpListener),
    Unix(std::os::unix::net::UnixListener),
}

impl Listener {
    fn bind(address: &Address) -> anyhow::Result<(Self, Address)> {
        let cannot = || format!("cannot listen on {address}");
        match address {
            Address::Tcp(wanted) => {
                let socket =
                    if wanted.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                socket.set_reuseport(true)?;
                socket.bind(*wanted).with_context(cannot)?;
                let listener = socket.listen(BACKLOG).with_context(cannot)?.into_std()?;
                let address = Address::Tcp(listener.local_addr()?);
                Ok((Self::Tcp(listener), address))
            }
            Address::Unix(path) => {
                let listener = UnixListener::bind(path).with_context(cannot)?.into_std()?;
                Ok((Self::Unix(listener), address.clone()))
            }
        }
    }

    async fn serve(self) -> anyhow::Result<()> {
        let server = Server::builder()
            .add_service(DecisionServiceServer::new(DoNothing))
            .add_service(AuthorizationServer::new(DoNothing));
        match self {
            Self::Tcp(listener) => {
                let listener = TcpListener::from_std(listener)?;
                let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
                server.serve_with_incoming(incoming).await?;
            }
            Self::Unix(listener) => {
                let incoming = UnixListenerStream::new(UnixListener::from_std(listener)?);
                server.serve_with_incoming(incoming).await?;
            }
        }
        Ok(())
    }
}

/// A service that allows every check.
#[derive(Clone, Copy, Debug)]
struct DoNothing;

/// The reason of every answer.
const GRANTED: i32 = v1::Reason::Granted as i32;

/// Allows every check of a batch.
fn batch(request: &BatchCheckRequest) -> BatchCheckResponse {
    let allowed = v1::CheckResult { allowed: true, reason: GRANTED, ..Default::default() };
    let results = vec![allowed; request.checks.len()];
    BatchCheckResponse { results, revision: 1 }
}

type Reply<T> = Result<Response<T>, Status>;

fn unimplemented<T>() -> Reply<T> {
    Err(Status::unimplemented("the yardstick answers checks only"))
}

#[tonic::async_trait]
impl DecisionService for DoNothing {
    async fn check(&self, _: Request<v1::CheckRequest>) -> Reply<v1::CheckResponse> {
        let (allowed, reason, revision) = (true, GRANTED, 1);
        Ok(Response::new(v1::CheckResponse { allowed, reason, revision, valid_until: None }))
    }

    async fn batch_check(&self, request: Request<BatchCheckRequest>) -> Reply<BatchCheckResponse> {
        Ok(Response::new(batch(request.get_ref())))
    }

    type StreamCheckStream = Pin<Box<dyn Stream<Item = Result<BatchCheckResponse, Status>> + Send>>;

    async fn stream_check(
        &self,
        request: Request<Streaming<BatchCheckRequest>>,
    ) -> Reply<Self::StreamCheckStream> {
        let answers = request.into_inner().map(|request| request.map(|it| batch(&it)));
        Ok(Response::new(Box::pin(answers)))
    }

    async fn list_capabilities(
        &self,
        _: Request<v1::ListCapabilitiesRequest>,
    ) -> Reply<v1::ListCapabilitiesResponse> {
        unimplemented()
    }

    async fn list_identities(
        &self,
        _: Request<v1::ListIdentitiesRequest>,
    ) -> Reply<v1::ListIdentitiesResponse> {
        unimplemented()
    }

    async fn list_scopes(
        &self,
        _: Request<v1::ListScopesRequest>,
    ) -> Reply<v1::ListScopesResponse> {
        unimplemented()
    }

    async fn explain(&self, _: Request<v1::ExplainRequest>) -> Reply<v1::ExplainResponse> {
        unimplemented()
    }
}

/// Allows every request of Envoy (ext_authz).
#[tonic::async_trait]
impl Authorization for DoNothing {
    async fn check(&self, _: Request<CheckRequest>) -> Reply<CheckResponse> {
        Ok(Response::new(CheckResponse::default()))
    }
}
