//! Faulty servers: no fault leads to a wrong allow or an endless wait.

use std::time::Duration;

use capstan_client::limits::{ANSWER_BYTES_MAX, REVISION_MAX};
use capstan_client::{Client, Code, Error, Options};
use capstan_proto::v1::{BatchCheckResponse, CheckResult, ItemError, Reason};
use futures_util::future::join_all;
use tonic::Status;

use crate::fake::{Act, Asked, CallId, Fake, by_rule, is_allowed};
use crate::raw::{Reaction, listen};
use crate::{PATIENCE, ask, check, refusal};

const GRANTED: i32 = Reason::Granted as i32;

fn granted() -> CheckResult {
    CheckResult { allowed: true, reason: GRANTED, ..Default::default() }
}

/// The outcomes of three concurrent checks if the server sends this response.
async fn outcomes_of(reply: BatchCheckResponse) -> Vec<Result<bool, Error>> {
    let (_fake, client) = Fake::start(move |_| Act::Reply(reply.clone()), Options::default()).await;
    let outcomes = join_all(["a", "b", "c"].map(|who| ask(&client, who))).await;
    outcomes.into_iter().map(|outcome| outcome.map(|decision| decision.allowed)).collect()
}

#[tokio::test]
async fn an_invalid_response_is_an_error_for_every_call_of_its_batch() {
    let of = |results: Vec<CheckResult>, revision| BatchCheckResponse { results, revision };
    for reply in [
        of(vec![], 1),
        of(vec![granted(); 2], 1),
        of(vec![granted(); 4], 1),
        of(vec![granted(); 3], 0),
        of(vec![granted(); 3], REVISION_MAX + 1),
    ] {
        for outcome in outcomes_of(reply.clone()).await {
            assert!(matches!(outcome, Err(Error::Protocol(_))), "{reply:?}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn an_invalid_result_is_an_error_for_its_call_only() {
    let denied = CheckResult { reason: Reason::NoBinding.into(), ..Default::default() };
    let error = |code| Some(ItemError { code, reason: "X".into(), message: "no".into() });
    let time = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
    for odd in [
        CheckResult::default(),
        CheckResult { allowed: true, ..Default::default() },
        CheckResult { reason: GRANTED, ..Default::default() },
        CheckResult { allowed: true, ..denied.clone() },
        CheckResult { allowed: true, reason: 99, ..Default::default() },
        CheckResult { error: error(0), ..granted() },
        CheckResult { error: error(3), ..granted() },
        CheckResult { valid_until: time(i64::MIN, -1), ..granted() },
        CheckResult { valid_until: time(1, 1), ..denied.clone() },
    ] {
        let results = vec![granted(), odd.clone(), denied.clone()];
        let outcomes = outcomes_of(BatchCheckResponse { results, revision: 1 }).await;
        assert_eq!(outcomes[0], Ok(true), "{odd:?}");
        assert!(outcomes[1].is_err(), "{odd:?}: {outcomes:?}");
        assert_eq!(outcomes[2], Ok(false), "{odd:?}");
    }
    // The highest possible revision is valid.
    let highest = BatchCheckResponse { results: vec![granted(); 3], revision: REVISION_MAX };
    assert_eq!(outcomes_of(highest).await, vec![Ok(true); 3]);
    // An unknown reason can only be a new reason of a denial.
    let newer = CheckResult { reason: 99, ..Default::default() };
    let results = vec![newer; 3];
    assert_eq!(outcomes_of(BatchCheckResponse { results, revision: 1 }).await, vec![Ok(false); 3]);
}

#[tokio::test]
async fn a_response_over_the_message_limit_is_an_error() {
    let message = "x".repeat(ANSWER_BYTES_MAX);
    let error = Some(ItemError { code: 3, reason: "X".into(), message });
    let result = CheckResult { error, ..Default::default() };
    let reply = BatchCheckResponse { results: vec![result], revision: 1 };
    let (_fake, client) = Fake::start(move |_| Act::Reply(reply.clone()), Options::default()).await;
    assert_eq!(refusal(ask(&client, "a").await.unwrap_err()).0, Code::OutOfRange);
}

#[tokio::test]
async fn surplus_results_never_answer_the_next_batch() {
    // The first stream sends more results than checks. Its surplus result would be wrong for the next
    // check.
    let script = |asked: &Asked| match asked.call {
        CallId::Stream(0, 0) => {
            let mut twice = by_rule(&asked.request, 1);
            twice.results.extend(twice.results.clone());
            Act::Reply(twice)
        }
        _ => Act::Answer,
    };
    let (fake, client) = Fake::start(script, Options::default()).await;
    assert!(matches!(ask(&client, "a").await, Err(Error::Protocol(_))));
    let b = ask(&client, "b").await.unwrap();
    assert_eq!(b.allowed, is_allowed("b", "some.capability", "some/where"));
    assert_eq!(fake.streams(), 2);
}

#[tokio::test]
async fn only_the_check_that_ends_a_stream_gets_the_error() {
    for code in [Code::InvalidArgument, Code::Internal, Code::OutOfRange, Code::FailedPrecondition]
    {
        let script = move |asked: &Asked| match asked.contains("caller-77") {
            true => Act::Fail(Status::new(code, "a culprit")),
            false => Act::Answer,
        };
        let (_fake, client) = Fake::start(script, Options::default()).await;
        let names: Vec<_> = (0..200).map(|at| format!("caller-{at}")).collect();
        let outcomes = join_all(names.iter().map(|name| ask(&client, name))).await;
        for (name, outcome) in names.iter().zip(outcomes) {
            if name == "caller-77" {
                assert_eq!(refusal(outcome.unwrap_err()).0, code);
            } else {
                let allowed = is_allowed(name, "some.capability", "some/where");
                assert_eq!(outcome.unwrap().allowed, allowed, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn permanent_errors_are_returned_without_a_retry() {
    for code in [Code::Unauthenticated, Code::PermissionDenied, Code::Unimplemented] {
        let script = move |_: &Asked| Act::Fail(Status::new(code, "nobody"));
        let (fake, client) = Fake::start(script, Options::default()).await;
        for outcome in join_all((0..50).map(|_| ask(&client, "a"))).await {
            assert_eq!(refusal(outcome.unwrap_err()).0, code);
        }
        assert_eq!(fake.sizes(), [50]);
    }
}

#[tokio::test]
async fn transient_errors_are_retried() {
    for code in [Code::Unavailable, Code::ResourceExhausted, Code::Unknown, Code::Cancelled] {
        let script = move |asked: &Asked| match asked.call {
            CallId::Stream(0, _) => Act::Fail(Status::new(code, "a moment")),
            CallId::Stream(1, _) => Act::End,
            _ => Act::Answer,
        };
        let (fake, client) = Fake::start(script, Options::default()).await;
        let outcomes = join_all((0..50).map(|_| ask(&client, "a"))).await;
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
        assert_eq!(fake.sizes(), [50, 50, 50]);
        assert_eq!(fake.streams(), 3);
    }
}

#[tokio::test]
async fn retry_push_back_is_respected() {
    let pushback = |milliseconds: &'static str| {
        let mut status = Status::resource_exhausted("too much");
        status.metadata_mut().insert("grpc-retry-pushback-ms", milliseconds.parse().unwrap());
        status
    };
    // No retry: the batch is split until each check was sent alone, and then its call gets the error.
    let (fake, client) = Fake::start(move |_| Act::Fail(pushback("-1")), Options::default()).await;
    for outcome in join_all((0..4).map(|_| ask(&client, "a"))).await {
        assert_eq!(refusal(outcome.unwrap_err()).0, Code::ResourceExhausted);
    }
    assert_eq!(fake.sizes().iter().filter(|size| **size == 1).count(), 4);

    // A retry after the deadline: the check is sent only once.
    let script = move |_: &Asked| Act::Fail(pushback("3600000"));
    let (fake, client) = Fake::start(script, Options::default()).await;
    let outcome = client.check(check("a").timeout(Duration::from_secs(2))).await;
    let Err(Error::DeadlineExceeded(Some(last))) = outcome else { panic!("{outcome:?}") };
    assert!(last.contains("too much"), "{last}");
    assert_eq!(fake.sizes(), [1]);
}

#[tokio::test]
async fn a_stalled_stream_is_replaced_without_failed_calls() {
    let script = |asked: &Asked| match asked.call {
        CallId::Stream(0, _) => Act::Never,
        _ => Act::Answer,
    };
    let options = Options { stall: Duration::from_millis(200), ..Options::default() };
    let (fake, client) = Fake::start(script, options).await;
    assert!(join_all((0..50).map(|_| ask(&client, "a"))).await.iter().all(Result::is_ok));
    assert!(fake.streams() > 1);
}

#[tokio::test]
async fn calls_to_other_programs_end_at_their_deadline() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut addresses = vec![nobody];
    for reaction in [
        Reaction::Closes,
        Reaction::Silence,
        Reaction::Says(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
        Reaction::Says(b"\0\0\0\x04\0\0\0\0\0garbage that is no frame at all\xff\xff\xff\xff"),
        Reaction::Says(b"\0\0\0\x04\0\0\0\0\0\0\0\0\x07\0\0\0\0\0"),
        Reaction::Answers(b"", None),
        Reaction::Answers(b"\0\0\0\0\x05", None),
    ] {
        addresses.push(listen(reaction).await);
    }
    for address in addresses {
        let client = Client::connect(&format!("http://{address}")).unwrap();
        let asks = (0..20).map(|_| client.check(check("a").timeout(Duration::from_millis(300))));
        let outcomes = tokio::time::timeout(PATIENCE, join_all(asks)).await.unwrap();
        for outcome in outcomes {
            assert!(outcome.is_err(), "{address}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn undecodable_responses_are_errors() {
    // A response with an incomplete result; a compressed message; a response without a message and
    // with status OK; an empty message; a message shorter than its length.
    for reaction in [
        Reaction::Answers(b"\0\0\0\0\x03\x0a\x05\x08", Some("0")),
        Reaction::Answers(b"\x01\0\0\0\x02\x10\x01", Some("0")),
        Reaction::Answers(b"", Some("0")),
        Reaction::Answers(b"\0\0\0\0\0", Some("0")),
        Reaction::Answers(b"\0\xff\xff\xff\xff", Some("0")),
    ] {
        let client = Client::connect(&format!("http://{}", listen(reaction).await)).unwrap();
        let outcome = client.check(check("a").timeout(Duration::from_millis(500))).await;
        assert!(outcome.is_err(), "{reaction:?}: {outcome:?}");
    }
}
