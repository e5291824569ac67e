//! Batching, and the assignment of answers to calls.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use capstan_client::{Check, Client, Code, Options, Properties, Reason};
use capstan_engine::{Attributes, Path, Question, Snapshot, Timestamp};
use capstan_policy::{Catalogs, load_policy};
use capstan_server::feed::source::Source;
use futures_util::future::join_all;
use proptest::collection::vec;
use proptest::prelude::{Strategy, prop_assert, prop_assert_eq, proptest};
use proptest::sample::select;

use crate::fake::{Act, Fake, is_allowed};
use crate::real::{Real, config, folder};
use crate::{PATIENCE, ask, check, refusal};

#[tokio::test]
async fn an_idle_client_sends_at_once_and_concurrent_calls_are_one_batch() {
    let (fake, client) = Fake::start(|_| Act::Answer, Options::default()).await;
    let one = ask(&client, "one").await.unwrap();
    assert_eq!(one.allowed, is_allowed("one", "some.capability", "some/where"));
    assert!(ask(&client, "another").await.is_ok());
    let names: Vec<_> = (0..500).map(|at| format!("caller-{at}")).collect();
    for (name, answer) in names.iter().zip(join_all(names.iter().map(|n| ask(&client, n))).await) {
        let allowed = is_allowed(name, "some.capability", "some/where");
        assert_eq!(answer.unwrap().allowed, allowed, "{name}");
    }
    assert_eq!(fake.sizes(), [1, 1, 500]);
    assert_eq!(fake.streams(), 1);
}

#[tokio::test]
async fn calls_during_a_batch_in_flight_are_the_next_batch() {
    let (fake, client) = Fake::start(|_| Act::Gate, Options::default()).await;
    let asked = async {
        let first = ask(&client, "first");
        let rest = async {
            fake.wait_for(1).await;
            // One more call while the first batch has no answer.
            let second = ask(&client, "second");
            let more = async {
                // The stream has no room for another batch now.
                tokio::task::yield_now().await;
                let waiting = (0..300).map(|_| ask(&client, "more"));
                let waiting = join_all(waiting);
                let gate = async { fake.open_gate() };
                tokio::join!(biased; waiting, gate).0
            };
            tokio::join!(biased; second, more)
        };
        tokio::join!(biased; first, rest)
    };
    let (first, (second, more)) = asked.await;
    assert!(first.is_ok() && second.is_ok());
    assert!(more.iter().all(Result::is_ok));
    let sizes = fake.sizes();
    assert_eq!(sizes.iter().sum::<usize>(), 302);
    assert_eq!(sizes[0], 1);
    assert!(sizes.len() <= 3, "{sizes:?}");
}

#[tokio::test]
async fn batches_are_limited_in_checks_and_bytes() {
    let (fake, client) = Fake::start(|_| Act::Answer, Options::default()).await;
    assert!(ask(&client, "connected").await.is_ok());
    assert!(join_all((0..2_500).map(|_| ask(&client, "a"))).await.iter().all(Result::is_ok));
    assert_eq!(fake.sizes(), [1, 1_000, 1_000, 500]);

    let few = Options { batch_checks_max: 7, ..Options::default() };
    let (fake, client) = Fake::start(|_| Act::Answer, few).await;
    assert!(join_all((0..20).map(|_| ask(&client, "a"))).await.iter().all(Result::is_ok));
    assert_eq!(fake.sizes(), [7, 7, 6]);

    // Three checks of 300 KB fit into a batch of 1 MiB. A larger check has a batch of its own.
    let (fake, client) = Fake::start(|_| Act::Answer, Options::default()).await;
    let large = Properties::default().context("x", "x".repeat(300_000));
    let huge = Properties::default().context("x", "x".repeat(3_000_000));
    let of = |at| if at == 6 { &huge } else { &large };
    let asks = (0..10).map(|at| client.check(check("a").properties(of(at)).timeout(PATIENCE)));
    assert!(join_all(asks).await.iter().all(Result::is_ok));
    assert_eq!(fake.sizes(), [3, 3, 1, 3]);
}

/// Identity, capability and resource: known and unknown ones of the demo, and malformed ones.
fn question() -> impl Strategy<Value = (&'static str, &'static str, &'static str)> {
    let who =
        vec!["alice", "bob", "carol", "dave", "acme/platform/ci", "acme/auditor", "nobody", "a//b"];
    let what = vec!["repo.list", "repo.delete", "apk.list", "groups.update", "no.such", ""];
    let place = vec![
        "acme",
        "acme/platform",
        "acme/platform/images/nginx",
        "acme/research",
        "other",
        "/",
        "",
    ];
    (select(who), select(what), select(place))
}

fn demo() -> Snapshot {
    let demo = capstan_server::feed::source::DEMO.as_bytes();
    Snapshot::build(&load_policy(demo, &Catalogs::default()).unwrap().model, 1).unwrap()
}

/// The decision of the engine in this process; `None` if the question is malformed.
fn expected(snapshot: &Snapshot, who: &str, what: &str, place: &str) -> Option<bool> {
    let (identity, resource) = (Path::parse(who).ok()?, Path::parse(place).ok()?);
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let now = Timestamp::new(i64::try_from(since.as_secs()).unwrap(), 0);
    let attributes = Attributes::NONE;
    let question = Question { identity, capability: what, resource, attributes };
    Some(snapshot.check(&question, now).ok()?.allowed())
}

proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(8))]
    #[test]
    fn every_answer_belongs_to_its_question(
        questions in vec(vec(question(), 1..40), 1..60),
        connections in 1_usize..4,
        batch_checks_max in 1_usize..60,
        pending_max in 1_usize..300,
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2).enable_all().build().unwrap();
        let snapshot = demo();
        let outcomes = runtime.block_on(async {
            let server = Real::demo().await;
            let timeout = PATIENCE;
            let options = Options {
                connections, batch_checks_max, pending_max, timeout, ..Options::default()
            };
            let client = server.client(options);
            let tasks: Vec<_> = questions.into_iter().map(|questions| {
                let client = client.clone();
                #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
                tokio::spawn(async move {
                    let mut outcomes = vec![];
                    for (who, what, place) in questions {
                        let outcome = client.check(Check::new(who, what, place)).await;
                        outcomes.push(((who, what, place), outcome));
                    }
                    outcomes
                })
            }).collect();
            let outcomes = join_all(tasks).await;
            client.shutdown().await;
            outcomes
        });
        for (question, outcome) in outcomes.into_iter().flat_map(Result::unwrap) {
            let (who, what, place) = question;
            match (expected(&snapshot, who, what, place), outcome) {
                (Some(allowed), Ok(decision)) => {
                    prop_assert_eq!(decision.allowed, allowed, "{:?}", question);
                    prop_assert_eq!(decision.revision, 1);
                    prop_assert_eq!(decision.reason == Reason::Granted, allowed);
                }
                (None, Err(error)) => {
                    let (code, reason, _) = refusal(error);
                    prop_assert_eq!((code, &*reason), (Code::InvalidArgument, "INVALID_FIELD"));
                }
                (expected, outcome) => {
                    prop_assert!(false, "{:?}: {:?}, {:?}", question, expected, outcome);
                }
            }
        }
    }
}

#[tokio::test]
async fn decisions_have_every_field_of_the_response() {
    let folder = folder("decisions");
    let policy = "
version: 1
catalog: chainguard-2025-08-14
groups: [{id: a}]
identities: [{id: u}, {id: v}, {id: w}]
role_bindings:
  - {identity: u, role: viewer, scope: a}
  - {identity: v, role: viewer, scope: a, expires_at: 2100-01-01T00:00:00Z}
  - identity: w
    role: viewer
    scope: a
    when: [{attribute: context.hops, equals: 2}, {attribute: subject.mfa, equals: true}]
";
    let file = folder.join("policy.yaml");
    std::fs::write(&file, policy).unwrap();
    let unix = format!("unix:{}", folder.join("s").display()).parse().unwrap();
    let server = Real::start(capstan_server::server::Config {
        listen: vec![unix],
        ..config(Source::file(file))
    })
    .await;
    let client: Client = server.client(Options { timeout: PATIENCE, ..Options::default() });
    let check = |identity| Check::new(identity, "repo.list", "a/r");

    let decision = client.check(check("u")).await.unwrap();
    assert_eq!((decision.allowed, decision.reason), (true, Reason::Granted));
    assert_eq!((decision.revision, decision.valid_until), (1, None));
    let decision = client.check(check("v")).await.unwrap();
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800);
    assert_eq!(decision.valid_until, Some(end));
    let decision = client.check(check("nobody")).await.unwrap();
    assert_eq!((decision.allowed, decision.reason), (false, Reason::UnknownIdentity));
    let decision = client.check(check("w")).await.unwrap();
    assert_eq!((decision.allowed, decision.reason), (false, Reason::ConditionNotMet));
    let right = Properties::default().context("hops", 2).subject("mfa", true);
    assert!(client.check(check("w").properties(&right)).await.unwrap().allowed);
    let wrong = Properties::default().context("hops", "2").subject("mfa", true);
    assert!(!client.check(check("w").properties(&wrong)).await.unwrap().allowed);
}

#[tokio::test]
async fn only_the_invalid_checks_of_a_batch_get_errors() {
    let server = Real::demo().await;
    let client = Arc::new(server.client(Options { timeout: PATIENCE, ..Options::default() }));
    let asks = (0..100).map(|at| {
        let capability = if at % 10 == 3 { "no.such" } else { "repo.list" };
        client.check(Check::new("bob", capability, "acme/platform"))
    });
    for (at, outcome) in join_all(asks).await.into_iter().enumerate() {
        if at % 10 == 3 {
            let (code, reason, message) = refusal(outcome.unwrap_err());
            assert_eq!((code, &*reason), (Code::InvalidArgument, "INVALID_FIELD"));
            assert!(message.contains("no.such"), "{message}");
        } else {
            assert!(outcome.unwrap().allowed, "{at}");
        }
    }
}
