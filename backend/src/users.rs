//! Users: how they are made, and found.

use std::time::Duration;

use crate::db::{Pool, insist};
use crate::error::Error;
use crate::ids::{Ids, Order};
use crate::phone::Phone;
use crate::store::Store;
use crate::tables::user::{self, UserRow};
use crate::tables::{id_segment, user_phone};

/// A user, from the cache if it is there.
pub async fn find(store: &Store, id: i64) -> Result<Option<UserRow>, Error> {
    store.read(&cache_key(id), CACHE_TTL, async |db| user::get(&db, id).await).await
}

/// The user of a phone, and whether this call made it. However many ask at once, a phone is one user: its row
/// in `t_user_phone` decides, and the user's row is written with it.
pub async fn find_or_register(store: &Store, ids: &Ids, phone: &Phone) -> Result<(i64, bool), Error> {
    let hash = phone.hash();
    if let Some(id) = user_phone::user_of(store.db.primary(), &hash).await? {
        return Ok((id, false));
    }
    let id = ids.next(IDS, Order::Shuffled).await?;
    if insist(|| register(store, phone, id)).await? {
        return Ok((id, true));
    }
    let winner = user_phone::user_of(store.db.primary(), &hash).await?;
    Ok((winner.ok_or_else(|| Error::internal("a phone that was there is gone"))?, false))
}

/// A new user without a profile.
pub fn nameless(id: i64, created_ms: i64) -> UserRow {
    let name = format!("user{id}");
    UserRow { id, name, avatar: String::new(), sex: 0, city: String::new(), bio: String::new(), created_ms }
}

/// Makes users without a phone. Returns their ids, ascending.
pub async fn make(store: &Store, ids: &Ids, count: u32) -> Result<Vec<i64>, Error> {
    let mut made = ids.take(IDS, Order::Shuffled, count).await?;
    made.sort_unstable();
    insist(|| insert_all(store, &made)).await?;
    store.changed(&made.iter().map(|id| cache_key(*id)).collect::<Vec<_>>()).await;
    Ok(made)
}

async fn insert_all(store: &Store, ids: &[i64]) -> Result<(), Error> {
    let mut tx = store.db.begin().await?;
    for id in ids {
        user::insert(&mut tx, &nameless(*id, store.clock.now_ms())).await?;
    }
    tx.commit().await
}

async fn register(store: &Store, phone: &Phone, id: i64) -> Result<bool, Error> {
    let row = nameless(id, store.clock.now_ms());
    let mut tx = store.db.begin().await?;
    let (dialect, last_digits) = (store.db.dialect(), phone.last_digits());
    let is_new = user_phone::insert(&mut tx, dialect, &phone.hash(), id, last_digits, row.created_ms).await?;
    if is_new {
        user::insert(&mut tx, &row).await?;
        tx.commit().await?;
        // "No such user" may be cached under this id.
        store.changed(&[cache_key(id)]).await;
    }
    Ok(is_new)
}

/// The error for a user that does not exist.
pub fn unknown() -> Error {
    Error::not_found("there is no such user")
}

/// Where a user is cached.
pub fn cache_key(id: i64) -> String {
    format!("user:{id}")
}

/// Whether there has ever been a user.
pub async fn are_there(db: &Pool) -> Result<bool, Error> {
    Ok(id_segment::get(db, IDS).await?.is_some())
}

/// The name of users' ids.
const IDS: &str = "user";
/// How long a user is cached.
pub const CACHE_TTL: Duration = Duration::from_secs(1_800);
