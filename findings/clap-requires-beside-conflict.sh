#!/usr/bin/env bash
# clap 4.6.7: an option that `requires` another one is accepted without it, as soon as something is given that this other one
# conflicts with.
#
# Guess: with `--keys` requiring `--data`, and `--data` conflicting with `--policy`, `--keys K --policy P` is refused: either
# `--data` is missing, or it cannot be there.
#
# Seen: `--keys K` alone is refused, because `--data` is missing. `--keys K --policy P` is accepted, and the program has keys
# without the data that they are for. Conflicts take the requirement away, and nothing says so. With all three the conflict is told, and
# the usage that clap advises is the one without what is required.
#
# It matters wherever an option is for one mode of a program only, such as one of several sources: `requires` does not refuse it in
# another mode, where it is passed over in silence. Let the option itself conflict with the other modes.
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
TOML
cat >src/main.rs <<'RUST'
use clap::{Arg, Command};

fn main() {
    let given = Command::new("tool")
        .arg(Arg::new("keys").long("keys").requires("data"))
        .arg(Arg::new("data").long("data").conflicts_with("policy"))
        .arg(Arg::new("policy").long("policy"))
        .get_matches();
    let has = |name: &str| given.contains_id(name);
    println!("keys {}, data {}, policy {}", has("keys"), has("data"), has("policy"));
}
RUST
cargo build --quiet

# What the program says, and its exit code.
said() { code=0; out=$(target/debug/tool "$@" 2>&1) || code=$?; }
is() { case $out in *"$1"*) ;; *) printf 'changed: no `%s` in:\n%s\n' "$1" "$out" >&2; exit 1 ;; esac; }

said --keys k
[ "$code" = 2 ] || { echo "changed: exit $code" >&2; exit 1; }
is 'required arguments were not provided'
is '--data'
echo "--keys alone: refused, --data is required"

said --keys k --policy p
[ "$code" = 0 ] || { echo "changed: exit $code: $out" >&2; exit 1; }
is 'keys true, data false, policy true'
echo "--keys beside --policy: $out"

said --keys k --policy p --data d
[ "$code" = 2 ] || { echo "changed: exit $code" >&2; exit 1; }
is 'cannot be used with'
is 'Usage: tool --keys <keys> --policy <policy>'
echo "all three: refused, and the usage that is advised leaves --data out"
