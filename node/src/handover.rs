//! Events on their way to a bridge: numbered, and kept until the bridge says that they are taken.
//! Deterministic, without I/O.
//!
//! So no event is lost while the shard lives: when its bridge goes, the next one gets all that is not taken,
//! in order, under the same numbers. A window bounds events under way, the operator's limits those that are
//! kept. Beyond these, a waiter gets a refusal, and other events are dropped and counted.
//!
//! Packets (requests, and messages that nobody acked) and presence (sessions and memberships that come and
//! go) are two pools, and each user has a share of both: neither many packets nor one user's packets make
//! others fail, or presence untrue.
//!
//! Presence is state: of the waiting events about one device, or one device in one room, only the newest is
//! kept. So the pool is full only if it has more devices than places; the cores report a device that found
//! none again, once there is room.

use std::collections::BTreeMap;

use shard::{Amount, Shares};
use wire::client::{FailReason, Outcome, SendAck};
use wire::node::{DeliveryId, Handed, Login, SessionId, Taken, ToBridge};
use wire::{AppId, DeviceClass, MessageId, RoomId, UserId};

/// Events under way from one shard to a bridge; one that sends more is no shard of ours.
pub(crate) const WINDOW_MESSAGES: usize = 4096;
/// The most that [`HandoverLimits::window_bytes`] may be.
pub const WINDOW_BYTES_MAX: u64 = 4 << 20;
/// How much is reported again at once, at most.
const STEP_MAX: usize = 512;
/// Bytes that the fixed part of an event counts for.
const EVENT_BYTES: usize = 192;

/// What a shard keeps for its bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HandoverLimits {
    /// Packets that are kept, and as many events of presence besides.
    pub queue_messages_max: u32,
    /// Bytes of either.
    pub queue_bytes_max: u64,
    /// Packets of one user, and as many events of its presence.
    pub user_messages_max: u32,
    /// Bytes of either.
    pub user_bytes_max: u64,
    /// Bytes under way to the bridge, at most [`WINDOW_BYTES_MAX`]; one event more may be.
    pub window_bytes: u64,
}

/// What was handed over since the start, and what is kept now.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct HandoverMetrics {
    /// Held: events that the bridge has not taken.
    pub waiting: u64,
    /// Held: their bytes.
    pub waiting_bytes: u64,
    /// Events handed over for the first time.
    pub handed: u64,
    /// Events handed over again, to the next bridge.
    pub resent: u64,
    /// Events that the bridge has taken.
    pub taken: u64,
    /// Events that the bridge has refused for good.
    pub refused: u64,
    /// Events of presence that were dropped because a newer one of the same came while they waited.
    pub overtaken: u64,
    /// Events that met the limit, in the order of [`EVENTS`].
    pub dropped: [u64; EVENTS.len()],
}

/// The names of events, as [`HandoverMetrics::dropped`] has them.
pub const EVENTS: [&str; 6] = ["online", "offline", "joined", "left", "undelivered", "request"];

/// The events of a shard that its bridge has not taken.
pub(crate) struct Handover {
    limits: HandoverLimits,
    /// By number.
    kept: BTreeMap<u64, ToBridge>,
    packets: Shares<Holder>,
    presence: Shares<Holder>,
    /// The number of the newest event of each thing that presence is about.
    newest: BTreeMap<Thing, u64>,
    /// Whether presence was dropped that must be reported to the bridge again.
    is_behind: bool,
    /// The number of the last event.
    last: u64,
    /// The number of the next event to hand over. Those kept below it are under way.
    next: u64,
    /// The highest number that was handed over.
    highest: u64,
    under_way: usize,
    under_way_bytes: u64,
    /// Without what is held at the moment.
    metrics: HandoverMetrics,
}

impl Handover {
    pub(crate) fn new(limits: HandoverLimits, seed: u64) -> Self {
        Self {
            limits,
            kept: BTreeMap::new(),
            packets: Shares::new(seed),
            presence: Shares::new(seed),
            newest: BTreeMap::new(),
            is_behind: false,
            last: 0,
            next: 1,
            highest: 0,
            under_way: 0,
            under_way_bytes: 0,
            metrics: HandoverMetrics::default(),
        }
    }

    /// Queues an event; if the queue is full, returns the refusal for its waiter.
    pub(crate) fn put(&mut self, event: ToBridge) -> Option<Told> {
        let thing = thing(&event);
        let event = match thing.and_then(|thing| self.take_waiting(thing)) {
            Some(waiting) => newer(waiting, event),
            None => event,
        };
        let (holder, bytes, limits) = (holder(&event), weight(&event), self.limits);
        let total = Amount { entries: limits.queue_messages_max.into(), bytes: limits.queue_bytes_max };
        let share = match holder {
            Holder::User(..) => {
                Amount { entries: limits.user_messages_max.into(), bytes: limits.user_bytes_max }
            }
            Holder::Operator => Amount { entries: total.entries.div_ceil(2), bytes: total.bytes / 2 },
        };
        if !self.pool(&event).take(holder, bytes, total, share) {
            self.metrics.dropped[kind(&event)] += 1;
            // A user beyond its own share would be reported again and again for nothing.
            let held = self.presence.held();
            let is_filled = held.entries > total.entries / 2 || held.bytes > total.bytes / 2;
            self.is_behind |= thing.is_some() && is_filled;
            return answer(event, Taken::Refused(FailReason::Busy));
        }
        self.last += 1;
        self.kept.insert(self.last, event);
        if let Some(thing) = thing {
            self.newest.insert(thing, self.last);
        }
        None
    }

    /// Takes out the waiting event of a thing that is not under way.
    fn take_waiting(&mut self, thing: Thing) -> Option<ToBridge> {
        let seq = self.newest.get(&thing).copied().filter(|seq| *seq >= self.next)?;
        let event = self.kept.remove(&seq)?;
        self.newest.remove(&thing);
        self.presence.give_back(holder(&event), weight(&event));
        self.metrics.overtaken += 1;
        Some(event)
    }

    /// Whether presence was dropped that must be reported to the bridge again, and there is room for that;
    /// true only once.
    pub(crate) fn take_behind(&mut self) -> bool {
        self.has_room() && std::mem::take(&mut self.is_behind)
    }

    /// Whether there is room for more reports of that kind: only as many as will soon be under way, so that
    /// they take no place from new events.
    pub(crate) fn has_room(&self) -> bool {
        self.kept.len() < WINDOW_MESSAGES.min(self.half())
    }

    /// How much is reported again at once.
    pub(crate) fn step(&self) -> usize {
        STEP_MAX.min(self.half())
    }

    fn half(&self) -> usize {
        (self.limits.queue_messages_max as usize / 2).max(1)
    }

    /// The pool that an event counts in.
    fn pool(&mut self, event: &ToBridge) -> &mut Shares<Holder> {
        if is_packet(event) { &mut self.packets } else { &mut self.presence }
    }

    fn bytes(&self) -> u64 {
        self.packets.held().bytes + self.presence.held().bytes
    }

    /// The next event to hand over, if the window lets it.
    pub(crate) fn next(&mut self) -> Option<Handed> {
        if self.next > self.last
            || self.under_way >= WINDOW_MESSAGES
            || self.under_way_bytes >= self.limits.window_bytes
        {
            return None;
        }
        let (&seq, event) = self.kept.range(self.next..).next()?;
        self.next = seq + 1;
        self.under_way += 1;
        self.under_way_bytes += weight(event);
        if seq > self.highest {
            self.highest = seq;
            self.metrics.handed += 1;
        } else {
            self.metrics.resent += 1;
        }
        Some(Handed { seq, event: event.clone() })
    }

    /// The bridge has gone, with the events under way: the next one gets them again, unless something newer
    /// waits. A bridge may have taken the newer of two events and not the older one, so the newest are looked
    /// up again.
    pub(crate) fn begin_again(&mut self) {
        self.newest.clear();
        let things: Vec<(u64, Thing)> =
            self.kept.iter().filter_map(|(seq, event)| Some((*seq, thing(event)?))).collect();
        for (seq, thing) in things {
            let Some(before) = self.newest.insert(thing, seq).and_then(|seq| self.kept.remove(&seq)) else {
                continue;
            };
            self.presence.give_back(holder(&before), weight(&before));
            self.metrics.overtaken += 1;
            if let Some(after) = self.kept.remove(&seq) {
                self.kept.insert(seq, newer(before, after));
            }
        }
        self.next = self.kept.first_key_value().map_or(self.last + 1, |(seq, _)| *seq);
        (self.under_way, self.under_way_bytes) = (0, 0);
    }

    /// The bridge has taken or refused an event. Returns the answer for its waiter, once.
    pub(crate) fn taken(&mut self, seq: u64, taken: Taken) -> Option<Told> {
        let event = self.kept.remove(&seq)?;
        let bytes = weight(&event);
        self.pool(&event).give_back(holder(&event), bytes);
        if let Some(thing) = thing(&event).filter(|thing| self.newest.get(thing) == Some(&seq)) {
            self.newest.remove(&thing);
        }
        // It may come before those that go again: then an earlier bridge has taken it after all.
        if seq < self.next {
            self.under_way -= 1;
            self.under_way_bytes -= bytes;
        }
        match taken {
            Taken::Ok => self.metrics.taken += 1,
            Taken::Refused(_) => self.metrics.refused += 1,
        }
        answer(event, taken)
    }

    /// Whether the bridge has no event that it has not taken: then another can go on in its place, and the
    /// order holds.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way == 0
    }

    /// Whether the bridge has taken everything.
    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(crate) fn metrics(&self) -> HandoverMetrics {
        HandoverMetrics { waiting: self.kept.len() as u64, waiting_bytes: self.bytes(), ..self.metrics }
    }

    /// Own-state invariants, at the cost of a walk through all that is kept.
    pub(crate) fn check_invariants(&self) {
        let bytes = |events: &mut dyn Iterator<Item = &ToBridge>| events.map(weight).sum::<u64>();
        assert_eq!(self.bytes(), bytes(&mut self.kept.values()));
        for (pool, packets) in [(&self.packets, true), (&self.presence, false)] {
            let its = self.kept.values().filter(|event| is_packet(event) == packets);
            pool.check_invariants(its.map(|event| (holder(event), weight(event))));
            assert!(pool.held().entries <= self.limits.queue_messages_max.into());
            assert!(pool.held().bytes <= self.limits.queue_bytes_max);
        }
        assert_eq!(self.under_way, self.kept.range(..self.next).count());
        assert_eq!(self.under_way_bytes, bytes(&mut self.kept.range(..self.next).map(|(_, event)| event)));
        assert!(self.under_way <= WINDOW_MESSAGES);
        for (known, seq) in &self.newest {
            assert_eq!(self.kept.get(seq).and_then(thing), Some(*known), "the newest of a thing is kept");
        }
        let waiting = self.kept.range(self.next..).filter_map(|(seq, event)| Some((*seq, thing(event)?)));
        for (seq, thing) in waiting {
            assert!(self.newest.get(&thing) == Some(&seq), "of what waits of a thing there is one");
        }
    }
}

/// In whose share of a pool an event counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Holder {
    User(AppId, UserId),
    /// What backends and operators have pushed in nobody's name.
    Operator,
}

/// The holder of an event. A message to a user counts for its sender, who chose the receiver. One to a room
/// counts for the member that did not ack it: the sender has no part in that.
fn holder(event: &ToBridge) -> Holder {
    match event {
        ToBridge::Online { app, user, .. }
        | ToBridge::Offline { app, user, .. }
        | ToBridge::Joined { app, user, .. }
        | ToBridge::Left { app, user, .. }
        | ToBridge::Request { app, sender: user, .. } => Holder::User(*app, *user),
        ToBridge::Undelivered { user, message, .. } if message.room.is_some() => {
            Holder::User(message.app, *user)
        }
        ToBridge::Undelivered { message, .. } if message.sender == UserId(0) => Holder::Operator,
        ToBridge::Undelivered { message, .. } => Holder::User(message.app, message.sender),
    }
}

/// Whether an event is a packet; else it is one of presence.
fn is_packet(event: &ToBridge) -> bool {
    match event {
        ToBridge::Undelivered { .. } | ToBridge::Request { .. } => true,
        ToBridge::Online { .. }
        | ToBridge::Offline { .. }
        | ToBridge::Joined { .. }
        | ToBridge::Left { .. } => false,
    }
}

/// The subject of an event of presence: a device, or a device in a room.
type Thing = (AppId, UserId, DeviceClass, Option<RoomId>);

/// The subject of an event of presence; `None` for a packet.
fn thing(event: &ToBridge) -> Option<Thing> {
    match *event {
        ToBridge::Online { app, user, device, .. } | ToBridge::Offline { app, user, device, .. } => {
            Some((app, user, device, None))
        }
        ToBridge::Joined { app, user, device, room, .. } | ToBridge::Left { app, user, device, room, .. } => {
            Some((app, user, device, Some(room)))
        }
        ToBridge::Undelivered { .. } | ToBridge::Request { .. } => None,
    }
}

/// Which of two events about one thing counts, by the rules at [`ToBridge`].
fn newer(before: ToBridge, after: ToBridge) -> ToBridge {
    let (old, new) = (stamp(&before), stamp(&after));
    let is_end = matches!(before, ToBridge::Offline { .. });
    if old > new || old == new && is_end { before } else { after }
}

fn stamp(event: &ToBridge) -> Login {
    match event {
        ToBridge::Online { login, .. }
        | ToBridge::Offline { login, .. }
        | ToBridge::Joined { login, .. }
        | ToBridge::Left { login, .. } => *login,
        ToBridge::Undelivered { .. } | ToBridge::Request { .. } => Login::default(),
    }
}

/// Who waits for an event, and the answer for it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Told {
    /// The session that sent a request with an id.
    Session { session: SessionId, ack: SendAck },
    /// The router core whose message it is.
    Router { delivery: DeliveryId, taken: Taken },
}

/// The answer for the waiter of an event.
pub(crate) fn answer(event: ToBridge, taken: Taken) -> Option<Told> {
    match event {
        ToBridge::Request { session, client_msg_id, .. } if !client_msg_id.is_empty() => {
            let outcome = match taken {
                Taken::Ok => Outcome::Answered,
                Taken::Refused(reason) => Outcome::Failed(reason),
            };
            let ack = SendAck { client_msg_id, id: MessageId(0), outcome };
            Some(Told::Session { session, ack })
        }
        ToBridge::Undelivered { delivery, .. } if delivery != DeliveryId::NONE => {
            Some(Told::Router { delivery, taken })
        }
        ToBridge::Request { .. }
        | ToBridge::Undelivered { .. }
        | ToBridge::Online { .. }
        | ToBridge::Offline { .. }
        | ToBridge::Joined { .. }
        | ToBridge::Left { .. } => None,
    }
}

/// The place of an event in [`EVENTS`].
fn kind(event: &ToBridge) -> usize {
    match event {
        ToBridge::Online { .. } => 0,
        ToBridge::Offline { .. } => 1,
        ToBridge::Joined { .. } => 2,
        ToBridge::Left { .. } => 3,
        ToBridge::Undelivered { .. } => 4,
        ToBridge::Request { .. } => 5,
    }
}

/// About how many bytes an event takes.
pub(crate) fn weight(event: &ToBridge) -> u64 {
    let text = match event {
        ToBridge::Undelivered { message, .. } => {
            message.client_msg_id.as_bytes().len() + message.payload.len()
        }
        ToBridge::Request { client_msg_id, payload, .. } => client_msg_id.as_bytes().len() + payload.len(),
        ToBridge::Online { .. }
        | ToBridge::Offline { .. }
        | ToBridge::Joined { .. }
        | ToBridge::Left { .. } => 0,
    };
    (EVENT_BYTES + text) as u64
}

#[cfg(test)]
mod tests;
