//! The catalogue: what gifts cost, and whether they are on sale.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::seen::SeenGifts;
use super::types::{Gift, Reason};
use crate::db::Pool;
use crate::error::Error;
use crate::store::Store;
use crate::tables::gift;

/// The catalogue, with the gifts that this process has seen, and the cache.
pub struct Catalogue {
    store: Arc<Store>,
    seen: SeenGifts,
}

/// Gifts that are cached together.
#[derive(Default, Serialize, Deserialize)]
struct OnSale {
    gifts: Vec<Gift>,
}

impl Catalogue {
    /// The catalogue in the store.
    pub fn new(store: &Arc<Store>) -> Self {
        Self { store: store.clone(), seen: SeenGifts::default() }
    }

    /// All gifts on sale, the cheapest first.
    pub async fn on_sale(&self) -> Result<Vec<Gift>, Error> {
        let load = async |db: Pool| Ok(Some(OnSale { gifts: gift::on_sale(&db, LISTED_MAX).await? }));
        Ok(self.store.read(LIST_KEY, CACHE_TTL, load).await?.unwrap_or_default().gifts)
    }

    /// One gift, through the cache.
    pub async fn find(&self, id: i64) -> Result<Option<Gift>, Error> {
        self.store.read(&key(id), CACHE_TTL, async |db| gift::get(&db, id).await).await
    }

    /// The price of a gift's piece, if this process has seen it lately, it is on sale and costs what the
    /// sender saw.
    pub fn seen_price(&self, id: i64, seen: Option<i64>) -> Option<i64> {
        self.seen.get(id).filter(|gift| gift.check(seen).is_ok()).map(|gift| gift.price)
    }

    /// The price of a gift's piece, if it is on sale and costs what the sender saw.
    pub async fn price(&self, id: i64, seen: Option<i64>) -> Result<Result<i64, Reason>, Error> {
        let mut gift = match self.seen.get(id) {
            Some(gift) => gift,
            None => match self.find(id).await? {
                Some(gift) => self.seen.put(gift),
                None => return Ok(Err(Reason::NoSuchGift)),
            },
        };
        if gift.check(seen).is_err() {
            // The cache may be outdated, and a refusal is final: so read the primary, once a second at most.
            let load = || gift::get(self.store.db.primary(), id);
            let recent = self.store.cache.read(&recent_key(id), Duration::from_secs(1), load).await?;
            let Some(recent) = recent else { return Ok(Err(Reason::NoSuchGift)) };
            gift = self.seen.put(recent);
        }
        Ok(gift.check(seen).map(|()| gift.price))
    }

    /// Adds a gift, whose `id` is ignored. Returns its new id.
    pub async fn add(&self, gift: &Gift) -> Result<i64, Error> {
        let insert = async {
            let mut connection = self.store.db.writer().acquire().await?;
            gift::insert(&mut connection, gift).await
        };
        let id = self.store.write_through(&[LIST_KEY.to_owned()], insert).await?;
        // "No such gift" may be cached under this id.
        self.store.changed(&[key(id)]).await;
        Ok(id)
    }

    /// Puts a gift under its id, whether there was one or not.
    pub async fn put(&self, gift: &Gift) -> Result<(), Error> {
        let write = gift::put(self.store.db.writer(), self.store.db.dialect(), gift);
        self.store.write_through(&keys(gift.id), write).await?;
        self.seen.forget(gift.id);
        Ok(())
    }

    /// Removes a gift; whether it was there.
    pub async fn remove(&self, id: i64) -> Result<bool, Error> {
        let was_there = self.store.write_through(&keys(id), gift::delete(self.store.db.writer(), id)).await?;
        self.seen.forget(id);
        Ok(was_there)
    }
}

fn key(id: i64) -> String {
    format!("gift:{id}")
}

fn recent_key(id: i64) -> String {
    format!("gift_recent:{id}")
}

fn keys(id: i64) -> [String; 3] {
    [key(id), recent_key(id), LIST_KEY.to_owned()]
}

const LIST_KEY: &str = "gifts";
const CACHE_TTL: Duration = Duration::from_secs(300);
/// Gifts that apps are shown.
const LISTED_MAX: usize = 1_000;
