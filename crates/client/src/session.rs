//! A connection with its StreamCheck call: sends batches, completes calls with the replies, and is replaced
//! at its maximum age and when it fails.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::sleep;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use crate::address::connect;
use crate::backoff;
use crate::failure::Failure;
use crate::limits::{ANSWER_BYTES_MAX, CONNECTION_AGE_JITTER_PART};
use crate::shared::{CloseOnDrop, Shared};
use crate::wire::{BatchCodec, EncodedBatch, STREAM_CHECK};

/// Keeps one connection open until the client is shut down.
pub(crate) async fn run(shared: Arc<Shared>, endpoint: Endpoint, tasks: TaskTracker) {
    let _close = CloseOnDrop(Arc::clone(&shared));
    let stop = shared.stop.clone();
    stop.run_until_cancelled(async {
        let mut failures = 0;
        // The stream that the next connection replaces.
        let mut old = None;
        loop {
            match connect(&endpoint).await {
                Ok(channel) => {
                    let (id, stalled) = shared.open();
                    if let Some(old) = old.take() {
                        shared.finish(old);
                    }
                    let stream = tasks.spawn(run_stream(Arc::clone(&shared), channel, id, stalled));
                    let age = shared.options.connection_age;
                    let age = backoff::uniform(age - age / CONNECTION_AGE_JITTER_PART, age);
                    tokio::select! {
                        ended = stream => match ended {
                            Ok(StreamEnd { answered, wait }) => {
                                failures = if answered { 1 } else { failures + 1 };
                                sleep(wait.unwrap_or_default().max(backoff::wait(failures))).await;
                            }
                            // The task has panicked, which is a bug; the client is closed.
                            Err(_) => return,
                        },
                        () = sleep(age) => {
                            failures = 0;
                            old = Some(id);
                        }
                    }
                }
                Err(problem) => {
                    shared.record_problem(&problem);
                    failures += 1;
                    sleep(backoff::wait(failures)).await;
                }
            }
        }
    })
    .await;
}

/// How a stream ended.
struct StreamEnd {
    /// Whether it had answered at least one batch.
    answered: bool,
    /// The server's push-back: the minimum wait before the next attempt.
    wait: Option<Duration>,
}

async fn run_stream(
    shared: Arc<Shared>,
    channel: Channel,
    id: u64,
    stalled: CancellationToken,
) -> StreamEnd {
    let stop = shared.stop.clone();
    let mut end = EndOnDrop { shared: Arc::clone(&shared), id, failure: None };
    let mut answered = false;
    let failure = tokio::select! {
        failure = exchange(&shared, channel, id, &mut answered) => failure,
        () = stalled.cancelled() => Failure::lost("the server has stalled"),
        () = stop.cancelled() => Failure::lost("the client was shut down"),
    };
    let wait = match &failure {
        Failure::Retry { wait, .. } => *wait,
        Failure::Split(_) | Failure::Final(_) => None,
    };
    end.failure = Some(failure);
    StreamEnd { answered, wait }
}

/// Removes a stream from the queue when its task ends, even by a panic.
struct EndOnDrop {
    shared: Arc<Shared>,
    id: u64,
    failure: Option<Failure>,
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        let failure = self.failure.take().unwrap_or_else(|| Failure::lost("a task was ended"));
        self.shared.end(self.id, &failure);
    }
}

/// Sends batches and receives replies until the stream ends or fails.
async fn exchange(shared: &Arc<Shared>, channel: Channel, id: u64, answered: &mut bool) -> Failure {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    if let Err(error) = grpc.ready().await {
        return Failure::lost(format!("connection lost: {}", crate::address::chain(&error)));
    }
    let requests = match shared.request(Requests { shared: Arc::clone(shared), id }) {
        Ok(requests) => requests,
        Err(failure) => return failure,
    };
    let path = PathAndQuery::from_static(STREAM_CHECK);
    let mut replies = match grpc.streaming(requests, path, BatchCodec).await {
        Ok(replies) => replies.into_inner(),
        Err(status) => return Failure::of(&status),
    };
    loop {
        match replies.message().await {
            Ok(Some(reply)) => match shared.reply(id, reply) {
                Ok(()) => *answered = true,
                // The callers of this batch have got the error. The other batches are retried.
                Err(error) => return Failure::lost(error.to_string()),
            },
            Ok(None) => return Failure::lost("the server ended the stream"),
            Err(status) => return Failure::of(&status),
        }
    }
}

/// The request messages of a stream. A batch is sealed when the transport polls for the next message, so it
/// holds every call that was added until then.
struct Requests {
    shared: Arc<Shared>,
    id: u64,
}

impl Stream for Requests {
    type Item = EncodedBatch;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<EncodedBatch>> {
        self.shared.poll_next(self.id, cx)
    }
}
