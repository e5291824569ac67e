//! Whether what one holds covers what one gives (R1), and exactly what is missing: the questions of Kubernetes' tests of
//! its rules for role-based access (`TestCovers…` of `policy_comparator_test.go`), in capabilities.
//!
//! A verb on a resource is a capability; an API group is a part of the resource's name; a URL is an opaque capability; a
//! resource's name is a scope. There is no star: what Kubernetes writes with one is every capability that the catalog has
//! of it, so an enumeration may cover a star, if it is complete.

use std::sync::Arc;

use capstan_engine::{Catalog, CatalogFacts, CatalogResource, CatalogRole};
use capstan_iam::Rule;
use capstan_testkit::managed::Managed;
use capstan_testkit::managed::operations::*;

use crate::common::*;

const VERBS: [&str; 7] = ["create", "delete", "exec", "get", "list", "update", "watch"];
const RESOURCES: [&str; 8] = [
    "group1/builds",
    "group1/deployments",
    "group1/roles",
    "group2/builds",
    "group2/deployments",
    "group2/roles",
    "pods",
    "pods/scale",
];
const URLS: [&str; 4] = ["apis", "apis/v1", "apis/v1/foo", "healthz"];

/// Every verb on every resource.
fn rule(verbs: &[&str], resources: &[&str]) -> Vec<String> {
    let on = |resource: &&str| {
        let resource = (*resource).to_owned();
        verbs.iter().map(move |verb| format!("{resource}.{verb}")).collect::<Vec<_>>()
    };
    resources.iter().flat_map(on).collect()
}

fn urls(urls: &[&str]) -> Vec<String> {
    urls.iter().map(|url| (*url).to_owned()).collect()
}

fn world() -> Managed {
    let resource = |name: &str, actions: &[&str]| CatalogResource {
        name: name.into(),
        purpose: String::new(),
        actions: actions.iter().map(|one| (*one).to_owned()).collect(),
    };
    let kinds = ["groups", "roles", "role_bindings", "identity"];
    let manage = ["create", "delete", "list", "update"];
    let mut resources: Vec<_> = RESOURCES.iter().map(|name| resource(name, &VERBS)).collect();
    resources.extend(kinds.iter().map(|kind| resource(kind, &manage)));
    let all = rule(&VERBS, &RESOURCES).into_iter().chain(urls(&URLS)).chain(rule(&manage, &kinds));
    let role = |name: &str, owner, capabilities| CatalogRole {
        name: name.into(),
        owner,
        capabilities,
        ..CatalogRole::default()
    };
    let granter = rule(&["list"], &["groups", "role_bindings"]);
    let granter = [granter, rule(&["create"], &["role_bindings"])].concat();
    let roles = vec![role("owner", true, all.collect()), role("granter", false, granter)];
    let capabilities = urls(&URLS);
    let facts = CatalogFacts { name: "verbs".into(), resources, capabilities, roles };
    let catalog: Arc<Catalog> = Arc::new(Catalog::new(facts).unwrap());
    let mut world = Managed::new(catalog);
    let operator = capstan_iam::Actor::Operator;
    for one in ["alice", "mallory"] {
        done(&mut world, &operator, &identity(one));
    }
    done(&mut world, &operator, &organization("acme", "alice"));
    for one in ["acme/foo", "acme/bar"] {
        done(&mut world, &operator, &folder(one));
    }
    done(&mut world, &operator, &bind("mallory", "granter", "acme"));
    world
}

struct Case {
    name: &'static str,
    /// What is held, role by role, and where.
    held: Vec<(Vec<String>, &'static str)>,
    given: Vec<String>,
    at: &'static str,
    missing: Vec<String>,
}

fn case(
    name: &'static str,
    held: Vec<Vec<String>>,
    given: &[Vec<String>],
    missing: Vec<String>,
) -> Case {
    let held = held.into_iter().map(|one| (one, "acme")).collect();
    Case { name, held, given: given.concat(), at: "acme", missing }
}

const BOTH: [&str; 2] = ["group1/builds", "group1/deployments"];
const TWO_GROUPS: [&str; 4] =
    ["group1/builds", "group1/deployments", "group2/builds", "group2/deployments"];
const CHANGE: [&str; 2] = ["delete", "update"];

fn cases() -> Vec<Case> {
    let roles = ["group1/roles", "group2/roles"];
    let split = |group: &str| {
        let (builds, deployments) = (format!("{group}/builds"), format!("{group}/deployments"));
        vec![
            rule(&["delete"], &[&deployments]),
            rule(&["delete"], &[&builds]),
            rule(&["update"], &[&builds, &deployments]),
        ]
    };
    let get = |resources: &[&str]| rule(&["get"], resources);
    let most_verbs = &VERBS[..6];
    vec![
        case("exact match", vec![get(&["pods"])], &[get(&["pods"])], vec![]),
        case("subresource star", vec![get(&["pods/scale"])], &[get(&["pods/scale"])], vec![]),
        case(
            "a subresource is not its resource",
            vec![get(&["pods"])],
            &[get(&["pods/scale"])],
            get(&["pods/scale"]),
        ),
        case("several rules cover one", split("group1"), &[rule(&CHANGE, &BOTH)], vec![]),
        case(
            "several API groups cover one rule",
            [split("group1"), split("group2")].concat(),
            &[rule(&CHANGE, &TWO_GROUPS)],
            vec![],
        ),
        case(
            "one rule covers several API groups",
            vec![rule(&CHANGE, &TWO_GROUPS)],
            &[split("group1"), split("group2")].concat(),
            vec![],
        ),
        case(
            "one verb on one resource is missing",
            vec![rule(&CHANGE, &BOTH), rule(&["delete"], &["pods"])],
            &[rule(&CHANGE, &["group1/builds", "group1/deployments", "pods"])],
            rule(&["update"], &["pods"]),
        ),
        case("API group star covers several", vec![get(&roles)], &[get(&roles)], vec![]),
        case(
            "one API group does not cover the star",
            vec![get(&roles[..1])],
            &[get(&roles)],
            get(&roles[1..]),
        ),
        case("API group star covers the star", vec![get(&roles)], &[get(&roles)], vec![]),
        case(
            "verb star covers several",
            vec![rule(&VERBS, &["pods"])],
            &[rule(&["watch", "list"], &["pods"])],
            vec![],
        ),
        case(
            "an enumeration without one verb does not cover the star",
            vec![rule(most_verbs, &["pods"])],
            &[rule(&VERBS, &["pods"])],
            rule(&["watch"], &["pods"]),
        ),
        case(
            "verb star covers the star",
            vec![rule(&VERBS, &["pods"])],
            &[rule(&VERBS, &["pods"])],
            vec![],
        ),
        case(
            "resource star covers several",
            vec![get(&RESOURCES)],
            &[get(&["pods", "group2/builds"])],
            vec![],
        ),
        case(
            "an enumeration without resources does not cover the star",
            vec![get(&RESOURCES[..6])],
            &[get(&RESOURCES)],
            get(&RESOURCES[6..]),
        ),
        case("resource star covers the star", vec![get(&RESOURCES)], &[get(&RESOURCES)], vec![]),
        Case {
            name: "no name covers each name",
            held: vec![(get(&["pods"]), "acme")],
            given: get(&["pods"]),
            at: "acme/foo",
            missing: vec![],
        },
        Case {
            name: "names do not cover no name",
            held: vec![(get(&["pods"]), "acme/foo"), (get(&["pods"]), "acme/bar")],
            given: get(&["pods"]),
            at: "acme",
            missing: get(&["pods"]),
        },
        Case {
            name: "a name does not cover another",
            held: vec![(get(&["pods"]), "acme/foo")],
            given: get(&["pods"]),
            at: "acme/bar",
            missing: get(&["pods"]),
        },
        case("the same URL", vec![urls(&["apis"])], &[urls(&["apis"])], vec![]),
        case("URL star covers several", vec![urls(&URLS)], &[urls(&["apis", "apis/v1"])], vec![]),
        case(
            "a URL below another does not cover it",
            vec![urls(&["apis/v1", "apis/v1/foo"])],
            &[urls(&["apis", "apis/v1"])],
            urls(&["apis"]),
        ),
        case(
            "URLs below cover themselves",
            vec![urls(&["apis/v1", "apis/v1/foo"])],
            &[urls(&["apis/v1/foo", "apis/v1"])],
            vec![],
        ),
        case(
            "a URL does not cover what is below it",
            vec![urls(&["apis"])],
            &[urls(&["apis/v1"])],
            urls(&["apis/v1"]),
        ),
        case(
            "a URL beside a resource",
            vec![get(&["pods"]), urls(&["apis"])],
            &[get(&["pods"]), urls(&["apis"])],
            vec![],
        ),
        case(
            "a URL beside a resource is missing",
            vec![get(&["pods"])],
            &[get(&["pods"]), urls(&["apis"])],
            urls(&["apis"]),
        ),
        case("nothing is covered by nothing", vec![], &[], vec![]),
        case("something is not covered by nothing", vec![], &[get(&["pods"])], get(&["pods"])),
    ]
}

#[test]
fn what_is_held_covers_what_is_given_or_exactly_this_is_missing() {
    let base = world();
    for Case { name, held, given, at, mut missing } in cases() {
        let mut world = base.clone();
        fn texts(names: &[String]) -> Vec<&str> {
            names.iter().map(String::as_str).collect()
        }
        for (number, (capabilities, scope)) in held.iter().enumerate() {
            let id = format!("acme/held{number}");
            does(&mut world, "alice", &role(&id, &texts(capabilities)));
            does(&mut world, "alice", &bind("mallory", &id, scope));
        }
        does(&mut world, "alice", &role("acme/given", &texts(&given)));
        let grant = bind("mallory", "acme/given", at);
        missing.sort_unstable();
        if missing.is_empty() {
            let covered = world.judge(&actor("mallory"), &grant);
            assert!(covered.is_ok(), "{name}: {}", covered.unwrap_err());
        } else {
            let refusal = refused(&world, "mallory", &grant);
            misses(&refusal, Some(Rule::Grant), at, &texts(&missing));
            assert!(refusal.to_string().contains("`alice` could do it"), "{name}: {refusal}");
        }
    }
}
