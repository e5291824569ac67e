//! Workers: one single-threaded runtime for each core, or one in the caller's runtime.
//!
//! ```text
//! listeners ─▶ acceptors (the caller's runtime) ─▶ the worker with the fewest connections
//! ```
//!
//! A connection stays with its worker, so a call never moves between cores. A
//! call takes 0.7 of the processor time of one runtime for all cores, where tasks move
//! (`docs/PERFORMANCE.md`, Runtime). An
//! acceptor dispatches connections, instead of one listener for each core (`SO_REUSEPORT`), whose
//! hash often puts two connections on the same core.
//!
//! **Invariant**: every accepted connection holds a permit until it closes. There are never more
//! than [`CONNECTIONS_MAX`](crate::limits::CONNECTIONS_MAX) connections, and never more than
//! [`PEER_CONNECTIONS_MAX`](crate::limits::PEER_CONNECTIONS_MAX) of one peer.

use std::sync::Arc;
use std::{io, thread};

use crate::limits::{ACCEPT_PAUSE, ACCEPTED_MAX, GIVE_BACK_WAIT, Limits, POLLS_MAX};
use crate::telemetry::metrics::{Metrics, ShedScope};
use crate::transport::budget::Budget;
use crate::transport::connection::{Connection, ConnectionCount, ConnectionPermit};
use crate::transport::http2::{self, Calls};
use crate::transport::listen::{Accepted, Listener, Serves};
use crate::transport::peers::{Peer, Peers};
use crate::transport::seats::Seats;
use crate::transport::tls::Tls;
use anyhow::Context as _;
use tokio::runtime::Builder;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Duration, Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The threads that answer calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// This number of threads, at least one. Each has its own runtime and its own connections.
    PerCore(usize),
    /// The runtime that runs the server.
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
/// The same, and what its listener serves.
type Arrived = (PermittedConnection, Serves);

/// The workers of one server. Dropped, they stop at once.
#[derive(Debug)]
pub(crate) struct Workers {
    workers: Arc<[Worker]>,
    limits: ConnectionLimits,
    kill: CancellationToken,
}

/// The limits of open connections, in the whole server and of one peer.
#[derive(Clone, Debug)]
struct ConnectionLimits {
    /// One permit for each connection that may be open.
    permits: Arc<Semaphore>,
    each_peer: usize,
    /// Open connections by peer.
    peers: Arc<Peers>,
    seats: Arc<Seats>,
}

impl ConnectionLimits {
    /// A permit for a connection. If the server or the peer has reached its limit, the connection that
    /// has been idle longest yields; `None` if none is idle.
    async fn acquire(
        &self,
        worker: &ConnectionCount,
        accepted: &Accepted,
    ) -> Option<ConnectionPermit> {
        let peer = Peer::of(Some(&accepted.remote()));
        match self.try_acquire(worker, peer) {
            Ok(permit) => Some(permit),
            Err(of) if self.seats.make_room(of).await => self.try_acquire(worker, peer).ok(),
            Err(_) => None,
        }
    }

    /// # Errors
    ///
    /// The limit of the peer, or with `None` that of the server, is reached.
    fn try_acquire(
        &self,
        worker: &ConnectionCount,
        peer: Peer,
    ) -> Result<ConnectionPermit, Option<Peer>> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| None)?;
        if !self.peers.try_acquire(peer, self.each_peer) {
            return Err(Some(peer));
        }
        Ok(worker.track(permit, (&self.peers, peer), &self.seats))
    }
}

#[derive(Debug)]
struct Worker {
    connections: ConnectionCount,
    sender: mpsc::Sender<Arrived>,
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

impl Workers {
    /// Starts the workers, each with its own services. After `stop` they drain, and `tasks` waits
    /// for that.
    ///
    /// # Errors
    ///
    /// Services cannot be built, or a runtime or thread cannot start.
    pub(crate) fn start<C: Calls>(
        runtime: Runtime,
        calls: impl Fn() -> anyhow::Result<C>,
        (limits, metrics, give_back): (&Limits, &Arc<Metrics>, fn()),
        tls: Option<&Tls>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> anyhow::Result<Self> {
        let kill = CancellationToken::new();
        let budget = Budget::new(limits, metrics);
        let count = match runtime {
            Runtime::PerCore(threads) => threads.max(1),
            Runtime::Callers => 1,
        };
        let mut workers = Vec::with_capacity(count);
        for at in 0..count {
            let (sender, accepted) = mpsc::channel(ACCEPTED_MAX);
            let held = (*limits, Arc::clone(&budget));
            let until = (stop.clone(), kill.clone());
            let handshakes = Handshakes { tls: tls.cloned(), metrics: Arc::clone(metrics) };
            let serving = serve(accepted, calls()?, held, handshakes, give_back, until);
            if runtime == Runtime::Callers {
                tasks.spawn(serving);
            } else {
                let runtime = Builder::new_current_thread()
                    .enable_all()
                    .event_interval(POLLS_MAX)
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
            seats: Seats::new(limits.yield_idle_min),
        };
        Ok(Self { workers: workers.into(), limits, kill })
    }

    /// Accepts the connections of a listener until `stop`. If a worker has ended, it cancels
    /// `stop`, which drains the whole server.
    pub(crate) fn accept(
        &self,
        (listener, serves): (Listener, Serves),
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (workers, limits) = (Arc::clone(&self.workers), self.limits.clone());
        async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = dispatch(&workers, (&listener, serves), &limits, &metrics) => {
                    tracing::error!("a worker has ended: nobody serves its connections");
                    stop.cancel();
                }
            }
        }
    }
}

/// Dispatches each connection to the worker with the fewest. Returns when a worker has ended.
async fn dispatch(
    workers: &[Worker],
    (listener, serves): (&Listener, Serves),
    limits: &ConnectionLimits,
    metrics: &Metrics,
) {
    loop {
        let accepted = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_peer_error(&error) => continue,
            Err(error) => {
                // The likely cause: no file descriptor is left. One may be freed soon.
                tracing::warn!(%error, address = %listener.address(), "cannot take a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(worker) = workers.iter().min_by_key(|worker| worker.connections.get()) else {
            return;
        };
        let Some(permit) = limits.acquire(&worker.connections, &accepted).await else {
            metrics.shed(ShedScope::Connections);
            continue; // Dropping the connection closes it.
        };
        if worker.sender.send(((accepted, permit), serves)).await.is_err() {
            return; // The worker has ended.
        }
    }
}

/// Whether an accept failed because of the connection, and not because of this process.
fn is_peer_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// How connections are opened.
#[derive(Clone, Debug)]
struct Handshakes {
    tls: Option<Tls>,
    metrics: Arc<Metrics>,
}

impl Handshakes {
    /// `None` if there is no handshake, or the runtime has no room for the socket, which is closed then.
    async fn open(
        &self,
        accepted: PermittedConnection,
        greeting_max: Duration,
    ) -> Option<Connection> {
        let is_tls = self.tls.is_some() && matches!(accepted.0, Accepted::Tcp(..));
        let yielded = accepted.1.yielded();
        let opened = tokio::select! {
            opened = Connection::open(accepted, self.tls.as_ref(), greeting_max) => opened,
            // A handshake is idle, too, when another connection needs its place.
            () = yielded => Err(io::ErrorKind::ConnectionAborted.into()),
        };
        if is_tls {
            self.metrics.handshake(opened.is_ok());
        }
        opened.ok()
    }
}

/// Serves the connections of one worker until `stop`, and then until all have ended, or until `kill`.
async fn serve<C: Calls>(
    mut accepted: mpsc::Receiver<Arrived>,
    calls: C,
    (limits, budget): (Limits, Arc<Budget>),
    handshakes: Handshakes,
    give_back: fn(),
    (stop, kill): (CancellationToken, CancellationToken),
) {
    // A connection looks at its own channel at every wake; the token is shared by all workers.
    let (stopping, is_stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    let (tasks, turns) = (TaskTracker::new(), http2::Turns::default());
    let shared = http2::Shared { limits, budget, stop: is_stopping, tasks, turns };
    // When memory is given back that connections have freed which ended.
    let mut gives_back_at = None;
    loop {
        let wait = async {
            match gives_back_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let (accepted, serves) = tokio::select! {
            next = accepted.recv() => match next {
                Some(next) => next,
                None => break,
            },
            Some(ended) = connections.join_next() => {
                log_panic(ended);
                gives_back_at.get_or_insert_with(|| Instant::now() + GIVE_BACK_WAIT);
                continue;
            }
            () = wait => {
                gives_back_at = None;
                give_back();
                continue;
            }
            () = stop.cancelled() => break,
            () = kill.cancelled() => return,
        };
        let (handshakes, mut calls) = (handshakes.clone(), calls.clone());
        calls.only(serves);
        let (shared, stop) = (shared.clone(), stop.clone());
        connections.spawn(async move {
            // Apart from the task, which keeps the size of a handshake of TLS, several times, for as long as it lives.
            let opening = Box::pin(handshakes.open(accepted, limits.greeting_max));
            if let Some(Some(connection)) = stop.run_until_cancelled(opening).await {
                http2::serve(connection, calls, shared).await;
            }
        });
    }
    stopping.send_replace(());
    let all_ended = async {
        while let Some(ended) = connections.join_next().await {
            log_panic(ended);
        }
        shared.tasks.close();
        shared.tasks.wait().await;
    };
    tokio::select! {
        () = all_ended => {}
        () = kill.cancelled() => {}
    }
}

/// A panic in the task of a connection is a bug: calls catch their own.
fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection has ended with a panic");
    }
}
