//! A clock for login stamps.

use super::Login;

/// By what clocks may differ without a word: logins of one user are further apart.
const NOTABLE_NS: u64 = 10_000_000;

/// A clock that shows as much as the fastest it has heard of, so that stamps of nodes whose clocks differ order logins as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct StampClock {
    ahead_ns: u64,
}

impl StampClock {
    /// Another clock showed this a moment ago. Whether it is so far ahead that others should hear of it.
    pub fn hear(&mut self, now_ns: u64, shown: Login) -> bool {
        let before = self.ahead_ns;
        self.ahead_ns = before.max(shown.0.saturating_sub(now_ns));
        self.ahead_ns - before > NOTABLE_NS
    }

    /// What it shows when the own clock shows `now_ns`.
    pub fn show(&self, now_ns: u64) -> Login {
        Login(now_ns.saturating_add(self.ahead_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fastest_clock_counts() {
        let mut clock = StampClock::default();
        assert_eq!(clock.show(10), Login(10));
        assert!(!clock.hear(10, Login(3_010)));
        assert!(!clock.hear(10, Login(7)));
        assert!(!clock.hear(3_500, Login(4_000)));
        assert_eq!(clock.show(4_000), Login(7_000));
        assert!(clock.hear(0, Login(u64::MAX)));
        assert_eq!(clock.show(5), Login(u64::MAX));
    }
}
