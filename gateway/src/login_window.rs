//! How many logins may wait for the owners of their users at once: as many as owners answer in time.
//!
//! Additive increase, multiplicative decrease, as in TCP's congestion window (RFC 5681): answers in time
//! widen the window, a late one halves it. So however many clients come at once, owners get no more work than
//! they can do, and those that are logged in are served. The next ones wait for room; if that takes too long
//! they are told when to come back.

use std::collections::VecDeque;
use std::time::Duration;

use shard::{ConnId, Instant};

use crate::limits::{LOGINS_AT_START, LOGINS_MAX, LOGINS_MIN, LOGINS_WAITING_MAX};

/// An answer that takes longer is late: far more than an owner needs that keeps up, far less than clients
/// wait.
const IN_TIME: Duration = Duration::from_millis(300);
/// By how much a round of answers in time widens the window.
const ROUND_STEP: u32 = 16;

pub(crate) struct LoginWindow {
    size: u32,
    under_way: u32,
    waiting: VecDeque<ConnId>,
    /// Answers in time since the window was widened last.
    in_time: u32,
    /// When it was halved last. Late answers to logins from before are of the same jam.
    halved_at: Instant,
}

/// What becomes of a login.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Admission {
    /// Ask its owner.
    Asks,
    /// It waits for room.
    Waits,
    /// Too many wait already for it to get in in time.
    Refused,
}

impl LoginWindow {
    pub(crate) fn new(now: Instant) -> Self {
        Self { size: LOGINS_AT_START, under_way: 0, waiting: VecDeque::new(), in_time: 0, halved_at: now }
    }

    /// Logins that wait for an owner's answer.
    pub(crate) fn under_way(&self) -> u32 {
        self.under_way
    }

    /// Admits a login.
    pub(crate) fn enter(&mut self, conn: ConnId) -> Admission {
        if self.waiting.is_empty() && self.under_way < self.size {
            self.under_way += 1;
            return Admission::Asks;
        }
        if self.waiting.len() >= LOGINS_WAITING_MAX {
            return Admission::Refused;
        }
        self.waiting.push_back(conn);
        Admission::Waits
    }

    /// The login that has waited longest, if there is room; `is_there` says which still wait.
    pub(crate) fn next(&mut self, is_there: impl Fn(ConnId) -> bool) -> Option<ConnId> {
        while self.under_way < self.size {
            let conn = self.waiting.pop_front()?;
            if is_there(conn) {
                self.under_way += 1;
                return Some(conn);
            }
        }
        None
    }

    /// An owner has answered a login that it was asked for at `asked_at`.
    pub(crate) fn answered(&mut self, now: Instant, asked_at: Instant) {
        // A window that is not used up says nothing about what owners can do.
        let is_used = self.under_way >= self.size / 2;
        self.end();
        if now.since(asked_at) <= IN_TIME {
            self.in_time += u32::from(is_used);
            if self.in_time >= self.size.div_ceil(ROUND_STEP) {
                self.in_time = 0;
                self.size = (self.size + 1).min(LOGINS_MAX);
            }
        } else if asked_at >= self.halved_at {
            self.halved_at = now;
            self.in_time = 0;
            self.size = (self.size / 2).max(LOGINS_MIN);
        }
    }

    /// Counts a login off that ends without an owner's answer.
    pub(crate) fn end(&mut self) {
        self.under_way -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_unix_nanos(1 << 60);

    fn conn(index: u32) -> ConnId {
        ConnId { index, generation: 0 }
    }

    /// Logins come faster than an owner binds them; it answers each in its turn.
    fn jam(per_second: u64, bound_per_second: u64, seconds: u64) -> (u32, Duration) {
        let mut window = LoginWindow::new(START);
        let mut asked: VecDeque<Instant> = VecDeque::new();
        let (mut free_at, mut slowest) = (START, Duration::ZERO);
        for ms in 0..1_000 * seconds {
            let now = START + Duration::from_millis(ms);
            while asked.front().is_some() && free_at <= now {
                let asked_at = asked.pop_front().expect("looked at");
                free_at = free_at.max(asked_at) + Duration::from_nanos(1_000_000_000 / bound_per_second);
                if ms > 500 * seconds {
                    slowest = slowest.max(now.since(asked_at));
                }
                window.answered(now, asked_at);
                while window.next(|_| true).is_some() {
                    asked.push_back(now);
                }
            }
            for at in 0..per_second / 1_000 {
                if window.enter(conn(at as u32)) == Admission::Asks {
                    asked.push_back(now);
                }
            }
        }
        (window.size, slowest)
    }

    #[test]
    fn a_slow_owner_is_asked_no_more_than_it_can_answer() {
        let (size, slowest) = jam(20_000, 1_000, 20);
        assert!((100..600).contains(&size), "{size}");
        assert!(slowest < 2 * IN_TIME, "{slowest:?}");
        let (size, slowest) = jam(20_000, 50, 60);
        assert!((LOGINS_MIN..60).contains(&size), "{size}");
        assert!(slowest < 4 * IN_TIME, "{slowest:?}");
    }

    #[test]
    fn a_fast_owner_widens_it() {
        let (size, slowest) = jam(200_000, 100_000, 4);
        assert!(size > 2 * LOGINS_AT_START && slowest < IN_TIME, "{size}, {slowest:?}");
        let (size, _) = jam(20_000, 100_000, 4);
        assert_eq!(size, LOGINS_AT_START, "nobody has need of more");
    }

    #[test]
    fn those_that_do_not_fit_wait_in_order_and_the_rest_is_refused() {
        let mut window = LoginWindow::new(START);
        for at in 0..LOGINS_AT_START {
            assert_eq!(window.enter(conn(at)), Admission::Asks);
        }
        for at in 0..LOGINS_WAITING_MAX as u32 {
            assert_eq!(window.enter(conn(at)), Admission::Waits);
        }
        assert_eq!(window.enter(conn(7)), Admission::Refused);
        assert_eq!(window.next(|_| true), None);
        window.end();
        assert_eq!(window.next(|waiting| waiting != conn(0)), Some(conn(1)), "the first is gone");
        window.answered(START, START);
        assert_eq!(window.next(|_| true), Some(conn(2)));
        assert_eq!(window.under_way(), LOGINS_AT_START);
    }
}
