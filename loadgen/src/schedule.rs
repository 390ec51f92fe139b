//! Open-loop time: operations are due when they are due, whatever became of those before.

use std::time::Duration;

use shard::Instant;

/// Operation `i` is due at `start + i / rate`, or at the end of the group that falls into.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    start_ns: u64,
    interval_ns: f64,
    /// Of a group of operations that are due at once; 0: each is by itself.
    group_ns: u64,
    next: u64,
    end: u64,
}

impl Schedule {
    /// Operations at `rate` a second from `start` on, the last one before `duration_ns` have passed.
    pub(crate) fn new(start: Instant, rate: f64, duration_ns: u64) -> Self {
        let interval_ns = if rate > 0.0 { 1e9 / rate } else { f64::INFINITY };
        // A rounding error must not make one more.
        let end = if rate > 0.0 { (duration_ns as f64 / interval_ns - 1e-6).ceil() as u64 } else { 0 };
        Self { start_ns: start.unix_nanos(), interval_ns, group_ns: 0, next: 0, end }
    }

    /// The same operations, due together where they are within one stretch of `group`. It is the plan that
    /// has groups: the intended time of an operation is that of its group.
    pub(crate) fn in_groups(self, group: Duration) -> Self {
        Self { group_ns: group.as_nanos() as u64, ..self }
    }

    /// Nothing is due from `at` on.
    pub(crate) fn stop(&mut self, at: Instant) {
        let duration_ns = at.unix_nanos().saturating_sub(self.start_ns) as f64;
        self.end = self.end.min((duration_ns / self.interval_ns).ceil() as u64);
    }

    /// When the next operation is due; `None` after the last.
    pub(crate) fn due(&self) -> Option<Instant> {
        let after_ns = (self.next as f64 * self.interval_ns) as u64;
        let after_ns = match self.group_ns {
            0 => after_ns,
            group_ns => after_ns.div_ceil(group_ns).saturating_mul(group_ns),
        };
        (self.next < self.end).then(|| Instant::from_unix_nanos(self.start_ns.saturating_add(after_ns)))
    }

    /// Takes the next operation, its number and its intended time, if it is due.
    pub(crate) fn take(&mut self, now: Instant) -> Option<(u64, Instant)> {
        let due = self.due().filter(|due| *due <= now)?;
        self.next += 1;
        Some((self.next - 1, due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ns: u64) -> Instant {
        Instant::from_unix_nanos(1_000_000_000 + ns)
    }

    #[test]
    fn operations_keep_their_times_however_late_they_are_taken() {
        let mut schedule = Schedule::new(at(0), 1000.0, 3_000_000);
        assert_eq!(schedule.take(at(0)), Some((0, at(0))));
        assert_eq!(schedule.take(at(999_999)), None);
        assert_eq!(schedule.take(at(9_000_000)), Some((1, at(1_000_000))));
        assert_eq!(schedule.take(at(9_000_000)), Some((2, at(2_000_000))));
        assert_eq!(schedule.take(at(9_000_000)), None);
        assert_eq!(schedule.due(), None);
    }

    #[test]
    fn as_many_operations_as_rate_times_seconds() {
        for rate in [1.0, 3.0, 1000.0 / 3.0, 5000.0, 33_333.0] {
            let mut schedule = Schedule::new(at(0), rate, 3_000_000_000);
            let taken = std::iter::from_fn(|| schedule.take(at(u64::MAX / 2))).count();
            assert_eq!(taken, (3.0 * rate).round() as usize, "rate {rate}");
        }
    }

    #[test]
    fn a_schedule_without_end_is_stopped() {
        let mut schedule = Schedule::new(at(0), 1000.0, u64::MAX);
        schedule.stop(at(2_500_000));
        let taken = std::iter::from_fn(|| schedule.take(at(u64::MAX / 2))).count();
        assert_eq!((taken, schedule.due()), (3, None));
    }

    #[test]
    fn operations_of_a_group_are_due_at_its_end() {
        let mut schedule = Schedule::new(at(0), 1000.0, 1_000_000_000).in_groups(Duration::from_micros(2500));
        let due: Vec<u64> = std::iter::from_fn(|| schedule.take(at(u64::MAX / 2)))
            .map(|(_, due)| due.unix_nanos() - at(0).unix_nanos())
            .collect();
        // At 0, 1, 2, 3, 4, 5, 6 ms without groups.
        let groups = [0, 2_500_000, 2_500_000, 5_000_000, 5_000_000, 5_000_000, 7_500_000];
        assert_eq!((&due[..7], due.len()), (&groups[..], 1000));
    }

    #[test]
    fn no_rate_means_no_operation() {
        assert_eq!(Schedule::new(at(0), 0.0, 1_000_000_000).due(), None);
    }
}
