//! Generators of small worlds with many corner cases, for property tests, and of many questions about each
//! world. Small worlds reveal most bugs.
//!
//! **Invariant**: every generated policy is *valid*. A draw is a proposal, such as a segment or a position in
//! a list. [`World`] is built from the draws in order, without those that would break a rule of section 3 of
//! the contract. Draws shrink independently, so failures shrink well.
//!
//! Draws come from proptest's strategies or, for a fuzzer, from bytes, one decision after the other
//! ([`asked_from`]). The strategies cannot use a fuzzer's bytes directly (`RngAlgorithm::PassThrough`):
//! whenever `prop_oneof` does not choose its first branch, it reserves half of the remaining bytes for each
//! earlier branch. After a dozen choices, all further bytes would be zero.

mod build;
mod bytes;
mod draw;

use std::collections::BTreeSet;
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
    NO_SEGMENTS, SEGMENTS, WorldDraw, binding_draw, capabilities_draw, catalog, now, owner_draw,
    place, question_draw, role_draw,
};

/// A generated policy, and the time of the questions.
#[derive(Clone, Debug)]
pub struct World {
    /// A catalog that [`Catalog::new`] accepts.
    pub catalog: CatalogFacts,
    /// Facts that [`Model::new`] accepts.
    pub facts: Facts,
    /// The time of the questions. The expiries of the bindings are around it.
    pub now: Timestamp,
}

/// A question about a world. It has owned names, so that it can be asked of a changed world, too.
#[derive(Clone, Debug)]
pub struct Question {
    /// Usually an identity of the world, otherwise an unknown one or a prefix of a known one.
    pub identity: PathBuf,
    /// Usually a capability of the catalog, otherwise an unknown one.
    pub capability: String,
    /// A scope, its child, parent or sibling, or an unrelated path.
    pub resource: PathBuf,
    /// Supplied properties. Some have another registered value, some meet a condition.
    pub attributes: Attributes,
}

impl World {
    /// The model of the world.
    ///
    /// # Errors
    ///
    /// If the world is not valid: a bug of this generator or of the engine.
    pub fn model(&self) -> Result<Model, FactsError> {
        let catalog = Catalog::new(self.catalog.clone())?;
        Model::new(Arc::new(catalog), self.facts.clone())
    }

    /// The ids of all identities, registered or only bound, in order.
    #[must_use]
    pub fn identities(&self) -> BTreeSet<&PathBuf> {
        let registered = self.facts.identities.iter().map(|identity| &identity.id);
        registered.chain(self.facts.role_bindings.iter().map(|bound| &bound.identity)).collect()
    }
}

/// The time this number of nanoseconds later, or earlier if negative.
#[must_use]
pub fn later(time: Timestamp, nanos: i64) -> Timestamp {
    let nanos = i64::from(time.nanos()) + nanos;
    let seconds = time.seconds() + nanos.div_euclid(1_000_000_000);
    let nanos = nanos.rem_euclid(1_000_000_000);
    Timestamp::new(seconds, u32::try_from(nanos).unwrap_or_default())
}

/// Draws worlds.
pub fn world() -> impl Strategy<Value = World> {
    let catalog = (catalog(), vec(role_draw(), 0..=4), option::of(place()));
    let tree = (
        vec((option::weighted(0.75, place()), select(&SEGMENTS[..])), 1..=4),
        vec((place(), select(&SEGMENTS[..]), capabilities_draw()), 0..=3),
        vec((owner_draw(), bool::weighted(0.15)), 1..=4),
        vec(owner_draw(), 0..=3),
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

/// Draws worlds with at least eight questions each.
pub fn asked() -> impl Strategy<Value = (World, Vec<Question>)> {
    (world(), vec(question_draw(), 8..=12)).prop_map(|(world, draws)| {
        let questions = draws.iter().filter_map(|draw| draw.about(&world)).collect();
        (world, questions)
    })
}

/// Draws questions about one world.
pub fn question(world: &World) -> impl Strategy<Value = Question> + use<> {
    let world = world.clone();
    question_draw().prop_filter_map("at a limit of paths", move |draw| draw.about(&world))
}

/// Draws texts that are paths or nearly paths, at and just over every limit of section 2.
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
    // Long segments, so that the limit of bytes is reached before the limit of segments.
    let long = (1020usize..=1027, 90usize..=128).prop_map(|(bytes, each)| {
        (1..=bytes).map(|at| if at % (each + 1) == 0 && at < bytes { '/' } else { 'y' }).collect()
    });
    prop_oneof![60 => joined, 10 => long, 1 => Just(String::new())]
}
