//! Identity providers, mappings and account associations: what documents leave out, take with them and may not contradict;
//! and the references by which rules find them.

use capstan_iam::{Reference, record};
use capstan_testkit::managed::operations as make;

use super::*;

const OKTA: &str = "https://acme.okta.example";

/// `acme` with a provider, whose default role and mappings are of custom roles, and an association of the shop.
async fn world() -> (Arc<Faulty>, Running) {
    let journal = acme().await;
    let running = start(&journal).await;
    for one in [
        create("acme/shop"),
        make::role("acme/r", &["repo.list"]),
        create_identity("acme/ci"),
        make::provider("acme/okta", OKTA, Some("acme/r")),
        make::map("acme/okta", "a", "acme/r", "acme"),
        make::map("acme/okta", "a", "viewer", "acme/shop"),
        make::map("acme/okta", "a", "viewer", "acme"),
        make::associate("acme/shop", &[("x", "acme/ci")]),
        make::subscribe("acme/shop", "https://hooks.example/shop"),
        make::subscribe("acme", "https://hooks.example/acme"),
    ] {
        running.as_alice(one).await;
    }
    (journal, running)
}

fn all(running: &Running, kind: Kind) -> Vec<Object> {
    let view = running.published.current().unwrap().view().unwrap();
    let mut found = vec![];
    let each = &mut |object| {
        found.push(object);
        true
    };
    running.writes.objects(view).below(kind, None, each).unwrap();
    found
}

/// The keys of all references, and those that the objects make.
fn references(running: &Running) -> [Vec<Vec<u8>>; 2] {
    let view = running.published.current().unwrap().view().unwrap();
    let mut there = vec![];
    view.scan(KeyRange::prefix(prefix::REFERENCE).bounds(), &mut |key, _| {
        there.push(key.to_vec());
        true
    })
    .unwrap();
    let objects = Kind::ALL.into_iter().flat_map(|kind| all(running, kind));
    let key = |object: Object| {
        let own = record::key(object.kind(), object.id().as_path());
        object.reference().map(|to| record::reference_key(&to, &own))
    };
    let mut made: Vec<_> = objects.filter_map(key).collect();
    made.sort();
    [there, made]
}

#[track_caller]
fn are_whole(running: &Running, count: usize) {
    let [there, made] = references(running);
    assert_eq!(there, made);
    assert_eq!(there.len(), count);
}

#[tokio::test]
async fn documents_leave_them_out_and_never_prune_them() {
    let (_, running) = world().await;
    are_whole(&running, 4);
    let document = running.export_by(alice(), Some("acme")).await;
    for absent in ["okta", "012345678901", "issuer"] {
        assert!(!document.contains(absent), "{document}");
    }
    let same = running.try_import(&document, pruned("acme")).await.unwrap();
    assert_eq!(changed(&same), [], "{document}");
    // A document cannot take the path of one.
    let other = document.replace("acme/shop", "acme/okta");
    let problem = running.refuses(&other, about("acme")).await;
    assert!(problem.contains("`acme/okta` is the path of an object that no document changes"));
}

#[tokio::test]
async fn what_goes_takes_them_with_it() {
    let (journal, running) = world().await;
    let document = running.export_by(alice(), Some("acme")).await;
    let without = |name: &str, document: &str| -> String {
        let lines = document.lines().filter(|line| !line.contains(name));
        lines.map(|line| format!("{line}\n")).collect()
    };
    // The folder, with the mapping to it and its association.
    let smaller = without("acme/shop", &document);
    let difference = running.try_import(&smaller, pruned("acme")).await.unwrap();
    assert_eq!(difference.changes.len(), 4, "{:?}", difference.changes);
    assert_eq!(all(&running, Kind::AccountAssociation), []);
    let told: Vec<_> = all(&running, Kind::Subscription);
    let told: Vec<_> = told.iter().filter_map(|one| one.id().as_path().parent()).collect();
    assert_eq!(told, [path("acme").as_path()]);
    assert_eq!(all(&running, Kind::GroupRoleMapping).len(), 2);
    are_whole(&running, 3);
    // The role, with the mapping that promises it. The provider stays, without a default role.
    let start_of_roles = smaller.find("roles:").unwrap();
    let end_of_roles = smaller.find("identities:").unwrap();
    let fewer = format!("{}{}", &smaller[..start_of_roles], &smaller[end_of_roles..]);
    let difference = running.try_import(&fewer, pruned("acme")).await.unwrap();
    let expected = [(Action::Deleted, "acme/r".to_owned()), (Action::Updated, "acme/okta".into())];
    for one in &expected {
        assert!(changed(&difference).contains(one), "{:?}", difference.changes);
    }
    assert_eq!(difference.changes.len(), 3, "{:?}", difference.changes);
    let Some(Object::IdentityProvider(one)) = running.object(Kind::IdentityProvider, "acme/okta")
    else {
        panic!("no provider")
    };
    assert_eq!((one.default_role, one.role_created), (None, None));
    assert_eq!(all(&running, Kind::GroupRoleMapping).len(), 1);
    are_whole(&running, 2);
    // A role of the same id is a new one, which nothing promises.
    running.as_alice(make::role("acme/r", &[])).await;
    running.as_alice(make::delete_role("acme/r")).await;
    // And again after a restart.
    are_whole(&start(&journal).await, 2);
}

/// R8: whoever imports cannot give an identity keys for the issuer of a provider, or for the server's own, either.
#[tokio::test]
async fn no_document_gives_keys_for_the_issuer_of_others() {
    let (_, running) = world().await;
    let keys = |issuer: &str| {
        format!(
            "version: 1\ncatalog: {CATALOG}\ngroups: [{{id: acme}}]\nidentities:\n  - id: acme/bot\n    authentication:\n      \
             static_keys:\n        issuer: {issuer}\n        subject: bot\n        jwks:\n          keys: [{{kty: OKP, crv: \
             Ed25519, x: AA}}]\n"
        )
    };
    let problem = running.refuses(&keys(OKTA), about("acme")).await;
    assert!(problem.contains("`acme/bot` has keys of its own for"), "{problem}");
    let problem = running.refuses(&keys(RESERVED), about("acme")).await;
    assert!(problem.contains("an issuer that is trusted for others"), "{problem}");
    running.try_import(&keys("https://bot.example"), about("acme")).await.unwrap();
    are_whole(&running, 5);
}

/// A store of a version without references gets them when it is served, so that the rules find whom a provider proves.
#[tokio::test]
async fn a_store_without_references_gets_them() {
    let journal = acme().await;
    let running = start(&journal).await;
    for one in [
        create_identity("acme/robot"),
        make::authenticate("acme/robot", Some(make::claims(Match::Exact(OKTA.into())))),
        bind("acme/robot", "owner", "acme"),
        create_identity("acme/mallory"),
        make::role("acme/idp", &["groups.list", "identity_providers.create"]),
        bind("acme/mallory", "acme/idp", "acme"),
    ] {
        running.as_alice(one).await;
    }
    are_whole(&running, 1);
    let [there, _] = references(&running);
    drop(running);
    let acme = path("acme");
    let stray = record::reference_key(&Reference::Scope(acme.as_path()), b"yacme/none/x");
    for (gone, more) in [(true, None), (false, Some(stray))] {
        let head = journal.head().await.unwrap();
        let mut side = vec![];
        if gone {
            side.extend(there.iter().map(|key| Op::Delete { key: key.clone().into() }));
        }
        side.extend(more.map(|key| Op::Put { key: key.into(), value: Bytes::new() }));
        journal.append(head, Batch { transactions: vec![], side }).await.unwrap();
        let running = start(&journal).await;
        let revision = running.revision();
        are_whole(&running, 1);
        assert_eq!(head.revision(), revision, "it is no change");
        let mallory =
            write(Actor::identity(path("acme/mallory")), make::provider("acme/okta", OKTA, None));
        let refused = running.writes.write(mallory).await.unwrap_err();
        let RequestError::Refused(refusal) = refused else { panic!("{refused:?}") };
        assert_eq!(refusal.rule, Some(capstan_iam::Rule::IdentityProvider));
    }
}

#[tokio::test]
async fn an_issuer_that_is_trusted_for_others_is_no_providers() {
    let (_journal, running) = world().await;
    let keys = make::keys(RESERVED, "ci", "1", None);
    for one in
        [make::provider("acme/own", RESERVED, None), make::authenticate("acme/ci", Some(keys))]
    {
        let refused = running.try_as_alice(one).await.unwrap_err();
        assert!(refused.to_string().contains("issuer"), "{refused}");
    }
}
