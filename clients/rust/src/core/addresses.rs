//! Where to connect, and after which wait.

use std::collections::VecDeque;
use std::time::Duration;

use shard::Prng;
use wire::client::ALTERNATIVES_MAX;

/// The longest wait before a connect, in first waits.
const BACKOFF_TIMES_MAX: u32 = 20;

/// The servers that are known, in turns.
#[derive(Debug)]
pub(super) struct Addresses {
    home: String,
    current: String,
    others: VecDeque<String>,
}

impl Addresses {
    pub fn new(home: String) -> Self {
        Self { current: home.clone(), home, others: VecDeque::new() }
    }

    pub fn current(&self) -> &str {
        &self.current
    }

    /// Goes on to the next address, if there is another.
    pub fn rotate(&mut self) {
        if let Some(next) = self.others.pop_front() {
            self.others.push_back(std::mem::replace(&mut self.current, next));
        }
    }

    /// Goes to the alternatives that a server named: one after the other, then where the client came from.
    pub fn go_elsewhere<'a>(&mut self, alternatives: impl Iterator<Item = &'a str>) {
        let mut turns: VecDeque<String> = VecDeque::new();
        for address in alternatives.take(ALTERNATIVES_MAX) {
            if address != self.current && !turns.iter().any(|other| other == address) {
                turns.push_back(address.to_owned());
            }
        }
        let Some(next) = turns.pop_front() else { return };
        let left = std::mem::replace(&mut self.current, next);
        for address in [left, self.home.clone()] {
            if self.current != address && !turns.contains(&address) {
                turns.push_back(address);
            }
        }
        self.others = turns;
    }
}

/// A wait that grows with each failure.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
}

impl BackOff {
    /// The next wait: between 75 % and 125 % of `first`, twice as long after each failure.
    pub fn next(&mut self, first: Duration, prng: &mut Prng) -> Duration {
        let times = (1 << self.failures.min(8)).min(BACKOFF_TIMES_MAX);
        self.failures += 1;
        spread(first * times, prng)
    }

    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A time between 75 % and 125 % of another, so that clients that wait together do not act together.
pub(super) fn spread(time: Duration, prng: &mut Prng) -> Duration {
    time * (750 + prng.below(501) as u32) / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_come_first_and_home_stays_known() {
        let mut addresses = Addresses::new("home".into());
        addresses.rotate();
        assert_eq!(addresses.current(), "home");
        addresses.go_elsewhere(["b", "b", "home", "c"].into_iter());
        let mut turn = || {
            let turn = addresses.current().to_owned();
            addresses.rotate();
            turn
        };
        assert_eq!([turn(), turn(), turn(), turn()], ["b", "c", "home", "b"]);
        addresses.go_elsewhere(["d"].into_iter());
        let mut turns = Vec::new();
        for _ in 0..3 {
            turns.push(addresses.current().to_owned());
            addresses.rotate();
        }
        assert_eq!(turns, ["d", "c", "home"]);
        addresses.go_elsewhere(std::iter::empty());
        assert_eq!(addresses.current(), "d");
    }

    #[test]
    fn waits_grow_to_a_limit_with_chance_in_them() {
        let (mut back_off, mut prng) = (BackOff::default(), Prng::new(1));
        let waits: Vec<u128> =
            (0..10).map(|_| back_off.next(Duration::from_millis(100), &mut prng).as_millis()).collect();
        for (wait, nominal) in
            waits.iter().zip([100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000, 2_000, 2_000])
        {
            assert!((nominal * 3 / 4..=nominal * 5 / 4).contains(wait), "{waits:?}");
        }
        assert_ne!(waits[6], waits[7]);
        back_off.reset();
        assert!(back_off.next(Duration::from_millis(100), &mut prng).as_millis() <= 125);
    }
}
