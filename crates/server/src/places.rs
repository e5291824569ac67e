//! Places for what lasts: so many in all, and so many of one caller, or of one peer.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use capstan_engine::PathBuf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The number of places of each.
type Counts<K> = Arc<Mutex<HashMap<K, usize>>>;

/// Places that are taken until something ends: by callers, of whom the operator has no path, or by others. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Places<K: Eq + Hash = Option<PathBuf>> {
    all: Arc<Semaphore>,
    counts: Counts<K>,
    each_max: usize,
}

/// A place that is taken. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place<K: Eq + Hash = Option<PathBuf>> {
    of: K,
    counts: Counts<K>,
    _permit: OwnedSemaphorePermit,
}

impl<K: Clone + Eq + Hash> Places<K> {
    /// So many places, and so many of each.
    pub(crate) fn new(all: usize, each_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), counts: Counts::default(), each_max }
    }

    /// A place; `None` if all are taken, or all that one may have.
    pub(crate) fn take(&self, of: K) -> Option<Place<K>> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(of.clone()).or_default();
        if *count >= self.each_max {
            return None;
        }
        *count = count.saturating_add(1);
        drop(counts);
        Some(Place { of, counts: Arc::clone(&self.counts), _permit: permit })
    }

    /// Places that are free.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.all.available_permits()
    }
}

impl<K: Eq + Hash> Drop for Place<K> {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.of) {
            *count = count.saturating_sub(1);
        }
        counts.retain(|_, count| *count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_by_caller() {
        let places = Places::new(3, 2);
        let caller = Some;
        let mut taken = vec![places.take(None).unwrap(), places.take(None).unwrap()];
        assert!(places.take(None).is_none(), "of one caller");
        taken.push(places.take(caller("alice")).unwrap());
        assert!(places.take(caller("bob")).is_none(), "in all");
        assert_eq!(places.free(), 0);
        drop(taken);
        assert_eq!((places.free(), places.counts.lock().unwrap().len()), (3, 0));
    }
}
