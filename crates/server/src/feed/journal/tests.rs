//! The writer on a store in memory, and on one that fails.

mod callers;
mod documents;
mod failures;
mod subscriptions;
mod tokens;
mod undone;

use std::io;
use std::ops::Bound;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use capstan_engine::{Attributes, Path, PathBuf, Question, Timestamp};
use capstan_iam::audit::{AuditHead, AuditRecord, Verifier, number};
use capstan_iam::record::{KeyRange, prefix};
use capstan_iam::{
    Actor, CreateGroup, CreateRoleBinding, Delete, Kind, NewRoleBinding, Object, Operation,
    Response, UpdateGroup,
};
use capstan_store::{AppendError, Batch, Committed, StoreError, View, WatchError};
use futures_util::stream::BoxStream;

use super::*;
use crate::RequestError;
use crate::error::StoreFailure;
use crate::feed::management::{Management as _, Origin, Write, Written};
use crate::feed::published::Retention;
use crate::limits::{AUDIT_PRUNED_MAX, Quotas, REFUSALS_PER_MINUTE, REQUEST_KEPT, WRITE_GROUP_MAX};
use writer::Writes;

/// What a journal does wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing is made, and it says so.
    Full,
    ReadOnly,
    Unreachable,
    /// It does not know, and nothing is made.
    UnknownNotMade,
    /// It does not know, and the batch is made.
    UnknownMade,
    /// Another writer was first, which changed nothing else.
    Conflict,
}

/// A journal in memory that fails on demand.
#[derive(Debug)]
struct Faulty {
    inner: MemoryStore,
    fault: Mutex<Option<Fault>>,
    /// Views that fail from now on.
    blind: AtomicUsize,
    appended: AtomicUsize,
    /// Bytes of the largest batch.
    largest: AtomicU64,
}

impl Faulty {
    fn new() -> Arc<Self> {
        let inner = MemoryStore::new(3, capstan_store::Limits::default());
        let fault = Mutex::default();
        let (blind, appended, largest) = (0.into(), 0.into(), 0.into());
        Arc::new(Self { inner, fault, blind, appended, largest })
    }

    fn fails(&self, fault: Fault) {
        *self.fault.lock().unwrap() = Some(fault);
    }
}

/// A view in which one key stands for a bug: whoever reads it panics.
#[derive(Debug)]
struct Trapped(Arc<dyn View>);

impl View for Trapped {
    fn head(&self) -> Head {
        self.0.head()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        assert!(key != b"gacme/trap", "a bug");
        self.0.get(key)
    }

    fn scan(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
        each: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.0.scan(range, each)
    }
}

fn io_error() -> io::Error {
    io::Error::other("injected")
}

impl Journal for Faulty {
    fn head(&self) -> BoxFuture<'_, Result<Head, StoreError>> {
        self.inner.head()
    }

    fn view(&self) -> BoxFuture<'_, Result<Arc<dyn View>, StoreError>> {
        let fails = self
            .blind
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        match fails {
            Ok(_) => Box::pin(async { Err(StoreError::Unreachable(io_error())) }),
            Err(_) => {
                let view = self.inner.view();
                Box::pin(async { Ok(Arc::new(Trapped(view.await?)) as Arc<dyn View>) })
            }
        }
    }

    fn append(&self, expected: Head, batch: Batch) -> BoxFuture<'_, Result<Head, AppendError>> {
        self.appended.fetch_add(1, Ordering::Relaxed);
        let ops = batch.transactions.iter().flat_map(|transaction| &transaction.ops);
        self.largest.fetch_max(ops.map(capstan_store::Op::bytes).sum(), Ordering::Relaxed);
        let fault = self.fault.lock().unwrap().take();
        Box::pin(async move {
            Err(match fault {
                None => return self.inner.append(expected, batch).await,
                Some(Fault::Full) => StoreError::Full.into(),
                Some(Fault::ReadOnly) => StoreError::ReadOnly("injected".into()).into(),
                Some(Fault::Unreachable) => StoreError::Unreachable(io_error()).into(),
                Some(Fault::UnknownNotMade) => StoreError::OutcomeUnknown(io_error()).into(),
                Some(Fault::UnknownMade) => {
                    self.inner.append(expected, batch).await?;
                    StoreError::OutcomeUnknown(io_error()).into()
                }
                Some(Fault::Conflict) => AppendError::Conflict(expected),
            })
        })
    }

    fn watch(
        &self,
        from: u64,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Result<Committed, WatchError>>, WatchError>> {
        self.inner.watch(from)
    }
}

/// A feed that runs, and its writer.
struct Running {
    published: Arc<Published>,
    writes: Writes,
    /// Whether the services say that they can write.
    writable: watch::Receiver<bool>,
    metrics: Arc<Metrics>,
}

/// An issuer that is trusted for others.
const RESERVED: &str = "https://capstan.example";

const START: i64 = 1_800_000_000;

async fn start_at(journal: &Arc<Faulty>, now: i64, change: impl FnOnce(&mut Limits)) -> Running {
    start_loaded(journal, Preloaded::default(), now, change).await
}

async fn start_loaded(
    journal: &Arc<Faulty>,
    loaded: Preloaded,
    now: i64,
    change: impl FnOnce(&mut Limits),
) -> Running {
    let mut limits = Limits::default();
    change(&mut limits);
    let published = Arc::new(Published::new(Retention::from(&limits)));
    let metrics: Arc<Metrics> = Arc::default();
    let (writes, queue) = writer::queue(&metrics);
    let clock = Clock::Fixed(Timestamp::new(now, 0));
    let reserved_issuers = vec![RESERVED.to_owned()];
    let config =
        Config { clock, limits, reserved_issuers, trusted_issuers: vec![], give_back: || {} };
    let store = Store::Opened(Arc::clone(journal) as Arc<dyn Journal>, loaded);
    let (is_writable, writable) = watch::channel(false);
    let parts = (Arc::clone(&published), Arc::clone(&metrics));
    let mut feed = StoreFeed::new(config, parts, is_writable, store, queue);
    feed.load().await.unwrap();
    Running { published, writes, writable, metrics }
}

/// A store with the organization `acme`, whose owner is `alice`.
async fn acme() -> Arc<Faulty> {
    let journal = Faulty::new();
    let empty = Head::empty(3);
    let now = Timestamp::new(START, 0);
    let meta = Meta::new(empty.revision() + 1, now);
    let catalog = StoredCatalog::built_in("chainguard-2025-08-14").unwrap();
    let owner = capstan_iam::Identity {
        id: path("alice"),
        name: String::new(),
        description: String::new(),
        kind: "user".into(),
        properties: Default::default(),
        disabled: false,
        authentication: None,
        meta,
    };
    let objects = organization(&path("acme"), (&owner, "owner"), meta);
    let batch = first_batch(&empty, &catalog, objects, ("init", now));
    journal.append(empty, batch).await.unwrap();
    journal.appended.store(0, Ordering::Relaxed);
    journal
}

async fn start(journal: &Arc<Faulty>) -> Running {
    start_at(journal, START, |_| {}).await
}

/// What was loaded of a journal, as of this revision, before its server starts.
async fn preloaded(journal: &Faulty, revision: u64) -> Preloaded {
    let view = journal.view().await.unwrap();
    let loaded = load::load_under(&view, catalog::of(&*view).unwrap(), revision).unwrap();
    let timed = Timed { loaded, took: Duration::from_secs(1) };
    Preloaded(Arc::new(Mutex::new(Some(timed))))
}

/// What was loaded while the file was verified is not loaded again: here it is of another store.
#[tokio::test]
async fn what_was_loaded_before_is_served() {
    let (journal, empty) = (acme().await, Faulty::new());
    let catalog = StoredCatalog::built_in("chainguard-2025-08-14").unwrap();
    let batch = first_batch(&Head::empty(3), &catalog, vec![], ("init", Timestamp::new(START, 0)));
    empty.append(Head::empty(3), batch).await.unwrap();
    let revision = journal.head().await.unwrap().revision();

    let loaded = preloaded(&empty, revision).await;
    let running = start_loaded(&journal, loaded.clone(), START, |_| {}).await;
    let snapshot = running.published.current().unwrap().snapshot.clone();
    assert_eq!((snapshot.revision(), snapshot.bindings_len()), (revision, 0));
    // It is not kept: the first revision of a large store would need its memory for ever.
    assert!(loaded.take(revision).is_none());
}

#[tokio::test]
async fn a_store_is_loaded_while_it_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = StoredCatalog::built_in("chainguard-2025-08-14").unwrap();
    let (empty, now) = (Head::empty(1), Timestamp::new(START, 0));
    let batch = first_batch(&empty, &catalog, vec![], ("init", now));
    let limits = capstan_store::Limits::default();
    RedbStore::init(dir.path(), 1, &batch, &limits).unwrap();
    let (store, loaded) = open(dir.path(), limits).unwrap();
    let revision = store.head().await.unwrap().revision();
    assert_eq!(loaded.take(revision).unwrap().loaded.snapshot.revision(), revision);
}

#[tokio::test]
async fn what_was_loaded_of_another_revision_is_loaded_again() {
    let journal = acme().await;
    let revision = journal.head().await.unwrap().revision();
    let loaded = preloaded(&journal, revision - 1).await;
    let running = start_loaded(&journal, loaded, START, |_| {}).await;
    let snapshot = running.published.current().unwrap().snapshot.clone();
    assert_eq!((snapshot.revision(), snapshot.bindings_len()), (revision, 1));
}

fn path(text: &str) -> PathBuf {
    text.parse().unwrap()
}

fn write(actor: Actor, operation: Operation) -> Write {
    let (method, authentication) = ("x", "caller-header");
    let origin = Origin { method, authentication, source: "test".into(), request: [7; 32] };
    Write { actor, operation, origin, request_id: None, validate_only: false }
}

fn alice() -> Actor {
    Actor::identity(path("alice"))
}

fn create(id: &str) -> Operation {
    Operation::CreateGroup(CreateGroup {
        parent: path(id).as_path().parent().map(Into::into),
        id: Some(path(id)),
        name: "n".into(),
        description: String::new(),
        owner: None,
    })
}

fn create_identity(id: &str) -> Operation {
    Operation::CreateIdentity(capstan_iam::CreateIdentity {
        parent: path(id).as_path().parent().map(Into::into),
        id: Some(path(id)),
        name: String::new(),
        description: String::new(),
        kind: "service".into(),
        properties: Default::default(),
        disabled: false,
        authentication: None,
    })
}

fn rename(id: &str, name: &str) -> Operation {
    let (name, description) = (Some(name.into()), None);
    Operation::UpdateGroup(UpdateGroup { id: path(id), name, description, etag: None })
}

fn delete(id: &str) -> Operation {
    Operation::DeleteGroup(Delete { id: path(id), etag: None })
}

fn bind(identity: &str, role: &str, scope: &str) -> Operation {
    Operation::CreateRoleBinding(CreateRoleBinding {
        parent: path(scope),
        binding: NewRoleBinding {
            id: None,
            name: String::new(),
            description: String::new(),
            identity: path(identity),
            role: role.into(),
            scope: path(scope),
            expires_at: None,
            when: vec![],
        },
    })
}

impl Running {
    async fn try_as_alice(&self, operation: Operation) -> Result<Written, RequestError> {
        self.writes.write(write(alice(), operation)).await
    }

    async fn as_alice(&self, operation: Operation) -> Written {
        self.try_as_alice(operation).await.unwrap()
    }

    fn revision(&self) -> u64 {
        self.published.current().unwrap().snapshot.revision()
    }

    fn allows(&self, identity: &str, capability: &str, resource: &str) -> bool {
        let question = Question {
            identity: Path::parse(identity).unwrap(),
            capability,
            resource: Path::parse(resource).unwrap(),
            attributes: Attributes::NONE,
        };
        let current = self.published.current().unwrap();
        let decision = current.snapshot.check(&question, Timestamp::new(START, 0)).unwrap();
        decision.reason == capstan_engine::Reason::Granted
    }

    fn group(&self, id: &str) -> Option<capstan_iam::Group> {
        let view = self.published.current().unwrap().view().unwrap();
        let found = self.writes.objects(view).get(Kind::Group, path(id).as_path()).unwrap();
        found.map(|object| match object {
            Object::Group(group) => group,
            other => panic!("{other:?}"),
        })
    }

    /// All audit records, verified.
    fn audit(&self) -> Vec<AuditRecord> {
        let view = self.published.current().unwrap().view().unwrap();
        let head = view.get(capstan_iam::audit::HEAD_KEY).unwrap().unwrap();
        let head = AuditHead::decode(&head).unwrap();
        let mut verifier = Verifier::new(&head);
        let mut records = vec![];
        view.scan(KeyRange::prefix(prefix::AUDIT).bounds(), &mut |key, value| {
            let number = number(key).unwrap();
            verifier.next(number, value).unwrap();
            records.push(AuditRecord::decode(number, value).unwrap().0);
            true
        })
        .unwrap();
        verifier.finish(&head).unwrap();
        records
    }
}

#[tokio::test]
async fn the_demo_is_a_store_in_memory() {
    let published = Arc::new(Published::new(Retention::from(&Limits::default())));
    let metrics: Arc<Metrics> = Arc::default();
    let (writes, queue) = writer::queue(&metrics);
    let (clock, limits, reserved_issuers) = (Clock::System, Limits::default(), vec![]);
    let config =
        Config { clock, limits, reserved_issuers, trusted_issuers: vec![], give_back: || {} };
    let (is_writable, writable) = watch::channel(false);
    let parts = (Arc::clone(&published), Arc::clone(&metrics));
    let mut feed = StoreFeed::new(config, parts, is_writable, Store::Demo, queue);
    feed.load().await.unwrap();
    let running = Running { published, writes, writable, metrics };
    assert_eq!(running.revision(), 1, "its epoch is 0: it promises nothing beyond the process");
    let Policy { model, .. } = Source::Demo.load(&Catalogs::default()).unwrap();
    let current = running.published.current().unwrap();
    assert_eq!(current.snapshot.bindings_len(), model.facts().role_bindings.len());
    let made = running.writes.write(write(Actor::Operator, create("acme/new"))).await.unwrap();
    assert_eq!((made.revision, running.revision()), (2, 2));
}

#[tokio::test]
async fn a_change_is_visible_when_it_is_acknowledged_and_after_a_restart() {
    let journal = acme().await;
    let running = start(&journal).await;
    let first = running.revision();
    assert_eq!(first, (3 << 40) + 1);
    let made = running.as_alice(create("acme/platform")).await;
    assert_eq!((made.revision, running.revision()), (first + 1, first + 1));
    let Response::Group(group) = made.response else { panic!() };
    assert_eq!(running.group("acme/platform"), Some(group));
    assert!(!running.allows("bob", "repo.list", "acme/platform/x"));
    // A root identity that is not registered, by the id that it will have.
    let bob = "0123456789abcdef0123456789abcdef01234567";
    running.as_alice(bind(bob, "viewer", "acme/platform")).await;
    assert!(running.allows(bob, "repo.list", "acme/platform/x"));

    let again = start(&journal).await;
    assert_eq!(again.revision(), first + 2);
    assert!(again.allows(bob, "repo.list", "acme/platform/x"));
    assert_eq!(again.group("acme/platform"), running.group("acme/platform"));
    let made = again.as_alice(create("acme/other")).await;
    assert_eq!(made.revision, first + 3);
    // A list may have begun with it before the restart.
    assert!(again.published.kept(first + 2).is_some());
    again.as_alice(create("acme/third")).await;
    assert!(again.published.kept(first + 3).is_none() && again.published.kept(first + 2).is_some());
}

#[tokio::test]
async fn writes_that_wait_share_a_commit_and_see_each_other() {
    let journal = acme().await;
    let running = start(&journal).await;
    let first = running.revision();
    // Each is judged on the state after those before it.
    let operations = (0..40).flat_map(|at| {
        let id = format!("acme/g{at}");
        [create(&id), rename(&id, "new"), create(&format!("{id}/below"))]
    });
    let all = futures_util::future::join_all(operations.map(|one| running.as_alice(one))).await;
    let revisions: Vec<_> = all.iter().map(|written| written.revision).collect();
    assert_eq!(revisions, (first + 1..=first + 120).collect::<Vec<_>>());
    assert_eq!(running.revision(), first + 120);
    assert_eq!(running.group("acme/g39").unwrap().name, "new");
    assert!(journal.appended.load(Ordering::Relaxed) < 20, "{journal:?}");
    assert_eq!(running.audit().len(), 121);
}

#[tokio::test]
async fn a_request_id_makes_a_retry_safe() {
    let journal = acme().await;
    let running = start(&journal).await;
    let asked = |actor: Actor, operation, id: &str| {
        let id = Some(id.to_owned());
        Write { request_id: id, ..write(actor, operation) }
    };
    let new = || {
        let Operation::CreateGroup(group) = create("acme/x") else { panic!() };
        Operation::CreateGroup(CreateGroup { id: None, ..group })
    };
    let first = running.writes.write(asked(alice(), new(), "r1")).await.unwrap();
    let again = running.writes.write(asked(alice(), new(), "r1")).await.unwrap();
    assert_eq!((again.revision, &again.response), (first.revision, &first.response));
    // Over a restart.
    let running = start_at(&journal, START + 599, |_| {}).await;
    let again = running.writes.write(asked(alice(), new(), "r1")).await.unwrap();
    assert_eq!(again.response, first.response);
    assert_eq!(running.revision(), first.revision);
    // Another request, another caller, another method.
    let other = running.writes.write(asked(alice(), create("acme/y"), "r1")).await;
    assert!(matches!(other, Err(RequestError::Field { field, .. }) if field == "request_id"));
    let operator = running.writes.write(asked(Actor::Operator, new(), "r1")).await.unwrap();
    assert_eq!(operator.revision, first.revision + 1);
    running.writes.write(asked(alice(), rename("acme", "a"), "r1")).await.unwrap();
    // A refusal is not remembered.
    let refused = running.writes.write(asked(alice(), delete("acme/late"), "r2")).await;
    assert!(refused.is_err());
    running.as_alice(create("acme/late")).await;
    running.writes.write(asked(alice(), delete("acme/late"), "r2")).await.unwrap();
    // After its time it is another request, and what was kept goes.
    let running = start_at(&journal, START + 600, |_| {}).await;
    let later = running.writes.write(asked(alice(), new(), "r1")).await.unwrap();
    assert!(later.revision > operator.revision);
    let kept = |running: &Running| {
        let view = running.published.current().unwrap().view().unwrap();
        let mut count = 0;
        let range = KeyRange::prefix(prefix::REQUEST);
        view.scan(range.bounds(), &mut |_, _| {
            count += 1;
            true
        })
        .unwrap();
        count
    };
    let seconds = START + 601 + i64::try_from(2 * REQUEST_KEPT.as_secs()).unwrap();
    let running = start_at(&journal, seconds, |_| {}).await;
    for at in 0..10 {
        running.as_alice(rename("acme", &at.to_string())).await;
    }
    assert_eq!(kept(&running), 0);
}

#[tokio::test]
async fn what_is_only_validated_changes_nothing() {
    let journal = acme().await;
    let running = start(&journal).await;
    let first = running.revision();
    let validate = |operation| Write {
        validate_only: true,
        request_id: Some("r".into()),
        ..write(alice(), operation)
    };
    let made = running.writes.write(validate(create("acme/x"))).await.unwrap();
    assert_eq!(made.revision, first);
    assert!(matches!(made.response, Response::Group(group) if group.id == path("acme/x")));
    assert_eq!((running.revision(), running.group("acme/x")), (first, None));
    assert_eq!(journal.appended.load(Ordering::Relaxed), 0);
    // An attempt that is refused is one, also if it only asks.
    let refused = running.writes.write(validate(create("other/x"))).await;
    assert!(matches!(refused, Err(RequestError::NotFound)), "{refused:?}");
    assert_eq!(running.revision(), first);
    let last = running.audit().pop().unwrap();
    assert_eq!((&*last.actor, &*last.object, last.code), ("alice", "other/x", 7));
    // The request id was not remembered.
    running.writes.write(validate(create("acme/y"))).await.unwrap();
}

#[tokio::test]
async fn changes_and_refusals_are_audited() {
    let journal = acme().await;
    let running = start(&journal).await;
    let first = running.revision();
    running.as_alice(create("acme/x")).await;
    let mallory = || Actor::identity(path("mallory"));
    let refused = running.writes.write(write(mallory(), create("acme/y"))).await;
    assert!(matches!(refused, Err(RequestError::AuthnFailed)));
    let refused = running.try_as_alice(create("other/y")).await;
    assert!(matches!(refused, Err(RequestError::NotFound)));
    assert_eq!(running.revision(), first + 1, "a refusal moves no revision");
    let records = running.audit();
    let seen: Vec<_> = records
        .iter()
        .map(|one| (one.revision - first, &*one.actor, &*one.method, &*one.object, one.code))
        .collect();
    assert_eq!(
        seen,
        [
            (0, "", "init", "", 0),
            (1, "alice", "GroupService/CreateGroup", "acme/x", 0),
            (1, "mallory", "GroupService/CreateGroup", "acme/y", 16),
            (1, "alice", "GroupService/CreateGroup", "other/y", 7),
        ]
    );
    assert_eq!(
        (&*records[3].scope, &*records[3].missing),
        ("other", &["groups.create".to_owned()][..])
    );
    // Refusals of one caller are bounded.
    for _ in 0..REFUSALS_PER_MINUTE + 5 {
        let _ = running.try_as_alice(create("other/y")).await;
    }
    assert_eq!(running.audit().len(), 3 + REFUSALS_PER_MINUTE as usize);
    // And a change after refusals in the same group has its place in the chain.
    let all = [create("other/1"), create("acme/1"), create("other/2"), create("acme/2")];
    futures_util::future::join_all(all.map(|one| running.try_as_alice(one))).await;
    running.audit();
}

#[tokio::test]
async fn old_audit_records_are_deleted_and_the_chain_still_fits() {
    let journal = acme().await;
    let running = start_at(&journal, START, |limits| limits.audit_records_max = 5).await;
    for at in 0..20 {
        running.as_alice(create(&format!("acme/g{at}"))).await;
        assert!(running.audit().len() <= 6);
    }
    let records = running.audit();
    assert_eq!(records.last().unwrap().object, "acme/g19");
    // A commit deletes some of those beyond the limit.
    const { assert!(AUDIT_PRUNED_MAX > WRITE_GROUP_MAX) };
}
