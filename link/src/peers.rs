//! The peers that are up, and how much waits for each.

use std::collections::BTreeMap;

use shard::{ConnId, ShardId};

use crate::incoming::Backlog;
use crate::limits::{QUEUE_STUFFED, SLOW_BYTES};
use crate::peer::Peer;

/// All peers with a session.
pub(crate) struct Peers {
    peers: BTreeMap<ShardId, Peer>,
    /// How many of them have a full queue.
    full: usize,
    /// Bytes that may wait for one before it is full.
    queue_bytes_max: usize,
}

impl Peers {
    pub(crate) fn new(queue_bytes_max: usize) -> Self {
        Self { peers: BTreeMap::new(), full: 0, queue_bytes_max }
    }

    pub(crate) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    /// All of them, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (ShardId, &Peer)> {
        self.peers.iter().map(|(shard, peer)| (*shard, peer))
    }

    /// The names of all, ascending.
    pub(crate) fn shards(&self) -> Vec<ShardId> {
        self.peers.keys().copied().collect()
    }

    pub(crate) fn contains(&self, shard: ShardId) -> bool {
        self.peers.contains_key(&shard)
    }

    pub(crate) fn get(&self, shard: ShardId) -> Option<&Peer> {
        self.peers.get(&shard)
    }

    pub(crate) fn get_mut(&mut self, shard: ShardId) -> Option<&mut Peer> {
        self.peers.get_mut(&shard)
    }

    /// A session begins.
    pub(crate) fn insert(&mut self, shard: ShardId, peer: Peer) {
        self.peers.insert(shard, peer);
    }

    /// A session ends.
    pub(crate) fn remove(&mut self, shard: ShardId) -> Option<Peer> {
        let peer = self.peers.remove(&shard)?;
        self.full -= usize::from(peer.is_full);
        Some(peer)
    }

    /// Parts a connection from its session; returns the peer, if it had one. Messages that came over it and
    /// were not handled come again over the next one.
    pub(crate) fn detach(&mut self, conn: ConnId) -> Option<ShardId> {
        let (shard, peer) = self.peers.iter_mut().find(|(_, peer)| peer.conn == Some(conn))?;
        peer.conn = None;
        peer.backlog = Backlog::default();
        Some(*shard)
    }

    /// Updates whether a peer is full. A full one stays so until half of its queue is gone.
    pub(crate) fn weigh(&mut self, shard: ShardId) {
        let Some(peer) = self.peers.get_mut(&shard) else { return };
        let most = self.queue_bytes_max;
        let is_full = peer.outgoing.bytes() > if peer.is_full { most / 2 } else { most };
        if is_full != peer.is_full {
            peer.is_full = is_full;
            if is_full {
                self.full += 1;
            } else {
                self.full -= 1;
            }
        }
    }

    /// How many are full.
    pub(crate) fn full(&self) -> usize {
        self.full
    }

    /// Whether the queue of a peer is full.
    pub(crate) fn is_full(&self, shard: ShardId) -> bool {
        self.get(shard).is_some_and(|peer| peer.is_full)
    }

    /// Whether the queue of a peer is so full that no message should be added whose sender can be told that
    /// it failed.
    pub(crate) fn is_stuffed(&self, shard: ShardId) -> bool {
        self.get(shard).is_some_and(|peer| peer.outgoing.bytes() > QUEUE_STUFFED * self.queue_bytes_max)
    }

    /// Whether so much is in flight to a peer that messages that can wait should wait.
    pub(crate) fn is_slow(&self, shard: ShardId) -> bool {
        self.get(shard).is_some_and(|peer| peer.outgoing.bytes() > SLOW_BYTES)
    }

    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.full, self.peers.values().filter(|peer| peer.is_full).count());
    }
}
