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
    /// Takes `tokens`, or all of a full bucket if it never holds as many. False, and nothing changes, if
    /// there are too few.
    pub fn take(&mut self, now: Instant, rate: Rate, tokens: u32) -> bool {
        let full_at = self.full_at.max(now) + (rate.per_token * tokens).min(rate.depth);
        if full_at.since(now) > rate.depth {
            return false;
        }
        self.full_at = full_at;
        true
    }
}

impl Bucket {
    /// Takes so many tokens also when they are not there.
    pub fn owe(&mut self, now: Instant, rate: Rate, tokens: u32) {
        self.full_at = self.full_at.max(now) + rate.per_token * tokens;
    }

    /// Whether more was taken than the bucket had, which has not come back yet.
    pub fn owes(&self, now: Instant, rate: Rate) -> bool {
        self.full_at.since(now) > rate.depth
    }

    /// When all that was taken has come back.
    pub const fn full_at(&self) -> Instant {
        self.full_at
    }
}

/// A bucket that many take from, and that no taker can keep empty: one that has taken more than four times
/// what is left gets no more, as in [`Shares`](crate::Shares). Its tokens come back at the bucket's rate.
#[derive(Debug)]
pub struct SharedBucket<K> {
    bucket: Bucket,
    /// Those that took tokens, and by when all of theirs have come back.
    takers: Vec<(K, Instant)>,
}

/// How many takers are known at once; beyond that, those that took least are forgotten.
const TAKERS_MAX: usize = 32;
/// How many times what is left a taker may have and still get more.
const LEFT_PARTS: u32 = 4;

impl<K> Default for SharedBucket<K> {
    fn default() -> Self {
        Self { bucket: Bucket::default(), takers: Vec::new() }
    }
}

impl<K: Copy + Eq> SharedBucket<K> {
    /// Takes `tokens` as [`Bucket::take`] does. False, and nothing changes, if there are too few, or if this
    /// taker took too many of those that are gone.
    pub fn take(&mut self, now: Instant, rate: Rate, taker: K, tokens: u32) -> bool {
        let left = rate.depth.saturating_sub(self.bucket.full_at.since(now));
        let at = self.takers.iter().position(|(known, _)| *known == taker);
        let back_at = at.map_or(now, |at| self.takers[at].1.max(now));
        if back_at.since(now) > left * LEFT_PARTS || !self.bucket.take(now, rate, tokens) {
            return false;
        }
        let back_at = back_at + (rate.per_token * tokens).min(rate.depth);
        match at {
            Some(at) => self.takers[at].1 = back_at,
            None => self.enter(now, taker, back_at),
        }
        true
    }

    fn enter(&mut self, now: Instant, taker: K, back_at: Instant) {
        if self.takers.len() >= TAKERS_MAX {
            self.takers.retain(|(_, back_at)| *back_at > now);
        }
        if self.takers.len() >= TAKERS_MAX {
            let least = (0..self.takers.len()).min_by_key(|at| self.takers[*at].1);
            if let Some(least) = least {
                self.takers.swap_remove(least);
            }
        }
        self.takers.push((taker, back_at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However much one takes, a newcomer finds something, and it can take what nobody else wants.
    #[test]
    fn a_shared_bucket_has_something_for_a_newcomer() {
        let rate = Rate::new(1_000, 4_096);
        let mut bucket = SharedBucket::default();
        let mut now = Instant::from_unix_nanos(1_000_000_000_000);
        let mut taken_by =
            |now, taker: u32, times| (0..times).filter(|_| bucket.take(now, rate, taker, 1)).count();
        let at_once = taken_by(now, 1, 10_000);
        assert!((3_276..=3_278).contains(&at_once), "four fifths, not {at_once}");
        assert_eq!(taken_by(now, 2, 100), 100);
        let mut greedy = 0;
        for _ in 0..50 {
            now += Duration::from_millis(100);
            greedy += taken_by(now, 1, 1_000);
            assert_eq!(taken_by(now, 2, 10), 10);
        }
        assert!((4_000..=4_600).contains(&greedy), "what the other leaves of 5,000, not {greedy}");
    }

    /// Takers that are forgotten are those that took least.
    #[test]
    fn a_shared_bucket_knows_a_bounded_number_of_takers() {
        let rate = Rate::new(1_000, 4_096);
        let mut bucket = SharedBucket::default();
        let now = Instant::from_unix_nanos(1_000_000_000_000);
        let taken = (0..10_000).filter(|_| bucket.take(now, rate, 1, 1)).count();
        (2..200).for_each(|taker| assert!(bucket.take(now, rate, taker, 1)));
        assert_eq!(bucket.takers.len(), TAKERS_MAX);
        assert!(!bucket.take(now, rate, 1, 1), "it took {taken}");
    }

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
