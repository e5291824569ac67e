//! Events of a real store: consent, order, who may see what, failures, kills, and what a hostile sink cannot do.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use capstan_server::feed::position::Position;
use capstan_server::limits::{
    DELIVERY_READ_CHANGES, DELIVERY_READ_REVISIONS, POSITIONS_SAVED, SUSPECTS_MAX,
};
use capstan_store::{Journal as _, Limits, RedbStore};
use capstan_testkit::https::{Authority, Received, Reply, Server};
use serde_json::{Value, json};
use tonic::Code;

use super::{Caller, Data, Served, person, reason, serve};
use crate::common::PATIENCE;
use crate::secrets::{Capstan, Sink};

const CREATE: &str = "SubscriptionService/CreateSubscription";
const GET: &str = "SubscriptionService/GetSubscription";
const UPDATE: &str = "SubscriptionService/UpdateSubscription";
/// The catalog in which an owner may do everything with subscriptions.
const CATALOG: &str = "chainguard-2025-08-14";
const URL: &str = "https://iam.example.com";

/// A store, and what its server is told about sinks.
struct World {
    data: Data,
    authority: Authority,
    ca: PathBuf,
}

impl World {
    fn new() -> Self {
        let data = Data::init(CATALOG);
        let authority = Authority::generate();
        let ca = data.parent.path().join("ca.pem");
        std::fs::write(&ca, authority.pem()).unwrap();
        Self { data, authority, ca }
    }

    fn command(&self) -> Capstan {
        let mut command = serve(&self.data.dir);
        command.args(["--public-url", URL, "--webhook-allow", "127.0.0.0/8", "--webhook-ca"]);
        command.arg(&self.ca);
        command
    }

    fn start(&self) -> Served {
        Served::start(self.command())
    }

    /// A sink on this machine that answers with this script.
    async fn sink(&self, script: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Sink {
        let config = self.authority.server_config(&["127.0.0.1"], false);
        Sink(Server::listen(Ipv4Addr::LOCALHOST, config, script).await)
    }
}

fn url(sink: &Server) -> String {
    format!("https://{}/hook", sink.address)
}

/// Consents, and takes every event.
fn willing(request: &Received) -> Reply {
    match request.line.split(' ').next() {
        Some("OPTIONS") => {
            let origin = request.header("webhook-request-origin").unwrap();
            Reply::status(200, &format!("webhook-allowed-origin: {origin}\r\n"))
        }
        _ => Reply::status(204, ""),
    }
}

fn is_event(request: &Received) -> bool {
    request.line.starts_with("POST ")
}

/// Type and subject of each event that a sink got.
fn told(sink: &Server) -> Vec<(String, String)> {
    let events = sink.requests().into_iter().filter(is_event);
    let field = |request: &Received, name| request.header(name).unwrap_or_default().to_owned();
    events.map(|request| (field(&request, "ce-type"), field(&request, "ce-subject"))).collect()
}

fn subjects(sink: &Server) -> Vec<String> {
    told(sink).into_iter().map(|(_, subject)| subject).collect()
}

/// Waits until something holds.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn subscribe(caller: &Caller, parent: &str, sink: &Server, types: &[&str]) -> String {
    let subscription = json!({"sink": url(sink), "types": types});
    let request = json!({"parent": parent, "subscription": subscription});
    let made = caller.json(CREATE, &request).await.unwrap();
    made["subscription"]["id"].as_str().unwrap().to_owned()
}

async fn found(caller: &Caller, id: &str) -> Value {
    caller.json(GET, &json!({"id": id})).await.unwrap()["subscription"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_of_a_group_are_told_in_order() {
    let world = World::new();
    let server = world.start();
    let alice = server.caller("alice").await;
    let sink = world.sink(willing).await;
    alice.create_group("acme/before").await;
    let id = subscribe(&alice, "acme", &sink, &[]).await;
    let mut wanted = vec![];
    for at in 0..5 {
        alice.create_group(&format!("acme/g{at}")).await;
        wanted.push(format!("acme/g{at}"));
    }
    alice.bind_all("acme/g0", (0..3).map(person)).await;
    let deleted = json!({"id": "acme/g1"});
    alice.json("GroupService/DeleteGroup", &deleted).await.unwrap();
    let groups = || {
        let told = told(&sink).into_iter();
        told.filter(|(kind, _)| kind.contains(".group.")).collect::<Vec<_>>()
    };
    until("the last event arrives", async || groups().len() == 6).await;
    let created = groups();
    let subjects: Vec<_> = created.iter().take(5).map(|(_, subject)| subject.clone()).collect();
    assert_eq!(subjects, wanted, "none of before, and in order");
    assert_eq!(created[5], ("dev.capstan.iam.group.deleted.v1".into(), "acme/g1".into()));

    let requests = sink.requests();
    let batch = requests
        .iter()
        .find(|one| one.header("ce-type") == Some("dev.capstan.iam.role_binding.created.batch.v1"));
    let batch = batch.expect("one event for the batch");
    let body: Value = serde_json::from_slice(&batch.body).unwrap();
    assert_eq!(body["body"]["role_bindings"].as_array().unwrap().len(), 3);
    assert_eq!(batch.header("ce-subject"), Some("acme/g0"));
    let first = requests.iter().find(|one| one.header("ce-subject") == Some("acme/g0")).unwrap();
    let body: Value = serde_json::from_slice(&first.body).unwrap();
    assert_eq!(body["actor"]["subject"], "alice");
    assert_eq!(body["actor"]["act"]["authentication"], "caller-header");
    assert_eq!(body["body"]["id"], "acme/g0");
    for (name, value) in [("ce-specversion", "1.0"), ("ce-source", URL), ("ce-group", "acme/g0")] {
        assert_eq!(first.header(name), Some(value));
    }
    let token = first.header("authorization").unwrap().strip_prefix("Bearer ").unwrap();
    let claims = base64::Engine::decode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        token.split('.').nth(1).unwrap(),
    );
    let claims: Value = serde_json::from_slice(&claims.unwrap()).unwrap();
    assert_eq!((&claims["iss"], &claims["sub"]), (&json!(URL), &json!("webhook:acme")));
    assert_eq!(claims["aud"], format!("https://{}", sink.address));
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&first.body);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(claims["webhook"]["digest"], format!("sha256:{hex}"));
    // An account association has the path of its group, and is in it.
    let association = json!({"parent": "acme/g0", "account_association": {"services": {}}});
    let method = "AccountAssociationService/CreateAccountAssociation";
    alice.json(method, &association).await.unwrap();
    let associated = ("dev.capstan.iam.account_association.created.v1".into(), "acme/g0".into());
    until("the association is told", async || told(&sink).contains(&associated)).await;
    // Ids are of digits, each once, ascending.
    let ids: Vec<_> = requests.iter().filter_map(|one| one.header("ce-id")).collect();
    assert!(ids.is_sorted_by(|a, b| a < b), "{ids:?}");
    let seen = found(&alice, &id).await;
    assert_eq!((seen.get("disabled"), seen.get("disabled_reason")), (None, None), "{seen}");
    assert_eq!(seen["creator"], "alice");
}

/// X15 and W9: what the creator of a subscription may not list is not told, as its rights are at the delivery.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_tells_what_its_creator_may_list() {
    let world = World::new();
    let server = world.start();
    let (alice, operator) = (server.caller("alice").await, server.operator().await);
    let sink = world.sink(willing).await;
    for request in [json!({"parent": "acme", "role": {"id": "acme/teller",
            "capabilities": ["groups.list", "subscriptions.create", "subscriptions.list", "subscriptions.update"]}})]
    {
        alice.json("RoleService/CreateRole", &request).await.unwrap();
    }
    operator
        .json("IdentityService/CreateIdentity", &json!({"identity": {"id": "tom"}}))
        .await
        .unwrap();
    let bind = json!({"parent": "acme", "role_binding": {"id": "acme/toms", "identity": "tom", "role": "acme/teller"}});
    alice.json("RoleBindingService/CreateRoleBinding", &bind).await.unwrap();
    let tom = server.caller("tom").await;
    let id = subscribe(&tom, "acme", &sink, &[]).await;
    until("it is confirmed", async || found(&tom, &id).await.get("disabled_reason").is_none())
        .await;
    alice.bind_all("acme", [person(1)].into_iter()).await;
    alice.create_group("acme/seen").await;
    let invite = json!({"parent": "acme", "group_invite": {"role": "viewer"}});
    alice.json("GroupInviteService/CreateGroupInvite", &invite).await.unwrap();
    alice.create_group("acme/seen2").await;
    until("what may be listed arrives", async || subjects(&sink).contains(&"acme/seen2".into()))
        .await;
    let kinds: BTreeSet<_> = told(&sink).into_iter().map(|(kind, _)| kind).collect();
    let kinds: Vec<_> = kinds.iter().map(String::as_str).collect();
    let own = [
        "dev.capstan.iam.group.created.v1",
        "dev.capstan.iam.subscription.created.v1",
        "dev.capstan.iam.subscription.updated.v1",
    ];
    assert!(kinds.iter().all(|kind| own.contains(kind)), "{kinds:?}");
    // Without the binding nothing is told any more.
    alice.json("RoleBindingService/DeleteRoleBinding", &json!({"id": "acme/toms"})).await.unwrap();
    alice.create_group("acme/hidden").await;
    let other = world.sink(willing).await;
    subscribe(&alice, "acme", &other, &["dev.capstan.iam.group."]).await;
    alice.create_group("acme/last").await;
    until("another one is told", async || subjects(&other).contains(&"acme/last".into())).await;
    assert_eq!(told(&other), [("dev.capstan.iam.group.created.v1".into(), "acme/last".into())]);
    assert!(!subjects(&sink).contains(&"acme/hidden".into()));
    // Who sets where events go is the one whose rights count.
    let update = json!({"subscription": {"id": id, "types": ["dev.capstan.iam.group."]}, "update_mask": "types"});
    let updated = alice.json(UPDATE, &update).await.unwrap();
    assert_eq!(updated["subscription"]["creator"], "alice");
    alice.create_group("acme/again").await;
    until("it is told again", async || subjects(&sink).contains(&"acme/again".into())).await;
    // A creator that is disabled, or gone, disables it.
    let update = json!({"subscription": {"id": id, "types": []}, "update_mask": "types"});
    let bind =
        json!({"parent": "acme", "role_binding": {"identity": "tom", "role": "acme/teller"}});
    alice.json("RoleBindingService/CreateRoleBinding", &bind).await.unwrap();
    tom.json(UPDATE, &update).await.unwrap();
    let off = json!({"identity": {"id": "tom", "disabled": true}, "update_mask": "disabled"});
    operator.json("IdentityService/UpdateIdentity", &off).await.unwrap();
    alice.create_group("acme/off").await;
    until("it is disabled", async || found(&alice, &id).await["disabled"] == true).await;
    assert_eq!(found(&alice, &id).await["disabled_reason"], "its creator is disabled");
    assert!(!subjects(&sink).contains(&"acme/off".into()));
}

/// W8: nothing is delivered without consent, and an owner can give it with the challenge.
#[tokio::test(flavor = "multi_thread")]
async fn a_sink_consents_before_it_is_told() {
    let world = World::new();
    let server = world.start();
    let alice = server.caller("alice").await;
    // As Flask: 200 to OPTIONS, without the header.
    let sink = world.sink(|_| Reply::status(200, "")).await;
    let id = subscribe(&alice, "acme", &sink, &[]).await;
    alice.create_group("acme/one").await;
    until("the challenge arrives", async || !told(&sink).is_empty()).await;
    assert_eq!(told(&sink)[0].0, "dev.capstan.iam.subscription.challenge.v1");
    let seen = found(&alice, &id).await;
    assert_eq!(
        (seen.get("disabled"), &seen["disabled_reason"]),
        (None, &json!("the sink has not consented yet"))
    );
    let posted = sink.requests().into_iter().find(is_event).unwrap();
    let body: Value = serde_json::from_slice(&posted.body).unwrap();
    let confirm = |challenge: &Value| json!({"id": id, "challenge": challenge});
    let method = "SubscriptionService/ConfirmSubscription";
    for wrong in [json!("x"), json!(""), json!(format!("{}a", body["challenge"].as_str().unwrap()))]
    {
        let refused = alice.json(method, &confirm(&wrong)).await.unwrap_err();
        assert_eq!((refused.code(), &*reason(&refused)), (Code::InvalidArgument, "INVALID_FIELD"));
    }
    let stranger = server.caller(&person(7)).await.json(method, &confirm(&body["challenge"])).await;
    assert_eq!(stranger.unwrap_err().code(), Code::Unauthenticated);
    assert_eq!(told(&sink).len(), 1, "nothing else");
    alice.json(method, &confirm(&body["challenge"])).await.unwrap();
    until("what was held back arrives", async || subjects(&sink).contains(&"acme/one".into()))
        .await;
    // Another sink consents anew.
    let other = world.sink(|_| Reply::status(405, "")).await;
    let update = json!({"subscription": {"id": id, "sink": url(&other)}, "update_mask": "sink"});
    alice.json(UPDATE, &update).await.unwrap();
    let refused = alice.json(method, &confirm(&body["challenge"])).await.unwrap_err();
    assert_eq!(reason(&refused), "INVALID_FIELD", "of another sink");
    alice.create_group("acme/two").await;
    until("the other one is asked", async || !told(&other).is_empty()).await;
    assert!(told(&other).iter().all(|(kind, _)| kind.contains("challenge")));
    assert!(!subjects(&sink).contains(&"acme/two".into()));
}

/// The wait for a consent is no failure of a delivery: the three days of those begin with the first that fails.
#[tokio::test(flavor = "multi_thread")]
async fn what_failed_before_the_consent_is_forgotten_with_it() {
    let world = World::new();
    let server = world.start();
    let alice = server.caller("alice").await;
    let is_challenge = |request: &Received| {
        request.header("ce-type").is_some_and(|kind| kind.contains("subscription.challenge"))
    };
    let sink = world
        .sink(move |request| match (is_event(request), is_challenge(request)) {
            (true, true) => Reply::status(204, ""),
            (true, false) => Reply::status(503, ""),
            (false, _) => Reply::status(405, ""),
        })
        .await;
    let id = subscribe(&alice, "acme", &sink, &[]).await;
    alice.create_group("acme/one").await;
    until("the challenge arrives", async || sink.requests().iter().any(is_challenge)).await;
    let posted = sink.requests().into_iter().find(is_challenge).unwrap();
    let body: Value = serde_json::from_slice(&posted.body).unwrap();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let confirm = json!({"id": id, "challenge": body["challenge"]});
    alice.json("SubscriptionService/ConfirmSubscription", &confirm).await.unwrap();
    let is_delivery = |request: &Received| is_event(request) && !is_challenge(request);
    until("a delivery fails", async || sink.requests().iter().any(is_delivery)).await;
    tokio::time::sleep(2 * POSITIONS_SAVED).await;
    server.kill();
    let store = RedbStore::open(&world.data.dir, Limits::default()).unwrap();
    let key = Position::key(capstan_engine::Path::parse(&id).unwrap());
    let kept = store.view().await.unwrap().get(&key).unwrap().unwrap();
    let kept = Position::decode(&kept).unwrap();
    assert!(kept.attempts > 0 && !kept.is_asking, "{kept:?}");
    assert!(u128::from(kept.first_failed_at) >= now.as_millis(), "{kept:?}");
}

/// Failures are tried again, and do not change the order; 410 ends it.
#[tokio::test(flavor = "multi_thread")]
async fn failures_are_tried_again_and_gone_is_the_end() {
    let world = World::new();
    let server = world.start();
    let alice = server.caller("alice").await;
    let (status, posts) = (Arc::new(AtomicU16::new(503)), Arc::new(AtomicUsize::new(0)));
    let (of, count) = (Arc::clone(&status), Arc::clone(&posts));
    let sink = world
        .sink(move |request| {
            if !is_event(request) {
                return willing(request);
            }
            let at = count.fetch_add(1, SeqCst);
            let status = of.load(SeqCst);
            // Every other one fails.
            if status == 503 && at % 2 == 0 {
                Reply::status(503, "")
            } else {
                Reply::status(if status == 503 { 202 } else { status }, "")
            }
        })
        .await;
    let id = subscribe(&alice, "acme", &sink, &["dev.capstan.iam.group."]).await;
    for at in 0..4 {
        alice.create_group(&format!("acme/g{at}")).await;
    }
    until("all arrive", async || posts.load(SeqCst) >= 8).await;
    let expected: Vec<_> =
        (0..4).flat_map(|at| [format!("acme/g{at}"), format!("acme/g{at}")]).collect();
    assert_eq!(subjects(&sink), expected);
    status.store(410, SeqCst);
    alice.create_group("acme/gone").await;
    until("it is disabled", async || found(&alice, &id).await["disabled"] == true).await;
    assert_eq!(found(&alice, &id).await["disabled_reason"], "the sink answered 410 Gone");
    alice.create_group("acme/missed").await;
    // Enabled again, it is told what changes from then on.
    status.store(204, SeqCst);
    let update = json!({"subscription": {"id": id, "disabled": false}, "update_mask": "disabled"});
    let enabled = alice.json(UPDATE, &update).await.unwrap();
    assert_eq!(enabled["subscription"].get("disabled_reason"), None);
    alice.create_group("acme/new").await;
    until("the next one arrives", async || subjects(&sink).contains(&"acme/new".into())).await;
    assert!(!subjects(&sink).contains(&"acme/missed".into()));
    // Deleted, nothing.
    alice.json("SubscriptionService/DeleteSubscription", &json!({"id": id})).await.unwrap();
    let before = subjects(&sink).len();
    let other = world.sink(willing).await;
    subscribe(&alice, "acme", &other, &["dev.capstan.iam.group."]).await;
    alice.create_group("acme/later").await;
    until("another one is told", async || subjects(&other).contains(&"acme/later".into())).await;
    assert_eq!(subjects(&sink).len(), before);
}

/// W4: sinks that hang, and answer without an end, hold up nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_sinks_hold_up_nobody() {
    let world = World::new();
    let server = world.start();
    let alice = server.caller("alice").await;
    let hostile = world
        .sink(|request| {
            if !is_event(request) {
                return willing(request);
            }
            match request.header("ce-subject").map(str::len) {
                Some(length) if length % 2 == 0 => Reply::raw("HTTP/1.1 ").hang(),
                _ => Reply::raw("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                    .repeat(b"1\r\nx\r\n", Duration::from_millis(100)),
            }
        })
        .await;
    for _ in 0..SUSPECTS_MAX + 14 {
        subscribe(&alice, "acme", &hostile, &["dev.capstan.iam.group."]).await;
    }
    let sink = world.sink(willing).await;
    subscribe(&alice, "acme", &sink, &["dev.capstan.iam.group."]).await;
    for at in 0..20 {
        alice.create_group(&format!("acme/{}", "g".repeat(1 + at))).await;
    }
    until("the willing sink is told", async || subjects(&sink).len() == 20).await;
    assert!(subjects(&hostile).len() < 20 * SUSPECTS_MAX);
}

/// W7: kills while events are delivered lose none, and what comes again comes in order. `CAPSTAN_KILLS=1000` is the long form.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "figures of the long form")]
async fn kills_lose_no_event() {
    let kills: usize = std::env::var("CAPSTAN_KILLS").map_or(6, |kills| kills.parse().unwrap());
    let world = World::new();
    let sink = world.sink(willing).await;
    let made = Arc::new(Mutex::new(vec![]));
    let mut number = 0;
    {
        let server = world.start();
        let alice = server.caller("alice").await;
        let id = subscribe(&alice, "acme", &sink, &["dev.capstan.iam.group."]).await;
        until("it consents", async || found(&alice, &id).await.get("disabled_reason").is_none())
            .await;
        server.kill();
    }
    for round in 0..kills {
        let server = world.start();
        let alice = server.caller("alice").await;
        let writing = Arc::new(AtomicBool::new(true));
        let task = {
            let (made, writing) = (Arc::clone(&made), Arc::clone(&writing));
            tokio::runtime::Handle::current().spawn(async move {
                let mut number = number;
                while writing.load(SeqCst) {
                    let id = format!("acme/g{number}");
                    let request = json!({"parent": "acme", "group": {"id": id}});
                    number += 1;
                    match alice.json("GroupService/CreateGroup", &request).await {
                        Ok(_) => made.lock().unwrap().push(id),
                        // It may have been made.
                        Err(_) => return number,
                    }
                }
                number
            })
        };
        // From a moment without any event to some seconds of them.
        tokio::time::sleep(Duration::from_millis(20 + 37 * (round as u64 % 20))).await;
        server.kill();
        writing.store(false, SeqCst);
        number = task.await.unwrap();
    }
    let server = world.start();
    let alice = server.caller("alice").await;
    alice.create_group("acme/last").await;
    // What was told and not saved is told again first.
    let begun = Instant::now();
    let patience = PATIENCE * (1 + u32::try_from(kills / 50).unwrap());
    while !subjects(&sink).contains(&"acme/last".into()) {
        assert!(begun.elapsed() < patience, "the last event arrives");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // In order without the repetitions: each is told first after all before it.
    let (mut seen, mut first) = (BTreeSet::new(), vec![]);
    for request in sink.requests().into_iter().filter(is_event) {
        let subject = request.header("ce-subject").unwrap().to_owned();
        let id = request.header("ce-id").unwrap().to_owned();
        if seen.insert(id.clone()) {
            first.push((id, subject));
        }
    }
    assert!(first.is_sorted(), "in the order of their ids");
    let told: Vec<_> = first.into_iter().map(|(_, subject)| subject).collect();
    let made = made.lock().unwrap();
    assert!(made.len() > kills, "{} groups in {kills} rounds", made.len());
    let missed: Vec<_> = made.iter().filter(|id| !told.contains(id)).collect();
    assert!(missed.is_empty(), "{missed:?} of {}", made.len());
    println!(
        "{kills} kills, {} groups, {} events with {} repeated",
        made.len(),
        told.len(),
        subjects(&sink).len() - told.len()
    );
}

/// What waits for consent is told then, however much that is; and what was told is not told again after an orderly pause.
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_told_whole_and_once() {
    let world = World::new();
    let server = world.start();
    let alice = server.caller("alice").await;
    let consents = Arc::new(AtomicBool::new(false));
    let does = Arc::clone(&consents);
    let sink = world
        .sink(move |request| {
            let is_withheld = !is_event(request) && !does.load(SeqCst);
            if is_withheld { Reply::status(405, "") } else { willing(request) }
        })
        .await;
    let types = ["dev.capstan.iam.group.", "dev.capstan.iam.role_binding."];
    subscribe(&alice, "acme", &sink, &types).await;
    let mut expected = vec![];
    for at in 0..DELIVERY_READ_REVISIONS + 10 {
        alice.create_group(&format!("acme/g{at}")).await;
        expected.push(format!("acme/g{at}"));
    }
    for at in 0..2 {
        let group = format!("acme/g{at}");
        alice.bind_all(&group, (0..DELIVERY_READ_CHANGES + 1).map(person)).await;
        expected.push(group);
    }
    consents.store(true, SeqCst);
    let events = || {
        let told = told(&sink).into_iter().filter(|(kind, _)| !kind.contains("challenge"));
        told.map(|(_, subject)| subject).collect::<Vec<_>>()
    };
    until("all of it arrives", async || events().len() >= expected.len()).await;
    assert_eq!(events(), expected);
    tokio::time::sleep(3 * POSITIONS_SAVED).await;
    server.kill();
    let server = world.start();
    server.caller("alice").await.create_group("acme/next").await;
    until("the next one arrives", async || events().contains(&"acme/next".into())).await;
    assert_eq!(events().len(), expected.len() + 1, "nothing again");
}

/// W1: a sink that is not public is refused with its field, unless it is allowed.
#[tokio::test(flavor = "multi_thread")]
async fn sinks_that_are_not_public_are_refused() {
    let data = Data::init(CATALOG);
    let mut command = serve(&data.dir);
    command.args(["--public-url", URL, "--webhook-allow", "10.1.0.0/16"]);
    let server = Served::start(command);
    let alice = server.caller("alice").await;
    let create = |sink: &str| json!({"parent": "acme", "subscription": {"sink": sink}, "validate_only": true});
    for sink in [
        "",
        "http://example.com/",
        "https://127.0.0.1/",
        "https://0x7f.1/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://169.254.169.254/latest",
        "https://10.2.0.1/",
        "https://localhost/",
        "https://user@example.com/",
        "https://example.com:22/",
        "https://example.com/#x",
    ] {
        let refused = alice.json(CREATE, &create(sink)).await.unwrap_err();
        let info = tonic_types::StatusExt::get_details_error_info(&refused).unwrap();
        assert_eq!(info.metadata["field"], "subscription.sink", "{sink}: {refused:?}");
    }
    for sink in ["https://10.1.2.3/x", "https://example.com:8443/hook?a=b"] {
        alice.json(CREATE, &create(sink)).await.unwrap();
    }
    // The keys that receivers verify with.
    let types = json!({"parent": "acme", "subscription": {"sink": "https://example.com", "types": ["Dev"]}});
    let refused = alice.json(CREATE, &types).await.unwrap_err();
    let info = tonic_types::StatusExt::get_details_error_info(&refused).unwrap();
    assert_eq!(info.metadata["field"], "subscription.types[0]");
}
