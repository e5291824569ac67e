//! Load through the Rust client: concurrent tasks that each send one check after another, as the request
//! handlers of a service would. The report shows the client's CPU as the generator's.

use std::rc::Rc;

use anyhow::Context as _;
use capstan_client::{Client, Decision, Error, Options};
use tokio::task::{JoinSet, yield_now};
use tonic::Code;

use super::code::{self, ErrorName, TRANSPORT};
use super::connection::{Connection, Target};
use super::slot::{Generator, InFlight};
use super::tally::Answer;
use crate::questions::Questions;

/// A client with this many connections, for this many concurrent tasks. It has made one call, so that
/// it is connected if the server is there.
///
/// # Errors
///
/// The server cannot be reached.
pub(crate) async fn client(
    target: &Target,
    connections: usize,
    tasks: usize,
    questions: &Questions,
) -> anyhow::Result<Client> {
    // The client retries until a call's deadline; an unreachable server must be an error at once.
    drop(Connection::open(target).await?);
    let default = Options::default();
    let pending_max = default.pending_max.max(tasks);
    let options = Options { connections, pending_max, ..default };
    let (address, tls) = (target.address.to_string(), &target.access.tls);
    let client = match &target.access.credential {
        Some(credential) => Client::connect_as(&address, options, tls, credential.clone())?,
        None => Client::connect_tls(&address, options, tls)?,
    };
    if let Some(call) = questions.call(0) {
        // Opens a connection before the measured window. The outcome is not counted.
        let _ = client.check(call.check()).await;
    }
    Ok(client)
}

/// Runs a task per slot until the end of the run.
///
/// # Errors
///
/// A task has panicked.
pub(crate) async fn calls(
    generator: &Rc<Generator>,
    client: &Client,
    slots: &[Rc<InFlight>],
) -> anyhow::Result<()> {
    let mut tasks = JoinSet::new();
    for slot in slots {
        tasks.spawn_local(calls_of_slot(Rc::clone(generator), client.clone(), Rc::clone(slot)));
    }
    while let Some(ended) = tasks.join_next().await {
        ended.context("a task of the load generator has panicked")?;
    }
    Ok(())
}

async fn calls_of_slot(generator: Rc<Generator>, client: Client, in_flight: Rc<InFlight>) {
    let mut ended = None;
    while let Some(start) = generator.pace.next(ended).await {
        let question = generator.question();
        let Some(call) = generator.questions.call(question) else { return };
        in_flight.borrow_mut().push_back((start, question));
        let answer = client.check(call.check()).await;
        in_flight.borrow_mut().clear();
        if answer.is_err() {
            // An error may return without waiting: give other tasks of the thread a turn.
            yield_now().await;
        }
        ended = Some(generator.end(start, question, outcome(answer)));
    }
}

/// An outcome of the client in the terms of the tally.
fn outcome(answer: Result<Decision, Error>) -> Result<Answer<'static>, ErrorName> {
    match answer {
        Ok(Decision { allowed, reason, .. }) => Ok(Answer::Decision(allowed, reason)),
        Err(Error::Refused(refusal)) => Err(code::name(refusal.code)),
        Err(Error::DeadlineExceeded(_)) => Err(code::name(Code::DeadlineExceeded)),
        Err(Error::Protocol(_)) => Ok(Answer::Malformed),
        Err(Error::Closed) => Err(TRANSPORT),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use capstan_client::{Reason, Refusal};

    use super::*;

    #[test]
    fn every_outcome_of_the_client_is_counted() {
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
        assert_eq!(refused(Code::InvalidArgument), "INVALID_ARGUMENT");
        assert_eq!(refused(Code::ResourceExhausted), "RESOURCE_EXHAUSTED");
        assert_eq!(of(Err(Error::DeadlineExceeded(None))), "DEADLINE_EXCEEDED");
        assert_eq!(of(Err(Error::Protocol("too many answers"))), "malformed");
        assert_eq!(of(Err(Error::Closed)), TRANSPORT);
    }
}
