//! Token buckets.

use std::time::Duration;

use crate::Instant;

/// A token bucket as one instant (the generic cell rate algorithm of ITU-T I.371): the time at which the
/// bucket is full again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    full_at: Instant,
}

/// The rate and depth of buckets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    per_token: Duration,
    depth: Duration,
}

impl Rate {
    /// `per_second` tokens sustained, `burst` at once.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let per_token = Duration::from_secs(1) / per_second;
        Self { per_token, depth: per_token * burst }
    }
}

impl Bucket {
    /// Takes so many tokens, or all of a full bucket if it never holds as many; false, and nothing changes,
    /// when they are not there.
    pub fn take(&mut self, now: Instant, rate: Rate, tokens: u32) -> bool {
        let full_at = self.full_at.max(now) + (rate.per_token * tokens).min(rate.depth);
        if full_at.since(now) > rate.depth {
            return false;
        }
        self.full_at = full_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate::new(10, 5);
        let mut bucket = Bucket::default();
        let mut now = Instant::from_unix_nanos(1_000_000_000_000);
        let taken = (0..20).filter(|_| bucket.take(now, rate, 1)).count();
        assert_eq!(taken, 5);
        now += Duration::from_millis(99);
        assert!(!bucket.take(now, rate, 1));
        now += Duration::from_millis(1);
        assert!(bucket.take(now, rate, 1));
        assert!(!bucket.take(now, rate, 1));
        now += Duration::from_secs(3_600);
        assert_eq!((0..20).filter(|_| bucket.take(now, rate, 1)).count(), 5);
    }

    #[test]
    fn several_tokens_are_taken_at_once_or_none() {
        let rate = Rate::new(10, 5);
        let mut bucket = Bucket::default();
        let now = Instant::from_unix_nanos(1_000_000_000_000);
        assert!(bucket.take(now, rate, 3));
        assert!(!bucket.take(now, rate, 3));
        assert!(bucket.take(now, rate, 2));
        let later = now + Duration::from_secs(10);
        assert!(bucket.take(later, rate, 100), "a full bucket serves what it could never hold");
        assert!(!bucket.take(later, rate, 1));
    }
}
