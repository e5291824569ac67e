//! Whatever a server does, nobody is allowed by mistake and nobody waits for ever.

use std::time::Duration;

use capstan_client::limits::{ANSWER_BYTES_MAX, REVISION_MAX};
use capstan_client::{Client, Code, Error, Options};
use capstan_proto::v1::{BatchCheckResponse, CheckResult, ItemError, Reason};
use futures_util::future::join_all;
use tonic::Status;

use crate::fake::{Act, Asked, Door, Fake, is_allowed, truth};
use crate::raw::{Thing, listen};
use crate::{PATIENCE, ask, check, refusal};

const GRANTED: i32 = Reason::Granted as i32;

fn granted() -> CheckResult {
    CheckResult { allowed: true, reason: GRANTED, ..Default::default() }
}

/// Asked about three identities at once, the server says this.
async fn hear(reply: BatchCheckResponse) -> Vec<Result<bool, Error>> {
    let (_fake, client) = Fake::start(move |_| Act::Reply(reply.clone()), Options::default()).await;
    let outcomes = join_all(["a", "b", "c"].map(|who| ask(&client, who))).await;
    outcomes.into_iter().map(|outcome| outcome.map(|decision| decision.allowed)).collect()
}

#[tokio::test]
async fn a_reply_that_cannot_be_an_answer_is_an_error_for_all_of_its_callers() {
    let of = |results: Vec<CheckResult>, revision| BatchCheckResponse { results, revision };
    for reply in [
        of(vec![], 1),
        of(vec![granted(); 2], 1),
        of(vec![granted(); 4], 1),
        of(vec![granted(); 3], 0),
        of(vec![granted(); 3], REVISION_MAX + 1),
    ] {
        for outcome in hear(reply.clone()).await {
            assert!(matches!(outcome, Err(Error::Protocol(_))), "{reply:?}: {outcome:?}");
        }
    }
}

#[tokio::test]
async fn a_result_that_cannot_be_an_answer_is_an_error_for_its_caller() {
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
        let outcomes = hear(BatchCheckResponse { results, revision: 1 }).await;
        assert_eq!(outcomes[0], Ok(true), "{odd:?}");
        assert!(outcomes[1].is_err(), "{odd:?}: {outcomes:?}");
        assert_eq!(outcomes[2], Ok(false), "{odd:?}");
    }
    // The highest revision is one.
    let highest = BatchCheckResponse { results: vec![granted(); 3], revision: REVISION_MAX };
    assert_eq!(hear(highest).await, vec![Ok(true); 3]);
    // A reason that this client does not know can only be another reason to deny.
    let newer = CheckResult { reason: 99, ..Default::default() };
    let results = vec![newer; 3];
    assert_eq!(hear(BatchCheckResponse { results, revision: 1 }).await, vec![Ok(false); 3]);
}

#[tokio::test]
async fn an_answer_larger_than_a_message_may_be_is_none() {
    let message = "x".repeat(ANSWER_BYTES_MAX);
    let error = Some(ItemError { code: 3, reason: "X".into(), message });
    let result = CheckResult { error, ..Default::default() };
    let reply = BatchCheckResponse { results: vec![result], revision: 1 };
    let (_fake, client) = Fake::start(move |_| Act::Reply(reply.clone()), Options::default()).await;
    assert_eq!(refusal(ask(&client, "a").await.unwrap_err()).0, Code::OutOfRange);
}

#[tokio::test]
async fn an_answer_to_nothing_is_no_answer_to_the_next() {
    // The first stream says more than it was asked; whatever it says of the next question is wrong.
    let script = |asked: &Asked| match asked.door {
        Door::Stream(0, 0) => {
            let mut twice = truth(&asked.request, 1);
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
async fn only_the_culprit_gets_the_error_that_ends_a_stream() {
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
async fn what_concerns_every_call_is_told_at_once() {
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
async fn what_passes_is_asked_again() {
    for code in [Code::Unavailable, Code::ResourceExhausted, Code::Unknown, Code::Cancelled] {
        let script = move |asked: &Asked| match asked.door {
            Door::Stream(0, _) => Act::Fail(Status::new(code, "a moment")),
            Door::Stream(1, _) => Act::End,
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
async fn a_server_that_pushes_back_is_obeyed() {
    let pushback = |milliseconds: &'static str| {
        let mut status = Status::resource_exhausted("too much");
        status.metadata_mut().insert("grpc-retry-pushback-ms", milliseconds.parse().unwrap());
        status
    };
    // Never: the parts are asked once each, and whoever is alone is told.
    let (fake, client) = Fake::start(move |_| Act::Fail(pushback("-1")), Options::default()).await;
    for outcome in join_all((0..4).map(|_| ask(&client, "a"))).await {
        assert_eq!(refusal(outcome.unwrap_err()).0, Code::ResourceExhausted);
    }
    assert_eq!(fake.sizes().iter().filter(|size| **size == 1).count(), 4);

    // Later than the deadline: asked once and never again.
    let script = move |_: &Asked| Act::Fail(pushback("3600000"));
    let (fake, client) = Fake::start(script, Options::default()).await;
    let outcome = client.check(check("a").timeout(Duration::from_secs(2))).await;
    let Err(Error::DeadlineExceeded(Some(last))) = outcome else { panic!("{outcome:?}") };
    assert!(last.contains("too much"), "{last}");
    assert_eq!(fake.sizes(), [1]);
}

#[tokio::test]
async fn a_stalled_server_costs_a_connection_and_no_call() {
    let script = |asked: &Asked| match asked.door {
        Door::Stream(0, _) => Act::Never,
        _ => Act::Answer,
    };
    let options = Options { stall: Duration::from_millis(200), ..Options::default() };
    let (fake, client) = Fake::start(script, options).await;
    assert!(join_all((0..50).map(|_| ask(&client, "a"))).await.iter().all(Result::is_ok));
    assert!(fake.streams() > 1);
}

#[tokio::test]
async fn nobody_waits_longer_than_his_deadline_for_what_is_no_server() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut addresses = vec![nobody];
    for thing in [
        Thing::Closes,
        Thing::Silence,
        Thing::Says(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"),
        Thing::Says(b"\0\0\0\x04\0\0\0\0\0garbage that is no frame at all\xff\xff\xff\xff"),
        Thing::Says(b"\0\0\0\x04\0\0\0\0\0\0\0\0\x07\0\0\0\0\0"),
        Thing::Answers(b"", None),
        Thing::Answers(b"\0\0\0\0\x05", None),
    ] {
        addresses.push(listen(thing).await);
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
async fn bytes_that_are_no_message_are_no_answer() {
    // A reply whose first result is cut off; a message that claims to be compressed; an HTTP answer
    // without any, which says OK.
    for thing in [
        Thing::Answers(b"\0\0\0\0\x03\x0a\x05\x08", Some("0")),
        Thing::Answers(b"\x01\0\0\0\x02\x10\x01", Some("0")),
        Thing::Answers(b"", Some("0")),
        Thing::Answers(b"\0\0\0\0\0", Some("0")),
        Thing::Answers(b"\0\xff\xff\xff\xff", Some("0")),
    ] {
        let client = Client::connect(&format!("http://{}", listen(thing).await)).unwrap();
        let outcome = client.check(check("a").timeout(Duration::from_millis(500))).await;
        assert!(outcome.is_err(), "{thing:?}: {outcome:?}");
    }
}
