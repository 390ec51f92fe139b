//! The connections of one shard.

use shard::{ConnId, Life, Slab};

use super::file::File;
use super::group::Group;
use super::sends;

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) file: File,
    /// The send in flight, or [`sends::NONE`].
    pub(super) send: u32,
    /// An ended connection stays until its operations have ended and the core knows.
    pub(super) life: Life,
    /// The group whose buffers it receives into.
    pub(super) group: Group,
    /// Whether a receive is armed.
    pub(super) receiving: bool,
}

impl Conn {
    pub(super) fn new(file: File, life: Life, group: Group) -> Self {
        Self { file, send: sends::NONE, life, group, receiving: false }
    }

    /// Whether the kernel still works on it.
    pub(super) fn is_busy(&self) -> bool {
        self.receiving || self.is_sending() || self.life.is_connecting()
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
