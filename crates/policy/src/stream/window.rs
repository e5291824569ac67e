//! A part of a document in memory: parts follow each other, and a value is read when all of it is in the window.

use std::io::{self, ErrorKind};

use super::NotStreamed;

/// Bytes of a document that are read at a time.
pub(super) const WINDOW_BYTES: usize = 256 * 1024;
/// The most bytes of a value, and of a window, which grows for it. A longer one is read whole with its document.
pub(super) const WINDOW_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most blanks one behind the other, since a document that is read whole has a bound of the characters from the start of a
/// key to its colon. See also `KEY_BYTES_MAX`.
const BLANKS_MAX: usize = 255;

/// Why a value is not read.
#[derive(Debug)]
pub(super) enum Stop {
    /// It goes on behind the window.
    Incomplete,
    /// It is not read piece by piece.
    Refused(NotStreamed),
}

impl From<NotStreamed> for Stop {
    fn from(why: NotStreamed) -> Self {
        Self::Refused(why)
    }
}

impl From<serde_json::Error> for Stop {
    fn from(why: serde_json::Error) -> Self {
        if why.is_eof() { Self::Incomplete } else { Self::Refused(NotStreamed::because(why)) }
    }
}

/// The part of a document from the next byte that is not taken.
pub(super) struct Window<R> {
    document: R,
    buffer: Vec<u8>,
    /// Where the part begins and ends in the buffer.
    start: usize,
    end: usize,
    /// Whether the document ends with it.
    is_last: bool,
    /// Blanks at its end.
    blanks: usize,
}

impl<R: io::Read> Window<R> {
    pub(super) fn new(document: R) -> Self {
        Self::with_bytes(document, WINDOW_BYTES)
    }

    /// A window of so many bytes at first.
    pub(super) fn with_bytes(document: R, bytes: usize) -> Self {
        Self { document, buffer: vec![0; bytes], start: 0, end: 0, is_last: false, blanks: 0 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Takes so many bytes.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.end);
    }

    /// Reads on behind the part, until the buffer is full or the document ends. The buffer grows if it is full.
    pub(super) fn more(&mut self) -> Result<(), NotStreamed> {
        if self.is_last {
            return Err(NotStreamed::because("the document ends early"));
        }
        self.buffer.copy_within(self.start..self.end, 0);
        (self.start, self.end) = (0, self.end - self.start);
        if self.end == self.buffer.len() {
            if self.end >= WINDOW_BYTES_MAX {
                return Err(NotStreamed::because("a value is too long"));
            }
            self.buffer.resize((self.end * 2).clamp(1, WINDOW_BYTES_MAX), 0);
        }
        while let Some(free) = self.buffer.get_mut(self.end..).filter(|free| !free.is_empty()) {
            let count = match self.document.read(free) {
                Ok(0) => {
                    self.is_last = true;
                    break;
                }
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(NotStreamed::because(error)),
            };
            let read = free.get(..count).unwrap_or_default();
            if has_many_blanks(self.blanks, read) {
                return Err(NotStreamed::because("too many blanks in one place"));
            }
            let blanks = blanks(read.iter().rev());
            self.blanks = if blanks == count { self.blanks + blanks } else { blanks };
            self.end += count;
        }
        Ok(())
    }

    /// The next byte that is no blank; `None` at the end of the document. Blanks before it are taken.
    fn next(&mut self) -> Result<Option<u8>, NotStreamed> {
        loop {
            let blanks = blanks(self.bytes().iter());
            self.advance(blanks);
            match self.bytes().first() {
                Some(byte) => return Ok(Some(*byte)),
                None if self.is_last => return Ok(None),
                None => self.more()?,
            }
        }
    }

    /// Takes the next byte if it is this one.
    pub(super) fn accept(&mut self, byte: u8) -> Result<bool, NotStreamed> {
        let is_next = self.next()? == Some(byte);
        if is_next {
            self.advance(1);
        }
        Ok(is_next)
    }

    /// Takes the next byte, which has to be this one.
    pub(super) fn expect(&mut self, byte: u8) -> Result<(), NotStreamed> {
        if self.accept(byte)? {
            return Ok(());
        }
        Err(NotStreamed::because(format_args!("no `{}` where it should be", char::from(byte))))
    }

    /// The end of the document.
    pub(super) fn end(&mut self) -> Result<(), NotStreamed> {
        let more = self.next()?;
        more.map_or(Ok(()), |_| Err(NotStreamed::because("more than one value")))
    }

    /// Takes a value, which `read` returns with the number of its bytes. `read` is called again with more bytes if the
    /// value may not be complete.
    pub(super) fn value<T>(
        &mut self,
        mut read: impl FnMut(&[u8]) -> Result<(T, usize), Stop>,
    ) -> Result<T, NotStreamed> {
        loop {
            match read(self.bytes()) {
                Ok((value, length)) if length < self.bytes().len() => {
                    self.advance(length);
                    return Ok(value);
                }
                // No document ends with a value that is in it.
                Ok(_) | Err(Stop::Incomplete) => self.more()?,
                Err(Stop::Refused(why)) => return Err(why),
            }
        }
    }
}

/// Whether there are more blanks than [`BLANKS_MAX`] one behind the other. `before` of them are before the bytes.
fn has_many_blanks(before: usize, bytes: &[u8]) -> bool {
    if before + blanks(bytes.iter()) > BLANKS_MAX {
        return true;
    }
    // Many blanks include one of these places.
    (BLANKS_MAX..bytes.len()).step_by(BLANKS_MAX + 1).any(|at| {
        let (before, after) = bytes.split_at_checked(at).unwrap_or((bytes, &[]));
        let after = blanks(after.iter());
        after > 0 && blanks(before.iter().rev()) + after > BLANKS_MAX
    })
}

/// How many bytes are blanks before the first that is not.
pub(super) fn blanks<'b>(bytes: impl Iterator<Item = &'b u8>) -> usize {
    bytes.take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}
