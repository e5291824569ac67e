//! The end of a connection whose peer must still read.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::limits::{LINGER_BYTES_MAX, LINGER_MAX};

/// Bytes that are read at a time, and dropped.
const PART: usize = 4 << 10;

/// Closes the connection's own side, and reads on until the peer closes its side, sends more than was on its way, or takes too long.
/// A socket that is closed with unread bytes resets the connection, and the peer could lose the last answers.
pub(crate) async fn linger(socket: &mut (impl AsyncRead + AsyncWrite + Unpin)) {
    let lingering = async {
        let (mut left, mut part) = (LINGER_BYTES_MAX, vec![0; PART]);
        let _ = socket.flush().await;
        let _ = socket.shutdown().await;
        while let Ok(bytes @ 1..) = socket.read(&mut part).await
            && bytes <= left
        {
            left -= bytes;
            tokio::task::yield_now().await;
        }
    };
    // Who takes too long is cut off.
    let _ = timeout(LINGER_MAX, lingering).await;
}
