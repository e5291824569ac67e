//! The world that is measured: a generated one by its name or sizes, or any policy document.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use capstan_engine::{Model, Snapshot};
use capstan_policy::Catalogs;
use capstan_proto::v1;
use clap::ValueEnum;

use crate::bench::child::Folder;
use crate::bench::questions;
use crate::bench::workload::{BIG_W, CATALOG, W, Workload};
use crate::cli::queries::Query;
use crate::source::{Source, load_catalogs};

/// How large a generated world is, if not as large as one that has a name.
#[derive(Debug, clap::Args)]
pub(crate) struct Size {
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
pub(crate) enum Name {
    #[value(name = "W")]
    W,
    #[value(name = "big-W")]
    BigW,
}

impl Size {
    pub(crate) fn of(&self, name: Name) -> Workload {
        let named = match name {
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

/// What is asked about.
#[derive(Debug, clap::Args)]
pub(crate) struct World {
    /// Ask about this policy document
    #[arg(long, value_name = "FILE", conflicts_with = "workload")]
    policy: Option<PathBuf>,

    /// Catalogs that the policy document can name, beside the built-in ones
    #[arg(long, value_name = "NAME|FILE")]
    catalog: Vec<String>,

    /// Ask about a generated world. W: 1,000 groups, 10,000 identities, 30,000 bindings; big-W: a
    /// hundred times as many
    #[arg(long, value_enum, ignore_case = true, default_value_t = Name::W)]
    workload: Name,

    #[command(flatten)]
    size: Size,

    /// Ask these, one JSON object a line as `capstan check --file` takes them, instead of drawn ones
    #[arg(long, value_name = "FILE.ndjson")]
    queries: Option<PathBuf>,

    /// How many different questions to draw; they are asked in turn
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    questions: u64,
}

impl World {
    /// What a server of this world is started with; the folder is for a document that is generated.
    pub(crate) fn serve(&self, folder: &Folder) -> anyhow::Result<Vec<String>> {
        let path = match &self.policy {
            Some(path) => path.clone(),
            None => {
                let path = folder.file("policy.json");
                let write = || {
                    let mut out = BufWriter::new(File::create(&path)?);
                    self.generated().write_document(&mut out)?;
                    out.flush()
                };
                write().with_context(|| format!("cannot write {}", path.display()))?;
                path
            }
        };
        let path = path.to_str().with_context(|| format!("{} is no text", path.display()))?;
        let mut arguments =
            ["serve", "--policy", path, "--http", "none"].map(str::to_owned).to_vec();
        // Big W is a document beyond the limit, and this one is not from a stranger.
        arguments.extend(["--max-document-bytes".into(), u64::MAX.to_string()]);
        for catalog in &self.catalog {
            arguments.extend(["--catalog".into(), catalog.clone()]);
        }
        Ok(arguments)
    }

    /// The questions; and if wanted what answers them in this process.
    pub(crate) fn questions(
        &self,
        verify: bool,
    ) -> anyhow::Result<(Vec<v1::CheckItem>, Option<Snapshot>)> {
        let needs_model = verify || (self.policy.is_some() && self.queries.is_none());
        let model = needs_model.then(|| self.model()).transpose()?;
        let checks = match (&self.queries, &model) {
            (Some(path), _) => read(path)?,
            (None, Some(model)) if self.policy.is_some() => {
                questions::of_policy(model, self.questions)
            }
            (None, _) => {
                let queries = self.generated().queries();
                let check = |query: crate::bench::workload::Query<'_>| v1::CheckItem {
                    identity: query.identity,
                    capability: query.capability.into(),
                    resource: query.resource,
                    properties: None,
                };
                (0..self.questions).map(|at| check(queries.get(at))).collect()
            }
        };
        if checks.is_empty() {
            return Err(anyhow!("there is nothing to ask"));
        }
        let model = model.as_ref().filter(|_| verify);
        let snapshot = model.map(|model| Snapshot::build(model, 1)).transpose()?;
        Ok((checks, snapshot))
    }

    fn generated(&self) -> Workload {
        self.size.of(self.workload)
    }

    fn model(&self) -> anyhow::Result<Model> {
        let catalogs = load_catalogs(&self.catalog)?;
        match &self.policy {
            Some(path) => {
                let source = Source::File { path: path.clone(), bytes_max: u64::MAX };
                Ok(source.load(&catalogs)?.model)
            }
            None => {
                let catalog = Catalogs::default().get(CATALOG);
                let catalog = catalog.with_context(|| format!("no catalog `{CATALOG}`"))?;
                let violation = |found: capstan_engine::FactsError| {
                    anyhow!("the workload is inconsistent in {} places", found.total())
                };
                Model::new(catalog, self.generated().facts()).map_err(violation)
            }
        }
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<v1::CheckItem>> {
    let name = path.display();
    let cannot = || format!("cannot read {name}");
    let mut checks = Vec::new();
    for (at, line) in BufReader::new(File::open(path).with_context(cannot)?).lines().enumerate() {
        let line = line.with_context(cannot)?;
        if line.trim().is_empty() {
            continue;
        }
        let query = Query::parse(&line).map_err(|error| anyhow!("{name}:{}: {error}", at + 1))?;
        checks.push(query.into_item());
    }
    Ok(checks)
}
