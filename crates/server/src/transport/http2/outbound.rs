//! The responses of a connection, from their services to what is to be written.
//!
//! ```text
//! service ─▶ exchange ─▶ compressed, if the client asks and it is long ─▶ waits, charged, while the peer reads nothing ─▶ Connection ─▶ socket
//! ```
//!
//! **Invariants**: bytes that wait are charged to the connection's budget, and wait no longer than the
//! limit of stalled streams. About [`UNSENT_MAX`](crate::limits::UNSENT_MAX) bytes of one connection's answers
//! are ready to be written.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use capstan_http2::{Closed, Reason};
use capstan_proto::contract::ENCODING_KEY;
use http_body::Body as HttpBody;
use tokio::sync::Semaphore;
use tokio::time::{Duration, timeout};
use tonic::Status;
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderValue, Response};

use super::gzip::deflated;
use super::wire::Wire;
use crate::transport::budget::{Charge, ConnectionBudget};

/// The place of one response. Dropped before the response is complete, it resets the stream.
pub(super) struct Responder {
    pub(super) wire: Arc<Wire>,
    pub(super) stream: u32,
    pub(super) budget: Arc<ConnectionBudget>,
    /// How long a stream may stand still.
    pub(super) stalled_max: Duration,
    /// Set if long messages are compressed; the turns to do so.
    pub(super) deflating: Option<Arc<Semaphore>>,
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.wire.with(|connection| connection.reset(self.stream, Reason::CANCEL));
    }
}

/// Waits for the response of a call and sends it. Returns early if the client resets the stream or
/// disconnects; dropping `call` then cancels it.
pub(super) async fn exchange<B>(call: impl Future<Output = Response<B>>, responder: Responder)
where
    B: HttpBody<Data = Bytes, Error = Status>,
{
    let Responder { wire, stream, .. } = &responder;
    let mut call = pin!(call);
    let response = while_open((wire, *stream), |cx| call.as_mut().poll(cx)).await;
    let Ok(response) = response else { return };
    let (mut head, body) = response.into_parts();
    let ends = body.is_end_stream();
    if responder.deflating.is_some() && !ends {
        // Of the messages that are compressed; each says whether it is.
        head.headers.insert(ENCODING_KEY, HeaderValue::from_static("gzip"));
    }
    let sent =
        wire.with(|connection| connection.respond(*stream, head.status, &head.headers, ends));
    // An error here and below means that the stream or the connection is gone.
    if sent.is_ok() && !ends {
        let _ = send(pin!(body), &responder).await;
    }
}

/// Polls until there is a result, or until the stream has ended. A call that runs once more after that makes an error that
/// nobody reads, and all calls of a connection end at once.
async fn while_open<T>(
    (wire, stream): (&Wire, u32),
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
) -> Result<T, Closed> {
    // Most calls are over in their first poll.
    let mut was_polled = false;
    let ended = |cx: &Context<'_>| wire.lock().connection.poll_end(stream, cx);
    poll_fn(|cx| {
        if std::mem::replace(&mut was_polled, true) && ended(cx).is_ready() {
            return Poll::Ready(Err(Closed));
        }
        match poll(cx) {
            Poll::Ready(result) => Poll::Ready(Ok(result)),
            Poll::Pending => ended(cx).map(|()| Err(Closed)),
        }
    })
    .await
}

/// Sends a body as far as the peer reads.
async fn send<B>(mut body: Pin<&mut B>, responder: &Responder) -> Result<(), Closed>
where
    B: HttpBody<Data = Bytes, Error = Status>,
{
    let Responder { wire, stream, deflating, .. } = responder;
    loop {
        let frame = while_open((wire, *stream), |cx| body.as_mut().poll_frame(cx)).await?;
        let Some(frame) = frame else {
            return wire.with(|connection| connection.data(*stream, &[], true)).map(drop);
        };
        let Ok(frame) = frame else {
            wire.with(|connection| connection.reset(*stream, Reason::INTERNAL_ERROR));
            return Err(Closed);
        };
        match frame.into_data() {
            Ok(mut data) => {
                if let Some(turns) = deflating {
                    data = deflated(data, turns).await;
                }
                send_data(&data, responder).await?;
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    return wire.with(|connection| connection.trailers(*stream, &trailers));
                }
            }
        }
    }
}

/// Sends one chunk, in parts if there is no room for all of it. If the peer stands still for too long, or
/// there is no room for the bytes that wait, the stream is reset.
async fn send_data(mut data: &[u8], responder: &Responder) -> Result<(), Closed> {
    let Responder { wire, stream, budget, stalled_max, .. } = responder;
    let mut charge = Charge::new(Arc::clone(budget));
    loop {
        let sent = wire.with(|connection| connection.data(*stream, data, false))?;
        data = data.get(sent..).unwrap_or_default();
        if data.is_empty() {
            return Ok(());
        }
        charge.release(sent);
        let has_room = charge.bytes() > 0 || charge.add(data.len());
        let most = if has_room { *stalled_max } else { Duration::ZERO };
        let room = poll_fn(|cx| wire.lock().connection.poll_room(*stream, cx));
        let Ok(room) = timeout(most, room).await else {
            wire.with(|connection| connection.reset(*stream, Reason::ENHANCE_YOUR_CALM));
            return Err(Closed);
        };
        room?;
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// The task of a call is woken when its connection ends. The call itself must not run any more.
    #[test]
    fn a_call_does_not_run_after_the_end_of_its_stream() {
        let wire = Wire::new(Waker::noop().clone());
        let start = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..],
            // A POST of / by HTTP, without the end of its body.
            &[0, 0, 3, 1, 4, 0, 0, 0, 1, 0x83, 0x86, 0x84],
        ];
        let bytes = start.concat();
        assert!(wire.lock().connection.next(&mut &bytes[..]).is_some());
        let mut polls = 0;
        let waiting = while_open((&wire, 1), |_| {
            polls += 1;
            Poll::<()>::Pending
        });
        let mut waiting = Box::pin(waiting);
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Pending);
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Pending);
        wire.lock().connection.close(Reason::NO_ERROR);
        assert_eq!(waiting.as_mut().poll(&mut cx), Poll::Ready(Err(Closed)));
        drop(waiting);
        assert_eq!(polls, 2, "polled after the end");
    }
}
