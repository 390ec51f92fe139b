//! A clock for login stamps.

use super::Login;

/// A clock that shows as much as the fastest it has heard of, so that stamps of nodes whose clocks differ order logins as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct StampClock {
    ahead_ns: u64,
}

impl StampClock {
    /// Another clock showed this a moment ago.
    pub fn hear(&mut self, now_ns: u64, shown: Login) {
        self.ahead_ns = self.ahead_ns.max(shown.0.saturating_sub(now_ns));
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
        clock.hear(10, Login(3_010));
        clock.hear(10, Login(7));
        clock.hear(3_500, Login(4_000));
        assert_eq!(clock.show(4_000), Login(7_000));
        clock.hear(0, Login(u64::MAX));
        assert_eq!(clock.show(5), Login(u64::MAX));
    }
}
