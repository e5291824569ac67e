//! Batches in unary BatchCheck calls, on a connection of their own.
//!
//! A batch that may block at the server, waiting for a revision, would block the batches behind it on a
//! stream (head-of-line blocking). A batch that the server rejects ends its stream, so its parts are not
//! sent on a stream again.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use crate::backoff;
use crate::failure::Failure;
use crate::limits::ANSWER_BYTES_MAX;
use crate::shared::{CloseOnDrop, Shared};
use crate::wire::{BATCH_CHECK, BatchCodec, EncodedBatch, Reply};

/// Sends batches until the client is shut down. Connects when there is the first batch.
pub(crate) async fn run(shared: Arc<Shared>, endpoint: Endpoint) {
    let _close = CloseOnDrop(Arc::clone(&shared));
    let stop = shared.stop.clone();
    let mut calls = JoinSet::new();
    let channel = endpoint.connect_lazy();
    stop.run_until_cancelled(async {
        loop {
            tokio::select! {
                (id, batch, attempts) = shared.next_unary() => {
                    calls.spawn(send(Arc::clone(&shared), channel.clone(), id, batch, attempts));
                }
                Some(ended) = calls.join_next() => if ended.is_err() {
                    // The task has panicked, which is a bug; the client is closed.
                    return;
                },
            }
        }
    })
    .await;
}

async fn send(shared: Arc<Shared>, channel: Channel, id: u64, batch: EncodedBatch, attempts: u32) {
    let reply = timeout(shared.options.stall, call(&shared, channel, batch)).await;
    match reply.unwrap_or_else(|_| Err(Failure::lost("the server has stalled"))) {
        Ok(reply) => shared.unary_reply(id, reply),
        Err(failure) => {
            if let Failure::Retry { problem, wait } = &failure {
                shared.record_problem(problem);
                sleep(wait.unwrap_or_default().max(backoff::wait(attempts))).await;
            }
            shared.unary_failed(id, &failure);
        }
    }
}

async fn call(shared: &Shared, channel: Channel, batch: EncodedBatch) -> Result<Reply, Failure> {
    let request = shared.request(batch)?;
    let mut grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let lost = |error| Failure::lost(format!("cannot connect: {}", crate::address::chain(&error)));
    grpc.ready().await.map_err(lost)?;
    let path = PathAndQuery::from_static(BATCH_CHECK);
    let answer = grpc.unary(request, path, BatchCodec).await;
    answer.map(tonic::Response::into_inner).map_err(|status| Failure::of(&status))
}
