//! The allocations of a unary call, counted at the allocator: of the whole server, for a plain check on a
//! connection that is already open. And the bytes of a connection that is silent after its first check.
//!
//! ```text
//! cargo test --release -p capstan-benches --test allocations -- --nocapture
//! ```

use capstan_benches::counting::Counting;
use capstan_benches::replay::Replay;
use capstan_benches::worlds::World;
use capstan_engine::{Snapshot, Timestamp};

#[global_allocator]
static COUNTING: Counting = Counting::new();

const CALLS: u64 = 4_000;
const SILENT: usize = 200;
/// Bytes of a silent connection: of its task, its state, and both ends of its socket.
const SILENT_MAX: usize = 10_000;

/// Only one test, because the allocator counts the allocations of the whole process.
#[expect(clippy::print_stdout, reason = "the figures of docs/PERFORMANCE.md")]
#[test]
fn the_allocations_of_a_call_are_limited() {
    let world = World::Bindings(3_000);
    let snapshot = Snapshot::build(&world.model(), 1).unwrap();
    let mut replay = Replay::start(world).unwrap();
    let asked = world.asked(0, CALLS);
    let is_allowed = |at: &capstan_benches::worlds::Asked| {
        snapshot.check(&at.question(), Timestamp::UNIX_EPOCH).unwrap().allowed()
    };
    let allowed = asked.iter().filter(|asked| is_allowed(asked)).count();
    for (at_once, most) in [(1, 0.01), (16, 0.01)] {
        let warm_up = replay.encode(&asked, at_once);
        let calls = replay.encode(&asked, at_once);
        replay.replay(&warm_up).unwrap();
        let before = COUNTING.calls();
        let answered = replay.replay(&calls).unwrap();
        let each = (COUNTING.calls() - before) as f64 / asked.len() as f64;
        println!("{at_once} at once: {each:.2} allocations a call");
        assert_eq!((answered.messages, answered.allowed), (asked.len(), allowed));
        assert!(each <= most, "{at_once} at once: {each:.2} allocations a call");
    }
    let mut silent = Vec::with_capacity(SILENT + 1);
    let mut open = |replay: &mut Replay| {
        silent.push(replay.reconnect().unwrap());
        let call = replay.encode(&asked[..1], 1);
        assert_eq!(replay.replay(&call).unwrap().messages, 1);
    };
    open(&mut replay);
    let before = COUNTING.in_use();
    (0..SILENT).for_each(|_| open(&mut replay));
    let each = COUNTING.in_use().saturating_sub(before) / SILENT;
    println!("{SILENT} silent connections: {each} bytes each");
    assert!((500..=SILENT_MAX).contains(&each), "{each} bytes for each silent connection");
}
