//! Which messages a sender repeats.

use std::collections::VecDeque;
use std::hash::Hasher;
use std::time::Duration;

use shard::Instant;
use siphasher::sip128::{Hasher128, SipHasher13};
use wire::MessageId;
use wire::client::Outcome;
use wire::node::{Submission, Target};

use crate::limits::FORGET_PER_SUBMIT_MAX;
use crate::stripes::Stripes;

/// A submitted message as its sender names it: a keyed hash of app, sender, target, client_msg_id, whether it comes from an inbox,
/// and for which class of device. 128 bits, so that no two messages of a window meet, and keyed, so that no client can make them
/// meet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Key([u64; 2]);

impl Key {
    /// A hash for tables.
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
    /// `None` when the sender is told nothing: a lossy message to a user.
    pub(crate) outcome: Option<Outcome>,
}

/// The outcomes of the last messages, oldest first: those of a span of time, and no more than a number.
///
/// A message comes in when its outcome is known; until then it is found among the pending ones. So the window never drops a
/// message that is still on its way, and a late outcome is remembered as long as an early one.
#[derive(Debug)]
pub(crate) struct Dedupe {
    window: Duration,
    outcomes_max: usize,
    /// Oldest first.
    outcomes: VecDeque<Remembered>,
    /// The number of the oldest in `outcomes`, counted from the start, modulo 2^32.
    oldest: u32,
    /// The number of each outcome that can still be found, by its key.
    table: Stripes<u32>,
}

#[derive(Debug)]
struct Remembered {
    key: Key,
    answer: Answer,
    since: Instant,
}

impl Dedupe {
    pub(crate) fn new(window: Duration, outcomes_max: u32) -> Self {
        let outcomes_max = outcomes_max as usize;
        // All at once, for to grow would copy megabytes in between; pages count when they are first used.
        let outcomes = VecDeque::with_capacity(outcomes_max);
        Self { window, outcomes_max, outcomes, oldest: 0, table: Stripes::new() }
    }

    /// Outcomes held.
    pub(crate) fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// What became of the message `key`, if it is within the window. Forgets some outcomes that no longer are.
    pub(crate) fn find(&mut self, now: Instant, key: Key) -> Option<Answer> {
        for _ in 0..FORGET_PER_SUBMIT_MAX {
            match self.outcomes.front() {
                Some(oldest) if self.is_past(now, oldest) => self.forget_oldest(),
                _ => break,
            }
        }
        let number = *self.table.find(key.hash(), |&number| self.at(number).key == key)?;
        let found = self.at(number);
        (!self.is_past(now, found)).then_some(found.answer)
    }

    /// Remembers what became of the message `key`, which `find` did not know.
    pub(crate) fn remember(&mut self, now: Instant, key: Key, answer: Answer) {
        if self.outcomes.len() >= self.outcomes_max {
            self.forget_oldest();
        }
        let number = self.oldest.wrapping_add(self.outcomes.len() as u32);
        self.outcomes.push_back(Remembered { key, answer, since: now });
        let (outcomes, oldest) = (&self.outcomes, self.oldest);
        let key_of = |number: u32| outcomes[number.wrapping_sub(oldest) as usize].key;
        // One that is past its time and not yet forgotten may stand there: this takes its place.
        match self.table.find_mut(key.hash(), |&known| key_of(known) == key) {
            Some(known) => *known = number,
            None => self.table.insert_unique(key.hash(), number, |&known| key_of(known).hash()),
        }
    }

    fn at(&self, number: u32) -> &Remembered {
        &self.outcomes[number.wrapping_sub(self.oldest) as usize]
    }

    fn is_past(&self, now: Instant, outcome: &Remembered) -> bool {
        now.since(outcome.since) >= self.window
    }

    fn forget_oldest(&mut self) {
        let Some(forgotten) = self.outcomes.pop_front() else { return };
        let number = self.oldest;
        // Not there when another has taken its place.
        self.table.remove(forgotten.key.hash(), |&known| known == number);
        self.oldest = number.wrapping_add(1);
    }

    pub(crate) fn check_invariants(&self) {
        assert!(self.outcomes.len() <= self.outcomes_max);
        assert!(self.outcomes.iter().is_sorted_by_key(|outcome| outcome.since), "the oldest come first");
        assert!(self.table.len() <= self.outcomes.len());
        let mut numbers: Vec<u32> =
            self.table.iter().map(|number| number.wrapping_sub(self.oldest)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), self.table.len(), "an outcome is found under one key");
        for &number in self.table.iter() {
            let key = self.at(number).key;
            let found = self.table.find(key.hash(), |&known| self.at(known).key == key);
            assert_eq!(found, Some(&number), "a key leads to one outcome");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(120);

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
        let mut dedupe = Dedupe::new(WINDOW, 10);
        dedupe.remember(secs(0), key(1), answer(1));
        assert_eq!(dedupe.find(secs(119), key(1)), Some(answer(1)));
        assert_eq!(dedupe.find(secs(119), key(2)), None);
        assert_eq!(dedupe.find(secs(120), key(1)), None);
        assert_eq!(dedupe.len(), 0);
        dedupe.check_invariants();
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut dedupe = Dedupe::new(WINDOW, 2);
        for n in 1..=3 {
            dedupe.remember(secs(n), key(n), answer(n));
            dedupe.check_invariants();
        }
        assert_eq!([1, 2, 3].map(|n| dedupe.find(secs(3), key(n)).is_some()), [false, true, true]);
    }

    #[test]
    fn one_past_its_time_is_unknown_before_it_is_forgotten() {
        let (mut dedupe, many) = (Dedupe::new(WINDOW, 1000), 10 * FORGET_PER_SUBMIT_MAX as u64);
        for n in 0..many {
            dedupe.remember(secs(0), key(n), answer(n));
        }
        let last = many - 1;
        assert_eq!(dedupe.find(secs(200), key(last)), None);
        assert!(dedupe.len() > 1, "it is still there");
        dedupe.remember(secs(200), key(last), answer(9999));
        dedupe.check_invariants();
        for _ in 0..many {
            assert_eq!(dedupe.find(secs(201), key(last)), Some(answer(9999)));
            dedupe.check_invariants();
        }
        assert_eq!(dedupe.len(), 1);
    }

    #[test]
    fn numbers_may_wrap() {
        let mut dedupe = Dedupe::new(WINDOW, 3);
        dedupe.oldest = u32::MAX - 4;
        for n in 0..20 {
            dedupe.remember(secs(n), key(n), answer(n));
            assert_eq!(dedupe.find(secs(n), key(n)), Some(answer(n)));
            dedupe.check_invariants();
        }
    }
}
