//! `after_gift`: a gift is paid.

use serde::Serialize;

use crate::gift::{Answer, Identity, Order};
use crate::tables::hook_event::NewEvent;

#[derive(Serialize)]
struct PaidGift<'a> {
    /// The same for the same gift.
    id: String,
    app: i32,
    /// The gift's id, which its sender chose.
    key: &'a str,
    sender: i64,
    receiver: i64,
    room: i64,
    gift: i64,
    count: i64,
    total: i64,
    biz_code: i32,
    paid_ms: i64,
}

/// The events for the service about gifts that a transaction decides.
pub fn paid(app: i32, orders: &[(Identity, Order)], now_ms: i64) -> Vec<NewEvent> {
    let event = |(identity, order): &(Identity, Order)| {
        let Answer::Committed { total } = order.answer else { return None };
        let contents = order.contents;
        let gift = PaidGift {
            id: format!("{}-{}", identity.sender_id, identity.key),
            app,
            key: &identity.key,
            sender: identity.sender_id,
            receiver: contents.receiver_id,
            room: contents.room_id,
            gift: contents.gift_id,
            count: contents.count,
            total,
            biz_code: contents.code,
            paid_ms: now_ms,
        };
        let payload = serde_json::to_string(&gift).expect("strings and numbers are JSON");
        Some(NewEvent { user_id: identity.sender_id, payload })
    };
    orders.iter().filter_map(event).collect()
}
