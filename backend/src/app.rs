//! What every handler and worker shares.

use std::sync::Arc;

use crate::cache::Cache;
use crate::clock::Clock;
use crate::config::Config;
use crate::db::Db;
use crate::error::Error;
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
}

impl App {
    /// Opens database, cache and queue, and brings the tables up to date.
    pub async fn open(config: Config, clock: Clock) -> Result<Arc<Self>, Error> {
        let db = Db::open(&config).await?;
        crate::db::migrate(&db).await?;
        let cache = Cache::open(&config, clock.clone()).await?;
        let queue = AnyQueue::open(&config, &db, clock.clone()).await?;
        Ok(Arc::new(Self { config, clock, db, cache, queue }))
    }
}
