//! What connections hold of frames that are not whole.

use std::collections::BTreeMap;

use shard::{ConnId, Shares};

use crate::admission::AddressId;
use crate::limits::{UNFINISHED, UNFINISHED_PARTS, USER_UNFINISHED};

/// Two pools of bytes, of which each address has a share: one of connections without a login, which are
/// nobody's, and one of users.
pub(crate) struct Unfinished {
    fresh: Shares<AddressId>,
    of_users: Shares<AddressId>,
    /// By connection. One that holds nothing has no entry.
    held: BTreeMap<u64, Held>,
}

#[derive(Clone, Copy)]
struct Held {
    is_fresh: bool,
    address: AddressId,
    bytes: u64,
}

impl Unfinished {
    pub(crate) fn new(seed: u64) -> Self {
        Self { fresh: Shares::new(seed), of_users: Shares::new(seed), held: BTreeMap::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// A connection from an address, without a login if it is fresh, holds so many bytes. False, and it
    /// counts for none, if there is no room.
    pub(crate) fn set(&mut self, conn: ConnId, address: AddressId, is_fresh: bool, bytes: usize) -> bool {
        self.forget(conn);
        let bytes = bytes as u64;
        if bytes == 0 {
            return true;
        }
        let total = if is_fresh { UNFINISHED } else { USER_UNFINISHED };
        let has_room = self.pool(is_fresh).take_part(address, bytes, total, UNFINISHED_PARTS);
        if has_room {
            self.held.insert(conn.as_u64(), Held { is_fresh, address, bytes });
        }
        has_room
    }

    /// A connection has ended, or holds nothing.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        if let Some(Held { is_fresh, address, bytes }) = self.held.remove(&conn.as_u64()) {
            self.pool(is_fresh).give_back(address, bytes);
        }
    }

    fn pool(&mut self, is_fresh: bool) -> &mut Shares<AddressId> {
        if is_fresh { &mut self.fresh } else { &mut self.of_users }
    }

    /// What a connection counts for.
    pub(crate) fn of(&self, conn: ConnId) -> usize {
        self.held.get(&conn.as_u64()).map_or(0, |held| held.bytes as usize)
    }

    /// Own-state invariants.
    pub(crate) fn check_invariants(&self) {
        for (pool, is_fresh) in [(&self.fresh, true), (&self.of_users, false)] {
            let held = self.held.values().filter(|held| held.is_fresh == is_fresh);
            pool.check_invariants(held.map(|held| (held.address, held.bytes)));
        }
    }
}
