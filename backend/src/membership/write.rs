//! Writes who is where.

use super::{Told, ended, told};
use crate::db::insist;
use crate::error::Error;
use crate::event::Event;
use crate::store::Store;
use crate::tables::presence::{self, Device};
use crate::tables::room_member;

/// Takes the bridge's events about sessions and memberships, which may come late, twice and in any order.
pub async fn take(store: &Store, events: &[Event]) -> Result<(), Error> {
    for batch in events.chunks(BATCH_MAX) {
        // Another process may have changed neighbouring rows.
        insist(|| take_batch(store, told(batch))).await?;
    }
    Ok(())
}

/// Ends sessions that no gateway has, as `offline` with their stamps would: a later session of the device
/// stays.
pub async fn end(store: &Store, sessions: &[(Device, i64)]) -> Result<(), Error> {
    for batch in sessions.chunks(BATCH_MAX) {
        insist(|| take_batch(store, ended(batch.iter().cloned()))).await?;
    }
    Ok(())
}

async fn take_batch(store: &Store, told: Told) -> Result<(), Error> {
    if told.presence.is_empty() {
        return Ok(());
    }
    let dialect = store.db.dialect();
    let mut tx = store.db.begin().await?;
    let presence = presence::raise(&mut tx, dialect, &told.presence).await?;
    let devices: Vec<&Device> = told.presence.keys().collect();
    let known = room_member::of_devices(&mut tx, dialect, &devices).await?;
    let changes = told.changes(&presence, known);
    room_member::put(&mut tx, dialect, &changes.put).await?;
    room_member::delete(&mut tx, dialect, &changes.delete).await?;
    tx.commit().await
}

/// Events of one transaction.
const BATCH_MAX: usize = 500;
