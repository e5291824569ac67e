//! Power cuts: whatever part of the unsynced writes is lost, the store opens, and holds what was acknowledged.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::*;

/// Images by default. `CAPSTAN_CRASH_IMAGES` asks for another number, 5,000 in the long run.
const IMAGES: u64 = 300;
/// One in so many images loses power again while it is opened.
const AGAIN: u8 = 10;

/// The states that an image may hold: that of the last acknowledged commit, and that of the one that is being made.
type Allowed = Arc<Mutex<[(Head, State); 2]>>;

#[test]
fn each_crash_image_opens_to_a_committed_state() {
    let wanted = std::env::var("CAPSTAN_CRASH_IMAGES").map_or(IMAGES, |it| it.parse().unwrap());
    let tried = Arc::new(AtomicU64::new(0));
    for seed in 0.. {
        if tried.load(Ordering::Relaxed) >= wanted {
            break;
        }
        lose_power(seed, &tried);
    }
}

/// Some commits, and power cuts at random moments between.
fn lose_power(seed: u64, tried: &Arc<AtomicU64>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let sim = new_disk();
    let store = open_sim(&sim, limits()).unwrap();
    let mut now = (Head::empty(1), State::new());
    let allowed: Allowed = Arc::new(Mutex::new([now.clone(), now.clone()]));

    let images = Mutex::new(random.fork());
    let (seen, counter) = (Arc::clone(&allowed), Arc::clone(tried));
    sim.observe(move |sim| {
        let mut random = images.lock().unwrap();
        // A commit of this store has some 20 writes.
        if random.u8(..4) == 0 {
            let image = sim.image(&mut random);
            let count = counter.fetch_add(1, Ordering::Relaxed);
            let again = random.u8(..AGAIN) == 0;
            open_image(image, &seen, again, &format!("seed {seed}, image {count}"));
        }
    });
    for _ in 0..10 {
        let batch = random_batch(&mut random);
        let heads = batch.transactions.iter().scan(now.0, |head, it| {
            *head = head.next(&it.ops);
            Some(*head)
        });
        let after = (heads.last().unwrap_or(now.0), applied(now.1.clone(), &batch));
        *allowed.lock().unwrap() = [now.clone(), after.clone()];
        assert_eq!(append(&store, &now.0, &batch).unwrap(), after.0);
        now = after;
        *allowed.lock().unwrap() = [now.clone(), now.clone()];
    }
    drop(store); // which writes, too
    sim.stop_observing();
}

fn open_image(image: Vec<u8>, allowed: &Allowed, again: bool, label: &str) {
    let sim = Sim::of(image);
    if again {
        let (allowed, label) = (Arc::clone(allowed), label.to_owned());
        let images = Mutex::new(fastrand::Rng::with_seed(sim.file().len() as u64));
        sim.observe(move |sim| {
            let image = sim.image(&mut images.lock().unwrap());
            open_image(image, &allowed, false, &format!("{label}, again"));
        });
    }
    let store = open_sim(&sim, limits()).unwrap_or_else(|error| panic!("{label}: {error}"));
    sim.stop_observing();
    let snapshot = recovered(&store).unwrap();
    let found = (snapshot.head, dump(&*snapshot).unwrap());
    let is_allowed = allowed.lock().unwrap().contains(&found);
    assert!(is_allowed, "{label}: {found:?} is none of {allowed:?}");
    let checked = scrub(&store).unwrap_or_else(|error| panic!("{label}: {error}"));
    assert_eq!((checked.head, checked.entries), (found.0, found.1.len() as u64), "{label}");
    // What was found goes on.
    let batch = Batch { side: vec![put("side/after", label)], ..Batch::default() };
    assert_eq!(append(&store, &found.0, &batch).unwrap(), found.0);
    drop((snapshot, store));
    let store = open_sim(&sim, limits()).unwrap();
    assert_eq!(dump(&*recovered(&store).unwrap()).unwrap(), applied(found.1, &batch), "{label}");
}
