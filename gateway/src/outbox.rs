//! What waits for one connection, and what is in flight to it.
//!
//! Answers (heartbeats, send-acks, notices, retries) leave first. Then come three lanes, merged by the stamp
//! of their arrival so that a room keeps its one order: reliable messages, lossy ones, and answers that must
//! not overtake these. For the same reason, a reliable message at the head that finds the ack window full
//! blocks everything that came after it.
//!
//! An outbox exists only while something waits or is in flight; idle connections own none. Outboxes are
//! pooled, so a warm shard allocates none.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use shard::{ConnId, Instant, SendBatch, ShardId, TimerId};
use wire::MessageId;
use wire::client::Message;
use wire::node::DeliveryId;

use crate::admission::AddressId;
use crate::config::Limits;
use crate::dirty::Dirt;
use crate::latency::{RouteClass, Stamp, Written};
use crate::limits::{
    ADDRESS_SHARES, ENTRY_BYTES, FRAME_COPY_BYTES_MAX, GREEDY_LOOKS, OUTBOX_SHARES, OUTBOX_SHARES_MIN,
    OWED_ROUTERS_MAX, POOLED_BYTES_MAX, POOLED_ENTRIES_MAX, RETRY_BYTES_MAX, STALL_STEP_MAX,
};

/// The pool of outboxes of a shard.
#[derive(Default)]
pub(crate) struct Outboxes {
    slots: Vec<Outbox>,
    free: Vec<u32>,
    /// The bytes of all outboxes.
    bytes: u64,
    /// The bytes that the connections of each address have.
    of_addresses: Vec<u64>,
    /// The last slot that was checked for an outbox with too much.
    hand: usize,
}

/// The connection that an outbox belongs to, and its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Owner {
    pub(crate) conn: ConnId,
    pub(crate) address: AddressId,
}

/// A session's handle to its outbox, or to none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct OutboxId(u32);

impl OutboxId {
    pub(crate) const NONE: OutboxId = OutboxId(u32::MAX);
}

impl Outboxes {
    /// The outbox of `id`, taken from the pool when there is none yet.
    pub(crate) fn open(&mut self, id: &mut OutboxId) -> &mut Outbox {
        if *id == OutboxId::NONE {
            let index = self.free.pop().unwrap_or_else(|| {
                self.slots.push(Outbox::default());
                self.slots.len() as u32 - 1
            });
            *id = OutboxId(index);
        }
        &mut self.slots[id.0 as usize]
    }

    /// The outbox of `id`, if there is one.
    pub(crate) fn get_mut(&mut self, id: OutboxId) -> Option<&mut Outbox> {
        self.slots.get_mut(id.0 as usize)
    }

    /// The bytes of an outbox's answers that keep their place among the messages, with their overhead.
    pub(crate) fn answer_bytes(&self, id: OutboxId) -> usize {
        self.slots.get(id.0 as usize).map_or(0, |outbox| outbox.answer_bytes as usize)
    }

    /// Changes an owner's outbox and updates the counts of bytes.
    pub(crate) fn update<R>(
        &mut self,
        owner: Owner,
        id: &mut OutboxId,
        change: impl FnOnce(&mut Outbox) -> R,
    ) -> R {
        let outbox = self.open(id);
        outbox.owner = Some(owner);
        let before = outbox.bytes();
        let result = change(outbox);
        let after = outbox.bytes();
        self.bytes = self.bytes + after - before;
        let of_address = self.of_address(owner.address);
        *of_address = *of_address + after - before;
        result
    }

    fn of_address(&mut self, address: AddressId) -> &mut u64 {
        let at = address.index();
        if at >= self.of_addresses.len() {
            self.of_addresses.resize(at + 1, 0);
        }
        &mut self.of_addresses[at]
    }

    /// Notes that the connection is from another address.
    pub(crate) fn set_address(&mut self, id: OutboxId, before: AddressId, after: AddressId) {
        let Some(outbox) = self.get_mut(id) else { return };
        if let Some(owner) = &mut outbox.owner {
            owner.address = after;
        }
        let bytes = outbox.bytes();
        *self.of_address(before) -= bytes;
        *self.of_address(after) += bytes;
    }

    /// If the pool is short, the next of a few outboxes that has more than its share: it took that while more
    /// was free, and its connection reads too slowly to return it.
    pub(crate) fn next_greedy(&mut self, limits: &Limits) -> Option<Owner> {
        if self.bytes < limits.outbox_bytes_max / 4 * 3 {
            return None;
        }
        for _ in 0..GREEDY_LOOKS.min(self.slots.len()) {
            self.hand = (self.hand + 1) % self.slots.len();
            let outbox = &self.slots[self.hand];
            if let Some(owner) = outbox.owner
                && outbox.bytes() > self.share(limits, OutboxId(self.hand as u32), owner.address) as u64
            {
                return Some(owner);
            }
        }
        None
    }

    /// Gives the outbox back to the pool, which must be empty by then.
    pub(crate) fn release(&mut self, id: &mut OutboxId) {
        if *id == OutboxId::NONE {
            return;
        }
        let outbox = &mut self.slots[id.0 as usize];
        assert_eq!(outbox.bytes(), 0, "an outbox is emptied before it is pooled");
        outbox.trim();
        outbox.owner = None;
        self.free.push(id.0);
        *id = OutboxId::NONE;
    }

    /// What there is to write of an outbox that has changed. One that is idle goes back to the pool, unless
    /// its bytes are being written.
    pub(crate) fn look(&mut self, id: &mut OutboxId, window: u16, is_writing: bool) -> Dirt {
        let Some(outbox) = self.get_mut(*id) else { return Dirt::None };
        let dirt = outbox.dirt(window);
        if dirt == Dirt::None && outbox.is_idle() && !is_writing {
            self.release(id);
        }
        dirt
    }

    /// Bytes that wait or are in flight, over all connections of the shard.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How much of the pool an outbox may have: a part of what is free (the dynamic threshold of Choudhury
    /// and Hahne, "Dynamic queue length thresholds for shared-memory packet switches", 1998). In a nearly
    /// empty pool a connection gets all that it may have; as the pool fills, those that have most get nothing
    /// more, and there is always something left for others. If all connections of its address have
    /// [`ADDRESS_SHARES`] times what is free, the part is smaller, so that one address with very many of them
    /// takes little from others.
    pub(crate) fn share(&self, limits: &Limits, id: OutboxId, address: AddressId) -> usize {
        let free = limits.outbox_bytes_max.saturating_sub(self.bytes);
        let of_address = self.of_addresses.get(address.index()).copied().unwrap_or_default();
        let share = match (ADDRESS_SHARES * free).saturating_sub(of_address) {
            0 => free / OUTBOX_SHARES_MIN,
            left => {
                let own = self.slots.get(id.0 as usize).map_or(0, Outbox::bytes);
                (free / OUTBOX_SHARES).min(own + left)
            }
        };
        share as usize
    }

    /// How much of its share reliable messages may have.
    pub(crate) fn reliable_share(&self, limits: &Limits, id: OutboxId, address: AddressId) -> usize {
        self.share(limits, id, address).min(limits.reliable_bytes_max as usize)
    }

    /// Own-state invariants, for tests and simulation.
    pub(crate) fn check_invariants(&self, open: usize) {
        assert_eq!(self.slots.len() - self.free.len(), open, "every open outbox belongs to one session");
        assert_eq!(self.slots.iter().map(Outbox::bytes).sum::<u64>(), self.bytes);
        let mut of_addresses = vec![0; self.of_addresses.len()];
        for outbox in &self.slots {
            if let Some(owner) = outbox.owner {
                of_addresses[owner.address.index()] += outbox.bytes();
            }
        }
        assert_eq!(of_addresses, self.of_addresses, "each address has what its connections have");
        self.slots.iter().for_each(Outbox::check_invariants);
    }
}

/// What waits for one connection, and what is in flight to it.
#[derive(Default)]
pub(crate) struct Outbox {
    /// The connection that has it, if one does.
    owner: Option<Owner>,
    /// Encoded answers, in order.
    control: Vec<u8>,
    /// With their stamps.
    reliable: VecDeque<(u32, Reliable)>,
    lossy: VecDeque<Lossy>,
    /// Answers that keep their place among the messages, with their stamps.
    answers: VecDeque<(u32, Bytes)>,
    flights: VecDeque<Flight>,
    /// The arrival stamp of the next entry of a lane.
    stamp: u32,
    /// The key of the next flight.
    flight_key: u32,
    /// The bytes of `reliable` and `flights`.
    reliable_bytes: u32,
    /// The bytes of `lossy`, with their overhead.
    lossy_bytes: u32,
    /// The bytes of `answers`, with their overhead.
    answer_bytes: u32,
    /// Which routers wait for the outcomes of the messages to a user here.
    routers: Routers,
    /// If messages have found no room since the last ack: when one was refused last, and for how long by now.
    stalled: Option<(Instant, Duration)>,
}

/// Who is notified how a reliable message ended.
#[derive(Clone, Debug)]
pub(crate) enum Owed {
    /// The router shard that waits for the delivery.
    Router { router: ShardId, delivery: DeliveryId },
    /// Several router shards, each of which was the owner for a while.
    Routers(Vec<(ShardId, DeliveryId)>),
    /// The bridge, and only of a failure: a message to a room has its send-ack already.
    Bridge(Arc<Message>),
    /// Nobody: the receiver asked for it, and can ask again.
    Nobody,
}

impl Owed {
    /// What the message is counted as; `None` if its receiver has asked for it again.
    pub(crate) fn route(&self) -> Option<RouteClass> {
        match self {
            Self::Router { .. } | Self::Routers(_) => Some(RouteClass::UserReliable),
            Self::Bridge(_) => Some(RouteClass::RoomReliable),
            Self::Nobody => None,
        }
    }

    /// Adds a router shard that waits, once; false if the bridge waits, or very many routers.
    fn add(&mut self, router: ShardId, delivery: DeliveryId) -> bool {
        let it = (router, delivery);
        match self {
            Self::Router { router, delivery } if (*router, *delivery) == it => {}
            Self::Routers(all) if all.contains(&it) => {}
            Self::Router { router: first, delivery: its } => {
                *self = Self::Routers(vec![(*first, *its), it]);
            }
            Self::Routers(all) if all.len() < OWED_ROUTERS_MAX => all.push(it),
            Self::Routers(_) | Self::Bridge(_) | Self::Nobody => return false,
        }
        true
    }
}

/// Which routers wait for the messages to a user of an outbox. Those whose messages are done count until none
/// is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Routers {
    /// No router.
    #[default]
    None,
    /// This one alone.
    One(ShardId),
    /// Several, as while owners change.
    Several,
}

impl Routers {
    fn add(&mut self, owed: &Owed) {
        *self = match (*self, owed) {
            (all, Owed::Bridge(_) | Owed::Nobody) => all,
            (Self::None, Owed::Router { router, .. }) => Self::One(*router),
            (Self::One(one), Owed::Router { router, .. }) if one == *router => *self,
            (_, Owed::Router { .. } | Owed::Routers(_)) => Self::Several,
        };
    }
}

/// A reliable message that waits.
pub(crate) struct Reliable {
    pub(crate) id: MessageId,
    pub(crate) frame: Bytes,
    pub(crate) owed: Owed,
    /// When it came to this shard.
    pub(crate) since: Stamp,
}

/// The frames of some messages that came together.
struct Lossy {
    stamp: u32,
    messages: u32,
    frames: Bytes,
    /// When the first of them came to this shard, if that is counted.
    waited: Option<(RouteClass, Stamp)>,
}

/// A reliable message that was handed to the socket and is not acked yet.
pub(crate) struct Flight {
    /// The flight's name in its timer.
    key: u32,
    id: MessageId,
    frame: Bytes,
    pub(crate) owed: Owed,
    pub(crate) timer: TimerId,
    /// How often it was written.
    pub(crate) tries: u8,
    /// When it came to this shard.
    pub(crate) since: Stamp,
}

impl Outbox {
    /// Appends an answer; returns false, without it, if more than `bytes_max` wait: the peer asks and never
    /// reads.
    pub(crate) fn push_control(&mut self, bytes_max: usize, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.control.len() > bytes_max {
            return false;
        }
        write(&mut self.control);
        true
    }

    /// Appends the frames of `messages` to the lossy lane, and drops its oldest while it holds more than
    /// `bytes_max`. Returns how many messages it dropped.
    pub(crate) fn push_lossy(
        &mut self,
        frames: Bytes,
        messages: u32,
        waited: Option<(RouteClass, Stamp)>,
        bytes_max: usize,
    ) -> u64 {
        self.lossy_bytes += weight(&frames) as u32;
        let is_too_long = frames.len() > bytes_max;
        let stamp = self.next_stamp();
        self.lossy.push_back(Lossy { stamp, messages, frames, waited });
        let mut dropped = 0;
        // What has room alone stays, so that no limit is too low for a frame.
        while self.lossy_bytes as usize > bytes_max && (is_too_long || self.lossy.len() > 1) {
            let oldest = self.pop_lossy().expect("its bytes are of messages");
            dropped += u64::from(oldest.messages);
        }
        dropped
    }

    /// Appends an answer that must not overtake waiting messages; returns false, without it, if more than
    /// `bytes_max` of such answers wait.
    pub(crate) fn push_in_order(&mut self, frame: Bytes, bytes_max: usize) -> bool {
        if self.answer_bytes as usize + self.control.len() > bytes_max {
            return false;
        }
        self.answer_bytes += (frame.len() + ENTRY_BYTES) as u32;
        let stamp = self.next_stamp();
        self.answers.push_back((stamp, frame));
        true
    }

    pub(crate) fn has_answers_in_order(&self) -> bool {
        self.answer_bytes > 0
    }

    /// Appends to the reliable lane; returns frame and debt if that would exceed a bound. An empty lane takes
    /// any message.
    pub(crate) fn push_reliable(
        &mut self,
        message: Reliable,
        messages_max: usize,
        bytes_max: usize,
    ) -> Result<(), (Bytes, Owed)> {
        let messages = self.reliable.len() + self.flights.len();
        let bytes = self.reliable_bytes as usize + weight(&message.frame);
        if messages > 0 && (messages >= messages_max || bytes > bytes_max) {
            return Err((message.frame, message.owed));
        }
        self.reliable_bytes = bytes as u32;
        if messages == 0 {
            self.routers = Routers::None;
        }
        self.routers.add(&message.owed);
        let stamp = self.next_stamp();
        self.reliable.push_back((stamp, message));
        Ok(())
    }

    /// Drops lossy messages, oldest first, until it has no more than `bytes_max` or there are none. Returns
    /// how many it dropped.
    pub(crate) fn drop_lossy(&mut self, bytes_max: usize) -> u64 {
        let mut dropped = 0;
        while self.bytes() > bytes_max as u64
            && let Some(oldest) = self.pop_lossy()
        {
            dropped += u64::from(oldest.messages);
        }
        dropped
    }

    /// Takes out the oldest reliable message that was never written, if it has more than `bytes_max`.
    pub(crate) fn give_up(&mut self, bytes_max: usize) -> Option<Owed> {
        if self.bytes() <= bytes_max as u64 {
            return None;
        }
        let (_, Reliable { frame, owed, .. }) = self.reliable.pop_front()?;
        self.reliable_bytes -= weight(&frame) as u32;
        Some(owed)
    }

    /// Takes out the oldest reliable message that was never written, to make room for one of `bytes`; `None`
    /// if there is none, or if all of them would not be enough.
    pub(crate) fn give_way(&mut self, bytes: usize, bytes_max: usize) -> Option<Owed> {
        let flying: usize = self.flights.iter().map(|flight| weight(&flight.frame)).sum();
        if flying + bytes > bytes_max && !self.flights.is_empty() {
            return None;
        }
        let (_, Reliable { frame, owed, .. }) = self.reliable.pop_front()?;
        self.reliable_bytes -= weight(&frame) as u32;
        Some(owed)
    }

    /// Notes that a message found no room. Returns whether messages have found none for `patience`, while the
    /// peer acked nothing. Only a part of a long pause between two of them counts: a process that stood still
    /// could not read acks either.
    pub(crate) fn stall(&mut self, now: Instant, patience: Duration) -> bool {
        let (seen_at, lasted) = self.stalled.unwrap_or((now, Duration::ZERO));
        let lasted = lasted + now.since(seen_at).min(STALL_STEP_MAX);
        self.stalled = Some((now, lasted));
        lasted >= patience
    }

    /// Whether a message of this router may be here already, from another.
    pub(crate) fn may_double(&self, router: ShardId) -> bool {
        !matches!(self.routers, Routers::None) && self.routers != Routers::One(router)
    }

    /// Adds a router shard that waits for a message that is here already; false if it is not here.
    pub(crate) fn owe_also(&mut self, id: MessageId, router: ShardId, delivery: DeliveryId) -> bool {
        let waiting = self.reliable.iter_mut().map(|(_, known)| known);
        let waiting = waiting.filter(|known| known.id == id).map(|known| &mut known.owed);
        let flying = self.flights.iter_mut().filter(|known| known.id == id).map(|known| &mut known.owed);
        let Some(owed) = waiting.chain(flying).next() else { return false };
        let is_added = owed.add(router, delivery);
        if is_added && self.routers != Routers::One(router) {
            self.routers = Routers::Several;
        }
        is_added
    }

    /// Moves what may be written into `batch`. Each reliable message is recorded in flight first, with a
    /// timer that `arm` sets for its key.
    pub(crate) fn fill(
        &mut self,
        batch: &mut SendBatch,
        window: u16,
        mut written: Written<'_>,
        mut arm: impl FnMut(u32) -> TimerId,
    ) {
        batch.copy(&self.control);
        self.control.clear();
        while !batch.is_full() {
            match self.first() {
                None => break,
                Some(Lane::Reliable) if self.flights.len() >= window as usize => break,
                Some(Lane::Reliable) => self.launch(batch, &mut written, &mut arm),
                Some(Lane::Lossy) => {
                    let Lossy { frames, messages, waited, .. } =
                        self.pop_lossy().expect("the lane has a front");
                    batch.share(frames);
                    if let Some((route, since)) = waited {
                        written.count(route, since, messages);
                    }
                }
                Some(Lane::Answers) => {
                    let (_, frame) = self.answers.pop_front().expect("the lane has a front");
                    self.answer_bytes -= (frame.len() + ENTRY_BYTES) as u32;
                    batch.share(frame);
                }
            }
        }
    }

    /// The lane whose first entry came first.
    fn first(&self) -> Option<Lane> {
        let fronts = [
            (Lane::Reliable, self.reliable.front().map(|(stamp, _)| *stamp)),
            (Lane::Lossy, self.lossy.front().map(|message| message.stamp)),
            (Lane::Answers, self.answers.front().map(|(stamp, _)| *stamp)),
        ];
        let mut first: Option<(Lane, u32)> = None;
        for (lane, stamp) in fronts {
            if let Some(stamp) = stamp
                && first.is_none_or(|(_, earlier)| is_before(stamp, earlier))
            {
                first = Some((lane, stamp));
            }
        }
        first.map(|(lane, _)| lane)
    }

    /// What `fill` would put into a batch, as a kind.
    pub(crate) fn dirt(&self, window: u16) -> Dirt {
        let may_fly = !self.reliable.is_empty() && self.flights.len() < window as usize;
        if !self.control.is_empty() || may_fly {
            return Dirt::First;
        }
        match self.first() {
            None | Some(Lane::Reliable) => Dirt::None,
            Some(Lane::Lossy | Lane::Answers) => Dirt::Lossy,
        }
    }

    /// Ends the flight of that message.
    pub(crate) fn ack(&mut self, id: MessageId) -> Option<Flight> {
        let at = self.flights.iter().position(|flight| flight.id == id)?;
        self.stalled = None;
        Some(self.land(at))
    }

    /// Repeats the flight of that key, and returns it so that its timer can be armed again; after its last
    /// try, ends the flight and returns it. A try without room counts too: a peer that does not read must not
    /// keep a message for ever.
    pub(crate) fn retry(&mut self, key: u32, tries_max: u8) -> Retry<'_> {
        let Some(at) = self.flights.iter().position(|flight| flight.key == key) else {
            return Retry::Gone;
        };
        if self.flights[at].tries >= tries_max {
            return Retry::Exhausted(self.land(at));
        }
        let flight = &mut self.flights[at];
        flight.tries += 1;
        if self.control.len() > RETRY_BYTES_MAX {
            return Retry::Later(flight);
        }
        self.control.extend_from_slice(&flight.frame);
        Retry::Again(flight)
    }

    /// Changes the timer of the flight of that key.
    pub(crate) fn set_timer(&mut self, key: u32, timer: TimerId) {
        let flight = self.flights.iter_mut().find(|flight| flight.key == key);
        flight.expect("a flight's timer is cancelled with it").timer = timer;
    }

    /// Empties the lanes and the window, oldest first; answers outside of them stay.
    pub(crate) fn abandon(&mut self, mut each: impl FnMut(Owed, Option<TimerId>)) {
        for flight in self.flights.drain(..) {
            each(flight.owed, Some(flight.timer));
        }
        for (_, message) in self.reliable.drain(..) {
            each(message.owed, None);
        }
        self.lossy.clear();
        self.answers.clear();
        self.reliable_bytes = 0;
        self.lossy_bytes = 0;
        self.answer_bytes = 0;
    }

    /// Drops the answers too.
    pub(crate) fn clear_control(&mut self) {
        self.control.clear();
    }

    /// Whether nothing waits and nothing is in flight.
    pub(crate) fn is_idle(&self) -> bool {
        self.bytes() == 0
    }

    /// Whether every reliable message is acked.
    pub(crate) fn is_settled(&self) -> bool {
        self.reliable_bytes == 0
    }

    fn bytes(&self) -> u64 {
        let held =
            u64::from(self.reliable_bytes) + u64::from(self.lossy_bytes) + u64::from(self.answer_bytes);
        self.control.len() as u64 + held
    }

    fn next_stamp(&mut self) -> u32 {
        let stamp = self.stamp;
        self.stamp = stamp.wrapping_add(1);
        stamp
    }

    fn pop_lossy(&mut self) -> Option<Lossy> {
        let oldest = self.lossy.pop_front()?;
        self.lossy_bytes -= weight(&oldest.frames) as u32;
        Some(oldest)
    }

    fn launch(
        &mut self,
        batch: &mut SendBatch,
        written: &mut Written<'_>,
        arm: &mut impl FnMut(u32) -> TimerId,
    ) {
        let (_, Reliable { id, frame, owed, since }) =
            self.reliable.pop_front().expect("the lane has a front");
        if let Some(route) = owed.route() {
            written.count(route, since, 1);
        }
        let key = self.flight_key;
        self.flight_key = key.wrapping_add(1);
        if frame.len() <= FRAME_COPY_BYTES_MAX {
            batch.copy(&frame);
        } else {
            batch.share(frame.clone());
        }
        self.flights.push_back(Flight { key, id, frame, owed, timer: arm(key), tries: 1, since });
    }

    fn land(&mut self, at: usize) -> Flight {
        let flight = self.flights.remove(at).expect("the flight was found there");
        self.reliable_bytes -= weight(&flight.frame) as u32;
        flight
    }

    /// Frees the room that a busy time left behind, and forgets that time.
    fn trim(&mut self) {
        self.stalled = None;
        self.control.shrink_to(POOLED_BYTES_MAX);
        self.reliable.shrink_to(POOLED_ENTRIES_MAX);
        self.lossy.shrink_to(POOLED_ENTRIES_MAX);
        self.answers.shrink_to(POOLED_ENTRIES_MAX);
        self.flights.shrink_to(POOLED_ENTRIES_MAX);
    }

    fn check_invariants(&self) {
        let waiting: usize = self.reliable.iter().map(|(_, message)| weight(&message.frame)).sum();
        let flying: usize = self.flights.iter().map(|flight| weight(&flight.frame)).sum();
        assert_eq!(waiting + flying, self.reliable_bytes as usize);
        assert_eq!(
            self.lossy.iter().map(|lossy| weight(&lossy.frames)).sum::<usize>(),
            self.lossy_bytes as usize
        );
        let answers = self.answers.iter().map(|(_, frame)| frame.len() + ENTRY_BYTES);
        assert_eq!(answers.sum::<usize>(), self.answer_bytes as usize);
    }
}

/// The lanes that leave in the order of arrival.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lane {
    Reliable,
    Lossy,
    Answers,
}

/// What a reliable message counts for, or lossy ones that came together: the frames and their overhead.
pub(crate) fn weight(frame: &Bytes) -> usize {
    frame.len() + ENTRY_BYTES
}

const _: () = assert!(size_of::<(u32, Reliable)>() <= ENTRY_BYTES && size_of::<Flight>() <= ENTRY_BYTES);
const _: () = assert!(size_of::<Lossy>() <= ENTRY_BYTES);

/// What [`Outbox::retry`] found.
pub(crate) enum Retry<'a> {
    /// It goes out once more; arm its timer again.
    Again(&'a mut Flight),
    /// There was no room for it, which counts as a try; arm its timer again.
    Later(&'a mut Flight),
    /// It has had all its tries.
    Exhausted(Flight),
    /// There is no such flight.
    Gone,
}

/// Whether stamp `a` was given before stamp `b`, however often the counter wrapped.
fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

#[cfg(test)]
mod tests;
