//! A world, indexed by the engine and by the yardstick, and what that took.

use anyhow::Context as _;
use capstan_benches::worlds::{Asked, World};
use capstan_benches::yardstick::Yardstick;
use capstan_engine::{Model, Snapshot};

use crate::measure::cost;
use crate::{COUNTING, Plan};

#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) world: World,
    pub(crate) snapshot: Snapshot,
    /// Nothing if the catalog is too wide for it.
    pub(crate) yardstick: Option<Yardstick>,
    pub(crate) bindings: usize,
    /// Bytes of what was declared.
    pub(crate) facts_bytes: usize,
    /// Seconds of proving the facts, and the most bytes beyond them.
    pub(crate) rules: (f64, usize),
    /// Seconds of indexing, and the most bytes beyond the facts.
    pub(crate) build: (f64, usize),
    /// Bytes that stay.
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

    /// Questions for every round, and for one before the first.
    pub(crate) fn asked(&self, plan: &Plan) -> Vec<Asked> {
        self.world.asked(0, ((plan.rounds + 1) * plan.questions) as u64)
    }

    /// Bytes of the index a binding.
    pub(crate) fn bytes_each(&self) -> f64 {
        self.bytes as f64 / self.bindings as f64
    }
}

/// What is made, in how many CPU seconds, and how many bytes more there were at most on the way.
pub(crate) fn measured<T>(work: impl FnOnce() -> T) -> (T, (f64, usize)) {
    let ((cost, done), peak) = COUNTING.peak_of(|| cost(work));
    (done, (cost.cpu / 1e9, peak))
}
