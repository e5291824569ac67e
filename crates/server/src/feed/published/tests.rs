//! Retention of earlier revisions, by time and by bytes.

use std::ops::Bound;

use bytes::Bytes;
use capstan_policy::{Catalogs, load_policy};
use capstan_store::{Head, StoreError};

use super::*;

fn revision(revision: u64) -> Current {
    let policy = b"version: 1\ncatalog: {name: c, resources: [{name: r, actions: [get]}]}";
    let policy = load_policy(policy, &Catalogs::default()).unwrap();
    let snapshot = Snapshot::build(&policy.model, revision).unwrap();
    Current::of_document(snapshot, policy.credentials)
}

fn kept(published: &Published) -> Vec<u64> {
    (1..100).filter(|revision| published.kept(*revision).is_some()).collect()
}

/// Publishes a revision of which pages of a list are given. Returns how many are freed beside the one that is replaced.
fn publish_and_list(published: &Published, number: u64, replaced_bytes: usize) -> usize {
    let freed = published.publish(revision(number), replaced_bytes);
    published.keep(&published.current().unwrap());
    freed.len() - usize::from(number > 1)
}

#[tokio::test(start_paused = true)]
async fn a_revision_is_kept_for_its_time() {
    let retention = Retention { time: Duration::from_secs(60), bytes_max: usize::MAX };
    let published = Published::new(retention);
    for number in 1..=5 {
        assert_eq!(publish_and_list(&published, number, 1), 0);
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    // Revision 2 replaced revision 1 forty seconds ago.
    assert_eq!(kept(&published), [1, 2, 3, 4, 5]);
    tokio::time::advance(Duration::from_secs(20)).await;
    let freed = published.expire();
    assert_eq!(freed.iter().map(|one| one.snapshot.revision()).collect::<Vec<_>>(), [1]);
    assert_eq!(kept(&published), [2, 3, 4, 5]);
    tokio::time::advance(Duration::from_secs(3_600)).await;
    assert_eq!(published.expire().len(), 3);
    assert_eq!(kept(&published), [5], "the served revision does not expire");
}

#[tokio::test(start_paused = true)]
async fn revisions_are_kept_up_to_a_number_of_bytes() {
    let retention = Retention { time: Duration::from_secs(60), bytes_max: 1_000 };
    let published = Published::new(retention);
    for number in 1..=50 {
        assert_eq!(publish_and_list(&published, number, 20), 0, "{number}");
    }
    assert_eq!(kept(&published).len(), 50, "49 earlier ones of 20 bytes, and the one served");
    assert_eq!(publish_and_list(&published, 51, 900), 44);
    assert_eq!(kept(&published), [45, 46, 47, 48, 49, 50, 51]);
    let freed = publish_and_list(&published, 52, 1_001);
    assert_eq!(freed, 7, "one that is larger than the limit is not kept");
    assert_eq!(kept(&published), [52]);
}

/// Writes that nobody lists take no memory. What a kept revision holds grows with what is replaced behind it.
#[tokio::test(start_paused = true)]
async fn a_revision_that_no_list_needs_is_freed_when_it_is_replaced() {
    let retention = Retention { time: Duration::from_secs(60), bytes_max: 1_000 };
    let published = Published::new(retention);
    publish_and_list(&published, 1, 0);
    for number in 2..=10 {
        let freed = published.publish(revision(number), 100);
        assert_eq!(freed.len(), 1);
        assert_eq!(Arc::strong_count(&freed[0]), if number == 2 { 2 } else { 1 });
    }
    assert_eq!(kept(&published), [1, 10]);
    published.publish(revision(11), 100);
    assert_eq!(kept(&published), [1, 11]);
    published.publish(revision(12), 100);
    assert_eq!(kept(&published), [12], "more than 1,000 bytes are not shared with revision 1");
}

/// One whose memory takes long to free is left to the next tick.
#[tokio::test(start_paused = true)]
async fn a_large_revision_is_freed_later() {
    let retention = Retention { time: Duration::from_secs(60), bytes_max: usize::MAX };
    let published = Published::new(retention);
    published.publish(revision(1), 0);
    let freed = published.publish(revision(2), FREED_LATER_BYTES - 1);
    assert_eq!((freed.len(), Arc::strong_count(&freed[0])), (1, 1));
    let freed = published.publish(revision(3), FREED_LATER_BYTES);
    assert_eq!((freed.len(), Arc::strong_count(&freed[0])), (1, 2), "it is in the list");
    assert_eq!(kept(&published), [3], "no list finds it");
    drop(freed);
    let freed = published.expire();
    assert_eq!((freed.len(), Arc::strong_count(&freed[0])), (1, 1));
    assert!(published.expire().is_empty());
    // Of several that come before the tick, one waits for it.
    published.publish(revision(4), FREED_LATER_BYTES);
    let freed = published.publish(revision(5), FREED_LATER_BYTES);
    let count = |one: &Arc<Current>| (one.snapshot.revision(), Arc::strong_count(one));
    let counts: Vec<_> = freed.iter().map(count).collect();
    assert_eq!(counts, [(3, 1), (4, 2)]);
}

/// The first page of a list may come late: its revision has been replaced, by one that another list needs.
#[tokio::test(start_paused = true)]
async fn a_revision_that_is_replaced_already_is_kept_in_its_place() {
    let retention = Retention { time: Duration::from_secs(60), bytes_max: usize::MAX };
    let published = Published::new(retention);
    published.publish(revision(1), 1);
    let late = published.current().unwrap();
    tokio::time::advance(Duration::from_secs(10)).await;
    for number in 2..=4 {
        publish_and_list(&published, number, 1);
    }
    assert_eq!(kept(&published), [2, 3, 4]);
    tokio::time::advance(Duration::from_secs(50)).await;
    published.keep(&late);
    published.keep(&late);
    assert_eq!(kept(&published), [1, 2, 3, 4]);
    // All of them were replaced fifty seconds ago.
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(published.expire().len(), 3);
    published.keep(&late);
    assert_eq!(kept(&published), [4], "its time is over");
}

/// A revision of an earlier epoch may name what a restore has undone, so it is refused like one of a later epoch.
#[tokio::test(start_paused = true)]
async fn a_revision_of_another_epoch_is_refused() {
    let published = Published::new(Retention { time: Duration::from_secs(60), bytes_max: 1_000 });
    let at = |epoch: u64, sequence: u64| (epoch << 40) + sequence;
    published.publish(revision(at(2, 7)), 1);
    for wanted in [0, at(2, 1), at(2, 7)] {
        assert!(published.read(Freshness::AtLeast(wanted)).await.is_ok(), "{wanted}");
    }
    for wanted in [1, at(1, 1), at(1, 7), at(3, 1)] {
        let refused = published.read(Freshness::AtLeast(wanted)).await.unwrap_err();
        assert_eq!(refused, RequestError::StoreEpoch { wanted, held: at(2, 7) });
    }
    let late = published.read(Freshness::AtLeast(at(2, 8))).await.unwrap_err();
    assert!(matches!(late, RequestError::RevisionNotAvailable { .. }), "{late}");
}

/// A view of no entries.
#[derive(Debug)]
struct Empty(Head);

impl View for Empty {
    fn head(&self) -> Head {
        self.0
    }

    fn get(&self, _: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(None)
    }

    fn scan(
        &self,
        _: (Bound<&[u8]>, Bound<&[u8]>),
        _: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        Ok(())
    }
}

#[test]
fn an_earlier_revision_keeps_its_view_for_a_list_and_no_other() {
    let retention = Retention { time: Duration::from_secs(60), bytes_max: usize::MAX };
    let published = Published::new(retention);
    let mut head = Head::empty(1);
    let mut publish = || {
        head = head.next(&[]);
        let snapshot = revision(head.revision()).snapshot;
        published
            .publish(Current::of_store(snapshot, Arc::new(Empty(head)), Secrets::default()), 1);
        published.current().unwrap()
    };
    let unlisted = publish();
    let view = unlisted.view().unwrap();
    let mut pinned = vec![];
    // A list begins with a revision, which may be replaced before its first page is made.
    for _ in 0..PINNED_VIEWS_MAX {
        let current = publish();
        let view = current.view().unwrap();
        if pinned.len() % 2 == 0 {
            publish();
            assert!(current.view().is_none(), "nobody has asked for it");
        }
        published.pin(&current, view);
        pinned.push(current);
    }
    publish();
    assert!(pinned.iter().all(|one| one.view().is_some()));
    assert!(unlisted.view().is_none());
    // One more: the list that began first has to begin anew.
    published.pin(&unlisted, view);
    assert!(unlisted.view().is_some(), "of an old revision, but the newest list");
    assert!(pinned[0].view().is_none());
    let current = publish();
    published.pin(&current, current.view().unwrap());
    // Again is no further one.
    published.pin(&current, current.view().unwrap());
    let last = publish();
    assert!(pinned[1].view().is_none());
    assert!(pinned[2..].iter().all(|one| one.view().is_some()));
    assert!(current.view().is_some() && last.view().is_some());
}

/// A paged list finds its revision while others are published, in every order of steps.
#[test]
fn a_kept_revision_is_found_while_others_are_published() {
    let revisions: Vec<_> = (1..=3).map(|number| revision(number).snapshot).collect();
    let revision = move |number: u64| {
        let snapshot = revisions[usize::try_from(number).unwrap() - 1].clone();
        Current::of_document(snapshot, Credentials::default())
    };
    let revision = Arc::new(revision);
    interleave::check(move || {
        let retention = Retention { time: Duration::from_secs(60), bytes_max: usize::MAX };
        let published = Arc::new(Published::new(retention));
        published.publish(revision(1), 1);
        let first = published.current().unwrap();
        let (writer, of) = (Arc::clone(&published), Arc::clone(&revision));
        let writer = shuttle::thread::spawn(move || {
            for number in 2..=3 {
                writer.publish(of(number), 1);
            }
        });
        interleave::point();
        published.keep(&first);
        interleave::point();
        let mut latest = 0;
        for _ in 0..3 {
            assert!(published.kept(1).is_some(), "revision 1 is gone");
            let current = published.current().unwrap();
            let number = current.snapshot.revision();
            assert!(number >= latest, "revision {number} after {latest}");
            interleave::point();
            published.keep(&current);
            interleave::point();
            assert!(published.kept(number).is_some());
            latest = number;
            interleave::point();
        }
        writer.join().unwrap();
        let kept = kept(&published);
        assert!(kept.contains(&1) && kept.contains(&latest) && kept.contains(&3), "{kept:?}");
    });
}
