//! Load through the Rust client: tasks that each ask one check after the other, as the requests of a
//! service would. What it costs the client stands in the report as the generator's CPU.

use std::rc::Rc;

use anyhow::Context as _;
use capstan_client::{Client, Decision, Error, Options};
use tokio::task::{JoinSet, yield_now};

use super::connection::{Connection, Endpoint};
use super::lane::{Generator, InFlight};
use super::tally::{self, Answer, Code, TRANSPORT};
use crate::questions::Questions;

/// A client of so many connections for so many tasks, that has been answered once or has failed to.
///
/// # Errors
///
/// The server cannot be reached.
pub async fn client(
    endpoint: &Endpoint,
    connections: usize,
    tasks: usize,
    questions: &Questions,
) -> anyhow::Result<Client> {
    // A client waits for its server; here one that is not there should be told of.
    drop(Connection::open(endpoint).await?);
    let default = Options::default();
    let pending_max = default.pending_max.max(tasks);
    let options = Options { connections, pending_max, ..default };
    let client = Client::connect_with(&endpoint.to_string(), options)?;
    if let Some(call) = questions.call(0) {
        // So that no connection is made in the time that counts. What comes of it is not counted.
        let _ = client.check(call.check()).await;
    }
    Ok(client)
}

/// Asks in a task for each lane, until it is over.
///
/// # Errors
///
/// A task has panicked.
pub async fn calls(
    generator: &Rc<Generator>,
    client: &Client,
    lanes: &[Rc<InFlight>],
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for lane in lanes {
        tasks.spawn_local(ask(Rc::clone(generator), client.clone(), Rc::clone(lane)));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task that asks has ended early")?;
    }
    Ok(())
}

async fn ask(generator: Rc<Generator>, client: Client, in_flight: Rc<InFlight>) {
    let mut ended = None;
    while let Some(start) = generator.pace.next(ended).await {
        let question = generator.question();
        let Some(call) = generator.questions.call(question) else { return };
        in_flight.borrow_mut().push_back((start, question));
        let answer = client.check(call.check()).await;
        in_flight.borrow_mut().clear();
        if answer.is_err() {
            // One that the client refuses at once must not keep the others from their turn.
            yield_now().await;
        }
        ended = Some(generator.end(start, question, outcome(answer)));
    }
}

fn outcome(answer: Result<Decision, Error>) -> Result<Answer<'static>, Code> {
    match answer {
        Ok(Decision { allowed, reason, .. }) => Ok(Answer::Decision(allowed, reason)),
        Err(Error::Refused(refusal)) => Err(tally::code(refusal.code.into())),
        Err(Error::DeadlineExceeded(_)) => Err("DEADLINE_EXCEEDED"),
        Err(Error::Protocol(_)) => Ok(Answer::Malformed),
        Err(Error::Closed) => Err(TRANSPORT),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use capstan_client::{Code as Status, Reason, Refusal};

    use super::*;

    #[test]
    fn whatever_the_client_says_is_counted_as_what_it_is() {
        let decision =
            |allowed, reason| Decision { allowed, reason, revision: 1, valid_until: None };
        let refusal = |code| Refusal { code, reason: String::new(), message: String::new() };
        let of = |answer| match outcome(answer) {
            Ok(Answer::Decision(allowed, _)) => {
                if allowed {
                    "allowed"
                } else {
                    "denied"
                }
            }
            Ok(Answer::Malformed) => "malformed",
            Ok(Answer::Message(_)) => "message",
            Err(code) => code,
        };
        assert_eq!(of(Ok(decision(true, Reason::Granted))), "allowed");
        assert_eq!(of(Ok(decision(false, Reason::NoBinding))), "denied");
        let refused = |code| of(Err(Error::Refused(Arc::new(refusal(code)))));
        assert_eq!(refused(Status::InvalidArgument), "INVALID_ARGUMENT");
        assert_eq!(refused(Status::ResourceExhausted), "RESOURCE_EXHAUSTED");
        assert_eq!(of(Err(Error::DeadlineExceeded(None))), "DEADLINE_EXCEEDED");
        assert_eq!(of(Err(Error::Protocol("too many answers"))), "malformed");
        assert_eq!(of(Err(Error::Closed)), TRANSPORT);
    }
}
