//! How many gifts of each sender this process has seen refused of late. Each leaves a row for a month.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// So many times what a minute allows a sender may have in a day; then a minute allows one.
const DAY_TIMES: u32 = 25;

/// Counts by sender, which begin anew each minute and each day. A sender who is in here has sent a gift
/// within it, so there are no more than those.
pub struct Refusals {
    counts: Mutex<Counts>,
    day_times: Option<u32>,
}

#[derive(Default)]
struct Counts {
    of_minute: Span,
    of_day: Span,
}

#[derive(Default)]
struct Span {
    since: Option<Instant>,
    by_sender: HashMap<i64, u32>,
}

impl Span {
    fn begin(&mut self, length: Duration) {
        if self.since.is_none_or(|since| since.elapsed() >= length) {
            *self = Self { since: Some(Instant::now()), by_sender: HashMap::new() };
        }
    }

    fn count(&mut self, sender_id: i64) {
        let count = self.by_sender.entry(sender_id).or_default();
        *count = count.saturating_add(1);
    }

    fn of(&self, sender_id: i64) -> u32 {
        self.by_sender.get(&sender_id).copied().unwrap_or(0)
    }
}

impl Refusals {
    /// Counts of a minute alone.
    pub fn of_minutes() -> Self {
        Self { counts: Mutex::default(), day_times: None }
    }

    /// Counts of a minute and a day.
    pub fn of_days() -> Self {
        Self { counts: Mutex::default(), day_times: Some(DAY_TIMES) }
    }

    /// One more of this sender. Whether it is within what a sender may have of them; otherwise it leaves no
    /// row, and does not count.
    pub fn count(&self, sender_id: i64, per_minute: u32) -> bool {
        let mut counts = self.lock();
        let is_within = counts.of(sender_id) < self.max(&counts, sender_id, per_minute);
        if is_within {
            self.add_to(&mut counts, sender_id);
        }
        is_within
    }

    /// One more of this sender, which has left a row.
    pub fn add(&self, sender_id: i64) {
        self.add_to(&mut self.lock(), sender_id);
    }

    fn add_to(&self, counts: &mut Counts, sender_id: i64) {
        counts.of_minute.count(sender_id);
        if self.day_times.is_some() {
            counts.of_day.count(sender_id);
        }
    }

    /// Whether this sender has as many as it may.
    pub fn are_too_many(&self, sender_id: i64, per_minute: u32) -> bool {
        let counts = self.lock();
        counts.of(sender_id) >= self.max(&counts, sender_id, per_minute)
    }

    fn max(&self, counts: &Counts, sender_id: i64, per_minute: u32) -> u32 {
        let day_max = self.day_times.map(|times| per_minute.saturating_mul(times));
        let is_many = day_max.is_some_and(|most| counts.of_day.of(sender_id) >= most);
        if is_many { 1 } else { per_minute }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.of_minute.begin(MINUTE);
        counts.of_day.begin(DAY);
        counts
    }
}

impl Counts {
    fn of(&self, sender_id: i64) -> u32 {
        self.of_minute.of(sender_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(refusals: &Refusals, time: Duration) {
        let mut counts = refusals.counts.lock().unwrap();
        let Counts { of_minute, of_day } = &mut *counts;
        for span in [of_minute, of_day] {
            span.since = span.since.and_then(|since| since.checked_sub(time));
        }
    }

    #[test]
    fn counts_are_of_one_sender_and_one_minute() {
        let refusals = Refusals::of_days();
        assert_eq!([1, 1, 1, 2].map(|sender_id| refusals.count(sender_id, 2)), [true, true, false, true]);
        assert_eq!([1, 2, 3].map(|sender_id| refusals.are_too_many(sender_id, 2)), [true, false, false]);
        pass(&refusals, MINUTE);
        assert!(!refusals.are_too_many(1, 2));
    }

    /// Who is refused all day leaves no row every three seconds. A gift that is paid does not count.
    #[test]
    fn who_has_many_in_a_day_has_one_in_a_minute() {
        let refusals = Refusals::of_days();
        let mut all = 0;
        for _ in 0..100 {
            while !refusals.are_too_many(1, 20) {
                assert!(refusals.count(1, 20));
                all += 1;
            }
            pass(&refusals, MINUTE);
        }
        assert_eq!(all, 25 * 20 + 75);
        assert!(!refusals.are_too_many(2, 20));
        refusals.counts.lock().unwrap().of_day.since = Instant::now().checked_sub(DAY);
        assert_eq!((0..30).filter(|_| refusals.count(1, 20)).count(), 20);
    }

    /// Gifts that were under way at once may leave more rows than a minute allows: all count for the day.
    #[test]
    fn rows_count_whatever_the_limit_is() {
        let refusals = Refusals::of_days();
        (0..500).for_each(|_| refusals.add(1));
        pass(&refusals, MINUTE);
        assert_eq!((0..10).filter(|_| refusals.count(1, 20)).count(), 1);
    }

    /// A sender that is turned away for a minute does not lose its day.
    #[test]
    fn what_is_turned_away_does_not_count() {
        let refusals = Refusals::of_days();
        assert_eq!((0..10_000).filter(|_| refusals.count(1, 20)).count(), 20);
        pass(&refusals, MINUTE);
        assert_eq!((0..10_000).filter(|_| refusals.count(1, 20)).count(), 20);
    }
}
