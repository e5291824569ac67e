//! A check allocates nothing, whatever it answers.

#![expect(unsafe_code, reason = "an allocator that counts is an allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use capstan_engine::{Attributes, Path, Question, Reason, Snapshot, Timestamp};
use capstan_policy::{Catalogs, load_policy};

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
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

#[test]
fn a_check_allocates_nothing() {
    let demo = include_str!("../../../deploy/quickstart/policy.yaml");
    let policy = load_policy(demo.as_bytes(), &Catalogs::default()).unwrap();
    let snapshot = Snapshot::build(&policy.model, 1);
    let now = Timestamp::new(1_795_000_000, 0);
    let check = |identity, capability, resource| {
        let before = ALLOCATIONS.with(Cell::get);
        let identity = Path::parse(black_box(identity)).unwrap();
        let resource = Path::parse(black_box(resource)).unwrap();
        let attributes = Attributes::NONE;
        let capability = black_box(capability);
        let question = Question { identity, capability, resource, attributes };
        let decision = black_box(snapshot.check(&question, now)).unwrap();
        assert_eq!(ALLOCATIONS.with(Cell::get) - before, 0, "{decision:?}");
        decision.reason
    };
    let deep = "acme/platform/images/base/a/b/c/d/e/f/g/h/i/j/k/l";
    assert_eq!(check("alice", "repo.delete", deep), Reason::Granted);
    assert_eq!(check("bob", "repo.delete", deep), Reason::CapabilityNotInRole);
    assert_eq!(check("zoe", "repo.list", deep), Reason::UnknownIdentity);
    assert_eq!(check("dave", "repo.list", "acme/platform"), Reason::Expired);
    assert_eq!(check("bob", "repo.list", "beta"), Reason::NoBinding);

    let before = ALLOCATIONS.with(Cell::get);
    drop(black_box(vec![0u8; 10]));
    assert_eq!(ALLOCATIONS.with(Cell::get) - before, 1, "the counter counts");
}
