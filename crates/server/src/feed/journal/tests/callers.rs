//! What is kept of callers: when they were seen, what they were refused, and how much they may ask for.

use super::*;

#[tokio::test]
async fn a_disabled_caller_gets_no_answer_again() {
    let journal = acme().await;
    let running = start(&journal).await;
    let bob = "0123456789abcdef0123456789abcdef01234567";
    running.as_alice(create_identity("acme/ci")).await;
    running.as_alice(bind("acme/ci", "owner", "acme")).await;
    let ci = || Actor::identity(path("acme/ci"));
    let asked = || Write { request_id: Some("r".into()), ..write(ci(), create("acme/x")) };
    running.writes.write(asked()).await.unwrap();
    running.writes.write(asked()).await.unwrap();
    let disable = Operation::UpdateIdentity(capstan_iam::UpdateIdentity {
        id: path("acme/ci"),
        update: capstan_iam::IdentityUpdate { disabled: Some(true), ..Default::default() },
        etag: None,
    });
    running.as_alice(disable).await;
    assert!(matches!(running.writes.write(asked()).await, Err(RequestError::AuthnFailed)));
    assert!(!running.allows(bob, "repo.list", "acme"));
}

#[tokio::test]
async fn callers_were_last_seen_at_an_hour() {
    let journal = acme().await;
    let seen = |running: &Running, identity: &str| {
        let view = running.published.current().unwrap().view().unwrap();
        let found = running.writes.objects(view).last_seen(identity).unwrap();
        found.map(Timestamp::seconds)
    };
    let running = start_at(&journal, START + 100, |_| {}).await;
    assert_eq!(seen(&running, "alice"), None);
    let made = running.as_alice(create("acme/x")).await;
    let hour = START - START % 3_600;
    assert_eq!((seen(&running, "alice"), seen(&running, "bob")), (Some(hour), None));
    let appended = journal.appended.load(Ordering::Relaxed);
    // Also by a call that changes nothing else; then it is no change.
    let running = start_at(&journal, START + 3_600, |_| {}).await;
    let remove = Operation::RemoveMember(capstan_iam::RemoveMember {
        organization: path("acme"),
        identity: path("bob"),
    });
    assert_eq!(running.as_alice(remove.clone()).await.revision, made.revision);
    assert_eq!(seen(&running, "alice"), Some(hour + 3_600));
    running.as_alice(remove).await;
    assert_eq!(journal.appended.load(Ordering::Relaxed), appended + 1, "once in an hour");
    // A read is a visit, too. What comes behind the note in the queue is answered after it.
    let running = start_at(&journal, START + 7_200, |_| {}).await;
    let later = Timestamp::new(START + 7_200, 0);
    for caller in ["alice", "alice", "nobody"] {
        running.writes.saw(&path(caller), later);
    }
    let refused = running.try_as_alice(create("other/x")).await;
    assert!(refused.is_err());
    assert_eq!((seen(&running, "alice"), seen(&running, "nobody")), (Some(hour + 7_200), None));
    assert_eq!(running.revision(), made.revision);
    // Who is deleted was never there, also if it did that itself, and whoever has the id next is new.
    running.as_alice(create_identity("acme/ci")).await;
    running.as_alice(bind("acme/ci", "owner", "acme")).await;
    let ci = || Actor::identity(path("acme/ci"));
    running.writes.write(write(ci(), create("acme/y"))).await.unwrap();
    assert!(seen(&running, "acme/ci").is_some());
    let delete = Delete { id: path("acme/ci"), etag: None };
    running.writes.write(write(ci(), Operation::DeleteIdentity(delete))).await.unwrap();
    running.as_alice(create_identity("acme/ci")).await;
    assert_eq!(seen(&running, "acme/ci"), None);
}

#[tokio::test]
async fn attempts_that_were_refused_elsewhere_are_audited_as_well() {
    let journal = acme().await;
    let running = start(&journal).await;
    let first = running.revision();
    let attempt = write(alice(), create("acme/x"));
    let at = (first, Timestamp::new(START, 0));
    let origin = capstan_iam::audit::Origin {
        authentication: "caller-header".into(),
        source: "test".into(),
        request: [7; 32],
    };
    let record = AuditRecord::of_change(&attempt.actor, &attempt.operation, &origin, at, &[]);
    for _ in 0..REFUSALS_PER_MINUTE + 1 {
        running.writes.refused(AuditRecord { code: 7, ..record.clone() });
    }
    running.as_alice(create("acme/x")).await;
    let seen: Vec<_> = running.audit().iter().map(|one| one.code).collect();
    assert_eq!(seen.iter().filter(|code| **code == 7).count(), REFUSALS_PER_MINUTE as usize);
    assert_eq!(seen.last(), Some(&0));
}

#[tokio::test]
async fn quotas_bound_organizations_and_callers() {
    let journal = acme().await;
    let quotas = Quotas {
        organization_objects: 7,
        creator_objects: 4,
        organization_changes: 1_000,
        creator_changes: 1_000,
    };
    let running = start_at(&journal, START, |limits| limits.quotas = quotas).await;
    let over = |result: Result<Written, RequestError>| match result {
        Err(RequestError::Store(StoreFailure::Quota(text))) => text,
        other => panic!("{other:?}"),
    };
    // The organization has itself and the binding of its owner.
    for at in 0..4 {
        running.as_alice(create(&format!("acme/g{at}"))).await;
    }
    let text = over(running.try_as_alice(create("acme/g4")).await);
    assert!(text.starts_with("caller `alice` has 4 objects, its quota"), "{text}");
    running.writes.write(write(Actor::Operator, create("acme/g4"))).await.unwrap();
    let text = over(running.writes.write(write(Actor::Operator, create("acme/g5"))).await);
    assert!(text.starts_with("organization `acme` has 7 objects"), "{text}");
    // Counts are those of the store after a restart, and what is deleted makes room.
    let running = start_at(&journal, START, |limits| limits.quotas = quotas).await;
    over(running.try_as_alice(create("acme/g5")).await);
    running.as_alice(delete("acme/g4")).await;
    over(running.try_as_alice(create("acme/g5")).await);
    running.as_alice(delete("acme/g0")).await;
    running.as_alice(create("acme/g5")).await;
    over(running.try_as_alice(create("acme/g6")).await);

    let quotas = Quotas { creator_changes: 3, ..crate::limits::QUOTAS };
    let running = start_at(&journal, START, |limits| limits.quotas = quotas).await;
    for name in ["a", "b", "c"] {
        running.as_alice(rename("acme", name)).await;
    }
    let text = over(running.try_as_alice(rename("acme", "d")).await);
    assert_eq!(text, "`alice` has had 3 changes in this minute, its quota: wait for the next one");
    running.writes.write(write(Actor::Operator, rename("acme", "d"))).await.unwrap();
    let running = start_at(&journal, START + 60, |limits| limits.quotas = quotas).await;
    running.as_alice(rename("acme", "e")).await;
}

/// Who gets the path of an identity that was deleted is not answered what that one asked.
#[tokio::test]
async fn a_request_id_is_of_one_identity_and_not_of_its_path() {
    let journal = acme().await;
    let running = start(&journal).await;
    running.as_alice(create_identity("acme/ci")).await;
    running.as_alice(bind("acme/ci", "owner", "acme")).await;
    let ci = || Actor::identity(path("acme/ci"));
    let asked = || Write { request_id: Some("r".into()), ..write(ci(), create("acme/x")) };
    let first = running.writes.write(asked()).await.unwrap();
    assert_eq!(running.writes.write(asked()).await.unwrap().revision, first.revision);
    let delete = capstan_iam::Delete { id: path("acme/ci"), etag: None };
    running.as_alice(Operation::DeleteIdentity(delete)).await;
    running.as_alice(create_identity("acme/ci")).await;
    let refused = running.writes.write(asked()).await.unwrap_err();
    assert!(matches!(refused, RequestError::NotFound), "{refused:?}");
}
