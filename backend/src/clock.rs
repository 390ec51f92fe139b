//! What time it is, which tests may move.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The wall clock, plus what a test has moved it by. Cheap to clone; clones move together.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    ahead_ms: Arc<AtomicI64>,
}

impl Clock {
    /// Milliseconds since the UNIX epoch.
    pub fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_millis() as i64 + self.ahead_ms.load(Ordering::Relaxed)
    }

    /// Moves the clock ahead.
    pub fn advance_ms(&self, by: i64) {
        self.ahead_ms.fetch_add(by, Ordering::Relaxed);
    }
}
