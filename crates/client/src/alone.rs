//! What is asked apart from the stream, each batch in a call of its own on a second connection: what
//! may wait at the server, where a stream would hold up everybody behind it, and the parts of a
//! batch that a server refused, whose error would end the stream again.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};

use crate::backoff;
use crate::limits::ANSWER_BYTES_MAX;
use crate::shared::{CloseOnDrop, Shared};
use crate::verdict::Verdict;
use crate::wire::{BATCH_CHECK, BatchCodec, Question, Reply};

/// Asks what is to be asked alone, for as long as the client lives. Connects when there is something.
pub(crate) async fn keep(shared: Arc<Shared>, endpoint: Endpoint) {
    let _close = CloseOnDrop(Arc::clone(&shared));
    let stop = shared.stop.clone();
    let mut asking = JoinSet::new();
    let channel = endpoint.connect_lazy();
    stop.run_until_cancelled(async {
        loop {
            tokio::select! {
                (id, question, times) = shared.next_alone() => {
                    asking.spawn(ask(Arc::clone(&shared), channel.clone(), id, question, times));
                }
                Some(ended) = asking.join_next() => if ended.is_err() {
                    // It panicked: a bug, after which nothing here can be relied on.
                    return;
                },
            }
        }
    })
    .await;
}

async fn ask(shared: Arc<Shared>, channel: Channel, id: u64, question: Question, times: u32) {
    let reply = timeout(shared.options.stall, call(channel, question));
    let reply = reply.await.unwrap_or_else(|_| Err(Verdict::lost("the server has stalled")));
    match reply {
        Ok(reply) => shared.reply_alone(id, reply),
        Err(verdict) => {
            if let Verdict::Again { why, after } = &verdict {
                shared.failed(why);
                sleep(after.unwrap_or_default().max(backoff::wait(times))).await;
            }
            shared.failed_alone(id, &verdict);
        }
    }
}

async fn call(channel: Channel, question: Question) -> Result<Reply, Verdict> {
    let mut grpc = Grpc::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX);
    let lost = |error| Verdict::lost(format!("cannot connect: {}", crate::address::chain(&error)));
    grpc.ready().await.map_err(lost)?;
    let path = PathAndQuery::from_static(BATCH_CHECK);
    let answer = grpc.unary(Request::new(question), path, BatchCodec).await;
    answer.map(tonic::Response::into_inner).map_err(|status| Verdict::of(&status))
}
