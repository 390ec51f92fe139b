//! `offline_push` and `after_gift`: events that a service gets, at least once.
//!
//! An event is a row that is written in the transaction of its cause, so a crash loses none. A worker for
//! each hook sends due events, many in one call, and removes what the service has taken. While the service
//! fails, up to a number of events wait; a user may have a tenth of what is free. Further events are dropped
//! and counted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use logs::{error, warn};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::db::{Tx, insist};
use crate::error::Error;
use crate::stop::Stop;
use crate::store::Store;
use crate::tables::hook_event::{self, EventRow, NewEvent};
use crate::webhook::{Outcome, Webhook};

/// A hook that reports.
pub struct Events {
    webhook: Arc<Webhook>,
    max: u64,
    /// About how many rows the table has; recounted from time to time.
    waiting: AtomicU64,
    added: Notify,
    sent: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
    expired: AtomicU64,
}

impl Events {
    pub fn new(webhook: Arc<Webhook>, max: u32) -> Self {
        Self {
            webhook,
            max: u64::from(max),
            waiting: AtomicU64::new(0),
            added: Notify::new(),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            expired: AtomicU64::new(0),
        }
    }

    pub fn webhook(&self) -> &Webhook {
        &self.webhook
    }

    /// Events by their results.
    pub fn counts(&self) -> [(&'static str, u64); 4] {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        [
            ("sent", get(&self.sent)),
            ("dropped", get(&self.dropped)),
            ("refused", get(&self.refused)),
            ("expired", get(&self.expired)),
        ]
    }

    /// About how many events wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Writes events in the transaction of their cause. Call [`Self::committed`] after the commit. An event
    /// that does not fit is dropped.
    pub async fn insert(&self, tx: &mut Tx, events: Vec<NewEvent>, now_ms: i64) -> Result<usize, Error> {
        if events.is_empty() {
            return Ok(0);
        }
        let waiting = self.waiting();
        let mut users: Vec<i64> = events.iter().map(|event| event.user_id).collect();
        users.sort_unstable();
        users.dedup();
        // While few wait, no user can have too many.
        let mut of_users = match waiting < self.max / SHARE_OF_FREE / 2 {
            true => BTreeMap::new(),
            false => hook_event::waiting_of(tx, self.webhook.name(), &users).await?,
        };
        let all = events.len();
        let kept = kept(events, waiting, self.max, &mut of_users);
        self.dropped.fetch_add((all - kept.len()) as u64, Ordering::Relaxed);
        hook_event::insert(tx, self.webhook.name(), &kept, now_ms).await?;
        Ok(kept.len())
    }

    /// Sends what was committed.
    pub fn committed(&self, count: usize) {
        if count > 0 {
            self.waiting.fetch_add(count as u64, Ordering::Relaxed);
            self.added.notify_one();
        }
    }
}

/// The events that fit: all may have `max`, and each user a tenth of what is free.
fn kept(events: Vec<NewEvent>, waiting: u64, max: u64, of_users: &mut BTreeMap<i64, u64>) -> Vec<NewEvent> {
    let mut free = max.saturating_sub(waiting);
    let mut fits = |event: &NewEvent| {
        let own = of_users.entry(event.user_id).or_default();
        if free == 0 || *own > 0 && *own >= free / SHARE_OF_FREE {
            return false;
        }
        *own += 1;
        free -= 1;
        true
    };
    events.into_iter().filter(|event| fits(event)).collect()
}

/// Sends waiting events of each hook, until it is time to end.
pub(crate) async fn run(store: Arc<Store>, hooks: Vec<Arc<Events>>, stop: Stop) {
    let mut tasks = JoinSet::new();
    for events in hooks {
        tasks.spawn(send_all(store.clone(), events, stop.clone()));
    }
    while tasks.join_next().await.is_some() {}
}

async fn send_all(store: Arc<Store>, events: Arc<Events>, mut stop: Stop) {
    while !stop.is_due() {
        let ended = async {
            stop.wait().await;
            tokio::time::sleep(LAST_TIME).await;
        };
        let turn = tokio::select! {
            biased; // a turn that is done at the end has removed its events
            turn = turn(&store, &events) => turn,
            () = ended => return, // its events are taken again later
        };
        let pause = match turn {
            Ok(true) => continue,
            Ok(false) => LOOK,
            Err(error) => {
                warn!(%error, hook = events.webhook.name(), "cannot read events for a webhook");
                LOOK
            }
        };
        tokio::select! {
            biased; // each ends the pause
            () = stop.wait() => {}
            () = events.added.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Sends a batch. Returns whether there may be more.
async fn turn(store: &Store, events: &Events) -> Result<bool, Error> {
    let (name, now_ms) = (events.webhook.name(), store.clock.now_ms());
    if events.webhook.is_open() {
        return Ok(false);
    }
    let is_due = hook_event::is_due(store.db.primary(), name, now_ms).await?;
    if !is_due {
        // Nothing is due: count again, and rest.
        events.waiting.store(hook_event::count(store.db.primary(), name).await?, Ordering::Relaxed);
        return Ok(false);
    }
    let taken = insist(|| async {
        let mut tx = store.db.begin().await?;
        let (dialect, again_ms) = (store.db.dialect(), now_ms + TAKE_MS);
        let taken = hook_event::take(&mut tx, dialect, name, now_ms, again_ms, BATCH_MAX).await?;
        tx.commit().await?;
        Ok(taken)
    })
    .await?;
    let is_full = taken.len() == BATCH_MAX;
    let (old, fresh): (Vec<_>, Vec<_>) =
        taken.into_iter().partition(|event| event.created_ms < now_ms - AGE_MS_MAX);
    events.expired.fetch_add(old.len() as u64, Ordering::Relaxed);
    let mut done: Vec<i64> = old.into_iter().map(|event| event.id).collect();
    let failed = send(store, events, fresh, &mut done).await;
    insist(|| async {
        let mut tx = store.db.begin().await?;
        hook_event::delete(&mut tx, &done).await?;
        for (id, pause_ms) in &failed {
            hook_event::rest(&mut tx, &[*id], now_ms + pause_ms).await?;
        }
        tx.commit().await
    })
    .await?;
    let left = events.waiting().saturating_sub(done.len() as u64);
    events.waiting.store(left, Ordering::Relaxed);
    Ok(is_full && failed.is_empty())
}

/// Sends events; adds taken and refused ones to `done`. Returns failed ones, and their rest in ms.
async fn send(store: &Store, events: &Events, fresh: Vec<EventRow>, done: &mut Vec<i64>) -> Vec<(i64, i64)> {
    let (mut todo, mut failed) = (vec![fresh], Vec::new());
    while let Some(batch) = todo.pop() {
        if batch.is_empty() {
            continue;
        }
        let ids = batch.iter().map(|event| event.id);
        match events.webhook.call(body(events, &batch), store.clock.now_ms(), None, |_| Ok(())).await {
            Ok(()) => {
                events.sent.fetch_add(batch.len() as u64, Ordering::Relaxed);
                done.extend(ids);
            }
            Err(failure) if failure.outcome == Outcome::Refused && batch.len() == 1 => {
                events.refused.fetch_add(1, Ordering::Relaxed);
                let (hook, event) = (events.webhook.name(), &batch[0].payload);
                error!(hook, event, why = %failure, "a webhook refuses an event as invalid; it is dropped");
                done.extend(ids);
            }
            // One of them is invalid: halving finds it.
            Err(failure) if failure.outcome == Outcome::Refused => {
                let mut first = batch;
                let second = first.split_off(first.len() / 2);
                todo.extend([second, first]);
            }
            Err(_) => failed.extend(batch.iter().map(|event| (event.id, pause_ms(event.tries)))),
        }
    }
    failed
}

fn body(events: &Events, batch: &[EventRow]) -> Vec<u8> {
    #[derive(Serialize)]
    struct Batch<'a> {
        hook: &'a str,
        events: Vec<Box<RawValue>>,
    }
    let raw = |event: &EventRow| RawValue::from_string(event.payload.clone()).ok();
    let batch = Batch { hook: events.webhook.name(), events: batch.iter().filter_map(raw).collect() };
    serde_json::to_vec(&batch).expect("strings and numbers are JSON")
}

/// Doubles after each try.
fn pause_ms(tries: i64) -> i64 {
    (PAUSE_MS_FIRST << tries.clamp(0, 16)).min(PAUSE_MS_MAX)
}

/// A user may have this part of what is free.
const SHARE_OF_FREE: u64 = 10;
/// Events of one call.
const BATCH_MAX: usize = 100;
/// How often events are looked for that another process wrote, or that have rested.
const LOOK: Duration = Duration::from_millis(500);
/// How long events that were taken are left to their taker.
const TAKE_MS: i64 = 60_000;
/// How long a batch may take at the end of the process.
const LAST_TIME: Duration = Duration::from_secs(1);
const PAUSE_MS_FIRST: i64 = 1_000;
const PAUSE_MS_MAX: i64 = 60_000;
/// After how long an event is not worth sending.
const AGE_MS_MAX: i64 = 24 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_takes_a_share_and_never_the_pool() {
        let event = |user_id| NewEvent { user_id, payload: "{}".into() };
        let (mut of_users, mut waiting) = (BTreeMap::new(), 0);
        let flood = kept((0..1_000).map(|_| event(1)).collect(), waiting, 1_000, &mut of_users);
        waiting += flood.len() as u64;
        assert_eq!(waiting, 91, "a tenth of what is free then");
        let others = kept((2..902).map(event).collect(), waiting, 1_000, &mut of_users);
        assert_eq!(others.len(), 900, "the first of each user only has to fit");
        assert_eq!(kept((2_000..2_100).map(event).collect(), 991, 1_000, &mut of_users).len(), 9);
    }

    #[test]
    fn pauses_grow_up_to_a_minute() {
        assert_eq!([0, 1, 2, 5, 6, 60].map(pause_ms), [1_000, 2_000, 4_000, 32_000, 60_000, 60_000]);
    }
}
