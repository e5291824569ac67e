//! `capstan bench generate`: the policy document of a workload, and questions about it.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::json;

use super::world::{Name, Size};

const EXAMPLES: &str = "\
Examples:
  capstan bench generate W > w.json                     1,000 groups, 10,000 identities
  capstan bench generate big-W --queries big.ndjson > big.json
  capstan bench generate --groups 50 --identities 500 --bindings-per-identity 4 --seed 7 > mine.json

The same arguments give the same bytes on every machine.";

/// Writes a generated policy document to standard output
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Generate {
    /// W: 1,000 groups, 10,000 identities, 30,000 bindings; big-W: 100 times as many
    #[arg(value_enum, ignore_case = true, default_value_t = Name::W)]
    workload: Name,

    #[command(flatten)]
    size: Size,

    /// Write questions about the policy to this file, one per line, as for `capstan check --file`
    #[arg(long, value_name = "FILE.ndjson")]
    queries: Option<PathBuf>,

    /// Number of questions to write
    #[arg(long, value_name = "N", default_value_t = 100_000, requires = "queries")]
    count: u64,
}

impl Generate {
    pub(crate) fn run(&self) -> anyhow::Result<ExitCode> {
        let workload = self.size.of(self.workload);
        if let Some(path) = &self.queries {
            let name = path.display();
            let write = || {
                let mut out = BufWriter::new(File::create(path)?);
                let queries = workload.queries();
                for at in 0..self.count {
                    let query = queries.get(at);
                    let line = json!({
                        "identity": query.identity,
                        "capability": query.capability,
                        "resource": query.resource,
                    });
                    writeln!(out, "{line}")?;
                }
                out.flush()
            };
            write().with_context(|| format!("cannot write {name}"))?;
        }
        let mut out = BufWriter::new(io::stdout().lock());
        workload.write_document(&mut out)?;
        out.flush()?;
        Ok(ExitCode::SUCCESS)
    }
}
