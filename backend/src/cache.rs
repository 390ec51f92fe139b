//! The cache: Redis, or in the process. All of it can be built anew from the database.
//!
//! Values are JSON text. Chance varies a key's life, so that values that were cached together do not expire
//! together.

mod flight;
mod memory;
mod redis;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Clock;
use crate::config::Config;
use crate::connection::Servers;
use crate::error::Error;
use crate::random;
use flight::Flights;

/// How long a missing value is remembered.
const NONE_TTL: Duration = Duration::from_secs(5);
/// The period in which [`HoldAsk::rate_max`] counts.
const RATE_TIME: Duration = Duration::from_secs(1);
/// How long it may take to find out how many coins a user has.
const FILL_TIME: Duration = Duration::from_secs(5);

/// The cache. See the module's page.
pub struct Cache {
    store: Store,
    flights: Flights,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
}

enum Store {
    Memory(memory::Memory),
    Redis(redis::Redis),
}

/// The result of [`Cache::hold`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hold {
    /// The amount is set aside.
    Held,
    /// This id has its amount set aside already.
    Repeat,
    /// There is not enough.
    Short,
    /// The user's coins are not known: call [`Cache::fill_available`] first.
    Unknown,
    /// The user has asked too often within a second.
    TooMany,
}

/// What is to be set aside.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HoldAsk {
    /// The user whose coins they are.
    pub user_id: i64,
    /// The key of the gift.
    pub id: String,
    /// How many coins.
    pub amount: i64,
    /// How long it is remembered that this was set aside.
    pub ttl: Duration,
    /// How many a second one user may ask for, if that counts.
    pub rate_max: Option<u32>,
}

impl Cache {
    /// Connects to Redis, if there is one. If it is away, this does not fail, but each command does until it
    /// is back.
    pub async fn open(config: &Config, servers: Option<&Servers>, clock: Clock) -> Result<Self, Error> {
        let store = match servers {
            None => Store::Memory(memory::Memory::new(clock)),
            Some(servers) => Store::Redis(redis::Redis::open(servers, &config.prefix).await?),
        };
        Ok(Self { store, flights: Flights::default(), counts: Counts::default() })
    }

    /// Reads through: the cached value, or the result of `load`, which is cached for `ttl` and up to a
    /// quarter more. A missing value is cached too, for a short time; a value that was deleted while it was
    /// loaded is not. However many ask at once, `load` runs once in this process. Without a cache, reads are
    /// only slower.
    pub async fn read<T, F>(
        &self,
        key: &str,
        ttl: Duration,
        load: impl FnOnce() -> F,
    ) -> Result<Option<T>, Error>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<Option<T>, Error>>,
    {
        // A text that does not parse is from another version of this program.
        if let Ok(Some(text)) = self.get(key).await
            && let Ok(value) = serde_json::from_str(&text)
        {
            self.counts.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(value);
        }
        self.counts.misses.fetch_add(1, Ordering::Relaxed);
        let text = self
            .flights
            .join(key, || async {
                let era = self.flights.era(key);
                let value = load().await?;
                let text = serde_json::to_string(&value)?;
                let ttl = if value.is_some() { spread(ttl) } else { NONE_TTL };
                if self.flights.era(key) == era {
                    let _ = self.set(key, &text, ttl).await; // without the cache, the next one loads again
                }
                Ok(text)
            })
            .await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Reads many through: `load` gets the indexes of `keys` that are not cached, and returns one value for
    /// each of these.
    pub async fn read_many<T, F>(
        &self,
        keys: &[String],
        ttl: Duration,
        load: impl FnOnce(Vec<usize>) -> F,
    ) -> Result<Vec<Option<T>>, Error>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<Vec<Option<T>>, Error>>,
    {
        let cached = self.get_many(keys).await.unwrap_or_else(|_| vec![None; keys.len()]);
        let mut values = Vec::with_capacity(keys.len());
        let mut missing = Vec::new();
        for (index, text) in cached.into_iter().enumerate() {
            match text.and_then(|text| serde_json::from_str(&text).ok()) {
                Some(value) => values.push(value),
                None => {
                    values.push(None);
                    missing.push(index);
                }
            }
        }
        self.counts.hits.fetch_add((keys.len() - missing.len()) as u64, Ordering::Relaxed);
        if missing.is_empty() {
            return Ok(values);
        }
        self.counts.misses.fetch_add(missing.len() as u64, Ordering::Relaxed);
        let eras: Vec<u64> = missing.iter().map(|index| self.flights.era(&keys[*index])).collect();
        let loaded = load(missing.clone()).await?;
        if loaded.len() != missing.len() {
            return Err(Error::internal("a load answered fewer or more values than were asked for"));
        }
        let mut fills = Vec::with_capacity(missing.len());
        for ((index, era), value) in missing.into_iter().zip(eras).zip(loaded) {
            let key = &keys[index];
            if self.flights.era(key) == era {
                let ttl = if value.is_some() { spread(ttl) } else { NONE_TTL };
                fills.push((key.as_str(), serde_json::to_string(&value)?, ttl));
            }
            values[index] = value;
        }
        let _ = self.set_many(&fills).await; // without the cache, the next one loads again
        Ok(values)
    }

    /// The text under a key.
    pub async fn get(&self, key: &str) -> Result<Option<String>, Error> {
        match &self.store {
            Store::Memory(memory) => Ok(memory.get(key)),
            Store::Redis(redis) => redis.get(key).await,
        }
    }

    /// The texts under several keys.
    pub async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<String>>, Error> {
        match &self.store {
            Store::Memory(memory) => Ok(keys.iter().map(|key| memory.get(key)).collect()),
            Store::Redis(redis) => redis.get_many(keys).await,
        }
    }

    /// Puts a text under a key.
    pub async fn set(&self, key: &str, text: &str, ttl: Duration) -> Result<(), Error> {
        match &self.store {
            Store::Memory(memory) => memory.set(key, text, ttl),
            Store::Redis(redis) => redis.set(key, text, ttl).await?,
        }
        Ok(())
    }

    /// Puts a text under a key that has none; otherwise returns its text.
    pub async fn set_if_absent(&self, key: &str, text: &str, ttl: Duration) -> Result<Option<String>, Error> {
        match &self.store {
            Store::Memory(memory) => Ok(memory.set_if_absent(key, text, ttl)),
            Store::Redis(redis) => redis.set_if_absent(key, text, ttl).await,
        }
    }

    /// Puts texts under keys, in one round trip.
    pub async fn set_many(&self, entries: &[(&str, String, Duration)]) -> Result<(), Error> {
        match &self.store {
            Store::Memory(memory) => entries.iter().for_each(|(key, text, ttl)| memory.set(key, text, *ttl)),
            Store::Redis(redis) => redis.set_many(entries).await?,
        }
        Ok(())
    }

    /// How many reads found their value in the cache, and how many did not, since the start.
    pub fn counts(&self) -> (u64, u64) {
        (self.counts.hits.load(Ordering::Relaxed), self.counts.misses.load(Ordering::Relaxed))
    }

    /// Removes a key.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        self.flights.forget(key);
        match &self.store {
            Store::Memory(memory) => memory.delete(key),
            Store::Redis(redis) => redis.delete(key).await?,
        }
        Ok(())
    }

    /// Removes keys, in one round trip.
    pub async fn delete_many(&self, keys: &[String]) -> Result<(), Error> {
        for key in keys {
            self.flights.forget(key);
        }
        match &self.store {
            Store::Memory(memory) => keys.iter().for_each(|key| memory.delete(key)),
            Store::Redis(redis) => redis.delete_many(keys).await?,
        }
        Ok(())
    }

    /// Removes a key if it has this text. Returns whether it had. Of several who try, one succeeds.
    pub async fn take_if(&self, key: &str, text: &str) -> Result<bool, Error> {
        match &self.store {
            Store::Memory(memory) => Ok(memory.take_if(key, text)),
            Store::Redis(redis) => redis.take_if(key, text).await,
        }
    }

    /// Counts one more under a key, which ends `window` after its first. Returns the count.
    pub async fn count(&self, key: &str, window: Duration) -> Result<i64, Error> {
        self.count_many(key, 1, window).await
    }

    /// Counts `by` more, which is above 0.
    pub async fn count_many(&self, key: &str, by: u32, window: Duration) -> Result<i64, Error> {
        match &self.store {
            Store::Memory(memory) => Ok(memory.count(key, by, window)),
            Store::Redis(redis) => redis.count(key, by, window).await,
        }
    }

    /// Sets an amount of a user's available coins aside, in one atomic step. In Redis, many who ask at once
    /// are one command.
    pub async fn hold(&self, ask: HoldAsk) -> Result<Hold, Error> {
        match &self.store {
            Store::Memory(memory) => Ok(memory.hold(&ask)),
            Store::Redis(redis) => redis.hold(ask).await,
        }
    }

    /// Counts a gift of a user for the second, as [`Cache::hold`] does. Returns the count.
    pub async fn count_gift(&self, user_id: i64) -> Result<i64, Error> {
        self.count(&rate_key(user_id), RATE_TIME).await
    }

    /// Finds out how many coins a user has, unless that is known, once however many ask. A value that was
    /// read before the user was forgotten is dropped: then [`Cache::hold`] returns [`Hold::Unknown`] again.
    pub async fn fill_available<F>(
        &self,
        user_id: i64,
        ttl: Duration,
        load: impl FnOnce() -> F,
    ) -> Result<(), Error>
    where
        F: Future<Output = Result<i64, Error>>,
    {
        let key = available_key(user_id);
        let fill = || async {
            let mark = format!("?{}", random::hex::<8>());
            self.set_if_absent(&key, &mark, FILL_TIME).await?;
            let amount = load().await?.to_string();
            match &self.store {
                Store::Memory(memory) => memory.swap(&key, &mark, &amount, spread(ttl)),
                Store::Redis(redis) => redis.swap(&key, &mark, &amount, spread(ttl)).await?,
            }
            Ok(String::new())
        };
        self.flights.join(&format!("fill:{user_id}"), fill).await.map(|_| ())
    }

    /// Forgets how many coins users have: the next [`Cache::hold`] reads it again.
    pub async fn forget_available(&self, user_ids: &[i64]) -> Result<(), Error> {
        let keys: Vec<String> = user_ids.iter().map(|user_id| available_key(*user_id)).collect();
        self.delete_many(&keys).await
    }
}

/// The key under which [`Cache::hold`] remembers `id`. The process that ends the gift may put its answer
/// there.
pub fn held_key(user_id: i64, id: &str) -> String {
    format!("held:{user_id}:{id}")
}

/// The key of a user's rate in a second.
fn rate_key(user_id: i64) -> String {
    format!("hold_rate:{user_id}")
}

fn available_key(user_id: i64) -> String {
    format!("available:{user_id}")
}

/// Adds up to a quarter.
fn spread(ttl: Duration) -> Duration {
    let quarter = (ttl.as_millis() as u64 / 4).max(1);
    ttl + Duration::from_millis(random::below(quarter))
}
