//! Live rooms: who may open and close which.

use std::time::Duration;

use crate::db::insist;
use crate::error::Error;
use crate::store::Store;
use crate::tables::room::{self, RoomRow};

/// Opens a room of a user, who has one open room; the same title again gives the same room.
///
/// # Errors
/// 409 if another room is open, 429 for too many in a day.
pub async fn open(store: &Store, owner_id: i64, title: &str) -> Result<RoomRow, Error> {
    let mut known = room::open_of(store.db.primary(), owner_id).await?;
    if known.is_none() {
        limit_openings(store, owner_id).await?;
        let insert = room::insert(store.db.writer(), owner_id, title, store.clock.now_ms());
        store.write_through(&[LIST_KEY.into()], insert).await?;
        known = room::open_of(store.db.primary(), owner_id).await?;
    }
    let room = known.ok_or_else(|| Error::conflict("room_closed", "the room was closed meanwhile"))?;
    if room.title != title {
        let message = format!("room {} is open, under another title; close it first", room.id);
        return Err(Error::conflict("room_open", message));
    }
    // "No such room" may be cached under this id.
    store.changed(&[key(room.id)]).await;
    Ok(room)
}

/// Opens a room for each of these users who has none; the ids of their rooms, in the order of the users.
pub async fn open_many(store: &Store, owner_ids: &[i64], title: &str) -> Result<Vec<i64>, Error> {
    let open = insist(|| async {
        let mut tx = store.db.begin().await?;
        let (dialect, now_ms) = (store.db.dialect(), store.clock.now_ms());
        let ids = room::open_for(&mut tx, dialect, owner_ids, title, now_ms).await?;
        tx.commit().await?;
        Ok(ids)
    });
    let ids = store.write_through(&[LIST_KEY.into()], open).await?;
    store.changed(&ids.iter().map(|id| key(*id)).collect::<Vec<_>>()).await;
    Ok(ids)
}

/// Closes a user's room; closing it again changes nothing.
///
/// # Errors
/// 404 without such a room, 403 if it is another user's.
pub async fn close(store: &Store, owner_id: i64, id: i64) -> Result<RoomRow, Error> {
    let room = room::get(store.db.primary(), id).await?.ok_or_else(unknown)?;
    if room.owner_id != owner_id {
        return Err(Error::forbidden("only the user who opened a room may close it"));
    }
    if !room.is_open {
        return Ok(room);
    }
    let close = room::close(store.db.writer(), id, store.clock.now_ms());
    store.write_through(&[LIST_KEY.into(), key(id)], close).await?;
    room::get(store.db.primary(), id).await?.ok_or_else(unknown)
}

/// Without the cache there is no limit.
async fn limit_openings(store: &Store, owner_id: i64) -> Result<(), Error> {
    let most = store.config.rooms_per_day;
    match store.cache.count(&format!("rooms_opened:{owner_id}"), Duration::from_secs(86_400)).await {
        Ok(count) if count > i64::from(most) => {
            Err(Error::too_many(format!("want at most {most} rooms opened in a day")))
        }
        _ => Ok(()),
    }
}

/// The error for a room that does not exist.
pub fn unknown() -> Error {
    Error::not_found("there is no such room")
}

/// Where a room is cached.
pub fn key(id: i64) -> String {
    format!("room:{id}")
}

/// Where the first page of open rooms is cached.
pub const LIST_KEY: &str = "rooms";
