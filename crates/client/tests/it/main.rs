//! The client against real servers in this process, scripted fake servers, and listeners that are not
//! Capstan servers.
//!
//! - `answers`: batches form, and every call gets its own answer.
//! - `faults`: no fault of a server leads to a wrong allow or an endless wait.
//! - `restarts`: servers that drain or are killed under load.
//! - `bounds`: deadlines, back-pressure, size limits, shutdown.
//! - `protect`, `routes`: the layer in front of services of others, and routes of axum.
//! - `consistency`: revisions, and the requirements of calls on them.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "all of this is test code, not only the test functions"
)]

mod answers;
mod bounds;
mod consistency;
mod fake;
mod faults;
mod protect;
mod raw;
mod real;
mod restarts;
mod routes;

use std::time::Duration;

use capstan_client::{Check, Client, Decision, Error};

/// Longer than any test takes on any machine; a test that waits this long fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks with the timeout [`PATIENCE`].
async fn ask(client: &Client, identity: &str) -> Result<Decision, Error> {
    client.check(check(identity).timeout(PATIENCE)).await
}

/// A question about this identity.
const fn check(identity: &str) -> Check<'_> {
    Check::new(identity, "some.capability", "some/where")
}

/// The code and the reason of a refusal.
#[track_caller]
fn refusal(error: Error) -> (capstan_client::Code, String, String) {
    match error {
        Error::Refused(refusal) => (refusal.code, refusal.reason.clone(), refusal.message.clone()),
        other => panic!("{other:?}"),
    }
}
