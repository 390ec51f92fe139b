//! Where rooms are, and their order.

use shard::{Instant, ShardId};
use wire::{AppId, RoomId};

use crate::hash::IdHash;
use crate::message_ids::sequence_base;
use crate::stripes::Stripes;

/// The rooms with members, each with the shards that have them.
///
/// A room is forgotten when its last shard leaves, but sequences never go back: a room begins after a base that grows with
/// time, and never at or below the last sequence of a forgotten one.
#[derive(Debug)]
pub(crate) struct Rooms {
    hash: IdHash,
    table: Stripes<Room>,
    /// No room to come begins below this: the highest sequence of any room that was forgotten.
    floor: u64,
}

#[derive(Debug)]
struct Room {
    app: AppId,
    room: RoomId,
    /// Of the last message.
    sequence: u64,
    /// Ascending, never empty.
    members: Vec<ShardId>,
}

impl Room {
    fn is(&self, app: AppId, room: RoomId) -> bool {
        self.app == app && self.room == room
    }
}

impl Rooms {
    pub(crate) fn new(seed: u64) -> Self {
        Self { hash: IdHash::new(seed), table: Stripes::new(), floor: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Adds a member shard, once however often it joins; the answer is the sequence of the room's last message.
    pub(crate) fn join(&mut self, now: Instant, app: AppId, room: RoomId, shard: ShardId) -> u64 {
        let hash = self.hash.of(app, room.0);
        if let Some(known) = self.table.find_mut(hash, |known| known.is(app, room)) {
            if let Err(at) = known.members.binary_search(&shard) {
                known.members.insert(at, shard);
            }
            return known.sequence;
        }
        let sequence = sequence_base(now).max(self.floor);
        let anew = Room { app, room, sequence, members: vec![shard] };
        self.table.insert_unique(hash, anew, |known| self.hash.of(known.app, known.room.0));
        sequence
    }

    /// Removes a member shard, and the room with its last one.
    pub(crate) fn leave(&mut self, app: AppId, room: RoomId, shard: ShardId) {
        let hash = self.hash.of(app, room.0);
        let Some(known) = self.table.find_mut(hash, |known| known.is(app, room)) else { return };
        if let Ok(at) = known.members.binary_search(&shard) {
            known.members.remove(at);
        }
        if known.members.is_empty() {
            self.floor = self.floor.max(known.sequence);
            self.table.remove(hash, |known| known.is(app, room));
        }
    }

    /// Gives the room's next message its place: its sequence, and the shards that get it. `None` for a room without members.
    pub(crate) fn sequence(&mut self, app: AppId, room: RoomId) -> Option<(u64, &[ShardId])> {
        let known = self.table.find_mut(self.hash.of(app, room.0), |known| known.is(app, room))?;
        known.sequence += 1;
        Some((known.sequence, &known.members))
    }

    /// The shards with members, ascending; empty for a room without any.
    pub(crate) fn members(&self, app: AppId, room: RoomId) -> &[ShardId] {
        let known = self.table.find(self.hash.of(app, room.0), |known| known.is(app, room));
        known.map_or(&[], |known| &known.members)
    }

    pub(crate) fn check_invariants(&self) {
        for known in self.table.iter() {
            assert!(!known.members.is_empty(), "a room without members is forgotten");
            assert!(known.members.is_sorted_by(|a, b| a < b), "member shards ascend, each once");
            assert_eq!(self.members(known.app, known.room), known.members, "a room is found under its name");
        }
    }
}
