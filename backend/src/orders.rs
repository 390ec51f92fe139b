//! Orders of coins: how they are placed, and until when they wait for their payment.

use std::time::Duration;

use logs::warn;

use crate::error::Error;
use crate::queue::{Queue, Topic};
use crate::random;
use crate::store::Store;
use crate::tables::pay_order::{self, OrderRow, Status};
use crate::tables::product;

/// What a user orders.
pub struct Wanted {
    /// The user's own id for the order: one id makes one order.
    pub client_key: String,
    pub product_id: i64,
    /// The business code of the message to the payer.
    pub biz_code: i32,
}

/// Places an order whose link the payer may have. The same order again is the first one.
///
/// # Errors
/// 409 if another order has its id, or too many are unpaid; 404 without the product; 429.
pub async fn place(store: &Store, user_id: i64, wanted: Wanted) -> Result<OrderRow, Error> {
    let order = match pay_order::of_key(store.db.primary(), user_id, &wanted.client_key).await? {
        Some(order) => order,
        None => insert(store, user_id, &wanted).await?,
    };
    if (order.product_id, order.biz_code) != (wanted.product_id, wanted.biz_code) {
        return Err(Error::conflict("id_reused", "id: another order has this id; choose a new one"));
    }
    if order.status == Status::Waiting {
        schedule_expiry(store, &order).await;
        // If it has another status by now, an earlier request did this.
        pay_order::advance(store.db.writer(), &order.id, Status::Waiting, Status::Paying).await?;
    }
    store.wrote(&name(user_id)).await;
    Ok(order)
}

/// The price is that of the database at this moment, whatever the caller saw.
async fn insert(store: &Store, user_id: i64, wanted: &Wanted) -> Result<OrderRow, Error> {
    limit(store, user_id).await?;
    let most = store.config.orders_open_max;
    if pay_order::open_of_user(store.db.primary(), user_id).await? >= i64::from(most) {
        let message = format!("{most} orders are unpaid; pay one, or wait until one expires");
        return Err(Error::conflict("orders_open", message));
    }
    let product = product::get(store.db.primary(), wanted.product_id).await?;
    let product = product.filter(|product| product.is_on_sale).ok_or_else(unknown_product)?;
    let created_ms = store.clock.now_ms();
    let order = OrderRow {
        id: random::hex::<16>(),
        user_id,
        client_key: wanted.client_key.clone(),
        product_id: product.id,
        amount_cents: product.price_cents,
        coins: product.coins,
        status: Status::Waiting,
        biz_code: wanted.biz_code,
        created_ms,
        expires_ms: created_ms + i64::from(store.config.order_ttl_s) * 1_000,
        is_late: false,
        paid_ms: None,
        failed_ms: None,
        provider_trade_no: None,
        flag: None,
    };
    if pay_order::insert(store.db.writer(), &order).await? {
        return Ok(order);
    }
    // The same request came twice at once, and the other one was quicker.
    let other = pay_order::of_key(store.db.primary(), user_id, &wanted.client_key).await?;
    other.ok_or_else(|| Error::internal("an order that exists cannot be read"))
}

/// Without the cache there is no limit.
async fn limit(store: &Store, user_id: i64) -> Result<(), Error> {
    match store.cache.count(&format!("orders:{user_id}"), Duration::from_secs(60)).await {
        Ok(count) if count > ORDERS_PER_MINUTE_MAX => {
            Err(Error::too_many(format!("want at most {ORDERS_PER_MINUTE_MAX} orders in a minute")))
        }
        _ => Ok(()),
    }
}

/// If the job is lost, the sweep finds the order.
async fn schedule_expiry(store: &Store, order: &OrderRow) {
    let left = Duration::from_millis((order.expires_ms - store.clock.now_ms()).max(0) as u64);
    if let Err(error) = store.queue.push(Topic::OrderExpiry, std::slice::from_ref(&order.id), left).await {
        warn!(%error, order = order.id, "cannot queue the expiry of an order; the sweep will expire it");
    }
}

/// The name that marks a user's orders as just written.
pub fn name(user_id: i64) -> String {
    format!("orders:{user_id}")
}

/// The error for an order that does not exist, or is another user's.
pub fn unknown() -> Error {
    Error::not_found("there is no such order")
}

/// The error for a product that does not exist, or cannot be ordered.
pub fn unknown_product() -> Error {
    Error::not_found("there is no such product")
}

const ORDERS_PER_MINUTE_MAX: i64 = 60;
