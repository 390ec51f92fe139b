//! The time of one shard, as its core gets it.

use std::time::Duration;

use shard::{Clocks, Instant};

use crate::Clock;
use crate::clock::wall_ns;

/// A shard that looks at its clock later than it wanted, by more than this, stood still: its process was
/// stopped, its machine paused, or its core busy with others.
const LATE_MAX: Duration = Duration::from_millis(100);
/// How long a shard that stood still may read, at most, before its core gets a deadline that has passed.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);
/// Everything was read when this many turns in a row found nothing: a runtime may run a turn before it has
/// looked at the sockets.
const QUIET_TURNS: u32 = 5;
/// The pause between two of these turns.
const QUIET_PAUSE: Duration = Duration::from_millis(2);
/// How often a busy shard looks at the wall clock.
const WALL_EVERY: Duration = Duration::from_millis(100);
/// By how much the wall clock must have moved against the core's time before the core gets it.
const WALL_STEP_NS: u64 = 50_000_000;

/// The time in which a shard ran, and where the wall clock is.
///
/// The time in which it stood still does not count beyond [`LATE_MAX`]. A peer that seems silent may have
/// sent bytes that lie in its socket, or may have stood still as well. So deadlines that fell into that time
/// come as much later, and not before there is nothing left to read.
pub(crate) struct Time {
    clock: Clock,
    counts_stillness: bool,
    told: Instant,
    /// The time between the last two looks, all of it.
    gap: Duration,
    /// By when the shard wants to look again; `None` while it waits for others only.
    due: Option<Instant>,
    /// The time that did not count, in all.
    still: Duration,
    /// Set while the shard catches up after standing still.
    catch_up: Option<CatchUp>,
    /// What the core got about other clocks last.
    clocks: Clocks,
    wall_due: Instant,
}

struct CatchUp {
    until: Instant,
    quiet_turns: u32,
}

impl Time {
    pub(crate) fn new(clock: Clock, counts_stillness: bool) -> Self {
        let now = clock.now();
        Self {
            clock,
            counts_stillness,
            told: now,
            gap: Duration::ZERO,
            due: Some(now),
            still: Duration::ZERO,
            catch_up: None,
            clocks: Clocks::default(),
            wall_due: now,
        }
    }

    /// Looks at the clock.
    pub(crate) fn now(&mut self) -> Instant {
        self.look(self.clock.now())
    }

    /// The time of the last look.
    pub(crate) fn told(&self) -> Instant {
        self.told
    }

    /// How long it was between the last two looks, standing still included.
    pub(crate) fn gap(&self) -> Duration {
        self.gap
    }

    /// How long the shard stood still, in all.
    pub(crate) fn still(&self) -> Duration {
        self.still
    }

    /// Whether this turn may act on deadlines that have passed; `has_read`: whether it read something. Call
    /// it once a turn.
    pub(crate) fn may_judge(&mut self, has_read: bool) -> bool {
        let Some(CatchUp { until, quiet_turns }) = &mut self.catch_up else { return true };
        *quiet_turns = if has_read { 0 } else { *quiet_turns + 1 };
        if *quiet_turns < QUIET_TURNS && self.told < *until {
            return false;
        }
        self.catch_up = None;
        true
    }

    /// When the next turn is, while deadlines may not be acted on.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        self.catch_up.is_some().then(|| self.told + QUIET_PAUSE)
    }

    /// Notes that the shard waits for others, until `due` at most.
    pub(crate) fn rest_until(&mut self, due: Option<Instant>) {
        self.due = due.map(|due| due.max(self.told));
    }

    /// What other clocks show, if that has changed since the core got it. Call it after a look.
    pub(crate) fn clocks_moved(&mut self) -> Option<Clocks> {
        if self.told < self.wall_due {
            return None;
        }
        self.wall_due = self.told + WALL_EVERY;
        let wall_ahead_ns = (wall_ns() as i64).saturating_sub(self.told.unix_nanos() as i64);
        let has_moved = wall_ahead_ns.abs_diff(self.clocks.wall_ahead_ns) >= WALL_STEP_NS;
        if !has_moved && self.clocks.still == self.still {
            return None;
        }
        self.clocks = Clocks { still: self.still, wall_ahead_ns };
        Some(self.clocks)
    }

    fn look(&mut self, read: Instant) -> Instant {
        let mut now = Instant::from_unix_nanos(
            read.unix_nanos().saturating_sub(self.still.as_nanos() as u64).max(self.told.unix_nanos()),
        );
        self.gap = now.since(self.told);
        let is_late = self.due.is_some_and(|due| now.since(due) > LATE_MAX);
        if is_late && !self.counts_stillness {
            let counted = self.told + self.gap.min(LATE_MAX);
            self.still += now.since(counted);
            self.wall_due = counted;
            // Not restarted while it catches up, so that a shard that is always late judges now and then.
            self.catch_up.get_or_insert(CatchUp { until: counted + CATCH_UP_MAX, quiet_turns: 0 });
            now = counted;
        }
        self.told = now;
        self.due = Some(now);
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn what_was_asked_for_counts_and_what_comes_late_does_not() {
        let mut time = Time::new(Clock::start(), false);
        let start = time.told();
        time.rest_until(Some(after(start, 10_000)));
        assert_eq!(time.look(after(start, 10_050)), after(start, 10_050), "a little late");
        time.rest_until(Some(after(start, 11_000)));
        assert_eq!(time.look(after(start, 16_000)), after(start, 10_150), "it stood still");
        assert_eq!(time.gap(), Duration::from_millis(5_950));
        assert_eq!(time.still(), Duration::from_millis(5_850));
        // What is due is as far off as it was, less what counted.
        time.rest_until(Some(after(start, 11_000)));
        assert_eq!(time.look(after(start, 16_850)), after(start, 11_000));
        // Woken early by somebody else, and then at work for too long.
        time.rest_until(Some(after(start, 60_000)));
        assert_eq!(time.look(after(start, 17_850)), after(start, 12_000));
        assert_eq!(time.look(after(start, 22_850)), after(start, 12_100));
    }

    #[test]
    fn without_a_deadline_no_sleep_is_too_long() {
        let mut time = Time::new(Clock::start(), false);
        let start = time.told();
        time.rest_until(None);
        assert_eq!(time.look(after(start, 3_600_000)), after(start, 3_600_000));
    }

    #[test]
    fn a_shard_that_is_always_late_goes_on_all_the_same() {
        let mut time = Time::new(Clock::start(), false);
        let start = time.told();
        for look in 1..=100 {
            time.rest_until(Some(time.told()));
            assert_eq!(time.look(after(start, 500 * look)), after(start, 100 * look));
        }
    }

    #[test]
    fn after_standing_still_it_reads_until_there_is_nothing_left_or_for_a_second() {
        let mut time = Time::new(Clock::start(), false);
        let start = time.told();
        assert!(time.may_judge(true), "it has not stood still");
        time.look(after(start, 5_000));
        assert_eq!(time.next_look(), Some(time.told() + QUIET_PAUSE));
        assert!((1..QUIET_TURNS).all(|_| !time.may_judge(false)), "somebody may not have looked yet");
        assert!(!time.may_judge(true));
        assert!((1..QUIET_TURNS).all(|_| !time.may_judge(false)));
        assert!(time.may_judge(false) && time.may_judge(true));
        assert_eq!(time.next_look(), None);
        time.look(after(start, 10_000));
        for look in 1..=10 {
            assert!(!time.may_judge(true));
            time.look(after(start, 10_000 + 5_000 * look));
        }
        assert!(time.may_judge(true), "there is no end to it, and it is always late");
    }

    #[test]
    fn all_of_it_counts_for_who_measures() {
        let mut time = Time::new(Clock::start(), true);
        let start = time.told();
        time.rest_until(Some(after(start, 10)));
        assert_eq!(time.look(after(start, 5_000)), after(start, 5_000));
    }

    #[test]
    fn time_never_goes_back() {
        let mut time = Time::new(Clock::start(), false);
        let start = time.told();
        assert_eq!(time.look(start), start);
        assert_eq!(time.look(Instant::default()), start);
    }

    #[test]
    fn other_clocks_are_told_when_they_move() {
        // As of a process that started two hours ahead.
        let ahead = Duration::from_secs(7_200);
        let clock = Clock::with_offset(Clock::start().offset() + ahead.as_nanos() as u64);
        let mut time = Time::new(clock, false);
        let told = time.clocks_moved().expect("the wall clock has been set back since");
        assert!((told.wall_ahead_ns + ahead.as_nanos() as i64).abs() < 1_000_000_000, "{told:?}");
        assert_eq!(told.still, Duration::ZERO);
        assert_eq!(time.clocks_moved(), None, "it has not moved since");
        // Standing still is told at once: other nodes' clocks went on.
        let now = time.told();
        time.look(after(now, 50));
        assert_eq!(time.clocks_moved(), None);
        time.look(after(now, 10_000));
        assert_eq!(time.clocks_moved().map(|told| told.still), Some(Duration::from_millis(9_850)));
    }
}
