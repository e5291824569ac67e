//! The world that is measured: a generated one by its name or sizes.

use clap::ValueEnum;

use crate::bench::workload::{BIG_W, W, Workload};

/// How large a generated world is.
#[derive(Debug, clap::Args)]
pub(crate) struct Size {
    /// W: 1,000 groups, 10,000 identities, 30,000 bindings; big-W: a hundred times as many
    #[arg(value_enum, ignore_case = true, default_value_t = Name::W)]
    workload: Name,

    /// Groups at the fifth level; those above them come on top
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    groups: Option<u64>,

    /// Identities
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    identities: Option<u64>,

    /// Role bindings of each identity: at most twelve times the groups
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    bindings_per_identity: Option<u64>,

    /// Another seed, another world of the same size
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// The workloads that have a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    #[value(name = "W")]
    W,
    #[value(name = "big-W")]
    BigW,
}

impl Size {
    pub(crate) fn workload(&self) -> Workload {
        let named = match self.workload {
            Name::W => W,
            Name::BigW => BIG_W,
        };
        let groups = self.groups.unwrap_or(named.groups);
        let bindings = self.bindings_per_identity.unwrap_or(named.bindings_per_identity);
        Workload {
            groups,
            identities: self.identities.unwrap_or(named.identities),
            bindings_per_identity: bindings.min(groups * 12),
            seed: self.seed.unwrap_or(named.seed),
        }
    }
}
