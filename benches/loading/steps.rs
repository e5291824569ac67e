//! The ways in which a policy comes into a process, and what each step of them costs.

use std::hint::black_box;
use std::sync::Arc;

use anyhow::{Context as _, ensure};
use capstan_benches::clock::{Cost, cost};
use capstan_benches::worlds::World;
use capstan_engine::{
    Change, Difference, DifferenceError, FactSink, Facts, Loader, Model, RoleBinding, Snapshot,
    Timestamp, Writer,
};
use capstan_policy::{Catalogs, load_policy};

use crate::COUNTING;

/// One step, measured once. Bytes are those requested from the allocator, without its overhead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    pub(crate) bindings: usize,
    pub(crate) cost: Cost,
    /// The most bytes in use during the step, beyond those in use before.
    pub(crate) peak: usize,
    /// Bytes that the result takes, beyond those in use before.
    pub(crate) kept: usize,
}

/// A way of loading, and the name that selects it.
type Way = (&'static str, fn(World) -> anyhow::Result<Vec<Step>>);

/// All ways, in the order in which they are measured.
pub(crate) const WAYS: [Way; 5] = [
    ("facts", from_facts),
    ("document", from_document),
    ("changes", |world| through_a_writer("changes", world, &without_ids(world))),
    ("changes-with-ids", |world| {
        through_a_writer("changes with ids", world, &world.changes().collect::<Vec<_>>())
    }),
    ("differences", differences),
];

/// The facts of a document: the rules, and then the index.
fn from_facts(world: World) -> anyhow::Result<Vec<Step>> {
    let (facts, catalog) = (world.facts(), world.catalog());
    let bindings = facts.role_bindings.len();
    let (model, rules) = step("rules", bindings, || Model::new(catalog, facts).ok());
    let model = model.context("the world breaks a rule")?;
    let (snapshot, index) = step("index", bindings, || Snapshot::build(&model, 1).ok());
    complete(&snapshot.context("the index is full")?, bindings)?;
    Ok(vec![rules, index])
}

/// The text of a document into facts that keep the rules.
fn from_document(world: World) -> anyhow::Result<Vec<Step>> {
    let (text, catalogs) = (world.document(), Catalogs::default());
    let (policy, read) = step("document", 0, || load_policy(&text, &catalogs).ok());
    let policy = policy.context("the document does not load")?;
    Ok(vec![Step { bindings: policy.model.facts().role_bindings.len(), ..read }])
}

/// Changes to an empty policy, applied all at once, as a store hands them over, and published once.
fn through_a_writer(
    name: &'static str,
    world: World,
    changes: &[Change],
) -> anyhow::Result<Vec<Step>> {
    let is_binding = |change: &&Change| matches!(change, Change::CreateRoleBinding(_));
    let bindings = changes.iter().filter(is_binding).count();
    let nothing = Model::new(world.catalog(), Facts::default());
    let empty = Snapshot::build(&nothing.ok().context("an empty world breaks a rule")?, 1)?;
    let (published, step) = step(name, bindings, || {
        let mut writer = Writer::new(&empty);
        writer.apply(changes).map(|()| writer.publish(2))
    });
    complete(&*published?, bindings)?;
    Ok(vec![step])
}

/// The changes that make the world, every binding with a derived id.
fn without_ids(world: World) -> Vec<Change> {
    let without_id = |change| match change {
        Change::CreateRoleBinding(binding) => {
            Change::CreateRoleBinding(RoleBinding { id: None, ..binding })
        }
        other => other,
    };
    world.changes().map(without_id).collect()
}

/// One in so many bindings differs from those of the served snapshot.
const DIFFERENT: [(&str, usize); 7] = [
    ("difference: none", usize::MAX),
    ("difference: 1 in 1000", 1_000),
    ("difference: 1 in 100", 100),
    ("difference: 1 in 30", 30),
    ("difference: 1 in 10", 10),
    ("difference: 1 in 3", 3),
    ("difference: all", 1),
];

/// Facts against those of a served snapshot, and the same facts without it.
fn differences(world: World) -> anyhow::Result<Vec<Step>> {
    let (facts, catalog) = (world.facts(), world.catalog());
    let bindings = facts.role_bindings.len();
    let loaded = |facts: Facts| -> anyhow::Result<Snapshot> {
        let mut loader = Loader::new(Arc::clone(&catalog));
        put(&mut loader, facts)?;
        Ok(loader.finish(1)?)
    };
    let clone = facts.clone();
    let (served, anew) = step("anew", bindings, || loaded(clone));
    let served = served?;
    let mut steps = vec![anew];
    for (name, one_in) in DIFFERENT {
        let mut changed = facts.clone();
        for binding in changed.role_bindings.iter_mut().step_by(one_in).skip(1) {
            binding.expires_at = Some(Timestamp::new(4_000_000_000, 0));
        }
        let (made, step) = step(name, bindings, || -> Result<Snapshot, DifferenceError> {
            let mut difference = Difference::new(&served, &catalog)?;
            put(&mut difference, changed)?;
            difference.finish(2)
        });
        match made {
            Ok(made) => complete(&made, bindings)?,
            // It says so before the end, and the others would, too.
            Err(DifferenceError::TooMuch) => break,
            Err(error) => return Err(error.into()),
        }
        steps.push(step);
    }
    Ok(steps)
}

fn put<S: FactSink>(sink: &mut S, facts: Facts) -> Result<(), S::Error> {
    facts.groups.into_iter().try_for_each(|one| sink.group(one))?;
    facts.roles.into_iter().try_for_each(|one| sink.role(one))?;
    facts.identities.into_iter().try_for_each(|one| sink.identity(one))?;
    facts.resources.into_iter().try_for_each(|one| sink.resource(one))?;
    facts.role_bindings.into_iter().try_for_each(|one| sink.role_binding(one))
}

fn complete(snapshot: &Snapshot, bindings: usize) -> anyhow::Result<()> {
    ensure!(snapshot.bindings_len() == bindings, "bindings are missing");
    Ok(())
}

fn step<T>(name: &'static str, bindings: usize, work: impl FnOnce() -> T) -> (T, Step) {
    let before = COUNTING.in_use();
    let ((cost, done), peak) = COUNTING.peak_of(|| cost(work));
    let kept = COUNTING.in_use().saturating_sub(before);
    (black_box(done), Step { name, bindings, cost, peak, kept })
}
