//! Revocations of IM tokens: jobs in the durable queue, and the worker that sends them to gateways.
//!
//! A logout may come while no gateway answers. So its revocation is a job, which is tried again until the
//! push API has taken it, or until the tokens have expired by themselves. Revoking twice does no harm.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use logs::warn;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::push::{Push, Revoked};
use crate::queue::{Job, JobId, Queue, Topic};
use crate::stop::Stop;
use crate::store::Store;

/// A job.
#[derive(Serialize, Deserialize)]
struct Revocation {
    #[serde(flatten)]
    revoked: Revoked,
    /// When the last of the tokens expires, in s since the UNIX epoch.
    until_s: i64,
}

/// Has gateways refuse the IM tokens of a login, or all tokens of a user, and end their sessions, for as long
/// as the tokens are valid. Once this returns, the revocation outlives this process.
///
/// # Errors
/// 503: the queue is away, and nothing is revoked.
pub async fn add(store: &Store, user: i64, login: Option<String>) -> Result<(), Error> {
    let (config, now_s) = (&store.config, store.clock.now_ms() / 1_000);
    let lifetime_s = config.im_token_ttl_s.saturating_add(MARGIN_S);
    let ttl_s = lifetime_s.min(REVOKED_S_MAX);
    let revoked = Revoked { app: config.app, user, login, before_s: now_s + 1, ttl_s };
    let job = serde_json::to_string(&Revocation { revoked, until_s: now_s + i64::from(lifetime_s) })?;
    store.queue.push(Topic::Revocation, &[job], Duration::ZERO).await
}

/// Works until it is time to end.
pub(crate) async fn run(store: Arc<Store>, push: Arc<Push>, mut stop: Stop) {
    loop {
        let work = tokio::select! {
            biased; // nothing more is taken once it is time to end
            () = stop.wait() => return,
            work = work(&store, &push) => work,
        };
        if let Err(error) = work {
            warn!(%error, "cannot read or write the queue of revocations");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Does a batch. A job that fails is replaced by a later one, since the queue gives up a job that was taken
/// too often.
async fn work(store: &Store, push: &Push) -> Result<(), Error> {
    let jobs = store.queue.take(Topic::Revocation, BATCH_MAX, WAIT).await?;
    if jobs.is_empty() {
        return Ok(());
    }
    let tries = join_all(jobs.iter().map(|job| revoke(store, push, job))).await;
    let mut again = Vec::new();
    for (job, tried) in jobs.iter().zip(tries) {
        if let Err(error) = tried {
            warn!(%error, "gateways do not take a revocation of IM tokens; tried again until the tokens expire");
            again.push(job.payload.clone());
        }
    }
    if !again.is_empty() {
        store.queue.push(Topic::Revocation, &again, RETRY_TIME).await?;
    }
    let done: Vec<JobId> = jobs.into_iter().map(|job| job.id).collect();
    store.queue.done(Topic::Revocation, &done).await
}

/// Has gateways carry out one job.
///
/// # Errors
/// 503: perhaps some gateways did not get it.
async fn revoke(store: &Store, push: &Push, job: &Job) -> Result<(), Error> {
    let Revocation { revoked, until_s } = match serde_json::from_str(&job.payload) {
        Ok(revocation) => revocation,
        Err(error) => {
            warn!(%error, payload = job.payload, "a revocation job cannot be parsed, and is dropped");
            return Ok(());
        }
    };
    match store.clock.now_ms() / 1_000 < until_s {
        true => push.revoke(&revoked).await,
        false => Ok(()), // nobody has a token any more that is good
    }
}

/// A login is deleted after its revocation is queued, and issues tokens until then. This many s are allowed
/// for that; no statement takes longer.
const MARGIN_S: u32 = 60;
/// The longest time that gateways refuse tokens for, in s: a week.
const REVOKED_S_MAX: u32 = 7 * 86_400;
/// Calls that are made at once.
const BATCH_MAX: u32 = 32;
const WAIT: Duration = Duration::from_secs(5);
const RETRY_TIME: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_secs(1);
