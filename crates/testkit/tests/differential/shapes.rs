//! Lists and explanations agree with checks.

use std::collections::BTreeSet;

use capstan_engine::{
    AttributeCategory, Attributes, CatalogFacts, CatalogRole, Condition, Cursor, Facts, Grant,
    Group, Identity, PathBuf, Properties, Reason, RegisteredResource, RoleBinding, Timestamp,
    Value,
};
use capstan_testkit::generate::{self, Question, World};
use capstan_testkit::naive::is_at_or_above;
use proptest::prelude::*;

use capstan_testkit::asking::{
    Found, allowed, build, check, conditional_places, conditional_who, explain, places, what, who,
};

proptest! {
    #[test]
    fn list_capabilities_agrees_with_checks((world, questions) in generate::asked()) {
        let (_, snapshot) = build(&world)?;
        for mut question in questions {
            let (names, grants) = what(&snapshot, &question, world.now);
            prop_assert_eq!(names.is_empty(), grants.is_empty());
            let mut filtered = Vec::new();
            for name in snapshot.catalog().capabilities() {
                name.clone_into(&mut question.capability);
                if allowed(&snapshot, &question, world.now) {
                    filtered.push(name.to_owned());
                }
            }
            prop_assert_eq!(names, filtered, "{:?}", question);
        }
    }

    #[test]
    fn list_identities_agrees_with_checks((world, questions) in generate::asked()) {
        let (_, snapshot) = build(&world)?;
        for question in &questions {
            let found = who(&snapshot, question, world.now);
            let Ok(found) = found else {
                prop_assert!(check(&snapshot, question, world.now).is_err());
                continue;
            };
            let mut filtered = BTreeSet::new();
            for identity in world.identities() {
                let asked = Question { identity: identity.clone(), ..question.clone() };
                if allowed(&snapshot, &asked, world.now) {
                    filtered.insert(identity.as_str());
                }
            }
            prop_assert!(found.iter().copied().eq(filtered.iter().copied()), "{:?}", question);
        }
    }

    /// Checks at and below an unconditional listed scope are allowed. Every allowed resource is at or below a
    /// listed scope.
    #[test]
    fn list_scopes_agrees_with_checks((world, questions) in generate::asked()) {
        let (_, snapshot) = build(&world)?;
        let bindings = world.facts.role_bindings.iter();
        let scopes: BTreeSet<_> = bindings.map(|binding| binding.scope.clone()).collect();
        for question in &questions {
            let Ok(listed) = places(&snapshot, question, world.now) else {
                prop_assert!(check(&snapshot, question, world.now).is_err());
                continue;
            };
            for (scope, conditional) in &listed {
                let above = |a: &&(&str, bool)| a.0 != *scope && is_at_or_above(a.0, scope);
                prop_assert!(listed.iter().filter(above).all(|(_, conditional)| *conditional));
                let here_and_below = [(*scope).to_owned(), format!("{scope}/x")];
                for resource in here_and_below.iter().filter(|_| !conditional) {
                    let Ok(resource) = resource.parse() else { continue }; // The maximum depth.
                    let asked = Question { resource, ..question.clone() };
                    prop_assert!(allowed(&snapshot, &asked, world.now), "{:?}", asked);
                }
            }
            let resources = questions.iter().map(|question| &question.resource).chain(&scopes);
            for resource in resources {
                let asked = Question { resource: resource.clone(), ..question.clone() };
                let mut over = listed.iter().filter(|(s, _)| is_at_or_above(s, resource.as_str()));
                let covered = over.next().is_some();
                prop_assert!(covered || !allowed(&snapshot, &asked, world.now), "{:?}", asked);
            }
        }
    }

    /// Resources of a type are listed if a check of them is allowed, in pages of any size.
    #[test]
    fn list_resources_agrees_with_checks((world, questions) in generate::asked(), limit in 1usize..4) {
        let (_, snapshot) = build(&world)?;
        for question in &questions {
            let Question { identity, capability, attributes, .. } = question;
            let page = |kind: &str, after, limit| {
                let cursor = Cursor { after, limit };
                snapshot.list_resources_page(
                    identity.as_path(),
                    capability,
                    (kind, None),
                    attributes,
                    world.now,
                    cursor,
                )
            };
            if page("repo", None, 1).is_err() {
                prop_assert!(check(&snapshot, question, world.now).is_err());
                continue;
            }
            for kind in ["repo", "image", "spaceship"] {
                let of_kind = world.facts.resources.iter().filter(|one| one.kind == kind);
                let asked = |one: &&RegisteredResource| {
                    allowed(&snapshot, &Question { resource: one.id.clone(), ..question.clone() }, world.now)
                };
                let expected: BTreeSet<&str> = of_kind.filter(asked).map(|one| one.id.as_str()).collect();
                let mut found: Vec<&str> = vec![];
                loop {
                    let one = page(kind, found.last().copied(), limit).unwrap();
                    prop_assert!(one.entries.len() <= limit);
                    found.extend(&one.entries);
                    if !one.has_more {
                        break;
                    }
                    prop_assert_eq!(one.entries.len(), limit);
                }
                prop_assert!(found.iter().eq(&expected), "{:?}: {:?} and {:?}", question, found, expected);
            }
        }
    }

    /// With properties that meet the open tests of a listed binding, a check is allowed. A registered one wins, so this
    /// proves also that none is tested.
    #[test]
    fn conditional_entries_are_allowed_when_their_open_tests_are_met((world, questions) in generate::asked()) {
        let (_, snapshot) = build(&world)?;
        for question in &questions {
            let Ok(identities) = conditional_who(&snapshot, question, world.now) else { continue };
            for Found { entry, conditional, .. } in identities {
                let identity: PathBuf = entry.parse().unwrap();
                let asked = Question { identity, ..question.clone() };
                prop_assert_eq!(allowed(&snapshot, &asked, world.now), conditional.is_empty());
                for binding in conditional {
                    let attributes = meeting(&binding.open, &question.attributes);
                    let asked = Question { attributes, ..asked.clone() };
                    prop_assert!(allowed(&snapshot, &asked, world.now), "{:?}", asked);
                }
            }
            for Found { entry, conditional, .. } in
                conditional_places(&snapshot, question, world.now).unwrap()
            {
                // No resource is registered there, so no property is either.
                let Ok(resource) = format!("{}/nothing-here", entry.scope).parse() else { continue };
                let silent = Attributes { resource: Properties::new(), ..question.attributes.clone() };
                for binding in conditional {
                    let attributes = meeting(&binding.open, &silent);
                    let asked = Question { attributes, resource: PathBuf::clone(&resource), ..question.clone() };
                    prop_assert!(allowed(&snapshot, &asked, world.now), "{:?}", asked);
                }
            }
        }
    }

    #[test]
    fn list_scopes_ignores_properties_of_the_resource((world, questions) in generate::asked()) {
        let (_, snapshot) = build(&world)?;
        for question in &questions {
            let mut silent = question.clone();
            silent.attributes.resource.clear();
            let found = places(&snapshot, question, world.now);
            prop_assert_eq!(found, places(&snapshot, &silent, world.now), "{:?}", question);
        }
    }

    /// The witness is one of the listed grants, has the expiry of the decision, and grants without other
    /// bindings.
    #[test]
    fn a_witness_grants_without_other_bindings((world, questions) in generate::asked()) {
        let (_, snapshot) = build(&world)?;
        for question in &questions {
            let explained = explain(&snapshot, question, world.now);
            let decision = check(&snapshot, question, world.now);
            prop_assert_eq!(explained.as_ref().map(|e| e.decision), decision.as_ref().copied());
            let (Ok(explained), Ok(decision)) = (explained, decision) else { continue };
            prop_assert_eq!(explained.witness.is_some(), decision.allowed());
            let Some(witness) = explained.witness else { continue };
            prop_assert!(explained.roles.is_empty());
            prop_assert_eq!(witness.expires_at, decision.valid_until);
            prop_assert!(what(&snapshot, question, world.now).1.contains(&witness));
            let bindings = world.facts.role_bindings.iter();
            let held = bindings.filter(|binding| binding.identity == question.identity);
            let mut alone = false;
            for binding in held.filter(|binding| may_be(binding, &witness)) {
                let mut world = world.clone();
                world.facts.role_bindings =
                    vec![binding.clone()];
                let (_, snapshot) = build(&world)?;
                alone |= check(&snapshot, question, world.now) == Ok(decision);
            }
            prop_assert!(alone, "{:?} for {:?}", witness, question);
        }
    }

    /// Each role of an explanation, bound at or above the resource, changes the denial to an allow.
    #[test]
    fn each_role_of_an_explanation_would_grant((world, questions) in generate::asked()) {
        let (_, snapshot) = build(&world)?;
        for question in &questions {
            let Ok(explained) = explain(&snapshot, question, world.now) else { continue };
            for role in explained.roles {
                let Some(granting) = granting(&world, question, role) else { continue };
                let (_, snapshot) = build(&granting)?;
                let decision = check(&snapshot, question, world.now);
                prop_assert_eq!(decision.map(|d| d.reason), Ok(Reason::Granted), "{}", role);
            }
        }
    }

    /// Supplied values of registered properties have no effect.
    #[test]
    fn registered_properties_override_supplied_ones((world, questions) in generate::asked()) {
        let (_, snapshot) = build(&world)?;
        let facts = &world.facts;
        for question in &questions {
            let identity = facts.identities.iter().find(|i| i.id == question.identity);
            let resource = facts.resources.iter().find(|r| r.id == question.resource);
            let strip = |supplied: &Properties, registered: Option<&Properties>| -> Properties {
                let mut supplied = supplied.clone();
                supplied.retain(|name, _| !registered.is_some_and(|has| has.contains_key(name)));
                supplied
            };
            let supplied = &question.attributes;
            let attributes = Attributes {
                subject: strip(&supplied.subject, identity.map(|found| &found.properties)),
                resource: strip(&supplied.resource, resource.map(|found| &found.properties)),
                ..supplied.clone()
            };
            let stripped = Question { attributes, ..question.clone() };
            let answer = check(&snapshot, question, world.now);
            prop_assert_eq!(answer, check(&snapshot, &stripped, world.now), "{:?}", question);
            let listed = what(&snapshot, question, world.now);
            prop_assert_eq!(listed, what(&snapshot, &stripped, world.now), "{:?}", question);
        }
    }
}

/// A condition on `resource.status` that only a property of an identity meets. Minimal world: group `a`,
/// identities `i` and `a/robot {status: open}`, `i` bound at `a` when `resource.status` is open.
#[test]
fn an_identity_is_not_a_registered_resource() {
    let status = |value: &str| Properties::from([("status".into(), Value::String(value.into()))]);
    let role = CatalogRole {
        name: "reader".into(),
        capabilities: vec!["read".into()],
        ..CatalogRole::default()
    };
    let catalog = CatalogFacts {
        name: "one".into(),
        capabilities: vec!["read".into()],
        roles: vec![role],
        ..CatalogFacts::default()
    };
    let path = |text: &str| -> PathBuf { text.parse().unwrap() };
    let robot = Identity { properties: status("open"), ..Identity::named(path("a/robot")) };
    let open = Value::String("open".into());
    let facts = Facts {
        groups: vec![Group { id: path("a"), name: String::new() }],
        identities: vec![Identity::named(path("i")), robot],
        role_bindings: vec![RoleBinding {
            id: None,
            identity: path("i"),
            role: "reader".into(),
            scope: path("a"),
            expires_at: None,
            when: vec![Condition {
                category: AttributeCategory::Resource,
                name: "status".into(),
                equals: true,
                value: open,
            }],
        }],
        ..Facts::default()
    };
    let world = World { catalog, facts, now: Timestamp::UNIX_EPOCH };
    let (_, snapshot) = build(&world).unwrap();
    let ask = |resource| {
        let attributes = Attributes { resource, ..Attributes::default() };
        let (identity, resource) = (path("i"), path("a/robot"));
        let question = Question { identity, capability: "read".into(), resource, attributes };
        check(&snapshot, &question, world.now).map(|decision| decision.reason)
    };
    assert_eq!(ask(Properties::new()), Ok(Reason::ConditionNotMet), "no supplied property");
    assert_eq!(ask(status("closed")), Ok(Reason::ConditionNotMet), "another supplied value");
    assert_eq!(ask(status("open")), Ok(Reason::Granted));
}

/// Whether a grant can be of this binding. A binding without a declared id is compared by its other fields.
fn may_be(binding: &RoleBinding, grant: &Grant<'_>) -> bool {
    binding.id.as_ref().is_none_or(|id| id.as_str() == grant.binding)
        && (&*binding.role, binding.scope.as_str()) == (grant.role, grant.scope)
        && binding.expires_at == grant.expires_at
}

/// The world with an additional binding of the role: a custom role at its group, a built-in role at the
/// root of the resource. `None` without such a scope, and without the identity or if it is disabled.
fn granting(world: &World, question: &Question, role: &str) -> Option<World> {
    let root = question.resource.as_str().split('/').next()?;
    let scope: PathBuf = role.rsplit_once('/').map_or(root, |(home, _)| home).parse().ok()?;
    let facts = &world.facts;
    let is_scope = facts.groups.iter().any(|group| group.id == scope)
        || facts.resources.iter().any(|resource| resource.id == scope);
    let mut identities = facts.identities.iter();
    let is_known = identities.any(|one| one.id == question.identity && !one.disabled);
    if !is_scope || !is_known {
        return None;
    }
    let (identity, role) = (question.identity.clone(), role.into());
    let binding = RoleBinding { id: None, identity, role, scope, expires_at: None, when: vec![] };
    let mut world = world.clone();
    let same = |other: &RoleBinding| {
        (&other.identity, &other.role, &other.scope)
            == (&binding.identity, &binding.role, &binding.scope)
            && other.when.is_empty()
    };
    world.facts.role_bindings.retain(|other| !same(other)); // The existing binding has expired.
    world.facts.role_bindings.push(binding);
    Some(world)
}

/// The attributes, and what the tests want.
fn meeting(open: &[&Condition], supplied: &Attributes) -> Attributes {
    let mut all = supplied.clone();
    let (equal, different): (Vec<&Condition>, Vec<&Condition>) =
        open.iter().partition(|test| test.equals);
    for test in equal.into_iter().chain(different) {
        let of = match test.category {
            AttributeCategory::Subject => &mut all.subject,
            AttributeCategory::Resource => &mut all.resource,
            AttributeCategory::Action => &mut all.action,
            AttributeCategory::Context => &mut all.context,
        };
        let other = Value::String("a value that no test has".into());
        let wanted = if test.equals { test.value.clone() } else { other };
        of.entry(test.name.clone()).or_insert(wanted);
    }
    all
}
