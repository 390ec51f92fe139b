//! The callbacks of payment providers.
//!
//! One transaction moves the order once, credits account and ledger, and puts the outcome into the outbox; so
//! a callback that comes twice, late, or from two processes at once pays once.

use hmac::{Hmac, KeyInit, Mac};
use logs::{error, info, warn};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::Sha256;
use utoipa::ToSchema;

use crate::app::App;
use crate::db::{Tx, insist};
use crate::error::Error;
use crate::metrics::Family;
use crate::outbox::{Message, Target};
use crate::tables::account::{self, Entry};
use crate::tables::outbox;
use crate::tables::pay_order::{self, OrderRow, Pay, Payment, Status, TRADE_NO_BYTES_MAX};
use crate::{hex, orders};

/// A provider's report of a payment.
#[derive(Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PaymentCallback, examples(json!({ "order_id": "0f3a62a1c55f4c3d9d1f5a0b7c8e9d01", "trade_no": "2026113022001", "amount_cents": 990, "status": "paid", "timestamp_ms": 1763000042123_i64 })))]
pub struct Callback {
    /// The order, as the provider knows it.
    pub order_id: String,
    /// The provider's number of the payment, 1 to 96 bytes; unlike that of any other payment.
    pub trade_no: String,
    /// What was paid, in cents.
    pub amount_cents: i64,
    /// The outcome of the payment.
    pub status: Outcome,
    /// When this was signed, in ms since 1970; valid for 15 minutes.
    pub timestamp_ms: i64,
}

/// The outcome of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = PaymentOutcome)]
pub enum Outcome {
    /// The money came.
    Paid,
    /// It did not.
    Failed,
}

/// The state of the order; the same for every repeat of a callback.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = PaymentAnswer, examples(json!({ "order_id": "0f3a62a1c55f4c3d9d1f5a0b7c8e9d01", "status": "paid", "coins": 100, "late": false })))]
pub struct Answer {
    /// Which.
    order_id: String,
    /// `paid`; after a failed payment what it was: `waiting`, `paying`, `expired` or `paid`.
    status: &'static str,
    /// What it gives, in coins.
    coins: i64,
    /// It had expired when it was paid.
    late: bool,
}

/// Takes a provider's callback.
pub async fn take(app: &App, provider: &str, signature: &str, body: &[u8]) -> Result<Answer, Error> {
    if provider != PROVIDER && !(provider == MOCK && app.store.config.mock) {
        return Err(Error::not_found("there is no such provider"));
    }
    let callback = check(app, signature, body).inspect_err(|error| {
        warn!(%error, provider, "a payment callback is refused");
    })?;
    insist(|| settle(app, provider, &callback)).await
}

/// Parses a callback, if the provider has signed it lately.
fn check(app: &App, signature: &str, body: &[u8]) -> Result<Callback, Error> {
    let secret = app.store.config.provider_secret.as_bytes();
    if secret.is_empty() {
        return Err(Error::unauthorized("no secret is set for payment callbacks"));
    }
    let given = hex::bytes(signature).unwrap_or_default();
    let checked = keyed(secret).chain_update(body).verify_slice(&given); // in constant time
    checked.map_err(|_| Error::unauthorized("X-Signature is not right"))?;
    let callback: Callback = serde_json::from_slice(body).map_err(Error::bad_request)?;
    let age_ms = app.store.clock.now_ms().checked_sub(callback.timestamp_ms);
    if !age_ms.is_some_and(|age_ms| (-AGE_MS_MAX..=AGE_MS_MAX).contains(&age_ms)) {
        return Err(Error::unauthorized("timestamp_ms: want a time within 15 minutes of the server's"));
    }
    if !(1..=TRADE_NO_BYTES_MAX).contains(&callback.trade_no.len()) {
        return Err(Error::bad_request(format!("trade_no: want 1 to {TRADE_NO_BYTES_MAX} bytes")));
    }
    Ok(callback)
}

/// The result for the payer and the provider, and what is committed with it.
enum Settled {
    /// There is nothing to do.
    Known(Answer),
    /// The coins are credited.
    Credited(Answer, Vec<(i64, Message)>),
    /// It cannot be booked; people must look at it.
    Flagged(Error),
}

async fn settle(app: &App, provider: &str, callback: &Callback) -> Result<Answer, Error> {
    let mut tx = app.store.db.begin().await?;
    let order = pay_order::lock(&mut tx, app.store.db.dialect(), &callback.order_id).await?;
    let Some(order) = order else {
        warn!(
            provider,
            order = callback.order_id,
            trade_no = callback.trade_no,
            "a payment callback names no order that exists"
        );
        return Err(orders::unknown());
    };
    let settled = settle_in(app, &mut tx, provider, callback, &order).await?;
    tx.commit().await?;
    match settled {
        Settled::Known(answer) => {
            app.metrics.add(PAYMENTS, "known", 1);
            Ok(answer)
        }
        Settled::Flagged(refusal) => {
            app.metrics.add(PAYMENTS, "flagged", 1);
            let Callback { trade_no, amount_cents, .. } = callback;
            error!(%refusal, order = order.id, provider, trade_no, amount_cents, "a payment is flagged: look at GET /internal/orders/flagged");
            Err(refusal)
        }
        Settled::Credited(answer, messages) => {
            app.metrics.add(PAYMENTS, if answer.late { "late" } else { "paid" }, 1);
            app.outbox.hand_over(messages);
            info!(order = order.id, user_id = order.user_id, coins = order.coins, late = answer.late, "paid");
            app.store.wrote(&orders::name(order.user_id)).await;
            if let Err(error) = app.store.cache.forget_available(&[order.user_id]).await {
                warn!(%error, user_id = order.user_id, "the cache could not be updated: the new coins are available when the cached amount expires");
            }
            Ok(answer)
        }
    }
}

async fn settle_in(
    app: &App,
    tx: &mut Tx,
    provider: &str,
    callback: &Callback,
    order: &OrderRow,
) -> Result<Settled, Error> {
    if callback.amount_cents != order.amount_cents {
        let message = format!("amount_cents: want {}, as the order says", order.amount_cents);
        return flag(tx, order, "wrong_amount", message).await;
    }
    if callback.status == Outcome::Failed {
        if order.status != Status::Paid {
            pay_order::note_failure(tx, &order.id, app.store.clock.now_ms()).await?;
        }
        return Ok(Settled::Known(answer(order, order.status, order.is_late)));
    }
    if order.status == Status::Paid {
        if order.provider_trade_no.as_deref() == Some(&callback.trade_no) {
            return Ok(Settled::Known(answer(order, Status::Paid, order.is_late)));
        }
        return flag(tx, order, "paid_twice", "the order is paid already, by another trade_no").await;
    }
    let paid_ms = app.store.clock.now_ms();
    let payment = Payment { provider, trade_no: &callback.trade_no, paid_ms };
    match pay_order::pay(tx, &order.id, order.status, &payment).await? {
        Pay::Done => {}
        Pay::TradeTaken => {
            return flag(tx, order, "trade_reused", "trade_no: it has paid another order").await;
        }
        Pay::Moved => return Err(Error::internal("a locked order has moved")),
    }
    let answer = answer(order, Status::Paid, order.status == Status::Expired);
    let message = credit(app, tx, order, &answer, paid_ms).await?;
    Ok(Settled::Credited(answer, message))
}

/// Writes account, ledger and outbox, in the order's transaction.
async fn credit(
    app: &App,
    tx: &mut Tx,
    order: &OrderRow,
    answer: &Answer,
    now_ms: i64,
) -> Result<Vec<(i64, Message)>, Error> {
    account::credit(tx, app.store.db.dialect(), order.user_id, order.coins).await?;
    let entry = Entry {
        user_id: order.user_id,
        amount: order.coins,
        kind: "recharge",
        reference: order.id.clone().into_bytes(),
    };
    account::record(tx, &[entry], now_ms).await?;
    let payload = json!({
        "orderId": order.id, "coins": order.coins, "status": answer.status, "late": answer.late,
    });
    let message = Message {
        key: format!("recharge-{}", order.id),
        app: app.store.config.app,
        target: Target::User(order.user_id),
        biz_code: order.biz_code,
        payload: payload.to_string(),
    };
    let ids = outbox::insert(tx, std::slice::from_ref(&message), now_ms).await?;
    Ok(ids.into_iter().zip([message]).collect())
}

async fn flag(
    tx: &mut Tx,
    order: &OrderRow,
    code: &'static str,
    message: impl std::fmt::Display,
) -> Result<Settled, Error> {
    pay_order::set_flag(tx, &order.id, code).await?;
    Ok(Settled::Flagged(Error::conflict(code, message)))
}

fn answer(order: &OrderRow, status: Status, late: bool) -> Answer {
    Answer { order_id: order.id.clone(), status: status.name(), coins: order.coins, late }
}

/// Signs a callback as a provider does.
pub fn sign(secret: &[u8], body: &[u8]) -> String {
    hex::text(&keyed(secret).chain_update(body).finalize().into_bytes())
}

fn keyed(secret: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret).expect("HMAC takes a key of any length")
}

/// `paid`, `late`, `known` (a repeat, or a payment that failed), `flagged`.
const PAYMENTS: &Family = &Family {
    name: "sailfish_backend_payments_total",
    help: "Payment callbacks, by result.",
    label: "result",
};
/// The name of the provider whose secret is configured.
pub const PROVIDER: &str = "default";
/// The name of the mock provider.
pub const MOCK: &str = "mock";
/// How far the provider's clock may differ from ours, and how long a callback is valid.
const AGE_MS_MAX: i64 = 15 * 60 * 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf '%s' '{"order_id":"1"}' | openssl dgst -sha256 -hmac 'it is secret'`
    const SIGNATURE: &str = "e8c5073931ff993fa6a048ea75d7f90a0d6b5afc61da9e73ade46572ca24ce4f";

    #[test]
    fn a_signature_is_what_openssl_computes() {
        assert_eq!(sign(b"it is secret", br#"{"order_id":"1"}"#), SIGNATURE);
    }
}
