//! Removes refusals of gifts that are so old that nobody sends these again. Committed gifts stay.
//!
//! It reads rows in the order of their ids, a page at a time, up to the first one that is too young; the next
//! pass goes on there. So it needs no index, which would slow down each gift. A process that starts begins
//! with the first row.

use std::sync::Arc;
use std::time::Duration;

use logs::{info, warn};

use crate::error::Error;
use crate::stop::Stop;
use crate::store::Store;
use crate::tables::gift_order;

/// Works until it is time to end.
pub(super) async fn run(store: Arc<Store>, mut stop: Stop) {
    tokio::select! {
        biased; // no further page once it is time to end
        () = stop.wait() => {}
        () = sweep_all(&store) => {}
    }
}

async fn sweep_all(store: &Store) {
    let mut after = 0;
    loop {
        match sweep(store, &mut after).await {
            Ok(true) => tokio::time::sleep(PAGE_PAUSE).await,
            Ok(false) => rest(store).await,
            Err(error) => {
                warn!(%error, "cannot delete old refusals of gifts; tried again later");
                tokio::time::sleep(LOOK).await;
            }
        }
    }
}

/// Waits for the next pass.
async fn rest(store: &Store) {
    let until_ms = store.clock.now_ms() + PASS_PAUSE_MS;
    while store.clock.now_ms() < until_ms {
        tokio::time::sleep(LOOK).await;
    }
}

/// Does one page. Returns whether there is more.
async fn sweep(store: &Store, after: &mut i64) -> Result<bool, Error> {
    let before_ms = store.clock.now_ms() - AGE_MS_MAX;
    let mut page = gift_order::next(store.db.primary(), *after, PAGE).await?;
    let is_last = page.len() < PAGE as usize || page.iter().any(|row| row.at_ms >= before_ms);
    let old = page.iter().position(|row| row.at_ms >= before_ms).unwrap_or(page.len());
    page.truncate(old);
    let refusals: Vec<i64> = page.iter().filter(|row| row.is_refusal).map(|row| row.id).collect();
    if !refusals.is_empty() {
        let mut tx = store.db.begin().await?;
        gift_order::delete_refusals(&mut tx, &refusals).await?;
        tx.commit().await?;
        info!(refusals = refusals.len(), "deleted old refusals of gifts");
    }
    *after = page.last().map_or(*after, |row| row.id);
    Ok(!is_last)
}

/// How long a refusal is remembered: as long as a message waits in an inbox.
const AGE_MS_MAX: i64 = 30 * 24 * 3_600_000;
/// Rows of a page, and the pause after it: 20,000 a second.
const PAGE: u32 = 2_000;
const PAGE_PAUSE: Duration = Duration::from_millis(100);
/// The time between two passes, by the clock, and how often that is checked.
const PASS_PAUSE_MS: i64 = 3_600_000;
const LOOK: Duration = Duration::from_secs(2);
