//! What the connections of a worker do one after another.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// What one worker does with one message at a time. Nothing waits for two turns, or for anything else in its turn
/// but the call that decodes.
#[derive(Clone, Debug)]
pub(crate) struct Turns {
    /// For the long message that is decoded.
    pub(super) decoding: Arc<Semaphore>,
    /// For the long message that is decompressed.
    pub(super) inflating: Arc<Semaphore>,
    /// For the answer that is compressed.
    pub(super) deflating: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        let [decoding, inflating, deflating] = [(); 3].map(|()| Arc::new(Semaphore::new(1)));
        Self { decoding, inflating, deflating }
    }
}
