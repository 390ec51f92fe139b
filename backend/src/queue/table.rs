//! The queue as a table. It is in the same database as the business data, so a job can end in the transaction
//! that did its work.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Job, JobId, Queue, TRIES_MAX, Topic};
use crate::clock::Clock;
use crate::db::{Db, Dialect, Pool, Tx, insist};
use crate::error::Error;
use crate::tables::job;

/// How often jobs are looked for that another process pushed, or that have become due.
const LOOK: Duration = Duration::from_millis(50);

/// See the module's page.
pub struct TableQueue {
    pool: Pool,
    /// For reads, which must not wait for a writer.
    reader: Pool,
    dialect: Dialect,
    clock: Clock,
    take_time: Duration,
    pushed: Notify,
}

impl TableQueue {
    /// The queue in `t_job`. A job is left for `take_time` to the process that took it.
    pub fn new(db: &Db, clock: Clock, take_time: Duration) -> Self {
        let (pool, reader) = (db.writer().clone(), db.primary().clone());
        Self { pool, reader, dialect: db.dialect(), clock, take_time, pushed: Notify::new() }
    }

    /// Ends jobs in the transaction `tx`.
    pub async fn done_with(&self, tx: &mut Tx, ids: &[JobId]) -> Result<(), Error> {
        job::delete(tx, &rows(ids)).await
    }

    async fn begin(&self) -> Result<Tx, Error> {
        Tx::begin(&self.pool, self.dialect).await
    }

    async fn take_due(&self, topic: Topic, most: u32) -> Result<Vec<Job>, Error> {
        let now_ms = self.clock.now_ms();
        let again_ms = now_ms + self.take_time.as_millis() as i64;
        // Most reads find nothing, and then no writer is blocked.
        if !job::is_due(&self.reader, topic.name(), now_ms).await? {
            return Ok(Vec::new());
        }
        insist(|| async {
            let mut tx = self.begin().await?;
            let taken = job::take(&mut tx, self.dialect, topic.name(), now_ms, again_ms, most).await?;
            let mut jobs = Vec::with_capacity(taken.len());
            for row in taken {
                let tries = row.tries as u32;
                if tries > TRIES_MAX {
                    job::move_to(&mut tx, row.id, &dead(topic)).await?;
                    continue;
                }
                jobs.push(Job { id: JobId::Row(row.id), payload: row.payload, tries });
            }
            tx.commit().await?;
            Ok(jobs)
        })
        .await
    }
}

impl Queue for TableQueue {
    async fn push(&self, topic: Topic, payloads: &[String], delay: Duration) -> Result<(), Error> {
        let due_ms = self.clock.now_ms() + delay.as_millis() as i64;
        insist(|| async {
            let mut tx = self.begin().await?;
            job::insert(&mut tx, topic.name(), payloads, due_ms).await?;
            tx.commit().await
        })
        .await?;
        self.pushed.notify_waiters();
        Ok(())
    }

    async fn take(&self, topic: Topic, most: u32, wait: Duration) -> Result<Vec<Job>, Error> {
        let deadline = Instant::now() + wait;
        loop {
            let pushed = self.pushed.notified();
            let jobs = self.take_due(topic, most).await?;
            if !jobs.is_empty() || Instant::now() >= deadline {
                return Ok(jobs);
            }
            tokio::select! {
                biased; // either is a reason to look again
                () = pushed => {}
                () = tokio::time::sleep_until(deadline.min(Instant::now() + LOOK)) => {}
            }
        }
    }

    async fn done(&self, _topic: Topic, ids: &[JobId]) -> Result<(), Error> {
        insist(|| async {
            let mut tx = self.begin().await?;
            self.done_with(&mut tx, ids).await?;
            tx.commit().await
        })
        .await
    }

    async fn count(&self, topic: Topic) -> Result<(u64, u64), Error> {
        let mut connection = self.reader.acquire().await?;
        let waiting = job::count(&mut connection, topic.name()).await?;
        let dead = job::count(&mut connection, &dead(topic)).await?;
        Ok((waiting as u64, dead as u64))
    }
}

fn dead(topic: Topic) -> String {
    format!("{}:dead", topic.name())
}

fn rows(ids: &[JobId]) -> Vec<i64> {
    let row = |id: &JobId| match id {
        JobId::Row(id) => Some(*id),
        JobId::Entry(_) => None, // of another queue
    };
    ids.iter().filter_map(row).collect()
}
