//! The way of one gift from its request to its answer.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Answer, COUNT_MAX, GiftRequest, Gifts, Identity, KEY_BYTES_MAX, Order, Reason, add, message};
use crate::cache::{Hold, HoldAsk, held_key};
use crate::error::Error;
use crate::tables::account;

/// How a sender of too many gifts is informed. Either way the same gift may be sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Limit {
    /// By an error, 429.
    Answered,
    /// By a message, since nobody waits for an answer.
    Told,
}

/// A gift that was decided.
#[derive(Debug)]
pub(crate) struct Decided {
    pub answer: Answer,
    /// Set if the refusal was sent from here and not with a transaction: tells when it is on its way. `None`
    /// for [`Reason::RateLimited`]: nothing is sent.
    pub told: Option<oneshot::Receiver<()>>,
}

/// The next step of a gift.
enum Step {
    Decided(Decided),
    /// To the consumer.
    Queue,
}

impl Gifts {
    /// Sends a gift. The answer is committed, or a refusal for good.
    ///
    /// # Errors
    /// Those of `submit`; 429 for a sender of too many.
    pub async fn send(&self, request: &GiftRequest) -> Result<Answer, Error> {
        Ok(self.submit(request, Limit::Answered).await?.answer)
    }

    /// Sends a gift. The answer is committed, or a refusal for good.
    ///
    /// # Errors
    /// 400 for a malformed field. 503 if the gift was not decided in time: nothing is promised, and the same
    /// may be sent again. 429 with [`Limit::Answered`].
    pub(crate) async fn submit(&self, request: &GiftRequest, limit: Limit) -> Result<Decided, Error> {
        check(request)?;
        let _under_way = UnderWay::begin(self);
        match first_step(self, request, limit).await? {
            Step::Decided(decided) => Ok(decided),
            Step::Queue => Ok(Decided { answer: queue_and_wait(self, request).await?, told: None }),
        }
    }

    /// Refuses a packet that is no gift, and informs its sender, who may get no other answer. It counts as a
    /// refused gift.
    pub(crate) fn refuse_bad(&self, identity: Identity) {
        let (sender_id, config) = (identity.sender_id, &self.store.config);
        let is_within = self.refused.count(sender_id, config.gift_refusals_per_minute);
        if is_within && may_be_told(self, sender_id) {
            drop(self.outbox.mention(message::not_understood(config.app, identity))); // nobody waits for it
        }
    }
}

fn check(request: &GiftRequest) -> Result<(), Error> {
    let GiftRequest { identity, contents, price, .. } = request;
    let bytes = identity.key.len();
    if !(1..=KEY_BYTES_MAX).contains(&bytes) {
        return Err(Error::bad_request(format!("id: want 1 to {KEY_BYTES_MAX} bytes, not {bytes}")));
    }
    if !(1..=COUNT_MAX).contains(&contents.count) {
        return Err(Error::bad_request(format!("count: want 1 to {COUNT_MAX}, not {}", contents.count)));
    }
    let ids = [("gift_id", contents.gift_id), ("receiver_id", contents.receiver_id)];
    for (field, id) in ids.into_iter().chain([("room_id", contents.room_id)]) {
        if id <= 0 {
            return Err(Error::bad_request(format!("{field}: want a positive number, not {id}")));
        }
    }
    match price {
        Some(price) if *price < 0 => {
            Err(Error::bad_request(format!("price: want no less than 0, not {price}")))
        }
        _ => Ok(()),
    }
}

/// All steps before the queue. The sender is counted before anything is looked up.
async fn first_step(gifts: &Gifts, request: &GiftRequest, limit: Limit) -> Result<Step, Error> {
    let GiftRequest { identity, contents, .. } = request;
    if gifts.refused.are_too_many(identity.sender_id, gifts.store.config.gift_refusals_per_minute) {
        return too_many(gifts, request, limit);
    }
    let seen = gifts.catalogue.seen_price(contents.gift_id, request.price);
    let is_counted = seen.is_none();
    let price = match seen {
        Some(price) => price,
        None => {
            // Without the cache there is no limit: the database still decides.
            let most = i64::from(gifts.store.config.gifts_per_second);
            if gifts.store.cache.count_gift(identity.sender_id).await.is_ok_and(|count| count > most) {
                return too_many(gifts, request, limit);
            }
            match gifts.catalogue.price(contents.gift_id, request.price).await? {
                Ok(price) => price,
                Err(_) => return doubt(gifts, request, limit).await,
            }
        }
    };
    match hold(gifts, identity, price * contents.count, is_counted).await {
        Ok(Hold::Held | Hold::Unknown) | Err(_) => Ok(Step::Queue),
        Ok(Hold::TooMany) => too_many(gifts, request, limit),
        Ok(Hold::Short) => doubt(gifts, request, limit).await,
        Ok(Hold::Repeat) => Ok(match remembered(gifts, identity).await {
            Some(order) => repeat(gifts, request, &order),
            None => Step::Queue,
        }),
    }
}

/// Sets the coins aside; reads the primary if the cache does not know the balance. Without the cache there is
/// no limit: the database still decides.
async fn hold(gifts: &Gifts, identity: &Identity, amount: i64, is_counted: bool) -> Result<Hold, Error> {
    let Identity { sender_id: user_id, key: id } = identity.clone();
    let rate_max = (!is_counted).then_some(gifts.store.config.gifts_per_second);
    let ask = HoldAsk { user_id, id, amount, ttl: HELD_TTL, rate_max };
    match gifts.store.cache.hold(ask.clone()).await? {
        Hold::Unknown => {
            let load =
                || async { Ok(account::balance(gifts.store.db.primary(), user_id).await?.unwrap_or(0)) };
            gifts.store.cache.fill_available(user_id, AVAILABLE_TTL, load).await?;
            gifts.store.cache.hold(HoldAsk { rate_max: None, ..ask }).await
        }
        hold => Ok(hold),
    }
}

/// Handles a gift that the cache would refuse. The transaction decides, so that the refusal is in the table
/// before it is sent; but only for a limited number of each sender, so that no flood reaches the database.
async fn doubt(gifts: &Gifts, request: &GiftRequest, limit: Limit) -> Result<Step, Error> {
    let identity = &request.identity;
    if let Some(order) = remembered(gifts, identity).await {
        return Ok(repeat(gifts, request, &order));
    }
    match gifts.doubted.count(identity.sender_id, gifts.store.config.gift_refusals_per_minute) {
        true => Ok(Step::Queue),
        false => too_many(gifts, request, limit),
    }
}

/// Turns a gift away, and promises nothing.
fn too_many(gifts: &Gifts, request: &GiftRequest, limit: Limit) -> Result<Step, Error> {
    add(&gifts.counters.rate_limited, 1);
    match limit {
        Limit::Answered => Err(Error::too_many(Reason::RateLimited.text())),
        Limit::Told if may_be_told(gifts, request.identity.sender_id) => {
            Ok(direct(gifts, request, Reason::RateLimited))
        }
        Limit::Told => {
            Ok(Step::Decided(Decided { answer: Answer::Refused(Reason::RateLimited), told: None }))
        }
    }
}

/// Whether a sender may get one more message about a packet that is no gift, or too many.
fn may_be_told(gifts: &Gifts, sender_id: i64) -> bool {
    gifts.told.count(sender_id, TOLD_PER_MINUTE_MAX)
}

/// The answer in the cache, if there is one.
async fn remembered(gifts: &Gifts, identity: &Identity) -> Option<Order> {
    let text = gifts.store.cache.get(&held_of(identity)).await.ok()??;
    serde_json::from_str(&text).ok()
}

/// The first answer, or the error that another gift has this identity.
fn repeat(gifts: &Gifts, request: &GiftRequest, order: &Order) -> Step {
    add(&gifts.counters.repeats, 1);
    match order.answer_for(&request.contents) {
        answer @ Answer::Committed { .. } => Step::Decided(Decided { answer, told: None }),
        // Sent once more, under the same id: it is not known here whether the first message arrived.
        Answer::Refused(reason) => direct(gifts, request, reason),
    }
}

/// A refusal that is sent from here.
fn direct(gifts: &Gifts, request: &GiftRequest, reason: Reason) -> Step {
    let GiftRequest { identity, contents, .. } = request;
    let told = gifts.outbox.mention(message::failed(gifts.store.config.app, identity, contents, reason));
    Step::Decided(Decided { answer: Answer::Refused(reason), told: Some(told) })
}

async fn queue_and_wait(gifts: &Gifts, request: &GiftRequest) -> Result<Answer, Error> {
    let GiftRequest { identity, contents, .. } = request;
    let deadline = Instant::now() + Duration::from_millis(gifts.store.config.gift_wait_ms.into());
    let place = gifts.direct.try_reserve();
    let mut waiting = gifts.waiters.wait(identity, *contents, place.is_ok());
    let wait = async {
        let put = match place {
            Ok(place) => {
                place.send(request.clone());
                Ok(())
            }
            Err(_) => gifts.pushes.ask(request.clone()).await,
        };
        if let Err(error) = put {
            // The held coins are not in the queue, so the balance must be read again.
            let _ = gifts.store.cache.forget_available(&[identity.sender_id]).await;
            return Err(error);
        }
        waiting.answer().await.ok_or_else(undecided)
    };
    let waited = tokio::time::timeout_at(deadline, wait).await;
    if let Ok(Ok(answer)) = waited {
        return Ok(answer);
    }
    look(gifts, request).await?.ok_or_else(|| {
        add(&gifts.counters.unanswered, 1);
        waited.map_or_else(|_| undecided(), |error| error.err().unwrap_or_else(undecided))
    })
}

/// Whether a gift was decided after all.
async fn look(gifts: &Gifts, request: &GiftRequest) -> Result<Option<Answer>, Error> {
    let look = tokio::time::timeout(LOOK_TIME, gifts.looks.ask(request.identity.clone()));
    let order = look.await.map_err(|_| undecided())??;
    Ok(order.map(|order| order.answer_for(&request.contents)))
}

fn undecided() -> Error {
    Error::unavailable("undecided", "the gift was not decided in time; send the same again")
}

fn held_of(identity: &Identity) -> String {
    held_key(identity.sender_id, &identity.key)
}

/// Counts a gift for as long as it is under way.
struct UnderWay<'a>(&'a Gifts);

impl<'a> UnderWay<'a> {
    fn begin(gifts: &'a Gifts) -> Self {
        gifts.under_way.fetch_add(1, Ordering::Relaxed);
        Self(gifts)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long the hold of a gift's coins is remembered. A gift that is longer in the queue, and sent again, is
/// held twice, and decided once.
const HELD_TTL: Duration = Duration::from_secs(60);
/// How long a user's available coins are remembered. After that, coins are free again that were held for a
/// gift that never reached the queue.
const AVAILABLE_TTL: Duration = Duration::from_secs(30);
/// How many messages a minute a sender gets about packets that are no gifts, or too many.
const TOLD_PER_MINUTE_MAX: u32 = 60;
/// How long the last look may take.
const LOOK_TIME: Duration = Duration::from_secs(2);
