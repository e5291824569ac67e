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

#[tokio::test(start_paused = true)]
async fn a_revision_is_kept_for_its_time() {
    let retention = Retention { time: Duration::from_secs(60), bytes_max: usize::MAX };
    let published = Published::new(retention);
    for number in 1..=5 {
        assert!(published.publish(revision(number), 1).is_empty());
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
        assert!(published.publish(revision(number), 20).is_empty(), "{number}");
    }
    assert_eq!(kept(&published).len(), 50, "49 earlier ones of 20 bytes, and the one served");
    let freed = published.publish(revision(51), 900);
    assert_eq!(freed.len(), 44);
    assert_eq!(kept(&published), [45, 46, 47, 48, 49, 50, 51]);
    let freed = published.publish(revision(52), 1_001);
    assert_eq!(freed.len(), 7, "one that is larger than the limit is not kept");
    assert_eq!(kept(&published), [52]);
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
        let (writer, of) = (Arc::clone(&published), Arc::clone(&revision));
        let writer = shuttle::thread::spawn(move || {
            for number in 2..=3 {
                writer.publish(of(number), 1);
            }
        });
        let mut latest = 0;
        for _ in 0..3 {
            assert!(published.kept(1).is_some(), "revision 1 is gone");
            let current = published.current().unwrap().snapshot.revision();
            assert!(current >= latest, "revision {current} after {latest}");
            assert!(published.kept(current).is_some());
            latest = current;
            interleave::point();
        }
        writer.join().unwrap();
        assert_eq!(kept(&published), [1, 2, 3]);
    });
}
