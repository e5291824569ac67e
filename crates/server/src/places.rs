//! Places for calls that last: so many in all, and so many of one caller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use capstan_engine::PathBuf;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Calls by caller; the operator's have no path.
type Callers = Arc<Mutex<HashMap<Option<PathBuf>, usize>>>;

/// Places that calls take until they end. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    callers: Callers,
    caller_max: usize,
}

/// A place that is taken. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    caller: Option<PathBuf>,
    callers: Callers,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    /// So many places, and so many of one caller.
    pub(crate) fn new(all: usize, caller_max: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), callers: Callers::default(), caller_max }
    }

    /// A place for a call; `None` if all are taken, or all that one caller may have.
    pub(crate) fn take(&self, caller: Option<PathBuf>) -> Option<Place> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let mut counts = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(caller.clone()).or_default();
        if *count >= self.caller_max {
            return None;
        }
        *count = count.saturating_add(1);
        drop(counts);
        Some(Place { caller, callers: Arc::clone(&self.callers), _permit: permit })
    }

    /// Places that are free.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.all.available_permits()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.caller) {
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
        let caller = |name: &str| Some(name.parse().unwrap());
        let mut taken = vec![places.take(None).unwrap(), places.take(None).unwrap()];
        assert!(places.take(None).is_none(), "of one caller");
        taken.push(places.take(caller("alice")).unwrap());
        assert!(places.take(caller("bob")).is_none(), "in all");
        assert_eq!(places.free(), 0);
        drop(taken);
        assert_eq!((places.free(), places.callers.lock().unwrap().len()), (3, 0));
    }
}
