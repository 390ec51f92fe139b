//! Reliable messages that wait for their receivers, or for the bridge.

use shard::{Instant, ShardId, Shares, Slab};
use wire::client::{FailReason, Message};
use wire::node::{Class, DeliveryId, Submission, Target};
use wire::{AppId, DeviceClass, MessageId, UserId};

use crate::dedupe::Key;
use crate::limits::Limits;
use crate::outbox::{Holder, Seat, Sender};
use crate::partial::message_bytes;
use crate::stripes::Stripes;

/// A reliable message to a user.
#[derive(Debug)]
pub(crate) struct Letter {
    /// `None` when the sender gave it no id, and so waits for nothing.
    pub(crate) key: Option<Key>,
    /// Who gets the send-ack: the session that sent it last.
    pub(crate) sender: Sender,
    pub(crate) receiver: UserId,
    /// It comes from an inbox and stays there unless it is delivered.
    pub(crate) stored: bool,
    /// That session's shard gave it here when owners changed: what came for the first time is newer.
    pub(crate) again: bool,
    /// What it fails for when nobody says anything.
    pub(crate) reason: FailReason,
    pub(crate) message: Message,
}

impl Letter {
    /// Of its payload and name.
    fn bytes(&self) -> u64 {
        message_bytes(&self.message)
    }

    fn for_receiver(&self) -> (AppId, UserId) {
        (self.message.app, self.receiver)
    }

    /// The message as it was submitted, to every device of its receiver.
    pub(crate) fn into_submission(self) -> Submission {
        let Self { receiver, stored, message, .. } = self;
        let Message { id, app, sender, biz_code, client_msg_id, payload, .. } = message;
        let (target, class, again, device) = (Target::User(receiver), Class::Reliable, true, None);
        let concluded = None;
        Submission {
            id,
            app,
            sender,
            target,
            biz_code,
            class,
            client_msg_id,
            payload,
            again,
            stored,
            device,
            concluded,
        }
    }

    /// The message came once more: the session that sent it last waits for the answer from here on. Returns
    /// the other one. What a shard gives here because owners changed was sent before what comes for the first
    /// time, and of two such the lower id was sent first.
    pub(crate) fn repeated_by(&mut self, sender: Sender, repeat: &Submission) -> Sender {
        let is_older = repeat.again && (!self.again || repeat.id < self.sender.submitted);
        if is_older {
            return sender;
        }
        self.again = repeat.again;
        std::mem::replace(&mut self.sender, sender)
    }
}

/// The letters that are on their way, oldest first. All wait equally long, so the oldest is the first to time
/// out. Each sender and each receiver has a share of them.
pub(crate) struct Pending {
    slab: Slab<Waiting>,
    /// Those whose sender gave an id, by its key.
    table: Stripes<shard::Key>,
    oldest: Option<shard::Key>,
    newest: Option<shard::Key>,
    /// Added to the generations in delivery ids, so that those of an earlier life of this router mean nothing
    /// to this one.
    epoch: u32,
    of_senders: Shares<Holder>,
    for_receivers: Shares<(AppId, UserId)>,
}

#[derive(Debug)]
struct Waiting {
    letter: Letter,
    /// In whose share it counts. A repeat may have given the letter another sender.
    holder: Holder,
    receivers: Receivers,
    deadline: Instant,
    older: Option<shard::Key>,
    newer: Option<shard::Key>,
}

/// The sessions of which a letter waits for an outcome, at most one for each class of device.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Receivers {
    seats: [Option<Seat>; DeviceClass::ALL.len()],
}

impl Receivers {
    pub(crate) fn is_empty(&self) -> bool {
        self.seats.iter().all(Option::is_none)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Seat> + '_ {
        self.seats.iter().flatten().copied()
    }

    /// Adds one; false when there is no place for it.
    fn add(&mut self, seat: Seat) -> bool {
        let place = self.seats.iter_mut().find(|place| place.is_none_or(|known| known == seat));
        place.map(|place| *place = Some(seat)).is_some()
    }

    /// Removes one; tells whether it was there.
    fn remove(&mut self, seat: Seat) -> bool {
        let place = self.seats.iter_mut().find(|place| **place == Some(seat));
        place.and_then(Option::take).is_some()
    }
}

impl FromIterator<Seat> for Receivers {
    fn from_iter<I: IntoIterator<Item = Seat>>(seats: I) -> Self {
        let mut receivers = Self::default();
        for (at, seat) in seats.into_iter().enumerate() {
            receivers.seats[at] = Some(seat);
        }
        receivers
    }
}

/// The end of one delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    /// The letter.
    pub(crate) at: shard::Key,
    /// Whether other sessions may still ack it.
    pub(crate) others: bool,
}

impl Pending {
    pub(crate) fn new(epoch: u32, seed: u64) -> Self {
        Self {
            slab: Slab::new(),
            table: Stripes::new(),
            oldest: None,
            newest: None,
            epoch,
            of_senders: Shares::new(seed),
            for_receivers: Shares::new(seed),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// When the oldest letter times out.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.oldest.map(|oldest| self.at(oldest).deadline)
    }

    /// Takes in a letter until one of `receivers` acks it, all fail, or `deadline`, which is no earlier than
    /// that of any letter before. Gives it back when its sender or its receiver has as many as may be, or all
    /// have.
    pub(crate) fn insert(
        &mut self,
        letter: Letter,
        receivers: Receivers,
        deadline: Instant,
        limits: &Limits,
    ) -> Result<DeliveryId, Box<Letter>> {
        let holder = letter.sender.holder(letter.message.app, letter.message.sender);
        let (bytes, total) = (letter.bytes(), limits.pending_total());
        if !self.of_senders.take(holder, bytes, total, limits.sender_share(holder)) {
            return Err(Box::new(letter));
        }
        if !self.for_receivers.take(letter.for_receiver(), bytes, total, limits.receiver_share()) {
            self.of_senders.give_back(holder, bytes);
            return Err(Box::new(letter));
        }
        let key = letter.key;
        let older = self.newest;
        let at = self.slab.insert(Waiting { letter, holder, receivers, deadline, older, newer: None });
        match older {
            Some(older) => self.at_mut(older).newer = Some(at),
            None => self.oldest = Some(at),
        }
        self.newest = Some(at);
        if let Some(key) = key {
            let slab = &self.slab;
            self.table.insert_unique(key.hash(), at, |&at| name_of(slab, at).hash());
        }
        Ok(self.delivery(at))
    }

    fn delivery(&self, at: shard::Key) -> DeliveryId {
        let generation = at.generation.wrapping_add(self.epoch);
        DeliveryId(shard::Key { generation, ..at }.as_u64())
    }

    fn key_of(&self, delivery: DeliveryId) -> shard::Key {
        let at = shard::Key::from_u64(delivery.0);
        shard::Key { generation: at.generation.wrapping_sub(self.epoch), ..at }
    }

    /// The letter that its sender names so.
    pub(crate) fn find_mut(&mut self, key: Key) -> Option<&mut Letter> {
        let slab = &self.slab;
        let at = *self.table.find(key.hash(), |&at| name_of(slab, at) == key)?;
        Some(&mut self.at_mut(at).letter)
    }

    /// Another session may ack a letter; false when it is done with.
    pub(crate) fn add_receiver(&mut self, delivery: DeliveryId, receiver: Seat) -> bool {
        let at = self.key_of(delivery);
        self.slab.get_mut(at).is_some_and(|waiting| waiting.receivers.add(receiver))
    }

    /// Whether that shard has submitted a letter under this id, and nobody has repeated it since.
    pub(crate) fn is_of(&self, delivery: DeliveryId, shard: ShardId, submitted: MessageId) -> bool {
        let letter = self.slab.get(self.key_of(delivery)).map(|waiting| &waiting.letter);
        letter.is_some_and(|it| (it.sender.seat.shard, it.sender.submitted) == (shard, submitted))
    }

    /// Strikes a receiver off a letter; the letter stays. `None` when nobody waited for it.
    pub(crate) fn settle(&mut self, delivery: DeliveryId, receiver: Seat) -> Option<Settled> {
        let at = self.key_of(delivery);
        let receivers = &mut self.slab.get_mut(at)?.receivers;
        receivers.remove(receiver).then(|| Settled { at, others: !receivers.is_empty() })
    }

    /// The deliveries that wait for a shard, oldest first, each with the session there.
    pub(crate) fn on_shard(&self, shard: ShardId) -> Vec<(DeliveryId, Seat)> {
        let mut found = Vec::new();
        let mut at = self.oldest;
        while let Some(here) = at {
            let waiting = self.at(here);
            let there = waiting.receivers.iter().filter(|seat| seat.shard == shard);
            found.extend(there.map(|seat| (self.delivery(here), seat)));
            at = waiting.newer;
        }
        found
    }

    /// Takes a letter out: its outcome is known.
    pub(crate) fn remove(&mut self, at: shard::Key) -> Letter {
        let Waiting { letter, holder, older, newer, .. } =
            self.slab.remove(at).expect("the key names a letter");
        self.of_senders.give_back(holder, letter.bytes());
        self.for_receivers.give_back(letter.for_receiver(), letter.bytes());
        if let Some(key) = letter.key {
            let removed = self.table.remove(key.hash(), |&known| known == at);
            assert_eq!(removed, Some(at), "a letter with a key is in the table");
        }
        match older {
            Some(older) => self.at_mut(older).newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.at_mut(newer).older = older,
            None => self.newest = older,
        }
        letter
    }

    /// Takes out a letter that waits for no receiver.
    pub(crate) fn take(&mut self, delivery: DeliveryId) -> Option<Letter> {
        let at = self.key_of(delivery);
        self.slab.get(at)?;
        Some(self.remove(at))
    }

    /// Takes out the oldest letter if its time has come.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Letter> {
        let oldest = self.oldest.filter(|&oldest| self.at(oldest).deadline <= now)?;
        Some(self.remove(oldest))
    }

    /// Own-state invariants. `has_receivers`: every letter waits for one; else none does.
    pub(crate) fn check_invariants(&self, has_receivers: bool) {
        let all = || self.slab.iter().map(|(_, waiting)| waiting);
        self.of_senders.check_invariants(all().map(|waiting| (waiting.holder, waiting.letter.bytes())));
        let for_receivers = all().map(|waiting| (waiting.letter.for_receiver(), waiting.letter.bytes()));
        self.for_receivers.check_invariants(for_receivers);
        let mut keys = 0;
        let (mut at, mut older, mut listed) = (self.oldest, None, 0);
        while let Some(here) = at {
            let waiting = self.at(here);
            assert_eq!(waiting.older, older, "the list leads back");
            assert_eq!(
                waiting.receivers.is_empty(),
                !has_receivers,
                "a letter that all have settled is done"
            );
            assert!(
                older.is_none_or(|older| self.at(older).deadline <= waiting.deadline),
                "the oldest is due first"
            );
            if let Some(key) = waiting.letter.key {
                let found = self.table.find(key.hash(), |&known| name_of(&self.slab, known) == key);
                assert_eq!(found, Some(&here), "a key leads to one letter");
                keys += 1;
            }
            listed += 1;
            assert!(listed <= self.slab.len(), "the list ends");
            (older, at) = (at, waiting.newer);
        }
        assert_eq!(self.newest, older, "the list ends at the newest");
        assert_eq!(listed, self.slab.len(), "every letter is in the list");
        assert_eq!(keys, self.table.len(), "the table has letters only");
    }

    fn at(&self, at: shard::Key) -> &Waiting {
        self.slab.get(at).expect("a key within this file names a letter")
    }

    fn at_mut(&mut self, at: shard::Key) -> &mut Waiting {
        self.slab.get_mut(at).expect("a key within this file names a letter")
    }
}

fn name_of(slab: &Slab<Waiting>, at: shard::Key) -> Key {
    let letter = slab.get(at).map(|waiting| &waiting.letter);
    letter.and_then(|letter| letter.key).expect("the table names letters that have a key")
}
