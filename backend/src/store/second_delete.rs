//! The worker of [`Store::write_through`]: deletes cache entries a second time.

use std::sync::Arc;
use std::time::Duration;

use logs::warn;

use super::Store;
use crate::error::Error;
use crate::queue::{Job, JobId, Queue, Topic};
use crate::stop::Stop;

/// Works until it is time to end.
pub(crate) async fn run(store: Arc<Store>, mut stop: Stop) {
    loop {
        let work = tokio::select! {
            biased; // nothing more is taken once it is time to end
            () = stop.wait() => return,
            work = work(&store) => work,
        };
        if let Err(error) = work {
            warn!(%error, "cannot read the queue of second deletes, or reach the cache");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Does a batch. Jobs that were taken and not finished come again; deleting once more does no harm.
async fn work(store: &Store) -> Result<(), Error> {
    let jobs = store.queue.take(Topic::CacheDelete, BATCH_MAX, WAIT).await?;
    if jobs.is_empty() {
        return Ok(());
    }
    let keys: Vec<String> = jobs.iter().flat_map(keys).collect();
    store.cache.delete_many(&keys).await?;
    let ids: Vec<JobId> = jobs.into_iter().map(|job| job.id).collect();
    store.queue.done(Topic::CacheDelete, &ids).await
}

fn keys(job: &Job) -> Vec<String> {
    serde_json::from_str(&job.payload).unwrap_or_else(|error| {
        warn!(%error, payload = job.payload, "a job of second deletes has no list of cache keys");
        Vec::new()
    })
}

const BATCH_MAX: u32 = 256;
const WAIT: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);
