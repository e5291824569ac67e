//! The responses of a connection, from their services to its socket.
//!
//! ```text
//! service ─▶ exchange ─▶ waits, charged, while the peer reads nothing ─▶ h2 ─▶ socket
//! ```
//!
//! **Invariants**: bytes that wait are charged to the connection's budget, and wait no longer than the
//! limit of stalled streams. h2 holds about [`UNSENT_MAX`] bytes of answers of one connection.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;

use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http_body::Body as HttpBody;
use tokio::sync::Notify;
use tokio::time::{Duration, timeout};
use tonic::Status;
use tonic::codegen::Bytes;
use tonic::codegen::http::Response;

use crate::limits::UNSENT_MAX;
use crate::transport::budget::{Charge, ConnectionBudget};

/// What bounds the answers of one connection.
pub(super) struct Outbound {
    budget: Arc<ConnectionBudget>,
    stalled_max: Duration,
    /// Bytes given to h2 since it last wrote everything.
    unsent: AtomicUsize,
    flushed: Notify,
}

impl Outbound {
    pub(super) fn new(budget: Arc<ConnectionBudget>, stalled_max: Duration) -> Arc<Self> {
        let unsent = AtomicUsize::new(0);
        Arc::new(Self { budget, stalled_max, unsent, flushed: Notify::new() })
    }

    /// Bytes that h2 has not written, at most.
    pub(super) fn unsent(&self) -> usize {
        self.unsent.load(Relaxed)
    }

    /// h2 has written everything.
    pub(super) fn set_flushed(&self) {
        if self.unsent() > 0 && self.unsent.swap(0, Relaxed) >= UNSENT_MAX {
            self.flushed.notify_waiters();
        }
    }

    fn is_full(&self) -> bool {
        self.unsent() >= UNSENT_MAX
    }

    /// Counts bytes that were given to h2.
    pub(super) fn count(&self, bytes: usize) {
        self.unsent.fetch_add(bytes, Relaxed);
    }

    /// Waits until h2 has room for more.
    async fn room(&self) {
        loop {
            let mut flushed = pin!(self.flushed.notified());
            // Registered before the look, so that no flush is missed.
            flushed.as_mut().enable();
            if !self.is_full() {
                return;
            }
            flushed.await;
        }
    }
}

/// Waits for the response of a call and sends it. Returns early if the client resets the stream or
/// disconnects; dropping `call` then cancels it.
pub(super) async fn exchange<B>(
    call: impl Future<Output = Response<B>>,
    mut respond: SendResponse<Bytes>,
    outbound: Arc<Outbound>,
) where
    B: HttpBody<Data = Bytes, Error = Status>,
{
    let mut call = pin!(call);
    let response = poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Ready(response) => Poll::Ready(Some(response)),
        Poll::Pending => respond.poll_reset(cx).map(|_| None),
    });
    let Some(response) = response.await else { return };
    let (head, body) = response.into_parts();
    let ends = body.is_end_stream();
    // An error here and below means that the stream or the connection is gone.
    let Ok(stream) = respond.send_response(Response::from_parts(head, ()), ends) else { return };
    if !ends {
        let _ = send(pin!(body), stream, &outbound).await;
    }
}

/// Sends a body as far as the peer reads.
async fn send<B>(
    mut body: Pin<&mut B>,
    mut stream: SendStream<Bytes>,
    outbound: &Outbound,
) -> Result<(), h2::Error>
where
    B: HttpBody<Data = Bytes, Error = Status>,
{
    loop {
        let frame = poll_fn(|cx| match body.as_mut().poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Ok(frame)),
            Poll::Pending => match stream.poll_reset(cx) {
                Poll::Ready(reset) => Poll::Ready(Err(reset_error(reset))),
                Poll::Pending => Poll::Pending,
            },
        });
        let Some(frame) = frame.await? else { return stream.send_data(Bytes::new(), true) };
        let Ok(frame) = frame else {
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        };
        match frame.into_data() {
            Ok(data) => send_data(data, &mut stream, outbound).await?,
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return stream.send_trailers(trailers);
                }
            }
        }
    }
}

/// Sends one chunk in pieces, each as large as the peer's window and h2's buffer allow. If the peer
/// stands still for too long, or there is no room for the bytes that wait, the stream is reset.
async fn send_data(
    mut data: Bytes,
    stream: &mut SendStream<Bytes>,
    outbound: &Outbound,
) -> Result<(), h2::Error> {
    let mut charge = Charge::new(Arc::clone(&outbound.budget));
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        if stream.capacity() == 0 || outbound.is_full() {
            let room = charge.bytes() > 0 || charge.add(data.len());
            let most = if room { outbound.stalled_max } else { Duration::ZERO };
            let wait = async {
                tokio::select! {
                    () = outbound.room() => {}
                    reset = poll_fn(|cx| stream.poll_reset(cx)) => return Err(reset_error(reset)),
                }
                if stream.capacity() == 0 { capacity(stream).await } else { Ok(()) }
            };
            let Ok(waited) = timeout(most, wait).await else {
                stream.send_reset(Reason::ENHANCE_YOUR_CALM);
                return Err(Reason::ENHANCE_YOUR_CALM.into());
            };
            waited?;
        }
        let piece = data.split_to(stream.capacity().min(data.len()));
        if piece.is_empty() {
            continue; // The peer has made its window smaller meanwhile.
        }
        charge.release(piece.len());
        outbound.count(piece.len());
        stream.send_data(piece, false)?;
    }
    Ok(())
}

/// Waits until the peer's window lets the stream send.
async fn capacity(stream: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
    poll_fn(|cx| match stream.poll_capacity(cx) {
        Poll::Ready(Some(capacity)) => Poll::Ready(capacity.map(drop)),
        Poll::Ready(None) => Poll::Ready(Err(Reason::STREAM_CLOSED.into())),
        Poll::Pending => match stream.poll_reset(cx) {
            Poll::Ready(reset) => Poll::Ready(Err(reset_error(reset))),
            Poll::Pending => Poll::Pending,
        },
    })
    .await
}

fn reset_error(reset: Result<Reason, h2::Error>) -> h2::Error {
    reset.map_or_else(|error| error, Into::into)
}
