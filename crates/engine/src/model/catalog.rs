//! Catalogs: capabilities, and the built-in roles that hold them.
//!
//! **Invariant**: a [`Catalog`] names every capability once, sorted by name, and its roles hold
//! only those.

use crate::model::similar::{SUGGESTIONS_MAX, did_you_mean};
use crate::model::violation::FactsError;
use crate::{
    CapabilityIx, CapabilitySet, Map, NAME_BYTES_MAX, ParseNameError, parse_capability_name,
    parse_name, quote,
};

/// What a catalog document declares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogFacts {
    /// Its name, such as `chainguard-2025-08-14`.
    pub name: String,
    /// Resources with their actions: each pair is a capability.
    pub resources: Vec<CatalogResource>,
    /// Opaque capabilities: names without a dot.
    pub capabilities: Vec<String>,
    /// Built-in roles.
    pub roles: Vec<CatalogRole>,
}

/// A kind of resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogResource {
    /// Its name, which may have dots: `manifest.metadata`.
    pub name: String,
    /// What it is for, may be empty.
    pub purpose: String,
    /// What can be done to it; no dots.
    pub actions: Vec<String>,
}

/// A built-in role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CatalogRole {
    /// Its name. It has no slash, so it is never the id of a custom role.
    pub name: String,
    /// Which part of the platform it is for.
    pub family: Family,
    /// What it is for, may be empty.
    pub description: String,
    /// Whether its holder owns an organization; at most one role of a catalog.
    pub owner: bool,
    /// Names of capabilities of this catalog.
    pub capabilities: Vec<String>,
}

/// Which part of the platform a role is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Family {
    /// Running an organization.
    Administrative,
    /// Container images and packages.
    Registry,
    /// Programming-language libraries.
    Library,
    /// Anything else, and every custom role.
    #[default]
    Custom,
}

impl Family {
    /// Every family, in the contract's order.
    pub const ALL: [Self; 4] = [Self::Administrative, Self::Registry, Self::Library, Self::Custom];

    /// Its name in documents and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Administrative => "administrative",
            Self::Registry => "registry",
            Self::Library => "library",
            Self::Custom => "custom",
        }
    }
}

/// A catalog that keeps all rules: its facts, and its capabilities by number.
#[derive(Debug)]
pub struct Catalog {
    facts: CatalogFacts,
    capabilities: Vec<Box<str>>,
    by_name: Map<Box<str>, CapabilityIx>,
}

impl Catalog {
    /// Checks the facts.
    ///
    /// # Errors
    ///
    /// Every name that is malformed, taken or not declared; an action or opaque capability with a
    /// dot; a second owner role.
    pub fn new(facts: CatalogFacts) -> Result<Self, FactsError> {
        let mut violations = FactsError::default();
        check_names(&facts, &mut violations);

        let mut names = declared(&facts, &mut violations);
        names.sort_unstable();
        let by_name = (0u32..).zip(&names).map(|(at, name)| (name.clone(), CapabilityIx(at)));
        let catalog = Self { by_name: by_name.collect(), capabilities: names, facts };
        check_roles(&catalog, &mut violations);
        if violations.is_empty() { Ok(catalog) } else { Err(violations) }
    }

    /// The facts.
    #[must_use]
    pub const fn facts(&self) -> &CatalogFacts {
        &self.facts
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// Its resources, as declared.
    #[must_use]
    pub fn resources(&self) -> &[CatalogResource] {
        &self.facts.resources
    }

    /// Its built-in roles, as declared.
    #[must_use]
    pub fn roles(&self) -> &[CatalogRole] {
        &self.facts.roles
    }

    /// The role whose holder owns an organization, if one is marked.
    #[must_use]
    pub fn owner_role(&self) -> Option<&CatalogRole> {
        self.roles().iter().find(|role| role.owner)
    }

    /// The names of all its capabilities, sorted.
    pub fn capabilities(&self) -> impl ExactSizeIterator<Item = &str> {
        self.capabilities.iter().map(|name| &**name)
    }

    /// The capability of this name.
    #[must_use]
    pub fn capability(&self, name: &str) -> Option<CapabilityIx> {
        self.by_name.get(name).copied()
    }

    /// The name of a capability of this catalog.
    #[must_use]
    pub fn capability_name(&self, capability: CapabilityIx) -> Option<&str> {
        self.capabilities.get(capability.0 as usize).map(|name| &**name)
    }

    /// The set of these names; names that the catalog lacks give nothing.
    #[must_use]
    pub fn capability_set(&self, names: &[String]) -> CapabilitySet {
        let mut set = CapabilitySet::empty(self.capabilities.len());
        names.iter().filter_map(|name| self.capability(name)).for_each(|at| set.insert(at));
        set
    }

    /// The text of a violation for a capability that the catalog lacks.
    pub(crate) fn expected_capability(&self) -> String {
        format!("a capability of catalog {}", quote(&self.facts.name))
    }
}

fn check_names(facts: &CatalogFacts, violations: &mut FactsError) {
    type Parse = fn(&str) -> Result<(), ParseNameError>;
    let mut check = |parse: Parse, kind, index, field: &str, name: &str| {
        if let Err(error) = parse(name) {
            violations.push(kind, index, field, quote(name), format!("a name ({error})"));
        }
    };
    check(parse_name, "name", 0, "", &facts.name);
    for (at, resource) in facts.resources.iter().enumerate() {
        check(parse_capability_name, "resources", at, "name", &resource.name);
        for (item, action) in resource.actions.iter().enumerate() {
            check(parse_capability_name, "resources", at, &format!("actions[{item}]"), action);
        }
    }
    for (at, name) in facts.capabilities.iter().enumerate() {
        check(parse_capability_name, "capabilities", at, "", name);
    }
    for (at, role) in facts.roles.iter().enumerate() {
        check(parse_name, "roles", at, "name", &role.name);
    }
}

/// The names of all capabilities, each once. Names that break a rule are included, so that roles that hold
/// them are not reported as well.
fn declared(facts: &CatalogFacts, violations: &mut FactsError) -> Vec<Box<str>> {
    let mut seen = Map::new();
    let mut names: Vec<Box<str>> = Vec::new();
    let mut declare = |name: String| {
        let is_new = seen.insert(name.clone(), ()).is_none();
        if is_new {
            names.push(name.into());
        }
        is_new
    };
    let mut resources: Map<&str, ()> = Map::new();
    for (at, resource) in facts.resources.iter().enumerate() {
        if resources.insert(&resource.name, ()).is_some()
            && parse_capability_name(&resource.name).is_ok()
        {
            let found = format!("resource {} again", quote(&resource.name));
            violations.push("resources", at, "name", found, "each resource once");
        }
        for (item, action) in resource.actions.iter().enumerate() {
            let name = format!("{}.{action}", resource.name);
            let is_new = declare(name.clone());
            if parse_capability_name(&resource.name).is_err()
                || parse_capability_name(action).is_err()
            {
                continue; // reported already
            }
            let (found, expected) = if action.contains('.') {
                (quote(action), "an action without a dot")
            } else if name.len() > NAME_BYTES_MAX {
                (format!("capability {}", quote(&name)), "a capability of at most 128 bytes")
            } else if !is_new {
                (format!("{} again", quote(&name)), "each capability once")
            } else {
                continue;
            };
            violations.push("resources", at, format!("actions[{item}]"), found, expected);
        }
    }
    for (at, name) in facts.capabilities.iter().enumerate() {
        let is_new = declare(name.clone());
        if parse_capability_name(name).is_err() {
            continue; // reported already
        }
        let (found, expected) = if name.contains('.') {
            let expected = "an opaque capability, which has no dot; one with a dot is an action of \
                            `resources`";
            (quote(name), expected)
        } else if !is_new {
            (format!("{} again", quote(name)), "each capability once")
        } else {
            continue;
        };
        violations.push("capabilities", at, "", found, expected);
    }
    names
}

fn check_roles(catalog: &Catalog, violations: &mut FactsError) {
    let mut seen: Map<&str, usize> = Map::new();
    let mut owner = None;
    for (at, role) in catalog.facts.roles.iter().enumerate() {
        if seen.insert(&role.name, at).is_some() {
            let found = format!("role {} again", quote(&role.name));
            violations.push("roles", at, "name", found, "each role once");
        }
        for (item, name) in role.capabilities.iter().enumerate() {
            if catalog.capability(name).is_none() {
                let field = format!("capabilities[{item}]");
                let may_suggest = violations.total() < SUGGESTIONS_MAX;
                let near = may_suggest.then(|| did_you_mean(name, catalog.capabilities()));
                let expected = catalog.expected_capability() + &near.unwrap_or_default();
                violations.push("roles", at, field, quote(name), expected);
            }
        }
        if role.owner && owner.replace(&role.name).is_some() {
            let found = format!("role {} as a second owner", quote(&role.name));
            violations.push("roles", at, "owner", found, "at most one role with `owner: true`");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> CatalogFacts {
        CatalogFacts {
            name: "test".into(),
            resources: vec![CatalogResource {
                name: "repo.tag".into(),
                purpose: String::new(),
                actions: vec!["list".into(), "create".into()],
            }],
            capabilities: vec!["gulfstream".into()],
            roles: vec![CatalogRole {
                name: "owner".into(),
                owner: true,
                capabilities: vec!["repo.tag.list".into(), "gulfstream".into()],
                ..CatalogRole::default()
            }],
        }
    }

    fn refuses(change: impl FnOnce(&mut CatalogFacts), message: &str) {
        let mut facts = facts();
        change(&mut facts);
        let violations = Catalog::new(facts).unwrap_err();
        let all: Vec<_> = violations.iter().map(ToString::to_string).collect();
        assert_eq!(all, [message]);
    }

    #[test]
    fn capabilities_are_sorted_and_found() {
        let catalog = Catalog::new(facts()).unwrap();
        let names: Vec<_> = catalog.capabilities().collect();
        assert_eq!(names, ["gulfstream", "repo.tag.create", "repo.tag.list"]);
        for name in names {
            let at = catalog.capability(name).unwrap();
            assert_eq!(catalog.capability_name(at), Some(name));
        }
        assert_eq!(catalog.capability("repo.tag.update"), None);
    }

    #[test]
    fn each_rule_is_kept() {
        refuses(
            |f| f.name = "a..b".into(),
            "name: found `a..b`; expected a name (a dot at either end or two in a row)",
        );
        refuses(
            |f| f.resources[0].actions.push("list".into()),
            "resources[0].actions[2]: found `repo.tag.list` again; expected each capability once",
        );
        refuses(
            |f| f.resources[0].actions.push("a.b".into()),
            "resources[0].actions[2]: found `a.b`; expected an action without a dot",
        );
        refuses(
            |f| f.capabilities.push("a.b".into()),
            "capabilities[1]: found `a.b`; expected an opaque capability, which has no dot; one \
             with a dot is an action of `resources`",
        );
        refuses(
            |f| f.roles[0].capabilities.push("repo.list".into()),
            "roles[0].capabilities[2]: found `repo.list`; expected a capability of catalog `test`; did \
             you mean `repo.tag.list`?",
        );
        refuses(
            |f| {
                let twin = CatalogRole { owner: false, ..f.roles[0].clone() };
                f.roles.push(twin);
            },
            "roles[1].name: found role `owner` again; expected each role once",
        );
        refuses(
            |f| {
                let twin = CatalogRole { name: "root".into(), ..f.roles[0].clone() };
                f.roles.push(twin);
            },
            "roles[1].owner: found role `root` as a second owner; expected at most one role with \
             `owner: true`",
        );
    }
}
