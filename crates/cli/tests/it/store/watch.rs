//! Watches of a real store: every change once, in order, as long as the caller may see it.

use std::collections::BTreeMap;
use std::time::Instant;

use capstan_proto::iam::v1 as iam;
use capstan_proto::iam::v1::policy_service_client::PolicyServiceClient;
use capstan_server::limits::{
    CALLER_WATCHES_MAX, WATCH_CHECKPOINT, WATCH_READ_BYTES, WATCH_READ_REVISIONS, WATCHES_MAX,
};
use serde_json::json;
use tonic::{Code, Request, Status, Streaming};

use super::{CATALOG, Caller, Data, Served, person, reason};
use crate::common::PATIENCE;

type Watch = Streaming<iam::WatchResponse>;

async fn watch(caller: &Caller, parent: &str, start_revision: u64) -> Result<Watch, Status> {
    let mut request = Request::new(iam::WatchRequest { parent: parent.into(), start_revision });
    caller.identify(&mut request);
    let mut client = PolicyServiceClient::new(caller.channel.clone());
    client.watch(request).await.map(tonic::Response::into_inner)
}

/// The next response.
async fn next(watch: &mut Watch) -> Result<iam::WatchResponse, Status> {
    let message = tokio::time::timeout(2 * PATIENCE, watch.message()).await;
    message.expect("a response in time")?.ok_or_else(|| Status::internal("the watch has ended"))
}

/// The next response with changes: its revision, and action and id of each.
async fn changed(watch: &mut Watch) -> (u64, Vec<String>) {
    loop {
        let iam::WatchResponse { revision, changes } = next(watch).await.unwrap();
        if !changes.is_empty() {
            let named = changes.iter().map(|one| format!("{}.{} {}", one.kind, one.action, one.id));
            return (revision, named.collect());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_comes_once_and_in_order() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let alice = server.caller("alice").await;
    let first = alice.create_group("acme/a").await;
    let mut live = watch(&alice, "acme", 0).await.unwrap();
    let mut from_first = watch(&alice, "acme", first).await.unwrap();
    assert_eq!(changed(&mut from_first).await, (first, vec!["group.created acme/a".to_owned()]));
    let second = alice.create_group("acme/b").await;
    for watch in [&mut live, &mut from_first] {
        assert_eq!(changed(watch).await, (second, vec!["group.created acme/b".to_owned()]));
    }
    let third = alice.bind_all("acme/b", (0..2).map(person)).await;
    let (revision, bound) = changed(&mut live).await;
    assert_eq!((revision, bound.len()), (third, 2));
    let deleted = alice.json("GroupService/DeleteGroup", &json!({"id": "acme/b"})).await.unwrap();
    let fourth: u64 = deleted["revision"].as_str().unwrap().parse().unwrap();
    let (revision, gone) = changed(&mut live).await;
    assert_eq!((revision, gone.len()), (fourth, 3), "the bindings go with it: {gone:?}");
    // Resumed behind a revision, it goes on there; an update has both objects.
    let mut resumed = watch(&alice, "acme", fourth + 1).await.unwrap();
    let update = json!({"group": {"id": "acme/a", "name": "A"}, "update_mask": "name"});
    alice.json("GroupService/UpdateGroup", &update).await.unwrap();
    let response = next(&mut resumed).await.unwrap();
    assert_eq!(response.revision, fourth + 1);
    let [change] = &response.changes[..] else { panic!("{response:?}") };
    let name = |object: &Option<prost_types::Struct>| {
        object.as_ref().unwrap().fields.get("name").cloned().map(|name| name.kind.unwrap())
    };
    assert_eq!(name(&change.before), None);
    assert_eq!(name(&change.after), Some(prost_types::value::Kind::StringValue("A".into())));
    // Of the whole policy the operator watches everything, others nothing.
    let mut whole = watch(&server.operator().await, "", first).await.unwrap();
    assert_eq!(changed(&mut whole).await.0, first);
    assert_eq!(reason(&watch(&alice, "", first).await.unwrap_err()), "OPERATOR_ONLY");
    let folder = watch(&alice, "acme/a", 0).await.unwrap_err();
    assert_eq!(reason(&folder), "INVALID_FIELD");
}

/// More revisions than one read takes, and then more bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_watch_reads_everything_that_it_missed() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let operator = server.operator().await;
    let first = operator.create_group("acme/g").await;
    let many = WATCH_READ_REVISIONS + 50;
    for at in 1..many {
        let update = json!({"group": {"id": "acme/g", "description": at.to_string()}});
        operator.json("GroupService/UpdateGroup", &update).await.unwrap();
    }
    let identity = json!({"parent": "acme", "identity": {"id": "acme/ci"}});
    operator.json("IdentityService/CreateIdentity", &identity).await.unwrap();
    // An update has its object before and after.
    let (property, large) = ("x".repeat(1_000), 40);
    assert!(2 * large * 30 * property.len() > 2 * WATCH_READ_BYTES);
    for at in 0..large {
        let all = (0..30).map(|name| (name.to_string(), json!(format!("{at}{property}"))));
        let properties: serde_json::Map<_, _> =
            all.map(|(name, value)| (name, json!(value.as_str().unwrap()[..1_000]))).collect();
        let update = json!({"identity": {"id": "acme/ci", "properties": properties}});
        operator.json("IdentityService/UpdateIdentity", &update).await.unwrap();
    }
    let mut late = watch(&operator, "acme", first).await.unwrap();
    for at in 0..(many + 1 + large) as u64 {
        let (revision, changes) = changed(&mut late).await;
        assert_eq!((revision, changes.len()), (first + at, 1));
    }
}

/// What needs another capability than those of an organization is not shown without it.
#[tokio::test(flavor = "multi_thread")]
async fn what_the_caller_may_not_list_is_left_out() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let (alice, operator) = (server.caller("alice").await, server.operator().await);
    let four = ["groups.list", "roles.list", "role_bindings.list", "identity.list"];
    let role = json!({"parent": "acme", "role": {"id": "acme/watcher", "capabilities": four}});
    alice.json("RoleService/CreateRole", &role).await.unwrap();
    let create = json!({"identity": {"id": "will"}});
    operator.json("IdentityService/CreateIdentity", &create).await.unwrap();
    let binding = json!({"id": "acme/wills", "identity": "will", "role": "acme/watcher"});
    let bind = json!({"parent": "acme", "role_binding": binding});
    alice.json("RoleBindingService/CreateRoleBinding", &bind).await.unwrap();
    let will = server.caller("will").await;
    let mut limited = watch(&will, "acme", 0).await.unwrap();
    let mut owner = watch(&alice, "acme", 0).await.unwrap();
    let invite = json!({"parent": "acme", "group_invite": {"id": "acme/i", "role": "viewer"}});
    alice.json("GroupInviteService/CreateGroupInvite", &invite).await.unwrap();
    for (id, kind) in [("acme/repo", "repo"), ("acme/thing", "thing")] {
        let resource = json!({"parent": "acme", "resource": {"id": id, "type": kind}});
        alice.json("ResourceService/CreateResource", &resource).await.unwrap();
    }
    let of = async |watch: &mut Watch, last: &str| {
        let mut all = vec![];
        while !all.iter().any(|one: &String| one.ends_with(last)) {
            all.extend(changed(watch).await.1);
        }
        all
    };
    assert_eq!(of(&mut owner, "acme/thing").await.len(), 3);
    // A type that the catalog has, `repo.list`, is not shown; any other needs `groups.list`.
    assert_eq!(of(&mut limited, "acme/thing").await, ["resource.created acme/thing"]);
    // Once it may not see the organization, the watch is over.
    alice.json("RoleBindingService/DeleteRoleBinding", &json!({"id": "acme/wills"})).await.unwrap();
    let ended = loop {
        match next(&mut limited).await {
            Ok(response) => assert!(response.changes.is_empty(), "{response:?}"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::NotFound, "{ended:?}");
    let refused = watch(&will, "acme", 0).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_that_are_not_kept_are_compacted() {
    let data = Data::init(CATALOG);
    let mut command = data.serve();
    command.args(["--audit-records", "5"]);
    let server = Served::start(command);
    let alice = server.caller("alice").await;
    let first = alice.create_group("acme/a").await;
    let mut last = first;
    for at in 0..10 {
        last = alice.create_group(&format!("acme/g{at}")).await;
    }
    let refused = watch(&alice, "acme", first).await.unwrap_err();
    assert_eq!(
        (refused.code(), &*reason(&refused)),
        (Code::FailedPrecondition, "REVISION_COMPACTED")
    );
    // The five records that are kept are those of the last five revisions.
    let refused = watch(&alice, "acme", last - 5).await.unwrap_err();
    assert_eq!(reason(&refused), "REVISION_COMPACTED");
    let mut kept = watch(&alice, "acme", last - 4).await.unwrap();
    assert_eq!(changed(&mut kept).await.0, last - 4);
    // Revisions that are not here yet, and those of another epoch.
    let refused = watch(&alice, "acme", last + 2).await.unwrap_err();
    assert_eq!(reason(&refused), "REVISION_NOT_AVAILABLE");
    let refused = watch(&alice, "acme", (7 << 40) | 5).await.unwrap_err();
    assert_eq!(reason(&refused), "STORE_EPOCH");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_watch_says_how_far_it_is_and_callers_have_places() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let alice = server.caller("alice").await;
    let revision = alice.create_group("acme/a").await;
    let mut open = vec![];
    for _ in 0..CALLER_WATCHES_MAX {
        open.push(watch(&alice, "acme", 0).await.unwrap());
    }
    const { assert!(CALLER_WATCHES_MAX < WATCHES_MAX) };
    let refused = watch(&alice, "acme", 0).await.unwrap_err();
    assert_eq!((refused.code(), &*reason(&refused)), (Code::ResourceExhausted, "OVERLOADED"));
    watch(&server.operator().await, "acme", 0).await.unwrap();
    let begun = Instant::now();
    let checkpoint = next(&mut open[0]).await.unwrap();
    assert_eq!((checkpoint.revision, checkpoint.changes.len()), (revision, 0));
    assert!(begun.elapsed() < WATCH_CHECKPOINT + PATIENCE);
    // A watch that ends gives its place back.
    drop(open.pop());
    let mut again = Err(Status::internal(""));
    for _ in 0..100 {
        again = watch(&alice, "acme", 0).await;
        if again.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(again.is_ok(), "{again:?}");
}

/// Watchers beside writers: each sees every change of its organization once, whatever the speed.
#[tokio::test(flavor = "multi_thread")]
async fn watchers_beside_writers_miss_nothing() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let alice = server.caller("alice").await;
    let first = alice.create_group("acme/first").await;
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let alice = alice.clone();
            tokio::runtime::Handle::current().spawn(async move {
                let mut made = BTreeMap::new();
                for at in 0..30 {
                    let id = format!("acme/w{writer}-{at}");
                    made.insert(alice.create_group(&id).await, id);
                }
                made
            })
        })
        .collect();
    let watchers: Vec<_> = (0..3)
        .map(|_| {
            let alice = alice.clone();
            tokio::runtime::Handle::current().spawn(async move {
                let mut watch = watch(&alice, "acme", first + 1).await.unwrap();
                let mut seen = vec![];
                while seen.len() < 120 {
                    seen.push(changed(&mut watch).await);
                }
                seen
            })
        })
        .collect();
    let mut made = BTreeMap::new();
    for writer in writers {
        made.extend(writer.await.unwrap());
    }
    let made: Vec<_> = made
        .into_iter()
        .map(|(revision, id)| (revision, vec![format!("group.created {id}")]))
        .collect();
    for watcher in watchers {
        assert_eq!(watcher.await.unwrap(), made);
    }
}

/// Revisions of others are no reason to say that all was sent: a checkpoint is behind everything that the caller may see.
#[tokio::test(flavor = "multi_thread")]
async fn many_revisions_of_others_hide_none_of_ones_own() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let (alice, operator) = (server.caller("alice").await, server.operator().await);
    let first = alice.create_group("acme/first").await;
    let other = json!({"group": {"id": "globex"}, "owner": "alice"});
    operator.json("GroupService/CreateGroup", &other).await.unwrap();
    for at in 0..WATCH_READ_REVISIONS + 10 {
        let update = json!({"group": {"id": "globex", "description": at.to_string()}});
        operator.json("GroupService/UpdateGroup", &update).await.unwrap();
    }
    let last = alice.create_group("acme/last").await;
    let mut watch = watch(&alice, "acme", first + 1).await.unwrap();
    // The first response of all is of the last change.
    let response = next(&mut watch).await.unwrap();
    assert_eq!((response.revision, response.changes.len()), (last, 1));
}
