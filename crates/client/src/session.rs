//! A connection and its stream: sends what waits, hands out what comes back, and is replaced when it
//! is old or breaks.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::sleep;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use crate::address::connect;
use crate::backoff;
use crate::limits::{ANSWER_BYTES_MAX, CONNECTION_AGE_JITTER_PART};
use crate::shared::{CloseOnDrop, Shared};
use crate::verdict::Verdict;
use crate::wire::{BatchCodec, Question, STREAM_CHECK};

/// Keeps one connection, replacing it for as long as the client lives.
pub(crate) async fn keep(shared: Arc<Shared>, endpoint: Endpoint, tasks: TaskTracker) {
    let _close = CloseOnDrop(Arc::clone(&shared));
    let stop = shared.stop.clone();
    stop.run_until_cancelled(async {
        let mut failures = 0;
        // The connection that the next one replaces.
        let mut old = None;
        loop {
            match connect(&endpoint).await {
                Ok(channel) => {
                    let (id, stalled) = shared.open();
                    if let Some(old) = old.take() {
                        shared.finish(old);
                    }
                    let running = tasks.spawn(run(Arc::clone(&shared), channel, id, stalled));
                    let age = shared.options.connection_age;
                    let age = backoff::uniform(age - age / CONNECTION_AGE_JITTER_PART, age);
                    tokio::select! {
                        ended = running => match ended {
                            Ok(Ended { answered, after }) => {
                                failures = if answered { 1 } else { failures + 1 };
                                sleep(after.unwrap_or_default().max(backoff::wait(failures))).await;
                            }
                            // It panicked: a bug, after which nothing here can be relied on.
                            Err(_) => return,
                        },
                        () = sleep(age) => {
                            failures = 0;
                            old = Some(id);
                        }
                    }
                }
                Err(why) => {
                    shared.failed(&why);
                    failures += 1;
                    sleep(backoff::wait(failures)).await;
                }
            }
        }
    })
    .await;
}

/// How a stream ended.
struct Ended {
    /// Whether it had answered anything.
    answered: bool,
    /// When to try again, if the server says.
    after: Option<Duration>,
}

async fn run(shared: Arc<Shared>, channel: Channel, id: u64, stalled: CancellationToken) -> Ended {
    let stop = shared.stop.clone();
    let mut ending = Ending { shared: Arc::clone(&shared), id, verdict: None };
    let mut answered = false;
    let verdict = tokio::select! {
        verdict = converse(&shared, channel, id, &mut answered) => verdict,
        () = stalled.cancelled() => Verdict::lost("the server has stalled"),
        () = stop.cancelled() => Verdict::lost("the client was shut down"),
    };
    let after = match &verdict {
        Verdict::Again { after, .. } => *after,
        Verdict::Apart(_) | Verdict::All(_) => None,
    };
    ending.verdict = Some(verdict);
    Ended { answered, after }
}

/// Ends a stream, however its task does.
struct Ending {
    shared: Arc<Shared>,
    id: u64,
    verdict: Option<Verdict>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let verdict = self.verdict.take().unwrap_or_else(|| Verdict::lost("a task was ended"));
        self.shared.end(self.id, &verdict);
    }
}

/// Sends and receives until something ends.
async fn converse(shared: &Arc<Shared>, channel: Channel, id: u64, answered: &mut bool) -> Verdict {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    if let Err(error) = grpc.ready().await {
        return Verdict::lost(format!("connection lost: {}", crate::address::chain(&error)));
    }
    let questions = Request::new(Questions { shared: Arc::clone(shared), id });
    let path = PathAndQuery::from_static(STREAM_CHECK);
    let mut replies = match grpc.streaming(questions, path, BatchCodec).await {
        Ok(replies) => replies.into_inner(),
        Err(status) => return Verdict::of(&status),
    };
    loop {
        match replies.message().await {
            Ok(Some(reply)) => match shared.reply(id, reply) {
                Ok(()) => *answered = true,
                // Whoever was concerned is told. The rest is asked again, elsewhere.
                Err(error) => return Verdict::lost(error.to_string()),
            },
            Ok(None) => return Verdict::lost("the server ended the stream"),
            Err(status) => return Verdict::of(&status),
        }
    }
}

/// The batches of one stream. It takes what waits when the transport asks for more.
struct Questions {
    shared: Arc<Shared>,
    id: u64,
}

impl Stream for Questions {
    type Item = Question;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Question>> {
        self.shared.poll_next(self.id, cx)
    }
}
