//! When a write is seen: by the next check on any connection, and by each answer whole or not at all.

#![expect(clippy::print_stdout, reason = "the figures of a run")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use capstan_proto::iam::v1 as iam;
use capstan_proto::v1;
use capstan_proto::v1::consistency::Mode;
use tokio::task::JoinSet;
use tonic::Request;

use super::{CATALOG, Caller, Data, SEQUENCE, binding};

/// Creates an identity of `acme`.
async fn identity(operator: &Caller, id: &str) {
    let request = iam::CreateIdentityRequest {
        parent: "acme".into(),
        identity: Some(iam::Identity { id: id.into(), ..Default::default() }),
        ..Default::default()
    };
    let made: iam::CreateIdentityResponse =
        operator.ask("IdentityService/CreateIdentity", request).await.unwrap();
    assert!(made.revision > 0);
}

/// Each acknowledged create or delete of a role binding is seen by the next check on another connection, with any
/// consistency.
#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledged_write_is_seen_by_the_next_check_on_another_connection() {
    const WRITERS: usize = 4;
    let writes = std::env::var("CAPSTAN_STORE_WRITES").map_or(2_000, |all| all.parse().unwrap());
    let data = Data::init(CATALOG);
    let server = data.start();
    let operator = server.operator().await;
    let mut writers = JoinSet::new();
    let begun = Instant::now();
    for writer in 0..WRITERS {
        let (group, who) = (format!("acme/g{writer}"), format!("acme/i{writer}"));
        operator.create_group(&group).await;
        identity(&operator, &who).await;
        let writing = server.operator().await;
        // So many that each worker of the server has some.
        let mut asking = vec![server.operator().await];
        for _ in 0..4 {
            asking.push(server.caller("").await);
        }
        writers.spawn(async move {
            let (id, resource) = (format!("{group}/bound"), format!("{group}/nginx"));
            for write in 0..writes / WRITERS {
                let is_bound = write % 2 == 0;
                let revision = if is_bound {
                    let request = iam::CreateRoleBindingRequest {
                        parent: group.clone(),
                        role_binding: Some(binding(&group, &id, &who)),
                        ..Default::default()
                    };
                    let method = "RoleBindingService/CreateRoleBinding";
                    let made: iam::CreateRoleBindingResponse =
                        writing.ask(method, request).await.unwrap();
                    made.revision
                } else {
                    let request =
                        iam::DeleteRoleBindingRequest { id: id.clone(), ..Default::default() };
                    let method = "RoleBindingService/DeleteRoleBinding";
                    let made: iam::DeleteRoleBindingResponse =
                        writing.ask(method, request).await.unwrap();
                    made.revision
                };
                let mode = match write % 3 {
                    0 => None,
                    1 => Some(Mode::AtLeast(revision)),
                    _ => Some(Mode::FullyConsistent(true)),
                };
                let asking = &asking[write % asking.len()];
                let asked = asking.try_check(&who, "repo.list", &resource, mode);
                let answer = asked.await.unwrap();
                assert_eq!(answer.allowed, is_bound, "write {write}, {mode:?}: {answer:?}");
                assert!(answer.revision >= revision, "write {write}, {mode:?}: {answer:?}");
            }
        });
    }
    while let Some(ended) = writers.join_next().await {
        ended.unwrap();
    }
    let took = begun.elapsed();
    println!("{writes} writes were each seen by the next check, in {took:?}");
}

/// Whether each of two identities may list repositories at `acme/swapped`, asked in one batch, and the revision of the
/// answers.
async fn batch(caller: &Caller, identities: [&str; 2]) -> ([bool; 2], u64) {
    let one = |identity: &str| v1::CheckItem {
        identity: identity.into(),
        capability: "repo.list".into(),
        resource: "acme/swapped/nginx".into(),
        properties: None,
    };
    let request = v1::BatchCheckRequest {
        checks: identities.iter().map(|identity| one(identity)).collect(),
        consistency: None,
    };
    let path = "/capstan.v1.DecisionService/BatchCheck";
    let answer: v1::BatchCheckResponse =
        caller.send(path, Request::new(request)).await.unwrap().into_inner();
    ([answer.results[0].allowed, answer.results[1].allowed], answer.revision)
}

/// A role binding is changed from one identity to another and back (M10). Each batch and each list sees exactly one of
/// them, the one of its revision; and on one connection revisions never fall.
#[tokio::test(flavor = "multi_thread")]
async fn batches_and_lists_see_one_revision_while_a_grant_is_swapped() {
    const SWAPS: u64 = 1_000;
    let data = Data::init(CATALOG);
    let server = data.start();
    let operator = server.operator().await;
    for id in ["acme/a", "acme/b"] {
        identity(&operator, id).await;
    }
    operator.create_group("acme/swapped").await;
    let id = "acme/swapped/bound";
    let request = iam::CreateRoleBindingRequest {
        parent: "acme/swapped".into(),
        role_binding: Some(binding("acme/swapped", id, "acme/a")),
        ..Default::default()
    };
    let made: iam::CreateRoleBindingResponse =
        operator.ask("RoleBindingService/CreateRoleBinding", request).await.unwrap();
    let first = made.revision;

    let (ended, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut readers = JoinSet::new();
    for reader in 0..4 {
        let caller =
            if reader % 2 == 0 { server.caller("alice").await } else { server.operator().await };
        let (ended, seen) = (Arc::clone(&ended), Arc::clone(&seen));
        // After an even number of swaps it is a's.
        let is_a = move |revision: u64| (revision - first).is_multiple_of(2);
        readers.spawn(async move {
            let mut highest = first;
            while !ended.load(Ordering::Relaxed) {
                let (allowed, at) = batch(&caller, ["acme/a", "acme/b"]).await;
                assert_eq!(allowed, [is_a(at), !is_a(at)], "revision {at}");
                assert!(at >= highest, "{at} after {highest}");
                highest = at;

                let request = v1::ListIdentitiesRequest {
                    capability: "repo.list".into(),
                    resource: "acme/swapped".into(),
                    ..Default::default()
                };
                let path = "/capstan.v1.DecisionService/ListIdentities";
                let answer: v1::ListIdentitiesResponse =
                    caller.send(path, Request::new(request)).await.unwrap().into_inner();
                let who = if is_a(answer.revision) { "acme/a" } else { "acme/b" };
                assert_eq!(answer.identities, [who, "alice"], "revision {}", answer.revision);
                assert!(answer.revision >= highest);
                highest = answer.revision;

                // One a page, so that a list has pages of one revision.
                let mut request = iam::ListRoleBindingsRequest {
                    parent: "acme".into(),
                    page_size: 1,
                    ..Default::default()
                };
                let (mut identities, mut revisions) = (vec![], vec![]);
                loop {
                    let method = "RoleBindingService/ListRoleBindings";
                    let page: Result<iam::ListRoleBindingsResponse, _> =
                        caller.ask(method, request.clone()).await;
                    let page = match page {
                        Ok(page) => page,
                        // So many lists were begun meanwhile that this one must begin anew.
                        Err(gone) => {
                            assert_eq!(super::reason(&gone), "REVISION_NOT_AVAILABLE", "{gone:?}");
                            (identities, revisions) = (vec![], vec![]);
                            request.page_token = String::new();
                            continue;
                        }
                    };
                    identities.extend(page.role_bindings.into_iter().map(|one| one.identity));
                    revisions.push(page.revision);
                    if page.next_page_token.is_empty() {
                        break;
                    }
                    request.page_token = page.next_page_token;
                }
                let at = revisions[0];
                assert!(revisions.iter().all(|one| *one == at), "{revisions:?}");
                let who = if is_a(at) { "acme/a" } else { "acme/b" };
                identities.sort();
                assert_eq!(identities, [who, "alice"], "revision {at}");
                seen.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let mut last = first;
    for swap in 1..=SWAPS {
        let identity = if swap.is_multiple_of(2) { "acme/a" } else { "acme/b" };
        let request = iam::UpdateRoleBindingRequest {
            role_binding: Some(iam::RoleBinding {
                id: id.into(),
                identity: identity.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let method = "RoleBindingService/UpdateRoleBinding";
        let made: iam::UpdateRoleBindingResponse = operator.ask(method, request).await.unwrap();
        assert_eq!(made.revision, last + 1);
        last = made.revision;
    }
    ended.store(true, Ordering::Relaxed);
    while let Some(ended) = readers.join_next().await {
        ended.unwrap();
    }
    let seen = seen.load(Ordering::Relaxed);
    println!("{SWAPS} swaps up to {}, {seen} batches and lists each", last & SEQUENCE);
    assert!(seen > 50, "{seen}");
}

/// `fully_consistent` and `at_least` on a store: an acknowledged write is in the answer, a revision that does not come is
/// REVISION_NOT_AVAILABLE, and one of another epoch is STORE_EPOCH.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_is_not_there_is_refused() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let operator = server.operator().await;
    let revision = operator.create_group("acme/new").await;
    let check = async |mode| {
        let checked = operator.try_check("alice", "repo.list", "acme", Some(mode)).await;
        let checked = checked.map(|answer| answer.revision);
        checked.map_err(|status| (status.code(), super::reason(&status)))
    };
    assert_eq!(check(Mode::FullyConsistent(true)).await, Ok(revision));
    assert_eq!(check(Mode::AtLeast(revision)).await, Ok(revision));
    let not_yet = (tonic::Code::Unavailable, "REVISION_NOT_AVAILABLE".to_owned());
    assert_eq!(check(Mode::AtLeast(revision + 1)).await, Err(not_yet));
    let other = (tonic::Code::FailedPrecondition, "STORE_EPOCH".to_owned());
    assert_eq!(check(Mode::AtLeast(revision + (1 << 40))).await, Err(other.clone()));
    assert_eq!(check(Mode::AtLeast(revision & SEQUENCE)).await, Err(other));
    // It is the same store after a restart.
    server.kill();
    let server = data.start();
    let caller = server.caller("").await;
    let checked = caller.try_check("alice", "repo.list", "acme", Some(Mode::AtLeast(revision)));
    assert_eq!(checked.await.unwrap().revision, revision);
}
