//! What every handler and worker shares.

use std::future::Future;
use std::sync::Arc;

use sqlx::AnyPool;

use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::Config;
use crate::db::Db;
use crate::error::Error;
use crate::outbox::Outbox;
use crate::push::Push;
use crate::queue::AnyQueue;

/// The service's state. One for each process, behind an `Arc`.
pub struct App {
    /// What the operator has set.
    pub config: Config,
    /// What time it is.
    pub clock: Clock,
    /// The database.
    pub db: Db,
    /// The cache.
    pub cache: Cache,
    /// The durable queue.
    pub queue: AnyQueue,
    /// The way to clients.
    pub push: Push,
    /// Messages to clients that are committed.
    pub outbox: Arc<Outbox>,
}

impl App {
    /// Opens database, cache and queue, and brings the tables up to date.
    pub async fn open(config: Config, clock: Clock) -> Result<Arc<Self>, Error> {
        let db = Db::open(&config).await?;
        crate::db::migrate(&db).await?;
        let cache = Cache::open(&config, clock.clone()).await?;
        let queue = AnyQueue::open(&config, &db, clock.clone()).await?;
        let push = Push::new(&config)?;
        Ok(Arc::new(Self { config, clock, db, cache, queue, push, outbox: Arc::new(Outbox::new()) }))
    }

    /// Writes what is cached under `keys`, and deletes these.
    pub async fn write_through<T>(
        &self,
        keys: &[String],
        write: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let written = write.await?;
        for key in keys {
            self.cache.delete(key).await?;
        }
        Ok(written)
    }

    /// Where a user's own things are read.
    pub async fn reader(&self, _user_id: i64) -> &AnyPool {
        self.db.primary()
    }

    /// Says that a user has written.
    pub async fn wrote(&self, _user_id: i64) {}
}
