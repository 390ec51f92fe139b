//! How many gifts of each sender this process has seen refused in this minute.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

/// Counts by sender, which begin anew each minute. Each sender here has sent a gift in this minute, so there
/// are no more entries than gifts.
#[derive(Default)]
pub struct Refusals(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    since: Option<Instant>,
    by_sender: HashMap<i64, u32>,
}

impl Refusals {
    /// Counts one more of this sender. Returns the number.
    pub fn count(&self, sender_id: i64) -> u32 {
        let mut counts = self.lock();
        let count = counts.by_sender.entry(sender_id).or_default();
        *count = count.saturating_add(1);
        *count
    }

    /// How many there are of this sender.
    pub fn of(&self, sender_id: i64) -> u32 {
        self.lock().by_sender.get(&sender_id).copied().unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.since.is_none_or(|since| since.elapsed() >= MINUTE) {
            *counts = Counts { since: Some(Instant::now()), by_sender: HashMap::new() };
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_of_one_sender_and_one_minute() {
        let refusals = Refusals::default();
        assert_eq!([1, 1, 2].map(|sender_id| refusals.count(sender_id)), [1, 2, 1]);
        assert_eq!([1, 2, 3].map(|sender_id| refusals.of(sender_id)), [2, 1, 0]);
        refusals.0.lock().unwrap().since = Instant::now().checked_sub(MINUTE);
        assert_eq!(refusals.of(1), 0);
    }
}
