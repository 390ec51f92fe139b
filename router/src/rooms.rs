//! Which shards have members of a room, and the order of its messages.

use shard::{Instant, Rate, ShardId, SharedBucket};
use wire::node::{sequence_base, sequence_believed_max};
use wire::{AppId, RoomId, UserId};

use crate::hash::IdHash;
use crate::stripes::Stripes;

/// A room goes on with another owner this far above the highest sequence that a member's shard has seen: the
/// owner before may have given some that no shard had seen yet.
const MOVE_GAP: u64 = 1 << 16;
/// Every router shard of a cluster has a slot of its own, in which a room that comes to it begins, so that
/// two owners that take it over at the same time give different sequences. The slots of all shards make a
/// cycle of about half a second, which repeats.
const SLOT_BITS: u32 = 6;
const SLOTS_BITS: u32 = 15;
const CYCLE: u64 = 1 << (SLOTS_BITS + SLOT_BITS);
/// How many cycles a room may be ahead of the clock and still begin again.
const AHEAD_CYCLES: u64 = 4;
/// The bits of a shard's number that are its index, unless its node is alone.
const INDEX_BITS: u32 = 5;
/// Odd, so no two numbers share a slot; near 2^15 divided by the golden ratio, so shards whose numbers follow
/// each other have slots far apart.
const SLOT_FACTOR: u64 = 20_251;

/// The rooms with members, each with the shards that have them.
///
/// A room is forgotten when its last shard leaves, but sequences never go back: a room begins after a base
/// that grows with the clock that all nodes share, and always above the last sequence of a forgotten one.
#[derive(Debug)]
pub(crate) struct Rooms {
    hash: IdHash,
    table: Stripes<Room>,
    memberships_max: usize,
    /// Member shards of all rooms.
    memberships: usize,
    /// New rooms begin above this: the highest sequence of any room that was forgotten.
    floor: u64,
    /// Where this router's slot begins in each cycle.
    slot: u64,
}

#[derive(Debug)]
pub(crate) struct Room {
    app: AppId,
    room: RoomId,
    /// The sequence of the last message.
    pub(crate) sequence: u64,
    /// Where this owner began to give sequences; earlier ones may belong to messages that it never had.
    pub(crate) base: u64,
    /// The highest sequence below `base` that some member's shard had seen or heard of.
    pub(crate) seen: u64,
    /// Messages up to this sequence are known here: from the owner before, or kept from before the room was
    /// empty; 0 for none.
    pub(crate) linked: u64,
    /// Until when the owner before, or the directory, may still send messages.
    pub(crate) awaits_until: Instant,
    /// Whether the directory was asked.
    pub(crate) has_read: bool,
    /// The loss count of the directory since which the room's stream has all that this owner has said.
    pub(crate) stream_life: Option<u32>,
    /// The era (see `Cluster`) in which the room became known here, or may have begun to move away.
    pub(crate) era: u64,
    /// The member shards, ascending, never empty.
    members: Vec<ShardId>,
    /// The rate of reliable messages of users.
    bucket: SharedBucket<UserId>,
}

/// The result of a shard's join.
pub(crate) struct Entered {
    /// The sequence of the room's last message.
    pub(crate) sequence: u64,
    /// Whether the room had no members before.
    pub(crate) has_begun: bool,
    /// Whether other owners have given sequences that this one did not know: it goes on above them, or has
    /// fewer of their messages than it thought.
    pub(crate) has_lost: bool,
    /// Where this owner began, and up to which sequence the shard has heard of messages of other owners, if
    /// none before has heard of as many.
    pub(crate) heard: Option<(u64, u64)>,
}

/// What remains of a room without members.
#[derive(Clone, Copy)]
pub(crate) struct Left {
    /// The sequence of its last message.
    pub(crate) sequence: u64,
    /// See [`Room::stream_life`].
    pub(crate) stream_life: Option<u32>,
}

/// What a room answers to a message.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Place<'a> {
    /// The room has no members.
    Unknown,
    /// It has sent as many messages as its members can follow.
    Busy,
    /// Its sequence, where the room began, and the shards that get it, ascending.
    At(u64, u64, &'a [ShardId]),
}

impl Room {
    fn is(&self, app: AppId, room: RoomId) -> bool {
        self.app == app && self.room == room
    }

    pub(crate) fn has(&self, member: ShardId) -> bool {
        self.members.binary_search(&member).is_ok()
    }
}

impl Rooms {
    pub(crate) fn new(seed: u64, me: ShardId, memberships_max: u32) -> Self {
        let number = (u64::from(me.node()) << INDEX_BITS) + u64::from(me.index());
        let slot = (number.wrapping_mul(SLOT_FACTOR) % (1 << SLOTS_BITS)) << SLOT_BITS;
        let (hash, memberships_max) = (IdHash::new(seed), memberships_max as usize);
        Self { hash, table: Stripes::new(), memberships_max, memberships: 0, floor: 0, slot }
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Where this router's slot begins next, at `sequence` or later.
    fn next_slot(&self, sequence: u64) -> u64 {
        let here = (sequence & !(CYCLE - 1)) | self.slot;
        if here < sequence { here.saturating_add(CYCLE) } else { here }
    }

    /// Adds a member shard that has seen the room's messages up to `seen`; a shard counts once however often
    /// it joins. Returns the sequence of the room's last message, or `None` if there is no place for another
    /// shard. `now_ns` is the time of the clock that all nodes share.
    pub(crate) fn join(
        &mut self,
        now_ns: u64,
        (app, room): (AppId, RoomId),
        shard: ShardId,
        seen: u64,
        era: u64,
    ) -> Option<Entered> {
        let base = sequence_base(now_ns);
        let seen = seen.min(sequence_believed_max(now_ns));
        // A room that had another owner goes on above all sequences of that one, in this ms too.
        let after_seen = if seen == 0 { 0 } else { self.next_slot(seen.max(base).saturating_add(MOVE_GAP)) };
        let hash = self.hash.of(app, room.0);
        if let Some(known) = self.table.find_mut(hash, |known| known.is(app, room)) {
            if let Err(at) = known.members.binary_search(&shard) {
                if self.memberships >= self.memberships_max {
                    return None;
                }
                self.memberships += 1;
                known.members.insert(at, shard);
            }
            let is_ahead = seen > known.sequence;
            if is_ahead {
                known.sequence = after_seen;
            }
            let is_of_another = seen > known.seen && (is_ahead || seen < known.base);
            if is_of_another {
                known.seen = seen;
            }
            let has_lost = is_of_another && (is_ahead || known.linked > 0 && seen > known.linked);
            if has_lost {
                known.base = if is_ahead { known.sequence } else { known.base };
                known.linked = 0;
            }
            let heard = is_of_another.then_some((known.base, seen));
            return Some(Entered { sequence: known.sequence, has_begun: false, has_lost, heard });
        }
        if self.memberships >= self.memberships_max {
            return None;
        }
        self.memberships += 1;
        let sequence = self.next_slot(base).max(self.floor).max(after_seen);
        let anew = Room {
            app,
            room,
            sequence,
            base: sequence,
            seen,
            linked: 0,
            awaits_until: Instant::default(),
            has_read: false,
            stream_life: None,
            era,
            members: vec![shard],
            bucket: SharedBucket::default(),
        };
        self.table.insert_unique(hash, anew, |known| self.hash.of(known.app, known.room.0));
        let heard = (seen > 0).then_some((sequence, seen));
        Some(Entered { sequence, has_begun: true, has_lost: false, heard })
    }

    /// Moves a room's sequence, and its base, above any that another owner may have begun with, and returns
    /// it; `None` if that was done since the room gave the sequence `of`, or is impossible: two owners that
    /// overtake each other stay near the clock. `now_ns` is the time of the clock that all nodes share.
    pub(crate) fn begin_again(&mut self, now_ns: u64, app: AppId, room: RoomId, of: u64) -> Option<u64> {
        let base = sequence_base(now_ns);
        let sequence = self.find(app, room).map(|known| known.sequence)?;
        let is_far_ahead = sequence > base.saturating_add(AHEAD_CYCLES * CYCLE);
        if sequence >= of.saturating_add(CYCLE) || is_far_ahead {
            return None;
        }
        // The other owner has begun in a slot of its own, in the cycle after its base.
        let sequence = self.next_slot(sequence.max(base).saturating_add(MOVE_GAP + CYCLE));
        let known = self.find_mut(app, room)?;
        (known.sequence, known.base, known.linked) = (sequence, sequence, 0);
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

    /// Makes new rooms begin above a sequence that an owner before has given, unless a broken clock made
    /// that.
    pub(crate) fn begin_above(&mut self, now: Instant, sequence: u64) {
        if sequence <= sequence_base(now.unix_nanos()).saturating_add(2 * CYCLE) {
            self.floor = self.floor.max(sequence);
        }
    }

    /// The room of that name, to change it.
    pub(crate) fn find_mut(&mut self, app: AppId, room: RoomId) -> Option<&mut Room> {
        self.table.find_mut(self.hash.of(app, room.0), |known| known.is(app, room))
    }

    /// Removes a shard that is gone from every room, by a walk over all. Returns the rooms that have no
    /// member left.
    pub(crate) fn forget_shard(&mut self, shard: ShardId) -> Vec<(AppId, RoomId, Left)> {
        let gone: Vec<(AppId, RoomId)> = self
            .table
            .iter()
            .filter(|known| known.members.binary_search(&shard).is_ok())
            .map(|known| (known.app, known.room))
            .collect();
        let left = |(app, room)| Some((app, room, self.leave(app, room, shard)?));
        gone.into_iter().filter_map(left).collect()
    }

    /// Removes a member shard. If it was the last, removes the room and returns what remains of it.
    pub(crate) fn leave(&mut self, app: AppId, room: RoomId, shard: ShardId) -> Option<Left> {
        let hash = self.hash.of(app, room.0);
        let known = self.table.find_mut(hash, |known| known.is(app, room))?;
        if let Ok(at) = known.members.binary_search(&shard) {
            known.members.remove(at);
            self.memberships -= 1;
        }
        if !known.members.is_empty() {
            return None;
        }
        let Room { sequence, stream_life, .. } = *known;
        self.floor = self.floor.max(sequence);
        self.table.remove(hash, |known| known.is(app, room));
        Some(Left { sequence, stream_life })
    }

    /// Gives the room's next message its place, if the room's rate allows its sender this many tokens; a
    /// message that costs nothing always gets one.
    pub(crate) fn place(
        &mut self,
        now: Instant,
        (app, room): (AppId, RoomId),
        rate: Rate,
        (sender, tokens): (UserId, u32),
    ) -> Place<'_> {
        let found = self.table.find_mut(self.hash.of(app, room.0), |known| known.is(app, room));
        let Some(known) = found else { return Place::Unknown };
        if tokens > 0 && !known.bucket.take(now, rate, sender, tokens) {
            return Place::Busy;
        }
        known.sequence += 1;
        Place::At(known.sequence, known.base, &known.members)
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
