//! The durable queue: Redis Streams, or a table of the database. A pushed job is taken at least once, until
//! it is done.
//!
//! A job that is taken and not done in time is taken again; after [`TRIES_MAX`] times it goes to the topic's
//! dead letters. Jobs of one topic come roughly in the order in which they were due.

mod redis;
mod table;

use std::time::Duration;

pub use self::redis::RedisQueue;
use crate::clock::Clock;
use crate::config::Config;
use crate::connection::Servers;
use crate::db::Db;
use crate::error::Error;
pub use table::TableQueue;

/// How long a job is left to the process that took it.
pub const TAKE_TIME: Duration = Duration::from_secs(30);
/// How often a job is taken before it is a dead letter.
pub const TRIES_MAX: u32 = 16;

/// What a job is about. Each topic is a queue of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Topic {
    /// Gifts on their way to the ledger.
    Gift,
    /// Cache keys that are deleted a second time.
    CacheDelete,
    /// Orders that expire.
    OrderExpiry,
    /// IM tokens that gateways are to refuse.
    Revocation,
}

impl Topic {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();
    /// All of them, in their order.
    pub const ALL: [Self; 4] = [Self::Gift, Self::CacheDelete, Self::OrderExpiry, Self::Revocation];

    /// Its name in the database and in Redis.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gift => "gift",
            Self::CacheDelete => "cache_delete",
            Self::OrderExpiry => "order_expiry",
            Self::Revocation => "revocation",
        }
    }
}

/// Names a job that was taken.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum JobId {
    /// A row.
    Row(i64),
    /// An entry of a stream.
    Entry(String),
}

/// A job that was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Job {
    /// Which.
    pub id: JobId,
    /// What was pushed.
    pub payload: String,
    /// How often it was taken, this time included.
    pub tries: u32,
}

/// The interface of every queue. `tests/scenarios/queue.rs` tests each.
#[allow(async_fn_in_trait, reason = "its callers name the type")]
pub trait Queue {
    /// Adds jobs that are due after `delay`. Once this returns, they outlive this process.
    async fn push(&self, topic: Topic, payloads: &[String], delay: Duration) -> Result<(), Error>;

    /// Takes up to `most` jobs that are due; waits up to `wait` for the first. A call that is dropped may
    /// have taken jobs; these come again, as those of a process that has died.
    async fn take(&self, topic: Topic, most: u32, wait: Duration) -> Result<Vec<Job>, Error>;

    /// Ends jobs for good.
    async fn done(&self, topic: Topic, ids: &[JobId]) -> Result<(), Error>;

    /// How many jobs wait or are taken, and how many dead letters there are.
    async fn count(&self, topic: Topic) -> Result<(u64, u64), Error>;
}

/// The queue that the configuration names.
pub enum AnyQueue {
    /// A table.
    Table(TableQueue),
    /// Redis Streams.
    Redis(Box<RedisQueue>),
}

impl AnyQueue {
    /// The queue that the configuration names.
    pub async fn open(
        config: &Config,
        servers: Option<&Servers>,
        db: &Db,
        clock: Clock,
    ) -> Result<Self, Error> {
        Self::open_with(config, servers, db, clock, TAKE_TIME)
    }

    /// The same with a `take_time`: how long a job is left to the process that took it.
    pub fn open_with(
        config: &Config,
        servers: Option<&Servers>,
        db: &Db,
        clock: Clock,
        take_time: Duration,
    ) -> Result<Self, Error> {
        Ok(match servers {
            None => Self::Table(TableQueue::new(db, clock, take_time)),
            Some(servers) => Self::Redis(Box::new(RedisQueue::open(config, servers, clock, take_time)?)),
        })
    }
}

impl Queue for AnyQueue {
    async fn push(&self, topic: Topic, payloads: &[String], delay: Duration) -> Result<(), Error> {
        match self {
            Self::Table(queue) => queue.push(topic, payloads, delay).await,
            Self::Redis(queue) => queue.push(topic, payloads, delay).await,
        }
    }

    async fn take(&self, topic: Topic, most: u32, wait: Duration) -> Result<Vec<Job>, Error> {
        match self {
            Self::Table(queue) => queue.take(topic, most, wait).await,
            Self::Redis(queue) => queue.take(topic, most, wait).await,
        }
    }

    async fn done(&self, topic: Topic, ids: &[JobId]) -> Result<(), Error> {
        match self {
            Self::Table(queue) => queue.done(topic, ids).await,
            Self::Redis(queue) => queue.done(topic, ids).await,
        }
    }

    async fn count(&self, topic: Topic) -> Result<(u64, u64), Error> {
        match self {
            Self::Table(queue) => queue.count(topic).await,
            Self::Redis(queue) => queue.count(topic).await,
        }
    }
}
