//! Which local sessions are in which rooms.
//!
//! A shard asks a room's owner for its messages once, with its first member, and gives them up with its last.
//! A membership knows its place in the room's member list, and its session's next membership, so joining and
//! leaving are O(1) in the size of the room.

use std::collections::BTreeMap;

use hashbrown::HashTable;
use shard::{ConnId, Instant, Key, Slab, TimerId};
use wire::client::Message;
use wire::node::sequence_believed_max;
use wire::{AppId, RoomId};

use crate::hash;
use crate::latency::Stamp;
use crate::limits::{
    EARLY_BYTES_MAX, EARLY_MESSAGES_MAX, HELD_BYTES_MAX, LEFT_ROOMS_MAX, LEFT_ROOMS_TOLD_MAX,
};
use crate::recall::Recall;

/// The first of a session's memberships, or none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Memberships(u32);

impl Memberships {
    pub(crate) const NONE: Memberships = Memberships(NONE);
}

const NONE: u32 = u32::MAX;

pub(crate) struct Rooms {
    seed: u64,
    index: HashTable<Key>,
    rooms: Slab<Room>,
    left: LeftRooms,
    memberships: Vec<Membership>,
    free: Vec<u32>,
    /// The number of the last question to an owner.
    asks: u32,
    /// Timers of questions whose answers nobody waits for any more.
    pub(crate) unneeded: Vec<TimerId>,
}

/// A room with members on this shard.
pub(crate) struct Room {
    pub(crate) app: AppId,
    pub(crate) id: RoomId,
    pub(crate) members: Vec<Member>,
    /// The sequence of the last message seen; what a member that joins is told.
    pub(crate) sequence: u64,
    /// The highest sequence that an owner has said of it. Its next owner goes on above.
    pub(crate) told: u64,
    /// The highest sequence that a send-ack has named. Its message may not have come here.
    acked: u64,
    /// The sequence that its first members here were told: what comes up to it is not for any of them.
    pub(crate) since: u64,
    /// The owner has been asked and has not answered yet; members wait for their answer.
    pub(crate) joining: bool,
    /// Lossy messages that wait for the end of the room's interval; its timer is armed while there are any.
    pub(crate) held: Vec<Message>,
    /// When the first of `held` came.
    pub(crate) held_since: Stamp,
    /// Messages that overtook the owner's answer, on the way over a sibling.
    pub(crate) early: Early,
    /// Of the payloads of `held`.
    pub(crate) held_bytes: usize,
    /// The end of the interval that the last fan-out began.
    pub(crate) next_fan_out: Instant,
    /// Members that wait for what the room said before, and get nothing else of it until then.
    pub(crate) recall: Option<Box<Recall>>,
}

/// A member as a broadcast walks over it.
#[derive(Clone, Copy)]
pub(crate) struct Member {
    pub(crate) conn: ConnId,
    membership: u32,
}

struct Membership {
    room: Key,
    /// Where the room's list has it.
    position: u32,
    /// The session's next membership.
    next: u32,
}

/// Messages that wait for the owner's answer.
#[derive(Default)]
pub(crate) struct Early {
    messages: Vec<Message>,
    /// Of their payloads.
    bytes: usize,
}

impl Early {
    fn takes(&self, message: &Message) -> bool {
        self.messages.len() < EARLY_MESSAGES_MAX && self.bytes + message.payload.len() <= EARLY_BYTES_MAX
    }

    pub(crate) fn push(&mut self, message: Message) {
        self.bytes += message.payload.len();
        self.messages.push(message);
    }

    pub(crate) fn into_messages(self) -> Vec<Message> {
        self.messages
    }
}

/// Where a message stands in the order of a room.
pub(crate) enum Place {
    /// The owner has yet to answer: it waits for that.
    Early,
    /// It was sent before its members joined.
    Before,
    /// It comes after a newer one, or is from the future: it would break the order.
    Late {
        /// Its owner counts below what members have seen, and does not know that.
        is_behind: bool,
    },
    /// It is the newest.
    Next,
}

/// What becomes of a lossy message that a room holds.
pub(crate) struct Hold {
    /// It is the first: the end of the interval is to be waited for.
    pub(crate) begins: bool,
    /// All that is held leaves at once.
    pub(crate) is_due: bool,
}

impl Room {
    /// Finds the place of a message, and goes on to its sequence if it is the newest. One that comes after a
    /// newer one was on its way while the room changed its owner. One from the future would make all that
    /// follow late.
    pub(crate) fn place(&mut self, now: Instant, message: &Message) -> Place {
        if self.joining && self.early.takes(message) {
            return Place::Early;
        }
        if message.sequence <= self.since {
            return Place::Before;
        }
        let is_future = message.sequence > sequence_believed_max(now.unix_nanos());
        if message.sequence <= self.sequence || is_future || self.joining {
            // The owner gives sequences above what it has told. Another, that was owner for a moment, gave
            // higher ones: until the owner knows, all that it says would come too late.
            let is_behind = !self.joining && message.sequence > self.told && self.sequence > self.told;
            return Place::Late { is_behind };
        }
        self.sequence = message.sequence;
        Place::Next
    }

    /// Keeps a lossy message for the next fan-out.
    pub(crate) fn hold(&mut self, now: Instant, message: Message) -> Hold {
        let is_early = now < self.next_fan_out;
        if self.held.is_empty() {
            self.held_since = Stamp::of(now);
        }
        let begins = is_early && self.held.is_empty();
        self.held_bytes += message.payload.len();
        self.held.push(message);
        Hold { begins, is_due: !is_early || self.held_bytes > HELD_BYTES_MAX }
    }

    /// The highest sequence of it that this shard has seen or heard of.
    fn seen(&self) -> u64 {
        self.sequence.max(self.told).max(self.acked)
    }

    fn new(app: AppId, id: RoomId) -> Self {
        Self {
            app,
            id,
            members: Vec::new(),
            sequence: 0,
            told: 0,
            acked: 0,
            since: 0,
            joining: true,
            held: Vec::new(),
            held_since: Stamp::default(),
            early: Early::default(),
            held_bytes: 0,
            next_fan_out: Instant::default(),
            recall: None,
        }
    }
}

/// What a join found.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Joined {
    /// Ask the owner, which is to hear of this sequence: the highest that this shard has seen of the room, 0
    /// for none.
    First(u64),
    /// The owner has been asked already.
    Waiting,
    /// In, from this sequence on.
    At(u64),
}

impl Rooms {
    pub(crate) fn new(seed: u64) -> Self {
        let (index, rooms, left) = (HashTable::new(), Slab::new(), LeftRooms::default());
        let (memberships, free, unneeded) = (Vec::new(), Vec::new(), Vec::new());
        Self { seed, index, rooms, left, memberships, free, asks: 0, unneeded }
    }

    pub(crate) fn key(&self, app: AppId, id: RoomId) -> Option<Key> {
        let is_it = |key: &Key| {
            let room = &self.rooms[*key];
            room.app == app && room.id == id
        };
        self.index.find(hash::room(self.seed, app, id), is_it).copied()
    }

    /// Names a question to an owner.
    pub(crate) fn next_ask(&mut self) -> u32 {
        self.asks = self.asks.wrapping_add(1);
        self.asks
    }

    /// The key of the room at that index, whichever it is.
    pub(crate) fn key_at(&self, index: u32) -> Option<Key> {
        self.rooms.key_at(index)
    }

    /// The room of a key that was just looked up.
    pub(crate) fn get_mut(&mut self, key: Key) -> &mut Room {
        &mut self.rooms[key]
    }

    pub(crate) fn find(&mut self, app: AppId, room: RoomId) -> Option<&mut Room> {
        let key = self.key(app, room)?;
        Some(self.get_mut(key))
    }

    /// The rooms with members here, or whose owner has yet to hear that there are none, each with the highest
    /// sequence seen or heard of.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (AppId, RoomId, u64)> + '_ {
        self.rooms.iter().map(|(_, room)| (room.app, room.id, room.seen()))
    }

    /// Rooms with members here.
    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// Memberships of all sessions.
    pub(crate) fn memberships(&self) -> usize {
        self.memberships.len() - self.free.len()
    }

    /// Whether the session is in the room.
    pub(crate) fn contains(&self, of: Memberships, room: RoomId) -> bool {
        self.of(of).any(|(_, id)| id == room)
    }

    /// The one room of a session that is in just one.
    pub(crate) fn only(&self, of: Memberships) -> Option<RoomId> {
        let mut rooms = self.of(of);
        match (rooms.next(), rooms.next()) {
            (Some((_, room)), None) => Some(room),
            _ => None,
        }
    }

    /// The rooms that the session is in.
    pub(crate) fn ids(&self, of: Memberships) -> impl Iterator<Item = RoomId> + '_ {
        self.of(of).map(|(_, room)| room)
    }

    /// How many rooms the session is in.
    pub(crate) fn count(&self, of: Memberships) -> usize {
        self.of(of).count()
    }

    /// Puts a session, which is not in it, into a room.
    pub(crate) fn join(&mut self, of: &mut Memberships, conn: ConnId, app: AppId, id: RoomId) -> Joined {
        let (key, joined) = match self.key(app, id) {
            Some(key) => {
                let room = &self.rooms[key];
                (key, if room.joining { Joined::Waiting } else { Joined::At(room.sequence) })
            }
            None => {
                let seen = self.left.take(hash::room(self.seed, app, id), app, id);
                (self.open(app, id, seen), Joined::First(seen))
            }
        };
        let members = &mut self.rooms[key].members;
        let membership = Membership { room: key, position: members.len() as u32, next: of.0 };
        let at = match self.free.pop() {
            Some(at) => {
                self.memberships[at as usize] = membership;
                at
            }
            None => {
                self.memberships.push(membership);
                self.memberships.len() as u32 - 1
            }
        };
        members.push(Member { conn, membership: at });
        *of = Memberships(at);
        joined
    }

    /// A room that its owner is asked for, and of which this shard has seen messages up to `seen`.
    fn open(&mut self, app: AppId, id: RoomId, seen: u64) -> Key {
        let key = self.rooms.insert(Room { told: seen, ..Room::new(app, id) });
        let (rooms, seed) = (&self.rooms, self.seed);
        self.index.insert_unique(hash::room(seed, app, id), key, |key| {
            let room = &rooms[*key];
            hash::room(seed, room.app, room.id)
        });
        key
    }

    /// An owner has given a message of a room this sequence.
    pub(crate) fn hear(&mut self, app: AppId, id: RoomId, sequence: u64) {
        match self.find(app, id) {
            Some(room) => room.acked = room.acked.max(sequence),
            None => self.left.hear(hash::room(self.seed, app, id), app, id, sequence),
        }
    }

    /// Rooms have lost their owners, which may have died before others knew what they had said. Of those
    /// that were left here last, the next owners are to hear how much this shard has seen: they are asked as
    /// if somebody joined, and told when they answer that nobody is there.
    pub(crate) fn call_left(&mut self, is_lost: impl Fn(AppId, RoomId) -> bool) {
        for (hash, app, id) in self.left.last(is_lost) {
            let seen = self.left.take(hash, app, id);
            self.open(app, id, seen);
        }
    }

    /// Takes a session out of a room. Answers whether it was in it, and whether the owner is to be told that
    /// it was the last.
    pub(crate) fn leave(&mut self, of: &mut Memberships, id: RoomId) -> Option<Last> {
        let mut before = NONE;
        let mut at = of.0;
        while at != NONE {
            let membership = &self.memberships[at as usize];
            let (room, next) = (membership.room, membership.next);
            if self.rooms[room].id == id {
                match before {
                    NONE => *of = Memberships(next),
                    before => self.memberships[before as usize].next = next,
                }
                return Some(self.remove(at));
            }
            before = at;
            at = next;
        }
        None
    }

    /// Takes a session out of any one of its rooms; `None` when it is in none any more.
    pub(crate) fn leave_any(&mut self, of: &mut Memberships) -> Option<(RoomId, Last)> {
        let at = of.0;
        let membership = self.memberships.get(at as usize)?;
        let id = self.rooms[membership.room].id;
        *of = Memberships(membership.next);
        Some((id, self.remove(at)))
    }

    /// The owner answered. Gives the room with its waiting members, or `None` when the last of them has left
    /// meanwhile: then the owner is to be told.
    pub(crate) fn joined(&mut self, app: AppId, id: RoomId, sequence: u64) -> Answered<'_> {
        let Some(key) = self.key(app, id) else {
            return Answered::Unknown;
        };
        let room = &mut self.rooms[key];
        room.told = room.told.max(sequence);
        if !room.joining {
            return Answered::Unknown;
        }
        room.joining = false;
        room.sequence = room.sequence.max(sequence);
        room.since = room.sequence;
        if room.members.is_empty() {
            self.forget(key);
            return Answered::Deserted;
        }
        Answered::Members(&self.rooms[key])
    }

    /// The members of a room that get its broadcasts now.
    pub(crate) fn listeners(&mut self, key: Key) -> Vec<Member> {
        let room = self.get_mut(key);
        let waits = |conn| room.recall.as_ref().is_some_and(|recall| recall.waits(conn));
        room.members.iter().filter(|member| !waits(member.conn)).copied().collect()
    }

    fn of(&self, of: Memberships) -> impl Iterator<Item = (Key, RoomId)> + '_ {
        let mut at = of.0;
        std::iter::from_fn(move || {
            let membership = self.memberships.get(at as usize)?;
            at = membership.next;
            Some((membership.room, self.rooms[membership.room].id))
        })
    }

    fn remove(&mut self, at: u32) -> Last {
        let Membership { room: key, position, .. } = self.memberships[at as usize];
        self.free.push(at);
        let room = &mut self.rooms[key];
        let member = room.members.swap_remove(position as usize);
        if room.recall.as_mut().is_some_and(|recall| recall.leave(member.conn)) {
            self.unneeded.extend(room.recall.take().and_then(|recall| recall.timer));
        }
        if let Some(moved) = room.members.get(position as usize) {
            self.memberships[moved.membership as usize].position = position;
        }
        if !room.members.is_empty() || room.joining {
            return Last(false);
        }
        self.forget(key);
        Last(true)
    }

    fn forget(&mut self, key: Key) {
        let room = &self.rooms[key];
        let hash = hash::room(self.seed, room.app, room.id);
        self.left.put(hash, room.app, room.id, room.seen());
        self.index.find_entry(hash, |found| *found == key).expect("every room is indexed").remove();
        self.rooms.remove(key);
    }

    /// Own-state invariants, for tests and simulation.
    pub(crate) fn check_invariants(&self) {
        assert_eq!(self.index.len(), self.rooms.len());
        assert!(self.left.table.len() == self.left.by_age.len() && self.left.by_age.len() <= LEFT_ROOMS_MAX);
        let mut members = 0;
        for (key, room) in self.rooms.iter() {
            assert!(
                room.joining || room.early.messages.is_empty(),
                "early messages wait for the answer only"
            );
            assert!(room.joining || !room.members.is_empty(), "a room is forgotten with its last member");
            assert_eq!(self.key(room.app, room.id), Some(key));
            for (position, member) in room.members.iter().enumerate() {
                let membership = &self.memberships[member.membership as usize];
                assert_eq!((membership.room, membership.position as usize), (key, position));
            }
            members += room.members.len();
        }
        assert_eq!(members, self.memberships());
    }
}

/// The sequences of rooms whose last member here has left: a room that comes again may have another owner,
/// which is to go on above.
#[derive(Default)]
struct LeftRooms {
    table: HashTable<LeftRoom>,
    /// The hash and name of each, by its age.
    by_age: BTreeMap<u64, (u64, AppId, RoomId)>,
    age: u64,
}

struct LeftRoom {
    hash: u64,
    app: AppId,
    id: RoomId,
    seen: u64,
    age: u64,
}

impl LeftRooms {
    /// Remembers a room of which it remembers nothing, and forgets the one that it has remembered for longest
    /// when there are too many.
    fn put(&mut self, hash: u64, app: AppId, id: RoomId, seen: u64) {
        if seen == 0 {
            return;
        }
        self.age += 1;
        let age = self.age;
        self.table.insert_unique(hash, LeftRoom { hash, app, id, seen, age }, |known| known.hash);
        self.by_age.insert(age, (hash, app, id));
        if self.by_age.len() > LEFT_ROOMS_MAX
            && let Some((_, (hash, app, id))) = self.by_age.pop_first()
            && let Ok(oldest) = self.table.find_entry(hash, |known| known.app == app && known.id == id)
        {
            oldest.remove();
        }
    }

    /// Remembers that an owner gave a sequence.
    fn hear(&mut self, hash: u64, app: AppId, id: RoomId, sequence: u64) {
        match self.table.find_mut(hash, |known| known.app == app && known.id == id) {
            Some(known) => known.seen = known.seen.max(sequence),
            None => self.put(hash, app, id, sequence),
        }
    }

    /// Of the rooms that it has remembered last, those that are meant.
    fn last(&self, is_it: impl Fn(AppId, RoomId) -> bool) -> Vec<(u64, AppId, RoomId)> {
        let last = self.by_age.values().rev().take(LEFT_ROOMS_TOLD_MAX);
        last.filter(|(_, app, id)| is_it(*app, *id)).copied().collect()
    }

    /// Takes out what is remembered of a room; 0 for nothing.
    fn take(&mut self, hash: u64, app: AppId, id: RoomId) -> u64 {
        let found = self.table.find_entry(hash, |known| known.app == app && known.id == id);
        let Ok(found) = found else { return 0 };
        let (LeftRoom { seen, age, .. }, _) = found.remove();
        self.by_age.remove(&age);
        seen
    }
}

/// Whether the owner is to be told that this shard has no member any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Last(pub(crate) bool);

/// What the owner's answer to a join found.
pub(crate) enum Answered<'a> {
    /// The room, whose members all wait for this answer.
    Members(&'a Room),
    /// Everybody has left; tell the owner.
    Deserted,
    /// Nobody asked.
    Unknown,
}
