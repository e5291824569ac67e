//! The built-in catalogs: the overlay against its base, and the warnings of policies that name
//! them.

#![expect(clippy::unwrap_used, reason = "all of this is test code, not only the test functions")]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;

use capstan_engine::{Catalog, CatalogRole};
use capstan_policy::{Catalogs, load_policy};
use common::{CATALOGS, load};

const LITERAL: &str = "chainguard-2025-08-14";
const CORRECTED: &str = "chainguard-2025-08-14+errata";

fn catalog(name: &str) -> Arc<Catalog> {
    Catalogs::default().get(name).unwrap()
}

fn role<'c>(catalog: &'c Catalog, name: &str) -> &'c CatalogRole {
    catalog.roles().iter().find(|role| role.name == name).unwrap()
}

/// Each (role, capability) of a catalog.
fn grants(catalog: &Catalog) -> BTreeSet<(&str, &str)> {
    let roles = catalog.roles().iter();
    let all: Vec<_> = roles
        .flat_map(|role| role.capabilities.iter().map(|held| (&*role.name, &**held)))
        .collect();
    let each: BTreeSet<_> = all.iter().copied().collect();
    assert_eq!(all.len(), each.len(), "some role has a capability twice");
    each
}

#[test]
fn three_catalogs_come_with_capstan() {
    let catalogs = Catalogs::default();
    let names: Vec<_> = catalogs.names().collect();
    assert_eq!(names, ["chainguard-2023-12-07", LITERAL, CORRECTED]);
    for name in names {
        let catalog = catalog(name);
        assert_eq!(catalog.name(), name);
        let owners: Vec<_> = catalog.roles().iter().filter(|role| role.owner).collect();
        assert_eq!(owners.len(), 1, "{name}");
        assert_eq!(owners[0].name, "owner");
        // The built-in catalogs derive from their roles, so each capability is in some role.
        let held: BTreeSet<_> =
            grants(&catalog).into_iter().map(|(_, name)| name.to_owned()).collect();
        assert!(catalog.capabilities().eq(held.iter().map(String::as_str)), "{name}");
    }
}

#[test]
fn the_overlay_takes_ten_grants_away_and_changes_nothing_else() {
    let (literal, corrected) = (catalog(LITERAL), catalog(CORRECTED));
    let (before, after) = (grants(&literal), grants(&corrected));
    let role = "libraries.javascript.pull_token_creator";
    let taken = [
        "manifest.create",
        "manifest.delete",
        "manifest.list",
        "manifest.metadata.list",
        "manifest.update",
        "record_signatures.list",
        "repo.create",
        "repo.delete",
        "repo.list",
        "repo.update",
    ];
    let missing: Vec<_> = before.difference(&after).copied().collect();
    assert_eq!(missing, taken.map(|capability| (role, capability)));
    assert!(after.is_subset(&before));
    assert_eq!(before.len() - after.len(), 10);

    assert!(literal.capabilities().eq(corrected.capabilities()));
    assert_eq!(corrected.capabilities().len(), 64);
    assert_eq!(format!("{:?}", literal.resources()), format!("{:?}", corrected.resources()));
    for (old, new) in literal.roles().iter().zip(corrected.roles()) {
        assert_eq!((&old.name, old.family, old.owner), (&new.name, new.family, new.owner));
        assert_eq!(old.description, new.description);
    }
    assert_eq!(literal.roles().len(), corrected.roles().len());
}

#[test]
fn the_overlay_makes_the_library_roles_alike_up_to_the_language() {
    let alike = |catalog: &Catalog| {
        let of = |language: &str| {
            let role = role(catalog, &format!("libraries.{language}.pull_token_creator"));
            let general = |held: &String| held.replace(language, "LANGUAGE");
            role.capabilities.iter().map(general).collect::<BTreeSet<_>>()
        };
        of("java") == of("python") && of("python") == of("javascript")
    };
    assert!(alike(&catalog(CORRECTED)));
    assert!(!alike(&catalog(LITERAL)));
}

/// The warnings of a policy that names this catalog. The policy must load.
fn warnings(named: &str, catalogs: &Catalogs) -> Vec<String> {
    let policy = format!("version: 1\ncatalog: {named}\n");
    let policy = load_policy(policy.as_bytes(), catalogs).unwrap();
    policy.warnings.iter().map(ToString::to_string).collect()
}

#[test]
fn a_policy_with_the_literal_catalog_gets_one_warning() {
    assert_eq!(
        warnings(LITERAL, &Catalogs::default()),
        ["2:10: catalog: found catalog `chainguard-2025-08-14`, in which role \
          `libraries.javascript.pull_token_creator` can write manifests and repositories, although \
          its prose denies that role access to the container registry; expected \
          `chainguard-2025-08-14+errata`, except to use the literal table"]
    );
    for other in [CORRECTED, "chainguard-2023-12-07", "test"] {
        assert_eq!(warnings(other, &CATALOGS), [""; 0]);
    }
}

#[test]
fn an_inline_catalog_gets_no_warning() {
    let mine =
        format!("name: {LITERAL}\ncapabilities: [x]\nroles: [{{name: r, capabilities: [x]}}]");
    let inline = format!("version: 1\ncatalog:\n  {}\n", mine.replace('\n', "\n  "));
    assert!(load(inline).unwrap().warnings.is_empty());
}
