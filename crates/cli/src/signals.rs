//! Signals that end or reload a command.

use std::fmt;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};

/// A signal that a command handles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Terminate,
    Interrupt,
    HangUp,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Terminate => "SIGTERM",
            Self::Interrupt => "SIGINT",
            Self::HangUp => "SIGHUP",
        })
    }
}

/// Waits for signals. From its creation on, these signals no longer have their default action, for the
/// rest of the process's life; one that arrives before [`Signals::next`] is called is not lost.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(Signal, tokio::signal::unix::Signal)>);

impl Signals {
    /// # Errors
    ///
    /// The system does not allow a handler.
    pub(crate) fn watch(signals: &[Signal]) -> anyhow::Result<Self> {
        let watch = |watched: &Signal| {
            let kind = match watched {
                Signal::Terminate => SignalKind::terminate(),
                Signal::Interrupt => SignalKind::interrupt(),
                Signal::HangUp => SignalKind::hangup(),
            };
            let receiver = signal(kind).with_context(|| format!("cannot watch for {watched}"))?;
            Ok((*watched, receiver))
        };
        signals.iter().map(watch).collect::<anyhow::Result<_>>().map(Self)
    }

    /// The next signal.
    pub(crate) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (watched, receiver) in &mut self.0 {
                if receiver.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*watched);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// Waits for SIGTERM, SIGINT or one of these further signals, which end the command.
///
/// # Errors
///
/// As [`Signals::watch`].
pub(crate) fn stop(
    further: &[Signal],
) -> anyhow::Result<impl Future<Output = Signal> + Send + use<>> {
    let signals = [&[Signal::Terminate, Signal::Interrupt], further].concat();
    let mut signals = Signals::watch(&signals)?;
    Ok(async move { signals.next().await })
}
