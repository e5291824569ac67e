//! Builds facts from draws, without draws that would break a rule of section 3 of the contract.

use std::collections::BTreeSet;

use capstan_engine::{
    AttributeCategory, Attributes, CatalogFacts, CatalogRole, Condition, CustomRole, Facts, Family,
    Group, Identity, PathBuf, RegisteredResource, RoleBinding, Timestamp, Value,
};

use super::draw::{
    BindingDraw, CapabilitiesDraw, DEPTH_MAX, Expiry, Place, QuestionDraw, SEGMENTS, Where,
    WorldDraw,
};
use super::{Question, World, later};
use crate::naive::is_path;

type PropertiesDraw<'d> = &'d [(String, Value)];

/// If more bindings are drawn, they are all of one identity, at scopes that are created for them.
const CROWD: usize = 12;

impl WorldDraw {
    /// Builds the world from the draws in order, without those that would break a rule.
    pub(super) fn world(self) -> World {
        let mut builder = Builder::new(self.catalog, self.now);
        builder.built_in_roles(&self.built_in_roles, self.owner);
        self.groups.iter().for_each(|(parent, segment)| builder.group(*parent, segment));
        if self.deep {
            builder.deepen();
        }
        for (parent, segment, capabilities) in &self.custom_roles {
            builder.custom_role(*parent, segment, capabilities);
        }
        for ((parent, segment, properties), disabled) in &self.identities {
            builder.identity(*parent, segment, properties, *disabled);
        }
        if builder.world.facts.identities.is_empty() {
            builder.identity(None, "someone", &[], false);
        }
        for (parent, segment, properties) in &self.resources {
            builder.resource(*parent, segment, properties);
        }
        let crowded = self.bindings.len() > CROWD;
        if crowded {
            builder.widen(80);
        }
        self.bindings.iter().for_each(|binding| builder.binding(binding, crowded));
        builder.world
    }
}

struct Builder {
    world: World,
    taken: BTreeSet<String>,
    bound: BTreeSet<(PathBuf, Box<str>, PathBuf, BTreeSet<Condition>)>,
}

impl Builder {
    fn new(catalog: CatalogFacts, now: Timestamp) -> Self {
        let world = World { catalog, facts: Facts::default(), now };
        Self { world, taken: BTreeSet::new(), bound: BTreeSet::new() }
    }

    /// A path below a group, or at the root. `None` if it is already used.
    fn claim(&mut self, parent: Option<Place>, segment: &str) -> Option<PathBuf> {
        let groups = &self.world.facts.groups;
        let text = match parent.and_then(|at| pick(groups, at)) {
            Some(group) => format!("{}/{segment}", group.id),
            None => segment.to_owned(),
        };
        let path = path(&text)?;
        self.taken.insert(text).then_some(path)
    }

    fn built_in_roles(&mut self, draws: &[(&str, CapabilitiesDraw)], owner: Option<Place>) {
        for (name, capabilities) in draws {
            let capabilities = capabilities.from(&self.world.catalog);
            let roles = &mut self.world.catalog.roles;
            if roles.iter().all(|role| role.name != *name) {
                let name = (*name).to_owned();
                roles.push(CatalogRole { name, capabilities, ..CatalogRole::default() });
            }
        }
        let roles = &mut self.world.catalog.roles;
        let owner = owner.map(|at| at.of(roles.len()));
        if let Some(role) = owner.and_then(|at| roles.get_mut(at)) {
            (role.owner, role.family) = (true, Family::Registry);
        }
    }

    fn group(&mut self, parent: Option<Place>, segment: &str) {
        if let Some(id) = self.claim(parent, segment) {
            self.world.facts.groups.push(Group { id, name: String::new() });
        }
    }

    /// Adds groups below the last one, down to the maximum depth.
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

    fn custom_role(&mut self, parent: Place, segment: &str, capabilities: &CapabilitiesDraw) {
        let capabilities = capabilities.from(&self.world.catalog);
        if let Some(id) = self.claim(Some(parent), segment) {
            let (name, description) = Default::default();
            self.world.facts.roles.push(CustomRole { id, name, description, capabilities });
        }
    }

    fn identity(
        &mut self,
        parent: Option<Place>,
        segment: &str,
        has: PropertiesDraw<'_>,
        disabled: bool,
    ) {
        if let Some(id) = self.claim(parent, segment) {
            let properties = has.iter().cloned().collect();
            let kind = if segment.len().is_multiple_of(2) { "user" } else { "service" }.into();
            let identity = Identity { kind, properties, disabled, ..Identity::named(id) };
            self.world.facts.identities.push(identity);
        }
    }

    /// The id of an identity that need not be registered. `None` if it names something else.
    fn person(&self, id: &str) -> Option<PathBuf> {
        let mut identities = self.world.facts.identities.iter();
        let is_registered = identities.any(|identity| identity.id.as_str() == id);
        if self.taken.contains(id) && !is_registered { None } else { path(id) }
    }

    fn resource(&mut self, parent: Option<Place>, segment: &str, has: PropertiesDraw<'_>) {
        if let Some(id) = self.claim(parent, segment) {
            let (name, properties) = (String::new(), has.iter().cloned().collect());
            let kind = if segment.len().is_multiple_of(2) { "image" } else { "repo" }.into();
            let resource = RegisteredResource { id, name, kind, properties };
            self.world.facts.resources.push(resource);
        }
    }

    /// Registers many resources at the root, so that none is too deep.
    fn widen(&mut self, resources: usize) {
        (0..resources).for_each(|at| self.resource(None, &format!("r{at}"), &[]));
    }

    fn binding(&mut self, draw: &BindingDraw, crowded: bool) {
        let Facts { groups, roles, identities, resources, .. } = &self.world.facts;
        let scopes: Vec<_> =
            groups.iter().map(|g| &g.id).chain(resources.iter().map(|r| &r.id)).collect();
        let identity = if crowded { identities.first() } else { pick(identities, draw.identity) };
        let (Some(identity), Some(scope)) = (identity, pick(&scopes, draw.scope)) else {
            return;
        };
        let person = draw.person.filter(|_| !crowded).and_then(|id| self.person(id));
        let identity = person.unwrap_or_else(|| identity.id.clone());
        // A custom role has the id `home/name`, and can be bound at or below `home`.
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
        let mut place = (identity, role, (*scope).clone());
        if let (true, Some(last)) = (draw.again, self.world.facts.role_bindings.last()) {
            place = (last.identity.clone(), last.role.clone(), last.scope.clone());
        }
        let ((identity, role, scope), when) = (place, draw.when.clone());
        let tests = when.iter().cloned().collect();
        if !self.bound.insert((identity.clone(), role.clone(), scope.clone(), tests)) {
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
        let binding = RoleBinding { id, identity, role, scope, expires_at, when };
        self.world.facts.role_bindings.push(binding);
    }
}

impl CapabilitiesDraw {
    pub(super) fn from(&self, catalog: &CatalogFacts) -> Vec<String> {
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
    /// The question. `None` if its resource would not be a path.
    pub(super) fn about(&self, world: &World) -> Option<Question> {
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
            Where::Identity => known.to_owned(),
            Where::Unrelated => "elsewhere/a/b".into(),
        };
        let resource = path(&resource).or_else(|| path(scope))?;
        let attributes = self.attributes(binding);
        Some(Question { identity, capability, resource, attributes })
    }

    fn attributes(&self, binding: Option<&RoleBinding>) -> Attributes {
        let mut attributes = Attributes::default();
        let drawn = self.supplied.iter().map(|(of, property)| (*of, property.clone()));
        let tests = binding.filter(|_| self.meets).map(|binding| &binding.when);
        let met = tests.into_iter().flatten().map(|test| {
            // A value for `not_equals` differs only in its type, if possible.
            let value = match &test.value {
                value if test.equals => value.clone(),
                Value::String(text) => text.parse().map_or(Value::Boolean(true), Value::Integer),
                Value::Boolean(value) => Value::String(value.to_string()),
                Value::Integer(value) => Value::String(value.to_string()),
            };
            (test.category, (test.name.clone(), value))
        });
        for (of, (name, value)) in drawn.chain(met) {
            match of {
                AttributeCategory::Subject => attributes.subject.insert(name, value),
                AttributeCategory::Resource => attributes.resource.insert(name, value),
                AttributeCategory::Action => attributes.action.insert(name, value),
                AttributeCategory::Context => attributes.context.insert(name, value),
            };
        }
        attributes
    }
}

/// The names of all capabilities in sorted order, which is the order of their bits.
fn names(catalog: &CatalogFacts) -> Vec<String> {
    let facts = Facts::default();
    let naive = crate::Naive::new(catalog, &facts, Attributes::NONE, Timestamp::UNIX_EPOCH);
    naive.capabilities().into_iter().collect()
}

fn pick<T>(items: &[T], at: Place) -> Option<&T> {
    items.get(at.of(items.len()))
}

fn path(text: &str) -> Option<PathBuf> {
    if is_path(text) { text.parse().ok() } else { None }
}
