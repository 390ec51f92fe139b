//! Orders of coins.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use qrcode::QrCode;
use qrcode::render::svg;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::app::App;
use crate::error::{Error, ErrorBody};
use crate::http::body::{Body, Path};
use crate::http::caller::Caller;
use crate::http::internal::Internal;
use crate::orders::{self, Wanted, name, unknown};
use crate::tables::pay_order::{self, OrderRow};

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
    /// The caller's own id for the order, 1 to 64 bytes, unique for the user. The same order under the same
    /// id is made once.
    id: String,
    /// What is ordered.
    product_id: i64,
    /// The business code of the message to the payer about the outcome: 5561 unless given.
    biz_code: Option<i32>,
}

/// The answer to an order: where to pay it.
#[derive(Serialize, ToSchema)]
#[schema(as = OrderMade, examples(json!({ "order_id": "0f3a62a1c55f4c3d9d1f5a0b7c8e9d01", "pay_url": "http://127.0.0.1:5348/mock/pay/0f3a62a1c55f4c3d9d1f5a0b7c8e9d01", "qr_url": "http://127.0.0.1:5348/orders/0f3a62a1c55f4c3d9d1f5a0b7c8e9d01/qr.svg", "expires_ms": 1763000042123_i64 })))]
struct Made {
    /// The order's id, for the provider and everybody else.
    order_id: String,
    /// Where it is paid.
    pay_url: String,
    /// A picture of `pay_url`, as a QR code; it needs no login, and works until the order expires.
    qr_url: String,
    /// When it expires, in ms since 1970.
    expires_ms: i64,
}

/// An order.
#[derive(Serialize, ToSchema)]
struct Order {
    /// The order's id.
    order_id: String,
    /// The caller's own id for it.
    id: String,
    /// The user who ordered it.
    user_id: i64,
    /// What is ordered.
    product_id: i64,
    /// What it costs, in cents.
    amount_cents: i64,
    /// Coins that it buys.
    coins: i64,
    /// `waiting`: it is made; `paying`: the payer has its link; `paid`: the coins are in the wallet;
    /// `expired`: not paid in time.
    status: &'static str,
    /// It was paid after it had expired. The coins are in the wallet all the same.
    late: bool,
    /// The business code of the message to the payer.
    biz_code: i32,
    /// When it was made, in ms since 1970.
    created_ms: i64,
    /// When it expires, or has.
    expires_ms: i64,
    /// When it was paid.
    paid_ms: Option<i64>,
    /// When a payment of it last failed.
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
    let OrderBody { id, product_id, biz_code } = body;
    let wanted = Wanted { client_key: id, product_id, biz_code: biz_code.unwrap_or(BIZ_CODE_DEFAULT) };
    let order = orders::place(&app.store, caller.user_id, wanted).await?;
    Ok(Json(Made {
        pay_url: pay_url(&app, &order),
        qr_url: format!("{}/orders/{}/qr.svg", public_url(&app), order.id),
        expires_ms: order.expires_ms,
        order_id: order.id,
    }))
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

/// The QR code of the link by which an order is paid, until that expires. It needs no login, so that any
/// viewer can load it: an order's id cannot be guessed, and the picture shows only the link.
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

/// Orders that people must look at, because the provider's callback does not fit them.
#[utoipa::path(get, path = "/internal/orders/flagged", responses((status = 200, body = Orders)))]
async fn flagged(State(app): State<Arc<App>>, _: Internal) -> Result<Json<Orders>, Error> {
    let rows = pay_order::flagged(app.store.db.replica(), FLAGGED_MAX).await?;
    Ok(Json(Orders { orders: rows.into_iter().map(Order::from).collect() }))
}

/// Nobody learns whether another user has an order of this id.
async fn own(app: &App, caller: &Caller, id: &str) -> Result<OrderRow, Error> {
    let order = pay_order::get(app.store.reader(&name(caller.user_id)).await, id).await?;
    order.filter(|order| order.user_id == caller.user_id).ok_or_else(unknown)
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
const FLAGGED_MAX: u32 = 100;
const PICTURE_PX: u32 = 240;
