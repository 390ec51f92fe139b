//! Recognises the messages that a sender repeats.

use std::hash::Hasher;
use std::time::Duration;

use shard::Instant;
use siphasher::sip128::{Hasher128, SipHasher13};
use wire::MessageId;
use wire::client::Outcome;
use wire::node::{Submission, Target};

use crate::hash::IdHash;
use crate::limits::{FORGET_PER_SUBMIT_MAX, Limits};
use crate::outbox::Holder;
use crate::stripes::Stripes;

/// The end of a list. No outcome is at this place.
const NONE: u32 = u32::MAX;

/// A submitted message as its sender names it: a keyed hash of app, sender, target, client_msg_id, whether it
/// comes from an inbox, and for which class of device. 128 bits, so that no two messages of a window meet,
/// and keyed, so that no client can make them meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key([u64; 2]);

impl Key {
    /// The hash for tables.
    pub(crate) fn hash(self) -> u64 {
        self.0[0]
    }
}

/// Makes keys.
#[derive(Debug)]
pub(crate) struct Keys {
    hasher: SipHasher13,
}

impl Keys {
    pub(crate) fn new(seeds: [u64; 2]) -> Self {
        Self { hasher: SipHasher13::new_with_keys(seeds[0], seeds[1]) }
    }

    /// `None` for a message that its sender gave no id.
    pub(crate) fn of(&self, submission: &Submission) -> Option<Key> {
        if submission.client_msg_id.is_empty() {
            return None;
        }
        let (kind, target) = match submission.target {
            Target::User(user) => (1, user.0),
            Target::Room(room) => (2, room.0),
        };
        let mut fixed = [0; 22];
        fixed[0] = kind | u8::from(submission.stored) << 2;
        fixed[1..5].copy_from_slice(&submission.app.0.to_le_bytes());
        fixed[5..13].copy_from_slice(&submission.sender.0.to_le_bytes());
        fixed[13..21].copy_from_slice(&target.to_le_bytes());
        fixed[21] = submission.device.map_or(0, |device| device as u8);
        let mut hasher = self.hasher;
        hasher.write(&fixed);
        hasher.write(submission.client_msg_id.as_bytes());
        let hash = hasher.finish128();
        Some(Key([hash.h1, hash.h2]))
    }
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Answer {
    pub(crate) id: MessageId,
    /// `None` if the sender gets no send-ack: for a lossy message to a user.
    pub(crate) outcome: Option<Outcome>,
}

/// The outcomes of the last messages: those of a period, up to a number in all and for each sender. A sender
/// that has used its share forgets its own oldest, so nobody else's window shrinks.
///
/// A message comes in when its outcome is known; until then it is among the pending ones. So the window never
/// drops a message that is still on its way, and a late outcome is remembered as long as an early one.
///
/// The outcomes stand in two lists, oldest first: of all, and of each sender. The oldest of all is the oldest
/// of its sender too.
#[derive(Debug)]
pub(crate) struct Dedupe {
    window: Duration,
    outcomes_max: usize,
    share_max: Shares,
    /// By place, in no order; a free place stays and leads to the next one.
    outcomes: Vec<Remembered>,
    free: u32,
    oldest: u32,
    newest: u32,
    len: usize,
    /// The place of each outcome that can still be found, by its key.
    table: Stripes<u32>,
    senders: Stripes<Sender>,
    sender_hash: IdHash,
}

/// How many outcomes are remembered of one sender.
#[derive(Clone, Copy, Debug)]
struct Shares {
    user: u32,
    operator: u32,
}

#[derive(Debug)]
struct Remembered {
    key: Key,
    answer: Answer,
    since: Instant,
    sender: Holder,
    older: u32,
    newer: u32,
    newer_of_sender: u32,
}

/// The outcomes of one sender.
#[derive(Debug)]
struct Sender {
    holder: Holder,
    len: u32,
    oldest: u32,
    newest: u32,
}

impl Dedupe {
    pub(crate) fn new(seed: u64, limits: &Limits) -> Self {
        let outcomes_max = limits.dedupe_max as usize;
        Self {
            window: limits.dedupe_window(),
            outcomes_max,
            share_max: Shares {
                user: limits.dedupe_sender_max,
                operator: limits.operator_share(limits.dedupe_max),
            },
            // Allocated at once, as growing would copy megabytes in between; pages count when first used.
            outcomes: Vec::with_capacity(outcomes_max),
            free: NONE,
            oldest: NONE,
            newest: NONE,
            len: 0,
            table: Stripes::new(),
            senders: Stripes::new(),
            sender_hash: IdHash::new(seed),
        }
    }

    /// Outcomes held.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The outcome of the message `key`, if it is within the window. Forgets some outcomes that are past it.
    pub(crate) fn find(&mut self, now: Instant, key: Key) -> Option<Answer> {
        for _ in 0..FORGET_PER_SUBMIT_MAX {
            if self.oldest == NONE || !self.is_past(now, self.at(self.oldest)) {
                break;
            }
            self.forget(self.oldest);
        }
        let place = *self.table.find(key.hash(), |&place| self.at(place).key == key)?;
        let found = self.at(place);
        (!self.is_past(now, found)).then_some(found.answer)
    }

    /// Remembers the outcome of a sender's message `key`, which `find` did not know.
    pub(crate) fn remember(&mut self, now: Instant, key: Key, sender: Holder, answer: Answer) {
        self.make_room(sender);
        let remembered = Remembered {
            key,
            answer,
            since: now,
            sender,
            older: self.newest,
            newer: NONE,
            newer_of_sender: NONE,
        };
        let place = self.put(remembered);
        match self.newest {
            NONE => self.oldest = place,
            newest => self.outcomes[newest as usize].newer = place,
        }
        self.newest = place;
        let hash = self.sender_hash.of_holder(sender);
        match self.senders.find_mut(hash, |known| known.holder == sender) {
            Some(known) => {
                self.outcomes[known.newest as usize].newer_of_sender = place;
                known.newest = place;
                known.len += 1;
            }
            None => {
                let (of, anew) =
                    (self.sender_hash, Sender { holder: sender, len: 1, oldest: place, newest: place });
                self.senders.insert_unique(hash, anew, |known| of.of_holder(known.holder));
            }
        }
        let outcomes = &self.outcomes;
        let key_of = |place: u32| outcomes[place as usize].key;
        // One past its time may not be forgotten yet: this one takes its place.
        match self.table.find_mut(key.hash(), |&known| key_of(known) == key) {
            Some(known) => *known = place,
            None => self.table.insert_unique(key.hash(), place, |&known| key_of(known).hash()),
        }
    }

    /// Forgets the oldest of a sender that has used its share, or the oldest of all if the window is full.
    fn make_room(&mut self, sender: Holder) {
        let share_max = match sender {
            Holder::User(..) => self.share_max.user,
            Holder::Operator => self.share_max.operator,
        };
        let hash = self.sender_hash.of_holder(sender);
        let its = self.senders.find(hash, |known| known.holder == sender);
        match its.filter(|its| its.len >= share_max).map(|its| its.oldest) {
            Some(oldest) => self.forget(oldest),
            None if self.len >= self.outcomes_max => self.forget(self.oldest),
            None => {}
        }
    }

    fn put(&mut self, remembered: Remembered) -> u32 {
        self.len += 1;
        match self.free {
            NONE => {
                self.outcomes.push(remembered);
                self.outcomes.len() as u32 - 1
            }
            place => {
                self.free = self.outcomes[place as usize].newer;
                self.outcomes[place as usize] = remembered;
                place
            }
        }
    }

    /// Forgets an outcome that is the oldest of its sender.
    fn forget(&mut self, place: u32) {
        let Remembered { key, sender, older, newer, newer_of_sender, .. } = self.outcomes[place as usize];
        // The entry is missing if another outcome took its place.
        self.table.remove(key.hash(), |&known| known == place);
        match older {
            NONE => self.oldest = newer,
            older => self.outcomes[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.outcomes[newer as usize].older = older,
        }
        let hash = self.sender_hash.of_holder(sender);
        let is_it = |known: &Sender| known.holder == sender;
        let its = self.senders.find_mut(hash, is_it).expect("a sender with outcomes is known");
        assert_eq!(its.oldest, place, "an outcome is forgotten before what came later from its sender");
        (its.oldest, its.len) = (newer_of_sender, its.len - 1);
        if its.len == 0 {
            self.senders.remove(hash, is_it);
        }
        self.outcomes[place as usize].newer = self.free;
        self.free = place;
        self.len -= 1;
    }

    fn at(&self, place: u32) -> &Remembered {
        &self.outcomes[place as usize]
    }

    fn is_past(&self, now: Instant, outcome: &Remembered) -> bool {
        now.since(outcome.since) >= self.window
    }

    pub(crate) fn check_invariants(&self) {
        assert!(self.len <= self.outcomes_max);
        let (mut listed, mut older, mut place) = (0, NONE, self.oldest);
        while place != NONE {
            let it = self.at(place);
            assert_eq!(it.older, older, "the list leads back");
            assert!(older == NONE || self.at(older).since <= it.since, "the oldest come first");
            (older, place, listed) = (place, it.newer, listed + 1);
            assert!(listed <= self.len, "the list ends");
        }
        assert_eq!((self.newest, listed), (older, self.len), "every outcome is in the list");
        let mut of_senders = 0;
        for sender in self.senders.iter() {
            let (mut listed, mut newest, mut place) = (0, NONE, sender.oldest);
            while place != NONE {
                assert_eq!(self.at(place).sender, sender.holder);
                (newest, place, listed) = (place, self.at(place).newer_of_sender, listed + 1);
                assert!(listed <= sender.len, "the list ends");
            }
            assert_eq!((sender.newest, listed), (newest, sender.len), "a sender's list has what it says");
            of_senders += listed as usize;
        }
        assert_eq!(of_senders, self.len, "every outcome is in the list of its sender");
        assert!(self.table.len() <= self.len);
        for &place in self.table.iter() {
            let key = self.at(place).key;
            let found = self.table.find(key.hash(), |&known| self.at(known).key == key);
            assert_eq!(found, Some(&place), "a key leads to one outcome");
        }
    }
}

#[cfg(test)]
mod tests {
    use wire::{AppId, UserId};

    use super::*;

    const ALICE: Holder = Holder::User(AppId(1), UserId(1));
    const BOB: Holder = Holder::User(AppId(1), UserId(2));

    fn dedupe(dedupe_max: u32, dedupe_sender_max: u32) -> Dedupe {
        let limits = Limits { dedupe_max, dedupe_sender_max, ..Limits::default() };
        Dedupe::new(1, &limits)
    }

    fn secs(secs: u64) -> Instant {
        Instant::from_unix_nanos(secs * 1_000_000_000)
    }

    fn key(n: u64) -> Key {
        // The same hash for each, so that only the comparison of keys tells them apart.
        Key([7, n])
    }

    fn answer(n: u64) -> Answer {
        Answer { id: MessageId(n), outcome: Some(Outcome::Delivered) }
    }

    #[test]
    fn an_outcome_is_found_until_the_window_has_passed() {
        let mut dedupe = dedupe(10, 10);
        dedupe.remember(secs(0), key(1), ALICE, answer(1));
        assert_eq!(dedupe.find(secs(119), key(1)), Some(answer(1)));
        assert_eq!(dedupe.find(secs(119), key(2)), None);
        assert_eq!(dedupe.find(secs(120), key(1)), None);
        assert_eq!(dedupe.len(), 0);
        dedupe.check_invariants();
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut dedupe = dedupe(2, 2);
        for n in 1..=3 {
            dedupe.remember(secs(n), key(n), ALICE, answer(n));
            dedupe.check_invariants();
        }
        assert_eq!([1, 2, 3].map(|n| dedupe.find(secs(3), key(n)).is_some()), [false, true, true]);
    }

    #[test]
    fn one_past_its_time_is_unknown_before_it_is_forgotten() {
        let (mut dedupe, many) = (dedupe(1000, 1000), 10 * FORGET_PER_SUBMIT_MAX as u64);
        for n in 0..many {
            dedupe.remember(secs(0), key(n), ALICE, answer(n));
        }
        let last = many - 1;
        assert_eq!(dedupe.find(secs(200), key(last)), None);
        assert!(dedupe.len() > 1, "it is still there");
        dedupe.remember(secs(200), key(last), ALICE, answer(9999));
        dedupe.check_invariants();
        for _ in 0..many {
            assert_eq!(dedupe.find(secs(201), key(last)), Some(answer(9999)));
            dedupe.check_invariants();
        }
        assert_eq!(dedupe.len(), 1);
    }

    #[test]
    fn a_sender_with_its_share_forgets_its_own_oldest() {
        let mut dedupe = dedupe(10, 3);
        dedupe.remember(secs(0), key(100), BOB, answer(100));
        for n in 1..=20 {
            dedupe.remember(secs(n), key(n), ALICE, answer(n));
            dedupe.check_invariants();
        }
        assert_eq!(dedupe.find(secs(20), key(100)), Some(answer(100)), "though it is the oldest of all");
        let known: Vec<u64> = (1..=20).filter(|n| dedupe.find(secs(20), key(*n)).is_some()).collect();
        assert_eq!((known, dedupe.len()), (vec![18, 19, 20], 4));
    }

    #[test]
    fn operators_have_half_of_the_window() {
        let mut dedupe = dedupe(10, 3);
        for n in 1..=20 {
            dedupe.remember(secs(n), key(n), Holder::Operator, answer(n));
            dedupe.check_invariants();
        }
        assert_eq!(dedupe.len(), 5);
    }
}
