//! Messages of the application that have no send-ack yet.

use std::collections::BTreeMap;
use std::time::Duration;

use shard::{Instant, Prng};

use super::addresses::spread;
use crate::config::Config;
use crate::outgoing::{Outgoing, Refused};

/// The longest wait after `busy`, in first waits.
const BUSY_TIMES_MAX: u32 = 30;

/// The messages, in the order in which they were given.
#[derive(Debug, Default)]
pub(super) struct Store {
    messages: BTreeMap<u64, Stored>,
    numbers: BTreeMap<String, u64>,
    last: u64,
    payload_bytes: usize,
    /// No message is due before that; `None` when none is due by time.
    due_at: Option<Instant>,
}

#[derive(Debug)]
struct Stored {
    name: String,
    message: Outgoing,
    /// When it is to be written; `None` for as soon as may be.
    due_at: Option<Instant>,
    busy_times: u32,
}

impl Store {
    /// Takes a message under that name; its number.
    pub fn push(&mut self, name: &str, message: Outgoing, config: &Config) -> Result<u64, Refused> {
        let payload_bytes = self.payload_bytes + message.payload.len();
        if self.messages.len() >= config.store_messages_max || payload_bytes > config.store_bytes_max {
            return Err(Refused::Full);
        }
        if self.numbers.contains_key(name) {
            return Err(Refused::SameName);
        }
        self.last += 1;
        self.payload_bytes = payload_bytes;
        self.numbers.insert(name.to_owned(), self.last);
        let stored = Stored { name: name.to_owned(), message, due_at: None, busy_times: 0 };
        self.messages.insert(self.last, stored);
        Ok(self.last)
    }

    /// Hands every message to `write` that is due and may be written, in order.
    pub fn write_due(
        &mut self,
        now: Instant,
        repeat_after: Duration,
        may_be_written: impl Fn(&Outgoing) -> bool,
        mut write: impl FnMut(&str, &Outgoing),
    ) {
        let repeat_at = now + repeat_after;
        for stored in self.messages.values_mut() {
            if stored.due_at.is_none_or(|due| due <= now) && may_be_written(&stored.message) {
                write(&stored.name, &stored.message);
                stored.due_at = Some(repeat_at);
            }
        }
        self.due_at = self.messages.values().filter_map(|stored| stored.due_at).min();
    }

    /// Notes that a message was written when it came.
    pub fn wrote(&mut self, number: u64, repeat_at: Instant) {
        if let Some(stored) = self.messages.get_mut(&number) {
            stored.due_at = Some(repeat_at);
            self.due_at = Some(self.due_at.map_or(repeat_at, |due| due.min(repeat_at)));
        }
    }

    /// Takes a message out, as its outcome is known; false when it is not there.
    pub fn remove(&mut self, name: &str) -> bool {
        let Some(stored) = self.numbers.remove(name).and_then(|number| self.messages.remove(&number)) else {
            return false;
        };
        self.payload_bytes -= stored.message.payload.len();
        true
    }

    /// The message of that name.
    pub fn get(&self, name: &str) -> Option<&Outgoing> {
        self.numbers.get(name).map(|number| &self.messages[number].message)
    }

    /// Puts off a message that the server had no room for, longer each time.
    pub fn put_off(&mut self, name: &str, now: Instant, first: Duration, prng: &mut Prng) {
        let Some(stored) = self.numbers.get(name).and_then(|number| self.messages.get_mut(number)) else {
            return;
        };
        let times = (1 << stored.busy_times.min(8)).min(BUSY_TIMES_MAX);
        stored.busy_times += 1;
        let due = now + spread(first * times, prng);
        stored.due_at = Some(due);
        self.due_at = Some(self.due_at.map_or(due, |other| other.min(due)));
    }

    /// Makes a message due as soon as it may be written.
    pub fn make_due(&mut self, name: &str) {
        if let Some(stored) = self.numbers.get(name).and_then(|number| self.messages.get_mut(number)) {
            stored.due_at = None;
        }
    }

    /// The connection is gone: all is due again, in order.
    pub fn disconnect(&mut self) {
        self.messages.values_mut().for_each(|stored| stored.due_at = None);
        self.due_at = None;
    }

    /// When a message may be due by time.
    pub fn due_at(&self) -> Option<Instant> {
        self.due_at
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }
}
