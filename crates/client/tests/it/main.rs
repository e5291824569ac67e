//! The client against servers: real ones in this process, ones that a test scripts call by call, and
//! ones that are no servers at all.
//!
//! - `answers`: batches form, and every answer belongs to its question.
//! - `faults`: whatever a server does, nobody is allowed by mistake and nobody waits for ever.
//! - `restarts`: servers that go away, gently or not, while they are asked.
//! - `bounds`: deadlines, back-pressure, what is too large, the end of a client.
//! - `consistency`: revisions and what calls want of them.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "all of this is test code, not only what stands in test functions"
)]

mod answers;
mod bounds;
mod consistency;
mod fake;
mod faults;
mod raw;
mod real;
mod restarts;

use std::time::Duration;

use capstan_client::{Check, Client, Decision, Error};

/// Long enough for any machine; a test that waits so long fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A check that has all the time it needs.
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
