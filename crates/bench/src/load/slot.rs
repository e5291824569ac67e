//! Slots: each has one request in flight (Check, BatchCheck), or is a stream with several (StreamCheck).
//!
//! A stream counts as one slot. Answers of a stream arrive in the order of its requests.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use capstan_proto::frame::{HEADER_BYTES, Header};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use tokio::sync::Semaphore;
use tonic::Code;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Request, StatusCode};

use super::code::{self, ErrorName, TRANSPORT};
use super::connection::{Connection, Session};
use super::pace::{Pace, Window};
use super::tally::{Answer, Tally, single_message};
use crate::questions::Questions;

/// Counters for the progress line, shared by all threads.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Checks with an answer.
    pub(crate) answered: AtomicU64,
    /// Requests that ended with an error.
    pub(crate) failed: AtomicU64,
}

/// The state of one thread, shared by its slots.
#[derive(Debug)]
pub(crate) struct Generator {
    pub(crate) questions: Arc<Questions>,
    /// The headers of every request.
    pub(crate) head: Request<()>,
    pub(crate) window: Window,
    pub(crate) pace: Pace,
    pub(crate) tally: RefCell<Tally>,
    pub(crate) progress: Arc<Progress>,
    /// The number of the next question.
    pub(crate) next: Cell<usize>,
}

/// The requests in flight of a slot, oldest first: start time and number of the question.
pub(crate) type InFlight = RefCell<VecDeque<(Instant, usize)>>;

impl Generator {
    pub(super) fn question(&self) -> usize {
        let at = self.next.get();
        self.next.set(at + 1);
        at
    }

    /// Counts the end of a request, and returns its time.
    pub(super) fn end(
        &self,
        start: Instant,
        question: usize,
        outcome: Result<Answer<'_>, ErrorName>,
    ) -> Instant {
        let now = Instant::now();
        let checks = self.questions.checks_per_request() as u64;
        match outcome {
            Ok(_) => self.progress.answered.fetch_add(checks, Ordering::Relaxed),
            Err(_) => self.progress.failed.fetch_add(1, Ordering::Relaxed),
        };
        let tally = &mut *self.tally.borrow_mut();
        if outcome.is_ok() && self.window.measures(now) {
            tally.completed += checks;
        }
        if !self.window.measures(start) {
            return now;
        }
        match outcome {
            Ok(answer) => {
                tally.record(now - start);
                tally.answered += 1;
                let expected = self.questions.expected(question);
                tally.answers.read(self.questions.mode, answer, expected);
            }
            Err(error) => tally.fail(error),
        }
        now
    }

    /// Counts requests without an answer at the end of the run: due and never sent, and in flight.
    pub(crate) fn give_up(&self, slots: &[std::rc::Rc<InFlight>]) {
        let now = Instant::now();
        let tally = &mut *self.tally.borrow_mut();
        for start in self.pace.unsent() {
            if self.window.measures(start) {
                tally.unsent += 1;
                tally.record(self.window.end - start);
            }
        }
        for slot in slots {
            for (start, _) in slot.borrow().iter().filter(|(start, _)| self.window.measures(*start))
            {
                tally.unanswered += 1;
                tally.record(now - *start);
            }
        }
    }
}

/// One slot of unary calls: sends the next request when the last one has ended.
pub(crate) async fn calls(generator: &Generator, connection: &Connection, in_flight: &InFlight) {
    let mut session = connection.session();
    let mut ended = None;
    while let Some(start) = generator.pace.next(ended).await {
        let question = generator.question();
        in_flight.borrow_mut().push_back((start, question));
        let answer = call(generator, connection, &mut session, question).await;
        in_flight.borrow_mut().clear();
        let message = answer.as_deref().map_err(|error| *error).map(|body| single_message(body));
        let answer = message.map(|message| message.map_or(Answer::Malformed, Answer::Message));
        ended = Some(generator.end(start, question, answer));
    }
}

async fn call(
    generator: &Generator,
    connection: &Connection,
    session: &mut Session,
    question: usize,
) -> Result<Bytes, ErrorName> {
    let (response, mut body) = open(generator, connection, session).await?;
    body.send_data(generator.questions.frame(question), true).map_err(transport)?;
    let mut body = begin(response).await?;
    let mut answer = Bytes::new();
    while let Some(data) = body.data().await {
        let data = data.map_err(transport)?;
        let _ = body.flow_control().release_capacity(data.len());
        answer = if answer.is_empty() { data } else { [&*answer, &*data].concat().into() };
    }
    finish(&mut body).await?;
    Ok(answer)
}

/// Starts a call; reconnects first if the server has closed the session.
async fn open(
    generator: &Generator,
    connection: &Connection,
    session: &mut Session,
) -> Result<(ResponseFuture, SendStream<Bytes>), ErrorName> {
    if poll_fn(|context| session.sender.poll_ready(context)).await.is_err() {
        *session = connection.session_after(session).await?;
        poll_fn(|context| session.sender.poll_ready(context)).await.map_err(transport)?;
    }
    session.sender.send_request(generator.head.clone(), false).map_err(transport)
}

/// Waits for the response headers.
async fn begin(response: ResponseFuture) -> Result<RecvStream, ErrorName> {
    let (head, body) = response.await.map_err(transport)?.into_parts();
    if head.status != StatusCode::OK {
        return Err(TRANSPORT);
    }
    // A trailers-only response: the call failed before its first message.
    if head.headers.contains_key("grpc-status") {
        status(&head.headers)?;
    }
    Ok(body)
}

/// Waits for the trailers.
async fn finish(body: &mut RecvStream) -> Result<(), ErrorName> {
    let trailers = body.trailers().await.map_err(transport)?;
    trailers.map_or(Ok(()), |trailers| status(&trailers))
}

fn status(headers: &HeaderMap) -> Result<(), ErrorName> {
    let status = headers.get("grpc-status").map_or(&b""[..], |status| status.as_bytes());
    match std::str::from_utf8(status).ok().and_then(|status| status.parse().ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(code::name_of(code)),
        None => Err(code::name(Code::Unknown)),
    }
}

fn transport(_: h2::Error) -> ErrorName {
    TRANSPORT
}

/// A StreamCheck slot with up to `depth` requests in flight; opens another stream when one breaks.
pub(crate) async fn stream(
    generator: &Generator,
    connection: &Connection,
    in_flight: &InFlight,
    depth: usize,
) {
    let mut session = connection.session();
    let is_over = Cell::new(false);
    while !is_over.get() {
        let error = match open(generator, connection, &mut session).await {
            Ok(stream) => pipeline(generator, stream, (in_flight, depth), &is_over).await.err(),
            Err(error) => Some(error),
        };
        // The client half-closes a stream at the end of the run. If the server ends it earlier, the
        // requests in flight have failed.
        let error = error.unwrap_or(code::name(Code::Unavailable));
        if in_flight.borrow().is_empty() && !is_over.get() {
            // No request was in flight: the next one counts as failed, so that a server that ends
            // every stream shows in the errors.
            let Some(start) = generator.pace.next(None).await else { return };
            generator.end(start, generator.question(), Err(error));
        }
        for (start, question) in std::mem::take(&mut *in_flight.borrow_mut()) {
            generator.end(start, question, Err(error));
        }
    }
}

/// Sends requests on one stream and reads their answers concurrently.
async fn pipeline(
    generator: &Generator,
    (response, mut body): (ResponseFuture, SendStream<Bytes>),
    (in_flight, depth): (&InFlight, usize),
    is_over: &Cell<bool>,
) -> Result<(), ErrorName> {
    let permits = Semaphore::new(depth);
    let send = async {
        loop {
            // The semaphore is never closed.
            let Ok(permit) = permits.acquire().await else { return Ok(()) };
            let Some(start) = generator.pace.next(None).await else {
                is_over.set(true);
                return body.send_data(Bytes::new(), true).map_err(transport);
            };
            permit.forget();
            let question = generator.question();
            in_flight.borrow_mut().push_back((start, question));
            let frame = generator.questions.frame(question);
            body.send_data(frame, false).map_err(transport)?;
        }
    };
    let receive = async {
        let mut body = begin(response).await?;
        let mut buffer = Vec::new();
        while let Some(data) = body.data().await {
            let data = data.map_err(transport)?;
            let _ = body.flow_control().release_capacity(data.len());
            buffer.extend_from_slice(&data);
            let mut rest = &buffer[..];
            while let Some((message, after)) = next_message(rest)? {
                rest = after;
                let first = in_flight.borrow_mut().pop_front();
                if let Some((start, question)) = first {
                    generator.end(start, question, Ok(Answer::Message(message)));
                }
                permits.add_permits(1);
            }
            let read = buffer.len() - rest.len();
            buffer.drain(..read);
        }
        finish(&mut body).await
    };
    tokio::pin!(send, receive);
    tokio::select! {
        received = &mut receive => return received,
        sent = &mut send => sent?,
    }
    receive.await
}

/// A message, and the bytes after it.
type Split<'b> = (&'b [u8], &'b [u8]);

/// Splits off the first frame's message; `None` while the frame is incomplete.
///
/// # Errors
///
/// The frame is compressed, which the request does not allow, or its flag is invalid.
fn next_message(bytes: &[u8]) -> Result<Option<Split<'_>>, ErrorName> {
    if bytes.len() < HEADER_BYTES {
        return Ok(None);
    }
    let header = Header::read(bytes).filter(|(header, _)| !header.compressed);
    let (header, rest) = header.ok_or(code::name(Code::Unknown))?;
    Ok(rest.split_at_checked(header.length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_split_off_once_complete() {
        let bytes = b"\0\0\0\0\x01a\0\0\0\0\0\0\0\0\0\x02b";
        let (message, rest) = next_message(bytes).unwrap().unwrap();
        assert_eq!(message, b"a");
        let (message, rest) = next_message(rest).unwrap().unwrap();
        assert_eq!(message, b"");
        assert_eq!(next_message(rest), Ok(None));
        assert_eq!(next_message(b"\0\0\0"), Ok(None));
        for frame in [b"\x01\0\0\0\0", b"\x02\0\0\0\0"] {
            assert_eq!(next_message(frame), Err("UNKNOWN"));
        }
    }
}
