//! Orders of coins.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use logs::warn;
use qrcode::QrCode;
use qrcode::render::svg;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::product;
use crate::app::App;
use crate::error::{Error, ErrorBody};
use crate::http::body::{Body, Path};
use crate::http::caller::Caller;
use crate::http::internal::Internal;
use crate::queue::{Queue, Topic};
use crate::random;
use crate::tables::pay_order::{self, OrderRow, Status};

/// The routes.
pub fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new()
        .routes(routes!(create))
        .routes(routes!(find))
        .routes(routes!(picture))
        .routes(routes!(flagged))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "id": "my first order", "product_id": 1 })))]
struct OrderBody {
    /// The caller's own name for the order, 1 to 64 bytes, unique for the user. The same order under the same
    /// name is made once.
    id: String,
    /// What is ordered.
    product_id: i64,
    /// Under which business code the payer is told of the outcome: 5561 unless given.
    biz_code: Option<i32>,
}

/// Where an order is paid.
#[derive(Serialize, ToSchema)]
#[schema(as = OrderMade, examples(json!({ "order_id": "0f3a62a1c55f4c3d9d1f5a0b7c8e9d01", "pay_url": "http://127.0.0.1:5348/mock/pay/0f3a62a1c55f4c3d9d1f5a0b7c8e9d01", "qr_url": "http://127.0.0.1:5348/orders/0f3a62a1c55f4c3d9d1f5a0b7c8e9d01/qr.svg", "expires_ms": 1763000042123_i64 })))]
struct Made {
    /// Which, for the provider and everybody else.
    order_id: String,
    /// Where it is paid.
    pay_url: String,
    /// A picture of `pay_url`, as a QR code; it wants no login, and is there until the order expires.
    qr_url: String,
    /// When it expires, in ms since 1970.
    expires_ms: i64,
}

/// An order.
#[derive(Serialize, ToSchema)]
struct Order {
    /// Which.
    order_id: String,
    /// The caller's own name for it.
    id: String,
    /// Whose.
    user_id: i64,
    /// What is ordered.
    product_id: i64,
    /// What it costs, in cents.
    amount_cents: i64,
    /// What it gives, in coins.
    coins: i64,
    /// `waiting`: it is made; `paying`: its link is out; `paid`: the coins are in the wallet; `expired`: not
    /// paid in time.
    status: &'static str,
    /// It was paid after it had expired. The coins are in the wallet all the same.
    late: bool,
    /// Under which business code the payer is told.
    biz_code: i32,
    /// When it was made, in ms since 1970.
    created_ms: i64,
    /// When it expires, or has.
    expires_ms: i64,
    /// When it was paid.
    paid_ms: Option<i64>,
    /// When a try to pay it failed last.
    failed_ms: Option<i64>,
    /// For people to look at: `wrong_amount`, `paid_twice`, `trade_reused`.
    flag: Option<String>,
}

/// Orders in a list.
#[derive(Serialize, ToSchema)]
struct Orders {
    /// The latest first; at most 100.
    orders: Vec<Order>,
}

/// Orders coins. The same order once more, under the same `id`, gets the same answer; another one under it is
/// refused.
#[utoipa::path(post, path = "/orders", security(("login" = [])), request_body = OrderBody, responses(
    (status = 200, body = Made), (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
    (status = 409, body = ErrorBody), (status = 429, body = ErrorBody)))]
async fn create(
    State(app): State<Arc<App>>,
    caller: Caller,
    Body(body): Body<OrderBody>,
) -> Result<Json<Made>, Error> {
    if !(1..=ID_BYTES_MAX).contains(&body.id.len()) {
        return Err(Error::bad_request(format!("id: want 1 to {ID_BYTES_MAX} bytes")));
    }
    if app.store.config.pay_url.is_empty() && !app.store.config.mock {
        return Err(Error::new(
            axum::http::StatusCode::FORBIDDEN,
            "payment_off",
            "backend.pay_url is not set",
        ));
    }
    let biz_code = body.biz_code.unwrap_or(BIZ_CODE_DEFAULT);
    let order = match pay_order::of_key(app.store.db.primary(), caller.user_id, &body.id).await? {
        Some(order) => order,
        None => insert(&app, caller.user_id, &body, biz_code).await?,
    };
    if (order.product_id, order.biz_code) != (body.product_id, biz_code) {
        return Err(Error::conflict("id_reused", "id: another order has this id; choose a new one"));
    }
    if order.status == Status::Waiting {
        schedule_expiry(&app, &order).await;
        // If it has another status already, this was a repeat that is as good.
        pay_order::advance(app.store.db.writer(), &order.id, Status::Waiting, Status::Paying).await?;
    }
    app.store.wrote(&name(caller.user_id)).await;
    Ok(Json(Made {
        pay_url: pay_url(&app, &order),
        qr_url: format!("{}/orders/{}/qr.svg", public_url(&app), order.id),
        expires_ms: order.expires_ms,
        order_id: order.id,
    }))
}

/// The price is what the database says at this moment, whatever the caller saw.
async fn insert(app: &App, user_id: i64, body: &OrderBody, biz_code: i32) -> Result<OrderRow, Error> {
    limit(app, user_id).await?;
    let most = app.store.config.orders_open_max;
    if pay_order::open_of_user(app.store.db.primary(), user_id).await? >= i64::from(most) {
        let message = format!("{most} orders are unpaid; pay one, or wait until one expires");
        return Err(Error::conflict("orders_open", message));
    }
    let product = crate::tables::product::get(app.store.db.primary(), body.product_id).await?;
    let product = product.filter(|product| product.is_on_sale).ok_or_else(product::unknown)?;
    let created_ms = app.store.clock.now_ms();
    let order = OrderRow {
        id: random::hex::<16>(),
        user_id,
        client_key: body.id.clone(),
        product_id: product.id,
        amount_cents: product.price_cents,
        coins: product.coins,
        status: Status::Waiting,
        biz_code,
        created_ms,
        expires_ms: created_ms + i64::from(app.store.config.order_ttl_s) * 1_000,
        is_late: false,
        paid_ms: None,
        failed_ms: None,
        provider_trade_no: None,
        flag: None,
    };
    if pay_order::insert(app.store.db.writer(), &order).await? {
        return Ok(order);
    }
    // The same request came twice at once, and the other one was quicker.
    let other = pay_order::of_key(app.store.db.primary(), user_id, &body.id).await?;
    other.ok_or_else(|| Error::internal("an order is there and is not"))
}

/// A cache that is away limits nobody.
async fn limit(app: &App, user_id: i64) -> Result<(), Error> {
    match app.store.cache.count(&format!("orders:{user_id}"), Duration::from_secs(60)).await {
        Ok(count) if count > ORDERS_PER_MINUTE_MAX => {
            Err(Error::too_many(format!("want at most {ORDERS_PER_MINUTE_MAX} orders in a minute")))
        }
        _ => Ok(()),
    }
}

/// Without its job an order is found by the sweep.
async fn schedule_expiry(app: &App, order: &OrderRow) {
    let left = Duration::from_millis((order.expires_ms - app.store.clock.now_ms()).max(0) as u64);
    if let Err(error) = app.store.queue.push(Topic::OrderExpiry, std::slice::from_ref(&order.id), left).await
    {
        warn!(%error, order = order.id, "cannot queue the expiry of an order; the sweep will expire it");
    }
}

/// One of the caller's orders.
#[utoipa::path(get, path = "/orders/{id}", security(("login" = [])), params(("id" = String, Path, description = "Its `order_id`.")),
    responses((status = 200, body = Order), (status = 404, body = ErrorBody)))]
async fn find(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Order>, Error> {
    Ok(Json(own(&app, &caller, &id).await?.into()))
}

/// The QR code of the link by which an order is paid, until that expires. It wants no login, so that whatever
/// shows pictures can load it: an order's id cannot be guessed, and the picture says what its link says.
#[utoipa::path(get, path = "/orders/{id}/qr.svg", params(("id" = String, Path, description = "Its `order_id`.")),
    responses((status = 200, content_type = "image/svg+xml"), (status = 404, body = ErrorBody)))]
async fn picture(State(app): State<Arc<App>>, Path(id): Path<String>) -> Result<Response, Error> {
    // From the primary: a replica may not know yet what was just ordered.
    let order = pay_order::get(app.store.db.primary(), &id).await?;
    let order = order.filter(|order| order.expires_ms > app.store.clock.now_ms()).ok_or_else(unknown)?;
    let code =
        QrCode::new(pay_url(&app, &order)).map_err(|error| Error::internal(format!("pay_url: {error}")))?;
    let picture = code.render::<svg::Color<'_>>().min_dimensions(PICTURE_PX, PICTURE_PX).build();
    let headers = [(header::CONTENT_TYPE, "image/svg+xml"), (header::CACHE_CONTROL, "private, max-age=60")];
    Ok((headers, picture).into_response())
}

/// Orders that people have to look at, since what the provider told of them does not fit.
#[utoipa::path(get, path = "/internal/orders/flagged", responses((status = 200, body = Orders)))]
async fn flagged(State(app): State<Arc<App>>, _: Internal) -> Result<Json<Orders>, Error> {
    let rows = pay_order::flagged(app.store.db.replica(), FLAGGED_MAX).await?;
    Ok(Json(Orders { orders: rows.into_iter().map(Order::from).collect() }))
}

/// Nobody learns whether others have an order of this id.
async fn own(app: &App, caller: &Caller, id: &str) -> Result<OrderRow, Error> {
    let order = pay_order::get(app.store.reader(&name(caller.user_id)).await, id).await?;
    order.filter(|order| order.user_id == caller.user_id).ok_or_else(unknown)
}

/// Under which it is known that a user's orders were written of late.
pub fn name(user_id: i64) -> String {
    format!("orders:{user_id}")
}

/// What is said of an order that is not there, or is another user's.
pub fn unknown() -> Error {
    Error::not_found("there is no such order")
}

fn public_url(app: &App) -> String {
    match app.store.config.public_url.as_str() {
        "" => format!("http://{}", app.store.config.listen),
        url => url.trim_end_matches('/').to_owned(),
    }
}

fn pay_url(app: &App, order: &OrderRow) -> String {
    match app.store.config.pay_url.as_str() {
        "" => format!("{}/mock/pay/{}", public_url(app), order.id),
        url => {
            url.replace("{order_id}", &order.id).replace("{amount_cents}", &order.amount_cents.to_string())
        }
    }
}

impl From<OrderRow> for Order {
    fn from(row: OrderRow) -> Self {
        Self {
            order_id: row.id,
            id: row.client_key,
            user_id: row.user_id,
            product_id: row.product_id,
            amount_cents: row.amount_cents,
            coins: row.coins,
            status: row.status.name(),
            late: row.is_late,
            biz_code: row.biz_code,
            created_ms: row.created_ms,
            expires_ms: row.expires_ms,
            paid_ms: row.paid_ms,
            failed_ms: row.failed_ms,
            flag: row.flag,
        }
    }
}

/// The longest name that a caller gives an order.
const ID_BYTES_MAX: usize = 64;
const BIZ_CODE_DEFAULT: i32 = 5561;
const ORDERS_PER_MINUTE_MAX: i64 = 60;
const FLAGGED_MAX: u32 = 100;
const PICTURE_PX: u32 = 240;
