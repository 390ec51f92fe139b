//! The connections of one shard.

use shard::{CloseReason, ConnId, Slab};

use super::buffers::Group;
use super::file::File;
use super::sends;

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// A connect is under way; the core does not know it yet.
    Connecting,
    /// Reads and writes.
    Open,
    /// Closed by the core, which may have bytes to write still. Input is discarded from here on.
    Flushing,
    /// All is written and the FIN sent; waits for the peer's.
    Draining,
    /// Waits for its operations to end, and to be told to the core.
    Dying,
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) file: File,
    /// The send in flight, or [`sends::NONE`].
    pub(super) send: u32,
    pub(super) state: State,
    /// Whose buffers it receives into.
    pub(super) group: Group,
    /// Whether a receive is armed.
    pub(super) receiving: bool,
    /// Whether the peer's FIN came.
    pub(super) finished: bool,
    /// Why it is dying.
    pub(super) reason: CloseReason,
}

impl Conn {
    pub(super) fn new(file: File, state: State, group: Group) -> Self {
        Self {
            file,
            send: sends::NONE,
            state,
            group,
            receiving: false,
            finished: false,
            reason: CloseReason::Local,
        }
    }

    /// Whether the kernel is still at something.
    pub(super) fn is_busy(&self) -> bool {
        self.receiving || self.is_sending() || self.state == State::Connecting
    }

    pub(super) fn is_sending(&self) -> bool {
        self.send != sends::NONE
    }
}

// What an idle connection costs in user space, with the 8 bytes of the slab.
const _: () = assert!(size_of::<Conn>() <= 16);

/// The table.
#[derive(Default)]
pub(super) struct Conns(Slab<Conn>);

impl Conns {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn insert(&mut self, conn: Conn) -> ConnId {
        let key = self.0.insert(conn);
        ConnId { index: key.index, generation: key.generation }
    }

    pub(super) fn contains(&self, conn: ConnId) -> bool {
        self.0.get(key(conn)).is_some()
    }

    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Conn> {
        self.0.get_mut(key(conn))
    }

    pub(super) fn remove(&mut self, conn: ConnId) -> Option<Conn> {
        self.0.remove(key(conn))
    }
}

fn key(conn: ConnId) -> shard::Key {
    shard::Key { index: conn.index, generation: conn.generation }
}
