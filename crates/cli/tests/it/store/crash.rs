//! `kill -9` of the server at random moments, also during its start: no acknowledged write is lost, none is invented, and
//! each is made at most once.

#![expect(clippy::print_stdout, reason = "the figures of a run")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use capstan_proto::iam::v1 as iam;
use tonic::Status;

use super::{CATALOG, Caller, Data, SEQUENCE, Served, audit_records, binding, person};
use crate::common::{PATIENCE, Serving};

pub(super) const WRITERS: usize = 8;
/// Objects beside those of the writers: in a long run, and in the short form.
const OBJECTS: [usize; 2] = [10_000, 1_000];
/// Groups that a writer keeps.
const GROUPS_MAX: usize = 16;
/// Bindings that one write makes.
const BOUND: usize = 3;

/// A change of one writer's groups. Each changes something.
#[derive(Clone, Debug)]
pub(super) enum Action {
    Create(String),
    Rename(String, String),
    Bind(String, [String; BOUND]),
    Unbind(String, Vec<String>),
    Delete(String),
}

/// A write that was sent.
#[derive(Clone, Debug)]
pub(super) struct Write {
    pub(super) request_id: String,
    pub(super) action: Action,
    sent: Instant,
}

/// A write that was acknowledged.
#[derive(Clone, Debug)]
struct Acknowledged {
    write: Write,
    revision: u64,
    at: Instant,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Folder {
    name: String,
    pub(super) bindings: BTreeSet<String>,
}

pub(super) type Folders = BTreeMap<String, Folder>;

pub(super) fn apply(folders: &mut Folders, action: &Action) {
    match action.clone() {
        Action::Create(id) => drop(folders.insert(id, Folder::default())),
        Action::Rename(id, name) => folders.get_mut(&id).unwrap().name = name,
        Action::Bind(id, bound) => folders.get_mut(&id).unwrap().bindings.extend(bound),
        Action::Unbind(id, bound) => {
            folders.get_mut(&id).unwrap().bindings.retain(|one| !bound.contains(one));
        }
        Action::Delete(id) => drop(folders.remove(&id)),
    }
}

/// A writer, which changes groups of its own.
#[derive(Debug)]
pub(super) struct Writer {
    number: usize,
    /// Requests so far.
    requests: usize,
    /// What it has, by what was acknowledged.
    pub(super) folders: Folders,
    /// What was sent and not answered.
    unknown: Option<Write>,
    last: Option<Acknowledged>,
    random: fastrand::Rng,
}

impl Writer {
    pub(super) fn new(number: usize, random: fastrand::Rng) -> Self {
        let folders = Folders::new();
        Self { number, requests: 0, folders, unknown: None, last: None, random }
    }

    pub(super) fn next(&mut self) -> Write {
        self.requests += 1;
        let (writer, request) = (self.number, self.requests);
        let ids: Vec<_> = self.folders.keys().cloned().collect();
        let create = Action::Create(format!("acme/w{writer}/g{request}"));
        let action = match self.random.choice(ids) {
            None => create,
            Some(id) => {
                let bindings = &self.folders[&id].bindings;
                match self.random.u8(..5) {
                    0 if self.folders.len() < GROUPS_MAX => create,
                    1 => Action::Rename(id, format!("name {request}")),
                    2 if !bindings.is_empty() => {
                        Action::Unbind(id, bindings.iter().cloned().collect())
                    }
                    3 => Action::Delete(id),
                    _ => {
                        let bound = std::array::from_fn(|at| format!("{id}/b{request}-{at}"));
                        Action::Bind(id, bound)
                    }
                }
            }
        };
        Write { request_id: format!("w{writer}-{request}"), action, sent: Instant::now() }
    }

    /// Writes until an answer is missing.
    async fn run(&mut self, caller: &Caller, all: &Mutex<Vec<Acknowledged>>) {
        loop {
            let write = self.next();
            self.unknown = Some(write.clone());
            match send(caller, &write).await {
                Ok(revision) => self.acknowledged(write, revision, all),
                Err(status) => return assert_unknown(&status),
            }
        }
    }

    fn acknowledged(&mut self, write: Write, revision: u64, all: &Mutex<Vec<Acknowledged>>) {
        apply(&mut self.folders, &write.action);
        self.unknown = None;
        let acknowledged = Acknowledged { write, revision, at: Instant::now() };
        self.last = Some(acknowledged.clone());
        all.lock().unwrap().push(acknowledged);
    }
}

/// A connection that ends says nothing about the write; an answer of the server would.
fn assert_unknown(status: &Status) {
    let from_server = super::reason(status);
    assert_eq!(from_server, "", "{status:?}");
    let is_broken = matches!(
        status.code(),
        tonic::Code::Unavailable | tonic::Code::Unknown | tonic::Code::Cancelled
    );
    assert!(is_broken, "{status:?}");
}

pub(super) async fn send(caller: &Caller, write: &Write) -> Result<u64, Status> {
    let request_id = write.request_id.clone();
    match write.action.clone() {
        Action::Create(id) => {
            let (parent, _) = id.rsplit_once('/').unwrap();
            let parent = parent.into();
            let group = Some(iam::Group { id, ..Default::default() });
            let request =
                iam::CreateGroupRequest { parent, group, request_id, ..Default::default() };
            let made: iam::CreateGroupResponse =
                caller.ask("GroupService/CreateGroup", request).await?;
            Ok(made.revision)
        }
        Action::Rename(id, name) => {
            let group = Some(iam::Group { id, name, ..Default::default() });
            let request = iam::UpdateGroupRequest { group, request_id, ..Default::default() };
            let made: iam::UpdateGroupResponse =
                caller.ask("GroupService/UpdateGroup", request).await?;
            Ok(made.revision)
        }
        Action::Bind(id, bound) => {
            let one = |(at, bound): (usize, String)| {
                // Bindings of a scope differ in their identities.
                let digits = bound.bytes().fold(at, |hash, byte| {
                    hash.wrapping_mul(0x0100_0000_01b3).wrapping_add(byte.into())
                });
                binding(&id, &bound, &person(digits))
            };
            let request = iam::BatchCreateRoleBindingsRequest {
                parent: id.clone(),
                role_bindings: bound.into_iter().enumerate().map(one).collect(),
                request_id,
                ..Default::default()
            };
            let method = "RoleBindingService/BatchCreateRoleBindings";
            let made: iam::BatchCreateRoleBindingsResponse = caller.ask(method, request).await?;
            Ok(made.revision)
        }
        Action::Unbind(parent, ids) => {
            let request = iam::BatchDeleteRoleBindingsRequest {
                parent,
                ids,
                request_id,
                ..Default::default()
            };
            let method = "RoleBindingService/BatchDeleteRoleBindings";
            let made: iam::BatchDeleteRoleBindingsResponse = caller.ask(method, request).await?;
            Ok(made.revision)
        }
        Action::Delete(id) => {
            let request = iam::DeleteGroupRequest { id, request_id, ..Default::default() };
            let made: iam::DeleteGroupResponse =
                caller.ask("GroupService/DeleteGroup", request).await?;
            Ok(made.revision)
        }
    }
}

/// What the server has, by writer, and its revision. Whatever nobody asked for fails.
pub(super) async fn folders(operator: &Caller, objects: usize) -> (Vec<Folders>, u64) {
    let (groups, revision) = operator.groups("acme").await;
    let (bindings, of_bindings) = operator.bindings("acme").await;
    assert_eq!(revision, of_bindings, "nobody writes");
    let mut found = vec![Folders::new(); WRITERS];
    let writer = |id: &str| -> Option<usize> {
        let (writer, _) = id.strip_prefix("acme/w")?.split_once("/g")?;
        writer.parse().ok()
    };
    let mut others = BTreeSet::new();
    for group in groups {
        match writer(&group.id) {
            Some(writer) => {
                let folder = Folder { name: group.name, bindings: BTreeSet::new() };
                found[writer].insert(group.id, folder);
            }
            None => drop(others.insert(group.id)),
        }
    }
    let mut first: BTreeSet<_> = (0..WRITERS).map(|writer| format!("acme/w{writer}")).collect();
    first.extend(["acme".into(), "acme/objects".into()]);
    assert_eq!(others, first);
    let mut beside = 0;
    for binding in bindings {
        match writer(&binding.scope) {
            Some(writer) => {
                let folder = found[writer].get_mut(&binding.scope).unwrap();
                assert!(folder.bindings.insert(binding.id));
            }
            None if binding.scope == "acme/objects" => beside += 1,
            None => assert_eq!(binding.identity, "alice"),
        }
    }
    assert_eq!(beside, objects);
    (found, revision)
}

/// What a run has seen.
#[derive(Debug, Default)]
struct Seen {
    kills: usize,
    kills_in_start: usize,
    unknown: usize,
    unknown_made: usize,
    slowest_start: Duration,
    starts: Vec<Duration>,
}

struct Run {
    data: Data,
    objects: usize,
    writers: Vec<Writer>,
    acknowledged: Arc<Mutex<Vec<Acknowledged>>>,
    /// The number of the last transaction before those of the writers.
    before: u64,
    random: fastrand::Rng,
    seen: Seen,
}

impl Run {
    async fn begin(seed: u64, objects: usize) -> (Self, Served) {
        let data = Data::init(CATALOG);
        let server = data.start();
        let operator = server.operator().await;
        operator.create_group("acme/objects").await;
        for writer in 0..WRITERS {
            operator.create_group(&format!("acme/w{writer}")).await;
        }
        let before = operator.bind_all("acme/objects", (0..objects).map(person)).await & SEQUENCE;
        let mut random = fastrand::Rng::with_seed(seed);
        let writers = (0..WRITERS).map(|number| Writer::new(number, random.fork())).collect();
        let (acknowledged, seen) = (Arc::default(), Seen::default());
        (Self { data, objects, writers, acknowledged, before, random, seen }, server)
    }

    /// Half of the writers are the owner, half the operator.
    async fn caller(server: &Served, writer: usize) -> Caller {
        if writer.is_multiple_of(2) {
            server.caller("alice").await
        } else {
            server.operator().await
        }
    }

    /// Lets the writers write, and kills the server meanwhile.
    async fn write_and_kill(&mut self, server: Served) {
        let mut tasks = tokio::task::JoinSet::new();
        for mut writer in self.writers.drain(..) {
            let caller = Self::caller(&server, writer.number).await;
            let all = Arc::clone(&self.acknowledged);
            tasks.spawn(async move {
                writer.run(&caller, &all).await;
                writer
            });
        }
        tokio::time::sleep(Duration::from_millis(self.random.u64(5..=500))).await;
        server.kill();
        self.seen.kills += 1;
        let writers = tokio::time::timeout(PATIENCE, tasks.join_all()).await;
        self.writers = writers.expect("a writer still waits for a server that is dead");
        self.writers.sort_by_key(|writer| writer.number);
    }

    /// Kills starting servers, some in a row.
    async fn kill_in_start(&mut self) {
        for _ in 0..self.random.usize(1..=4) {
            let starting = Serving::spawn(&mut self.data.serve(), 0);
            tokio::time::sleep(Duration::from_millis(self.random.u64(..=50))).await;
            drop(starting);
            self.seen.kills_in_start += 1;
        }
    }

    /// Verifies the audit log of a copy of the store as it is. Returns the number of its records.
    fn audit_of_a_copy(&self) -> u64 {
        let copy = self.data.parent.path().join("copy");
        let _ = std::fs::remove_dir_all(&copy);
        copy_store(&self.data.dir, &copy);
        audit_records(&copy)
    }

    /// Starts the server, compares what it has with what was acknowledged, and settles what is not known.
    async fn restart(&mut self, audited: Option<u64>) -> Served {
        let server = self.data.start();
        self.seen.slowest_start = self.seen.slowest_start.max(server.started);
        self.seen.starts.push(server.started);
        let operator = server.operator().await;
        let (found, revision) = folders(&operator, self.objects).await;
        let mut made = self.acknowledged.lock().unwrap().len() as u64;
        let mut known = vec![];
        for writer in &self.writers {
            let found = &found[writer.number];
            let is_made = match &writer.unknown {
                Some(unknown) if *found != writer.folders => {
                    let mut after = writer.folders.clone();
                    apply(&mut after, &unknown.action);
                    assert_eq!(*found, after, "of {unknown:?}");
                    true
                }
                _ => {
                    assert_eq!(*found, writer.folders, "writer {}", writer.number);
                    false
                }
            };
            known.push(is_made);
            made += u64::from(is_made);
        }
        // Each write is one transaction, so none was made twice.
        assert_eq!(revision & SEQUENCE, self.before + made);
        // And one audit record, like each before them.
        assert_eq!(audited.unwrap_or(revision & SEQUENCE), revision & SEQUENCE);

        for (writer, is_made) in self.writers.iter_mut().zip(known) {
            let caller = Self::caller(&server, writer.number).await;
            if let Some(last) = &writer.last {
                assert_eq!(send(&caller, &last.write).await.unwrap(), last.revision, "{last:?}");
            }
            if let Some(unknown) = writer.unknown.take() {
                let settled = send(&caller, &unknown).await.unwrap();
                assert_eq!(settled <= revision, is_made, "{unknown:?}");
                writer.acknowledged(unknown, settled, &self.acknowledged);
                self.seen.unknown += 1;
                self.seen.unknown_made += usize::from(is_made);
            }
            for (id, folder) in &writer.folders {
                let get = iam::GetGroupRequest { id: id.clone(), consistency: None };
                let got: iam::GetGroupResponse =
                    caller.ask("GroupService/GetGroup", get).await.unwrap();
                assert_eq!(got.group.unwrap().name, folder.name);
            }
        }
        server
    }
}

fn copy_store(from: &Path, to: &Path) {
    use std::os::unix::fs::DirBuilderExt as _;

    std::fs::DirBuilder::new().mode(0o700).create(to).unwrap();
    let file = "store.redb";
    std::fs::copy(from.join(file), to.join(file)).unwrap();
}

/// Revisions are those behind `before`, each once, and in the order of time: what was acknowledged before another write
/// was sent has a smaller one.
fn assert_ordered(mut all: Vec<Acknowledged>, before: u64) {
    all.sort_by_key(|one| one.revision);
    let mut next = before;
    for one in &all {
        next += 1;
        assert_eq!(one.revision & SEQUENCE, next, "{one:?}");
    }
    let mut earliest = None;
    for one in all.iter().rev() {
        if let Some((at, later)) = earliest {
            assert!(at >= one.write.sent, "{later:?} was acknowledged before {one:?} was sent");
        }
        if earliest.is_none_or(|(at, _)| one.at < at) {
            earliest = Some((one.at, one));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_acknowledged_write_is_lost_and_none_is_invented() {
    let kills = std::env::var("CAPSTAN_STORE_KILLS").ok();
    let [many, few] = OBJECTS;
    let (kills, objects) = kills.map_or((30, few), |kills| (kills.parse().unwrap(), many));
    let seed = std::env::var("CAPSTAN_STORE_SEED");
    let seed = seed.map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    println!("CAPSTAN_STORE_SEED={seed}");
    let (mut run, mut server) = Run::begin(seed, objects).await;
    for kill in 0..kills {
        run.write_and_kill(server).await;
        let audited = (kill % 5 == 0).then(|| run.audit_of_a_copy());
        if kill % 5 == 4 {
            run.kill_in_start().await;
        }
        server = run.restart(audited).await;
    }
    let operator = server.operator().await;
    let (_, revision) = folders(&operator, run.objects).await;
    let acknowledged = std::mem::take(&mut *run.acknowledged.lock().unwrap());
    assert_eq!(revision & SEQUENCE, run.before + acknowledged.len() as u64);
    let (code, log) = server.process.stop("-TERM");
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(audit_records(&run.data.dir), revision & SEQUENCE);
    let writes = acknowledged.len();
    assert_ordered(acknowledged, run.before);
    let Seen { kills, kills_in_start, unknown, unknown_made, slowest_start, mut starts } = run.seen;
    starts.sort();
    let median = starts[starts.len() / 2];
    println!(
        "{objects} objects, {kills} kills, {kills_in_start} of starting servers, {writes} writes acknowledged, {unknown} with an unknown \
         outcome, of which {unknown_made} were made; ready after {median:?} (median), {slowest_start:?} (slowest)"
    );
    assert!(writes > kills, "{writes} writes");
}
