//! The policy to measure on: a generated workload, or a policy document.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use capstan_engine::{Attributes, Model, Snapshot};
use capstan_policy::Catalogs;
use clap::ValueEnum;

use crate::completion;
use crate::queries::Query;
use capstan_bench::child::Folder;
use capstan_bench::questions::{QuestionBuf, of_policy};
use capstan_bench::workload::{BIG_W, CATALOG, W, Workload};
use capstan_server::feed::source::{Source, load_catalogs};

/// The parameters of a generated workload, instead of those of a named one.
#[derive(Debug, clap::Args)]
pub(crate) struct Size {
    /// Groups at level 5; the groups above them are additional
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    groups: Option<u64>,

    /// Identities
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    identities: Option<u64>,

    /// Role bindings of each identity: at most 12 times the groups
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    bindings_per_identity: Option<u64>,

    /// The seed of names and bindings
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// The named workloads.
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

/// The options that choose the policy and the questions.
#[derive(Debug, clap::Args)]
pub(crate) struct World {
    /// Measure on this policy document
    #[arg(long, value_name = "FILE", conflicts_with = "workload")]
    policy: Option<PathBuf>,

    /// Additional catalogs that the policy document can name: a built-in catalog's name or a file;
    /// repeat for several
    #[arg(long, value_name = "NAME|FILE", add = completion::catalog())]
    catalog: Vec<String>,

    /// Measure on a generated policy. W: 1,000 groups, 10,000 identities, 30,000 bindings; big-W: 100
    /// times as many
    #[arg(long, value_enum, ignore_case = true, default_value_t = Name::W)]
    workload: Name,

    #[command(flatten)]
    size: Size,

    /// Ask these questions, one JSON object per line as for `capstan check --file`, instead of random ones
    #[arg(long, value_name = "FILE.ndjson")]
    queries: Option<PathBuf>,

    /// Number of different random questions; they are sent in order, and again from the first
    #[arg(long, value_name = "N", default_value_t = 100_000,
          value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    questions: u64,
}

impl World {
    /// The arguments of a server of this policy. A generated document is written to the folder.
    ///
    /// # Errors
    ///
    /// The document cannot be written, or its path is not UTF-8.
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
        // big-W is larger than the default limit, which protects against documents of others.
        arguments.extend(["--max-document-bytes".into(), u64::MAX.to_string()]);
        for catalog in &self.catalog {
            arguments.extend(["--catalog".into(), catalog.clone()]);
        }
        Ok(arguments)
    }

    /// The questions, and with `verify` the snapshot that answers them in this process.
    ///
    /// # Errors
    ///
    /// A document or a query line cannot be read, or there are no questions.
    pub(crate) fn questions(
        &self,
        verify: bool,
    ) -> anyhow::Result<(Vec<QuestionBuf>, Option<Snapshot>)> {
        let needs_model = verify || (self.policy.is_some() && self.queries.is_none());
        let model = needs_model.then(|| self.model()).transpose()?;
        let questions = match (&self.queries, &model) {
            (Some(path), _) => read(path)?,
            (None, Some(model)) if self.policy.is_some() => of_policy(model, self.questions),
            (None, _) => {
                let queries = self.generated().queries();
                let question = |query: capstan_bench::workload::Query<'_>| QuestionBuf {
                    identity: query.identity,
                    capability: query.capability.into(),
                    resource: query.resource,
                    attributes: Attributes::default(),
                };
                (0..self.questions).map(|at| question(queries.get(at))).collect()
            }
        };
        if questions.is_empty() {
            return Err(anyhow!("there are no questions to ask"));
        }
        let model = model.as_ref().filter(|_| verify);
        let snapshot = model.map(|model| Snapshot::build(model, 1)).transpose()?;
        Ok((questions, snapshot))
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

/// Reads query lines.
fn read(path: &Path) -> anyhow::Result<Vec<QuestionBuf>> {
    let name = path.display();
    let cannot = || format!("cannot read {name}");
    let mut questions = Vec::new();
    for (at, line) in BufReader::new(File::open(path).with_context(cannot)?).lines().enumerate() {
        let line = line.with_context(cannot)?;
        if line.trim().is_empty() {
            continue;
        }
        let at = at + 1;
        let query = Query::parse(&line).map_err(|error| anyhow!("{name}:{at}: {error}"))?;
        let Query { identity, capability, resource, properties } = query;
        let attributes = properties.attributes().with_context(|| format!("{name}:{at}"))?;
        questions.push(QuestionBuf { identity, capability, resource, attributes });
    }
    Ok(questions)
}
