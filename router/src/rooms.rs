//! Where rooms are, and their order.

use shard::{Bucket, Instant, Rate, ShardId};
use wire::node::{sequence_base, sequence_believed_max};
use wire::{AppId, RoomId};

use crate::hash::IdHash;
use crate::stripes::Stripes;

/// How far above the highest sequence that a member's shard has seen a room goes on with another owner: the one before may
/// have given some that no shard had seen yet.
const MOVE_GAP: u64 = 1 << 16;
/// Gaps that routers choose among by their names, each a ms of messages longer than the one before.
const GAPS: u64 = 64;
const GAP_BITS: u32 = 12;
const GAP_FACTOR: u64 = 7;

/// The rooms with members, each with the shards that have them.
///
/// A room is forgotten when its last shard leaves, but sequences never go back: a room begins after a base that grows with
/// time, and never at or below the last sequence of a forgotten one.
#[derive(Debug)]
pub(crate) struct Rooms {
    hash: IdHash,
    table: Stripes<Room>,
    memberships_max: usize,
    /// Member shards of all rooms.
    memberships: usize,
    /// No room to come begins below this: the highest sequence of any room that was forgotten.
    floor: u64,
    /// From what is seen of a room that had another owner to where it goes on; hardly two routers have the same, so that two that
    /// take it over in the same ms give different sequences.
    gap: u64,
}

#[derive(Debug)]
pub(crate) struct Room {
    app: AppId,
    room: RoomId,
    /// Of the last message.
    sequence: u64,
    /// The time of agreement (see `Cluster`) in which it became known here, or may have begun to move away.
    pub(crate) era: u64,
    /// Ascending, never empty.
    members: Vec<ShardId>,
    /// Of the reliable messages of users.
    bucket: Bucket,
}

/// What a room has for a message.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Place<'a> {
    /// The room has no members.
    Unknown,
    /// It has given as many messages as its members can follow.
    Busy,
    /// Its sequence, and the shards that get it, ascending.
    At(u64, &'a [ShardId]),
}

impl Room {
    fn is(&self, app: AppId, room: RoomId) -> bool {
        self.app == app && self.room == room
    }
}

impl Rooms {
    pub(crate) fn new(seed: u64, me: ShardId, memberships_max: u32) -> Self {
        let number = u64::from(me.node()) * GAP_FACTOR + u64::from(me.index());
        let gap = MOVE_GAP + ((number % GAPS) << GAP_BITS);
        let (hash, memberships_max) = (IdHash::new(seed), memberships_max as usize);
        Self { hash, table: Stripes::new(), memberships_max, memberships: 0, floor: 0, gap }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Adds a member shard, once however often it joins, that has seen the room's messages up to `seen`; the answer is the
    /// sequence of the room's last message, or `None` when there is no place for another.
    pub(crate) fn join(
        &mut self,
        now: Instant,
        (app, room): (AppId, RoomId),
        shard: ShardId,
        seen: u64,
        era: u64,
    ) -> Option<u64> {
        let now_ns = now.unix_nanos();
        let seen = seen.min(sequence_believed_max(now_ns));
        // One that had another owner goes on above whatever that has given, in this ms too.
        let after_seen = if seen == 0 { 0 } else { seen.max(sequence_base(now_ns)).saturating_add(self.gap) };
        let hash = self.hash.of(app, room.0);
        if let Some(known) = self.table.find_mut(hash, |known| known.is(app, room)) {
            if let Err(at) = known.members.binary_search(&shard) {
                if self.memberships >= self.memberships_max {
                    return None;
                }
                self.memberships += 1;
                known.members.insert(at, shard);
            }
            if seen > known.sequence {
                known.sequence = after_seen;
            }
            return Some(known.sequence);
        }
        if self.memberships >= self.memberships_max {
            return None;
        }
        self.memberships += 1;
        let sequence = sequence_base(now_ns).max(self.floor).max(after_seen);
        let anew = Room { app, room, sequence, era, members: vec![shard], bucket: Bucket::default() };
        self.table.insert_unique(hash, anew, |known| self.hash.of(known.app, known.room.0));
        Some(sequence)
    }

    /// The room of that name.
    pub(crate) fn find(&self, app: AppId, room: RoomId) -> Option<&Room> {
        self.table.find(self.hash.of(app, room.0), |known| known.is(app, room))
    }

    pub(crate) fn set_era(&mut self, app: AppId, room: RoomId, era: u64) {
        if let Some(known) = self.table.find_mut(self.hash.of(app, room.0), |known| known.is(app, room)) {
            known.era = era;
        }
    }

    /// Removes a shard that is gone from every room, at the cost of a walk over all.
    pub(crate) fn forget_shard(&mut self, shard: ShardId) {
        let gone: Vec<(AppId, RoomId)> = self
            .table
            .iter()
            .filter(|known| known.members.binary_search(&shard).is_ok())
            .map(|known| (known.app, known.room))
            .collect();
        gone.into_iter().for_each(|(app, room)| self.leave(app, room, shard));
    }

    /// Removes a member shard, and the room with its last one.
    pub(crate) fn leave(&mut self, app: AppId, room: RoomId, shard: ShardId) {
        let hash = self.hash.of(app, room.0);
        let Some(known) = self.table.find_mut(hash, |known| known.is(app, room)) else { return };
        if let Ok(at) = known.members.binary_search(&shard) {
            known.members.remove(at);
            self.memberships -= 1;
        }
        if known.members.is_empty() {
            self.floor = self.floor.max(known.sequence);
            self.table.remove(hash, |known| known.is(app, room));
        }
    }

    /// Gives the room's next message its place, if the room's rate lets it cost so many tokens; one that costs nothing always gets
    /// one.
    pub(crate) fn place(
        &mut self,
        now: Instant,
        (app, room): (AppId, RoomId),
        rate: Rate,
        tokens: u32,
    ) -> Place<'_> {
        let found = self.table.find_mut(self.hash.of(app, room.0), |known| known.is(app, room));
        let Some(known) = found else { return Place::Unknown };
        if tokens > 0 && !known.bucket.take(now, rate, tokens) {
            return Place::Busy;
        }
        known.sequence += 1;
        Place::At(known.sequence, &known.members)
    }

    /// The shards with members, ascending; empty for a room without any.
    pub(crate) fn members(&self, app: AppId, room: RoomId) -> &[ShardId] {
        self.find(app, room).map_or(&[], |known| &known.members)
    }

    pub(crate) fn check_invariants(&self) {
        let memberships: usize = self.table.iter().map(|known| known.members.len()).sum();
        assert_eq!(memberships, self.memberships);
        assert!(memberships <= self.memberships_max);
        for known in self.table.iter() {
            assert!(!known.members.is_empty(), "a room without members is forgotten");
            assert!(known.members.is_sorted_by(|a, b| a < b), "member shards ascend, each once");
            assert_eq!(self.members(known.app, known.room), known.members, "a room is found under its name");
        }
    }
}
