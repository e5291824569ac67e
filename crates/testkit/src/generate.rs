//! Small, nasty worlds for property tests: bugs hide in small worlds, so ask many questions of
//! each.
//!
//! **Invariant**: whatever is drawn becomes a *valid* policy. Draws say what to try (a segment, a
//! place in a list); [`World`] is built from them in order, and what would break a rule of
//! section 3 of the contract is left out. Draws shrink independently, so failures shrink well.
//!
//! Draws come from proptest's strategies; or from bytes, one decision after another
//! ([`asked_from`]), for a fuzzer. Running the strategies themselves on a fuzzer's bytes
//! (`RngAlgorithm::PassThrough`) would not do: whenever `prop_oneof` takes another than its first
//! branch, it sets aside half of the bytes that are left for each branch before, so that after a
//! dozen choices all that follows is zero.

mod build;
mod bytes;
mod draw;

use std::sync::Arc;

use capstan_engine::{
    Attributes, Catalog, CatalogFacts, Facts, FactsError, Model, PathBuf, Timestamp,
};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::select;
use proptest::{bool, option};

pub use bytes::asked_from;

use draw::{
    NO_SEGMENTS, SEGMENTS, WorldDraw, binding_draw, capabilities_draw, catalog, now, place,
    properties_draw, question_draw, role_draw,
};

/// A generated policy, and the time to ask at.
#[derive(Clone, Debug)]
pub struct World {
    /// The catalog, which [`Catalog::new`] accepts.
    pub catalog: CatalogFacts,
    /// The policy, which [`Model::new`] accepts.
    pub facts: Facts,
    /// The expiries of the bindings lie around it.
    pub now: Timestamp,
}

/// A question about a world, kept by name so that it can be asked of a changed one too.
#[derive(Clone, Debug)]
pub struct Question {
    /// Who: mostly an identity of the world, else an unknown or a prefix of a known one.
    pub identity: PathBuf,
    /// What: mostly a capability of the catalog, else an unknown one.
    pub capability: String,
    /// Where: a scope, its child, parent or neighbour, or somewhere unrelated.
    pub resource: PathBuf,
    /// What is supplied: some of it registered otherwise, some of it wanted by a binding.
    pub attributes: Attributes,
}

impl World {
    /// The policy, proved.
    ///
    /// # Errors
    ///
    /// The rules that the world breaks: a bug of this generator, or of the engine.
    pub fn model(&self) -> Result<Model, FactsError> {
        let catalog = Catalog::new(self.catalog.clone())?;
        Model::new(Arc::new(catalog), self.facts.clone())
    }
}

/// A point in time, so many nanoseconds later (or before).
#[must_use]
pub fn later(time: Timestamp, nanos: i64) -> Timestamp {
    let nanos = i64::from(time.nanos()) + nanos;
    let seconds = time.seconds() + nanos.div_euclid(1_000_000_000);
    let nanos = nanos.rem_euclid(1_000_000_000);
    Timestamp::new(seconds, u32::try_from(nanos).unwrap_or_default())
}

/// Worlds.
pub fn world() -> impl Strategy<Value = World> {
    let catalog = (catalog(), vec(role_draw(), 0..=4), option::of(place()));
    let tree = (
        vec((option::weighted(0.75, place()), select(&SEGMENTS[..])), 1..=4),
        vec((place(), select(&SEGMENTS[..]), capabilities_draw()), 0..=3),
        vec((option::of(place()), select(&SEGMENTS[..]), properties_draw()), 1..=4),
        vec((option::of(place()), select(&SEGMENTS[..]), properties_draw()), 0..=3),
    );
    let bindings = prop_oneof![15 => vec(binding_draw(), 0..=12), 1 => vec(binding_draw(), 230)];
    let corners = (bool::weighted(0.06), now());
    (catalog, tree, bindings, corners).prop_map(|(catalog, tree, bindings, (deep, now))| {
        let (catalog, built_in_roles, owner) = catalog;
        let (groups, custom_roles, identities, resources) = tree;
        let draw = WorldDraw {
            catalog,
            built_in_roles,
            owner,
            groups,
            custom_roles,
            identities,
            resources,
            bindings,
            deep,
            now,
        };
        draw.world()
    })
}

/// Worlds with questions about them, at least eight each.
pub fn asked() -> impl Strategy<Value = (World, Vec<Question>)> {
    (world(), vec(question_draw(), 8..=12)).prop_map(|(world, draws)| {
        let questions = draws.iter().filter_map(|draw| draw.about(&world)).collect();
        (world, questions)
    })
}

/// Questions about one world.
pub fn question(world: &World) -> impl Strategy<Value = Question> + use<> {
    let world = world.clone();
    question_draw().prop_filter_map("at a limit of paths", move |draw| draw.about(&world))
}

/// Texts that are paths, or nearly: every limit of section 2 is met, and passed by one.
pub fn near_path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        40 => select(&SEGMENTS[..]).prop_map(str::to_owned),
        40 => "[A-Za-z0-9._~@:+=-]{1,8}",
        1 => select(&NO_SEGMENTS[..]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => (126usize..=130).prop_map(|chars| "x".repeat(chars)),
        1 => (62usize..=66).prop_map(|chars| "\u{e9}".repeat(chars)),
    ];
    let separator = prop_oneof![100 => Just("/"), 1 => Just("//"), 1 => Just("\\")];
    let joined =
        (vec((segment, separator), 1..=18), bool::weighted(0.05)).prop_map(|(segments, open)| {
            let mut text: String =
                segments.iter().flat_map(|(segment, separator)| [segment, *separator]).collect();
            if !open {
                text.truncate(text.rfind(['/', '\\']).unwrap_or(text.len()));
            }
            text
        });
    // Long segments so that the limit on bytes is met before the one on segments.
    let long = (1020usize..=1027, 90usize..=128).prop_map(|(bytes, each)| {
        (1..=bytes).map(|at| if at % (each + 1) == 0 && at < bytes { '/' } else { 'y' }).collect()
    });
    prop_oneof![60 => joined, 10 => long, 1 => Just(String::new())]
}
