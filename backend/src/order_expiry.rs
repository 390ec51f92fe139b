//! The worker that lets unpaid orders expire.
//!
//! Each order has a delayed job. One that comes early is put off, one that comes late or twice finds nothing
//! to do, and so does one that comes after the payment. A sweep finds orders whose job was lost with the
//! queue.

use std::sync::Arc;
use std::time::Duration;

use logs::{info, warn};

use crate::app::App;
use crate::error::Error;
use crate::queue::{Job, JobId, Queue, Topic};
use crate::stop::Stop;
use crate::tables::pay_order;

/// Works until it is time to end.
pub(crate) async fn run(app: Arc<App>, mut stop: Stop) {
    tokio::select! {
        biased; // nothing more is taken once it is time to end
        () = stop.wait() => {}
        () = work_all(&app) => {}
        () = sweep_all(&app) => {}
    }
}

async fn work_all(app: &App) {
    loop {
        if let Err(error) = work(app).await {
            warn!(%error, "cannot read or write the queue of order expiries");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn sweep_all(app: &App) {
    loop {
        if let Err(error) = sweep(app).await {
            warn!(%error, "cannot read the orders that are overdue; tried again later");
        }
        tokio::time::sleep(SWEEP_PAUSE).await;
    }
}

/// A batch of jobs.
async fn work(app: &App) -> Result<(), Error> {
    let jobs = app.take_for_database(Topic::OrderExpiry, BATCH_MAX, WAIT).await?;
    if jobs.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = jobs.iter().map(|job: &Job| job.payload.clone()).collect();
    expire(app, &ids).await?;
    let now_ms = app.clock.now_ms();
    for (id, expires_ms) in pay_order::open(app.db.primary(), &ids).await? {
        let left = Duration::from_millis((expires_ms - now_ms).max(1) as u64);
        app.queue.push(Topic::OrderExpiry, &[id], left).await?;
    }
    let done: Vec<JobId> = jobs.into_iter().map(|job| job.id).collect();
    app.queue.done(Topic::OrderExpiry, &done).await
}

/// Orders whose job did not come in time.
async fn sweep(app: &App) -> Result<(), Error> {
    loop {
        let due_ms = app.clock.now_ms() - GRACE_MS;
        let ids = pay_order::overdue(app.db.primary(), due_ms, BATCH_MAX).await?;
        if ids.is_empty() {
            return Ok(());
        }
        expire(app, &ids).await?;
    }
}

async fn expire(app: &App, ids: &[String]) -> Result<(), Error> {
    let mut tx = app.db.begin().await?;
    let expired = pay_order::expire(&mut tx, ids, app.clock.now_ms()).await?;
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
