//! What connections hold of frames that are not whole.

use shard::{ConnId, FairPool};

use crate::admission::AddressId;
use crate::limits::{UNFINISHED_BYTES_MAX, UNFINISHED_PARTS, USER_UNFINISHED_BYTES_MAX};

/// Two pools of bytes, of which each address has a share: one of connections without a login, which are
/// nobody's, and one of users. A connection that holds nothing has no entry.
pub(crate) struct Unfinished {
    fresh: FairPool<AddressId>,
    of_users: FairPool<AddressId>,
}

impl Unfinished {
    pub(crate) const fn new() -> Self {
        Self {
            fresh: FairPool::new(UNFINISHED_BYTES_MAX, UNFINISHED_PARTS),
            of_users: FairPool::new(USER_UNFINISHED_BYTES_MAX, UNFINISHED_PARTS),
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.fresh.held() == 0 && self.of_users.held() == 0
    }

    /// A connection from an address, without a login if it is fresh, holds so many bytes. False, and it
    /// counts for none, if there is no room. Others may have to make place: see [`Unfinished::next_evicted`].
    pub(crate) fn set(&mut self, conn: ConnId, address: AddressId, is_fresh: bool, bytes: usize) -> bool {
        let (pool, other) = match is_fresh {
            true => (&mut self.fresh, &mut self.of_users),
            false => (&mut self.of_users, &mut self.fresh),
        };
        other.forget(conn.as_u64());
        pool.set(conn.as_u64(), address, bytes as u64)
    }

    /// The next connection that has to end, so that another one has room.
    pub(crate) fn next_evicted(&mut self) -> Option<ConnId> {
        let evicted = self.fresh.next_evicted().or_else(|| self.of_users.next_evicted());
        evicted.map(ConnId::from_u64)
    }

    /// A connection has ended, or holds nothing.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        self.fresh.forget(conn.as_u64());
        self.of_users.forget(conn.as_u64());
    }

    /// What a connection counts for.
    pub(crate) fn of(&self, conn: ConnId) -> usize {
        (self.fresh.weight(conn.as_u64()) + self.of_users.weight(conn.as_u64())) as usize
    }

    /// Own-state invariants.
    pub(crate) fn check_invariants(&self) {
        self.fresh.check_invariants();
        self.of_users.check_invariants();
    }
}
