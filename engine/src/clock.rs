//! The clock that engines tell the time from.
#![allow(unsafe_code)]

use std::time::{SystemTime, UNIX_EPOCH};

use shard::Instant;

/// The wall clock at the start, advanced by `CLOCK_MONOTONIC`: never goes back. Copies agree, and so do
/// processes of one machine that share the [`Clock::offset`]. [`shard::Event::Clocks`] tells a core where the
/// wall clock has gone since.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    offset_ns: u64,
}

impl Clock {
    /// Reads the wall clock.
    pub fn start() -> Self {
        Self { offset_ns: wall_ns().saturating_sub(monotonic_ns()) }
    }

    /// A clock that agrees with the one whose [`Clock::offset`] this is.
    pub const fn with_offset(offset_ns: u64) -> Self {
        Self { offset_ns }
    }

    /// Nanoseconds from the zero of `CLOCK_MONOTONIC` back to the UNIX epoch.
    pub const fn offset(self) -> u64 {
        self.offset_ns
    }

    /// The time.
    pub fn now(self) -> Instant {
        Instant::from_unix_nanos(self.offset_ns + monotonic_ns())
    }
}

/// Nanoseconds since the UNIX epoch by the wall clock; 0 before it.
#[allow(clippy::disallowed_methods)] // this is where time comes in
pub(crate) fn wall_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64)
}

fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec to write to; the call touches nothing else.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    assert_eq!(failed, 0, "every Linux has CLOCK_MONOTONIC");
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn clocks_of_one_offset_agree() {
        let ours = Clock::start();
        let theirs = Clock::with_offset(ours.offset());
        let (first, second, third) = (ours.now(), theirs.now(), ours.now());
        assert!(first <= second && second <= third);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(ours.now().unix_secs().abs_diff(wall) <= 1);
    }
}
