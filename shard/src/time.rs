//! Time as the cores see it.

use std::ops::{Add, AddAssign};
use std::time::Duration;

/// Nanoseconds since the UNIX epoch, as the engine tells them: the wall clock at the start, advanced by the
/// time in which the shard ran. It never goes back within a process, and may differ from the wall clock: see
/// [`Clocks`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(u64);

impl Instant {
    /// The instant `nanos` nanoseconds after the UNIX epoch.
    pub const fn from_unix_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the UNIX epoch.
    pub const fn unix_nanos(self) -> u64 {
        self.0
    }

    /// Milliseconds since the UNIX epoch, rounded down.
    pub const fn unix_millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Seconds since the UNIX epoch, rounded down.
    pub const fn unix_secs(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// The time from `earlier` to `self`; zero when `earlier` is the later one.
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The other clocks, relative to a core's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clocks {
    /// How long the shard stood still: this time passed, but does not count for the core.
    pub still: Duration,
    /// How far ahead of the core's time the wall clock is, in ns: it was set, the process started under a
    /// wrong one, or stood still.
    pub wall_ahead_ns: i64,
}

impl Clocks {
    /// The time that orders what nodes make: it never goes back, and goes on while the shard stands still, as
    /// the clocks of other nodes do.
    pub fn order(self, now: Instant) -> Instant {
        now + self.still
    }

    /// Seconds since the UNIX epoch by the wall clock.
    pub const fn wall_secs(self, now: Instant) -> u64 {
        self.wall_millis(now) / 1_000
    }

    /// Milliseconds since the UNIX epoch by the wall clock.
    pub const fn wall_millis(self, now: Instant) -> u64 {
        now.0.saturating_add_signed(self.wall_ahead_ns) / 1_000_000
    }

    /// When the wall clock shows `secs` since the UNIX epoch, unless it is set before then; `now` if it does
    /// already.
    pub fn at_wall_secs(self, now: Instant, secs: u64) -> Instant {
        let nanos = secs.saturating_mul(1_000_000_000);
        Instant(nanos.saturating_add_signed(self.wall_ahead_ns.saturating_neg())).max(now)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, span: Duration) -> Instant {
        let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, span: Duration) {
        *self = *self + span;
    }
}
