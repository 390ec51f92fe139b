//! A clock that tests move.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use backend::Clock;

/// The system's clock, plus what a test has moved it by. Clones move together.
#[derive(Clone, Default)]
pub struct TestClock {
    ahead_ms: Arc<AtomicI64>,
}

impl TestClock {
    /// Milliseconds since the UNIX epoch.
    pub fn now_ms(&self) -> i64 {
        Clock::default().now_ms() + self.ahead_ms.load(Ordering::Relaxed)
    }

    /// Moves the clock ahead.
    pub fn advance_ms(&self, by: i64) {
        self.ahead_ms.fetch_add(by, Ordering::Relaxed);
    }

    /// What a backend is opened with.
    pub fn source(&self) -> Clock {
        let clock = self.clone();
        Clock::new(move || clock.now_ms())
    }
}
