//! The future of [`Client::check`](crate::Client::check).
//!
//! It is written by hand: the state machine of an `async fn` would be several cache lines larger, and a
//! client may hold thousands of waiting calls.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::check::Check;
use crate::error::Error;
use crate::queue::Outcome;
use crate::shared::{Admission, Shared};

/// See the module.
pub(crate) struct CheckFuture<'a> {
    shared: &'a Shared,
    state: State<'a>,
}

enum State<'a> {
    /// Not polled yet.
    New(Check<'a>),
    /// In the queue.
    Admitted(oneshot::Receiver<Outcome>),
    /// Waits for permits.
    Full(Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>),
}

impl<'a> CheckFuture<'a> {
    pub(crate) const fn new(shared: &'a Shared, check: Check<'a>) -> Self {
        Self { shared, state: State::New(check) }
    }
}

impl Future for CheckFuture<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let shared = self.shared;
        if let State::New(check) = self.state {
            self.state = match shared.submit(&check) {
                Ok(Admission::Admitted(receiver)) => State::Admitted(receiver),
                Ok(Admission::Full { deadline }) => {
                    State::Full(Box::pin(shared.submit_when_permitted(check, deadline)))
                }
                Err(error) => return Poll::Ready(Err(error)),
            };
        }
        match &mut self.state {
            State::Admitted(receiver) => {
                let received = Pin::new(receiver).poll(cx);
                received.map(|outcome| outcome.unwrap_or(Err(Error::Closed)))
            }
            State::Full(waiting) => waiting.as_mut().poll(cx),
            // Polled again after the error above, which no caller may do.
            State::New(_) => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_future_has_at_most_two_cache_lines() {
        assert!(size_of::<CheckFuture<'_>>() <= 128, "{}", size_of::<CheckFuture<'_>>());
    }
}
