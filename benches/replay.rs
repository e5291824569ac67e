//! A server in this thread, and a client that replays the bytes of plain checks to it.
//!
//! ```text
//! documents ─▶ server ◀── unix socket ──▶ client: bytes encoded before, answers only counted
//!              └── one runtime in the caller's thread ──┘
//! ```
//!
//! The client allocates nothing while it replays, and takes few instructions: what is counted is the server's.

use std::path::PathBuf;
use std::{env, fs, process};

use anyhow::{Context as _, bail, ensure};
use capstan_proto::{frame, v1};
use capstan_server::feed::reload;
use capstan_server::feed::source::Source;
use capstan_server::server::{self, Config, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::oneshot;

use crate::worlds::{Asked, World};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// The server's socket, in its folder.
const SOCKET: &str = "socket";
/// Bytes of a frame's head.
const HEAD_BYTES: usize = 9;

/// A server with a world, and one connection to it. Dropping it stops the server.
#[derive(Debug)]
pub struct Replay {
    runtime: Runtime,
    connection: Connection,
    /// The stream of the next call.
    next_stream: u32,
    _stop: oneshot::Sender<()>,
    folder: Folder,
}

/// Encoded calls, a number of them in each write.
#[derive(Debug)]
pub struct Calls {
    writes: Vec<Vec<u8>>,
    at_once: usize,
    total: usize,
}

/// What was answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// Calls that ended.
    pub ended: usize,
    /// Answers with a message, which errors have not.
    pub messages: usize,
    /// Allows among them.
    pub allowed: usize,
}

impl Replay {
    /// Starts the server.
    ///
    /// # Errors
    ///
    /// The server does not start or does not speak HTTP/2.
    pub fn start(world: World) -> anyhow::Result<Self> {
        let folder = Folder::new()?;
        let (document, socket) = (folder.0.join("policy.json"), folder.0.join(SOCKET));
        let bytes = world.document();
        fs::write(&document, &bytes)?;
        let feed =
            server::Feed::Document(Source::File { path: document, bytes_max: bytes.len() as u64 });
        // The caller's runtime, so that one thread does everything.
        let config = Config {
            listen: vec![server::Address::Unix(socket.clone())],
            reflection: true,
            runtime: server::Runtime::Callers,
            ..Config::new(feed)
        };
        drop(bytes);
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let connection = runtime.block_on(async {
            let (ready, is_ready) = oneshot::channel();
            let server = Server::bind(config).await?;
            let stopped = async { drop(stopped.await) };
            let run = server.run(stopped, reload::channel(), || ready.send(()).unwrap_or_default());
            // It ends with this runtime.
            drop(runtime.spawn(run));
            is_ready.await.context("the server did not start")?;
            Connection::open(&socket).await
        })?;
        Ok(Self { runtime, connection, next_stream: 1, _stop: stop, folder })
    }

    /// Encodes calls for these questions. They must be replayed in the order in which they were encoded.
    pub fn encode(&mut self, asked: &[Asked], at_once: usize) -> Calls {
        let writes = asked.chunks(at_once).map(|some| {
            let mut bytes = Vec::new();
            for asked in some {
                let request = v1::CheckRequest {
                    identity: asked.identity.clone(),
                    capability: asked.capability.clone(),
                    resource: asked.resource.clone(),
                    ..Default::default()
                };
                let stream = self.next_stream;
                self.next_stream += 2;
                bytes.extend(http2(HEADERS, END_HEADERS, stream, &header_block(stream == 1)));
                bytes.extend(http2(DATA, END_STREAM, stream, &frame::framed(&request)));
            }
            bytes
        });
        Calls { writes: writes.collect(), at_once, total: asked.len() }
    }

    /// Goes on with another connection. Returns the one so far, which stays open and is silent.
    ///
    /// # Errors
    ///
    /// The server takes no connection.
    pub fn reconnect(&mut self) -> anyhow::Result<Silent> {
        let next = self.runtime.block_on(Connection::open(&self.folder.0.join(SOCKET)))?;
        self.next_stream = 1;
        Ok(Silent(std::mem::replace(&mut self.connection, next).socket))
    }

    /// Makes the calls. The next write follows when all calls of the last one are answered.
    ///
    /// # Errors
    ///
    /// The server resets a stream or closes the connection.
    pub fn replay(&mut self, calls: &Calls) -> anyhow::Result<Answered> {
        let (runtime, connection) = (&self.runtime, &mut self.connection);
        let mut answered = Answered::default();
        runtime.block_on(async {
            for bytes in &calls.writes {
                let wanted = (answered.ended + calls.at_once).min(calls.total);
                connection.socket.write_all(bytes).await?;
                while answered.ended < wanted {
                    connection.read(&mut answered).await?;
                }
            }
            Ok(answered)
        })
    }
}

/// A connection that is open and silent. Dropped, it is closed.
#[derive(Debug)]
pub struct Silent(#[expect(dead_code, reason = "it is only kept open")] UnixStream);

#[derive(Debug)]
struct Connection {
    socket: UnixStream,
    buffer: Vec<u8>,
    /// Bytes of the buffer that hold the start of a frame.
    filled: usize,
}

impl Connection {
    async fn open(socket: &PathBuf) -> anyhow::Result<Self> {
        let socket = UnixStream::connect(socket).await?;
        let mut connection = Self { socket, buffer: vec![0; 64 << 10], filled: 0 };
        let all = http2(WINDOW_UPDATE, 0, 0, &0x7fff_0000_u32.to_be_bytes());
        let hello = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &http2(SETTINGS, 0, 0, &[]),
            &all, // No window ever ends.
            &http2(SETTINGS, ACK, 0, &[]),
        ];
        connection.socket.write_all(&hello.concat()).await?;
        Ok(connection)
    }

    /// Reads what is there, and counts the answers in it.
    async fn read(&mut self, answered: &mut Answered) -> anyhow::Result<()> {
        let free = self.buffer.get_mut(self.filled..).context("a frame is too long")?;
        let length = self.socket.read(free).await?;
        ensure!(length > 0, "the server has closed the connection");
        self.filled += length;
        let mut rest = self.buffer.get(..self.filled).unwrap_or_default();
        while let Some((kind, flags, payload, after)) = next_frame(rest) {
            rest = after;
            match kind {
                DATA if !payload.is_empty() => {
                    answered.messages += 1;
                    // After the header of the message comes field 1, `allowed`, or another field.
                    answered.allowed += usize::from(payload.get(5..7) == Some(&[8, 1]));
                }
                RST_STREAM | GOAWAY => bail!("frame {kind}: {payload:?}"),
                _ => {}
            }
            answered.ended +=
                usize::from([DATA, HEADERS].contains(&kind) && flags & END_STREAM != 0);
        }
        let read = self.filled - rest.len();
        self.buffer.copy_within(read..self.filled, 0);
        self.filled -= read;
        Ok(())
    }
}

/// Kind, flags and payload of the first frame, and the bytes after it. `None` if it is not complete.
fn next_frame(bytes: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let (&[a, b, c, kind, flags, ..], rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
    let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).ok()?;
    let (payload, after) = rest.split_at_checked(length)?;
    Some((kind, flags, payload, after))
}

fn http2(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    let [_, length @ ..] = length;
    [&length[..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a call. Those of the first call fill the table of the connection, and later calls refer to it,
/// as clients do.
fn header_block(is_first: bool) -> Vec<u8> {
    const METHOD_POST: u8 = 0x83;
    const SCHEME_HTTP: u8 = 0x86;
    const INDEXED: u8 = 0x40;
    const NEWEST: u8 = 0x80 | 62;
    let mut block = vec![METHOD_POST, SCHEME_HTTP];
    if !is_first {
        block.extend([NEWEST + 3, NEWEST + 2, NEWEST + 1, NEWEST]);
        return block;
    }
    for (name, value) in [
        (":path", "/capstan.v1.DecisionService/Check"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        block.push(INDEXED);
        for text in [name, value] {
            // Each has less than 127 bytes.
            block.push(u8::try_from(text.len()).unwrap_or_default());
            block.extend(text.as_bytes());
        }
    }
    block
}

/// A folder for the document and the socket. Dropping it removes it.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn new() -> anyhow::Result<Self> {
        let path = env::temp_dir().join(format!("capstan-replay-{}", process::id()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
