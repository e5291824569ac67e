//! The client: a handle to its shared state and background tasks.

use std::sync::Arc;

use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use crate::address::{ServerAddress, client_endpoint};
use crate::check::{Check, Decision};
use crate::check_future::CheckFuture;
use crate::credential::Credential;
use crate::error::{ConnectError, Error};
use crate::limits::Options;
use crate::shared::{CloseOnDrop, Shared};
use crate::tls::TlsOptions;
use crate::{session, unary};

/// A client of a Capstan server.
///
/// Clones share connections and state. Dropping the last clone fails pending calls and ends the background
/// tasks.
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
    /// A client with default [`Options`] of the server at this address: `http://HOST:PORT`, `https://HOST:PORT`,
    /// `HOST:PORT` or `unix:PATH` (see [`ServerAddress`]).
    ///
    /// It connects in the background and reconnects after failures. An unreachable server is not an error
    /// here; calls wait for it until their deadline.
    ///
    /// # Errors
    ///
    /// The address is malformed, or this is not called inside a tokio runtime with I/O and time enabled.
    pub fn connect(address: &str) -> Result<Self, ConnectError> {
        Self::connect_with(address, Options::default())
    }

    /// As [`Client::connect`], with these options.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`].
    pub fn connect_with(address: &str, options: Options) -> Result<Self, ConnectError> {
        Self::connect_tls(address, options, &TlsOptions::default())
    }

    /// As [`Client::connect_tls`], of a caller that this credential proves. Its file is read for each stream, at least every
    /// [`Options::connection_age`]: renew the token in place before that time is left of it.
    ///
    /// # Errors
    ///
    /// As [`Client::connect_tls`]; or the server is asked in plain text on another machine. A file that cannot be read is an error of checks.
    pub fn connect_as(
        address: &str,
        options: Options,
        tls: &TlsOptions,
        credential: Credential,
    ) -> Result<Self, ConnectError> {
        credential.ensure_hidden_on_its_way_to(&address.parse()?)?;
        Self::start(address, options, tls, Some(credential))
    }

    /// As [`Client::connect_with`], with these options of TLS.
    ///
    /// # Errors
    ///
    /// As [`Client::connect`]; or options of TLS are given and the address is not `https`, or they are not PEM.
    pub fn connect_tls(
        address: &str,
        options: Options,
        tls: &TlsOptions,
    ) -> Result<Self, ConnectError> {
        Self::start(address, options, tls, None)
    }

    fn start(
        address: &str,
        options: Options,
        tls: &TlsOptions,
        credential: Option<Credential>,
    ) -> Result<Self, ConnectError> {
        let endpoint = client_endpoint(&address.parse::<ServerAddress>()?, tls)?;
        let _runtime = Handle::try_current().map_err(|_| ConnectError::NoRuntime)?;
        let options = options.clamped();
        let shared = Arc::new(Shared::new(options, credential));
        let tracker = TaskTracker::new();
        for _ in 0..options.connections {
            let (shared, endpoint) = (Arc::clone(&shared), endpoint.clone());
            tracker.spawn(session::run(shared, endpoint, tracker.clone()));
        }
        tracker.spawn(unary::run(Arc::clone(&shared), endpoint));
        let close = CloseOnDrop(Arc::clone(&shared));
        tracker.spawn(async move {
            let shared = &close.0;
            shared.stop.run_until_cancelled(shared.keep_deadlines()).await;
        });
        Ok(Self(Arc::new(Tasks { shared, tracker })))
    }

    /// Asks the server whether an identity has a capability at a resource.
    ///
    /// Dropping the future cancels the call. The server may still answer the check.
    ///
    /// # Errors
    ///
    /// There is no decision. The caller must deny access.
    pub fn check<'a>(
        &'a self,
        check: Check<'a>,
    ) -> impl Future<Output = Result<Decision, Error>> + Send + 'a {
        CheckFuture::new(&self.0.shared, check)
    }

    /// The highest revision of any answer; 0 before the first answer.
    ///
    /// Revisions of a policy file (epoch 0) are only comparable within one server process, so they are
    /// forgotten when a connection ends.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.0.shared.revision()
    }

    /// Forgets the highest revision. With [`Options::monotonic`] this accepts a store that was rolled back.
    pub fn forget_revision(&self) {
        self.0.shared.forget_revision();
    }

    /// Fails pending and later calls with [`Error::Closed`], and waits until the background tasks have ended.
    pub async fn shutdown(&self) {
        self.0.shared.close();
        self.0.tracker.close();
        self.0.tracker.wait().await;
    }
}
