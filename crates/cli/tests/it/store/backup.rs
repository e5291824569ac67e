//! `capstan backup`, `restore` and `store verify` with the real binary: a backup under load is one revision exactly, and what
//! is restored goes on in a later epoch.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::ops::Bound;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use capstan_proto::iam::v1 as iam;
use capstan_proto::v1;
use capstan_proto::v1::consistency::Mode;
use capstan_store::{
    BackupReader, Batch, Entry, Journal as _, Limits, Op, RedbStore, View, write_backup,
};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Request as Asked};
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest, CheckResponse};
use serde_json::{Value, json};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use super::crash::{Action, Folders, WRITERS, Writer, apply, folders, send};
use super::{CATALOG, Caller, Data, SEQUENCE, Served, audit_records, person, reason, serve};
use crate::common::{capstan, command, stderr, stdout};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn done(output: &Output) -> Value {
    assert!(output.status.success(), "{}{}", stdout(output), stderr(output));
    serde_json::from_str(&stdout(output)).unwrap()
}

/// `capstan backup` over the socket of the operator, to a file beside the store.
fn back_up(server: &Served, file: &Path) -> Value {
    let arguments = ["backup", text(file), "--addr", &server.operator, "--output", "json"];
    done(&capstan(&arguments))
}

fn restore(file: &Path, dir: &Path, more: &[&str]) -> Output {
    let arguments = ["restore", text(file), "--data", text(dir), "--output", "json"];
    capstan(&[&arguments[..], more].concat())
}

fn verify(path: &Path) -> (Option<i32>, Value) {
    let output = capstan(&["store", "verify", text(path), "--output", "json"]);
    (output.status.code(), serde_json::from_str(&stdout(&output)).unwrap())
}

fn entries_of(bytes: &[u8]) -> Vec<Entry> {
    let mut backup = BackupReader::new(bytes).unwrap();
    let mut entries = vec![];
    while let Some((key, value)) = backup.next().unwrap() {
        entries.push((key.to_vec().into(), value.to_vec().into()));
    }
    entries
}

/// A runtime of its own, because tests that only run commands have none.
fn with_view<T>(dir: &Path, read: impl FnOnce(&dyn View) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = RedbStore::open(dir, Limits::default()).unwrap();
    let view = runtime.block_on(store.view()).unwrap();
    read(&*view)
}

fn entries_in(dir: &Path) -> Vec<Entry> {
    let mut entries = vec![];
    with_view(dir, |view| {
        view.scan((Bound::Unbounded, Bound::Unbounded), &mut |key, value| {
            entries.push((key.to_vec().into(), value.to_vec().into()));
            true
        })
        .unwrap();
    });
    entries
}

/// Writers write and backups are made, until there are so many. Then each is restored, and has what was acknowledged up to its
/// revision, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_is_exactly_one_revision() {
    const BACKUPS: usize = 4;
    const OBJECTS: usize = 300;
    let data = Data::init(CATALOG);
    let server = data.start();
    let operator = server.operator().await;
    operator.create_group("acme/objects").await;
    for writer in 0..WRITERS {
        operator.create_group(&format!("acme/w{writer}")).await;
    }
    let before = operator.bind_all("acme/objects", (0..OBJECTS).map(person)).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut random = fastrand::Rng::with_seed(7);
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..WRITERS {
        let (mut writer, stop) = (Writer::new(number, random.fork()), Arc::clone(&stop));
        let caller = server.caller("alice").await;
        tasks.spawn(async move {
            let mut all: Vec<(u64, usize, Action)> = vec![];
            while !stop.load(Ordering::Relaxed) {
                let write = writer.next();
                let revision = send(&caller, &write).await.unwrap();
                apply(&mut writer.folders, &write.action);
                all.push((revision, number, write.action));
            }
            all
        });
    }
    let mut backups: Vec<(PathBuf, u64)> = vec![];
    for number in 0..BACKUPS {
        let file = data.parent.path().join(format!("{number}.backup"));
        let made = back_up(&server, &file);
        backups.push((file, made["revision"].as_u64().unwrap()));
    }
    stop.store(true, Ordering::Relaxed);
    let mut all = tasks.join_all().await.concat();
    all.sort_by_key(|(revision, ..)| *revision);
    drop(server);
    assert!(backups.is_sorted_by_key(|(_, revision)| *revision));
    assert!(backups[0].1 >= before && backups[0].1 < all.last().unwrap().0, "it was under load");

    for (file, revision) in backups {
        let dir = file.with_extension("restored");
        let restored = done(&restore(&file, &dir, &[]));
        assert_eq!(restored["backup"]["revision"], revision);
        assert_eq!(restored["epoch"], 2);
        // Each transaction has one audit record, and so has the restore.
        assert_eq!(audit_records(&dir), (revision & SEQUENCE) + 1);
        let mut expected = vec![Folders::new(); WRITERS];
        for (_, writer, action) in all.iter().take_while(|(at, ..)| *at <= revision) {
            apply(&mut expected[*writer], action);
        }
        let served = Served::start(serve(&dir));
        let operator = served.operator().await;
        let (found, now) = folders(&operator, OBJECTS).await;
        assert!(found == expected, "at revision {revision}");
        assert_eq!(json!(now), restored["revision"]);
        // Decisions follow: of those who are bound, and of those who are no longer or not yet.
        let bindings = operator.bindings("acme").await.0;
        let bound: HashMap<_, _> =
            bindings.iter().map(|one| (one.id.as_str(), one.identity.as_str())).collect();
        let caller = served.caller("alice").await;
        for (_, _, action) in &all {
            let Action::Bind(scope, ids) = action else { continue };
            for id in ids.iter().take(1) {
                let Some(identity) = bound.get(id.as_str()) else { continue };
                assert!(caller.check(identity, "groups.list", scope).await.allowed, "{id}");
            }
        }
        assert!(!caller.check(&person(OBJECTS), "groups.list", "acme").await.allowed);
    }
}

/// The request of Envoy's filter for an HTTP request with this `Authorization`.
fn asked(authorization: &str) -> CheckRequest {
    let headers = [(":method", "GET"), (":path", "/v2/"), ("authorization", authorization)];
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let http = HttpRequest {
        method: "GET".into(),
        host: "registry.example".into(),
        path: "/v2/".into(),
        headers: headers.into(),
        protocol: "HTTP/1.1".into(),
        ..HttpRequest::default()
    };
    let request = Some(Asked { http: Some(http), ..Asked::default() });
    CheckRequest { attributes: Some(AttributeContext { request, ..AttributeContext::default() }) }
}

/// Whether Envoy would let a request with this secret pass.
async fn passes(caller: &Caller, secret: &str) -> bool {
    let path = "/envoy.service.auth.v3.Authorization/Check";
    let request = Request::new(asked(&format!("Bearer {secret}")));
    let response: CheckResponse = caller.send(path, request).await.unwrap().into_inner();
    response.status.unwrap().code == 0
}

/// What clients hold from before: revisions are refused, and answers, tokens and codes are as they were.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_store_keeps_secrets_and_answers_and_refuses_old_revisions() {
    let data = Data::init(CATALOG);
    let routes = data.parent.path().join("routes.yaml");
    let route =
        "version: 1\nroutes:\n- {name: base, methods: [GET], path: /v2/, authenticated: true}\n";
    fs::write(&routes, route).unwrap();
    let start = |dir: &Path| {
        let mut serve = serve(dir);
        serve.args(["--routes", text(&routes)]);
        Served::start(serve)
    };
    let server = start(&data.dir);
    let alice = server.caller("alice").await;
    let token = |id: &str| json!({"group": "acme", "role": "registry.pull", "request_id": id});
    let method = "PullTokenService/CreatePullToken";
    let kept = alice.json(method, &token("kept")).await.unwrap();
    let revoked = alice.json(method, &token("revoked")).await.unwrap();
    let revoke = json!({"id": revoked["pull_token"]["id"]});
    alice.json("PullTokenService/RevokePullToken", &revoke).await.unwrap();
    let invite = json!({"parent": "acme", "group_invite": {"role": "viewer"}});
    let invited = alice.json("GroupInviteService/CreateGroupInvite", &invite).await.unwrap();
    let group = |name: &str| json!({"parent": "acme", "request_id": name, "group": {"id": format!("acme/{name}")}});
    let create = "GroupService/CreateGroup";
    let answered = alice.json(create, &group("answered")).await.unwrap();

    let file = data.parent.path().join("capstan.backup");
    let made = back_up(&server, &file);
    assert_eq!(json!(made["revision"].to_string()), answered["revision"]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // What is written after the backup is undone by the restore, a revocation included.
    let after = alice.json(create, &group("after")).await.unwrap();
    let lost: u64 = after["revision"].as_str().unwrap().parse().unwrap();
    drop(server);
    let dir = data.parent.path().join("restored");
    let restored = done(&restore(&file, &dir, &[]));
    let (old, new) = (made["revision"].as_u64().unwrap(), restored["revision"].as_u64().unwrap());
    assert_eq!((new >> 40, new & SEQUENCE), ((old >> 40) + 1, (old & SEQUENCE) + 1));

    let server = start(&dir);
    let alice = server.caller("alice").await;
    for revision in [1, old, lost] {
        let mode = Some(Mode::AtLeast(revision));
        let check = alice.try_check("alice", "repo.list", "acme", mode).await.unwrap_err();
        let consistency = Some(v1::Consistency { mode });
        let get = iam::GetGroupRequest { id: "acme".into(), consistency };
        let get = alice.ask::<_, iam::GetGroupResponse>("GroupService/GetGroup", get).await;
        let watch = json!({"parent": "acme", "start_revision": (revision + 1).to_string()});
        let watch = alice.json("PolicyService/Watch", &watch).await.unwrap_err();
        for status in [check, get.unwrap_err(), watch] {
            let seen = (status.code(), reason(&status));
            assert_eq!(seen, (Code::FailedPrecondition, "STORE_EPOCH".into()), "{revision}");
        }
    }
    let at_least = Some(Mode::AtLeast(new));
    assert!(alice.try_check("alice", "repo.list", "acme", at_least).await.unwrap().allowed);

    // A retry of what is in the backup has its answer; what is not in it is made.
    assert_eq!(alice.json(create, &group("answered")).await.unwrap(), answered);
    let again = alice.json(create, &group("after")).await.unwrap();
    let again: u64 = again["revision"].as_str().unwrap().parse().unwrap();
    assert_eq!(again, new + 1);
    let issued = alice.json(method, &token("kept")).await.unwrap_err();
    assert_eq!(reason(&issued), "TOKEN_ALREADY_ISSUED");

    // Secrets prove what they proved.
    let secret = |made: &Value| made["secret"].as_str().unwrap().to_owned();
    let envoy = server.caller("").await;
    assert!(passes(&envoy, &secret(&kept)).await);
    assert!(!passes(&envoy, &secret(&revoked)).await);
    let joining = server.caller(&person(1)).await;
    let code = json!({"code": invited["code"]});
    joining.json("GroupInviteService/AcceptGroupInvite", &code).await.unwrap();
    assert!(alice.check(&person(1), "groups.list", "acme").await.allowed);

    // The operator sees who did it, and when.
    let list = json!({"filter": "method = \"restore\""});
    let list = server.operator().await.json("AuditService/ListAuditRecords", &list).await.unwrap();
    let [record] = &list["audit_records"].as_array().unwrap()[..] else { panic!("{list}") };
    assert_eq!(record["revision"], new.to_string());
    assert_eq!((&record["authentication"], &record["code"]), (&json!("offline"), &Value::Null));
    assert_eq!(record["request_digest"], made["digest"]);
    drop(server);
    audit_records(&dir);
}

/// Byte for byte, but for the record of the restore.
#[test]
fn every_entry_of_the_state_is_restored() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let file = data.parent.path().join("capstan.backup");
    back_up(&server, &file);
    let bytes = fs::read(&file).unwrap();
    // To standard output, and with what is there already: the same bytes.
    let piped = capstan(&["backup", "-", "--addr", &server.operator]);
    assert!(piped.status.success() && piped.stdout == bytes, "{}", stderr(&piped));
    assert!(stderr(&piped).starts_with("wrote 6 records of revision "), "{}", stderr(&piped));
    let table = capstan(&["backup", text(&file), "--addr", &server.operator]);
    let said = format!("wrote {}: 6 records of revision 1099511627777, ", file.display());
    assert!(stdout(&table).starts_with(&said), "{}", stdout(&table));
    assert!(fs::read(&file).unwrap() == bytes);
    server.kill();
    let entries = entries_of(&bytes);
    assert_eq!(entries, entries_in(&data.dir));

    // As a file, and by standard input.
    let mut restored = vec![];
    for name in ["one", "two"] {
        let dir = data.parent.path().join(name);
        if name == "one" {
            done(&restore(&file, &dir, &[]));
        } else {
            let mut restore = command(&["restore", "-", "--data", text(&dir)]);
            let made = restore.stdin(File::open(&file).unwrap()).output().unwrap();
            let said = stdout(&made);
            for part in [
                "6 records of revision 1099511627777\n",
                "it goes on at revision 2199023255554, in epoch 2: ",
                "serve it with: capstan serve --data ",
            ] {
                assert!(said.contains(part), "{part} in {said}{}", stderr(&made));
            }
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&dir), mode(&dir.join("store.redb"))), (0o700, 0o600));
        let mut entries = entries_in(&dir);
        // The record of the restore, and the head of the log.
        entries.retain(|(key, _)| !(key.starts_with(b"a") && key.ends_with(&[2])));
        restored.push(entries);
    }
    let is_head = |(key, _): &&Entry| key == "maudit";
    for found in restored {
        assert_eq!(found.len(), entries.len());
        let others = |entries: &[Entry]| {
            entries.iter().filter(|one| !is_head(one)).cloned().collect::<Vec<_>>()
        };
        assert_eq!(others(&found), others(&entries));
        assert_ne!(found.iter().find(is_head), entries.iter().find(is_head));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_operator_backs_up_and_others_are_audited() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let file = data.parent.path().join("capstan.backup");
    let refused = capstan(&["backup", text(&file), "--addr", &server.grpc, "--as", "alice"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("operator.sock"), "{}", stderr(&refused));
    assert!(!file.exists());
    let nobody = server.caller("").await.json("PolicyService/Backup", &json!({})).await;
    assert_eq!(nobody.unwrap_err().code(), Code::Unauthenticated);
    let status =
        server.caller("alice").await.json("PolicyService/Backup", &json!({})).await.unwrap_err();
    let info = status.get_details_error_info().unwrap();
    assert_eq!((status.code(), &*info.reason), (Code::PermissionDenied, "OPERATOR_ONLY"));
    let operator = server.operator().await;
    // Refusals are kept with the next commit at the latest.
    operator.create_group("acme/next").await;
    let list = json!({"filter": "method = \"PolicyService/Backup\""});
    let listed = operator.json("AuditService/ListAuditRecords", &list).await.unwrap();
    let [first, second] = &listed["audit_records"].as_array().unwrap()[..] else {
        panic!("{listed}")
    };
    for record in [first, second] {
        assert_eq!((&record["actor"], &record["code"]), (&json!("alice"), &json!(7)));
        assert_eq!(record["reason"], "OPERATOR_ONLY");
    }
    let method = "capstan.iam.v1.PolicyService/Backup";
    let list = ["audit", "list", "--addr", &server.operator, "--method", method, "-o", "json"];
    assert_eq!(done(&capstan(&list))["audit_records"].as_array().unwrap().len(), 2);
    // What belongs to no revision, such as the refusals, is in a backup, too.
    back_up(&server, &file);
    let entries = entries_of(&fs::read(&file).unwrap());
    let records = entries.iter().filter(|(key, _)| capstan_iam::audit::number(key).is_some());
    assert_eq!(records.count(), 4, "init, the refusals, and the group");
    assert!(entries.iter().any(|(key, _)| key == "lalice"), "when alice was seen last");
}

/// A drain does not wait for whoever reads a backup slowly, and what they have is no backup.
#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_a_backup() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let operator = server.operator().await;
    operator.create_group("acme/objects").await;
    // More than the buffers between the server and a client that does not read.
    operator.bind_all("acme/objects", (0..20_000).map(person)).await;
    let mut client = iam::policy_service_client::PolicyServiceClient::new(operator.channel);
    let mut stream = client.backup(iam::BackupRequest {}).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    let process = server.process;
    process.signal("-TERM");
    let (mut bytes, mut revisions) = (first.chunk, vec![first.revision]);
    let ended = loop {
        match stream.message().await {
            Ok(Some(part)) => {
                bytes.extend(part.chunk);
                revisions.push(part.revision);
            }
            Ok(None) => panic!("a whole backup of {} bytes", bytes.len()),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    assert!(revisions.iter().all(|revision| *revision == revisions[0]));
    let read = BackupReader::new(&bytes[..]).and_then(|mut backup| backup.finish());
    assert!(read.is_err());
    let (code, log) = process.wait();
    assert_eq!(code, Some(0), "{log}");
}

/// What `restore` refuses, with its exit code; nothing that is a store is there afterwards.
#[test]
fn what_cannot_be_restored_is_refused() {
    let data = Data::init(CATALOG);
    let server = data.start();
    let file = data.parent.path().join("capstan.backup");
    back_up(&server, &file);
    let bytes = fs::read(&file).unwrap();
    let (dir, other) = (data.parent.path().join("new"), data.parent.path().join("other.backup"));
    let refused = |file: &Path, dir: &Path, more: &[&str], code: i32, words: &str| {
        let output = restore(file, dir, more);
        assert_eq!(output.status.code(), Some(code), "{}", stdout(&output));
        let error: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let error = error["error"].as_str().unwrap();
        assert!(error.contains(words), "{error}");
    };
    let pid = server.process.pid();
    refused(&file, &data.dir, &[], 75, &format!("is already open, by process {pid}"));
    server.kill();
    let before = fs::read(data.dir.join("store.redb")).unwrap();
    refused(&file, &data.dir, &[], 78, "there is a store already");
    assert!(fs::read(data.dir.join("store.redb")).unwrap() == before);

    refused(&other, &dir, &[], 66, "cannot be read");
    refused(&data.dir.join("store.redb"), &dir, &[], 65, "no backup of Capstan");
    refused(&file, &dir, &["--epoch", "1"], 78, "must be 2 to 8191, not 1");
    let changed = |bytes: &[u8], words: &str| {
        fs::write(&other, bytes).unwrap();
        refused(&other, &dir, &[], 65, words);
        let missing = capstan(&["store", "check", "--data", text(&dir)]);
        assert_eq!(missing.status.code(), Some(66), "{}", stderr(&missing));
        assert!(!dir.join("store.redb.new").exists());
        let verified = capstan(&["store", "verify", text(&other)]);
        assert_eq!(verified.status.code(), Some(65), "{}", stderr(&verified));
        assert!(stderr(&verified).contains(words), "{}", stderr(&verified));
        let rehearsed = capstan(&["restore", text(&other), "--dry-run"]);
        assert_eq!((rehearsed.status.code(), stderr(&rehearsed)), (Some(65), stderr(&verified)));
    };
    changed(&bytes[..bytes.len() - 1], "is cut off");
    changed(&bytes[..bytes.len() / 2], "is cut off");
    changed(&[&bytes[..], b"\n"].concat(), "goes on behind its end");
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 4;
    changed(&flipped, "is corrupt at byte ");
    let mut later = bytes.clone();
    later[16] = 2;
    changed(&later, "use a later version");

    fs::set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    refused(&file, &dir, &[], 78, "may be changed by other users");
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    let needed = capstan(&["restore", text(&file)]);
    assert_eq!(needed.status.code(), Some(2));
    assert!(stderr(&needed).contains("--data"), "{}", stderr(&needed));
    // A store that had epoch 2 is passed over.
    let restored = done(&restore(&file, &dir, &["--epoch", "3"]));
    assert_eq!((&restored["epoch"], &restored["transaction"]), (&json!(3), &json!(2)));
}

/// A backup of a state that no server has written.
#[test]
fn a_backup_of_something_else_is_not_restored() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    RedbStore::init(&dir, 1, &Batch::default(), &Limits::default()).unwrap();
    let file = parent.path().join("capstan.backup");
    with_view(&dir, |view| write_backup(view, File::create(&file).unwrap()).unwrap());
    let refused = restore(&file, &parent.path().join("new"), &[]);
    assert_eq!(refused.status.code(), Some(65));
    assert!(stdout(&refused).contains("the store has no catalog"), "{}", stdout(&refused));
}

/// `kill -9` half-way: what is left is no store, and does not keep the next restore from its work.
#[test]
fn a_restore_that_is_killed_leaves_no_store() {
    let data = Data::init(CATALOG);
    let file = data.parent.path().join("capstan.backup");
    let server = data.start();
    back_up(&server, &file);
    server.kill();
    let bytes = fs::read(&file).unwrap();
    let dir = data.parent.path().join("new");
    // Everything but the last byte, so that it waits for the end of a backup whose entries are all in the new file.
    let mut restoring = command(&["restore", "-", "--data", text(&dir)]);
    let restoring = restoring.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut restoring = restoring.spawn().unwrap();
    let mut stdin = restoring.stdin.take().unwrap();
    stdin.write_all(&bytes[..bytes.len() - 1]).unwrap();
    let new = dir.join("store.redb.new");
    while !fs::metadata(&new).is_ok_and(|found| found.len() > 0) {
        assert!(restoring.try_wait().unwrap().is_none());
        std::thread::yield_now();
    }
    assert!(!dir.join("store.redb").exists());
    restoring.kill().unwrap();
    let mut said = String::new();
    restoring.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((said, restoring.wait().unwrap().code()), (String::new(), None));
    drop(stdin);
    assert!(new.exists());

    let refused = serve(&dir).output().unwrap();
    assert_eq!(refused.status.code(), Some(66), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("there is no store in"), "{}", stderr(&refused));
    assert_eq!(verify(&dir).0, Some(66));
    done(&restore(&file, &dir, &[]));
    assert!(!new.exists());
    drop(Served::start(serve(&dir)));
}

/// One verdict of stores and backups; the audit log is a part of it.
#[test]
fn stores_and_backups_are_verified_with_their_audit_logs() {
    let data = Data::init(CATALOG);
    let file = data.parent.path().join("capstan.backup");
    let server = data.start();
    back_up(&server, &file);
    assert_eq!(verify(&data.dir).0, Some(75));
    server.kill();
    let (code, of_file) = verify(&file);
    let (of_store_code, of_store) = verify(&data.dir);
    assert_eq!((code, of_store_code), (Some(0), Some(0)));
    for (found, kind) in [(&of_file, "backup"), (&of_store, "store")] {
        assert_eq!((&found["kind"], &found["valid"]), (&json!(kind), &json!(true)));
        for name in ["revision", "epoch", "transaction", "records", "audit"] {
            assert_eq!(found[name], of_file[name], "{name}");
        }
    }
    let verified = capstan(&["audit", "verify", "--data", text(&data.dir), "--output", "json"]);
    assert_eq!(done(&verified), of_store["audit"]);
    let checked = capstan(&["store", "check", "--data", text(&data.dir), "--output", "json"]);
    for (name, value) in done(&checked).as_object().unwrap() {
        assert_eq!(&of_store[name], value, "{name}");
    }
    let rehearsed = capstan(&["restore", text(&file), "--dry-run", "--output", "json"]);
    assert_eq!(done(&rehearsed), of_file);
    let table = stdout(&capstan(&["store", "verify", text(&file)]));
    let lines = [
        "ok: every record of the backup ",
        "6 records, revision ",
        "1 audit record from number 1 on",
    ];
    for (line, begins) in table.lines().zip(lines) {
        assert!(line.starts_with(begins), "{table}");
    }

    // A record that was changed by somebody who can compute checksums: only the chain tells.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = RedbStore::open(&data.dir, Limits::default()).unwrap();
    let key = capstan_iam::audit::key(1);
    runtime.block_on(async {
        let mut record = store.view().await.unwrap().get(&key).unwrap().unwrap().to_vec();
        *record.last_mut().unwrap() ^= 1;
        let side = vec![Op::Put { key: key.clone().into(), value: record.into() }];
        store
            .append(store.head().await.unwrap(), Batch { transactions: vec![], side })
            .await
            .unwrap();
    });
    drop(store);
    let checked = capstan(&["store", "check", "--data", text(&data.dir)]);
    assert!(checked.status.success());
    with_view(&data.dir, |view| write_backup(view, File::create(&file).unwrap()).unwrap());
    for path in [&data.dir, &file] {
        let (code, found) = verify(path);
        assert_eq!((code, &found["valid"]), (Some(65), &json!(false)));
        let problem = found["audit"]["problem"].as_str().unwrap();
        assert!(problem.starts_with("audit record 1 was changed"), "{problem}");
        let table = capstan(&["store", "verify", text(path)]);
        assert!(stdout(&table).starts_with("broken: the "), "{}", stdout(&table));
    }
    let (code, missing) = verify(&data.parent.path().join("none"));
    assert_eq!(code, Some(66), "{missing}");
}
