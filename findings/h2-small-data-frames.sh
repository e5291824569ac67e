#!/usr/bin/env bash
# h2 0.4.20, the HTTP/2 crate below hyper and tonic: a client ends its connection when a server answers many calls at
# once, as gRPC servers do, with the sizes of everything far below all windows.
#
# Guess: 300 answers of one byte each fit into a window of 65,535 bytes more than two hundred times, so they wait until
# their callers read them.
#
# Seen: each answer is HEADERS, a DATA frame of 1 byte that does not end its stream, and HEADERS with trailers. Such
# small DATA frames have a budget of their own on a connection, which only reading gives back. With the default window, 300
# of them in one write end the connection with GOAWAY, ENHANCE_YOUR_CALM and the words `too_many_data_frames`, and not
# one of the 300 calls gets its answer. With a connection window of 5 MiB, which hyper's client has, all 300 are answered;
# so are they where the DATA frame ends the stream, as a plain HTTP server writes it.
#
# It matters for clients on the bare crate that keep many calls in flight: raise the connection window first.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "small-data-frames"
version = "0.0.0"
edition = "2024"

[dependencies]
bytes = "=1.12.1"
h2 = "=0.4.20"
http = "=1.5.0"
tokio = { version = "=1.54.1", features = ["io-util", "macros", "rt"] }

[workspace]
TOML
cat >src/main.rs <<'RUST'
use bytes::Bytes;
use http::{HeaderMap, Request, Response};

const CALLS: usize = 300;

/// Makes all calls before the first answer, then waits for all answers. `trailers`: whether an answer ends with
/// trailers, as in gRPC. Returns the number of answers, and the first error.
async fn calls(window: Option<u32>, trailers: bool) -> (usize, Option<String>) {
    let (near, far) = tokio::io::duplex(1 << 20);
    let server = async move {
        let mut connection = h2::server::handshake(far).await.unwrap();
        let mut asked = Vec::new();
        while asked.len() < CALLS {
            asked.push(connection.accept().await.unwrap().unwrap());
        }
        for (_, mut respond) in asked {
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            stream.send_data(Bytes::from_static(b"x"), !trailers).unwrap();
            if trailers {
                stream.send_trailers(HeaderMap::new()).unwrap();
            }
        }
        while let Some(Ok(_)) = connection.accept().await {}
    };
    let client = async move {
        let mut builder = h2::client::Builder::new();
        if let Some(window) = window {
            builder.initial_connection_window_size(window);
        }
        let (mut client, connection) = builder.handshake::<_, Bytes>(near).await.unwrap();
        let driver = tokio::task::spawn_local(connection);
        let mut waiting = Vec::new();
        for _ in 0..CALLS {
            client = client.ready().await.unwrap();
            let request = Request::post("http://localhost/").body(()).unwrap();
            waiting.push(client.send_request(request, true).unwrap().0);
        }
        let (mut answered, mut error) = (0, None);
        for answer in waiting {
            let read = async {
                let mut body = answer.await?.into_body();
                while let Some(data) = body.data().await {
                    let length = data?.len();
                    body.flow_control().release_capacity(length)?;
                }
                body.trailers().await.map(drop)
            };
            match read.await {
                Ok(()) => answered += 1,
                Err(failed) => {
                    error.get_or_insert(failed.to_string());
                }
            }
        }
        driver.abort();
        (answered, error)
    };
    tokio::select! {
        biased;
        outcome = client => outcome,
        () = server => unreachable!("the client ends first"),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let local = tokio::task::LocalSet::new();
    local
        .run_until(async {
            for (window, trailers) in [(None, true), (Some(5 << 20), true), (None, false)] {
                let (answered, error) = calls(window, trailers).await;
                let error = error.unwrap_or_default();
                println!("window {window:?}, trailers {trailers}: {answered} of {CALLS}; {error}");
            }
        })
        .await;
}
RUST
cargo run --quiet >seen.txt
cat seen.txt

cat >expected.txt <<'TEXT'
window None, trailers true: 0 of 300; connection error detected: detected excessive load generating behavior (b"too_many_data_frames")
window Some(5242880), trailers true: 300 of 300; 
window None, trailers false: 300 of 300; 
TEXT
diff expected.txt seen.txt || { echo "h2 does something else now: see the difference" >&2; exit 1; }
