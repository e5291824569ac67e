//! Revisions, and the requirements of calls on them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use capstan_client::{Code, Error, Options};
use capstan_proto::v1::consistency::Mode;
use capstan_server::feed::reload::Wake;
use capstan_server::feed::source::Source;
use futures_util::future::join_all;
use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::fake::{Act, Asked, CallId, Fake};
use crate::real::{Real, config, folder};
use crate::{PATIENCE, ask, check, refusal};

/// Revision 7 of a store's second epoch.
const SECOND: u64 = (2 << 40) + 7;

const MONOTONIC: Options = Options {
    connections: 1,
    pending_max: 1_000,
    batch_checks_max: 1_000,
    timeout: PATIENCE,
    monotonic: true,
    connection_age: Duration::from_secs(600),
    stall: Duration::from_secs(60),
};

fn store_epoch() -> Status {
    let details = ErrorDetails::with_error_info("STORE_EPOCH", "capstan", []);
    Status::with_error_details(Code::FailedPrecondition, "another epoch", details)
}

#[tokio::test]
async fn the_highest_revision_is_kept() {
    let revision = Arc::new(AtomicU64::new(SECOND));
    let at = Arc::clone(&revision);
    let script = move |_: &Asked| Act::AnswerAt(at.load(Ordering::SeqCst));
    let (_fake, client) = Fake::start(script, Options::default()).await;
    assert_eq!(client.revision(), 0);
    assert_eq!(ask(&client, "a").await.unwrap().revision, SECOND);
    // Another server with an older revision: a call without a requirement accepts its answer.
    revision.store(SECOND - 1, Ordering::SeqCst);
    assert_eq!(ask(&client, "a").await.unwrap().revision, SECOND - 1);
    assert_eq!(client.revision(), SECOND);
}

#[tokio::test]
async fn a_monotonic_client_rejects_older_answers() {
    let revision = Arc::new(AtomicU64::new(SECOND));
    let at = Arc::clone(&revision);
    // This server ignores the required revision.
    let script = move |_: &Asked| Act::AnswerAt(at.load(Ordering::SeqCst));
    let (fake, client) = Fake::start(script, MONOTONIC).await;
    assert_eq!(ask(&client, "a").await.unwrap().revision, SECOND);
    revision.store(SECOND + 1, Ordering::SeqCst);
    assert_eq!(ask(&client, "a").await.unwrap().revision, SECOND + 1);
    revision.store(SECOND, Ordering::SeqCst);
    assert!(matches!(ask(&client, "a").await, Err(Error::Protocol(_))));
    assert_eq!(client.revision(), SECOND + 1);
    let wanted: Vec<_> = fake.asked().iter().map(Asked::at_least).collect();
    assert_eq!(wanted, [None, Some(SECOND), Some(SECOND + 1)]);
}

#[tokio::test]
async fn calls_fail_after_a_rollback_of_the_store_until_it_is_accepted() {
    let script = |asked: &Asked| match asked.call {
        CallId::Stream(0, 0) => Act::AnswerAt(SECOND),
        _ if asked.at_least().is_some() => Act::Fail(store_epoch()),
        _ => Act::AnswerAt((1 << 40) + 1),
    };
    let (_fake, client) = Fake::start(script, MONOTONIC).await;
    assert!(ask(&client, "a").await.is_ok());
    for outcome in join_all((0..10).map(|_| ask(&client, "a"))).await {
        let (code, reason, _) = refusal(outcome.unwrap_err());
        assert_eq!((code, &*reason), (Code::FailedPrecondition, "STORE_EPOCH"));
    }
    client.forget_revision();
    assert_eq!(ask(&client, "a").await.unwrap().revision, (1 << 40) + 1);
}

#[tokio::test]
async fn the_revision_of_a_policy_file_is_forgotten_with_its_process() {
    let script = |asked: &Asked| match asked.call {
        CallId::Stream(0, 0) => Act::AnswerAt(57),
        CallId::Stream(0, _) => Act::End,
        _ => Act::AnswerAt(1),
    };
    let (fake, client) = Fake::start(script, MONOTONIC).await;
    assert_eq!(ask(&client, "a").await.unwrap().revision, 57);
    assert_eq!(client.revision(), 57);
    assert_eq!(ask(&client, "a").await.unwrap().revision, 1);
    assert_eq!(client.revision(), 1);
    assert!(fake.asked().iter().all(|asked| asked.request.consistency.is_none()));
}

#[tokio::test]
async fn calls_that_may_wait_have_batches_of_their_own() {
    let script = |asked: &Asked| match asked.at_least() {
        // A caller requires a revision that does not exist.
        Some(revision) if revision > SECOND => Act::Fail(Status::unavailable("not yet")),
        _ => Act::AnswerAt(SECOND),
    };
    let (fake, client) = Fake::start(script, Options::default()).await;
    assert!(ask(&client, "first").await.is_ok());
    let call = |at: u64| {
        let check = check("a").timeout(PATIENCE);
        client.check(match at % 4 {
            0 => check,
            1 => check.at_least(SECOND - at),
            2 => check.fully_consistent(),
            _ => check.at_least(SECOND + 1).timeout(Duration::from_secs(2)),
        })
    };
    for (at, outcome) in (0..).zip(join_all((0..40).map(call)).await) {
        if at % 4 == 3 {
            let Err(Error::DeadlineExceeded(Some(why))) = outcome else { panic!("{outcome:?}") };
            assert!(why.contains("not yet"), "{why}");
        } else {
            assert!(outcome.is_ok(), "{at}: {outcome:?}");
        }
    }
    let asked = fake.asked();
    let full = |asked: &&Asked| {
        let mode = asked.request.consistency.as_ref().and_then(|wanted| wanted.mode.as_ref());
        mode == Some(&Mode::FullyConsistent(true))
    };
    let streamed = asked.iter().filter(|asked| !asked.is_unary());
    let streamed: Vec<_> = streamed.map(|asked| (asked.len(), asked.at_least())).collect();
    assert_eq!(streamed, [(1, None), (10, None), (10, Some(SECOND - 1))]);
    assert_eq!(asked.iter().filter(full).map(Asked::len).collect::<Vec<_>>(), [10]);
    assert!(asked.iter().filter(full).all(Asked::is_unary));
    assert_eq!(fake.streams(), 1, "the stream of the other calls was replaced");
}

#[tokio::test]
async fn a_call_waits_for_its_required_revision() {
    let folder = folder("revisions");
    let file = folder.join("policy.yaml");
    let policy = |role: &str| {
        format!(
            "{{version: 1, catalog: chainguard-2025-08-14, groups: [{{id: a}}], identities: [{{id: u}}],
              role_bindings: [{{identity: u, role: {role}, scope: a}}]}}"
        )
    };
    std::fs::write(&file, policy("viewer")).unwrap();
    let server = Real::start(config(Source::file(&file))).await;
    let client = server.client(Options { timeout: PATIENCE, ..Options::default() });
    let ask = capstan_client::Check::new("u", "repo.delete", "a");
    assert!(!client.check(ask).await.unwrap().allowed);
    let late = client.check(ask.at_least(2).timeout(Duration::from_secs(2))).await;
    assert!(matches!(late, Err(Error::DeadlineExceeded(Some(_)))), "{late:?}");

    let waits = client.check(ask.at_least(2));
    let reloads = async {
        std::fs::write(&file, policy("owner")).unwrap();
        server.reload.send(Wake::Asked).await.unwrap();
        // Other calls are answered meanwhile.
        client.check(ask).await.unwrap()
    };
    let (waited, other) = tokio::join!(biased; waits, reloads);
    let waited = waited.unwrap();
    assert!(waited.allowed && waited.revision >= 2, "{waited:?}");
    assert!(other.revision >= 1);
    assert!(client.check(ask.fully_consistent()).await.unwrap().revision >= 2);
}
