//! Responses: their heads, bodies and trailers.

use std::task::{Context, Poll};

use http::{HeaderMap, StatusCode};

use super::{Closed, Connection};
use crate::frame::{
    self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEAD_BYTES, HEADERS, PAYLOAD_MAX, Reason,
};

impl Connection {
    /// Sends a whole good response of one message, which `write` appends. False, and nothing is sent, if the
    /// stream has ended, if `write` says so, or if the windows are too small for the message.
    pub fn respond_ok(&mut self, stream: u32, write: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        let Some(of) = self.streams.get(&stream) else { return false };
        let window = of.send_window.min(self.send_window);
        let (start, writer) = (self.out.len(), self.writer);
        self.begin(HEADERS, END_HEADERS, stream);
        self.writer.ok(&mut self.out);
        self.patch(start);
        let data = self.out.len();
        self.begin(DATA, 0, stream);
        let is_written = write(&mut self.out);
        let message = self.out.len() - data - HEAD_BYTES;
        let length = i64::try_from(message).unwrap_or(i64::MAX);
        if !is_written || length > window || message > PAYLOAD_MAX {
            self.out.truncate(start);
            self.writer = writer;
            return false;
        }
        self.patch(data);
        self.send_window -= length;
        let trailers = self.out.len();
        self.begin(HEADERS, END_HEADERS | END_STREAM, stream);
        self.writer.ok_trailers(&mut self.out);
        self.patch(trailers);
        self.finish(stream);
        true
    }

    /// Sends the head of a response. With `ends` it is the whole response.
    ///
    /// # Errors
    ///
    /// The stream has ended.
    pub fn respond(
        &mut self,
        stream: u32,
        status: StatusCode,
        headers: &HeaderMap,
        ends: bool,
    ) -> Result<(), Closed> {
        self.fields(stream, Some(status), headers, ends)
    }

    /// Sends the trailers of a response, which end it.
    ///
    /// # Errors
    ///
    /// The stream has ended.
    pub fn trailers(&mut self, stream: u32, fields: &HeaderMap) -> Result<(), Closed> {
        self.fields(stream, None, fields, true)
    }

    /// Sends the first bytes of a part of a body, as many as there is room for, and returns their number.
    /// `ends` counts if these are all.
    ///
    /// # Errors
    ///
    /// The stream has ended.
    pub fn data(&mut self, stream: u32, data: &[u8], ends: bool) -> Result<usize, Closed> {
        let room = self.room(stream)?;
        let (now, later) = data.split_at_checked(room).unwrap_or((data, &[]));
        let ends = ends && later.is_empty();
        let mut chunks = now.chunks(PAYLOAD_MAX).peekable();
        if now.is_empty() && ends {
            self.put(DATA, END_STREAM, stream, &[]);
        }
        while let Some(chunk) = chunks.next() {
            let is_last = ends && chunks.peek().is_none();
            self.put(DATA, if is_last { END_STREAM } else { 0 }, stream, chunk);
        }
        let sent = i64::try_from(now.len()).unwrap_or(i64::MAX);
        self.send_window -= sent;
        if let Some(of) = self.streams.get_mut(&stream) {
            of.send_window -= sent;
        }
        if ends {
            self.finish(stream);
        }
        Ok(now.len())
    }

    /// Waits until at least one byte can be sent on the stream.
    ///
    /// # Errors
    ///
    /// The stream has ended.
    pub fn poll_room(&mut self, stream: u32, cx: &Context<'_>) -> Poll<Result<(), Closed>> {
        match self.room(stream) {
            Ok(0) => {
                let ended = self.poll_end(stream, cx);
                if let Some(of) = self.streams.get_mut(&stream) {
                    of.waits_for_room = true;
                }
                ended.map(|()| Err(Closed))
            }
            Ok(_) => Poll::Ready(Ok(())),
            Err(closed) => Poll::Ready(Err(closed)),
        }
    }

    /// Waits for the end of the stream.
    pub fn poll_end(&mut self, stream: u32, cx: &Context<'_>) -> Poll<()> {
        let Some(of) = self.streams.get_mut(&stream) else { return Poll::Ready(()) };
        match &mut of.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Ends a stream without a response, or before its end.
    pub fn reset(&mut self, stream: u32, reason: Reason) {
        if self.end(stream).is_some() {
            self.put_reset(stream, reason);
        }
    }

    /// Bytes that can be sent on the stream now.
    fn room(&self, stream: u32) -> Result<usize, Closed> {
        let of = self.streams.get(&stream).ok_or(Closed)?;
        let window = usize::try_from(of.send_window.min(self.send_window)).unwrap_or(0);
        Ok(window.min(self.config.pending_max.saturating_sub(self.pending().len())))
    }

    /// Sends a header block, in more than one frame if it is long.
    fn fields(
        &mut self,
        stream: u32,
        status: Option<StatusCode>,
        fields: &HeaderMap,
        ends: bool,
    ) -> Result<(), Closed> {
        if !self.streams.contains_key(&stream) {
            return Err(Closed);
        }
        let start = self.out.len();
        let end_stream = if ends { END_STREAM } else { 0 };
        self.begin(HEADERS, END_HEADERS | end_stream, stream);
        self.writer.fields(&mut self.out, status, fields);
        if self.out.len() - start - HEAD_BYTES <= PAYLOAD_MAX {
            self.patch(start);
        } else {
            let block = self.out.split_off(start);
            let mut chunks = block.get(HEAD_BYTES..).unwrap_or_default().chunks(PAYLOAD_MAX);
            if let Some(first) = chunks.next() {
                self.put(HEADERS, end_stream, stream, first);
            }
            let mut chunks = chunks.peekable();
            while let Some(chunk) = chunks.next() {
                let flags = if chunks.peek().is_none() { END_HEADERS } else { 0 };
                self.put(CONTINUATION, flags, stream, chunk);
            }
        }
        if ends {
            self.finish(stream);
        }
        Ok(())
    }

    /// The response is complete. A request that is not, is not needed (RFC 9113, section 8.1).
    fn finish(&mut self, stream: u32) {
        if self.end(stream).is_some_and(|ended| ended.is_open) {
            self.put_reset(stream, Reason::NO_ERROR);
        }
    }

    /// Begins a frame whose length is not known. [`Connection::patch`] sets it.
    fn begin(&mut self, kind: u8, flags: u8, stream: u32) {
        self.out.extend_from_slice(&frame::head(0, kind, flags, stream));
    }

    /// Sets the length of the frame that begins here and ends with the last byte.
    fn patch(&mut self, start: usize) {
        let length = self.out.len().saturating_sub(start + HEAD_BYTES);
        let [.., a, b, c] = length.to_be_bytes();
        if let Some([x, y, z, ..]) = self.out.get_mut(start..) {
            (*x, *y, *z) = (a, b, c);
        }
    }
}
