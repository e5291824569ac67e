//! A world, indexed by the engine and by the yardstick, with the time and memory of indexing.

use anyhow::Context as _;
use capstan_benches::clock::cost;
use capstan_benches::worlds::{Asked, World};
use capstan_benches::yardstick::Yardstick;
use capstan_engine::{Model, Snapshot};

use crate::{COUNTING, Plan};

#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) world: World,
    pub(crate) snapshot: Snapshot,
    /// `None` if the catalog is too wide for the yardstick.
    pub(crate) yardstick: Option<Yardstick>,
    pub(crate) bindings: usize,
    /// The bytes of the facts.
    pub(crate) facts_bytes: usize,
    /// The seconds of validating the facts, and the peak of bytes beyond them.
    pub(crate) rules: (f64, usize),
    /// The seconds of indexing, and the peak of bytes beyond the facts.
    pub(crate) build: (f64, usize),
    /// The bytes of the finished index.
    pub(crate) bytes: usize,
    pub(crate) yardstick_bytes: usize,
}

impl Built {
    pub(crate) fn new(world: World) -> anyhow::Result<Self> {
        let before = COUNTING.in_use();
        let facts = world.facts();
        let facts_bytes = COUNTING.in_use() - before;
        let catalog = world.catalog();
        let (model, rules) = measured(|| Model::new(catalog, facts));
        let model = model.ok().context("the world breaks a rule")?;
        let before = COUNTING.in_use();
        let (snapshot, build) = measured(|| Snapshot::build(&model, 1));
        let snapshot = snapshot?;
        let bytes = COUNTING.in_use() - before;
        let before = COUNTING.in_use();
        let yardstick = Yardstick::build(&model);
        Ok(Self {
            world,
            bindings: snapshot.bindings_len(),
            snapshot,
            yardstick,
            facts_bytes,
            rules,
            build,
            bytes,
            yardstick_bytes: COUNTING.in_use() - before,
        })
    }

    /// Questions for every round, and for one warm-up round.
    pub(crate) fn asked(&self, plan: &Plan) -> Vec<Asked> {
        self.world.asked(0, ((plan.rounds + 1) * plan.questions) as u64)
    }

    /// The bytes of the index per binding.
    pub(crate) fn bytes_each(&self) -> f64 {
        self.bytes as f64 / self.bindings as f64
    }
}

/// Runs `make`. Returns its result, the CPU seconds, and the peak of additional bytes.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> (T, (f64, usize)) {
    let ((cost, done), peak) = COUNTING.peak_of(|| cost(work));
    (done, (cost.cpu / 1e9, peak))
}
