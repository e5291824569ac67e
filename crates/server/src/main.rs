//! The `capstan` binary: see `capstan --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    capstan::cli::main()
}
