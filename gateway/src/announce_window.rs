//! How many announcements may be with each router at once: as many as it answers in time.
//!
//! A router that is behind must not be asked for more, or it falls further behind, and links are lost. So the
//! window of a router doubles with each round of answers in time, as in TCP's slow start (RFC 5681), until
//! one is late. That halves it, and from then on it grows by a step. A login may have to wait behind all of
//! the window, so the window is small at first, and announcements take only a fraction of a second of a
//! router's time.

use std::collections::BTreeMap;
use std::time::Duration;

use shard::{Instant, ShardId};

use crate::limits::{ANNOUNCED_AT_START, ANNOUNCED_MAX, ANNOUNCED_MIN, ANNOUNCED_STEP};

/// A router that answers nothing for this long may have lost the announcements.
const LOST: Duration = Duration::from_secs(3);
/// A round of answers that takes longer is late.
const IN_TIME: Duration = Duration::from_millis(200);

#[derive(Default)]
pub(crate) struct AnnounceWindows(BTreeMap<ShardId, Window>);

struct Window {
    size: u32,
    under_way: u32,
    /// Whether some round was late.
    was_late: bool,
    /// When it was asked first, or answered last.
    heard_at: Instant,
    round: Option<Round>,
}

/// Announcements that were under way at one moment.
#[derive(Clone, Copy)]
struct Round {
    began: Instant,
    unanswered: u32,
}

impl AnnounceWindows {
    /// Whether a router has as many announcements as it may.
    pub(crate) fn is_full(&self, now: Instant, router: ShardId) -> bool {
        self.0
            .get(&router)
            .is_some_and(|window| window.under_way >= window.size && now.since(window.heard_at) < LOST)
    }

    /// Counts one more announcement to a router.
    pub(crate) fn asked(&mut self, now: Instant, router: ShardId) {
        let fresh =
            Window { size: ANNOUNCED_AT_START, under_way: 0, was_late: false, heard_at: now, round: None };
        let window = self.0.entry(router).or_insert(fresh);
        if window.under_way >= window.size {
            *window =
                Window { size: ANNOUNCED_MIN, under_way: 0, was_late: true, heard_at: now, round: None };
        }
        window.under_way += 1;
        window.round.get_or_insert(Round { began: now, unanswered: window.under_way });
    }

    /// A router has answered one. Answers to other questions count too: they come as fast.
    pub(crate) fn answered(&mut self, now: Instant, router: ShardId) {
        let Some(window) = self.0.get_mut(&router) else { return };
        window.under_way = window.under_way.saturating_sub(1);
        window.heard_at = now;
        let Some(round) = &mut window.round else { return };
        round.unanswered -= 1;
        if round.unanswered > 0 {
            return;
        }
        window.size = match now.since(round.began) <= IN_TIME {
            true if window.was_late => (window.size + ANNOUNCED_STEP).min(ANNOUNCED_MAX),
            true => (2 * window.size).min(ANNOUNCED_MAX),
            false => (window.size / 2).max(ANNOUNCED_MIN),
        };
        window.was_late |= now.since(round.began) > IN_TIME;
        let under_way = window.under_way;
        window.round = (under_way > 0).then_some(Round { began: now, unanswered: under_way });
    }

    /// Forgets a router that is gone, with its announcements.
    pub(crate) fn forget(&mut self, router: ShardId) {
        self.0.remove(&router);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTER: ShardId = ShardId::new(1, 0);
    const START: Instant = Instant::from_unix_nanos(1 << 60);

    /// A router that takes so long for each; how many it has announced in so many seconds, and how long the
    /// slowest waited.
    fn announced(each: Duration, seconds: u64) -> (u32, Duration) {
        let mut windows = AnnounceWindows::default();
        let mut asked = std::collections::VecDeque::new();
        let (mut done, mut free_at, mut slowest) = (0, START, Duration::ZERO);
        for ms in 0..1_000 * seconds {
            let now = START + Duration::from_millis(ms);
            while let Some(at) = asked.front().copied()
                && free_at.max(at) + each <= now
            {
                free_at = free_at.max(at) + each;
                asked.pop_front();
                windows.answered(now, ROUTER);
                done += 1;
                if ms > 500 * seconds {
                    slowest = slowest.max(now.since(at));
                }
            }
            while !windows.is_full(now, ROUTER) {
                windows.asked(now, ROUTER);
                asked.push_back(now);
            }
        }
        (done, slowest)
    }

    #[test]
    fn a_router_is_asked_for_what_it_can_do_and_no_more() {
        let (done, slowest) = announced(Duration::from_micros(20), 4);
        assert!(done > 150_000 && slowest < Duration::from_millis(100), "{done}, {slowest:?}");
        let (done, slowest) = announced(Duration::from_millis(1), 10);
        assert!(done > 9_000 && slowest < Duration::from_millis(500), "{done}, {slowest:?}");
        let (done, slowest) = announced(Duration::from_millis(20), 20);
        assert!(done > 900 && slowest < Duration::from_secs(1), "{done}, {slowest:?}");
    }

    #[test]
    fn the_next_life_of_a_router_begins_anew() {
        let mut windows = AnnounceWindows::default();
        (0..ANNOUNCED_AT_START).for_each(|_| windows.asked(START, ROUTER));
        assert!(windows.is_full(START, ROUTER));
        windows.forget(ROUTER);
        assert!(!windows.is_full(START, ROUTER));
        windows.answered(START, ROUTER); // of the life before
        windows.asked(START, ROUTER);
        assert!(!windows.is_full(START, ROUTER));
    }

    #[test]
    fn a_router_that_has_lost_its_questions_is_asked_again() {
        let mut windows = AnnounceWindows::default();
        (0..ANNOUNCED_AT_START).for_each(|_| windows.asked(START, ROUTER));
        assert!(windows.is_full(START + (LOST - Duration::from_millis(1)), ROUTER));
        let now = START + LOST;
        (0..ANNOUNCED_MIN).for_each(|_| {
            assert!(!windows.is_full(now, ROUTER));
            windows.asked(now, ROUTER);
        });
        assert!(windows.is_full(now, ROUTER));
    }
}
