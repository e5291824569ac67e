//! The revision that decided a call, for what the call does next.

use tonic::service::Interceptor;
use tonic::{Request, Status};

/// The metadata of the lowest revision that may decide a call.
pub const REVISION_KEY: &str = "capstan-revision";

tokio::task_local! {
    /// The revision that decided the call of this task.
    pub(super) static DECIDED_AT: u64;
}

/// The revision that decided the call that this task answers; `None` outside of one, and for an open method.
#[must_use]
pub fn decided_at() -> Option<u64> {
    DECIDED_AT.try_with(|revision| *revision).ok()
}

/// Sends the revision that decided the call of this task with the calls that it makes, so that no service behind this one takes a
/// decision of an older policy. A task that is started by the call does not have it.
///
/// ```no_run
/// # fn example<C>(new: fn(tonic::service::interceptor::InterceptedService<tonic::transport::Channel, capstan_client::protect::CarryRevision>) -> C, channel: tonic::transport::Channel) -> C {
/// use capstan_client::protect::CarryRevision;
/// use tonic::service::interceptor::InterceptedService;
///
/// new(InterceptedService::new(channel, CarryRevision))
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct CarryRevision;

impl Interceptor for CarryRevision {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(revision) = decided_at() {
            request.metadata_mut().insert(REVISION_KEY, revision.into());
        }
        Ok(request)
    }
}
