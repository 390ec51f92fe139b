//! Names of shards and connections.

use std::fmt;

/// One core's share of the work, named across the whole cluster: the node in the high half, the shard's index
/// on that node in the low half.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u32);

impl ShardId {
    /// The control thread of this node: signals, admin port. It is no shard and runs no core.
    pub const CONTROL: ShardId = ShardId(u32::MAX);

    /// The shard `index` of `node`.
    pub const fn new(node: u16, index: u16) -> Self {
        Self(((node as u32) << 16) | index as u32)
    }

    /// The node this shard runs on.
    pub const fn node(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// The shard's index on its node.
    pub const fn index(self) -> u16 {
        self.0 as u16
    }

    /// The inverse of [`ShardId::as_u32`].
    pub const fn from_u32(packed: u32) -> Self {
        Self(packed)
    }

    /// The packed form: `node << 16 | index`.
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::CONTROL => f.write_str("control"),
            id => write!(f, "{}/{}", id.node(), id.index()),
        }
    }
}

/// A connection of one shard. The engine assigns it; indexes are reused, generations tell the users of one
/// index apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnId {
    /// Small and dense: fit for indexing a table.
    pub index: u32,
    /// Counts the reuses of `index`.
    pub generation: u32,
}

impl ConnId {
    /// The packed form: `generation << 32 | index`.
    pub const fn as_u64(self) -> u64 {
        ((self.generation as u64) << 32) | self.index as u64
    }

    /// The inverse of [`ConnId::as_u64`].
    pub const fn from_u64(packed: u64) -> Self {
        Self { index: packed as u32, generation: (packed >> 32) as u32 }
    }
}

impl fmt::Debug for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "conn {}.{}", self.index, self.generation)
    }
}
