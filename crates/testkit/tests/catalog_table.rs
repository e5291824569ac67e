//! The built-in catalog against the table of the reference, cell by cell: the declarations of the catalog,
//! and the decisions of a policy with one identity for each role.

use std::collections::BTreeSet;
use std::sync::Arc;

use capstan_engine::{
    Attributes, Facts, Group, Identity, Model, PathBuf, Question, Reason, RoleBinding, Snapshot,
    Timestamp,
};
use capstan_policy::Catalogs;
use capstan_testkit::{Naive, table_2025};

const NAME: &str = "chainguard-2025-08-14";

#[test]
fn the_catalog_has_26_resources_64_capabilities_and_12_roles() {
    let catalog = Catalogs::default().get(NAME).unwrap();
    assert_eq!(catalog.name(), NAME);
    assert_eq!(catalog.resources().len(), 26);
    assert_eq!(catalog.capabilities().len(), 64);
    assert_eq!(catalog.roles().len(), 12);
    let owners: Vec<_> = catalog.roles().iter().filter(|role| role.owner).collect();
    assert_eq!(owners.iter().map(|role| &*role.name).collect::<Vec<_>>(), ["owner"]);
}

#[test]
fn the_table_is_complete() {
    let table = table_2025();
    let capabilities: BTreeSet<_> = table.iter().map(|(capability, _)| capability).collect();
    assert_eq!((table.len(), capabilities.len()), (64, 64));
    for (capability, cells) in &table {
        assert_eq!(cells.len(), 12, "{capability}");
        assert_eq!(cells.iter().map(|(role, _)| role).collect::<BTreeSet<_>>().len(), 12);
    }
}

#[test]
fn every_cell_of_the_table_is_declared() {
    let catalog = Catalogs::default().get(NAME).unwrap();
    let mut declared = BTreeSet::new();
    for role in catalog.roles() {
        declared.extend(role.capabilities.iter().map(|name| (name.clone(), role.name.clone())));
    }
    let mut expected = BTreeSet::new();
    for (capability, cells) in table_2025() {
        let ticked = cells.into_iter().filter(|(_, has)| *has);
        expected.extend(ticked.map(|(role, _)| (capability.clone(), role)));
    }
    let missing: Vec<_> = expected.difference(&declared).collect();
    let surplus: Vec<_> = declared.difference(&expected).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:?}, surplus {surplus:?}");

    let names: Vec<_> = catalog.capabilities().map(str::to_owned).collect();
    let mut table: Vec<_> = table_2025().into_iter().map(|(capability, _)| capability).collect();
    table.sort();
    assert_eq!(names, table);
}

#[test]
fn every_cell_of_the_table_is_decided() {
    let catalog = Catalogs::default().get(NAME).unwrap();
    let acme: PathBuf = "acme".parse().unwrap();
    let mut facts =
        Facts { groups: vec![Group { id: acme.clone(), name: String::new() }], ..Facts::default() };
    for role in catalog.roles() {
        let identity: PathBuf = role.name.parse().unwrap();
        facts.identities.push(Identity::named(identity.clone()));
        let (role, scope) = (role.name.as_str().into(), acme.clone());
        facts.role_bindings.push(RoleBinding {
            id: None,
            identity,
            role,
            scope,
            expires_at: None,
            when: vec![],
        });
    }
    let now = Timestamp::UNIX_EPOCH;
    let naive = Naive::new(catalog.facts(), &facts, Attributes::NONE, now);
    let model = Model::new(Arc::clone(&catalog), facts.clone()).unwrap();
    let snapshot = Snapshot::build(&model, 1).unwrap();

    let resource: PathBuf = "acme/nginx".parse().unwrap();
    for (capability, cells) in table_2025() {
        for (role, has) in cells {
            let identity: PathBuf = role.parse().unwrap();
            let (identity, resource) = (identity.as_path(), resource.as_path());
            let question = Question {
                identity,
                capability: &capability,
                resource,
                attributes: Attributes::NONE,
            };
            let reason = snapshot.check(&question, now).unwrap().reason;
            let expected = if has { Reason::Granted } else { Reason::CapabilityNotInRole };
            assert_eq!(reason, expected, "{role} {capability}");
            let answer = naive.check(&role, &capability, resource.as_str());
            assert_eq!(answer, Some((expected, None)), "{role} {capability}");
        }
    }
}
