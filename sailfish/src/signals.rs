//! The signals that a serving process handles.

use std::fmt;
use std::io;

use anyhow::Context;
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// SIGTERM, SIGINT and SIGHUP. Taken before anything else is done: from then on they do not end the process
/// by themselves.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// What a signal asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// SIGTERM or SIGINT.
    End,
    /// SIGHUP.
    Reload,
}

/// The process was told to end before it was ready.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("told to end before it was ready")
    }
}

impl std::error::Error for Interrupted {}

impl Signals {
    /// Takes these signals, on the runtime that waits for them.
    pub fn take(runtime: &Runtime) -> io::Result<Self> {
        let _context = runtime.enter();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Wish {
        tokio::select! {
            biased; // the end before a reload
            _ = self.terminate.recv() => Wish::End,
            _ = self.interrupt.recv() => Wish::End,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }

    /// Waits for the order to end.
    pub async fn end(&mut self) {
        while self.next().await != Wish::End {}
    }

    /// Runs `start` on a thread of its own, since it may wait for others.
    ///
    /// # Errors Those of the start, or [`Interrupted`] when the order to end comes first. Then the process is
    /// to end: the thread goes on.
    pub fn unless_ended<T: Send + 'static>(
        &mut self,
        runtime: &Runtime,
        start: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let (done, started) = oneshot::channel();
        // Not one of the runtime's, whose end would wait for it.
        std::thread::Builder::new().name("start".into()).spawn(move || done.send(start()))?;
        runtime.block_on(async {
            tokio::select! {
                biased; // what has started is ended in order
                started = started => started.context("the start panicked")?,
                () = self.end() => Err(Interrupted.into()),
            }
        })
    }
}
