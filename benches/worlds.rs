//! Worlds of every size in the curves, and questions about them.
//!
//! Each world is W (`crates/bench/src/workload.rs`) with one size changed, except [`World::Depth`], which has
//! W's sizes with paths of one depth. Half of the questions are allowed. Of the others, two fifths are for a
//! capability that the role on the path lacks, two fifths at another resource, and one fifth of an unknown
//! identity. For identities with thousands of bindings, more questions are allowed, because they have nearly
//! every role at every scope.

#![expect(clippy::expect_used, reason = "a benchmark stops without its world")]

use std::fmt::Write as _;
use std::sync::Arc;

use capstan_engine::{
    Attributes, Catalog, CatalogFacts, CatalogResource, Change, Facts, Group, Identity, Model,
    Path, PathBuf, Question, RoleBinding,
};
use capstan_policy::Catalogs;

use capstan_bench::workload::{self, Workload};

/// The number of chains of groups in a world of one depth.
const CHAINS: u64 = 1_000;
/// The number of actions of each resource that fills up a catalog.
const ACTIONS: usize = 10;

/// The world to generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// About this number of bindings: three for each identity, ten identities for each group of level 5.
    Bindings(u64),
    /// W's groups and number of bindings, with this number for each identity.
    EachIdentity(u64),
    /// W with a catalog of this number of capabilities, at least W's. The answers are equal to W's.
    Capabilities(usize),
    /// Resources with this number of segments, 1 to 16, and scopes at any level above them.
    Depth(u64),
}

/// A question with owned texts.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The path of an identity.
    pub identity: String,
    /// The name of a capability.
    pub capability: String,
    /// The path of an unregistered resource.
    pub resource: String,
}

impl Asked {
    /// The question for the engine.
    #[must_use]
    pub fn question(&self) -> Question<'_> {
        Question {
            identity: Path::parse(&self.identity).expect("a path"),
            capability: &self.capability,
            resource: Path::parse(&self.resource).expect("a path"),
            attributes: Attributes::NONE,
        }
    }
}

impl World {
    /// The workload of the project's figures.
    pub const W: Self = Self::Bindings(30_000);
    /// The large world: 1,000,000 identities.
    pub const BIG_W: Self = Self::Bindings(3_000_000);

    fn workload(self) -> Workload {
        let w = workload::W;
        match self {
            Self::Bindings(bindings) => {
                let identities = bindings / w.bindings_per_identity;
                Workload { groups: (identities / 10).max(1), identities, ..w }
            }
            Self::EachIdentity(bindings_per_identity) => {
                let identities = (w.bindings() / bindings_per_identity).max(1);
                Workload { identities, bindings_per_identity, ..w }
            }
            Self::Capabilities(_) | Self::Depth(_) => w,
        }
    }

    /// All facts.
    #[must_use]
    pub fn facts(self) -> Facts {
        match self {
            Self::Depth(depth) => deep_facts(depth),
            _ => self.workload().facts(),
        }
    }

    /// W, or W with another number of bindings, as the changes from a store to a writer: one for each fact, every
    /// binding with an id.
    pub fn changes(self) -> impl Iterator<Item = Change> {
        let workload = self.workload();
        let groups = workload.groups().map(Change::CreateGroup);
        let identities = workload.identities().map(Change::CreateIdentity);
        let bindings = (0..).zip(workload.role_bindings());
        let bindings = bindings.map(|(at, one)| Change::CreateRoleBinding(with_id(one, at)));
        groups.chain(identities).chain(bindings)
    }

    /// [`Self::facts`] with an id for every binding, as in a store.
    #[must_use]
    pub fn facts_with_ids(self) -> Facts {
        let mut facts = self.facts();
        let bindings = std::mem::take(&mut facts.role_bindings).into_iter();
        facts.role_bindings = (0..).zip(bindings).map(|(at, one)| with_id(one, at)).collect();
        facts
    }

    /// The policy document of W, or of W with another number of bindings, as `capstan bench` writes it.
    #[must_use]
    pub fn document(self) -> Vec<u8> {
        let mut document = Vec::new();
        self.workload().write_document(&mut document).expect("a vector grows");
        document
    }

    /// The catalog of capabilities and roles.
    #[must_use]
    pub fn catalog(self) -> Arc<Catalog> {
        let catalog = Catalogs::default().get(workload::CATALOG).expect("a built-in catalog");
        match self {
            Self::Capabilities(wanted) if wanted > catalog.capabilities().len() => {
                Arc::new(Catalog::new(filled(&catalog, wanted)).expect("a consistent catalog"))
            }
            _ => catalog,
        }
    }

    /// The model of the facts.
    #[must_use]
    pub fn model(self) -> Model {
        Model::new(self.catalog(), self.facts()).expect("a consistent world")
    }

    /// This number of questions in pseudo-random order, starting at this index.
    #[must_use]
    pub fn asked(self, first: u64, count: u64) -> Vec<Asked> {
        let places = first..first + count;
        if let Self::Depth(depth) = self {
            let catalog = self.catalog();
            return places.map(|at| deep_question(&catalog, depth, at)).collect();
        }
        let queries = self.workload().queries();
        let names = match self {
            Self::Capabilities(wanted) => Names::new(&self.catalog(), wanted),
            _ => Names::default(),
        };
        places
            .map(|at| {
                let query = queries.get(at);
                let capability = names.another(query.capability, at);
                Asked { identity: query.identity, capability, resource: query.resource }
            })
            .collect()
    }
}

/// Gives a binding an id as in a store: its scope, and 16 pseudo-random hex digits.
#[must_use]
pub fn with_id(binding: RoleBinding, at: u64) -> RoleBinding {
    let id = format!("{}/{:016x}", binding.scope, mix(at));
    RoleBinding { id: Some(id.parse().expect("a path")), ..binding }
}

/// The questions for the engine.
#[must_use]
pub fn questions(asked: &[Asked]) -> Vec<Question<'_>> {
    asked.iter().map(Asked::question).collect()
}

// === Catalogs of any size ===

/// The filling capability of this index, and its counterpart in the small catalog.
fn filling(place: usize, own: usize) -> (String, usize) {
    (format!("service-{:05}.action-{}", place / ACTIONS, place % ACTIONS), place % own)
}

/// The catalog with filling capabilities: a role has one if it has its counterpart.
fn filled(catalog: &Catalog, wanted: usize) -> CatalogFacts {
    let own: Vec<&str> = catalog.capabilities().collect();
    let mut facts = catalog.facts().clone();
    let held: Vec<Vec<bool>> = facts
        .roles
        .iter()
        .map(|role| {
            own.iter().map(|own| role.capabilities.iter().any(|held| held == own)).collect()
        })
        .collect();
    for place in 0..wanted - own.len() {
        let (name, with) = filling(place, own.len());
        let (resource, action) = name.rsplit_once('.').expect("a resource and an action");
        if place % ACTIONS == 0 {
            let name = resource.to_owned();
            facts.resources.push(CatalogResource { name, ..CatalogResource::default() });
        }
        let resource = facts.resources.last_mut().expect("the resource of the capability");
        resource.actions.push(action.to_owned());
        for (role, held) in facts.roles.iter_mut().zip(&held) {
            if held.get(with) == Some(&true) {
                role.capabilities.push(name.clone());
            }
        }
    }
    facts
}

/// The filling capabilities of each counterpart.
#[derive(Debug, Default)]
struct Names {
    own: Vec<String>,
    fill: usize,
}

impl Names {
    fn new(catalog: &Catalog, wanted: usize) -> Self {
        let own = catalog.capabilities().filter(|name| !name.starts_with("service-"));
        let own: Vec<String> = own.map(str::to_owned).collect();
        Self { fill: wanted.saturating_sub(own.len()), own }
    }

    /// One of the filling capabilities of a capability, or the capability itself.
    fn another(&self, name: &str, at: u64) -> String {
        let with = self.own.iter().position(|own| own == name);
        let Some(with) = with.filter(|with| *with < self.fill) else { return name.to_owned() };
        let rounds = (self.fill - with).div_ceil(self.own.len());
        let round = usize::try_from(mix(at) % (rounds as u64 + 1)).unwrap_or_default();
        match round.checked_sub(1) {
            None => name.to_owned(),
            Some(round) => filling(round * self.own.len() + with, self.own.len()).0,
        }
    }
}

// === Worlds of one depth ===

/// The group of a chain at this level, from 1.
fn group(path: &mut String, chain: u64, level: u64) {
    let _ = write!(path, "{:016x}{:016x}{:08x}", mix(chain), mix(!chain), chain);
    for at in 2..=level {
        let _ = write!(path, "/{:016x}", mix(chain << 8 | at));
    }
}

fn group_path(chain: u64, level: u64) -> PathBuf {
    let mut path = String::new();
    group(&mut path, chain, level);
    path.parse().expect("a path")
}

fn deep_identity(at: u64) -> String {
    let mut path = String::new();
    group(&mut path, at % CHAINS, 1);
    let _ = write!(path, "/{:016x}", mix(at << 16 | 0xffff));
    path
}

/// The role, chain and level of a binding: one binding is in the identity's own chain, two are in any chain.
fn deep_binding(depth: u64, identity: u64, turn: u64, roles: u64) -> (u64, u64, u64) {
    let drawn = mix(identity << 4 | turn);
    let chain = if turn == 0 { identity % CHAINS } else { drawn % CHAINS };
    let level = 1 + (drawn >> 20) % depth.saturating_sub(1).max(1);
    ((mix(identity) + turn) % roles, chain, level)
}

fn deep_facts(depth: u64) -> Facts {
    let catalog = World::W.catalog();
    let roles = catalog.roles();
    let Workload { identities, bindings_per_identity, .. } = workload::W;
    let role = |at: u64| usize::try_from(at).ok().and_then(|at| roles.get(at));
    let groups = (0..CHAINS)
        .flat_map(|chain| (1..=depth.saturating_sub(1).max(1)).map(move |at| (chain, at)));
    let named = |at| deep_identity(at).parse::<PathBuf>().expect("a path");
    let turns = (0..identities).flat_map(|one| (0..bindings_per_identity).map(move |at| (one, at)));
    let bindings = turns.map(|(identity, turn)| {
        let (at, chain, level) = deep_binding(depth, identity, turn, roles.len() as u64);
        RoleBinding {
            id: None,
            identity: named(identity),
            role: role(at).expect("a role").name.as_str().into(),
            scope: group_path(chain, level),
            expires_at: None,
            when: Vec::new(),
        }
    });
    Facts {
        role_bindings: bindings.collect(),
        groups: groups
            .map(|(chain, at)| Group { id: group_path(chain, at), name: String::new() })
            .collect(),
        identities: (0..identities).map(|at| Identity::named(named(at))).collect(),
        ..Facts::default()
    }
}

fn deep_question(catalog: &Catalog, depth: u64, at: u64) -> Asked {
    let drawn = mix(at ^ 0xdeeb);
    let Workload { identities, bindings_per_identity, .. } = workload::W;
    let identity = drawn % identities;
    let turn = (drawn >> 16) % bindings_per_identity;
    let (role, chain, _) = deep_binding(depth, identity, turn, catalog.roles().len() as u64);
    let role = usize::try_from(role).ok().and_then(|at| catalog.roles().get(at));
    let held = &role.expect("a role").capabilities;
    let kind = (drawn >> 24) % 10;
    let lacking = || catalog.capabilities().filter(|name| !held.iter().any(|held| held == name));
    let nth = |count: usize| usize::try_from((drawn >> 32) % count.max(1) as u64).ok();
    let lacks = matches!(kind, 5 | 6).then(|| lacking().nth(nth(lacking().count())?)).flatten();
    let capability = lacks.or_else(|| held.get(nth(held.len())?).map(String::as_str));
    // The owner has every capability, so the denial is at another resource.
    let elsewhere = matches!(kind, 7 | 8) || (matches!(kind, 5 | 6) && lacks.is_none());
    let chain = if elsewhere { mix(drawn) % CHAINS } else { chain };
    let mut resource = String::new();
    group(&mut resource, chain, depth.saturating_sub(1).max(1));
    if depth > 1 {
        let _ = write!(resource, "/{:011x}", drawn >> 20);
    }
    let identity = if kind == 9 { identities + identity } else { identity };
    let capability = capability.unwrap_or_default().to_owned();
    Asked { identity: deep_identity(identity), capability, resource }
}

/// A pseudo-random bijection (the finalizer of SplitMix64).
const fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// This number of viewers at one group, `acme`, for lists of identities with many pages.
///
/// # Panics
///
/// Never: the facts are valid.
#[must_use]
pub fn viewers(count: u32) -> Model {
    let scope: PathBuf = "acme".parse().expect("a path");
    let id = |at: u32| -> PathBuf { format!("acme/viewer-{at:05}").parse().expect("a path") };
    let facts = Facts {
        groups: vec![Group { id: scope.clone(), name: String::new() }],
        identities: (0..count).map(|at| Identity::named(id(at))).collect(),
        role_bindings: (0..count)
            .map(|at| RoleBinding {
                id: None,
                identity: id(at),
                role: "viewer".into(),
                scope: scope.clone(),
                expires_at: None,
                when: vec![],
            })
            .collect(),
        ..Facts::default()
    };
    Model::new(World::W.catalog(), facts).expect("valid facts")
}
