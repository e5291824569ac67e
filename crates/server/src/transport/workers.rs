//! Who serves the connections: one single-threaded runtime a core, or the caller's runtime.
//!
//! ```text
//! listeners ─▶ acceptors (the caller's runtime) ─▶ the worker with the fewest connections
//! ```
//!
//! A connection stays with its worker, so that a call never moves between cores: three quarters of the
//! processor time of tonic's default, where tasks do (`docs/PERFORMANCE.md`). One acceptor deals connections
//! out instead of a listener a core (`SO_REUSEPORT`), whose hash puts two connections on one core as
//! often as not.
//!
//! **Invariant**: every accepted connection is permit until it is closed, and there are never more
//! than [`CONNECTIONS_MAX`](crate::limits::CONNECTIONS_MAX), nor of one peer than
//! [`PEER_CONNECTIONS_MAX`](crate::limits::PEER_CONNECTIONS_MAX).

use std::pin::Pin;
use std::sync::Arc;
use std::{io, thread};

use crate::limits::{ACCEPT_PAUSE, ACCEPTED_MAX, Limits};
use crate::telemetry::metrics::{Metrics, ShedScope};
use crate::transport::connection::{Connection, ConnectionCount, ConnectionPermit};
use crate::transport::listen::{Accepted, Listener};
use crate::transport::peers::{Peer, Peers};
use anyhow::Context as _;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Duration, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Where calls are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// In so many threads, each with a runtime and connections of its own; at least one.
    PerCore(usize),
    /// In the runtime that the server is run in.
    Callers,
}

impl Runtime {
    /// One thread for each core that this process may use.
    #[must_use]
    pub fn per_core() -> Self {
        Self::PerCore(thread::available_parallelism().map_or(1, usize::from))
    }
}

type PermittedConnection = (Accepted, ConnectionPermit);

/// The connections of one worker, as they come.
pub(crate) type Incoming = BoxStream<'static, io::Result<Connection>>;

/// What serves the connections of one worker, until they and the stream of them are over.
pub(crate) type ServeFuture =
    Pin<Box<dyn Future<Output = Result<(), tonic::transport::Error>> + Send>>;

/// The workers. Dropped, they stop at once.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Arc<[Worker]>,
    limits: ConnectionLimits,
    kill: CancellationToken,
}

/// How many connections there may be.
#[derive(Clone, Debug)]
struct ConnectionLimits {
    /// A permit for each that there may be.
    permits: Arc<Semaphore>,
    each_peer: usize,
    /// Those that there are.
    peers: Arc<Peers>,
}

impl ConnectionLimits {
    /// Nothing if there is no permit for it, or its peer has as many as it may.
    fn try_acquire(
        &self,
        worker: &ConnectionCount,
        accepted: &Accepted,
    ) -> Option<ConnectionPermit> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        let peer = Peer::of(Some(&accepted.remote()));
        self.peers
            .try_acquire(peer, self.each_peer)
            .then(|| worker.track(permit, &self.peers, peer))
    }
}

#[derive(Debug)]
struct Worker {
    connections: ConnectionCount,
    sender: mpsc::Sender<PermittedConnection>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

impl Workers {
    /// Starts them, each with services of its own; `stop` makes them finish what they have, which `tasks` waits for.
    pub(crate) fn start(
        runtime: Runtime,
        services: impl Fn(Incoming, CancellationToken) -> anyhow::Result<ServeFuture>,
        limits: &Limits,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> anyhow::Result<Self> {
        let kill = CancellationToken::new();
        let count = match runtime {
            Runtime::PerCore(threads) => threads.max(1),
            Runtime::Callers => 1,
        };
        let mut workers = Vec::with_capacity(count);
        for at in 0..count {
            let (sender, accepted) = mpsc::channel(ACCEPTED_MAX);
            let serving = services(incoming(accepted, limits.greeting_max), stop.clone())?;
            let serving = serve(serving, kill.clone());
            if runtime == Runtime::Callers {
                tasks.spawn(serving);
            } else {
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .context("cannot start a runtime")?;
                let token = tasks.token();
                thread::Builder::new()
                    .name(format!("capstan-worker-{at}"))
                    .spawn(move || {
                        runtime.block_on(serving);
                        drop(token);
                    })
                    .context("cannot start a thread")?;
            }
            workers.push(Worker { connections: ConnectionCount::default(), sender });
        }
        let limits = ConnectionLimits {
            permits: Arc::new(Semaphore::new(limits.connections_max.min(Semaphore::MAX_PERMITS))),
            each_peer: limits.peer_connections_max,
            peers: Arc::default(),
        };
        Ok(Self { workers: workers.into(), limits, kill })
    }

    /// Takes the connections of a listener until `stop`; if that is not possible any more, it stops
    /// everything.
    pub(crate) fn accept(
        &self,
        listener: Listener,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (workers, limits) = (Arc::clone(&self.workers), self.limits.clone());
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = dispatch(&workers, &listener, &limits, &metrics) => {
                    tracing::error!("a worker has ended: nobody serves its connections");
                    stop.cancel();
                }
            }
        }
    }
}

/// Gives each connection to the worker that has the fewest, as long as there are all.
async fn dispatch(
    workers: &[Worker],
    listener: &Listener,
    limits: &ConnectionLimits,
    metrics: &Metrics,
) {
    loop {
        let accepted = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_peer_error(&error) => continue,
            Err(error) => {
                // No file descriptor is left, most likely: one may be soon.
                tracing::warn!(%error, address = %listener.address(), "cannot take a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(worker) = workers.iter().min_by_key(|worker| worker.connections.get()) else {
            return;
        };
        let Some(permit) = limits.try_acquire(&worker.connections, &accepted) else {
            metrics.shed(ShedScope::Connections);
            continue; // Closes it.
        };
        if worker.sender.send((accepted, permit)).await.is_err() {
            return; // The worker has stopped: so do we.
        }
    }
}

/// Whether accepting failed because of the connection, and not of us.
fn is_peer_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Registers each connection that is accepted with the worker's runtime.
fn incoming(accepted: mpsc::Receiver<PermittedConnection>, greeting_max: Duration) -> Incoming {
    let incoming = stream::unfold(accepted, move |mut accepted| async move {
        let connection = Connection::new(accepted.recv().await?, greeting_max);
        Some((connection, accepted))
    });
    incoming.boxed()
}

/// Serves until all is over, and nothing more after `kill`.
async fn serve(serving: ServeFuture, kill: CancellationToken) {
    tokio::select! {
        served = serving => if let Err(error) = served {
            tracing::error!(%error, "connections can no longer be served");
        },
        () = kill.cancelled_owned() => {}
    }
}
