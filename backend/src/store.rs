//! The store: the database behind its cache, the durable queue, and the configuration of both.

pub mod second_delete;

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use logs::warn;
use serde::Serialize;
use serde::de::DeserializeOwned;
use traces::{Exporter, Traces};

use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::Config;
use crate::connection::Servers;
use crate::db::{Db, Pool};
use crate::error::Error;
use crate::migrations::migrate;
use crate::queue::{AnyQueue, Job, Queue, Topic};

/// How long a database server may take over a statement: longer than the wait for a lock there (50 s by
/// default).
const STATEMENT_TIME: Duration = Duration::from_secs(60);

/// Where this process keeps its state. One for each process, behind an `Arc`.
pub struct Store {
    /// The operator's settings.
    pub config: Config,
    /// What time it is.
    pub clock: Clock,
    /// The database.
    pub db: Db,
    /// Where Redis is, if it is used.
    pub redis: Option<Servers>,
    /// The cache.
    pub cache: Cache,
    /// The durable queue.
    pub queue: AnyQueue,
    /// Where spans go.
    pub traces: Traces,
    /// Sends them, until the end.
    exporter: Mutex<Option<Exporter>>,
    /// Until when all reads go to the primary, because the mark of a write could not be stored.
    unmarked_until_ms: AtomicI64,
}

impl Store {
    /// Opens database, cache and queue, and brings the tables up to date.
    pub async fn open(config: Config, clock: Clock) -> Result<Self, Error> {
        let db = Db::open(&config).await?;
        migrate(&db).await?;
        db.limit_answers(STATEMENT_TIME);
        let redis = Servers::open(&config)?;
        let cache = Cache::open(&config, redis.as_ref(), clock.clone()).await?;
        let queue = AnyQueue::open(&config, redis.as_ref(), &db, clock.clone()).await?;
        let started = Traces::start(&config.trace);
        let (traces, exporter) = started.map_err(|why| Error::internal(format!("trace.otlp_url: {why}")))?;
        let (exporter, unmarked_until_ms) = (Mutex::new(exporter), AtomicI64::new(0));
        Ok(Self { config, clock, db, redis, cache, queue, traces, exporter, unmarked_until_ms })
    }

    /// Sends the spans that wait, for `deadline` at most.
    pub async fn end_traces(&self, deadline: Duration) {
        let exporter = self.exporter.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(exporter) = exporter {
            exporter.finish(deadline).await;
        }
    }

    /// Writes rows that are cached under `keys`, and deletes these keys from the cache twice: after the
    /// write, and again after a delay, because a reader that saw the old row may have cached it meanwhile.
    /// The second delete is in the durable queue before the write begins, so it comes even if this process
    /// ends in between.
    ///
    /// # Errors
    /// Those of `write`, and 503 without a write if the queue is away.
    pub async fn write_through<T>(
        &self,
        keys: &[String],
        write: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.delete_again(keys).await?;
        let begun_ms = self.clock.now_ms();
        let written = write.await?;
        self.changed(keys).await;
        if self.clock.now_ms() - begun_ms > self.second_delete().as_millis() as i64 / 2 {
            // A slow write may end after its second delete.
            self.delete_again(keys).await?;
        }
        Ok(written)
    }

    /// Deletes the cache entries of `keys`, whose rows have just been written, and has them read from the
    /// primary for a while.
    pub async fn changed(&self, keys: &[String]) {
        self.mark(keys).await;
        if let Err(error) = self.cache.delete_many(keys).await {
            warn!(%error, "cannot delete a cache entry: it is out of date until its second delete or its expiry");
        }
    }

    /// Marks the rows under this name as just written, so that they are read from the primary for a while.
    pub async fn wrote(&self, name: &str) {
        self.mark(&[name.to_owned()]).await;
    }

    /// Where rows under this name are read: from the primary after a write, or if that is not known; else
    /// from a replica.
    pub async fn reader(&self, name: &str) -> &Pool {
        match self.is_marked(name).await {
            true => self.db.primary(),
            false => self.db.replica(),
        }
    }

    /// Reads through the cache; on a miss from the [reader](Self::reader) of that key, because a replica may
    /// not have the latest write yet, and its old row would be cached.
    pub async fn read<T, F>(
        &self,
        key: &str,
        ttl: Duration,
        load: impl FnOnce(Pool) -> F,
    ) -> Result<Option<T>, Error>
    where
        T: Serialize + DeserializeOwned,
        F: Future<Output = Result<Option<T>, Error>>,
    {
        self.cache.read(key, ttl, || async { load(self.reader(key).await.clone()).await }).await
    }

    /// Takes jobs whose work needs the database. While the database is away it takes none, since taking a job
    /// counts as a try.
    pub async fn take_for_database(
        &self,
        topic: Topic,
        most: u32,
        wait: Duration,
    ) -> Result<Vec<Job>, Error> {
        match self.db.is_up().await {
            true => self.queue.take(topic, most, wait).await,
            false => Err(Error::unavailable("database_unavailable", "the database does not answer")),
        }
    }

    /// Remembers for a while, in all processes, that these were written.
    async fn mark(&self, names: &[String]) {
        if self.config.replicas.is_empty() {
            return;
        }
        let keys: Vec<String> = names.iter().map(|name| wrote_key(name)).collect();
        let marks: Vec<_> = keys.iter().map(|key| (key.as_str(), "1".into(), self.wrote_time())).collect();
        if let Err(error) = self.cache.set_many(&marks).await {
            warn!(%error, "cannot mark a write in the cache: all reads go to the primary for a while");
            let until_ms = self.clock.now_ms() + self.wrote_time().as_millis() as i64;
            self.unmarked_until_ms.fetch_max(until_ms, Ordering::Relaxed);
        }
    }

    /// Whether it was written lately. Without replicas that does not matter, and the cache is not asked.
    async fn is_marked(&self, name: &str) -> bool {
        if self.config.replicas.is_empty()
            || self.clock.now_ms() < self.unmarked_until_ms.load(Ordering::Relaxed)
        {
            return true;
        }
        !matches!(self.cache.get(&wrote_key(name)).await, Ok(None))
    }

    async fn delete_again(&self, keys: &[String]) -> Result<(), Error> {
        let payload = serde_json::to_string(keys)?;
        self.queue.push(Topic::CacheDelete, &[payload], self.second_delete()).await
    }

    /// A row read from a replica may be as old as the replica's allowed lag.
    fn second_delete(&self) -> Duration {
        let lag_ms = if self.config.replicas.is_empty() { 0 } else { self.config.replica_lag_ms_max };
        Duration::from_millis(u64::from(self.config.second_delete_ms) + u64::from(lag_ms))
    }

    fn wrote_time(&self) -> Duration {
        Duration::from_millis(2 * u64::from(self.config.replica_lag_ms_max))
    }
}

/// The cache key of the mark of a write.
fn wrote_key(name: &str) -> String {
    format!("wrote:{name}")
}
