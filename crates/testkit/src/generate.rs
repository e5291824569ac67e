//! Small, nasty worlds for property tests: bugs hide in small worlds, so ask many questions of
//! each.
//!
//! **Invariant**: whatever is drawn becomes a *valid* policy. Draws say what to try (a segment, a
//! place in a list); [`World`] is built from them in order, and what would break a rule of
//! section 3 of the contract is left out. Draws shrink independently, so failures shrink well.

use std::collections::BTreeSet;
use std::sync::Arc;

use capstan_engine::{
    Catalog, CatalogFacts, CatalogResource, CatalogRole, CustomRole, Facts, Family, Group,
    Identity, Model, PathBuf, Properties, RegisteredResource, RoleBinding, Timestamp, Violations,
};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof};
use proptest::sample::{Index, select};
use proptest::{bool, option};

use crate::naive::is_path;

/// Segments that are prefixes of each other. `+`, `-` and `.` sort before `/`, the others after.
const SEGMENTS: [&str; 14] =
    ["a", "ab", "a.b", "a-", "a+", "a~", "b", "bc", "org1", "org10", "A", "0", "1e5", "..."];
const NO_SEGMENTS: [&str; 11] =
    ["", ".", "..", "%2e", "a b", "a\\b", "\u{e9}", "\u{ff41}", "a\0", "a\n", "*"];
/// Together with `ACTIONS`, names where only the last dot tells resource from action.
const RESOURCES: [&str; 7] =
    ["manifest", "manifest.metadata", "manifest.metadata.list", "repo", "a", "a.b", "gulf"];
const ACTIONS: [&str; 6] = ["list", "create", "metadata", "b", "a", "list-all"];
const OPAQUE: [&str; 3] = ["gulfstream", "gulf", "a"];
const ROLES: [&str; 5] = ["owner", "viewer", "view", "viewer.plus", "a"];
const DEPTH_MAX: usize = 16;

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
}

impl World {
    /// The policy, proved.
    ///
    /// # Errors
    ///
    /// The rules that the world breaks: a bug of this generator, or of the engine.
    pub fn model(&self) -> Result<Model, Violations> {
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
    let catalog = (catalog(), vec(role_draw(), 0..=4), option::of(any::<Index>()));
    let tree = (
        vec((option::weighted(0.75, any::<Index>()), select(&SEGMENTS[..])), 1..=4),
        vec((any::<Index>(), select(&SEGMENTS[..]), capabilities_draw()), 0..=3),
        vec((option::of(any::<Index>()), select(&SEGMENTS[..])), 1..=4),
        vec((option::of(any::<Index>()), select(&SEGMENTS[..])), 0..=3),
    );
    let bindings = prop_oneof![15 => vec(binding_draw(), 0..=12), 1 => vec(binding_draw(), 230)];
    let corners = (bool::weighted(0.06), now());
    (catalog, tree, bindings, corners).prop_map(
        |((catalog, roles, owner), tree, bindings, corners)| {
            let (groups, custom_roles, identities, resources) = tree;
            let (deep, now) = corners;
            let mut builder = Builder::new(catalog, now);
            builder.built_in_roles(&roles, owner);
            groups.iter().for_each(|(parent, segment)| builder.group(*parent, segment));
            if deep {
                builder.deepen();
            }
            for (parent, segment, capabilities) in &custom_roles {
                builder.custom_role(*parent, segment, capabilities);
            }
            identities.iter().for_each(|(parent, segment)| builder.identity(*parent, segment));
            if builder.world.facts.identities.is_empty() {
                builder.identity(None, "someone");
            }
            resources.iter().for_each(|(parent, segment)| builder.resource(*parent, segment));
            let crowded = bindings.len() > 12;
            if crowded {
                builder.widen(80);
            }
            bindings.iter().for_each(|binding| builder.binding(binding, crowded));
            builder.world
        },
    )
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

// === draws ===

#[derive(Clone, Debug)]
enum CapabilitiesDraw {
    Some(Vec<Index>),
    /// The first and last of the catalog: both ends of the first and the last word of bits.
    Ends,
    All,
}

#[derive(Clone, Debug)]
struct BindingDraw {
    identity: Index,
    role: Index,
    scope: Index,
    expiry: Expiry,
    id: Option<&'static str>,
}

#[derive(Clone, Copy, Debug)]
enum Expiry {
    Never,
    /// So many nanoseconds after now.
    Around(i64),
    /// The whole second that now is in, and so many after it.
    WholeSecond(i64),
}

#[derive(Clone, Debug)]
struct QuestionDraw {
    /// The question is about this binding, so that some are granted.
    binding: Option<Index>,
    identity: (u8, Index),
    capability: (u8, Index),
    resource: (Where, Index),
}

#[derive(Clone, Copy, Debug)]
enum Where {
    Scope,
    Below(&'static str),
    /// The same text and more in the last segment: `a/b` becomes `a/bc`.
    Beside(&'static str),
    /// The text without its last character, if that is a path.
    Shortened,
    Parent,
    Unrelated,
}

fn now() -> impl Strategy<Value = Timestamp> {
    let seconds = prop_oneof![4 => Just(1_790_000_000), 1 => Just(0), 1 => Just(-1)];
    let nanos = prop_oneof![Just(0), Just(1), Just(500_000_000), Just(999_999_999)];
    (seconds, nanos).prop_map(|(seconds, nanos)| Timestamp::new(seconds, nanos))
}

fn catalog() -> impl Strategy<Value = CatalogFacts> {
    let actions = prop::sample::subsequence(&ACTIONS[..], 1..=4);
    let drawn = (select(&RESOURCES[..]), actions);
    // Around one and two words of bits, counted with what else the catalog has.
    let wide = prop_oneof![10 => Just(0usize), 2 => 50usize..=66, 2 => 110usize..=135];
    let opaque = prop::sample::subsequence(&OPAQUE[..], 0..=3);
    (vec(drawn, 1..=5), wide, opaque).prop_map(|(draws, wide, opaque)| {
        let mut catalog = CatalogFacts { name: "generated".into(), ..CatalogFacts::default() };
        for (name, actions) in draws {
            if catalog.resources.iter().all(|resource| resource.name != name) {
                catalog.resources.push(resource(name, actions.into_iter().map(str::to_owned)));
            }
        }
        if wide > 0 {
            catalog.resources.push(resource("m", (0..wide).map(|action| format!("a{action}"))));
        }
        catalog.capabilities = opaque.into_iter().map(str::to_owned).collect();
        catalog
    })
}

fn resource(name: &str, actions: impl Iterator<Item = String>) -> CatalogResource {
    CatalogResource { name: name.into(), purpose: String::new(), actions: actions.collect() }
}

fn capabilities_draw() -> impl Strategy<Value = CapabilitiesDraw> {
    prop_oneof![
        8 => vec(any::<Index>(), 0..=5).prop_map(CapabilitiesDraw::Some),
        1 => Just(CapabilitiesDraw::Ends),
        1 => Just(CapabilitiesDraw::All),
    ]
}

fn role_draw() -> impl Strategy<Value = (&'static str, CapabilitiesDraw)> {
    (select(&ROLES[..]), capabilities_draw())
}

fn binding_draw() -> impl Strategy<Value = BindingDraw> {
    let expiry = prop_oneof![
        4 => Just(Expiry::Never),
        4 => select(vec![-1, 0, 1]).prop_map(Expiry::Around),
        1 => select(vec![-1_000_000_000, 1_000_000_000]).prop_map(Expiry::Around),
        2 => select(vec![-1, 0, 1, 3600]).prop_map(Expiry::WholeSecond),
    ];
    let places = (any::<Index>(), any::<Index>(), any::<Index>());
    (places, expiry, option::weighted(0.2, select(&SEGMENTS[..]))).prop_map(
        |((identity, role, scope), expiry, id)| BindingDraw { identity, role, scope, expiry, id },
    )
}

fn question_draw() -> impl Strategy<Value = QuestionDraw> {
    let place = prop_oneof![
        4 => Just(Where::Scope),
        4 => select(&SEGMENTS[..]).prop_map(Where::Below),
        1 => Just(Where::Below("a/b/c")),
        3 => select(vec!["0", "b", ".b", "-", "c"]).prop_map(Where::Beside),
        2 => Just(Where::Shortened),
        3 => Just(Where::Parent),
        1 => Just(Where::Unrelated),
    ];
    let draw = || (any::<u8>(), any::<Index>());
    (option::weighted(0.6, any::<Index>()), draw(), draw(), (place, any::<Index>())).prop_map(
        |(binding, identity, capability, resource)| QuestionDraw {
            binding,
            identity,
            capability,
            resource,
        },
    )
}

// === from draws to facts ===

struct Builder {
    world: World,
    taken: BTreeSet<String>,
    bound: BTreeSet<(PathBuf, Box<str>, PathBuf)>,
}

impl Builder {
    fn new(catalog: CatalogFacts, now: Timestamp) -> Self {
        let world = World { catalog, facts: Facts::default(), now };
        Self { world, taken: BTreeSet::new(), bound: BTreeSet::new() }
    }

    /// A path below a group, or at the root, if nothing else has it.
    fn claim(&mut self, parent: Option<Index>, segment: &str) -> Option<PathBuf> {
        let groups = &self.world.facts.groups;
        let text = match parent.and_then(|at| pick(groups, at)) {
            Some(group) => format!("{}/{segment}", group.id),
            None => segment.to_owned(),
        };
        let path = path(&text)?;
        self.taken.insert(text).then_some(path)
    }

    fn built_in_roles(&mut self, draws: &[(&str, CapabilitiesDraw)], owner: Option<Index>) {
        for (name, capabilities) in draws {
            let capabilities = capabilities.from(&self.world.catalog);
            let roles = &mut self.world.catalog.roles;
            if roles.iter().all(|role| role.name != *name) {
                let name = (*name).to_owned();
                roles.push(CatalogRole { name, capabilities, ..CatalogRole::default() });
            }
        }
        let roles = &mut self.world.catalog.roles;
        let owner = owner.filter(|_| !roles.is_empty()).map(|at| at.index(roles.len()));
        if let Some(role) = owner.and_then(|at| roles.get_mut(at)) {
            (role.owner, role.family) = (true, Family::Registry);
        }
    }

    fn group(&mut self, parent: Option<Index>, segment: &str) {
        if let Some(id) = self.claim(parent, segment) {
            self.world.facts.groups.push(Group { id, name: String::new() });
        }
    }

    /// Adds groups below the last one, down to the deepest that can be.
    fn deepen(&mut self) {
        let last = self.world.facts.groups.last().map(|group| group.id.to_string());
        let mut text = last.unwrap_or_default();
        for segment in SEGMENTS.iter().cycle().take(DEPTH_MAX) {
            text = format!("{text}/{segment}");
            let (true, Some(id)) = (self.taken.insert(text.clone()), path(&text)) else {
                return;
            };
            self.world.facts.groups.push(Group { id, name: String::new() });
        }
    }

    fn custom_role(&mut self, parent: Index, segment: &str, capabilities: &CapabilitiesDraw) {
        let capabilities = capabilities.from(&self.world.catalog);
        if let Some(id) = self.claim(Some(parent), segment) {
            let (name, description) = Default::default();
            self.world.facts.roles.push(CustomRole { id, name, description, capabilities });
        }
    }

    fn identity(&mut self, parent: Option<Index>, segment: &str) {
        if let Some(id) = self.claim(parent, segment) {
            self.world.facts.identities.push(Identity::named(id));
        }
    }

    fn resource(&mut self, parent: Option<Index>, segment: &str) {
        if let Some(id) = self.claim(parent, segment) {
            let (name, properties) = (String::new(), Properties::new());
            let resource = RegisteredResource { id, name, kind: "repo".into(), properties };
            self.world.facts.resources.push(resource);
        }
    }

    /// Registers many resources, at the root so that none is too deep.
    fn widen(&mut self, resources: usize) {
        (0..resources).for_each(|at| self.resource(None, &format!("r{at}")));
    }

    fn binding(&mut self, draw: &BindingDraw, crowded: bool) {
        let Facts { groups, roles, identities, resources, .. } = &self.world.facts;
        let scopes: Vec<_> =
            groups.iter().map(|g| &g.id).chain(resources.iter().map(|r| &r.id)).collect();
        let identity = if crowded { identities.first() } else { pick(identities, draw.identity) };
        let (Some(identity), Some(scope)) = (identity, pick(&scopes, draw.scope)) else {
            return;
        };
        // A custom role lives at `home/name`, and can be bound at `home` or below.
        let at_home = |role: &&CustomRole| {
            let home = role.id.as_str().rsplit_once('/').map_or("", |(home, _)| home);
            format!("{scope}/").starts_with(&format!("{home}/"))
        };
        let built_in = self.world.catalog.roles.iter().map(|role| role.name.as_str());
        let custom = roles.iter().filter(at_home).map(|role| role.id.as_str());
        let roles: Vec<&str> = built_in.chain(custom).collect();
        let Some(role) = pick(&roles, draw.role).map(|role| Box::<str>::from(*role)) else {
            return;
        };
        let (identity, scope) = (identity.id.clone(), (*scope).clone());
        if !self.bound.insert((identity.clone(), role.clone(), scope.clone())) {
            return;
        }
        let id = draw.id.map(|segment| format!("{scope}/{segment}")).filter(|id| is_path(id));
        let id = id.filter(|id| self.taken.insert(id.clone())).and_then(|id| path(&id));
        let now = self.world.now;
        let expires_at = match draw.expiry {
            Expiry::Never => None,
            Expiry::Around(nanos) => Some(later(now, nanos)),
            Expiry::WholeSecond(after) => Some(Timestamp::new(now.seconds() + after, 0)),
        };
        let binding = RoleBinding { id, identity, role, scope, expires_at, when: vec![] };
        self.world.facts.role_bindings.push(binding);
    }
}

impl CapabilitiesDraw {
    fn from(&self, catalog: &CatalogFacts) -> Vec<String> {
        let all = names(catalog);
        let some: BTreeSet<_> = match self {
            Self::Some(places) => places.iter().filter_map(|at| pick(&all, *at)).collect(),
            Self::Ends => all.first().into_iter().chain(all.last()).collect(),
            Self::All => all.iter().collect(),
        };
        some.into_iter().cloned().collect()
    }
}

impl QuestionDraw {
    /// The question, unless its resource would be no path.
    fn about(&self, world: &World) -> Option<Question> {
        let Facts { groups, roles, identities, role_bindings, resources } = &world.facts;
        let binding = self.binding.and_then(|at| pick(role_bindings, at));

        let known = pick(identities, self.identity.1).map_or("a", |identity| identity.id.as_str());
        let identity = match (binding, self.identity.0) {
            (Some(binding), 0..=240) => binding.identity.as_str(),
            (_, 0..=200) => known,
            (_, 201..=220) => known.rsplit_once('/').map_or("nobody", |(prefix, _)| prefix),
            (_, 221..=235) => known.get(..known.len() - 1).unwrap_or_default(),
            _ => "nobody/at-all",
        };
        let identity = path(identity).or_else(|| path("nobody"))?;

        let built_in = world.catalog.roles.iter().map(|role| (&*role.name, &role.capabilities));
        let custom = roles.iter().map(|role| (role.id.as_str(), &role.capabilities));
        let given = built_in.chain(custom).find(|(id, _)| binding.is_some_and(|b| &*b.role == *id));
        let given = given.and_then(|(_, capabilities)| pick(capabilities, self.capability.1));
        let all = names(&world.catalog);
        let capability = match (given, self.capability.0) {
            (Some(name), 0..=170) => name.clone(),
            (_, 0..=240) => pick(&all, self.capability.1)?.clone(),
            (_, 241..=248) => format!("{}.list", pick(&all, self.capability.1)?),
            _ => "manifest".into(),
        };

        let scopes: Vec<_> =
            groups.iter().map(|g| &g.id).chain(resources.iter().map(|r| &r.id)).collect();
        let (place, scope) = (self.resource.0, pick(&scopes, self.resource.1)?);
        let scope = binding.map_or(*scope, |binding| &binding.scope).as_str();
        let resource = match place {
            Where::Scope => scope.to_owned(),
            Where::Below(segment) => format!("{scope}/{segment}"),
            Where::Beside(suffix) => format!("{scope}{suffix}"),
            Where::Shortened => scope.get(..scope.len() - 1).unwrap_or_default().to_owned(),
            Where::Parent => scope.rsplit_once('/').map_or(scope, |(parent, _)| parent).to_owned(),
            Where::Unrelated => "elsewhere/a/b".into(),
        };
        let resource = path(&resource).or_else(|| path(scope))?;
        Some(Question { identity, capability, resource })
    }
}

/// The names of all capabilities, sorted, as bits are numbered.
fn names(catalog: &CatalogFacts) -> Vec<String> {
    let facts = Facts::default();
    crate::Naive::new(catalog, &facts).capabilities().into_iter().collect()
}

fn pick<T>(items: &[T], at: Index) -> Option<&T> {
    if items.is_empty() { None } else { items.get(at.index(items.len())) }
}

fn path(text: &str) -> Option<PathBuf> {
    if is_path(text) { text.parse().ok() } else { None }
}
