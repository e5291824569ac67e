//! A check allocates nothing, single or in a batch, for any answer and any number of bindings.

#![expect(unsafe_code, reason = "an allocator that counts has to implement `GlobalAlloc`")]
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "all of this is test code, not only the test functions"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Write as _;
use std::hint::black_box;

use capstan_engine::{Attributes, Path, Question, Reason, Snapshot, Timestamp, Value};
use capstan_policy::{Catalogs, load_policy};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

const NOW: Timestamp = Timestamp::new(1_795_000_000, 0);

fn snapshot(document: &str) -> Snapshot {
    let policy = load_policy(document.as_bytes(), &Catalogs::default()).unwrap();
    Snapshot::build(&policy.model, 1).unwrap()
}

/// Runs the work and asserts that it allocates nothing.
fn allocating_nothing<T>(work: impl FnOnce() -> T) -> T {
    let before = ALLOCATIONS.with(Cell::get);
    let done = work();
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0);
    done
}

/// Identity, capability, resource, and the answer.
type Row<'r> = (&'r str, &'r str, &'r str, Reason);

fn question<'q>(row: &Row<'q>, attributes: &'q Attributes) -> Question<'q> {
    let (identity, capability, resource, _) = *row;
    Question {
        identity: Path::parse(black_box(identity)).unwrap(),
        capability: black_box(capability),
        resource: Path::parse(black_box(resource)).unwrap(),
        attributes,
    }
}

/// Asks each question alone, then all of them forty times in one batch.
fn ask(snapshot: &Snapshot, attributes: &Attributes, rows: &[Row<'_>]) {
    for row in rows {
        let decision =
            allocating_nothing(|| snapshot.check(&question(row, attributes), NOW).unwrap());
        assert_eq!(decision.reason, row.3, "{row:?}");
    }
    let once = rows.iter().map(|row| question(row, attributes));
    let questions = once.collect::<Vec<_>>().repeat(40);
    let mut answers: Vec<Option<Reason>> = vec![None; questions.len()];
    allocating_nothing(|| {
        snapshot.check_batch(black_box(&questions), NOW, |at, decision| {
            answers[at] = Some(decision.unwrap().reason);
        });
    });
    let expected = rows.iter().cycle().map(|row| Some(row.3));
    assert!(answers.iter().copied().eq(expected.take(questions.len())), "{answers:?}");
}

#[test]
fn a_check_allocates_nothing() {
    let deep = "acme/platform/images/base/a/b/c/d/e/f/g/h/i/j/k/l";
    ask(
        &snapshot(include_str!("../../../deploy/quickstart/policy.yaml")),
        Attributes::NONE,
        &[
            ("alice", "repo.delete", deep, Reason::Granted),
            ("bob", "repo.delete", deep, Reason::CapabilityNotInRole),
            ("zoe", "repo.list", deep, Reason::UnknownIdentity),
            ("dave", "repo.list", "acme/platform", Reason::Expired),
            ("bob", "repo.list", "beta", Reason::NoBinding),
        ],
    );
    let before = ALLOCATIONS.with(Cell::get);
    drop(black_box(vec![0u8; 10]));
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 1, "the counter counts");
}

#[test]
fn conditions_and_expiries_allocate_nothing() {
    let document = "
version: 1
catalog: chainguard-2025-08-14
groups: [{id: acme}]
identities:
  - {id: met, properties: {team: platform}}
  - {id: unmet}
  - {id: expired}
resources: [{id: acme/nginx, type: repo, properties: {status: active}}]
role_bindings:
  - {identity: met, role: viewer, scope: acme, expires_at: 2027-01-01T00:00:00Z, when: [
      {attribute: subject.team, equals: platform},
      {attribute: resource.status, not_equals: archived},
      {attribute: context.ticket, equals: 7},
    ]}
  - {identity: unmet, role: viewer, scope: acme, when: [{attribute: context.ticket, equals: 8}]}
  - {identity: expired, role: viewer, scope: acme, expires_at: 2026-01-01T00:00:00Z}
";
    let mut attributes = Attributes::default();
    attributes.context.insert("ticket".into(), Value::Integer(7));
    ask(
        &snapshot(document),
        &attributes,
        &[
            ("met", "repo.list", "acme/nginx", Reason::Granted),
            ("met", "repo.list", "acme/other", Reason::ConditionNotMet),
            ("unmet", "repo.list", "acme/nginx", Reason::ConditionNotMet),
            ("expired", "repo.list", "acme/nginx", Reason::Expired),
        ],
    );
}

/// A binding at each of 15 levels, and at 10,000 other groups.
#[test]
fn depth_and_many_bindings_allocate_nothing() {
    let levels: Vec<String> = (1..=15).map(|depth| vec!["s"; depth].join("/")).collect();
    let wide = (0..10_000).map(|at| format!("s/wide-{at}"));
    let scopes: Vec<String> = levels.iter().cloned().chain(wide).collect();
    let mut document = String::from("version: 1\ncatalog: chainguard-2025-08-14\ngroups:\n");
    for scope in &scopes {
        let _ = writeln!(document, "  - {{id: {scope}}}");
    }
    document.push_str("identities: [{id: many}]\nrole_bindings:\n");
    for scope in scopes.iter().skip(1) {
        let _ = writeln!(document, "  - {{identity: many, role: viewer, scope: {scope}}}");
    }
    let deepest = vec!["s"; 16].join("/");
    ask(
        &snapshot(&document),
        Attributes::NONE,
        &[
            ("many", "repo.list", &deepest, Reason::Granted),
            ("many", "repo.delete", &deepest, Reason::CapabilityNotInRole),
            ("many", "repo.list", "s/wide-9999/image", Reason::Granted),
            ("many", "repo.list", "s/elsewhere", Reason::NoBinding),
        ],
    );
}
