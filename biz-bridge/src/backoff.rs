//! How long to wait before the next try.

use std::time::Duration;

/// Exponential back-off with jitter: the waits double from the first to the longest, and chance picks the
/// upper half of each, so that those who failed together do not come back together.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
}

impl Backoff {
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first: first.min(max), max }
    }

    /// The wait after `failures` in a row, at least 1.
    pub fn wait(&self, failures: u32, random: &mut Random) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        let whole = self.first.saturating_mul(1 << doublings).min(self.max);
        let half = whole / 2;
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        half + Duration::from_nanos(random.up_to(nanos))
    }
}

/// A SplitMix64 generator (Steele, Lea and Flood 2014): the same seed gives the same numbers.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 to `max`.
    pub fn up_to(&mut self, max: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let wide = u128::from(mix(self.0)) * (u128::from(max) + 1);
        u64::try_from(wide >> 64).expect("the high half of 128 bits")
    }
}

/// Spreads the bits of a number over all of it: the output function of SplitMix64.
pub fn mix(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const MAX: Duration = Duration::from_secs(10);

    #[test]
    fn waits_double_up_to_the_longest() {
        let (backoff, mut random) = (Backoff::new(FIRST, MAX), Random::new(1));
        for (failures, whole_ms) in
            [(1, 100), (2, 200), (3, 400), (7, 6_400), (8, 10_000), (40, 10_000), (u32::MAX, 10_000)]
        {
            let whole = Duration::from_millis(whole_ms);
            for _ in 0..100 {
                let wait = backoff.wait(failures, &mut random);
                assert!(wait >= whole / 2 && wait <= whole, "{wait:?} after {failures} failures");
            }
        }
    }

    #[test]
    fn chance_spreads_them_and_a_seed_repeats_them() {
        let backoff = Backoff::new(FIRST, MAX);
        let waits = |seed| {
            let mut random = Random::new(seed);
            (0..64).map(|_| backoff.wait(1, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
        let early = waits(7).into_iter().filter(|wait| *wait < FIRST * 3 / 4).count();
        assert!((16..=48).contains(&early), "{early} of 64 in the lower half");
    }

    #[test]
    fn odd_bounds_do_no_harm() {
        let mut random = Random::new(1);
        assert_eq!(Backoff::new(Duration::ZERO, Duration::ZERO).wait(9, &mut random), Duration::ZERO);
        assert!(Backoff::new(MAX, FIRST).wait(9, &mut random) <= FIRST);
        assert!(Backoff::new(Duration::MAX, Duration::MAX).wait(9, &mut random) >= Duration::from_secs(1));
    }
}
