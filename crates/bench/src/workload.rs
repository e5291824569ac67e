//! Generated policies to measure on: facts, the same facts as a policy document, and questions about them,
//! half of which are allowed.
//!
//! ```text
//! level   1              2 organizations of 100 groups at level 5, 2 × 50, 5 × 10, 2 × 5, 5 × 1
//!         └─ 2           the level is the number of path segments: `<40 hex>/<16 hex>/…`, like
//!            │           generated ids
//!            └─ 3
//!               └─ 4     108 bytes: a quarter of the identities; 94 to 112: some resources
//!                  └─ 5  125 bytes: the other identities; 111 to 129: most resources
//! ```
//!
//! **Invariant**: the output is a pure function of the workload's fields: the same fields give the same
//! bytes on every machine and in every version. The n-th item is computed without the items before it, so
//! that questions about millions of identities need no memory.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::sync::Arc;

use capstan_engine::{Catalog, Facts, Group, Identity, PathBuf, RoleBinding};
use capstan_policy::Catalogs;

/// The catalog whose built-in roles are bound.
pub const CATALOG: &str = "chainguard-2025-08-14+errata";

/// The workload of the project's published figures: 30,000 bindings.
pub const W: Workload =
    Workload { groups: 1_000, identities: 10_000, bindings_per_identity: 3, seed: 1 };

/// The large one: 3,000,000 bindings; about 1 GB as a document.
pub const BIG_W: Workload =
    Workload { groups: 100_000, identities: 1_000_000, bindings_per_identity: 3, seed: 1 };

/// The number of level-5 groups below a group of level 1, 2, …, 5.
const WIDTHS: [u64; 5] = [100, 50, 10, 5, 1];
/// Index in [`WIDTHS`] of level 5, where most bindings are.
const DEEPEST: usize = WIDTHS.len() - 1;
/// Bytes of a resource's last segment, at least and at most.
const LEAF_BYTES: (u64, u64) = (2, 20);
/// The number of different roles that an identity gets before a role repeats at another group.
const ROLES: u64 = 12;

/// The parameters of a generated policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Groups at level 5, at least 1. The groups above them are additional: about a third as many.
    pub groups: u64,
    /// Identities, distributed evenly over the groups.
    pub identities: u64,
    /// Role bindings of each identity: at most 12 times `groups`, so that no two are equal.
    pub bindings_per_identity: u64,
    /// The seed of names and bindings.
    pub seed: u64,
}

impl Workload {
    /// The number of role bindings.
    #[must_use]
    pub const fn bindings(&self) -> u64 {
        self.identities * self.bindings_per_identity
    }

    /// All facts of the policy.
    #[must_use]
    pub fn facts(&self) -> Facts {
        Facts {
            groups: self.groups().collect(),
            identities: self.identities().collect(),
            role_bindings: self.role_bindings().collect(),
            ..Facts::default()
        }
    }

    /// Every group; parents before children.
    pub fn groups(self) -> impl Iterator<Item = Group> {
        self.group_ids().filter_map(|id| path(&id)).map(|id| Group { id, name: String::new() })
    }

    /// Every identity.
    pub fn identities(self) -> impl Iterator<Item = Identity> {
        (0..self.identities)
            .map(move |at| self.identity(at))
            .filter_map(|id| path(&id))
            .map(Identity::named)
    }

    /// Every role binding, grouped by identity.
    pub fn role_bindings(self) -> impl Iterator<Item = RoleBinding> {
        let roles: Vec<Box<str>> =
            self.role_names().iter().map(|name| name.as_str().into()).collect();
        let places = (0..self.identities)
            .flat_map(move |one| (0..self.bindings_per_identity).map(move |at| (one, at)));
        places.filter_map(move |(identity, at)| {
            let Binding { role, level, group } = self.binding(identity, at);
            Some(RoleBinding {
                id: None,
                identity: path(&self.identity(identity))?,
                role: nth(&roles, role)?.clone(),
                scope: path(&self.group(level, group))?,
                expires_at: None,
                when: Vec::new(),
            })
        })
    }

    /// Writes the policy document as JSON with one entry per line. Needs no memory for the document.
    ///
    /// # Errors
    ///
    /// Those of `out`.
    pub fn write_document(&self, out: &mut impl Write) -> io::Result<()> {
        let roles = self.role_names();
        write!(out, "{{\"version\": 1, \"catalog\": \"{CATALOG}\",\n\"groups\": [")?;
        for (at, id) in self.group_ids().enumerate() {
            write!(out, "{}{{\"id\": \"{id}\"}}", separator(at == 0))?;
        }
        write!(out, "\n],\n\"identities\": [")?;
        let mut id = String::new();
        for at in 0..self.identities {
            id.clear();
            self.write_identity(&mut id, at);
            write!(out, "{}{{\"id\": \"{id}\"}}", separator(at == 0))?;
        }
        write!(out, "\n],\n\"role_bindings\": [")?;
        let mut scope = String::new();
        for identity in 0..self.identities {
            id.clear();
            self.write_identity(&mut id, identity);
            for at in 0..self.bindings_per_identity {
                let Binding { role, level, group } = self.binding(identity, at);
                scope.clear();
                self.write_group(&mut scope, level, group);
                let role = nth(&roles, role).map_or("", String::as_str);
                let comma = separator(identity + at == 0);
                write!(
                    out,
                    "{comma}{{\"identity\": \"{id}\", \"role\": \"{role}\", \"scope\": \"{scope}\"}}"
                )?;
            }
        }
        writeln!(out, "\n]}}")
    }

    /// Questions about this policy.
    #[must_use]
    pub fn queries(&self) -> Queries {
        Queries::new(*self)
    }

    /// The path of the identity with this number, from 0.
    #[must_use]
    pub fn identity(&self, at: u64) -> String {
        let mut path = String::with_capacity(128);
        self.write_identity(&mut path, at);
        path
    }

    fn write_identity(&self, path: &mut String, at: u64) {
        let level = if at % 4 == 3 { DEEPEST - 1 } else { DEEPEST };
        self.write_group(path, level, self.home(at));
        self.write_segment(path, Kind::Identity, at);
    }

    /// The level-5 group that contains an identity; the parent of that group for every fourth identity.
    const fn home(&self, identity: u64) -> u64 {
        // Consecutive identities are in different groups.
        identity % self.groups
    }

    /// Every group; parents before children.
    fn group_ids(self) -> impl Iterator<Item = String> {
        let firsts = WIDTHS.iter().enumerate().flat_map(move |(level, width)| {
            (0..self.groups.div_ceil(*width)).map(move |at| (level, at * width))
        });
        firsts.map(move |(level, group)| self.group(level, group))
    }

    fn group(&self, level: usize, group: u64) -> String {
        let mut path = String::with_capacity(128);
        self.write_group(&mut path, level, group);
        path
    }

    /// The group at this level (an index in [`WIDTHS`]) that equals or contains the level-5 group.
    fn write_group(&self, path: &mut String, level: usize, group: u64) {
        for (kind, width) in WIDTHS.iter().enumerate().take(level + 1) {
            self.write_segment(path, Kind::Group(kind), group / width);
        }
    }

    /// A segment of the form of generated ids: 20 random bytes at the root, 8 bytes below it, in hex.
    fn write_segment(&self, path: &mut String, kind: Kind, at: u64) {
        let mut draw = self.draw(kind, at);
        let first = draw.next();
        // Writing to a string cannot fail.
        let _ = if path.is_empty() {
            let (second, third) = (draw.next(), draw.next() >> 32);
            write!(path, "{first:016x}{second:016x}{third:08x}")
        } else {
            write!(path, "/{first:016x}")
        };
    }

    /// A binding of an identity. The first is at the identity's own group, the second at a group of its
    /// organization, the third at any group, and so on in turn. A quarter of the second and third kind is
    /// at an ancestor of that group.
    fn binding(&self, identity: u64, at: u64) -> Binding {
        let (turn, round) = (at % ROLES, at / ROLES);
        let role = (self.draw(Kind::Role, identity).next() + turn) % ROLES;
        let mut draw = self.draw(Kind::Binding, identity.wrapping_mul(ROLES) + turn);
        let home = self.home(identity);
        let near = home - home % WIDTHS.first().unwrap_or(&1);
        let (first, count) = match turn % 3 {
            0 => (home, 1),
            1 => (near, WIDTHS.first().copied().unwrap_or(1).min(self.groups - near)),
            _ => (0, self.groups),
        };
        let group = first + draw.below(count);
        let is_high = turn % 3 != 0 && draw.below(4) == 0;
        let level = if is_high && round == 0 { DEEPEST - 1 - draw.level() } else { DEEPEST };
        // When a role repeats, it is bound at the next group, so that no two bindings are equal.
        Binding { role, level, group: (group + round) % self.groups }
    }

    fn draw(&self, kind: Kind, at: u64) -> Draw {
        let kind = match kind {
            Kind::Group(level) => level as u64,
            Kind::Identity => 16,
            Kind::Role => 17,
            Kind::Binding => 18,
            Kind::Query => 19,
        };
        // Both steps are bijective, so that no two numbers of a kind have the same seed.
        Draw(mix(mix(self.seed.wrapping_mul(64).wrapping_add(kind)) ^ at))
    }

    fn role_names(&self) -> Vec<String> {
        catalog().map_or_else(Vec::new, |catalog| {
            catalog.roles().iter().map(|role| role.name.clone()).collect()
        })
    }
}

/// Generated texts are valid paths; a test verifies by their number that none is dropped here.
fn path(text: &str) -> Option<PathBuf> {
    text.parse().ok()
}

fn catalog() -> Option<Arc<Catalog>> {
    Catalogs::default().get(CATALOG)
}

const fn separator(is_first: bool) -> &'static str {
    if is_first { "\n" } else { ",\n" }
}

fn nth<T>(all: &[T], at: u64) -> Option<&T> {
    usize::try_from(at).ok().and_then(|at| all.get(at))
}

/// A role, by its index in the catalog, and the group at `level` that equals or contains `group`.
#[derive(Clone, Copy, Debug)]
struct Binding {
    role: u64,
    level: usize,
    group: u64,
}

/// A question about a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query<'w> {
    /// Path of an identity.
    pub identity: String,
    /// Name of a capability.
    pub capability: &'w str,
    /// Path of a resource that is not registered.
    pub resource: String,
}

/// Questions about a workload, in pseudo-random order.
///
/// Half are allowed. Of the denied ones, 40 % ask for a capability that the role on the path lacks, 40 % for
/// a resource in another group (half of those in the neighbouring group), and 20 % for an identity that is
/// not registered.
#[derive(Debug)]
pub struct Queries {
    workload: Workload,
    /// For each role: its capabilities, and those of the catalog that it lacks.
    roles: Vec<(Vec<String>, Vec<String>)>,
}

impl Queries {
    fn new(workload: Workload) -> Self {
        let roles = catalog().map_or_else(Vec::new, |catalog| {
            let split = |held: &Vec<String>| {
                let lacking = catalog.capabilities().filter(|name| !held.iter().any(|h| h == name));
                (held.clone(), lacking.map(Into::into).collect())
            };
            catalog.roles().iter().map(|role| split(&role.capabilities)).collect()
        });
        Self { workload, roles }
    }

    /// The query with this number, from 0. Every number has one.
    #[must_use]
    pub fn get(&self, at: u64) -> Query<'_> {
        let Self { workload, roles } = self;
        let mut draw = workload.draw(Kind::Query, at);
        let identity = draw.below(workload.identities);
        let binding = workload.binding(identity, draw.below(workload.bindings_per_identity));
        let Binding { role, level, group } = binding;
        let (held, lacking) =
            nth(roles, role).map_or((&[][..], &[][..]), |(held, lacking)| (held, lacking));
        let kind = draw.below(10);
        // The role `owner` lacks no capability: such a query asks in another group instead.
        let lacks = matches!(kind, 5 | 6) && !lacking.is_empty();
        let among = if lacks { lacking } else { held };
        let capability = draw.pick(among).map_or("", String::as_str);
        let (identity, level, group) = match kind {
            0..5 => (identity, level, group),
            _ if lacks => (identity, level, group),
            9 => (workload.identities + identity, level, group),
            // The neighbouring group at the same level, whose path has most segments in common.
            7 => (identity, level, (group + width(level)) % workload.groups),
            _ => (identity, level, draw.below(workload.groups)),
        };
        let resource = workload.resource(level, group, &mut draw);
        Query { identity: workload.identity(identity), capability, resource }
    }

    /// All queries from number 0 on, without end.
    pub fn iter(&self) -> impl Iterator<Item = Query<'_>> {
        (0..).map(|at| self.get(at))
    }
}

impl Workload {
    /// A resource below the group at this level, in a group of level 4 or 5.
    fn resource(&self, level: usize, group: u64, draw: &mut Draw) -> String {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz012345";
        let first = group - group % width(level);
        let group = first + draw.below(width(level).min(self.groups - first));
        let is_high = level < DEEPEST && draw.below(2) == 0;
        let mut path = String::with_capacity(128);
        self.write_group(&mut path, if is_high { DEEPEST - 1 } else { DEEPEST }, group);
        path.push('/');
        let (least, most) = LEAF_BYTES;
        for _ in 0..least + draw.below(most - least + 1) {
            path.push(draw.pick(LETTERS).map_or('a', |letter| char::from(*letter)));
        }
        path
    }
}

fn width(level: usize) -> u64 {
    WIDTHS.get(level).copied().unwrap_or(1)
}

/// The purpose of a random number; each kind has its own sequence.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Group(usize),
    Identity,
    Role,
    Binding,
    Query,
}

/// The random number generator SplitMix64 (Steele, Lea, Flood, 2014): its output is specified, so it is the
/// same on every machine and in every version.
#[derive(Clone, Debug)]
pub(crate) struct Draw(u64);

impl Draw {
    #[cfg(feature = "load")]
    pub(crate) const fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    const fn next(&mut self) -> u64 {
        let drawn = mix(self.0);
        self.0 = self.0.wrapping_add(GOLDEN);
        drawn
    }

    /// Uniform from 0 to `count - 1`; 0 if `count` is 0.
    pub(crate) fn below(&mut self, count: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(count);
        u64::try_from(product >> 64).unwrap_or_default()
    }

    /// A uniformly chosen element; `None` if there are none.
    pub(crate) fn pick<'a, T>(&mut self, all: &'a [T]) -> Option<&'a T> {
        nth(all, self.below(all.len() as u64))
    }

    /// Levels above level 4: 0 with 70 %, 1 with 20 %, 2 with 10 %.
    fn level(&mut self) -> usize {
        match self.below(10) {
            0..7 => 0,
            7..9 => 1,
            _ => 2,
        }
    }
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finalizer of SplitMix64; bijective.
const fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(GOLDEN);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use capstan_engine::{Attributes, Model, Path, Question, Reason, Snapshot, Timestamp};
    use capstan_policy::load_policy;

    use super::*;

    fn document(workload: Workload) -> Vec<u8> {
        let mut document = Vec::new();
        workload.write_document(&mut document).unwrap();
        document
    }

    fn snapshot(workload: Workload) -> Snapshot {
        let model = Model::new(catalog().unwrap(), workload.facts()).unwrap();
        Snapshot::build(&model, 1).unwrap()
    }

    fn fnv(bytes: &[u8]) -> u64 {
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// Figures of different versions are comparable only while these hashes stay.
    #[test]
    fn the_same_workload_gives_the_same_bytes_in_every_version() {
        assert_eq!(fnv(&document(W)), 14_464_378_394_332_406_627);
        let queries: String =
            W.queries().iter().take(10_000).map(|query| format!("{query:?}\n")).collect();
        assert_eq!(fnv(queries.as_bytes()), 17_047_463_368_926_350_854);
        let other = Workload { seed: 2, ..W };
        assert_ne!(fnv(&document(other)), fnv(&document(W)));
    }

    #[test]
    fn w_has_its_documented_sizes() {
        let facts = W.facts();
        let depth = |path: &str| path.split('/').count();
        let deep = facts.groups.iter().filter(|group| depth(group.id.as_str()) == 5).count();
        assert_eq!((deep, facts.groups.len()), (1_000, 1_330));
        assert_eq!((facts.identities.len(), facts.role_bindings.len()), (10_000, 30_000));
        let roles: BTreeSet<&str> = facts.role_bindings.iter().map(|bound| &*bound.role).collect();
        assert_eq!(roles.len(), 12);

        let queries = W.queries();
        let resources: Vec<String> =
            queries.iter().take(10_000).map(|query| query.resource).collect();
        assert!(resources.iter().all(|path| matches!(depth(path), 5 | 6)));
        let ids = facts.identities.iter().map(|identity| identity.id.as_str());
        let lengths: BTreeSet<usize> =
            ids.chain(resources.iter().map(String::as_str)).map(str::len).collect();
        assert_eq!((lengths.first(), lengths.last()), (Some(&94), Some(&129)));
    }

    #[test]
    fn half_of_the_questions_are_allowed_and_every_other_kind_occurs() {
        let (snapshot, queries) = (snapshot(W), W.queries());
        let mut reasons = BTreeMap::<_, u32>::new();
        for query in queries.iter().take(20_000) {
            let question = Question {
                identity: Path::parse(&query.identity).unwrap(),
                capability: query.capability,
                resource: Path::parse(&query.resource).unwrap(),
                attributes: Attributes::NONE,
            };
            let decision = snapshot.check(&question, Timestamp::UNIX_EPOCH).unwrap();
            *reasons.entry(decision.reason.as_str()).or_default() += 1;
        }
        let percent = |reason: Reason| reasons[reason.as_str()] / 200;
        assert!((45..55).contains(&percent(Reason::Granted)), "{reasons:?}");
        assert!(percent(Reason::CapabilityNotInRole) > 10, "{reasons:?}");
        assert!(percent(Reason::NoBinding) > 10, "{reasons:?}");
        assert!(percent(Reason::UnknownIdentity) > 5, "{reasons:?}");
    }

    #[test]
    fn the_document_says_what_the_facts_say() {
        let small = Workload { groups: 107, identities: 30, bindings_per_identity: 40, seed: 9 };
        let policy = load_policy(&document(small), &Catalogs::default()).unwrap();
        assert_eq!(format!("{:?}", policy.model.facts()), format!("{:?}", small.facts()));
    }

    #[test]
    fn one_identity_may_have_very_many_bindings() {
        let one = Workload { groups: 1_000, identities: 1, bindings_per_identity: 12_000, seed: 3 };
        assert_eq!(snapshot(one).bindings_len(), 12_000);
    }
}
