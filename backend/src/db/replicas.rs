//! Replicas, and how far each is behind.
//!
//! The primary writes the time into one row every half second; the value in a replica shows its lag, whatever
//! kind of replication it is. A replica that does not answer, or is too far behind, is not read from.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use logs::{info, warn};
use sqlx::AssertSqlSafe;

use super::Pool;
use crate::clock::Clock;

const BEAT: Duration = Duration::from_millis(500);

/// All replicas.
pub struct Replicas {
    replicas: Vec<Replica>,
    next: AtomicUsize,
    is_primary_up: AtomicBool,
}

struct Replica {
    pool: Pool,
    is_good: AtomicBool,
    /// Negative if it does not answer.
    lag_ms: AtomicI64,
}

impl Replicas {
    /// No replica is good before its first check.
    pub fn new(pools: Vec<Pool>) -> Self {
        let replicas = pools
            .into_iter()
            .map(|pool| Replica { pool, is_good: AtomicBool::new(false), lag_ms: AtomicI64::new(-1) })
            .collect();
        Self { replicas, next: AtomicUsize::new(0), is_primary_up: AtomicBool::new(true) }
    }

    /// A good replica, each in turn.
    pub fn pick(&self) -> Option<&Pool> {
        let count = self.replicas.len();
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let turns = (0..count).map(|turn| &self.replicas[(first.wrapping_add(turn)) % count]);
        turns.into_iter().find(|replica| replica.is_good.load(Ordering::Relaxed)).map(|replica| &replica.pool)
    }

    /// For each: whether it is read from, and how far behind it is; `None` if it does not answer.
    pub fn lags_ms(&self) -> impl Iterator<Item = (bool, Option<i64>)> {
        self.replicas.iter().map(|replica| {
            let lag_ms = replica.lag_ms.load(Ordering::Relaxed);
            (replica.is_good.load(Ordering::Relaxed), (lag_ms >= 0).then_some(lag_ms))
        })
    }

    /// Checks again and again, until dropped.
    pub async fn watch(&self, primary: &Pool, lag_ms_max: u32, clock: &Clock) {
        if self.replicas.is_empty() {
            return std::future::pending().await;
        }
        loop {
            self.beat(primary, lag_ms_max, clock).await;
            tokio::time::sleep(BEAT).await;
        }
    }

    async fn beat(&self, primary: &Pool, lag_ms_max: u32, clock: &Clock) {
        let now_ms = clock.now_ms();
        let write = sqlx::query("UPDATE t_heartbeat SET at_ms = ? WHERE id = 1").bind(now_ms);
        let written = write.execute(primary).await;
        let is_up = written.is_ok();
        if self.is_primary_up.swap(is_up, Ordering::Relaxed) != is_up {
            match written {
                Ok(_) => info!("the primary has a heartbeat again"),
                Err(error) => warn!(%error, "the primary's heartbeat failed"),
            }
        }
        for (index, replica) in self.replicas.iter().enumerate() {
            let lag_ms = lag_ms(&replica.pool, clock).await;
            let known_ms = lag_ms.as_ref().map_or(-1, |lag_ms| (*lag_ms).max(0));
            replica.lag_ms.store(known_ms, Ordering::Relaxed);
            // While the primary takes no writes, a replica does not get older.
            let was_good = replica.is_good.load(Ordering::Relaxed);
            let is_recent = |lag_ms: &i64| if is_up { *lag_ms <= i64::from(lag_ms_max) } else { was_good };
            let is_good = lag_ms.as_ref().is_ok_and(is_recent);
            if replica.is_good.swap(is_good, Ordering::Relaxed) != is_good {
                match lag_ms {
                    Ok(lag_ms) => info!(replica = index, lag_ms, is_good, "replica"),
                    Err(error) => warn!(replica = index, %error, "replica"),
                }
            }
        }
    }

    /// Ends all connections.
    pub async fn close(&self) {
        for replica in &self.replicas {
            replica.pool.close().await;
        }
    }
}

/// An upper bound: the primary's last heartbeat may be half a second old.
async fn lag_ms(replica: &Pool, clock: &Clock) -> Result<i64, sqlx::Error> {
    let read = sqlx::query_scalar(AssertSqlSafe("SELECT at_ms FROM t_heartbeat WHERE id = 1"));
    let at_ms: i64 = tokio::time::timeout(BEAT, read.fetch_one(replica))
        .await
        .map_err(|_| sqlx::Error::PoolTimedOut)??;
    Ok(clock.now_ms() - at_ms)
}
