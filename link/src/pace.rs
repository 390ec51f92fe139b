//! The least time between two flushes of a busy shard's links.
//!
//! To wake the other end costs more than a message does. So where many messages are said in an interval,
//! those that come within it after a flush wait for its end, and leave together, to all peers. A shard that
//! says little says it at once.

use std::time::Duration;

use shard::{Instant, ShardId};

/// With this many messages in an interval, those of the next interval wait for each other.
const BUSY_MESSAGES: u32 = 4;

pub(crate) struct Pace {
    interval: Duration,
    /// When the interval began in which `said` are counted, and how many were in the one before.
    counted_from: Instant,
    said: u32,
    said_before: u32,
    flushed_at: Instant,
    /// Peers for which something waits.
    waiting: Vec<ShardId>,
}

impl Pace {
    pub(crate) fn new(interval: Duration) -> Self {
        let (counted_from, flushed_at) = (Instant::default(), Instant::default());
        Self { interval, counted_from, said: 0, said_before: 0, flushed_at, waiting: Vec::new() }
    }

    /// Whether a message that is sent now leaves at once. The answer is the same for a whole turn.
    pub(crate) fn is_open(&mut self, now: Instant) -> bool {
        let since = now.since(self.counted_from);
        if since >= self.interval {
            self.said_before = if since < 2 * self.interval { self.said } else { 0 };
            self.said = 0;
            self.counted_from = now;
        }
        self.said += 1;
        let is_busy = self.said.max(self.said_before) >= BUSY_MESSAGES;
        if is_busy && now != self.flushed_at && now.since(self.flushed_at) < self.interval {
            return false;
        }
        self.flushed_at = now;
        true
    }

    /// Adds a peer for which something waits; it is not in the list yet.
    pub(crate) fn wait(&mut self, peer: ShardId) {
        self.waiting.push(peer);
    }

    /// When the next flush is.
    pub(crate) fn due(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then(|| self.flushed_at + self.interval)
    }

    /// Takes the peers to write to, if it is time.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<ShardId> {
        if self.due().is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.flushed_at = now;
        std::mem::take(&mut self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_unix_nanos(1 << 60);
    const PEER: ShardId = ShardId::new(1, 0);

    fn after(us: u64) -> Instant {
        START + Duration::from_micros(us)
    }

    #[test]
    fn who_says_little_says_it_at_once() {
        let mut pace = Pace::new(Duration::from_micros(500));
        assert!((0..100).all(|at| pace.is_open(after(200 * at))));
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn who_says_much_says_it_once_an_interval() {
        let mut pace = Pace::new(Duration::from_micros(500));
        let mut flushes = 0;
        for at in 0..1000 {
            let now = after(20 * at);
            let was_time = !pace.take(now).is_empty();
            let is_open = pace.is_open(now);
            flushes += usize::from(was_time || is_open);
            if !is_open && pace.due().is_none() {
                pace.wait(PEER);
            }
        }
        assert!((40..50).contains(&flushes), "20 ms are 40 intervals: {flushes}");
        assert!(pace.is_open(after(1_000_000)), "it has been quiet since");
    }

    #[test]
    fn a_turn_is_one_flush() {
        let mut pace = Pace::new(Duration::from_micros(500));
        assert!((0..100).all(|_| pace.is_open(START)));
        assert!(!pace.is_open(after(1)));
        pace.wait(PEER);
        assert_eq!((pace.take(after(499)), pace.take(after(500))), (vec![], vec![PEER]));
    }

    #[test]
    fn no_interval_is_always_open() {
        let mut pace = Pace::new(Duration::ZERO);
        assert!((0..100).all(|at| pace.is_open(after(at))));
    }
}
