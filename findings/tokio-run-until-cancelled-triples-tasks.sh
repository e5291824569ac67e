#!/usr/bin/env bash
# tokio-util 0.7.20 with rustc 1.95.0: a task that runs a future with `CancellationToken::run_until_cancelled` has room for that future
# twice, and three times if the future was made outside the task. `tokio::time::timeout` and `tokio::select!` have room for it once.
#
# Guess: a task takes as much memory as its future, and some bytes for the token. Second guess, after the first size was seen: always
# three times.
#
# Seen, of a future of 4,024 bytes: 4,128 with `timeout` or `select!`, 8,152 with `run_until_cancelled`, and 12,176 if an `async move`
# block captures the future. `run_until_cancelled_owned`, which is for spawned tasks, takes 12,200 at once. The method is an
# `async fn`: it keeps its argument, and inside it once more the future that polls the argument, for as long as it is awaited. Of a
# boxed future, a task has 120 bytes.
#
# It matters where tasks are many and live long: one for each connection of a server. A handshake that is awaited so, and over in
# milliseconds, takes two or three times its size for as long as its connection is open. `Box::pin` the future.
set -euo pipefail

command -v cargo >/dev/null || { echo "cargo is missing: https://rustup.rs" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "sizes"
version = "0.0.0"
edition = "2021"

[dependencies]
tokio = { version = "=1.54.1", features = ["macros", "rt", "time"] }
tokio-util = "=0.7.20"
TOML
cat >src/main.rs <<'RUST'
use std::time::Duration;
use tokio_util::sync::CancellationToken;

// Holds 4,000 bytes while it waits.
async fn handshake() -> u8 {
    let buffer = [7_u8; 4_000];
    tokio::task::yield_now().await;
    std::hint::black_box(&buffer)[3]
}

fn size<F: std::future::Future>(name: &str, task: F) {
    println!("{name} {}", std::mem::size_of_val(&task));
}

fn main() {
    let token = CancellationToken::new();
    size("future", handshake());
    size("timeout", async { tokio::time::timeout(Duration::from_secs(1), handshake()).await });
    size("select", async {
        tokio::select! { done = handshake() => Some(done), () = token.cancelled() => None }
    });
    size("direct", async { token.run_until_cancelled(handshake()).await });
    size("boxed", async { token.run_until_cancelled(Box::pin(handshake())).await });
    let (outside, borrowed) = (handshake(), &token);
    size("captured", async move { borrowed.run_until_cancelled(outside).await });
    let owned = token.clone();
    size("owned", async move { owned.run_until_cancelled_owned(handshake()).await });
}
RUST
cargo build --quiet --release

sizes=$(target/release/sizes)
echo "$sizes"
# How many whole futures of this size there is room for.
times() {
  local future size
  future=$(awk '$1 == "future" { print $2 }' <<<"$sizes")
  size=$(awk -v name="$1" '$1 == name { print $2 }' <<<"$sizes")
  [ $((size / future)) = "$2" ] || { echo "changed: $1 has room for $((size / future))" >&2; exit 1; }
  echo "$1: room for $2"
}
times timeout 1
times select 1
times direct 2
times captured 3
times owned 3
times boxed 0
