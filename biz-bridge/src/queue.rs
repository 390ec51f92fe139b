//! The events that wait in one lane, and their results: without clock, network or chance of its own.
//!
//! Two rules: events of one user leave in the order in which they came, and an event that fails delays nobody
//! but its user. So an event to be sent again is held, with all later events of its user, and gets batches of
//! its own.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::Instant;

use wire::node::Taken;
use wire::{AppId, UserId};

use crate::backoff::{Backoff, Random};
use crate::event::{Entry, EventKey};

type User = (AppId, UserId);

/// Bytes of events in a batch; one event that is longer goes alone.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// The events of a lane that are not done.
pub struct Queue {
    batch_max: usize,
    backoff: Backoff,
    random: Random,
    /// Events of users that are not held, and some that came before their user was; oldest first.
    fresh: VecDeque<Entry>,
    /// How many of them a batch takes: halved while batches fail, doubled while they do not.
    fresh_max: usize,
    /// Failures in a row.
    fresh_failures: u32,
    /// The next batch leaves no earlier than this.
    fresh_from: Option<Instant>,
    held: HashMap<User, Held>,
    /// The users that are held and have no event in the batch under way, by when they are due.
    due: BTreeSet<(Instant, User)>,
    /// The same as `fresh_max` for held events.
    held_max: usize,
    /// Whether the last batch was of held events.
    held_had_turn: bool,
    /// Everything here and in the batch under way.
    keys: HashSet<EventKey>,
}

/// Events of one user that wait for the first of them.
#[derive(Default)]
struct Held {
    /// Its time in `due`, if it is there.
    due: Option<Instant>,
    entries: VecDeque<Entry>,
}

/// What goes out together. The lane has one under way at a time.
pub struct Batch {
    pub entries: Vec<Entry>,
    held: bool,
}

/// The result of a batch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It was read; one result for each of its events.
    Answered(Vec<Answer>),
    /// The other end will never take a batch like this.
    Rejected(String),
    /// Anything else.
    Failed(String),
}

/// The result of an event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is done.
    Ok,
    /// It is done: it was refused, and why.
    Refused(String),
    /// It is to be sent again.
    Again,
}

/// An event that is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Done {
    pub entry: Entry,
    pub taken: Taken,
    /// Why it was refused.
    pub why: Option<String>,
}

impl Queue {
    pub fn new(batch_max: usize, backoff: Backoff, random: Random) -> Self {
        Self {
            batch_max,
            backoff,
            random,
            fresh: VecDeque::new(),
            fresh_max: batch_max,
            fresh_failures: 0,
            fresh_from: None,
            held: HashMap::new(),
            due: BTreeSet::new(),
            held_max: batch_max,
            held_had_turn: false,
            keys: HashSet::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether that event is here, or in the batch under way.
    pub fn contains(&self, key: &EventKey) -> bool {
        self.keys.contains(key)
    }

    /// Takes an event in that is not here.
    pub fn push(&mut self, entry: Entry) {
        let is_new = self.keys.insert(entry.key);
        assert!(is_new, "the lane drops an event that is here");
        self.fresh.push_back(entry);
    }

    /// The next batch, if one may leave. Held and other events take turns.
    pub fn take(&mut self, now: Instant) -> Option<Batch> {
        let is_due = self.due.first().is_some_and(|(due, _)| *due <= now);
        let held_first = is_due && !self.held_had_turn;
        let mut batch = if held_first { self.take_held(now) } else { self.take_fresh(now) };
        if batch.entries.is_empty() {
            batch = if held_first { self.take_fresh(now) } else { self.take_held(now) };
        }
        if batch.entries.is_empty() {
            return None;
        }
        self.held_had_turn = batch.held;
        Some(batch)
    }

    /// When [`Queue::take`] may return something that it does not at `now`, if nothing comes in.
    pub fn next_due(&self) -> Option<Instant> {
        let fresh = self.fresh_from.filter(|_| !self.fresh.is_empty());
        let held = self.due.first().map(|(due, _)| *due);
        [fresh, held].into_iter().flatten().min()
    }

    /// Reports the result of the batch that is under way; returns which events are done, in their order.
    pub fn settle(&mut self, batch: Batch, verdict: Verdict, now: Instant) -> Vec<Done> {
        let Batch { entries, held } = batch;
        let is_one = entries.len() == 1;
        let smaller = (entries.len() / 2).max(1);
        let done = match verdict {
            Verdict::Answered(answers) => {
                self.grow(held);
                self.answered(entries, answers, now)
            }
            Verdict::Rejected(why) if is_one => {
                self.grow(held);
                self.answered(entries, vec![Answer::Refused(why)], now)
            }
            Verdict::Rejected(_) => {
                self.shrink(held, smaller);
                self.put_back(entries, held, now, false);
                Vec::new()
            }
            Verdict::Failed(_) if held => {
                self.shrink(held, smaller);
                self.put_back(entries, held, now, true);
                Vec::new()
            }
            Verdict::Failed(_) => {
                // An event that fails alone may fail for ever: its user waits, and the others go on.
                self.fresh_failures = if is_one { 1 } else { self.fresh_failures.saturating_add(1) };
                self.fresh_from = Some(now + self.backoff.wait(self.fresh_failures, &mut self.random));
                self.shrink(held, smaller);
                self.put_back(entries, is_one, now, true);
                Vec::new()
            }
        };
        for done in &done {
            self.keys.remove(&done.entry.key);
        }
        done
    }

    fn take_fresh(&mut self, now: Instant) -> Batch {
        let mut batch = Batch { entries: Vec::new(), held: false };
        if self.fresh_from.is_some_and(|from| now < from) {
            return batch;
        }
        let mut room = Room { entries: self.fresh_max, bytes: BATCH_BYTES_MAX };
        while let Some(entry) = self.fresh.pop_front() {
            if let Some(held) = self.held.get_mut(&entry.user) {
                held.entries.push_back(entry);
            } else if room.take(&entry) {
                batch.entries.push(entry);
            } else {
                self.fresh.push_front(entry);
                break;
            }
        }
        batch
    }

    fn take_held(&mut self, now: Instant) -> Batch {
        let mut batch = Batch { entries: Vec::new(), held: true };
        let mut room = Room { entries: self.held_max, bytes: BATCH_BYTES_MAX };
        while let Some((due, user)) = self.due.first().copied()
            && due <= now
        {
            let held = self.held.get_mut(&user).expect("who is due is held");
            let before = batch.entries.len();
            while let Some(entry) = held.entries.pop_front_if(|entry| room.take(entry)) {
                batch.entries.push(entry);
            }
            if batch.entries.len() == before {
                break; // full
            }
            held.due = None;
            self.due.pop_first();
        }
        batch
    }

    fn answered(&mut self, entries: Vec<Entry>, answers: Vec<Answer>, now: Instant) -> Vec<Done> {
        assert_eq!(entries.len(), answers.len(), "a sink answers every event of a batch");
        let users: Vec<User> = entries.iter().map(|entry| entry.user).collect();
        let (mut done, mut again) = (Vec::with_capacity(entries.len()), Vec::new());
        for (entry, answer) in entries.into_iter().zip(answers) {
            match answer {
                Answer::Ok => done.push(Done { entry, taken: Taken::Ok, why: None }),
                Answer::Refused(why) => {
                    let taken = Taken::Refused(entry.refusal);
                    done.push(Done { entry, taken, why: Some(why) });
                }
                Answer::Again => again.push(entry),
            }
        }
        let waiting: HashSet<User> = again.iter().map(|entry| entry.user).collect();
        self.put_back(again, true, now, true);
        // Releases users whose retry has finished; later events of theirs go on at once.
        for user in users.into_iter().filter(|user| !waiting.contains(user)) {
            match self.held.get_mut(&user) {
                Some(held) if held.entries.is_empty() => drop(self.held.remove(&user)),
                Some(held) if held.due.is_none() => {
                    held.due = Some(now);
                    self.due.insert((now, user));
                }
                Some(_) | None => {}
            }
        }
        done
    }

    /// Puts events back, in their order, before all that came later.
    fn put_back(&mut self, entries: Vec<Entry>, hold: bool, now: Instant, failed: bool) {
        for mut entry in entries.into_iter().rev() {
            entry.tries = entry.tries.saturating_add(failed.into());
            if hold {
                self.hold(entry, now, failed);
            } else {
                self.fresh.push_front(entry);
            }
        }
    }

    /// The user's oldest event comes last and sets the wait for all of them: those that came after it were
    /// tried less often.
    fn hold(&mut self, entry: Entry, now: Instant, wait: bool) {
        let (user, tries) = (entry.user, entry.tries);
        let held = self.held.entry(user).or_default();
        held.entries.push_front(entry);
        let due = if wait { now + self.backoff.wait(tries, &mut self.random) } else { now };
        if let Some(of_later) = held.due.replace(due) {
            self.due.remove(&(of_later, user));
        }
        self.due.insert((due, user));
    }

    fn grow(&mut self, held: bool) {
        let max = if held { &mut self.held_max } else { &mut self.fresh_max };
        *max = (*max * 2).min(self.batch_max);
        if !held {
            self.fresh_failures = 0;
            self.fresh_from = None;
        }
    }

    fn shrink(&mut self, held: bool, to: usize) {
        *(if held { &mut self.held_max } else { &mut self.fresh_max }) = to;
    }
}

/// The room that is left in a batch.
struct Room {
    entries: usize,
    bytes: usize,
}

impl Room {
    /// Whether the event has room. The first one always has.
    fn take(&mut self, entry: &Entry) -> bool {
        let is_first = self.bytes == BATCH_BYTES_MAX;
        if self.entries == 0 || !(is_first || entry.json.len() <= self.bytes) {
            return false;
        }
        self.entries -= 1;
        self.bytes = self.bytes.saturating_sub(entry.json.len().max(1));
        true
    }
}

#[cfg(test)]
mod tests;
