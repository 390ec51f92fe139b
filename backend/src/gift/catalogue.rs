//! The catalogue: what gifts cost, and whether they can be had.

use std::time::Duration;

use super::types::{Gift, Reason};
use crate::app::App;
use crate::error::Error;
use crate::tables::gift;

/// One gift, through the cache.
pub async fn find(app: &App, id: i64) -> Result<Option<Gift>, Error> {
    app.read(&key(id), CACHE_TTL, async |db| gift::get(&db, id).await).await
}

/// What a piece of a gift costs, if it can be had and costs what the sender saw.
pub async fn price(app: &App, id: i64, seen: Option<i64>) -> Result<Result<i64, Reason>, Error> {
    let mut gift = match app.gifts.catalogue.get(id) {
        Some(gift) => gift,
        None => match find(app, id).await? {
            Some(gift) => app.gifts.catalogue.put(gift),
            None => return Ok(Err(Reason::NoSuchGift)),
        },
    };
    if gift.check(seen).is_err() {
        // The cache may be behind, and a refusal stands: so the primary is asked, once a second at most.
        let load = || gift::get(app.db.primary(), id);
        let recent = app.cache.read(&recent_key(id), Duration::from_secs(1), load).await?;
        let Some(recent) = recent else { return Ok(Err(Reason::NoSuchGift)) };
        gift = app.gifts.catalogue.put(recent);
    }
    Ok(gift.check(seen).map(|()| gift.price))
}

/// Where a gift is cached.
pub fn key(id: i64) -> String {
    format!("gift:{id}")
}

fn recent_key(id: i64) -> String {
    format!("gift_recent:{id}")
}

/// All that is cached of a gift.
pub fn keys(id: i64) -> [String; 3] {
    [key(id), recent_key(id), LIST_KEY.to_owned()]
}

/// Where the list of gifts is cached.
pub const LIST_KEY: &str = "gifts";
/// How long gifts are cached.
pub const CACHE_TTL: Duration = Duration::from_secs(300);
