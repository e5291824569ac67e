//! A call, from its question to its answer.
//!
//! Not an `async fn`: that would carry its every step from one poll to the next, and thousands of
//! calls that wait should each take a cache line or two.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use crate::check::Check;
use crate::error::Error;
use crate::queue::Outcome;
use crate::shared::{Asked, Shared};

/// A call.
pub(crate) struct Asking<'a> {
    shared: &'a Shared,
    step: Step<'a>,
}

enum Step<'a> {
    Question(Check<'a>),
    Taken(oneshot::Receiver<Outcome>),
    Crowded(Pin<Box<dyn Future<Output = Outcome> + Send + 'a>>),
}

impl<'a> Asking<'a> {
    pub(crate) const fn new(shared: &'a Shared, check: Check<'a>) -> Self {
        Self { shared, step: Step::Question(check) }
    }
}

impl Future for Asking<'_> {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let shared = self.shared;
        if let Step::Question(check) = self.step {
            self.step = match shared.ask(&check) {
                Ok(Asked::Taken(answered)) => Step::Taken(answered),
                Ok(Asked::Crowded { deadline }) => {
                    Step::Crowded(Box::pin(shared.ask_when_there_is_a_place(check, deadline)))
                }
                Err(error) => return Poll::Ready(Err(error)),
            };
        }
        match &mut self.step {
            Step::Taken(answered) => {
                Pin::new(answered).poll(cx).map(|told| told.unwrap_or(Err(Error::Closed)))
            }
            Step::Crowded(asking) => asking.as_mut().poll(cx),
            // It is over, with an error.
            Step::Question(_) => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_waits_takes_two_cache_lines() {
        assert!(size_of::<Asking<'_>>() <= 128, "{}", size_of::<Asking<'_>>());
    }
}
