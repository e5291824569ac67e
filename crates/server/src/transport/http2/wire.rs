//! The HTTP/2 state of a connection, which its task shares with its calls.
//!
//! **Invariant**: what a call adds while the task does not run wakes the task, which writes it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use capstan_http2::{Config, Connection};

use crate::limits::{
    CONNECTION_STREAMS_MAX, CONNECTION_WINDOW, FAULTS_MAX, HEADER_BYTES_MAX, STREAM_WINDOW,
    UNSENT_MAX,
};
use crate::transport::foreign;

/// The state of one connection.
#[derive(Debug)]
pub(super) struct Wire {
    state: Mutex<State>,
    /// Wakes the task of the connection.
    task: Waker,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) connection: Connection,
    /// Whether the task runs, and writes what is added before it sleeps.
    pub(super) is_driven: bool,
}

impl Wire {
    pub(super) fn new(task: Waker) -> Arc<Self> {
        let config = Config {
            stream_window: STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            streams_max: CONNECTION_STREAMS_MAX,
            header_bytes_max: HEADER_BYTES_MAX,
            pending_max: UNSENT_MAX,
            faults_max: FAULTS_MAX,
            refusal: foreign::http1_answer,
        };
        let state = State { connection: Connection::new(config), is_driven: false };
        Arc::new(Self { state: Mutex::new(state), task })
    }

    /// For the task of the connection.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For a call: wakes the task if there is something new to write. If there was something before, the task
    /// has been woken for it, or waits for the socket.
    pub(super) fn with<T>(&self, does: impl FnOnce(&mut Connection) -> T) -> T {
        let mut state = self.lock();
        let was_empty = state.connection.pending().is_empty();
        let done = does(&mut state.connection);
        let wakes = was_empty && !state.is_driven && !state.connection.pending().is_empty();
        drop(state);
        if wakes {
            self.task.wake_by_ref();
        }
        done
    }
}
