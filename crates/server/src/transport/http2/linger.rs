//! The end of a connection whose peer must still read.

use std::future::poll_fn;
use std::pin::Pin;

use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};

use super::READ;
use crate::limits::LINGER_BYTES_MAX;
use crate::transport::connection::Connection;

/// Closes the connection's own side, and reads on until the peer closes its side, or sends more than was on its way.
/// A socket that is closed with unread bytes resets the connection, and the peer could lose the last answers.
pub(super) async fn linger(socket: &mut Connection) {
    let mut left = LINGER_BYTES_MAX;
    let _ = socket.shutdown().await;
    loop {
        let read = poll_fn(|cx| {
            READ.with_borrow_mut(|buffer| {
                let mut buffer = ReadBuf::new(buffer);
                let polled = Pin::new(&mut *socket).poll_read(cx, &mut buffer);
                polled.map_ok(|()| buffer.filled().len())
            })
        });
        match read.await {
            Ok(bytes) if bytes > 0 && bytes <= left => left -= bytes,
            _ => return,
        }
        tokio::task::yield_now().await;
    }
}
