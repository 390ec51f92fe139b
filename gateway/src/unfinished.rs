//! What connections without a login hold of frames that are not whole.

use std::collections::BTreeMap;

use shard::{ConnId, Shares};

use crate::admission::AddressId;
use crate::limits::{UNFINISHED, UNFINISHED_SHARE};

/// A pool of bytes, of which each address has a share.
pub(crate) struct Unfinished {
    shares: Shares<AddressId>,
    /// By connection. One that holds nothing has no entry.
    held: BTreeMap<u64, (AddressId, u64)>,
}

impl Unfinished {
    pub(crate) fn new(seed: u64) -> Self {
        Self { shares: Shares::new(seed), held: BTreeMap::new() }
    }

    /// A connection from an address holds so many bytes. False, and it counts for none, if there is no room.
    pub(crate) fn set(&mut self, conn: ConnId, address: AddressId, bytes: usize) -> bool {
        self.forget(conn);
        let bytes = bytes as u64;
        if bytes == 0 {
            return true;
        }
        let has_room = self.shares.take(address, bytes, UNFINISHED, UNFINISHED_SHARE);
        if has_room {
            self.held.insert(conn.as_u64(), (address, bytes));
        }
        has_room
    }

    /// A connection has ended, or is one of a user.
    pub(crate) fn forget(&mut self, conn: ConnId) {
        if let Some((address, bytes)) = self.held.remove(&conn.as_u64()) {
            self.shares.give_back(address, bytes);
        }
    }

    /// Own-state invariants, against what all connections hold.
    pub(crate) fn check_invariants(&self, all: impl Iterator<Item = (AddressId, usize)>) {
        self.shares.check_invariants(
            all.filter(|(_, bytes)| *bytes > 0).map(|(address, bytes)| (address, bytes as u64)),
        );
    }
}
