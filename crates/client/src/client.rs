//! The client itself: a handle on its tasks.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::address::{ServerAddress, client_endpoint};
use crate::asking::Asking;
use crate::check::{Check, Decision};
use crate::error::{ConnectError, Error};
use crate::limits::Options;
use crate::shared::{CloseOnDrop, Shared};
use crate::{alone, session};

/// Asks a server. Clones are the same client; when the last is dropped its tasks end.
#[derive(Clone, Debug)]
pub struct Client(Arc<Tasks>);

#[derive(Debug)]
struct Tasks {
    shared: Arc<Shared>,
    tracker: TaskTracker,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Client {
    /// A client of the server at `http://HOST:PORT` or `unix:PATH`. It connects by itself, and again
    /// when it must: that there is no server yet is no error, calls wait for one until their
    /// deadline.
    ///
    /// # Errors
    ///
    /// The address is none, or this is not called inside a tokio runtime (with I/O and time).
    pub fn connect(address: &str) -> Result<Self, ConnectError> {
        Self::connect_with(address, Options::default())
    }

    /// As [`Client::connect`], with options.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub fn connect_with(address: &str, options: Options) -> Result<Self, ConnectError> {
        let endpoint = client_endpoint(&address.parse::<ServerAddress>()?)?;
        let _runtime = Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let options = options.held();
        let shared = Arc::new(Shared::new(options));
        let tracker = TaskTracker::new();
        for _ in 0..options.connections {
            let (shared, endpoint) = (Arc::clone(&shared), endpoint.clone());
            tracker.spawn(session::keep(shared, endpoint, tracker.clone()));
        }
        tracker.spawn(alone::keep(Arc::clone(&shared), endpoint));
        let close = CloseOnDrop(Arc::clone(&shared));
        tracker.spawn(async move {
            let shared = &close.0;
            shared.stop.run_until_cancelled(shared.keep_deadlines()).await;
        });
        Ok(Self(Arc::new(Tasks { shared, tracker })))
    }

    /// May this identity do this here?
    ///
    /// Dropping the future gives the question up.
    ///
    /// # Errors
    ///
    /// There is no answer. That is never an allow: refuse.
    pub fn check<'a>(
        &'a self,
        check: Check<'a>,
    ) -> impl Future<Output = Result<Decision, Error>> + Send + 'a {
        Asking::new(&self.0.shared, check)
    }

    /// The highest revision that any answer had; 0 before the first. That of a policy file is
    /// forgotten with the connection, since another process counts anew.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.shared.revision()
    }

    /// Forgets the highest revision: with [`Options::monotonic`], accepts that the store was rolled
    /// back.
    pub fn forget_revision(&self) {
        self.0.shared.forget_revision();
    }

    /// Fails what is pending with [`Error::Closed`], and every later call, and waits until the
    /// client's tasks have ended.
    pub async fn shutdown(&self) {
        self.0.shared.close();
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }
}
