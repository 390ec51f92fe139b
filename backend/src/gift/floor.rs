//! The bare transaction, for measurements: what the database alone costs.

use std::time::{Duration, Instant};

use super::consumer::try_commit;
use super::{Batch, Contents, Gift, GiftRequest, Gifts, Identity};
use crate::db::Tx;
use crate::error::Error;
use crate::random;
use crate::tables::{account, gift, room, user};
use crate::users;

/// Senders of one batch.
const SENDERS: usize = 200;
/// Enough for any measurement.
const COINS: i64 = 1 << 50;
const PRICE: i64 = 10;

/// Commits batches of gifts, one after the other, for that long: without queue, hold, HTTP and whoever waits.
/// How many gifts a second.
pub async fn floor(gifts: &Gifts, batch: usize, time: Duration) -> Result<f64, Error> {
    let first = 1_000_000_000 + i64::from(u32::from_ne_bytes(random::bytes()));
    let senders: Vec<i64> = (0..SENDERS as i64).map(|sender| first + sender).collect();
    let mut tx = gifts.store.db.begin().await?;
    let wanted = Gift { id: 0, name: "floor".into(), icon: String::new(), price: PRICE, is_on_sale: true };
    let gift_id = gift::insert(&mut tx, &wanted).await?;
    for sender in &senders {
        account::credit(&mut tx, gifts.store.db.dialect(), *sender, COINS).await?;
    }
    let (room_id, receiver_id) = room_and_receiver(gifts, &mut tx, first).await?;
    tx.commit().await?;
    let (start, mut count) = (Instant::now(), 0);
    while start.elapsed() < time {
        let request = |number: usize| GiftRequest {
            identity: Identity {
                sender_id: senders[number % SENDERS],
                key: format!("{:016x}", count + number),
            },
            contents: Contents { gift_id, room_id, receiver_id, count: 1, code: 5556 },
            price: Some(PRICE),
            is_in_room: true,
        };
        let batch = Batch { jobs: vec![None; batch], requests: (0..batch).map(request).collect() };
        try_commit(gifts, &batch).await?;
        count += batch.requests.len();
    }
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

async fn room_and_receiver(gifts: &Gifts, tx: &mut Tx, id: i64) -> Result<(i64, i64), Error> {
    user::insert(tx, &users::nameless(id, gifts.store.clock.now_ms())).await?;
    let ids =
        room::open_for(tx, gifts.store.db.dialect(), &[id], "floor", gifts.store.clock.now_ms()).await?;
    Ok((ids[0], id))
}
