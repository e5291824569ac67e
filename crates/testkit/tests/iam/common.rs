//! Two organizations with the roles of 2025, and words for refusals.

use std::sync::Arc;

use capstan_engine::{Catalog, CatalogFacts, CatalogResource, CatalogRole};
use capstan_iam::{Actor, Cause, Kind, Object, Operation, Outcome, Refusal, RoleBinding, Rule};
use capstan_policy::Catalogs;
use capstan_testkit::managed::Managed;
use capstan_testkit::managed::operations::{actor, bind, folder, identity, organization};

/// A built-in catalog.
pub(crate) fn built_in(name: &str) -> Arc<Catalog> {
    Catalogs::default().get(name).unwrap()
}

/// A catalog of `doc.read`, `doc.write`, and four actions of each of these kinds, with these roles beside `owner`,
/// who holds everything.
pub(crate) fn catalog(kinds: &[&str], roles: &[(&str, &[&str])]) -> Arc<Catalog> {
    let actions = |actions: &[&str]| actions.iter().map(|one| (*one).to_owned()).collect();
    let mut resources = vec![CatalogResource {
        name: "doc".into(),
        purpose: String::new(),
        actions: actions(&["read", "write"]),
    }];
    resources.extend(kinds.iter().map(|kind| CatalogResource {
        name: (*kind).into(),
        purpose: String::new(),
        actions: actions(&["create", "delete", "list", "update"]),
    }));
    let all = |resource: &CatalogResource| {
        let name = resource.name.clone();
        resource.actions.iter().map(move |action| format!("{name}.{action}")).collect::<Vec<_>>()
    };
    let owner = CatalogRole {
        name: "owner".into(),
        owner: true,
        capabilities: resources.iter().flat_map(all).collect(),
        ..CatalogRole::default()
    };
    let others = roles.iter().map(|(name, capabilities)| CatalogRole {
        name: (*name).into(),
        capabilities: capabilities.iter().map(|one| (*one).to_owned()).collect(),
        ..CatalogRole::default()
    });
    let facts = CatalogFacts {
        name: "small".into(),
        resources,
        capabilities: vec![],
        roles: std::iter::once(owner).chain(others).collect(),
    };
    Arc::new(Catalog::new(facts).unwrap())
}

/// Every kind whose management methods this issue has.
pub(crate) const KINDS: [&str; 4] = ["groups", "roles", "role_bindings", "identity"];

/// `acme` of alice, with `acme/platform` and `acme/shop`, and `globex` of gina. bob views acme, erin edits it; `acme/ci`
/// is bound nowhere.
pub(crate) fn two_organizations(catalog: Arc<Catalog>) -> Managed {
    let mut world = Managed::new(catalog);
    for one in ["alice", "bob", "erin", "gina", "mallory"] {
        done(&mut world, &Actor::Operator, &identity(one));
    }
    done(&mut world, &Actor::Operator, &organization("acme", "alice"));
    done(&mut world, &Actor::Operator, &organization("globex", "gina"));
    for one in ["acme/platform", "acme/shop"] {
        done(&mut world, &Actor::Operator, &folder(one));
    }
    done(&mut world, &Actor::Operator, &identity("acme/ci"));
    done(&mut world, &Actor::Operator, &bind("bob", "viewer", "acme"));
    done(&mut world, &Actor::Operator, &bind("erin", "editor", "acme"));
    world
}

/// [`two_organizations`] with the catalog of 2025.
pub(crate) fn acme() -> Managed {
    two_organizations(built_in("chainguard-2025-08-14"))
}

/// Does an operation that must be allowed.
#[track_caller]
pub(crate) fn done(world: &mut Managed, who: &Actor, operation: &Operation) -> Outcome {
    match world.perform(who, operation) {
        Ok(outcome) => outcome,
        Err(refusal) => panic!("{operation:?}: {refusal}\n{}", refusal.audit_text()),
    }
}

/// [`done`] for an identity.
#[track_caller]
pub(crate) fn does(world: &mut Managed, who: &str, operation: &Operation) -> Outcome {
    done(world, &actor(who), operation)
}

/// The refusal of an operation of an identity, which changes nothing.
#[track_caller]
pub(crate) fn refused(world: &Managed, who: &str, operation: &Operation) -> Box<Refusal> {
    refused_to(world, &actor(who), operation)
}

#[track_caller]
pub(crate) fn refused_to(world: &Managed, who: &Actor, operation: &Operation) -> Box<Refusal> {
    match world.judge(who, operation) {
        Ok(_) => panic!("{operation:?} is allowed"),
        Err(refusal) => refusal,
    }
}

/// What is told is that these are missing there, by this rule.
#[track_caller]
pub(crate) fn misses(refusal: &Refusal, rule: Option<Rule>, at: &str, names: &[&str]) {
    let Cause::MissingCapability { scope, missing } = &refusal.told else {
        panic!("{refusal}\n{}", refusal.audit_text())
    };
    assert_eq!((scope.as_str(), missing.as_slice()), (at, &*strings(names)), "{refusal}");
    assert_eq!(refusal.rule, rule, "{refusal}");
}

/// The caller is told `NOT_FOUND`; the audit has that these are missing there.
#[track_caller]
pub(crate) fn hides(refusal: &Refusal, at: &str, names: &[&str]) {
    assert_eq!(refusal.told, Cause::NotFound, "{}", refusal.audit_text());
    assert_eq!(refusal.to_string(), "not found");
    let Cause::MissingCapability { scope, missing } = &refusal.real else {
        panic!("{}", refusal.audit_text())
    };
    assert_eq!((scope.as_str(), missing.as_slice()), (at, &*strings(names)));
}

/// The field that is told to be wrong.
#[track_caller]
pub(crate) fn invalid(refusal: &Refusal) -> &str {
    match &refusal.told {
        Cause::InvalidField { field, .. } => field,
        other => panic!("{other:?}: {}", refusal.audit_text()),
    }
}

/// The reason that is told; `NOT_FOUND` and `ALREADY_EXISTS` as themselves.
pub(crate) fn reason(refusal: &Refusal) -> &'static str {
    refusal.told.reason().unwrap_or(match refusal.told {
        Cause::NotFound => "NOT_FOUND",
        _ => "ALREADY_EXISTS",
    })
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// The binding of an identity, role and scope.
#[track_caller]
pub(crate) fn found<'w>(
    world: &'w Managed,
    identity: &str,
    role: &str,
    scope: &str,
) -> &'w RoleBinding {
    let is = |one: &RoleBinding| {
        (one.identity.as_str(), &*one.role, one.scope.as_str()) == (identity, role, scope)
    };
    let mut bindings = world.objects().filter_map(|object| match object {
        Object::RoleBinding(one) if is(one) => Some(one),
        _ => None,
    });
    bindings.next().unwrap_or_else(|| panic!("{identity} is not {role} at {scope}"))
}

/// Its id.
#[track_caller]
pub(crate) fn id_of(world: &Managed, identity: &str, role: &str, scope: &str) -> String {
    found(world, identity, role, scope).id.as_str().to_owned()
}

/// The number of bindings of an identity.
pub(crate) fn bindings_of(world: &Managed, identity: &str) -> usize {
    let of = |object: &&Object| matches!(object, Object::RoleBinding(one) if one.identity.as_str() == identity);
    world.objects().filter(of).count()
}

/// Whether there is an object.
pub(crate) fn exists(world: &Managed, kind: Kind, id: &str) -> bool {
    world.object(kind, id).is_some()
}
