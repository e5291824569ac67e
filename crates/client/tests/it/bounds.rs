//! Deadlines, back-pressure, size limits, and shutdown.

use std::time::Duration;

use capstan_client::limits::{CAPABILITY_BYTES_MAX, CHECK_BYTES_MAX, PATH_BYTES_MAX, PERMIT_BYTES};
use capstan_client::{Check, Client, Code, ConnectError, Error, Options, Properties};
use futures_util::future::join_all;
use tokio::runtime::Handle;

use crate::fake::{Act, Asked, Fake};
use crate::{PATIENCE, ask, check, refusal};

const SOON: Duration = Duration::from_millis(100);

#[tokio::test]
async fn each_call_ends_at_its_own_deadline() {
    let options = Options { stall: PATIENCE, timeout: SOON, ..Options::default() };
    let script = |asked: &Asked| match asked.contains("patient") {
        true => Act::Gate,
        false if asked.contains("first") => Act::Answer,
        false => Act::Never,
    };
    let (fake, client) = Fake::start(script, options).await;
    assert!(ask(&client, "first").await.is_ok());
    // One batch: its other call is answered after the deadlines of these calls.
    let patient = ask(&client, "patient");
    let others = async {
        let check = check("a").timeout(Duration::from_secs(1));
        let outcomes = join_all((0..20).map(|_| client.check(check))).await;
        fake.open_gate();
        outcomes
    };
    let (patient, others) = tokio::join!(patient, others);
    assert!(patient.is_ok(), "{patient:?}");
    for outcome in others {
        assert_eq!(outcome, Err(Error::DeadlineExceeded(None)));
    }
    assert_eq!(fake.sizes(), [1, 21]);
    // The stream never answers, so the queue does not move.
    let outcomes = join_all((0..5_000).map(|_| client.check(check("a")))).await;
    assert!(outcomes.iter().all(|outcome| *outcome == Err(Error::DeadlineExceeded(None))));
    assert_eq!(
        client.check(check("a").timeout(Duration::ZERO)).await,
        Err(Error::DeadlineExceeded(None))
    );
}

#[tokio::test]
async fn the_longest_duration_is_a_valid_timeout() {
    let (_fake, client) = Fake::start(|_| Act::Answer, Options::default()).await;
    assert!(client.check(check("a").timeout(Duration::MAX)).await.is_ok());
    let ages = Options { timeout: Duration::MAX, stall: Duration::MAX, ..Options::default() };
    let ages = Options { connection_age: Duration::MAX, ..ages };
    let (_fake, client) = Fake::start(|_| Act::Answer, ages).await;
    assert!(client.check(check("a")).await.is_ok());
}

#[tokio::test]
async fn pending_calls_are_limited() {
    let options = Options { pending_max: 4, stall: PATIENCE, ..Options::default() };
    let (fake, client) = Fake::start(|_| Act::Gate, options).await;
    let patient = join_all((0..4).map(|_| ask(&client, "patient")));
    let late = async {
        fake.wait_for(1).await;
        let outcomes = join_all((0..100).map(|_| client.check(check("late").timeout(SOON)))).await;
        for outcome in outcomes {
            let Err(Error::DeadlineExceeded(Some(why))) = outcome else { panic!("{outcome:?}") };
            assert!(why.contains("holds as many"), "{why}");
        }
        // Answers to the first calls release their permits.
        let next = ask(&client, "next");
        fake.open_gate();
        next.await
    };
    let (patient, next) = tokio::join!(biased; patient, late);
    assert!(patient.iter().all(Result::is_ok));
    assert!(next.is_ok(), "{next:?}");
    assert!(!fake.asked().iter().any(|asked| asked.contains("late")));
    assert_eq!(fake.sizes().iter().sum::<usize>(), 5);
}

#[tokio::test]
async fn a_large_check_takes_several_permits() {
    let options = Options { pending_max: 5, stall: PATIENCE, ..Options::default() };
    let (fake, client) = Fake::start(|_| Act::Gate, options).await;
    // Slightly less than five permits: the encoding around the text counts, too.
    let large = Properties::default().context("x", "x".repeat(4 * PERMIT_BYTES - 200));
    let large = client.check(check("large").properties(&large).timeout(PATIENCE));
    let others = async {
        fake.wait_for(1).await;
        let fits = ask(&client, "fits");
        let late = async {
            let late = client.check(check("late").timeout(SOON)).await;
            fake.open_gate();
            late
        };
        tokio::join!(biased; fits, late)
    };
    let (large, (fits, late)) = tokio::join!(biased; large, others);
    assert!(large.is_ok() && fits.is_ok(), "{large:?} {fits:?}");
    assert!(matches!(late, Err(Error::DeadlineExceeded(Some(_)))), "{late:?}");
}

#[tokio::test]
async fn cancelled_calls_return_their_permits() {
    let options = Options { pending_max: 3, stall: PATIENCE, timeout: SOON, ..Options::default() };
    let (fake, client) = Fake::start(|_| Act::Gate, options).await;
    for _ in 0..20 {
        // The caller drops the future while the call is queued or in flight.
        let outcome = tokio::time::timeout(Duration::ZERO, ask(&client, "gone")).await;
        assert!(outcome.is_err());
    }
    fake.open_gate();
    let outcomes = join_all((0..50).map(|_| ask(&client, "a"))).await;
    assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
}

#[tokio::test]
async fn too_large_checks_are_refused_without_sending() {
    let (fake, client) = Fake::start(|_| Act::Answer, Options::default()).await;
    let (path, name) = ("p".repeat(PATH_BYTES_MAX), "c".repeat(CAPABILITY_BYTES_MAX));
    assert!(client.check(Check::new(&path, &name, &path)).await.is_ok());
    let (longer, long_name) = (format!("{path}p"), format!("{name}c"));
    for (check, field) in [
        (Check::new(&longer, "a.b", "r"), "identity"),
        (Check::new("i", &long_name, "r"), "capability"),
        (Check::new("i", "a.b", &longer), "resource"),
    ] {
        let (code, reason, message) = refusal(client.check(check).await.unwrap_err());
        assert_eq!((code, &*reason), (Code::InvalidArgument, "INVALID_FIELD"));
        assert!(message.starts_with(&format!("{field}: ")), "{message}");
    }
    // Properties that fit into a message, and properties that do not.
    let most = Properties::default().context("x", "x".repeat(CHECK_BYTES_MAX - 100));
    assert!(client.check(check("a").properties(&most).timeout(PATIENCE)).await.is_ok());
    let more = Properties::default().context("x", "x".repeat(CHECK_BYTES_MAX));
    let outcome = client.check(check("a").properties(&more)).await;
    let (code, reason, _) = refusal(outcome.unwrap_err());
    assert_eq!((code, &*reason), (Code::ResourceExhausted, "TOO_LARGE"));
    assert_eq!(fake.sizes(), [1, 1]);

    // More bytes than all permits of the client.
    let client = fake.client(Options { pending_max: 8, ..Options::default() });
    let more = Properties::default().context("x", "x".repeat(8 * PERMIT_BYTES));
    let (code, reason, _) = refusal(client.check(check("a").properties(&more)).await.unwrap_err());
    assert_eq!((code, &*reason), (Code::ResourceExhausted, "TOO_LARGE"));
}

#[tokio::test]
async fn a_shutdown_completes_every_call_and_ends_every_task() {
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let (fake, first) = Fake::start(|_| Act::Never, Options::default()).await;
    first.shutdown().await;
    drop(first);
    let options = Options { pending_max: 3, connections: 2, stall: PATIENCE, ..Options::default() };
    let client = fake.client(options);
    let pending = join_all((0..10).map(|_| ask(&client, "a")));
    let end = async {
        fake.wait_for(1).await;
        client.shutdown().await;
    };
    let (outcomes, ()) = tokio::join!(pending, end);
    assert_eq!(outcomes, vec![Err(Error::Closed); 10]);
    assert_eq!(ask(&client, "a").await, Err(Error::Closed));
    drop(client);

    // Only the tasks of the server remain. Its connection tasks end once they notice the closed
    // connections. A dropped client ends its tasks, too.
    let one = fake.client(Options::default());
    tokio::time::timeout(SOON, ask(&one, "a")).await.unwrap_err();
    drop(one);
    let gone = async {
        while tasks() > 1 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[test]
fn calls_without_a_running_runtime_are_errors() {
    assert_eq!(Client::connect("http://127.0.0.1:1").err(), Some(ConnectError::NoRuntime));
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let client = first.block_on(async { Client::connect("http://127.0.0.1:1").unwrap() });
    let pending = {
        let client = client.clone();
        std::thread::spawn(move || runtime().block_on(ask(&client, "a")))
    };
    drop(first);
    assert_eq!(pending.join().unwrap(), Err(Error::Closed));
    assert_eq!(runtime().block_on(ask(&client, "a")), Err(Error::Closed));
}
