//! The connects under way.

use std::collections::{HashMap, VecDeque};

use shard::{ConnId, Instant};
use socket2::SockAddr;

use crate::socket::CONNECT_TIME;

#[derive(Default)]
pub(super) struct Connects {
    pending: HashMap<u32, Pending>,
    /// In the order of starting, and so of ending.
    dues: VecDeque<(Instant, ConnId)>,
}

/// A connect of which the kernel has not said how it ended.
pub(super) struct Pending {
    /// The core's name for it.
    pub(super) token: u64,
    /// Its time is up.
    pub(super) is_late: bool,
    /// Boxed, so that the kernel finds it where it was.
    peer: Box<SockAddr>,
}

impl Connects {
    pub(super) fn begin(&mut self, now: Instant, conn: ConnId, token: u64, peer: SockAddr) {
        self.dues.push_back((now + CONNECT_TIME, conn));
        self.pending.insert(conn.index, Pending { token, is_late: false, peer: Box::new(peer) });
    }

    /// Takes one out that has ended.
    pub(super) fn end(&mut self, conn: ConnId) -> Option<Pending> {
        self.pending.remove(&conn.index)
    }

    /// When to look for late ones.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.dues.front().map(|(due, _)| *due)
    }

    /// Marks the oldest as late if its time is up, and forgets the time of those that are not pending any
    /// more.
    pub(super) fn next_late(
        &mut self,
        now: Instant,
        mut is_pending: impl FnMut(ConnId) -> bool,
    ) -> Option<ConnId> {
        while let Some(&(due, conn)) = self.dues.front() {
            let is_pending = is_pending(conn);
            if is_pending && now < due {
                return None;
            }
            self.dues.pop_front();
            if is_pending && let Some(pending) = self.pending.get_mut(&conn.index) {
                pending.is_late = true;
                return Some(conn);
            }
        }
        None
    }

    /// Where a connection goes to.
    pub(super) fn peer(&self, conn: ConnId) -> Option<&SockAddr> {
        self.pending.get(&conn.index).map(|pending| &*pending.peer)
    }
}
