//! Connections to sinks, and those that wait to be used again.
//!
//! ```text
//! open ─▶ Connection ─ exchange ─▶ put ─▶ idle, by origin ─ take ─▶ exchange ...
//!             └ a task drives it: until it is dropped, the peer closes it, or its age ends
//! ```
//!
//! **Invariants**: a connection belongs to one origin, and was opened to an address that was judged at most
//! [`CONNECTION_AGE_MAX`] ago. A connection whose exchange was cut off is dropped, which closes it at once. No connection
//! outlives its age and one exchange, whether or not anybody looks at the pool.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::limits::{
    CONNECTION_AGE_MAX, EXCHANGE_TIME_MAX, HEAD_BYTES_MAX, HEADERS_MAX, IDLE_CONNECTIONS_MAX,
};

/// A request with its body.
pub(crate) type WholeRequest = Request<Full<Bytes>>;

/// A connection over which one exchange follows another.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    opened: Instant,
    _task: DropGuard,
}

impl Connection {
    /// Begins HTTP/1.1 on a stream.
    pub(crate) async fn new<S>(stream: S, tasks: &TaskTracker) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sender, connection) = Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .max_headers(HEADERS_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        tasks.spawn(async move {
            // An error of the connection is one of the exchange, which reports it.
            let driven = timeout(CONNECTION_AGE_MAX + EXCHANGE_TIME_MAX, connection);
            let _ = stopped.run_until_cancelled(driven).await;
        });
        Ok(Self { sender, opened: Instant::now(), _task: stop.drop_guard() })
    }

    /// Sends a request and waits for the head of its response.
    pub(crate) async fn send(
        &mut self,
        request: WholeRequest,
    ) -> hyper::Result<Response<Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    fn is_usable(&self) -> bool {
        !self.sender.is_closed() && self.opened.elapsed() < CONNECTION_AGE_MAX
    }
}

/// Idle connections by the origin of their sinks.
#[derive(Default)]
pub(crate) struct Pool {
    idle: Mutex<HashMap<Box<str>, Vec<Connection>>>,
}

impl Pool {
    /// An idle connection to this origin.
    pub(crate) fn take(&self, origin: &str) -> Option<Connection> {
        let mut idle = self.lock();
        let connections = idle.get_mut(origin)?;
        let found = std::iter::from_fn(|| connections.pop()).find(Connection::is_usable);
        if connections.is_empty() {
            idle.remove(origin);
        }
        found
    }

    /// Keeps a connection for the next exchange, unless there are too many.
    pub(crate) fn put(&self, origin: &str, connection: Connection) {
        let mut idle = self.lock();
        if count(&idle) >= IDLE_CONNECTIONS_MAX {
            idle.retain(|_, connections| {
                connections.retain(Connection::is_usable);
                !connections.is_empty()
            });
        }
        if count(&idle) < IDLE_CONNECTIONS_MAX && connection.is_usable() {
            idle.entry(origin.into()).or_default().push(connection);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Vec<Connection>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(idle: &HashMap<Box<str>, Vec<Connection>>) -> usize {
    idle.values().map(Vec::len).sum()
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("idle", &count(&self.lock())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A connection whose other end is kept.
    async fn connection(tasks: &TaskTracker) -> (Connection, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(1_024);
        (Connection::new(near, tasks).await.unwrap(), far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_not_used_after_its_age() {
        let (pool, tasks) = (Pool::default(), TaskTracker::new());
        let (fresh, _far) = connection(&tasks).await;
        pool.put("https://a.example", fresh);
        assert!(pool.take("https://b.example").is_none(), "it is of another origin");
        let fresh = pool.take("https://a.example").unwrap();
        pool.put("https://a.example", fresh);
        tokio::time::advance(CONNECTION_AGE_MAX).await;
        assert!(pool.take("https://a.example").is_none());
        assert_eq!(count(&pool.lock()), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_nobody_looks_at_is_closed_after_its_age_and_one_exchange() {
        let (pool, tasks) = (Pool::default(), TaskTracker::new());
        let (idle, _far) = connection(&tasks).await;
        pool.put("https://a.example", idle);
        let start = Instant::now();
        tasks.close();
        tasks.wait().await;
        assert_eq!(start.elapsed(), CONNECTION_AGE_MAX + EXCHANGE_TIME_MAX);
        assert!(pool.take("https://a.example").is_none());
    }

    #[tokio::test]
    async fn a_dropped_connection_ends_its_task() {
        let tasks = TaskTracker::new();
        let (dropped, _far) = connection(&tasks).await;
        drop(dropped);
        tasks.close();
        tasks.wait().await;
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_bounded_and_old_ones_give_way() {
        let (pool, tasks) = (Pool::default(), TaskTracker::new());
        let mut ends = Vec::new();
        for number in 0..=IDLE_CONNECTIONS_MAX {
            let (idle, far) = connection(&tasks).await;
            pool.put(&format!("https://{number}.example"), idle);
            ends.push(far);
        }
        assert_eq!(count(&pool.lock()), IDLE_CONNECTIONS_MAX);
        tokio::time::advance(CONNECTION_AGE_MAX).await;
        let (idle, _far) = connection(&tasks).await;
        pool.put("https://new.example", idle);
        assert_eq!(count(&pool.lock()), 1);
        assert!(pool.take("https://new.example").is_some());
    }
}
