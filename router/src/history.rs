//! What rooms said, kept for members who were away.
//!
//! A room has a ring: its last messages in the order of their sequences, within bounds for each business code
//! (messages, bytes, age). All rings share a pool of bytes; when it is full, the room that has most gives up
//! its oldest. A sender has a share of the pool in all rooms together: what it says beyond that is not kept.
//!
//! A ring is honest about its holes. `gone` is the highest sequence that some message had which is not here
//! any more, or that an owner before may have given to one. So everything after a sequence is here only if
//! that is not below `gone`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use shard::{Amount, Instant, Key, Shares, Slab};
use wire::client::Message;
use wire::node::{Entry as StreamEntry, HISTORY_BYTES_MAX, HISTORY_MESSAGES_MAX, Kept, Stream};
use wire::{AppId, BizCode, EPOCH_UNIX_MS, RoomId, UserId};

use crate::hash::IdHash;
use crate::keep::{Keep, Keeps};
use crate::limits::{ENTRY_BYTES, HISTORY_SHARES, Limits, RING_BYTES, SWEEP_PER_STEP};
use crate::stripes::Stripes;
use crate::term::Term;

/// The rings of all rooms.
pub(crate) struct Histories {
    /// The bounds by lane: those of the codes that have their own, ascending, then those of all others.
    codes: Vec<BizCode>,
    keeps: Vec<Keep>,
    bytes_max: u64,
    hash: IdHash,
    index: Stripes<(AppId, RoomId, Key)>,
    rings: Slab<Ring>,
    /// What each sender has of all rings.
    held: Held,
    /// Rings by what they have (see [`class`]).
    by_size: BTreeSet<(u64, u64)>,
    /// Messages that made room for others.
    evicted: u64,
    /// Where the next step of the sweep begins.
    swept: u32,
    /// Above the index of every ring that there was.
    top: u32,
}

/// The width of a size class (see [`class`]).
const CLASS_BYTES: u64 = 4096;

type Held = Shares<(AppId, UserId)>;
const ANY: Amount = Amount { entries: u64::MAX, bytes: u64::MAX };

/// What an allocation of bytes takes beside them, and their count of references.
const ALLOCATION_BYTES: usize = 48;
/// What a table takes for an entry, in so many times its size: it doubles when it is seven eighths full.
const TABLE_TIMES: usize = 3;

const _: () = assert!(
    ENTRY_BYTES
        >= size_of::<Entry>() * 5 / 4
            + 2 * ALLOCATION_BYTES
            + TABLE_TIMES * size_of::<((AppId, UserId), Amount)>(),
    "an entry counts for what it takes"
);
const _: () = assert!(
    RING_BYTES as usize
        >= size_of::<Ring>()
            + 2 * size_of::<Entry>()
            + TABLE_TIMES * (size_of::<(AppId, RoomId, Key)>() + size_of::<(u64, u64)>())
            + ALLOCATION_BYTES,
    "a ring counts for what it takes"
);

/// What a ring of so many lanes that has messages takes beside them.
const fn ring_bytes(lanes: usize) -> u64 {
    RING_BYTES + (lanes * size_of::<Amount>()) as u64
}

/// What one room said.
pub(crate) struct Ring {
    pub(crate) app: AppId,
    pub(crate) room: RoomId,
    entries: VecDeque<Entry>,
    /// What each lane has of the entries.
    lanes: Vec<Amount>,
    bytes: u64,
    /// See above.
    gone: u64,
    /// The room's sequence when its last member left; `None` while it has members.
    pub(crate) left_at: Option<u64>,
    /// When that was last known to be all that was said.
    pub(crate) term: Term,
    /// It waits to be sent to the next owner.
    pub(crate) is_moving: bool,
    /// Another owner may have said something since the last member left.
    is_unsure: bool,
    /// Messages up to here were kept by chance, and give way to what the last owner has; 0 if none was.
    stale_upto: u64,
    /// A message may have two places: a gateway submits it again to the next owner if it has not heard of its
    /// first place.
    may_repeat: bool,
}

struct Entry {
    message: Message,
    until: Instant,
    lane: u16,
}

/// What is known of a room's messages after a sequence, or of its last ones.
pub(crate) struct Part {
    pub(crate) gone: u64,
    pub(crate) messages: Vec<Message>,
}

impl Histories {
    pub(crate) fn new(seed: u64, limits: &Limits, keeps: Keeps) -> Self {
        let own = keeps.into_codes();
        let codes = own.iter().map(|(code, _)| *code).collect();
        let keeps = own.into_iter().map(|(_, keep)| keep).chain([limits.history()]).collect();
        Self {
            codes,
            keeps,
            bytes_max: limits.history_bytes_max,
            hash: IdHash::new(seed),
            index: Stripes::new(),
            rings: Slab::new(),
            held: Shares::new(seed),
            by_size: BTreeSet::new(),
            evicted: 0,
            swept: 0,
            top: 0,
        }
    }

    /// Rings, their messages with their bytes, and how many messages made room for others.
    pub(crate) fn metrics(&self) -> (u64, Amount, u64) {
        (self.rings.len() as u64, self.held.held(), self.evicted)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rings.is_empty()
    }

    pub(crate) fn find(&self, app: AppId, room: RoomId) -> Option<&Ring> {
        self.rings.get(self.key(app, room)?)
    }

    fn key(&self, app: AppId, room: RoomId) -> Option<Key> {
        let hash = self.hash.of(app, room.0);
        self.index.find(hash, |(its, id, _)| (*its, *id) == (app, room)).map(|(_, _, key)| *key)
    }

    /// Keeps a room's message, if its code is kept. `base` is where the room began, if it has no ring yet.
    /// `again`: it may have a place already. Answers what a stream of the room gets.
    pub(crate) fn keep(
        &mut self,
        now: Instant,
        message: &Message,
        base: u64,
        again: bool,
    ) -> Option<StreamEntry> {
        let lane = self.lane(message.biz_code);
        let keep = self.keeps[usize::from(lane)];
        let room = message.room.filter(|_| !keep.is_none())?;
        let key = self.open(message.app, room, base);
        let until = now + Duration::from_millis(keep.ms.into());
        let cost = cost(message);
        let is_too_long = cost > u64::from(keep.bytes) || cost > self.share();
        if !is_too_long {
            self.change(key, |ring, held| ring.make_room(now, lane, keep, cost, held));
        }
        let is_first = self.rings.get(key).is_none_or(|ring| ring.entries.is_empty());
        if is_too_long || !self.take_share(message, is_first) {
            self.rings[key].gone = message.sequence; // too long to be kept, or its sender has too much
            return Some(StreamEntry::Gap(message.sequence));
        }
        self.change(key, |ring, _| {
            ring.may_repeat |= again;
            ring.reserve();
            ring.entries.push_back(Entry { message: message.clone(), until, lane });
            ring.count(lane, cost);
        });
        self.shrink(key);
        Some(StreamEntry::Message(message.clone()))
    }

    /// Takes in what the stream of a room has, which other owners wrote before this one began it after
    /// `base`. Members have seen or heard of messages up to `seen`. Nothing is taken in beside what came from
    /// an owner itself. Answers up to where the stream goes if nothing is missing after it; `is_settled`: all
    /// gateways have told what their members have seen.
    pub(crate) fn take_stream(
        &mut self,
        now: Instant,
        Stream { app, room, entries }: Stream,
        base: u64,
        seen: u64,
        is_settled: bool,
    ) -> Option<u64> {
        let ring = self.find(app, room);
        let begins_here = |ring: &Ring| ring.first().is_none_or(|first| first > base);
        let is_fresh =
            ring.is_none_or(|ring| ring.gone == base && ring.left_at.is_none() && begins_here(ring));
        // One that began again above this one had said something below it that the stream did not take.
        let is_overtaken = |entry: &StreamEntry| matches!(entry, StreamEntry::Lost(at) if *at > base);
        let is_settled = is_settled && !entries.iter().any(is_overtaken);
        let below = entries.into_iter().filter(|entry| entry.sequence() < base);
        let (marks, entries): (Vec<_>, Vec<_>) =
            below.partition(|entry| matches!(entry, StreamEntry::Seen { .. }));
        let (oldest, newest) = (entries.first()?, entries.last().filter(|_| is_fresh)?);
        let upto = newest.sequence();
        // The owner that died may have said more than it wrote. Then a member has seen more, or nobody was
        // there.
        let is_whole = is_settled && upto >= seen && (seen > 0 || matches!(newest, StreamEntry::Whole(_)));
        let before = match oldest {
            StreamEntry::Message(first) => first.sequence.saturating_sub(1),
            mark => mark.sequence(),
        };
        let key = self.open(app, room, base);
        self.drop_stale(key);
        let unwritten = marks.iter().filter_map(|mark| unwritten(mark, &entries)).max();
        let mut gone = if is_whole { before.max(unwritten.unwrap_or_default()) } else { base };
        for (at, entry) in entries.iter().enumerate().rev() {
            match entry {
                StreamEntry::Message(message) if !self.prepend(now, key, message) => {
                    gone = gone.max(message.sequence);
                    break;
                }
                StreamEntry::Gap(sequence) if !is_none(&entries, at) => gone = gone.max(*sequence),
                StreamEntry::Lost(sequence) => gone = gone.max(*sequence),
                StreamEntry::Message(_)
                | StreamEntry::Gap(_)
                | StreamEntry::NoGap(_)
                | StreamEntry::Whole(_)
                | StreamEntry::Seen { .. } => {}
            }
        }
        if let Some(ring) = self.rings.get_mut(key) {
            (ring.gone, ring.may_repeat) = (gone, true);
        }
        self.shrink(key);
        is_whole.then_some(upto)
    }

    /// The ring of a room; an empty one that begins after `gone` if there is none.
    fn open(&mut self, app: AppId, room: RoomId, gone: u64) -> Key {
        if let Some(key) = self.key(app, room) {
            return key;
        }
        let (lanes, term) = (vec![Amount::default(); self.keeps.len()], Term::default());
        let entries = VecDeque::new();
        let ring = Ring {
            app,
            room,
            entries,
            lanes,
            bytes: 0,
            gone,
            left_at: None,
            term,
            is_moving: false,
            is_unsure: false,
            stale_upto: 0,
            may_repeat: false,
        };
        let key = self.rings.insert(ring);
        self.top = self.top.max(key.index + 1);
        let hash = self.hash.of(app, room.0);
        self.index.insert_unique(hash, (app, room, key), |(app, room, _)| self.hash.of(*app, room.0));
        self.by_size.insert((0, key.as_u64()));
        key
    }

    /// Changes a ring and keeps the pool's count true.
    fn change(&mut self, key: Key, change: impl FnOnce(&mut Ring, &mut Held)) {
        let Some(ring) = self.rings.get_mut(key) else { return };
        let before = class(ring.bytes);
        change(ring, &mut self.held);
        let after = class(ring.bytes);
        if before != after {
            self.by_size.remove(&(before, key.as_u64()));
            self.by_size.insert((after, key.as_u64()));
        }
    }

    /// Keeps one room within its share of the pool, and all within the pool: the room that has most gives up
    /// its oldest.
    fn shrink(&mut self, key: Key) {
        let (share, bytes_max) = (self.share(), self.bytes_max);
        let mut evicted = 0;
        self.change(key, |ring, held| {
            while ring.bytes > share && ring.pop_front(held) {
                evicted += 1;
            }
        });
        while self.held.held().bytes > bytes_max {
            let Some((_, most)) = self.by_size.last().copied() else { break };
            let key = Key::from_u64(most);
            self.change(key, |ring, held| {
                ring.pop_front(held);
            });
            evicted += 1;
            let is_over = |ring: &Ring| ring.entries.is_empty() && ring.left_at.is_some() && !ring.is_moving;
            if self.rings.get(key).is_some_and(is_over) {
                self.forget(key);
            }
        }
        self.evicted += evicted;
    }

    /// Counts a message for its sender, and its ring if it is the first there; false if that sender has as
    /// much as it may. The backend and operators, who speak as nobody, may have all.
    fn take_share(&mut self, message: &Message, is_first: bool) -> bool {
        let bytes = if message.sender == UserId(0) { u64::MAX } else { self.bytes_max / HISTORY_SHARES };
        let cost = cost(message) + if is_first { ring_bytes(self.keeps.len()) } else { 0 };
        self.held.take((message.app, message.sender), cost, ANY, Amount { bytes, ..ANY })
    }

    /// The bytes that one room may have.
    fn share(&self) -> u64 {
        (self.bytes_max / HISTORY_SHARES).min(HISTORY_BYTES_MAX as u64)
    }

    fn lane(&self, code: BizCode) -> u16 {
        self.codes.binary_search(&code).unwrap_or(self.codes.len()) as u16
    }

    /// The room's messages after `since`, and the last `last` of it at least, where one that has two places
    /// counts at the first, which is here too; of a room without a ring none.
    /// `base` is where the room began.
    pub(crate) fn recall(
        &mut self,
        now: Instant,
        (app, room): (AppId, RoomId),
        since: u64,
        last: u32,
        base: u64,
    ) -> Part {
        let Some(key) = self.key(app, room) else { return Part { gone: base, messages: Vec::new() } };
        self.change(key, |ring, held| ring.expire(now, held));
        let ring = &self.rings[key];
        let after = ring.entries.partition_point(|entry| entry.message.sequence <= since);
        let most = HISTORY_MESSAGES_MAX as usize;
        let of_last = ring.start_of_last((last as usize).min(most));
        let from = after.min(of_last).max(ring.entries.len().saturating_sub(most));
        let messages = ring.entries.range(from..).map(|entry| entry.message.clone()).collect();
        Part { gone: ring.gone, messages }
    }

    /// A room of this owner begins, after `base`; its members have seen or heard of its messages up to
    /// `seen`. What is kept of it counts only if nobody can have said more in between: up to which sequence,
    /// then.
    pub(crate) fn begin(
        &mut self,
        app: AppId,
        room: RoomId,
        base: u64,
        seen: u64,
        term: Term,
    ) -> Option<u64> {
        let key = self.key(app, room)?;
        let ring = &mut self.rings[key];
        let Some(left_at) = ring.left_at.take().filter(|left_at| *left_at <= base) else {
            self.forget(key);
            return None;
        };
        let is_sure = ring.term == term && !ring.is_unsure && seen <= left_at;
        (ring.is_moving, ring.is_unsure) = (false, false);
        if is_sure {
            return Some(left_at);
        }
        // What is here is told, and that there may have been more.
        (ring.gone, ring.stale_upto) = (base, base);
        None
    }

    /// Forgets what is here of a time of which another one tells all.
    fn drop_stale(&mut self, key: Key) {
        let Some(upto) = self.rings.get(key).map(|ring| ring.stale_upto) else { return };
        self.change(key, |ring, held| {
            while ring.messages().next().is_some_and(|first| first.sequence <= upto) && ring.pop_front(held) {
            }
            ring.stale_upto = 0;
        });
    }

    /// Other owners may have given sequences up to this one to messages that are not here, nor in the stream.
    pub(crate) fn lose(&mut self, app: AppId, room: RoomId, upto: u64) {
        if let Some(key) = self.key(app, room) {
            let ring = &mut self.rings[key];
            ring.gone = ring.gone.max(upto);
        }
    }

    /// The last member of a room has left, which had come to this sequence.
    pub(crate) fn leave(&mut self, app: AppId, room: RoomId, sequence: u64, term: Term) {
        let Some(key) = self.key(app, room) else { return };
        let ring = &mut self.rings[key];
        (ring.left_at, ring.term) = (Some(sequence), term);
        if ring.entries.is_empty() {
            self.forget(key);
        }
    }

    /// Forgets what is kept of a room.
    pub(crate) fn drop_room(&mut self, app: AppId, room: RoomId) {
        if let Some(key) = self.key(app, room) {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: Key) {
        self.change(key, |ring, held| while ring.pop_front(held) {});
        let Some(ring) = self.rings.remove(key) else { return };
        self.by_size.remove(&(0, key.as_u64()));
        self.index.remove(self.hash.of(ring.app, ring.room.0), |(_, _, its)| *its == key);
    }

    /// Takes in a part of what the owner before kept. It counts only if it ends where what is kept here
    /// begins: `base`, where the room began, for the first part, of which nobody can have said more than it
    /// has. Members that have come over tell what they have seen (`seen`); where nobody has, the owner before
    /// must be sure.
    pub(crate) fn take_in(
        &mut self,
        now: Instant,
        part: &Kept,
        base: Option<u64>,
        seen: u64,
        term: Term,
    ) -> bool {
        let ring = self.find(part.app, part.room);
        let first = ring.and_then(Ring::first);
        let known = ring.map(|ring| ring.gone);
        let fits = match (part.is_first, base, known) {
            (true, None, known) => known.is_none() && part.is_sure,
            (true, Some(base), known) => {
                let is_last = (seen..=base).contains(&part.upto) && (seen > 0 || part.is_sure);
                known.unwrap_or(base) == base && is_last
            }
            (false, _, known) => known == Some(part.upto),
        };
        let fits = fits && first.is_none_or(|first| first > part.upto);
        if !fits {
            return false;
        }
        let key = self.open(part.app, part.room, part.upto);
        self.drop_stale(key);
        if base.is_none() && part.is_first {
            let ring = &mut self.rings[key];
            (ring.left_at, ring.term) = (Some(part.upto), term);
        }
        let kept = part.messages.iter().rev();
        let missed = kept.into_iter().find(|message| !self.prepend(now, key, message));
        let ring = &mut self.rings[key];
        (ring.gone, ring.may_repeat) = (missed.map_or(part.gone, |message| message.sequence), true);
        self.shrink(key);
        true
    }

    /// Adds a message before all others of a ring; false when it would be over a bound.
    fn prepend(&mut self, now: Instant, key: Key, message: &Message) -> bool {
        let lane = self.lane(message.biz_code);
        let keep = self.keeps[usize::from(lane)];
        let (has, cost) = (self.rings[key].lanes[usize::from(lane)], cost(message));
        let bounds = Amount { entries: keep.messages.into(), bytes: keep.bytes.into() };
        let until = said_at(message).min(now) + Duration::from_millis(keep.ms.into());
        if !has.has_room(cost, bounds) || until <= now || !self.take_share(message, true) {
            return false;
        }
        self.change(key, |ring, held| {
            ring.bear(held, ring.own_bytes(), 0);
            ring.reserve();
            ring.entries.push_front(Entry { message: message.clone(), until, lane });
            ring.count(lane, cost);
        });
        true
    }

    /// Looks at some rings, and forgets what is too old in them. Of each that nobody is in, `fate` says what
    /// becomes of it. Answers those that are to be moved.
    pub(crate) fn sweep(
        &mut self,
        now: Instant,
        mut fate: impl FnMut(&Ring) -> Fate,
    ) -> Vec<(AppId, RoomId)> {
        let mut moves = Vec::new();
        for _ in 0..SWEEP_PER_STEP.min(self.top) {
            let at = if self.swept < self.top { self.swept } else { 0 };
            self.swept = at + 1;
            let Some(key) = self.rings.key_at(at) else { continue };
            self.change(key, |ring, held| ring.expire(now, held));
            let ring = &mut self.rings[key];
            if ring.left_at.is_none() || ring.is_moving {
                continue;
            }
            match fate(ring) {
                Fate::Goes => self.forget(key),
                _ if ring.entries.is_empty() => self.forget(key),
                Fate::Stays { term } => {
                    ring.is_unsure |= ring.term.losses != term.losses;
                    ring.term = term;
                }
                Fate::Waits => {}
                Fate::Moves => {
                    ring.is_moving = true;
                    moves.push((ring.app, ring.room));
                }
            }
        }
        moves
    }

    /// The room is on its way to another owner, unless somebody is in it.
    pub(crate) fn set_moving(&mut self, app: AppId, room: RoomId) -> bool {
        let Some(key) = self.key(app, room) else { return false };
        let ring = &mut self.rings[key];
        let moves = ring.left_at.is_some() && !ring.is_moving;
        ring.is_moving |= moves;
        moves
    }

    pub(crate) fn check_invariants(&self) {
        for (key, ring) in self.rings.iter() {
            assert_eq!(self.key(ring.app, ring.room), Some(key));
            let mut lanes = vec![Amount::default(); self.keeps.len()];
            for entry in &ring.entries {
                lanes[usize::from(entry.lane)].add(cost(&entry.message));
            }
            assert_eq!(ring.lanes, lanes);
            let of_ring = if ring.entries.is_empty() { 0 } else { ring.own_bytes() };
            assert_eq!(ring.bytes, lanes.iter().map(|lane| lane.bytes).sum::<u64>() + of_ring);
            assert!(ring.entries.capacity() <= ring.entries.len() * 5 / 4 + 2, "little room is kept free");
            assert!(ring.bytes <= self.share());
            for (lane, keep) in lanes.iter().zip(&self.keeps) {
                assert!(lane.entries <= keep.messages.into() && lane.bytes <= keep.bytes.into());
            }
            let sequences = ring.entries.iter().map(|entry| entry.message.sequence);
            assert!(sequences.is_sorted_by(|a, b| a < b), "a ring has the room's order");
            assert!(self.by_size.contains(&(class(ring.bytes), key.as_u64())));
        }
        let entries = self.rings.iter().flat_map(|(_, ring)| ring.messages().enumerate());
        self.held.check_invariants(entries.map(|(at, message)| {
            let of_ring = if at == 0 { ring_bytes(self.keeps.len()) } else { 0 };
            ((message.app, message.sender), cost(message) + of_ring)
        }));
        assert_eq!(self.by_size.len(), self.rings.len());
        assert_eq!(self.index.len(), self.rings.len());
        assert!(self.held.held().bytes <= self.bytes_max);
    }
}

/// What becomes of a ring that nobody is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fate {
    /// Its room is owned here, as all gateways agree in this term. It was before, too, unless a gateway was
    /// lost in between: that may have gone by another owner for a while.
    Stays { term: Term },
    /// They do not agree.
    Waits,
    /// Another owner is to have it.
    Moves,
    /// Nobody is there to have it.
    Goes,
}

impl Ring {
    pub(crate) fn gone(&self) -> u64 {
        self.gone
    }

    pub(crate) fn messages(&self) -> impl DoubleEndedIterator<Item = &Message> {
        self.entries.iter().map(|entry| &entry.message)
    }

    /// Where its last messages begin, so many of them. What has two places counts at the first, and that is
    /// among them: in a later place it may stand behind what its sender said after it.
    fn start_of_last(&self, count: usize) -> usize {
        let at_least = self.entries.len().saturating_sub(count);
        if !self.may_repeat || count == 0 {
            return at_least;
        }
        let mut places = BTreeMap::new();
        let mut firsts = Vec::new();
        for (at, message) in self.messages().enumerate() {
            if *places.entry(message.id).or_insert(at) == at {
                firsts.push(at);
            }
        }
        let from = firsts.get(firsts.len().saturating_sub(count)).copied().unwrap_or_default();
        self.messages().skip(from).filter_map(|message| places.get(&message.id)).fold(from, |a, b| a.min(*b))
    }

    /// The first of its messages that is here for sure.
    fn first(&self) -> Option<u64> {
        let at = self.entries.partition_point(|entry| entry.message.sequence <= self.stale_upto);
        self.entries.get(at).map(|entry| entry.message.sequence)
    }

    /// Counts a message that was added, which its sender's share has.
    fn count(&mut self, lane: u16, cost: u64) {
        self.lanes[usize::from(lane)].add(cost);
        self.bytes += cost + if self.entries.len() == 1 { self.own_bytes() } else { 0 };
    }

    /// What it takes beside its messages.
    fn own_bytes(&self) -> u64 {
        ring_bytes(self.lanes.len())
    }

    /// The oldest message bears so much of the ring, in place of what it bore.
    fn bear(&self, held: &mut Held, before: u64, after: u64) {
        let Some(Entry { message, .. }) = self.entries.front() else { return };
        let (who, cost) = ((message.app, message.sender), cost(message));
        held.give_back(who, cost + before);
        held.take(who, cost + after, ANY, ANY);
    }

    /// Makes room for one more: an eighth at most stays free.
    fn reserve(&mut self) {
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(self.entries.len() / 8 + 1);
        }
    }

    fn pop_front(&mut self, held: &mut Held) -> bool {
        self.remove(0, held)
    }

    fn remove(&mut self, at: usize, held: &mut Held) -> bool {
        let Some(entry) = self.entries.remove(at) else { return false };
        let cost = cost(&entry.message);
        self.lanes[usize::from(entry.lane)].sub(cost);
        let own = self.own_bytes();
        self.bytes -= cost + if self.entries.is_empty() { own } else { 0 };
        held.give_back((entry.message.app, entry.message.sender), cost + if at == 0 { own } else { 0 });
        if at == 0 {
            self.bear(held, 0, own);
        }
        self.gone = self.gone.max(entry.message.sequence);
        let len = self.entries.len();
        if self.entries.is_empty() {
            self.entries = VecDeque::new(); // rooms that fell silent cost little
        } else if self.entries.capacity() > len * 5 / 4 + 2 {
            self.entries.shrink_to(len + len / 8 + 1);
        }
        true
    }

    /// Forgets the oldest of a lane until a message more fits its bounds. With one lane, or none over its
    /// bounds but the first, that is the front.
    fn make_room(&mut self, now: Instant, lane: u16, keep: Keep, cost: u64, held: &mut Held) {
        self.expire(now, held);
        loop {
            let bounds = Amount { entries: keep.messages.into(), bytes: keep.bytes.into() };
            if self.lanes[usize::from(lane)].has_room(cost, bounds) {
                return;
            }
            let Some(oldest) = self.entries.iter().position(|entry| entry.lane == lane) else { return };
            self.remove(oldest, held);
        }
    }

    /// Forgets the oldest as long as its time is over. One behind it whose code is kept for less stays until
    /// then; it is not given out as missing, for nothing of it is.
    fn expire(&mut self, now: Instant, held: &mut Held) {
        while self.entries.front().is_some_and(|first| first.until <= now) {
            self.pop_front(held);
        }
    }
}

/// Up to where messages are missing of which members knew when an owner began above them; `None` if the
/// stream has come that far.
fn unwritten(mark: &StreamEntry, entries: &[StreamEntry]) -> Option<u64> {
    let StreamEntry::Seen { base, seen, .. } = mark else { return None };
    let next = entries.partition_point(|entry| entry.sequence() < *seen);
    entries.get(next).is_none_or(|entry| entry.sequence() >= *base).then_some(*base)
}

/// Whether the gap at that place of a stream is none.
fn is_none(entries: &[StreamEntry], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|before| entries.get(before));
    let sequence = entries.get(at).map(StreamEntry::sequence);
    let is_undone = |next: &StreamEntry| matches!(next, StreamEntry::NoGap(its) if Some(*its) == sequence);
    matches!(before, Some(StreamEntry::Whole(_))) || entries.get(at + 1).is_some_and(is_undone)
}

/// Rings of one class have about as much as each other. Those with nothing have a class of their own, so the
/// last ring has something to give up if any has.
fn class(bytes: u64) -> u64 {
    bytes.div_ceil(CLASS_BYTES)
}

/// What a message counts for.
fn cost(message: &Message) -> u64 {
    (ENTRY_BYTES + message.client_msg_id.as_bytes().len() + message.payload.len()) as u64
}

/// When a message was said, by its id.
fn said_at(message: &Message) -> Instant {
    let ms = EPOCH_UNIX_MS.saturating_add(message.id.0 >> 23);
    Instant::from_unix_nanos(ms.saturating_mul(1_000_000))
}
