//! The waker of a connection's task, which does not wake the task for what the task itself does.
//!
//! A response wakes the task of its connection, which writes it. The task starts most calls itself and then
//! writes their responses, so those wakes would only cost an empty poll each.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::AcqRel, Ordering::Acquire};
use std::task::{Context, Wake, Waker};

use futures_util::task::AtomicWaker;

use crate::interleave;

const IDLE: u8 = 0;
const POLLING: u8 = 1;
const WOKEN: u8 = 2;

/// Wakes the task after the runtime has looked at its sockets and has woken the tasks that wait for them. A plain wake
/// would let busy tasks run several times between two looks.
pub(super) fn come_again(cx: &mut Context<'_>) {
    let _ = pin!(tokio::task::yield_now()).poll(cx);
}

/// Wakes the task, or only notes the wake while the task runs.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Gate {
    /// The gate, and the waker to poll with.
    pub(super) fn new() -> (Arc<Self>, Waker) {
        let gate = Arc::<Self>::default();
        let waker = Waker::from(Arc::clone(&gate));
        (gate, waker)
    }

    /// The task runs. Its waker is kept for wakes after [`Gate::close`].
    pub(super) fn open(&self, cx: &Context<'_>) {
        self.task.register(cx.waker());
        self.again();
    }

    /// Forgets wakes so far: what they are for is polled from here on.
    pub(super) fn again(&self) {
        self.state.swap(POLLING, AcqRel);
    }

    /// The task stops running although there may have been a wake, and comes again.
    pub(super) fn pass(&self, cx: &mut Context<'_>) {
        self.state.swap(IDLE, AcqRel);
        come_again(cx);
    }

    /// The task stops running. False if there was a wake since the last [`Gate::again`]: then the
    /// task must poll again.
    pub(super) fn close(&self) -> bool {
        interleave::point();
        self.state.compare_exchange(POLLING, IDLE, AcqRel, Acquire).is_ok()
    }
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        interleave::point();
        if self.state.swap(WOKEN, AcqRel) == IDLE {
            interleave::point();
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn a_running_task_is_not_woken() {
        let task = Arc::<Task>::default();
        let outer = Waker::from(Arc::clone(&task));
        let (gate, waker) = Gate::new();
        gate.open(&Context::from_waker(&outer));
        waker.wake_by_ref();
        assert!(!gate.close(), "the wake is known");
        gate.again();
        assert!(gate.close());
        assert_eq!(task.0.load(SeqCst), 0);
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(task.0.load(SeqCst), 1);
    }

    /// Work that another thread announces with a wake is seen before the task sleeps, or the task is
    /// woken for it.
    #[test]
    fn no_wake_is_lost() {
        crate::interleave::check(|| {
            let task = Arc::<Task>::default();
            let outer = Waker::from(Arc::clone(&task));
            let (gate, waker) = Gate::new();
            let work = Arc::new(AtomicBool::new(false));
            gate.open(&Context::from_waker(&outer));
            let other = shuttle::thread::spawn({
                let work = Arc::clone(&work);
                move || {
                    work.store(true, SeqCst);
                    waker.wake();
                }
            });
            let mut seen;
            loop {
                gate.again();
                seen = work.load(SeqCst);
                if gate.close() {
                    break;
                }
            }
            other.join().unwrap();
            assert!(seen || task.0.load(SeqCst) > 0, "a wake is lost");
        });
    }
}
