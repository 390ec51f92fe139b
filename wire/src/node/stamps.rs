//! A clock for login stamps.

use super::Login;

/// By what clocks may differ without a word: logins of one user are further apart.
const NOTABLE_NS: u64 = 10_000_000;

/// How many announcements of a session its stamp has room for before it looks like another.
const STEP_NS: u64 = 256;

/// By what another clock may be ahead: a day.
pub(super) const AHEAD_NS_MAX: u64 = 24 * 60 * 60 * 1_000_000_000;

impl Login {
    /// The stamp as far as it is believed when the own clock shows `now_ns`: no clock is a day ahead.
    pub fn believed(self, now_ns: u64) -> Self {
        self.min(Self(now_ns.saturating_add(AHEAD_NS_MAX)))
    }

    /// The stamp without what announcements have added to it: each raises it by one.
    pub fn step(self) -> u64 {
        self.0 / STEP_NS
    }

    /// The next stamp that no announcement raises this one to. All stamps of one step are raised to the same
    /// one.
    pub fn raised(self) -> Self {
        Self((self.step() + 1).saturating_mul(STEP_NS))
    }
}

/// A clock that shows as much as the fastest it has heard of, so that stamps of nodes whose clocks differ
/// order logins as they came.
#[derive(Clone, Copy, Debug, Default)]
pub struct StampClock {
    ahead_ns: u64,
}

impl StampClock {
    /// Another clock showed this a moment ago. By how many ns this one is put forward, if others should hear
    /// of it; else 0.
    pub fn hear(&mut self, now_ns: u64, shown: Login) -> u64 {
        let before = self.ahead_ns;
        // One that is further ahead than clocks go is no clock.
        let ahead = shown.0.saturating_sub(now_ns);
        self.ahead_ns = if ahead > AHEAD_NS_MAX { before } else { before.max(ahead) };
        let forward = self.ahead_ns - before;
        if forward > NOTABLE_NS { forward } else { 0 }
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
        assert_eq!(clock.hear(10, Login(3_010)), 0, "hardly");
        assert_eq!(clock.hear(10, Login(7)), 0);
        assert_eq!(clock.hear(3_500, Login(4_000)), 0);
        assert_eq!(clock.show(4_000), Login(7_000));
        assert_eq!(clock.hear(0, Login(3_000 + 2 * NOTABLE_NS)), 2 * NOTABLE_NS);
        assert_eq!(clock.hear(0, Login(u64::MAX)), 0, "that is no clock");
        assert_eq!(clock.show(5), Login(5 + 3_000 + 2 * NOTABLE_NS));
    }
}
