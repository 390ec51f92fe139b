//! The worker that lets unpaid orders expire.
//!
//! Each order has a delayed job. One that comes early is put off, one that comes late or twice finds nothing
//! to do, and so does one that comes after the payment. A sweep finds orders whose job was lost with the
//! queue.

use std::sync::Arc;
use std::time::Duration;

use logs::{info, warn};

use crate::error::Error;
use crate::queue::{Job, JobId, Queue, Topic};
use crate::stop::Stop;
use crate::store::Store;
use crate::tables::pay_order;

/// Works until it is time to end.
pub(crate) async fn run(store: Arc<Store>, mut stop: Stop) {
    tokio::select! {
        biased; // nothing more is taken once it is time to end
        () = stop.wait() => {}
        () = work_all(&store) => {}
        () = sweep_all(&store) => {}
    }
}

async fn work_all(store: &Store) {
    loop {
        if let Err(error) = work(store).await {
            warn!(%error, "cannot read or write the queue of order expiries");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn sweep_all(store: &Store) {
    loop {
        if let Err(error) = sweep(store).await {
            warn!(%error, "cannot read the orders that are overdue; tried again later");
        }
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
}

/// A batch of jobs.
async fn work(store: &Store) -> Result<(), Error> {
    let jobs = store.take_for_database(Topic::OrderExpiry, BATCH_MAX, WAIT).await?;
    if jobs.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = jobs.iter().map(|job: &Job| job.payload.clone()).collect();
    expire(store, &ids).await?;
    let now_ms = store.clock.now_ms();
    for (id, expires_ms) in pay_order::open(store.db.primary(), &ids).await? {
        let left = Duration::from_millis((expires_ms - now_ms).max(1) as u64);
        store.queue.push(Topic::OrderExpiry, &[id], left).await?;
    }
    let done: Vec<JobId> = jobs.into_iter().map(|job| job.id).collect();
    store.queue.done(Topic::OrderExpiry, &done).await
}

/// Orders whose job did not come in time.
async fn sweep(store: &Store) -> Result<(), Error> {
    loop {
        let due_ms = store.clock.now_ms() - GRACE_MS;
        let ids = pay_order::overdue(store.db.primary(), due_ms, BATCH_MAX).await?;
        if ids.is_empty() {
            return Ok(());
        }
        expire(store, &ids).await?;
    }
}

async fn expire(store: &Store, ids: &[String]) -> Result<(), Error> {
    let mut tx = store.db.begin().await?;
    let expired = pay_order::expire(&mut tx, ids, store.clock.now_ms()).await?;
    tx.commit().await?;
    if expired > 0 {
        info!(expired, "orders expired unpaid");
    }
    Ok(())
}

const BATCH_MAX: u32 = 200;
const WAIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);
const SWEEP_PAUSE: Duration = Duration::from_secs(60);
/// How long a job may be late before the sweep does its work.
const GRACE_MS: i64 = 10_000;
