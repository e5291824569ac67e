//! Lanes of load: a place in flight that asks one call after the other, or a stream of requests.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use tokio::sync::Semaphore;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Request, StatusCode};

use super::connection::{Connection, Link};
use super::pace::{Pace, Window};
use super::tally::{self, Answer, Code, PREFIX_BYTES, TRANSPORT, Tally, framed_len, unframed};
use crate::questions::Questions;

/// What the live line reads while a generator runs.
#[derive(Debug, Default)]
pub struct Live {
    /// Checks.
    pub answered: AtomicU64,
    /// Requests.
    pub failed: AtomicU64,
}

/// One thread's work: what its lanes share.
#[derive(Debug)]
pub struct Generator {
    pub questions: Arc<Questions>,
    /// Every request's head.
    pub head: Request<()>,
    pub window: Window,
    pub pace: Pace,
    pub tally: RefCell<Tally>,
    pub live: Arc<Live>,
    /// The next question.
    pub next: Cell<usize>,
}

/// Requests in flight: when each was meant to be sent, and which it is. Oldest first.
pub type InFlight = RefCell<VecDeque<(Instant, usize)>>;

impl Generator {
    pub(super) fn question(&self) -> usize {
        let at = self.next.get();
        self.next.set(at + 1);
        at
    }

    /// Counts the end of a request, and answers when that is.
    pub(super) fn end(
        &self,
        start: Instant,
        question: usize,
        outcome: Result<Answer<'_>, Code>,
    ) -> Instant {
        let now = Instant::now();
        let checks = self.questions.checks_per_request() as u64;
        match outcome {
            Ok(_) => self.live.answered.fetch_add(checks, Ordering::Relaxed),
            Err(_) => self.live.failed.fetch_add(1, Ordering::Relaxed),
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
                tally.waited(now - start);
                tally.answered += 1;
                let expected = self.questions.expected(question);
                tally.answers.read(self.questions.mode, answer, expected);
            }
            Err(code) => tally.fail(code),
        }
        now
    }

    /// Counts what was due or sent and never answered, when the end has come.
    pub fn give_up(&self, in_flight: &[std::rc::Rc<InFlight>]) {
        let now = Instant::now();
        let tally = &mut *self.tally.borrow_mut();
        for start in self.pace.unsent() {
            if self.window.measures(start) {
                tally.unsent += 1;
                tally.waited(self.window.end - start);
            }
        }
        for lane in in_flight {
            for (start, _) in lane.borrow().iter().filter(|(start, _)| self.window.measures(*start))
            {
                tally.unanswered += 1;
                tally.waited(now - *start);
            }
        }
    }
}

/// One place in flight: a call, and when it is over the next.
pub async fn calls(generator: &Generator, connection: &Connection, in_flight: &InFlight) {
    let mut link = connection.link();
    let mut ended = None;
    while let Some(start) = generator.pace.next(ended).await {
        let question = generator.question();
        in_flight.borrow_mut().push_back((start, question));
        let answer = call(generator, connection, &mut link, question).await;
        in_flight.borrow_mut().clear();
        let message = answer.as_deref().map_err(|code| *code).map(|body| unframed(body));
        let answer = message.map(|message| message.map_or(Answer::Malformed, Answer::Message));
        ended = Some(generator.end(start, question, answer));
    }
}

async fn call(
    generator: &Generator,
    connection: &Connection,
    link: &mut Link,
    question: usize,
) -> Result<Bytes, Code> {
    let (response, mut body) = open(generator, connection, link).await?;
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

/// Begins a call, on another link if the server has closed this one since.
async fn open(
    generator: &Generator,
    connection: &Connection,
    link: &mut Link,
) -> Result<(ResponseFuture, SendStream<Bytes>), Code> {
    if poll_fn(|context| link.sender.poll_ready(context)).await.is_err() {
        *link = connection.link_after(link).await?;
        poll_fn(|context| link.sender.poll_ready(context)).await.map_err(transport)?;
    }
    link.sender.send_request(generator.head.clone(), false).map_err(transport)
}

async fn begin(response: ResponseFuture) -> Result<RecvStream, Code> {
    let (head, body) = response.await.map_err(transport)?.into_parts();
    if head.status != StatusCode::OK {
        return Err(TRANSPORT);
    }
    // A call that fails before its first message has its status here.
    if head.headers.contains_key("grpc-status") {
        status(&head.headers)?;
    }
    Ok(body)
}

async fn finish(body: &mut RecvStream) -> Result<(), Code> {
    let trailers = body.trailers().await.map_err(transport)?;
    trailers.map_or(Ok(()), |trailers| status(&trailers))
}

fn status(headers: &HeaderMap) -> Result<(), Code> {
    let status = headers.get("grpc-status").map_or(&b""[..], |status| status.as_bytes());
    match std::str::from_utf8(status).ok().and_then(|status| status.parse().ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(tally::code(code)),
        None => Err("UNKNOWN"),
    }
}

fn transport(_: h2::Error) -> Code {
    TRANSPORT
}

/// A stream with so many requests in flight, opened again if it breaks.
pub async fn stream(
    generator: &Generator,
    connection: &Connection,
    in_flight: &InFlight,
    depth: usize,
) {
    let mut link = connection.link();
    let is_over = Cell::new(false);
    while !is_over.get() {
        let code = match open(generator, connection, &mut link).await {
            Ok(stream) => pipeline(generator, stream, (in_flight, depth), &is_over).await.err(),
            Err(code) => Some(code),
        };
        // A stream ends when it is told to; one that ends before has failed what it had taken.
        let code = code.unwrap_or("UNAVAILABLE");
        if in_flight.borrow().is_empty() && !is_over.get() {
            // Nobody was waiting for it yet: the request that would have been next has failed.
            let Some(start) = generator.pace.next(None).await else { return };
            generator.end(start, generator.question(), Err(code));
        }
        for (start, question) in std::mem::take(&mut *in_flight.borrow_mut()) {
            generator.end(start, question, Err(code));
        }
    }
}

/// Sends requests down one stream and reads their answers, both at once.
async fn pipeline(
    generator: &Generator,
    (response, mut body): (ResponseFuture, SendStream<Bytes>),
    (in_flight, depth): (&InFlight, usize),
    is_over: &Cell<bool>,
) -> Result<(), Code> {
    let places = Semaphore::new(depth);
    let send = async {
        loop {
            // Never closed.
            let Ok(place) = places.acquire().await else { return Ok(()) };
            let Some(start) = generator.pace.next(None).await else {
                is_over.set(true);
                return body.send_data(Bytes::new(), true).map_err(transport);
            };
            place.forget();
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
                places.add_permits(1);
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

/// The message that the bytes begin with, and what follows; nothing if it is not all here yet.
fn next_message(bytes: &[u8]) -> Result<Option<Split<'_>>, Code> {
    let Some((prefix, rest)) = bytes.split_first_chunk::<PREFIX_BYTES>() else {
        return Ok(None);
    };
    let length = framed_len(prefix).ok_or("UNKNOWN")?;
    Ok(rest.split_at_checked(length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_come() {
        let bytes = b"\0\0\0\0\x01a\0\0\0\0\0\0\0\0\0\x02b";
        let (message, rest) = next_message(bytes).unwrap().unwrap();
        assert_eq!(message, b"a");
        let (message, rest) = next_message(rest).unwrap().unwrap();
        assert_eq!(message, b"");
        assert_eq!(next_message(rest), Ok(None));
        assert_eq!(next_message(b"\0\0\0"), Ok(None));
        assert_eq!(next_message(b"\x01\0\0\0\0"), Err("UNKNOWN"));
    }
}
