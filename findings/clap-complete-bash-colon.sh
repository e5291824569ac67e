#!/usr/bin/env bash
# clap_complete 4.6.11, its dynamic completion (feature `unstable-dynamic`) in Bash 5.2: no argument is completed behind an
# option whose value has a colon, such as `--addr HOST:PORT`, nor behind `--addr=VALUE`.
#
# Guess: the words before the cursor reach the program as it would be started with them. The generated script takes care
# of `=`, `/` and `:` at the end of a candidate, so it knows what Bash does with them.
#
# Seen: the script hands over COMP_WORDS, which Bash has divided at `:` and `=`. Of `host:1`, `:` and `1` are taken for the
# first two arguments of the program, so nothing is left to complete; of `--addr=host`, `=` and `host` are words of
# their own, too. With `--addr host` all is as guessed.
#
# It matters for every program whose options take addresses, times or references of images: hand over COMP_LINE and
# divide it in the program. The keys are typed in a terminal here, and the program says what it is started with.
set -euo pipefail

command -v cargo >/dev/null || { echo "cargo is missing: https://rustup.rs" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'TOML'
[package]
name = "tool"
version = "0.0.0"
edition = "2021"

[dependencies]
clap = "=4.6.7"
clap_complete = { version = "=4.6.11", features = ["unstable-dynamic"] }
TOML
cat >src/main.rs <<'RUST'
use clap::{Arg, Command};

fn command() -> Command {
    Command::new("tool")
        .arg(Arg::new("addr").long("addr"))
        .arg(Arg::new("name").value_parser(["alice", "bob"]))
        .arg(Arg::new("size").value_parser(["large", "small"]))
}

fn main() {
    clap_complete::CompleteEnv::with_factory(command).complete();
    let words: Vec<_> = std::env::args().skip(1).collect();
    println!("started with: {}", words.join(" "));
}
RUST
cargo build --quiet
cat >try.py <<'PYTHON'
import os
import pty
import select
import signal
import time

SETUP = b"bind 'set enable-bracketed-paste off'; source <(COMPLETE=bash tool); echo rea''dy\n"


def typed(line):
    """The arguments with which the program starts after this line, a TAB and Enter."""
    shell, terminal = pty.fork()
    if shell == 0:
        os.environ["PATH"] = os.path.abspath("target/debug") + ":" + os.environ["PATH"]
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    shown, end = "", time.monotonic() + 30

    def wait_for(wanted):
        nonlocal shown
        while wanted not in shown:
            assert time.monotonic() < end, shown
            if select.select([terminal], [], [], 0.1)[0]:
                shown += os.read(terminal, 65536).decode(errors="replace")
        return shown.split(wanted, 1)[1]

    os.write(terminal, SETUP)
    wait_for("ready\r\n")
    os.write(terminal, f"{line}\t\n".encode())
    wait_for("started with: ")
    while "\n" not in wait_for("started with: "):
        shown += os.read(terminal, 65536).decode(errors="replace")
    os.kill(shell, signal.SIGKILL)
    os.waitpid(shell, 0)
    return shown.split("started with: ", 1)[1].split("\r\n")[0].rstrip()


for line, expected in [
    ("tool --addr host al", "--addr host alice"),
    ("tool --addr host alice la", "--addr host alice large"),
    ("tool --addr=host al", "--addr=host al"),
    ("tool --addr host:1 al", "--addr host:1 al"),
    ("tool --addr host:1 alice la", "--addr host:1 alice la"),
]:
    found = typed(line)
    print(f"{line}<TAB>".ljust(34), found)
    assert found == expected, (line, found)
PYTHON
python3 try.py
