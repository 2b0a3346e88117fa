//! Ctrl-C and its like, as values.

use crate::exit::Exit;
use crate::failure::Failure;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals of this process. As long as it lives, they do not end the process by themselves.
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    /// Takes over the signals.
    pub(super) fn take() -> Result<Self, Failure> {
        let failed = |error: std::io::Error| Failure::new(Exit::Error, &error);
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            hang_up: signal(SignalKind::hangup()).map_err(failed)?,
        })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
            _ = self.hang_up.recv() => Exit::Terminated,
        }
    }

    /// Runs work that may be dropped at any moment: it ends at the first signal.
    pub(super) async fn guard<T, E: From<Failure>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        tokio::select! {
            outcome = work => outcome,
            exit = self.next() => Err(Failure::message(exit, "interrupted; the target was not touched").into()),
        }
    }
}
