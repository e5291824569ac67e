//! Every small world, up to renaming: at most 2 identities, 3 groups, 2 roles, 2 capabilities and
//! 2 bindings, with every question of every kind.
//!
//! Of worlds that differ only in the names of identities, capabilities or built-in roles, the test uses one.
//! A world with fewer groups or roles is a world whose bindings do not use all of them.

#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of one test")]

use std::collections::BTreeSet;
use std::thread;

use capstan_engine::{
    AttributeCategory, Attributes, CatalogFacts, CatalogResource, CatalogRole, Condition,
    CustomRole, Facts, Group, Identity, Properties, RoleBinding, Timestamp, Value,
};
use capstan_testkit::generate::{Question, World};
use proptest::test_runner::TestCaseError;

use capstan_testkit::asking::{Pair, Tally, build};

/// Every tree of three groups, with names that are prefixes of each other. A custom role is below the
/// first group.
const TREES: [[&str; 3]; 4] =
    [["a", "a/b", "a/b/c"], ["a", "a/b", "a/bc"], ["a", "a/b", "ab"], ["a", "a.b", "ab"]];
const IDENTITIES: [&str; 2] = ["i", "i2"];
const CAPABILITIES: [&str; 2] = ["r.s", "r"];
const NOW: Timestamp = Timestamp::new(1, 0);

/// A binding as indexes into the lists above, and two flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Bound {
    identity: usize,
    role: usize,
    scope: usize,
    over: bool,
    tests: bool,
}

/// A world, given its tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    /// Whether the second role is a custom role.
    custom: bool,
    /// The capabilities of each role, as bits.
    gives: [usize; 2],
    /// Sorted. No two bindings differ only in the expiry.
    bindings: Vec<Bound>,
}

#[test]
#[expect(clippy::print_stdout, reason = "prints the counts")]
fn every_small_world_answers_as_the_naive_model() {
    let tally = Tally::default();
    thread::scope(|scope| {
        for groups in &TREES {
            scope.spawn(|| cases(groups).iter().for_each(|case| ask(groups, case, &tally)));
        }
    });
    println!("compared {tally}");
    assert_eq!((tally.worlds(), tally.checks()), (33_833, 1_591_590));
}

fn cases(groups: &[&str; 3]) -> Vec<Case> {
    let mut bounds = Vec::new();
    for (identity, role, scope) in product(2, 2, 3) {
        for flags in 0..4 {
            bounds.push(Bound { identity, role, scope, over: flags & 1 > 0, tests: flags & 2 > 0 });
        }
    }
    bounds.sort_unstable();
    let mut found = Vec::new();
    for (custom, first, second) in product(2, 4, 4) {
        let (custom, gives) = (custom == 1, [first, second]);
        let home = format!("{}/", groups[0]);
        let may = |it: &Bound| {
            !custom || it.role == 0 || format!("{}/", groups[it.scope]).starts_with(&home)
        };
        let bounds: Vec<_> = bounds.iter().copied().filter(may).collect();
        let mut sets = vec![vec![]];
        for (at, one) in bounds.iter().enumerate() {
            sets.push(vec![*one]);
            let same = |other: &Bound| Bound { over: one.over, ..*other } == *one;
            let others = bounds[at + 1..].iter().filter(|other| !same(other));
            sets.extend(others.map(|other| vec![*one, *other]));
        }
        let cases = sets.into_iter().map(|bindings| Case { custom, gives, bindings });
        found.extend(cases.filter(|case| case.matters() && case.comes_first()));
    }
    found
}

fn product(a: usize, b: usize, c: usize) -> impl Iterator<Item = (usize, usize, usize)> {
    (0..a).flat_map(move |i| (0..b).flat_map(move |j| (0..c).map(move |k| (i, j, k))))
}

impl Case {
    /// False for worlds that another case covers. A role without bindings matters only in explanations, so it
    /// has every capability, except in worlds without bindings.
    fn matters(&self) -> bool {
        let names = |role: usize| self.bindings.iter().any(|binding| binding.role == role);
        self.bindings.is_empty() || (0..2).all(|role| names(role) || self.gives[role] == 3)
    }

    /// Whether the case is the smallest of its renamings.
    fn comes_first(&self) -> bool {
        product(2, 2, if self.custom { 1 } else { 2 }).all(|(identities, capabilities, roles)| {
            let mut other = self.clone();
            for binding in &mut other.bindings {
                binding.identity ^= identities;
                binding.role ^= roles;
            }
            other.bindings.sort_unstable();
            if capabilities == 1 {
                other.gives = other.gives.map(|bits| bits >> 1 | (bits & 1) << 1);
            }
            other.gives.rotate_left(roles);
            *self <= other
        })
    }

    /// The world of this case. Its conditions test an attribute of this category.
    fn world(&self, groups: &[&str; 3], category: AttributeCategory) -> World {
        let path = |text: &str| text.parse().unwrap();
        let [mut first, mut second] = self.gives.map(|bits| {
            let given = CAPABILITIES.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
            given.map(|(_, name)| (*name).to_owned()).collect::<Vec<_>>()
        });
        let built_in = |name: &str, gives: &mut Vec<String>| CatalogRole {
            name: name.into(),
            capabilities: std::mem::take(gives),
            ..CatalogRole::default()
        };
        let mut catalog = CatalogFacts { name: "small".into(), ..CatalogFacts::default() };
        let (name, purpose, actions) = ("r".into(), String::new(), vec!["s".into()]);
        catalog.resources = vec![CatalogResource { name, purpose, actions }];
        catalog.capabilities = vec!["r".into()];
        catalog.roles = vec![built_in("one", &mut first)];
        let mut facts = Facts {
            groups: groups.map(|id| Group { id: path(id), name: String::new() }).into(),
            identities: IDENTITIES.map(|id| Identity::named(path(id))).into(),
            ..Facts::default()
        };
        let mut two = "two".to_owned();
        if self.custom {
            two = format!("{}/two", groups[0]);
            let (id, name, description) = (path(&two), String::new(), String::new());
            facts.roles = vec![CustomRole { id, name, description, capabilities: second }];
        } else {
            catalog.roles.push(built_in("two", &mut second));
        }
        let test = Condition { category, name: "n".into(), equals: true, value: one() };
        let bind = |it: &Bound| RoleBinding {
            id: None,
            identity: path(IDENTITIES[it.identity]),
            role: if it.role == 0 { "one".into() } else { two.as_str().into() },
            scope: path(groups[it.scope]),
            expires_at: it.over.then_some(NOW),
            when: if it.tests { vec![test.clone()] } else { vec![] },
        };
        facts.role_bindings = self.bindings.iter().map(bind).collect();
        World { catalog, facts, now: NOW }
    }
}

fn one() -> Value {
    Value::Integer(1)
}

/// Asks every question for which the answer can differ.
fn ask(groups: &[&str; 3], case: &Case, tally: &Tally) {
    ask_of(AttributeCategory::Context, groups, case, tally);
    // ListScopes does not evaluate conditions on the resource.
    if case.bindings.iter().any(|binding| binding.tests) {
        ask_of(AttributeCategory::Resource, groups, case, tally);
    }
}

fn ask_of(category: AttributeCategory, groups: &[&str; 3], case: &Case, tally: &Tally) {
    let world = case.world(groups, category);
    let (_, snapshot) = build(&world).unwrap();
    let pair = Pair::new(&world, &snapshot, NOW, tally);
    let below = format!("{}/x", groups[2]);
    let resources: BTreeSet<_> = groups.iter().copied().chain([&*below, "abc"]).collect();
    // Without conditions, the supplied attributes have no effect.
    let tests = case.bindings.iter().any(|binding| binding.tests);
    let context = Properties::from([("n".into(), one())]);
    let supplied = match category {
        AttributeCategory::Resource => Attributes { resource: context, ..Attributes::default() },
        _ => Attributes { context, ..Attributes::default() },
    };
    let supplied = [supplied, Attributes::default()];
    for (at, attributes) in supplied.iter().enumerate().take(if tests { 2 } else { 1 }) {
        let mut question = Question {
            identity: "a".parse().unwrap(),
            capability: String::new(),
            resource: "a".parse().unwrap(),
            attributes: attributes.clone(),
        };
        let hold = |agreed: Result<(), TestCaseError>| {
            assert!(agreed.is_ok(), "{groups:?} {case:?}: {agreed:?}");
        };
        for capability in CAPABILITIES {
            capability.clone_into(&mut question.capability);
            for resource in &resources {
                question.resource = resource.parse().unwrap();
                hold(pair.lists_identities(&question));
            }
            for identity in IDENTITIES.into_iter().chain((at == 0).then_some("a")) {
                question.identity = identity.parse().unwrap();
                hold(pair.lists_scopes(&question));
                for resource in &resources {
                    question.resource = resource.parse().unwrap();
                    hold(pair.checks(&question));
                    if capability == CAPABILITIES[0] {
                        hold(pair.lists_capabilities(&question));
                    }
                    if at == 0 {
                        hold(pair.explains(&question));
                    }
                }
            }
        }
    }
}
