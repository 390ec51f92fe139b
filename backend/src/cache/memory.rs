//! The cache of a single process.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache as Moka;

use super::{Hold, HoldAsk, RATE_TIME, available_key, held_key, rate_key};
use crate::clock::Clock;

/// The most entries of a pool; the least used go first.
const ENTRIES_MAX: u64 = 250_000;

/// The purpose of a pool: entries of one kind of caller evict none of another kind.
#[derive(Clone, Copy)]
enum Kind {
    /// Codes, logins and their counts: they cannot be rebuilt.
    Logins,
    /// Coins set aside, answers to gifts, and counts of them.
    Gifts,
    /// Copies of rows.
    Rows,
}

impl Kind {
    fn of(key: &str) -> Self {
        let starts = |names: &[&str]| names.iter().any(|name| key.starts_with(name));
        match key {
            _ if starts(&["held:", "hold_", "available:"]) => Self::Gifts,
            _ if starts(&["login:"]) => Self::Rows,
            _ if starts(&["login", "im_tokens:", "orders:", "rooms_opened:"]) => Self::Logins,
            _ => Self::Rows,
        }
    }
}

/// Texts with a life of their own.
pub struct Memory {
    pools: [Moka<String, Entry>; 3],
    clock: Clock,
    /// Held while an entry is read and written in one step.
    step: Mutex<()>,
}

#[derive(Clone)]
struct Entry {
    text: String,
    ttl: Duration,
    ends_ms: i64,
}

/// Lets moka drop what has ended; [`Memory::get`] goes by the clock, which tests may move.
struct Life;

impl Expiry<String, Entry> for Life {
    fn expire_after_create(&self, _key: &String, entry: &Entry, _at: Instant) -> Option<Duration> {
        Some(entry.ttl)
    }

    fn expire_after_update(
        &self,
        _: &String,
        entry: &Entry,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.ttl)
    }
}

impl Memory {
    pub fn new(clock: Clock) -> Self {
        let pool = || Moka::builder().max_capacity(ENTRIES_MAX).expire_after(Life).build();
        Self { pools: [pool(), pool(), pool()], clock, step: Mutex::default() }
    }

    pub fn get(&self, key: &str) -> Option<String> {
        self.entry(key).map(|entry| entry.text)
    }

    pub fn set(&self, key: &str, text: &str, ttl: Duration) {
        let ends_ms = self.clock.now_ms() + ttl.as_millis() as i64;
        self.pool(key).insert(key.to_owned(), Entry { text: text.to_owned(), ttl, ends_ms });
    }

    pub fn set_if_absent(&self, key: &str, text: &str, ttl: Duration) -> Option<String> {
        let _step = self.step();
        let there = self.get(key);
        if there.is_none() {
            self.set(key, text, ttl);
        }
        there
    }

    pub fn delete(&self, key: &str) {
        let _step = self.step();
        self.pool(key).invalidate(key);
    }

    pub fn take_if(&self, key: &str, text: &str) -> bool {
        let _step = self.step();
        let has = self.get(key).is_some_and(|known| known == text);
        if has {
            self.pool(key).invalidate(key);
        }
        has
    }

    pub fn count(&self, key: &str, by: u32, window: Duration) -> i64 {
        let _step = self.step();
        let entry = self.entry(key);
        let count = entry.as_ref().and_then(|entry| entry.text.parse().ok()).unwrap_or(0) + i64::from(by);
        let left = entry.map_or(window, |entry| {
            Duration::from_millis((entry.ends_ms - self.clock.now_ms()).max(1) as u64)
        });
        self.set(key, &count.to_string(), left);
        count
    }

    pub fn swap(&self, key: &str, text: &str, other: &str, ttl: Duration) {
        let _step = self.step();
        if self.get(key).is_some_and(|known| known == text) {
            self.set(key, other, ttl);
        }
    }

    pub fn hold(&self, ask: &HoldAsk) -> Hold {
        let HoldAsk { user_id, id, amount, ttl, rate_max } = ask;
        if let Some(most) = rate_max
            && self.count(&rate_key(*user_id), 1, RATE_TIME) > i64::from(*most)
        {
            return Hold::TooMany;
        }
        let (available, held) = (available_key(*user_id), held_key(*user_id, id));
        let _step = self.step();
        if self.get(&held).is_some() {
            return Hold::Repeat;
        }
        let Some(entry) = self.entry(&available) else { return Hold::Unknown };
        let Ok(has) = entry.text.parse::<i64>() else { return Hold::Unknown };
        if has < *amount {
            return Hold::Short;
        }
        let left = Duration::from_millis((entry.ends_ms - self.clock.now_ms()).max(1) as u64);
        self.set(&available, &(has - amount).to_string(), left);
        self.set(&held, "1", *ttl);
        Hold::Held
    }

    fn entry(&self, key: &str) -> Option<Entry> {
        self.pool(key).get(key).filter(|entry| entry.ends_ms > self.clock.now_ms())
    }

    fn pool(&self, key: &str) -> &Moka<String, Entry> {
        &self.pools[Kind::of(key) as usize]
    }

    fn step(&self) -> std::sync::MutexGuard<'_, ()> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gifts_and_rows_do_not_throw_out_codes() {
        let memory = Memory::new(Clock::default());
        let minute = Duration::from_secs(60);
        let codes: Vec<String> = (0..40).map(|phone| format!("login_code:{phone}")).collect();
        codes.iter().for_each(|code| memory.set(code, "123456", minute));
        for number in 0..2 * ENTRIES_MAX {
            memory.set(&format!("held:1:{number}"), "1", minute);
            memory.set(&format!("gift:{number}"), "null", minute);
        }
        memory.pools.iter().for_each(Moka::run_pending_tasks);
        assert!(codes.iter().all(|code| memory.get(code).is_some()));
        assert!(memory.pools.iter().all(|pool| pool.entry_count() <= ENTRIES_MAX));
    }
}
