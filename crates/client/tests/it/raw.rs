//! Listeners that are not Capstan servers.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tonic::codegen::Bytes;
use tonic::codegen::http::{HeaderMap, Response};

/// The reaction to a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reaction {
    /// The connection is closed at once.
    Closes,
    /// Nothing is sent.
    Silence,
    /// These bytes, then nothing.
    Says(&'static [u8]),
    /// HTTP/2: this body and these trailers as the response to every request.
    Answers(&'static [u8], Option<&'static str>),
}

/// Listens until the test's runtime ends.
pub(crate) async fn listen(reaction: Reaction) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serve = async move {
        while let Ok((tcp, _)) = listener.accept().await {
            #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
            tokio::spawn(meet(reaction, tcp));
        }
    };
    #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
    tokio::spawn(serve);
    address
}

async fn meet(reaction: Reaction, mut tcp: TcpStream) {
    match reaction {
        Reaction::Closes => {}
        Reaction::Silence => read_all(&mut tcp).await,
        Reaction::Says(bytes) => {
            let _ = tcp.write_all(bytes).await;
            read_all(&mut tcp).await;
        }
        Reaction::Answers(bytes, status) => {
            let _ = answer(tcp, bytes, status).await;
        }
    }
}

async fn read_all(tcp: &mut TcpStream) {
    let mut bytes = [0; 1024];
    while tcp.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}

async fn answer(
    tcp: TcpStream,
    bytes: &'static [u8],
    status: Option<&'static str>,
) -> Result<(), h2::Error> {
    let mut connection = h2::server::handshake(tcp).await?;
    while let Some(call) = connection.accept().await {
        let (mut request, mut respond) = call?;
        let answer = async move {
            // The request arrives first.
            let asked = request.body_mut().data().await;
            let head = Response::builder().header("content-type", "application/grpc");
            let mut body = respond.send_response(head.body(()).unwrap(), false)?;
            body.send_data(Bytes::from_static(bytes), false)?;
            let mut trailers = HeaderMap::new();
            if let Some(status) = status {
                trailers.insert("grpc-status", status.parse().unwrap());
            }
            drop(asked);
            body.send_trailers(trailers)
        };
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(answer);
    }
    Ok(())
}
