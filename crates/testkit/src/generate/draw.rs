//! Draws: proposals for parts of a world, which may not be valid.
//!
//! **Invariant**: a draw does not depend on a world. It has words from short lists, so that names collide, and
//! positions in lists, which [`super::build`] resolves.

use capstan_engine::{
    AttributeCategory, CONDITIONS_MAX, CatalogFacts, CatalogResource, Condition, Timestamp, Value,
};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop, prop_oneof};
use proptest::sample::select;
use proptest::{bool, option};

/// Segments that are prefixes of each other. `+`, `-` and `.` sort before `/`, the others after it.
pub(super) const SEGMENTS: [&str; 15] = [
    "a", "ab", "a.b", "a-", "a+", "a~", "b", "bc", "org1", "org10", "A", "0", "1e5", "...",
    PERSONS[0],
];
/// Ids of identities that bindings may name before they are registered.
pub(super) const PERSONS: [&str; 2] =
    ["0123456789abcdef0123456789abcdef01234567", "ffffffffffffffffffffffffffffffffffffffff"];
pub(super) const NO_SEGMENTS: [&str; 11] =
    ["", ".", "..", "%2e", "a b", "a\\b", "\u{e9}", "\u{ff41}", "a\0", "a\n", "*"];
/// Together with `ACTIONS`, names in which only the last dot separates resource and action.
pub(super) const RESOURCES: [&str; 7] =
    ["manifest", "manifest.metadata", "manifest.metadata.list", "repo", "a", "a.b", "gulf"];
pub(super) const ACTIONS: [&str; 6] = ["list", "create", "metadata", "b", "a", "list-all"];
pub(super) const OPAQUE: [&str; 3] = ["gulfstream", "gulf", "a"];
pub(super) const ROLES: [&str; 5] = ["owner", "viewer", "view", "viewer.plus", "a"];
/// Names of attributes. One is drawn more often, so that tested attributes are often supplied.
pub(super) const ATTRIBUTES: [&str; 4] = ["status", "status", "a", "a.b"];
/// Suffixes of a scope: a longer last segment, or another segment.
pub(super) const BESIDE: [&str; 5] = ["0", "b", ".b", "-", "c"];
pub(super) const DEPTH_MAX: usize = 16;

/// A position in a list of any length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place(pub(super) u16);

impl Place {
    /// The position in a list of this length; 0 if it is empty.
    pub(super) const fn of(self, length: usize) -> usize {
        (self.0 as usize * length) >> u16::BITS
    }
}

/// A draw of a world.
#[derive(Clone, Debug)]
pub(super) struct WorldDraw {
    pub(super) catalog: CatalogFacts,
    pub(super) built_in_roles: Vec<(&'static str, CapabilitiesDraw)>,
    pub(super) owner: Option<Place>,
    pub(super) groups: Vec<(Option<Place>, &'static str)>,
    pub(super) custom_roles: Vec<(Place, &'static str, CapabilitiesDraw)>,
    /// Each with whether it is disabled.
    pub(super) identities: Vec<(OwnerDraw, bool)>,
    pub(super) resources: Vec<OwnerDraw>,
    pub(super) bindings: Vec<BindingDraw>,
    /// Whether there are groups down to the maximum depth.
    pub(super) deep: bool,
    pub(super) now: Timestamp,
}

/// A draw of an identity or resource: its group, its last segment, and its properties.
pub(super) type OwnerDraw = (Option<Place>, &'static str, Vec<(String, Value)>);

#[derive(Clone, Debug)]
pub(super) enum CapabilitiesDraw {
    Some(Vec<Place>),
    /// The first and last capability of the catalog: the ends of the first and the last word of bits.
    Ends,
    All,
}

#[derive(Clone, Debug)]
pub(super) struct BindingDraw {
    /// The identity, role and scope of the previous binding, so that only conditions distinguish them.
    pub(super) again: bool,
    /// An identity that need not be registered, instead of a registered one.
    pub(super) person: Option<&'static str>,
    pub(super) identity: Place,
    pub(super) role: Place,
    pub(super) scope: Place,
    pub(super) expiry: Expiry,
    pub(super) id: Option<&'static str>,
    pub(super) when: Vec<Condition>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Expiry {
    Never,
    /// This number of nanoseconds after now.
    Around(i64),
    /// The start of the current second plus this number of seconds.
    WholeSecond(i64),
}

#[derive(Clone, Debug)]
pub(super) struct QuestionDraw {
    /// The question is about this binding, so that some checks are allowed.
    pub(super) binding: Option<Place>,
    pub(super) identity: (u8, Place),
    pub(super) capability: (u8, Place),
    pub(super) resource: (Where, Place),
    pub(super) supplied: Vec<(AttributeCategory, (String, Value))>,
    /// Whether to supply properties that meet the binding's conditions.
    pub(super) meets: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Where {
    Scope,
    Below(&'static str),
    /// The same path with a longer last segment: `a/b` becomes `a/bc`.
    Beside(&'static str),
    /// The text without its last character, if that is a path.
    Shortened,
    Parent,
    /// The path of an identity, whose properties are not properties of a resource.
    Identity,
    Unrelated,
}

pub(super) fn place() -> impl Strategy<Value = Place> {
    any::<u16>().prop_map(Place)
}

pub(super) fn now() -> impl Strategy<Value = Timestamp> {
    let seconds = prop_oneof![4 => Just(1_790_000_000), 1 => Just(0), 1 => Just(-1)];
    let nanos = prop_oneof![Just(0), Just(1), Just(500_000_000), Just(999_999_999)];
    (seconds, nanos).prop_map(|(seconds, nanos)| Timestamp::new(seconds, nanos))
}

pub(super) fn catalog() -> impl Strategy<Value = CatalogFacts> {
    let actions = prop::sample::subsequence(&ACTIONS[..], 1..=4);
    let drawn = (select(&RESOURCES[..]), actions);
    // Around one and two words of bits, together with the other capabilities of the catalog.
    let wide = prop_oneof![10 => Just(0usize), 2 => 50usize..=66, 2 => 110usize..=135];
    let opaque = prop::sample::subsequence(&OPAQUE[..], 0..=3);
    (vec(drawn, 1..=5), wide, opaque)
        .prop_map(|(draws, wide, opaque)| catalog_of(draws, wide, opaque))
}

/// Draws a catalog with resources and actions, additional capabilities, and opaque capabilities.
pub(super) fn catalog_of(
    draws: Vec<(&str, Vec<&str>)>,
    wide: usize,
    opaque: Vec<&str>,
) -> CatalogFacts {
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
}

fn resource(name: &str, actions: impl Iterator<Item = String>) -> CatalogResource {
    CatalogResource { name: name.into(), purpose: String::new(), actions: actions.collect() }
}

pub(super) fn capabilities_draw() -> impl Strategy<Value = CapabilitiesDraw> {
    prop_oneof![
        8 => vec(place(), 0..=5).prop_map(CapabilitiesDraw::Some),
        1 => Just(CapabilitiesDraw::Ends),
        1 => Just(CapabilitiesDraw::All),
    ]
}

pub(super) fn role_draw() -> impl Strategy<Value = (&'static str, CapabilitiesDraw)> {
    (select(&ROLES[..]), capabilities_draw())
}

pub(super) fn binding_draw() -> impl Strategy<Value = BindingDraw> {
    let expiry = prop_oneof![
        4 => Just(Expiry::Never),
        4 => select(vec![-1, 0, 1]).prop_map(Expiry::Around),
        1 => select(vec![-1_000_000_000, 1_000_000_000]).prop_map(Expiry::Around),
        2 => select(vec![-1, 0, 1, 3600]).prop_map(Expiry::WholeSecond),
    ];
    let person = option::weighted(0.15, select(&PERSONS[..]));
    let places = (bool::weighted(0.25), person, place(), place(), place());
    let when = prop_oneof![
        24 => Just(vec![]),
        10 => vec(condition(), 1),
        5 => vec(condition(), 2..=3),
        1 => condition().prop_map(|test| vec![test; CONDITIONS_MAX]),
    ];
    (places, expiry, option::weighted(0.2, select(&SEGMENTS[..])), when).prop_map(
        |((again, person, identity, role, scope), expiry, id, when)| BindingDraw {
            again,
            person,
            identity,
            role,
            scope,
            expiry,
            id,
            when,
        },
    )
}

fn condition() -> impl Strategy<Value = Condition> {
    (category(), property(), any::<bool>())
        .prop_map(|(category, (name, value), equals)| Condition { category, name, equals, value })
}

fn category() -> impl Strategy<Value = AttributeCategory> {
    let (subject, resource) = (Just(AttributeCategory::Subject), Just(AttributeCategory::Resource));
    prop_oneof![3 => subject, 4 => resource, 1 => Just(AttributeCategory::Action), 2 => Just(AttributeCategory::Context)]
}

/// Draws an attribute with few names and usually with values that differ only in their types.
fn property() -> impl Strategy<Value = (String, Value)> {
    let name = select(&ATTRIBUTES[..]).prop_map(str::to_owned);
    (name, prop_oneof![3 => select(alike()), 1 => select(others())])
}

/// Values that differ only in their types.
pub(super) fn alike() -> Vec<Value> {
    vec![Value::String("1".into()), Value::Integer(1), Value::Boolean(true)]
}

/// Values at the limits, and similar values.
pub(super) fn others() -> Vec<Value> {
    let text = |text: &str| Value::String(text.into());
    let integer = Value::Integer;
    vec![
        text(""),
        text("true"),
        text("archived"),
        text("Archived"),
        integer(0),
        integer(-1),
        integer((1 << 53) - 1),
        integer(-((1 << 53) - 1)),
        Value::Boolean(false),
    ]
}

pub(super) fn properties_draw() -> impl Strategy<Value = Vec<(String, Value)>> {
    prop_oneof![2 => Just(vec![]), 3 => vec(property(), 1..=2)]
}

pub(super) fn owner_draw() -> impl Strategy<Value = OwnerDraw> {
    (option::of(place()), select(&SEGMENTS[..]), properties_draw())
}

pub(super) fn question_draw() -> impl Strategy<Value = QuestionDraw> {
    let spot = prop_oneof![
        4 => Just(Where::Scope),
        4 => select(&SEGMENTS[..]).prop_map(Where::Below),
        1 => Just(Where::Below("a/b/c")),
        3 => select(&BESIDE[..]).prop_map(Where::Beside),
        2 => Just(Where::Shortened),
        3 => Just(Where::Parent),
        1 => Just(Where::Identity),
        1 => Just(Where::Unrelated),
    ];
    let draw = || (any::<u8>(), place());
    let supplied = prop_oneof![1 => Just(vec![]), 2 => vec((category(), property()), 1..=4)];
    let resource = (spot, place());
    let about = option::weighted(0.6, place());
    (about, draw(), draw(), resource, supplied, any::<bool>()).prop_map(
        |(binding, identity, capability, resource, supplied, meets)| QuestionDraw {
            binding,
            identity,
            capability,
            resource,
            supplied,
            meets,
        },
    )
}
